"""A scan to learn from: what the network is given of it, and what it shall give."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from difftract_bids.bids.nodes import check_image, read_nodes
from difftract_bids.bids.training_runs import TrainingRun
from difftract_bids.config import PairsConfig
from difftract_bids.core.sh import lmax_of
from difftract_bids.errors import InputError
from difftract_bids.io.fodf_images import load_fodf
from difftract_bids.io.gradients import GradientTable, read_gradients
from difftract_bids.io.grids import onto_grid
from difftract_bids.io.images import Volume, load_volume
from difftract_bids.learn.subsets import choose_volumes
from difftract_bids.learn.tiles import box_of

#: Voxels that are kept around the brain: streamlines and interpolation look beyond it.
MARGIN_VOXELS = 2
#: What a denoised image says that is given in part.
_CLEANER = (
    "Volumes that are left out took part in denoising: the input is cleaner than such an "
    "acquisition would be; make the derivatives with --denoise-method none, or denoise the part "
    "alone."
)


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan, cropped to the brain and a margin; scanner axes are those of the whole image.

    Attributes
    ----------
    label, participant
        Such as ``sub-01_ses-A`` and ``01``.
    dwi
        Signal of the volumes that the network is given, float32, zero where it was not finite.
    gradients
        Table of these volumes, scanner axes.
    vox2ras
        Voxels to RAS+ millimetres, float64.
    mask
        The brain.
    fodf
        The target, MRtrix3's basis, scanner axes, float32; ``None`` without one.
    parcellation
        Labels, int64, 0 for none; ``None`` without one.
    node_labels, node_names
        The labels and names of all nodes of its atlas, those that it lacks included.
    sources
        Path of each file that it was read from.
    notes
        What those should know who learn from it.
    """

    label: str
    participant: str
    dwi: Float[Tensor, "x y z v"]
    gradients: GradientTable
    vox2ras: Float[Tensor, "4 4"]
    mask: Bool[Tensor, "x y z"]
    fodf: Float[Tensor, "x y z coeff"] | None = None
    parcellation: Int[Tensor, "x y z"] | None = None
    node_labels: Int[Tensor, " node"] | None = None
    node_names: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def lmax(self) -> int | None:
        """Maximum degree of the target; ``None`` without one."""
        return None if self.fodf is None else lmax_of(self.fodf.shape[-1])

    @property
    def voxel_size_mm(self) -> tuple[float, float, float]:
        """Length of a voxel along each of its axes, millimetres."""
        x, y, z = torch.linalg.norm(self.vox2ras[:3, :3], dim=0).tolist()
        return x, y, z


class _Grid(NamedTuple):
    shape: tuple[int, ...]
    vox2ras: Float[np.ndarray, "4 4"]


