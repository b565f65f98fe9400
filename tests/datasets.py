"""Small BIDS datasets on disk, sound or damaged in one place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

N_DIRECTIONS = 8


def real_data() -> Path:
    """Folder of the real test data; the test is skipped where there is none."""
    here = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("DIFFTRACT_TEST_DATA", here.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real test data at {folder} (set DIFFTRACT_TEST_DATA)")
    return folder


#: (b-value, directions) of each shell.
ONE_SHELL = ((1000, N_DIRECTIONS),)
TWO_SHELLS = ((1000, 15), (2500, 15))


def write_dataset(
    root: Path, participants=("01",), *, sessions=(None,), t1w=False, shells=ONE_SHELL
) -> Path:
    """Write a raw dataset of tiny diffusion images with a sound gradient table."""
    root.mkdir(parents=True, exist_ok=True)
    description = {"Name": "tiny", "BIDSVersion": "1.10.0", "License": "CC0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    for participant in participants:
        for session in sessions:
            folder = root / f"sub-{participant}" / (f"ses-{session}" if session else "")
            stem = f"sub-{participant}" + (f"_ses-{session}" if session else "")
            write_run(folder / "dwi", stem, shells)
            if t1w:
                (folder / "anat").mkdir()
                nib.save(image((6, 6, 6)), folder / "anat" / f"{stem}_T1w.nii.gz")
    return root


def write_run(folder: Path, stem: str, shells=ONE_SHELL) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    bvals = [0] + [bval for bval, n in shells for _ in range(n)]
    nib.save(image((5, 6, 7, len(bvals))), folder / f"{stem}_dwi.nii.gz")
    vectors = np.random.default_rng(0).normal(size=(3, len(bvals) - 1))
    vectors /= np.linalg.norm(vectors, axis=0)
    np.savetxt(folder / f"{stem}_dwi.bval", [bvals], fmt="%d")
    np.savetxt(folder / f"{stem}_dwi.bvec", np.hstack([np.zeros((3, 1)), vectors]))
    (folder / f"{stem}_dwi.json").write_text('{"EchoTime": 0.09}')


def image(shape) -> nib.Nifti1Image:
    data = np.random.default_rng(1).integers(1, 1000, shape).astype(np.int16)
    return nib.Nifti1Image(data, np.diag([-2.0, 2, 2, 1]))
