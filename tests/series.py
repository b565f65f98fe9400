"""Diffusion series as files for MRtrix and as arrays for us: real ones, and a phantom's shells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import real_data
from mrtrix import convert_series, run_mrtrix

from difftract_bids.io.gradients import GradientTable, read_gradients
from difftract_bids.io.images import load_volume
from difftract_bids.phantom.dataset import write_phantom
from difftract_bids.phantom.settings import PhantomConfig

THREE_SHELLS_S_MM2 = (700.0, 1200.0, 2800.0)


@dataclass(frozen=True)
class Series:
    """A raw series with MRtrix's mask of it; ``dwi.mif`` and ``mask.nii`` lie in ``folder``."""

    folder: Path
    dwi: np.ndarray
    gradients: GradientTable
    vox2ras: np.ndarray
    mask: np.ndarray

    @classmethod
    def open(cls, stem: Path, folder: Path) -> Series:
        """Convert a series, given without its extensions."""
        convert_series(stem, folder / "dwi.mif")
        run_mrtrix("dwi2mask", folder / "dwi.mif", folder / "mask.nii", "-quiet", "-force")
        image = load_volume(f"{stem}.nii.gz", ndim=4)
        gradients = read_gradients(f"{stem}.bval", f"{stem}.bvec", image.vox2ras)
        mask = load_volume(folder / "mask.nii").data > 0
        return cls(folder, image.data, gradients, image.vox2ras, mask)


def human_series(dataset: str, folder: Path) -> Series:
    """A real subject; skips the test where there are no real data."""
    return Series.open(real_data() / dataset / "sub-01" / "dwi" / "sub-01_dwi", folder)


def phantom_series(folder: Path, *, voxel_size_mm: float = 4.0, n_directions: int = 48) -> Series:
    """Three shells of a phantom."""
    config = PhantomConfig(
        shells_s_mm2=THREE_SHELLS_S_MM2, n_directions=n_directions, voxel_size_mm=voxel_size_mm
    )
    write_phantom(folder / "raw", config)
    return Series.open(folder / "raw" / "sub-01" / "dwi" / "sub-01_dwi", folder)