def load_scan(run: TrainingRun, pairs: PairsConfig) -> Scan:
    """Load a run: the volumes that the network is given, its target and its parcellation.

    Parameters
    ----------
    run
        From `find_training_runs`.
    pairs
        Says which volumes.

    Raises
    ------
    InputError
        If an image cannot be read, does not fit the others or the gradient table, holds values
        that are not finite in the brain, or has no voxel in it; or if there are fewer volumes
        than are asked for.
    FodfError
        If the target holds no fODFs.
    AtlasError
        If the parcellation holds what its table does not name.
    """
    dwi = load_volume(run.dwi, ndim=4)
    grid = _Grid(dwi.data.shape[:3], dwi.vox2ras)
    gradients = read_gradients(run.bval, run.bvec, dwi.vox2ras, n_volumes=dwi.data.shape[3])
    chosen = choose_volumes(
        gradients, pairs.n_directions, pairs.shells_s_mm2, pairs.n_b0, where=run.bval
    )
    mask = _fitted(load_volume(run.mask, ndim=3), grid, run.mask) > 0
    if not mask.any():
        raise InputError(
            "The brain mask has no voxel.", where=run.mask, remedy="Leave the participant out."
        )
    box, vox2ras = _box(mask, grid)
    fodf = load_fodf(run.fodf)
    for note in fodf.notes:
        warnings.warn(f"{run.fodf.name}: {note}", stacklevel=2)
    target = _fitted(Volume(fodf.sh_coeffs, fodf.vox2ras), grid, run.fodf)[box]
    signal = _finite(dwi.data[box][..., chosen], mask[box], run.dwi)
    labels, node_labels, node_names = _nodes(run, grid)
    paths = ("dwi", "bval", "bvec", "mask", "fodf", "parcellation", "table")
    return Scan(
        label=run.label,
        participant=run.participant,
        dwi=torch.from_numpy(signal),
        gradients=GradientTable(
            gradients.bvals_s_mm2[chosen],
            gradients.bvecs[chosen],
            gradients.b0_threshold_s_mm2,
        ),
        vox2ras=torch.from_numpy(vox2ras),
        mask=torch.from_numpy(np.ascontiguousarray(mask[box])),
        fodf=torch.from_numpy(np.ascontiguousarray(target, dtype=np.float32)),
        parcellation=None if labels is None else torch.from_numpy(labels[box].astype(np.int64)),
        node_labels=None if labels is None else torch.tensor(node_labels),
        node_names=node_names,
        sources={
            name: str(getattr(run, name)) for name in paths if getattr(run, name) is not None
        },
        notes=(_CLEANER,) if len(chosen) < dwi.data.shape[3] and _is_denoised(run.dwi) else (),
    )


def _is_denoised(dwi: Path) -> bool:
    """Say whether an image's sidecar says that it was denoised; without one nobody knows."""
    sidecar = dwi.with_name(dwi.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise InputError(
            f"The sidecar cannot be read: {error}.",
            where=sidecar,
            remedy="Copy it again, or remove it: without it training begins as well.",
        ) from error
    return isinstance(content, dict) and content.get("Denoised") is True


def _fitted(volume: Volume, grid: _Grid, path: os.PathLike[str]) -> NDArray[Any]:
    """Bring an image onto the grid of the diffusion image."""
    try:
        return onto_grid(volume, grid.shape, grid.vox2ras, where=path).data
    except InputError as error:
        raise InputError(
            error.what,
            where=path,
            remedy="Both must come from one run: make the derivatives again, or resample the "
            "image onto the diffusion image (mrtransform -template).",
        ) from error


def _box(
    mask: Bool[np.ndarray, "x y z"], grid: _Grid
) -> tuple[tuple[slice, ...], Float[np.ndarray, "4 4"]]:
    """Give the box of the brain, which has a voxel, with its margin, and the affine within it."""
    box = box_of(torch.from_numpy(mask), MARGIN_VOXELS) or ()
    vox2ras = grid.vox2ras.copy()
    vox2ras[:3, 3] += vox2ras[:3, :3] @ [side.start for side in box]
    return box, vox2ras


def _finite(
    signal: Float[np.ndarray, "x y z v"],
    mask: Bool[np.ndarray, "x y z"],
    path: os.PathLike[str],
) -> Float[np.ndarray, "x y z v"]:
    finite = np.isfinite(signal)
    n_bad = int((~finite.all(axis=-1) & mask).sum())
    if n_bad:
        raise InputError(
            f"{n_bad:,} of {int(mask.sum()):,} voxels of the brain hold values that are not "
            "finite.",
            where=path,
            remedy="Preprocess the run again, or leave the participant out.",
        )
    return np.ascontiguousarray(np.where(finite, signal, np.float32(0)))


def _nodes(
    run: TrainingRun, grid: _Grid
) -> tuple[NDArray[Any] | None, tuple[int, ...], tuple[str, ...]]:
    """Load the parcellation, and the nodes that its table has."""
    if run.parcellation is None or run.table is None:
        return None, (), ()
    nodes = read_nodes(run.table)
    labels = _fitted(check_image(run.parcellation, nodes), grid, run.parcellation)
    return labels, nodes.index, nodes.name
