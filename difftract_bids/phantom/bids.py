"""Names and side files of the phantom's raw dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from difftract_bids import __version__

BIDS_VERSION = "1.10.0"
GENERATED_BY = {"Name": "difftract-phantom", "Version": __version__}

_README = """\
# A simulated head with a known connectome

Made by `difftract-phantom`. No person was scanned. Each participant has a T1-weighted image and
diffusion-weighted images with Rician noise; the numbers of true streamlines differ between
participants. The true parcellation, connectome and streamlines are under `derivatives/truth`.
"""
_SIDECARS: dict[str, dict[str, Any]] = {
    "dwi": {
        "Manufacturer": "Simulated",
        "MagneticFieldStrength": 3,
        "EchoTime": 0.09,
        "RepetitionTime": 7.5,
        "FlipAngle": 90,
        "PhaseEncodingDirection": "j-",
        "EffectiveEchoSpacing": 0.0005,
        "TotalReadoutTime": 0.05,
    },
    "T1w": {
        "Manufacturer": "Simulated",
        "MagneticFieldStrength": 3,
        "EchoTime": 0.003,
        "RepetitionTime": 2.3,
        "InversionTime": 0.9,
        "FlipAngle": 9,
    },
}


def file_name(
    subject: str, session: str = "", run: str = "", suffix: str = "", **entities: str
) -> str:
    """Put entities in BIDS' order, without an extension; empty labels are left out."""
    labels = {"sub": subject, "ses": session, "run": run, **entities}
    parts = [f"{key}-{label}" for key, label in labels.items() if label]
    return "_".join([*parts, suffix] if suffix else parts)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON in the order given."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a tab-separated table."""
    lines = ["\t".join(map(str, row)) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_dataset_files(out_dir: Path, subjects: Sequence[str]) -> None:
    """Write what a raw dataset has at its root."""
    write_json(
        out_dir / "dataset_description.json",
        {
            "Name": "Simulated head with a known connectome",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["difftract-phantom"],
            "GeneratedBy": [GENERATED_BY],
        },
    )
    (out_dir / "README.md").write_text(_README, encoding="utf-8")
    rows = [(f"sub-{subject}", "simulated") for subject in subjects]
    write_table(out_dir / "participants.tsv", ("participant_id", "origin"), rows)
    write_json(
        out_dir / "participants.json",
        {
            "origin": {
                "Description": "Where the images come from",
                "Levels": {"simulated": "model"},
            }
        },
    )


def write_sidecar(
    path: Path, suffix: Literal["dwi", "T1w"], others: Mapping[str, Any] | None = None
) -> None:
    """Write the JSON sidecar of an image, with other values than the usual ones if given."""
    write_json(path, {**_SIDECARS[suffix], **(others or {})})


def write_gradients(
    stem: Path, bvals_s_mm2: Float[np.ndarray, " volume"], fsl_bvecs: Float[np.ndarray, "3 volume"]
) -> None:
    """Write ``.bval`` and ``.bvec`` next to the image, vectors in FSL's convention."""
    bval = " ".join(f"{value:g}" for value in bvals_s_mm2)
    stem.with_name(stem.name + ".bval").write_text(bval + "\n", encoding="ascii")
    # Adding 0 turns -0 into 0.
    rows = [" ".join(f"{value + 0.0:.6f}" for value in row) for row in np.round(fsl_bvecs, 6)]
    stem.with_name(stem.name + ".bvec").write_text("\n".join(rows) + "\n", encoding="ascii")
