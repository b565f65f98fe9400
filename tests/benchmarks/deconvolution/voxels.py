"""So many voxels of a scene, as an array and as an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

#: The image that MRtrix reads has rows of so many voxels: its threads share out rows.
_ROW = 20


def first_voxels(folder: Path, n: int) -> np.ndarray:
    """Load the signals (voxel, volume) of the first so many voxels, repeated if they run out."""
    dwi = np.load(folder / "dwi.npy", mmap_mode="r")
    return np.concatenate([dwi[: n - at] for at in range(0, n, len(dwi))])


def as_image(folder: Path, n: int) -> tuple[Path, Path, int]:
    """Write voxels as an image for MRtrix, and a mask of one voxel.

    Returns
    -------
    tuple
        The image, the mask, and how many voxels there are: enough to fill the last row.
    """
    from difftract_bids.io.images import save_volume

    n_rows = -(-n // _ROW)
    image, one = folder / f"dwi_{n_rows}.nii", folder / f"one_{n_rows}.nii"
    if not one.exists():
        signal = first_voxels(folder, n_rows * _ROW)
        save_volume(signal.reshape(n_rows, _ROW, 1, -1).swapaxes(0, 1), np.eye(4), image)
        mask = np.zeros((_ROW, n_rows, 1), bool)
        mask[0, 0] = True
        save_volume(mask, np.eye(4), one)
    return image, one, n_rows * _ROW
