"""What a run must leave behind, file by file (but the report), and what of it is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from difftract_bids.bids.figures import promised_figures
from difftract_bids.bids.layout import derivative_path
from difftract_bids.bids.outputs import (
    OUTPUTS,
    Output,
    is_wanted,
    output_path,
    sensitivity_entities,
    sensitivity_maps,
)
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config


def promised_outputs(
    run: DWIRun, atlases: Sequence[str], config: Config, templates: Sequence[str] = ()
) -> Iterator[str]:
    """List every file that a run must leave behind, relative to the derivatives folder.

    Parameters
    ----------
    run, config
        What was to be done.
    atlases
        Names of the atlases.
    templates
        Names of the templates that were to be registered to the run.
    """
    for key, output in OUTPUTS.items():
        if not is_wanted(key, run, config):
            continue
        for atlas, template in _each(output, atlases, templates):
            if key == "dwi_to_template" and template in run.anatomy.from_template:
                continue  # of what others registered only the way here is known
            path = output_path(run, key, config, atlas, template)
            yield path
            if output.sidecar:
                yield _sidecar_of(path)
    for atlas, target in run.edge_targets:
        for key in sensitivity_maps(run):
            entities = {**run.entities, **sensitivity_entities(key, atlas, target)}
            path = derivative_path(entities)
            yield path
            yield _sidecar_of(path)
    yield from promised_figures(run, atlases, config, templates)


def missing_outputs(output_dir: Path, promised: Iterable[str]) -> list[str]:
    """List the promised files that do not exist, or are empty."""
    return sorted(
        path
        for path in set(promised)
        if not (output_dir / path).is_file() or not (output_dir / path).stat().st_size
    )


def is_report_part(path: str) -> bool:
    """Say whether a promised file is there for the report alone: a figure, or the checks."""
    entities = OUTPUTS["checks"].entities
    checks = f"_desc-{entities['desc']}_{entities['suffix']}."
    return "/figures/" in path or checks in path


def _each(
    output: Output, atlases: Sequence[str], templates: Sequence[str]
) -> list[tuple[str | None, str | None]]:
    if output.per_template:
        return [(None, template) for template in templates]
    return [(atlas, None) for atlas in atlases] if output.per_atlas else [(None, None)]


def _sidecar_of(path: str) -> str:
    return str(Path(path).parent / (Path(path).name.split(".", 1)[0] + ".json"))
