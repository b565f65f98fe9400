"""MRtrix3's programs, as the tests that compare with them call them."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from datasets import real_data
from problems import crossing_bundles, oblique, scaling

from difftract_bids.config import Integrator


@dataclass(frozen=True)
class Scene:
    """An fODF image and a mask, in memory and as files that MRtrix reads."""

    fodf: torch.Tensor
    vox2ras: torch.Tensor
    mask: torch.Tensor
    fod_file: Path
    mask_file: Path


@dataclass(frozen=True)
class Tckgen:
    """What ``tckgen`` accepted.

    Attributes
    ----------
    streamlines
        Vertices of each, RAS+ millimetres.
    seed_vertex
        Which vertex of each is its seed.
    """

    streamlines: list[np.ndarray]
    seed_vertex: np.ndarray

    def seeds_mm(self) -> torch.Tensor:
        """Where each started, (n, 3)."""
        pairs = zip(self.streamlines, self.seed_vertex, strict=True)
        return torch.from_numpy(np.array([line[seed] for line, seed in pairs]))

    def starts(self) -> torch.Tensor:
        """Which way each went first, (n, 3): the half that is stored backwards came first."""
        pairs = zip(self.streamlines, self.seed_vertex, strict=True)
        steps = [line[s - 1] - line[s] if s else line[0] - line[1] for line, s in pairs]
        return torch.nn.functional.normalize(torch.from_numpy(np.array(steps)), dim=1)


def run_mrtrix(*command: object, cwd: Path | None = None) -> None:
    environment = dict(os.environ, MRTRIX_RNG_SEED="7")
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"


def write_image(data: torch.Tensor, affine: torch.Tensor, path: Path) -> Path:
    nib.save(nib.Nifti1Image(data.numpy(), affine.numpy()), path)
    return path


def read_fodf(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """fODFs in float32, voxels that are not finite set to zero, and their affine."""
    image = nib.load(path)
    data = np.asarray(image.dataobj, dtype=np.float32)
    return torch.from_numpy(data).nan_to_num(0, 0, 0), torch.from_numpy(image.affine)


def tckgen(fod: Path, folder: Path, *options: object, integrator: Integrator = "euler") -> Tckgen:
    """Track on one thread, from the same random numbers each time."""
    tck, seeds = folder / "theirs.tck", folder / "seeds.csv"
    rk4 = ("-rk4",) if integrator == "rk4" else ()
    run_mrtrix(
        *("tckgen", "-algorithm", "SD_STREAM", fod, tck, "-output_seeds", seeds),
        *("-nthreads", 0, "-quiet", "-force", *rk4, *options),
    )
    lines = [np.array(line) for line in nib.streamlines.load(tck).streamlines]
    seed_vertex = np.loadtxt(seeds, delimiter=",", usecols=1, ndmin=1, dtype=int)
    return Tckgen(lines, seed_vertex)


def convert_series(raw: Path, dwi: Path) -> None:
    """Write a raw series, given without its extensions, and its gradients into one file."""
    table = ("-fslgrad", f"{raw}.bvec", f"{raw}.bval")
    run_mrtrix("mrconvert", f"{raw}.nii.gz", dwi, *table, "-quiet", "-force")


def fodf_by_mrtrix(raw: Path, folder: Path, *response_options: object) -> tuple[Path, Path]:
    """Make the fODF and the mask of a raw acquisition with MRtrix alone.

    Parameters
    ----------
    raw
        Path of the acquisition without its extensions.
    folder
        Where the results are written; what is there already is not made again.
    response_options
        For ``dwi2response tournier``.
    """
    dwi, mask, fod = folder / "dwi.mif", folder / "mask.nii.gz", folder / "fod.nii.gz"
    if fod.exists():
        return fod, mask
    folder.mkdir(parents=True, exist_ok=True)
    convert_series(raw, dwi)
    quiet = ("-quiet", "-force", "-nthreads", 2)
    run_mrtrix("dwi2mask", dwi, mask, *quiet)
    response, aside = folder / "response.txt", folder / "aside.nii.gz"
    tournier = ("dwi2response", "tournier", dwi, response, "-mask", mask, "-scratch", folder)
    run_mrtrix(*tournier, *response_options, *quiet, cwd=folder)
    run_mrtrix("dwi2fod", "csd", dwi, response, aside, "-mask", mask, *quiet)
    aside.rename(fod)
    return fod, mask


def phantom_scene(name: str, folder: Path) -> Scene:
    """Two bundles that cross, on an "oblique" or an "isotropic" grid."""
    affine = oblique() if name == "oblique" else scaling(2.0, (-20.0, 5.0, 3.0))
    fodf = crossing_bundles(affine).float()
    mask = fodf[..., 0] != 0
    folder.mkdir(parents=True, exist_ok=True)
    fod_file = write_image(fodf, affine, folder / "fod.nii.gz")
    mask_file = write_image(mask.to(torch.uint8), affine, folder / "mask.nii.gz")
    return Scene(fodf, affine, mask, fod_file, mask_file)


#: What was made already in this process.
_SCENES: dict[tuple[object, ...], tuple[Path, Path]] = {}


def common_folder(folder: Path, name: str) -> Path:
    """Give a folder that tests side by side share, or the one given where there are none.

    MRtrix takes a minute for an fODF, and every one of pytest-xdist's processes would ask for it.
    """
    own = next((parent for parent in folder.parents if parent.name.startswith("popen-")), None)
    return folder if own is None else own.parent / name


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Wait until no other process makes a file; a process that dies lets go of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def human_scene(dataset: str, folder: Path, *response_options: object) -> Scene:
    """A real subject, its fODF made by MRtrix; skips the test where there are no real data."""
    raw = real_data() / dataset / "sub-01" / "dwi" / "sub-01_dwi"
    key = (dataset, *response_options)
    if key not in _SCENES:
        folder = common_folder(folder, "_".join(map(str, key)))
        with alone(folder / "fod.nii.gz"):
            _SCENES[key] = fodf_by_mrtrix(raw, folder, *response_options)
    fod_file, mask_file = _SCENES[key]
    fodf, affine = read_fodf(fod_file)
    mask = torch.from_numpy(np.asarray(nib.load(mask_file).dataobj) > 0)
    return Scene(fodf, affine, mask, fod_file, mask_file)
