"""What the report shows of a run: one table, used to name the figures and to promise them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from difftract_bids.bids import stages
from difftract_bids.bids.layout import derivative_path
from difftract_bids.bids.outputs import Condition
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config


@dataclass(frozen=True)
class Figure:
    """A kind of figure.

    Attributes
    ----------
    when
        Whether a run has it, by its files and the settings.
    each
        What there is one of for each; of edges, for each that is asked for by name.
    """

    when: Condition = lambda _run, _config: True
    each: Literal["run", "template", "atlas", "edge"] = "run"


#: Measures that the second figure of a connectome shows, of which it shows those there are.
EDGE_MEASURES = ("sift2", "meanfa", "meanlength")


def edge_measures(config: Config) -> list[str]:
    """List the measures that the second figure of a connectome shows."""
    return [name for name in EDGE_MEASURES if name in config.connectome.connectome_measures]


FIGURES = {
    "summary": Figure(),
    "gradients": Figure(),
    "denoising": Figure(
        lambda run, config: stages.is_denoised(run, config) and stages.has_noise_map(run, config)
    ),
    "motion": Figure(stages.corrects_motion),
    "mask": Figure(),
    "coreg": Figure(lambda run, _: stages.has_t1w(run)),
    "tissue": Figure(stages.makes_tissue),
    "template": Figure(each="template"),
    "fa": Figure(),
    "response": Figure(lambda run, _: run.fodf_model.is_fitted),
    "tissues": Figure(lambda run, _: run.fodf_model.is_multi_tissue),
    "fodf": Figure(),
    "refinement": Figure(lambda run, _: run.refinement is not None),
    "tractogram": Figure(),
    "parcellation": Figure(each="atlas"),
    "connectome": Figure(each="atlas"),
    "edges": Figure(lambda _, config: bool(edge_measures(config)), each="atlas"),
    "errors": Figure(lambda _, config: config.sensitivity.edge_standard_errors, each="atlas"),
    "sensitivity": Figure(each="edge"),
}


def has_figure(desc: str, run: DWIRun, config: Config) -> bool:
    """Say whether a run has a figure, by its files and the settings."""
    return FIGURES[desc].when(run, config)


def figure_entities(
    desc: str, atlas: str | None = None, label: str | None = None
) -> dict[str, str]:
    """Entities of a figure (or snippet) of the report."""
    extension = ".html" if desc == "summary" else ".svg"
    entities = {"datatype": "figures", "desc": desc, "suffix": "dwi", "extension": extension}
    entities |= {"atlas": atlas} if atlas else {}
    return entities | ({"label": label} if label else {})


def promised_figures(
    run: DWIRun, atlases: Sequence[str], config: Config, templates: Sequence[str] = ()
) -> Iterator[str]:
    """List the figures of a run, relative to the derivatives folder."""
    for desc, figure in FIGURES.items():
        if not has_figure(desc, run, config):
            continue
        of_each: dict[str, list[dict[str, str]]] = {
            "run": [figure_entities(desc)],
            "template": [figure_entities(desc, label=template) for template in templates],
            "atlas": [figure_entities(desc, atlas) for atlas in atlases],
            "edge": [
                figure_entities(desc, atlas, target.desc) for atlas, target in run.edge_targets
            ],
        }
        for entities in of_each[figure.each]:
            yield derivative_path({**run.entities, **entities})
