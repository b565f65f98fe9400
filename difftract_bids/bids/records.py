"""Records of finished runs: by which inputs and settings, so that the same work is not done twice.

One file a run, ``logs/finished/<stem>.json``, written when everything else is in its place and
made void before any of that is touched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftract_bids import __version__
from difftract_bids.bids.atlases import Atlas, parcellation_of
from difftract_bids.bids.given_files import own_path
from difftract_bids.bids.promises import missing_outputs
from difftract_bids.bids.uris import input_uri
from difftract_bids.config import Config, GroupConfig
from difftract_bids.config.toml import names_file, setting_values
from difftract_bids.io.atomic import write_json

if TYPE_CHECKING:
    from difftract_bids.bids.plan import Plan
    from difftract_bids.bids.runs import DWIRun

_FOLDER = Path("logs") / "finished"
#: Files up to this size are known by their content, which copying and fetching do not change.
_SMALL_BYTES = 1 << 20


@dataclass(frozen=True)
class Record:
    """What is known of a finished run.

    Attributes
    ----------
    fingerprint
        Of its inputs and settings; empty where the run has been begun again since.
    outputs
        Files that it left, relative to the derivatives folder.
    earlier
        Files that runs with other settings left and this one did not replace.
    logs
        Folder of logs of the run of the app, relative to the derivatives folder.
    """

    fingerprint: str
    outputs: tuple[str, ...]
    earlier: tuple[str, ...] = ()
    logs: str = ""


def record_path(stem: str) -> Path:
    """Where the record of a run lies, relative to the derivatives folder."""
    return _FOLDER / f"{stem}.json"


def read_record(output_dir: Path, stem: str) -> Record | None:
    """Read the record of a run; ``None`` if there is none, or none that can be read."""
    try:
        content = json.loads((output_dir / record_path(stem)).read_text(encoding="utf-8"))
        return Record(
            str(content["Fingerprint"]),
            tuple(map(str, content["Outputs"])),
            tuple(map(str, content.get("EarlierOutputs", ()))),
            str(content.get("Logs", "")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def void_record(output_dir: Path, stem: str) -> None:
    """Say that a run is no longer finished; which files it left stays known."""
    record = read_record(output_dir, stem)
    path = output_dir / record_path(stem)
    if record is None:
        path.unlink(missing_ok=True)
    else:
        content = {
            "Fingerprint": "",
            "Outputs": list(record.outputs),
            "EarlierOutputs": list(record.earlier),
        }
        write_json(path, content)


def is_begun(output_dir: Path, stem: str) -> bool:
    """Say whether a finished run has been begun again, and has not been finished since."""
    record = read_record(output_dir, stem)
    return record is not None and not record.fingerprint


def records_of(output_dir: Path, participant: str) -> list[Record]:
    """Read the valid records of all runs of a participant, those that are not planned now too."""
    own = _valid(output_dir, f"sub-{participant}.json", f"sub-{participant}_*.json")
    return list(own.values())


def all_records(output_dir: Path) -> dict[str, Record]:
    """Read the valid records of a derivatives folder, by the names of the runs."""
    return _valid(output_dir, "*.json")


def _valid(output_dir: Path, *patterns: str) -> dict[str, Record]:
    paths = sorted(path for pattern in patterns for path in (output_dir / _FOLDER).glob(pattern))
    found = {path.stem: read_record(output_dir, path.stem) for path in paths}
    return {stem: record for stem, record in found.items() if record and record.fingerprint}


def earlier_outputs(plan: Plan) -> list[str]:
    """List the files that earlier runs with other settings left beside those of this plan."""
    records = (read_record(plan.output_dir, run.stem) for run in plan.runs)
    paths = sorted({path for record in records if record for path in record.earlier})
    return [path for path in paths if (plan.output_dir / path).is_file()]


def is_finished(plan: Plan, run: DWIRun) -> bool:
    """Say whether a run was done with the same version, inputs and settings, and is all there."""
    record = read_record(plan.output_dir, run.stem)
    return (
        record is not None
        and record.fingerprint == fingerprint(plan, run)
        and not missing_outputs(plan.output_dir, plan.promised(run))
    )


def new_record(plan: Plan, run: DWIRun, *, run_uuid: str) -> dict[str, Any]:
    """Make the record that a run gets when it is finished.

    Parameters
    ----------
    plan, run
        What is done.
    run_uuid
        Identifier of the run of the app, the name of its folder of logs.
    """
    outputs = sorted(set(plan.promised(run)))
    before = read_record(plan.output_dir, run.stem)
    known = {*before.outputs, *before.earlier} if before else set()
    earlier = [path for path in known - set(outputs) if (plan.output_dir / path).is_file()]
    return {
        "Fingerprint": fingerprint(plan, run),
        "Version": __version__,
        "Logs": f"logs/{run_uuid}",
        "Outputs": outputs,
        "EarlierOutputs": sorted(earlier),
    }


def fingerprint(plan: Plan, run: DWIRun) -> str:
    """Sum up what decides the results of a run: version, settings, and the state of every input.

    The state of a small file is its content, that of a large one its size and time. CPUs and
    memory have no part in it.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    decided = {
        "version": __version__,
        "settings": without_places(plan.config).to_toml(),
        "run": run.file_entities,
        "inputs": [[input_uri(path, plan.datasets), _state(path)] for path in _inputs(run)],
        "sidecars": [part.metadata for part in run.parts],
        "atlases": [[atlas.name, *_atlas_state(atlas, run)] for atlas in plan.atlases],
        "given": [[name, _state(path)] for name, path in _given(plan.config, run)],
        "decisions": [
            run.distortion.method,
            [asdict(one.phase_encoding) for one in run.fieldmaps.opposed],
            run.fodf_model.name,
            run.is_constrained,
            run.preprocessed.origin if run.preprocessed else "",
            run.anatomy.origin,
        ],
    }
    text = json.dumps(decided, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def without_places(config: Config) -> Config:
    """Give the settings that decide results, without where files are, which machines differ in."""
    return replace(
        config,
        group=GroupConfig(),
        atlases=tuple(spec.partition("=")[0] for spec in config.atlases),
        derivatives=tuple(spec.partition("=")[0] for spec in config.derivatives),
    )


def _inputs(run: DWIRun) -> list[Path]:
    fieldmaps = [
        path for one in run.fieldmaps.opposed for path in (one.image, one.bval) if path is not None
    ]
    return list(dict.fromkeys([*run.files, *fieldmaps]))


def _atlas_state(atlas: Atlas, run: DWIRun) -> list[str]:
    if atlas.kind == "template":
        return [str(atlas.template), _state(atlas.image), _state(atlas.table)]
    own = parcellation_of(atlas, run)
    return [own.space, _state(own.image), _state(own.table)]


def _given(config: Config, run: DWIRun) -> Iterator[tuple[str, Path]]:
    """List the files, and those in folders, that settings name for a run."""
    for item, value in setting_values(config):
        for entry in value if isinstance(value, tuple) else (value,):
            if not isinstance(entry, str) or not names_file(item):
                continue
            path = Path(own_path(entry, item.name, run))
            if path.is_file():
                yield item.name, path
            elif path.is_dir():
                yield from ((item.name, one) for one in sorted(path.iterdir()) if one.is_file())


def _state(path: Path) -> str:
    stat = path.stat()
    if stat.st_size <= _SMALL_BYTES:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{stat.st_size} bytes, {stat.st_mtime_ns} ns"
