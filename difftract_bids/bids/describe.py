"""The files that describe a derivatives dataset as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from difftract_bids import __version__
from difftract_bids.bids.atlases import Atlas
from difftract_bids.io.atomic import write_json, write_text_atomic
from difftract_bids.io.leftovers import sweep
from difftract_bids.io.locks import taking_turns

#: Who writes files of the dataset as a whole holds it, relative to the derivatives folder.
LOCK_FILE = "logs/.dataset.lock"
BIDS_VERSION = "1.10.0"

#: Names that the released specification (or its validator) does not know yet; see README.
_IGNORED = """\
*.html
logs
figures
CITATION.md
*_desc-preproc_dwi.bval
*_desc-preproc_dwi.bvec
*_dwimap.*
*_dwiref.*
*_tractogram.*
*_relmat.*
*_nodeindices.*
*_assignments.*
*_xfm.*
*_timeseries.*
*_quality.*
*_weights.*
*_response.*
group
"""

#: Files at the top of the folder that all runs write, in turn.
_DESCRIBING = ("dataset_description.json", ".bidsignore", "README", "CITATION.md", "atlas-")

_README = """\
Derivatives of difftract-bids: preprocessed diffusion images, fibre orientation distributions,
tractograms and structural connectomes. Open sub-*.html for the report of each participant;
CITATION.md holds the methods text and what to cite. Positions are scanner (RAS+) millimetres.
"""


def describe_dataset(
    output_dir: Path,
    *,
    raw_dir: Path,
    atlases: Sequence[Atlas],
    citation: str,
    derivatives: Mapping[str, Path] | None = None,
) -> None:
    """Write dataset_description.json, .bidsignore, README, CITATION.md and atlas descriptions.

    Several runs may do so at once, one participant each: they take turns. Descriptions of atlases
    that an earlier run used are kept; the rest is what the latest run says.

    Parameters
    ----------
    output_dir
        Derivatives folder.
    raw_dir
        The raw dataset, linked under the name ``raw``.
    atlases
        Each gets an ``atlas-<name>_description.json``.
    citation
        Methods text in Markdown.
    derivatives
        Folders of others' derivatives that were used, by the names to link them under.
    """
    links = {"raw": raw_dir, **(derivatives or {})}
    output_dir.mkdir(parents=True, exist_ok=True)
    with taking_turns(output_dir / LOCK_FILE) as is_alone:
        for name in _DESCRIBING if is_alone else ():
            sweep(output_dir, beginning=name)
        description = {
            "Name": "difftract_bids: structural connectomes by differentiable tractography",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [_maker()],
            "HowToAcknowledge": "Please cite what CITATION.md lists.",
            "DatasetLinks": {name: path.resolve().as_uri() for name, path in links.items()},
            "SourceDatasets": [{"URL": path.resolve().as_uri()} for path in links.values()],
            "License": _license_of(raw_dir),
        }
        write_json(output_dir / "dataset_description.json", description)
        write_text_atomic(output_dir / ".bidsignore", _IGNORED)
        write_text_atomic(output_dir / "README", _README)
        write_text_atomic(output_dir / "CITATION.md", citation)
        for atlas in atlases:
            name = f"atlas-{atlas.name}_description.json"
            write_json(output_dir / name, atlas.description())


def container() -> dict[str, str] | None:
    """Tell which container this runs in, as ``GeneratedBy`` has it; ``None`` if in none.

    What image it is nobody can see from within: the image's build, or who starts it, says so in
    the variable ``DIFFTRACT_CONTAINER`` (``name:tag``, better ``name@sha256:...``).
    """
    named = os.environ.get("DIFFTRACT_CONTAINER", "")
    bundle = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if not (named or bundle or Path("/.dockerenv").exists()):
        return None
    described = {"Type": "apptainer" if bundle else "docker"}
    if named:
        described["Tag"] = named
    if bundle:
        described["URI"] = Path(bundle).absolute().as_uri()
    return described


def _maker() -> dict[str, Any]:
    inside = container()
    made = {"Name": "difftract_bids", "Version": __version__}
    return made | ({"Container": inside} if inside else {})


def _license_of(raw_dir: Path) -> str:
    """Find the licence of the raw data: it binds what is derived from them."""
    try:
        raw = json.loads((raw_dir / "dataset_description.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "See the raw dataset."
    return str(raw.get("License") or "See the raw dataset.")
