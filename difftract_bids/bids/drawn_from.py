"""What figures of a finished run are drawn from: its derivatives, as far as they are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftract_bids.bids.figures import told_measures
from difftract_bids.bids.outputs import is_wanted, output_path, tracked_in
from difftract_bids.bids.stages import has_t1w, makes_tissue

if TYPE_CHECKING:
    from difftract_bids.bids.atlases import Atlas
    from difftract_bids.bids.plan import Plan
    from difftract_bids.bids.runs import DWIRun

#: Inputs of the figures of a run, by the outputs that they are.
_OF_RUN = {
    "dwi": "preproc_dwi",
    "bval": "preproc_bval",
    "bvec": "preproc_bvec",
    "mask": "mask",
    "dwiref": "dwiref",
    "fa": "fa",
    # A colour has the direction, and anisotropy is given besides.
    "v1": "colour_fa",
    "sigma": "sigma",
    "confounds": "confounds",
    "outliers": "outliers",
    "t1w_dwi": "t1w_dwi",
    "response_wm": "response_wm",
    "response_gm": "response_gm",
    "response_csf": "response_csf",
    "tractogram": "tractogram",
    "earlier": "checks",
}
_FODFS = {"fodf_gm": "fodf_gm", "fodf_csf": "fodf_csf"}


def run_sources(plan: Plan, run: DWIRun) -> dict[str, Any]:
    """Find what there is of a run, by the names of the inputs of its figures.

    ``tractogram`` stands for the streamlines' preview and summary, which are not saved.
    """
    tracked = tracked_in(run, plan.config)
    fodf = "fodf" if tracked == "preproc_dwi" else tracked
    found: dict[str, Any] = _there(plan, run, {**_OF_RUN, "fodf": fodf, **_FODFS})
    for key, field, needed in (
        (fodf, "fodf_metadata", "FODFModel"),
        ("tractogram", "tractogram_metadata", "Counts"),
    ):
        content = _sidecar(_path(plan, run, key))
        if needed in content:
            found[field] = content
    if not _is_in_mrtrix_basis(found.get("fodf_metadata", {})):  # which is the one that is drawn
        for field in ("fodf", *_FODFS):
            found.pop(field, None)
    notes = _sidecar(_path(plan, run, "checks")).get("Notes")
    if isinstance(notes, list):
        found["notes"] = [str(note) for note in notes]
    return found


def counts_of(plan: Plan, run: DWIRun) -> dict[str, Any]:
    """Find the matrices of counts of all atlases, and how many streamlines they connect."""
    sources = [atlas_sources(plan, run, atlas) for atlas in plan.atlases]
    if not sources or not all("streamlines" in one for one in sources):
        return {}
    found: dict[str, Any] = {"counts": [one["streamlines"] for one in sources]}
    assigned = [_sidecar(path).get("StreamlinesAssigned") for path in found["counts"]]
    if all(isinstance(number, int) for number in assigned):
        found["assigned"] = assigned
    return found


def tissue_sources(plan: Plan, run: DWIRun) -> dict[str, str]:
    """Find tissues and T1w, if the tissues were mapped here."""
    if not makes_tissue(run, plan.config):
        return {}
    found = _there(plan, run, {"five_tissue_types": "five_tissue_types", "t1w": "t1w_dwi"})
    return found if len(found) == 2 else {}


def template_sources(plan: Plan, run: DWIRun, template: str) -> dict[str, str]:
    """Find what joins a template to a run."""
    found = _there(plan, run, {"mask": "mask"})
    if has_t1w(run):
        found |= _there(plan, run, {"t1w": "t1w_dwi"})
    warp = plan.output_dir / output_path(run, "template_to_dwi", plan.config, template=template)
    return found | ({"warp": str(warp)} if warp.is_file() else {})


def atlas_sources(plan: Plan, run: DWIRun, atlas: Atlas) -> dict[str, str]:
    """Find parcellation and matrices of an atlas."""
    files = {measure: measure for measure in told_measures(plan.config)}
    files |= {"parcellation": "dseg", "table": "dseg_table", "nodeindices": "nodeindices"}
    files |= {"streamlines": "count", "sd": "edge_sd"}
    found = _there(plan, run, files, atlas.name)
    if not _has_all_streamlines(found.get("streamlines")):
        found.pop("streamlines", None)
    return found | _there(plan, run, {"dwiref": "dwiref", "mask": "mask", "fa": "fa"})


def _is_in_mrtrix_basis(sidecar: Mapping[str, Any]) -> bool:
    """Say whether fODFs are as they are drawn; the sidecar knows, whatever the settings now."""
    encoding = sidecar.get("OrientationEncoding")
    return isinstance(encoding, dict) and encoding.get("SphericalHarmonicBasis") == "mrtrix3"


def _has_all_streamlines(matrix: str | None) -> bool:
    """Say whether a matrix of counts was saved as it is drawn: whole, and without weights.

    Its sidecar knows, whatever the settings are now.
    """
    said = _sidecar(matrix)
    as_drawn = {"ValidDiagonal": True, "StorageFormat": "Full", "StreamlineWeighting": "none"}
    return as_drawn.items() <= {key: said.get(key) for key in as_drawn}.items()


def _there(
    plan: Plan, run: DWIRun, files: Mapping[str, str], atlas: str | None = None
) -> dict[str, str]:
    paths = {
        field: _path(plan, run, key, atlas)
        for field, key in files.items()
        if is_wanted(key, run, plan.config)
    }
    return {field: str(path) for field, path in paths.items() if path.is_file()}


def _path(plan: Plan, run: DWIRun, key: str, atlas: str | None = None) -> Path:
    return plan.output_dir / output_path(run, key, plan.config, atlas)


def _sidecar(image: str | Path | None) -> dict[str, Any]:
    """Read the sidecar of a file; nothing, if there is none that can be read."""
    if image is None:
        return {}
    path = Path(image)
    try:
        content = json.loads(
            path.with_name(f"{path.name.split('.', 1)[0]}.json").read_text(encoding="utf-8")
        )
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
