"""Datasets of many participants: every file is there and sound, and nothing is large."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
from datasets import image, write_dataset

ENCODED = {"PhaseEncodingDirection": "j", "TotalReadoutTime": 0.05}
_SHELLS = ((1000, 15), (2000, 15))


def write_skeleton(root: Path, n_participants: int, sessions=("A", "B")) -> Path:
    """Write a dataset with two shells, a T1w and an opposed image of each session.

    What all sessions have alike are links to one file.
    """
    first = write_dataset(root, ["0000"], sessions=["A"], t1w=True, shells=_SHELLS)
    own = first / "sub-0000" / "ses-A"
    (own / "dwi" / "sub-0000_ses-A_dwi.json").write_text(json.dumps(ENCODED))
    nib.save(image((5, 6, 7, 2)), root / "epi.nii.gz")
    shared = {f"dwi/_dwi.{end}": "dwi" for end in ("nii.gz", "bval", "bvec", "json")}
    shared["anat/_T1w.nii.gz"] = "anat"
    for number in range(n_participants):
        for session in sessions:
            stem = f"sub-{number:04d}_ses-{session}"
            folder = root / f"sub-{number:04d}" / f"ses-{session}"
            for datatype in ("anat", "dwi", "fmap", "func"):
                (folder / datatype).mkdir(parents=True, exist_ok=True)
            for name, datatype in shared.items():
                source = own / datatype / f"sub-0000_ses-A{Path(name).name}"
                target = folder / datatype / f"{stem}{Path(name).name}"
                if target != source:
                    os.link(source, target)
            os.link(root / "epi.nii.gz", folder / "fmap" / f"{stem}_dir-PA_epi.nii.gz")
            back = ENCODED | {
                "PhaseEncodingDirection": "j-",
                "IntendedFor": f"ses-{session}/dwi/{stem}_dwi.nii.gz",
            }
            sidecar = folder / "fmap" / f"{stem}_dir-PA_epi.json"
            sidecar.write_text(json.dumps(back))
    return root


def settle(root: Path) -> None:
    """Make a dataset look as if nobody had changed it for a minute."""
    then = np.floor(root.stat().st_mtime) - 60
    for folder, _, _ in os.walk(root):
        os.utime(folder, (then, then))
