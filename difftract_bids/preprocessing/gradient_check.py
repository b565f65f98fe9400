"""Flipped or permuted b-vectors, found by whether fibres join from voxel to voxel."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from difftract_bids.errors import GradientError
from difftract_bids.io.gradients import GradientTable, to_fsl_bvecs

#: What counts as white matter, roughly: anisotropic, neither fluid nor noise.
_MIN_FA, _MAX_FA = 0.3, 0.95
_MAX_MD_MM2_S = 1.5e-3
#: Beyond this b-value the decay is not mono-exponential.
_MAX_BVAL_S_MM2 = 1500.0
_MIN_PAIRS = 200
#: Fibres within about 25 degrees of the line between two voxels join them.
_POWER = 4
#: The brain is cut into this many blocks along each axis: how far a sum over them can be trusted
#: is told by how they differ.
_BLOCKS = 8
#: A table is called wrong with this margin over the next best: in standard errors, and relative.
_SURE_Z, _SURE_MARGIN = 3.0, 0.015
_AXES = "xyz"


@dataclass(frozen=True)
class AxisChange:
    """A permutation of the axes of b-vectors, then a reversal of one of them.

    As b-vectors have no sign, reversing two axes is the same as reversing the third, so that 6
    permutations with 4 reversals make all 24 cases.

    Attributes
    ----------
    order
        New component i is old component ``order[i]``.
    reversed_axis
        The new component that changes its sign, -1 for none.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    reversed_axis: int = -1

    @property
    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """Matrix that turns old components into new ones."""
        matrix = np.eye(3)[list(self.order)]
        if self.reversed_axis >= 0:
            matrix[self.reversed_axis] *= -1
        return matrix

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return self == AxisChange()

    def __str__(self) -> str:
        """Name the components that b-vectors should have, by those they have: ``y -x z``."""
        signs = ["-" if axis == self.reversed_axis else "" for axis in range(3)]
        return " ".join(s + _AXES[old] for s, old in zip(signs, self.order, strict=True))


#: All 24, the unchanged one first.
AXIS_CHANGES = tuple(
    AxisChange((order[0], order[1], order[2]), axis)
    for order in itertools.permutations(range(3))
    for axis in (-1, 0, 1, 2)
)


@dataclass(frozen=True)
class GradientCheck:
    """How well fibres join under each change of the b-vectors' axes.

    Attributes
    ----------
    best
        The change under which they join best.
    scores
        Coherence of each of `AXIS_CHANGES`, 1 for the table as it is given.
    margin
        The best score over that of the table as given, less 1; if that is the best, over the
        next.
    z
        The same difference over its standard error.
    is_sure
        Whether that is beyond doubt.
    """

    best: AxisChange
    scores: Float[np.ndarray, " change"]
    margin: float
    z: float
    is_sure: bool

    @property
    def is_wrong(self) -> bool:
        """Whether the table is wrong beyond doubt."""
        return self.is_sure and not self.best.is_identity


def check_gradients(
    dwi: Float[np.ndarray, "x y z volume"],
    gradients: GradientTable,
    vox2ras: Float[np.ndarray, "4 4"],
) -> GradientCheck:
    """Find the change of the b-vectors' axes under which fibres join from voxel to voxel.

    A tensor is fitted once: its principal direction turns with the table. Two neighbours in white
    matter count by cos⁴ of the angles that their directions make with the line between them,
    times that of the angle between them and their anisotropies. Errors happen in the axes that
    FSL's tables are written in, so permutations and reversals are tried there.

    Parameters
    ----------
    dwi
        Diffusion series, raw or preprocessed.
    gradients
        Its table, scanner axes.
    vox2ras
        Its affine.

    Raises
    ------
    GradientError
        If the table does not fit the series.

    References
    ----------
    Schilling et al. 2019, doi:10.1016/j.mri.2019.01.018 (fibre coherence);
    Jeurissen et al. 2014, doi:10.1016/j.media.2014.05.012 (the 24 cases).
    """
    if dwi.shape[-1] != len(gradients.bvals_s_mm2):
        raise GradientError(
            f"The image has {dwi.shape[-1]} volumes, the gradient table "
            f"{len(gradients.bvals_s_mm2)}.",
            remedy="They must belong to the same image.",
        )
    fa, v1 = _rough_tensor(dwi, gradients, vox2ras)
    scores, n_pairs = _coherence(fa, v1, vox2ras)
    if n_pairs < _MIN_PAIRS or not scores[:, 0].any():
        return GradientCheck(AxisChange(), np.ones(len(AXIS_CHANGES)), 0.0, 0.0, is_sure=False)
    return _judged(scores)


def _judged(scores: Float[np.ndarray, "block change"]) -> GradientCheck:
    """Choose the change of the highest score, by sums over blocks and how these differ."""
    total = scores.sum(axis=0)
    order = np.argsort(-total, kind="stable")
    best, other = int(order[0]), int(order[1])
    # To be wrong, a table must be beaten; for either verdict the best must beat all others.
    margin, z = _lead(scores, best, 0 if best else other)
    next_margin, next_z = _lead(scores, best, other)
    return GradientCheck(
        AXIS_CHANGES[best],
        total / total[0],
        margin,
        z,
        is_sure=next_z > _SURE_Z and next_margin > _SURE_MARGIN,
    )


def _lead(scores: Float[np.ndarray, "block change"], one: int, other: int) -> tuple[float, float]:
    """Give by what share one change scores higher than another, and in standard errors."""
    difference = scores[:, one] - scores[:, other]
    error = float(np.sqrt((difference**2).sum()))
    share = float(difference.sum() / max(scores[:, other].sum(), 1e-12))
    return share, float(difference.sum()) / error if error > 0 else 0.0


def changed(
    gradients: GradientTable, change: AxisChange, vox2ras: Float[np.ndarray, "4 4"]
) -> GradientTable:
    """Apply a change of FSL's axes to a table in scanner axes."""
    to_fsl = to_fsl_bvecs(np.eye(3), vox2ras)
    turn = np.linalg.inv(to_fsl) @ change.matrix @ to_fsl
    return replace(gradients, bvecs=gradients.bvecs @ turn.T)


def describe_check(check: GradientCheck, *, mended: bool) -> list[str]:
    """Say what the user should know about a check; nothing where all is well.

    Parameters
    ----------
    check
        What was found.
    mended
        Whether the table was changed accordingly.
    """
    if check.best.is_identity:
        return []
    found = (
        f"fibres join {check.margin:.0%} better from voxel to voxel ({check.z:.1f} standard "
        f"errors) with the axes {check.best} in place of x y z"
    )
    if mended:
        return [f"The axes of the b-vectors were mended: {found}."]
    if check.is_sure:
        remedy = "--fix-gradients mends them; look at the fODFs before and after."
        return [f"The b-vectors seem flipped or permuted: {found}. {remedy}"]
    doubt = "which is too little to tell. Nothing was changed; look at the fODFs."
    return [f"The axes of the b-vectors could not be confirmed: {found}, {doubt}"]


def write_scores(check: GradientCheck, path: str | os.PathLike[str]) -> Path:
    """Write the coherence of each of the 24 changes as a tab-separated table, best first."""
    order = np.argsort(-check.scores, kind="stable")
    rows = [f"{AXIS_CHANGES[number]}\t{check.scores[number]:.4f}" for number in order]
    target = Path(path).absolute()
    target.write_text("\n".join(["axes\tcoherence", *rows]) + "\n", encoding="utf-8")
    return target


def _rough_tensor(
    dwi: Float[np.ndarray, "x y z volume"],
    gradients: GradientTable,
    vox2ras: Float[np.ndarray, "4 4"],
) -> tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "x y z 3"]]:
    """Fit log-linear tensors quickly: FA, 0 outside white matter, and v1 in FSL's axes."""
    head = _foreground(dwi, gradients)
    low = gradients.bvals_s_mm2 <= _MAX_BVAL_S_MM2
    volumes = low if (low & ~gradients.b0_mask).sum() >= 6 else np.ones_like(low)
    signal = np.nan_to_num(dwi[head][:, volumes].astype(np.float32), posinf=0.0, neginf=0.0)
    x, y, z = to_fsl_bvecs(gradients.bvecs[volumes], vox2ras)
    b = gradients.bvals_s_mm2[volumes]
    columns = [x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z]
    design = np.stack([np.ones_like(b), *(-b * column for column in columns)], axis=1)
    floor = 1e-3 * max(float(signal.max(initial=0.0)), 1e-6)
    log_signal = np.log(np.maximum(signal, floor))
    xx, yy, zz, xy, xz, yz = (log_signal @ np.linalg.pinv(design).T.astype(np.float32)).T[1:]
    md = (xx + yy + zz) / 3
    norm = xx**2 + yy**2 + zz**2 + 2 * (xy**2 + xz**2 + yz**2)
    fa = np.sqrt(np.clip(1.5 * (1 - 3 * md**2 / np.maximum(norm, 1e-20)), 0, None))
    white = (fa > _MIN_FA) & (fa < _MAX_FA) & (md > 0) & (md < _MAX_MD_MM2_S)
    tensor = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=-1)[white].reshape(-1, 3, 3)
    where = tuple(index[white] for index in np.nonzero(head))
    anisotropy = np.zeros(dwi.shape[:3], np.float32)
    v1 = np.zeros((*dwi.shape[:3], 3), np.float32)
    anisotropy[where] = fa[white]
    v1[where] = np.linalg.eigh(tensor)[1][..., 2]
    return anisotropy, v1


def _foreground(
    dwi: Float[np.ndarray, "x y z volume"], gradients: GradientTable
) -> Bool[np.ndarray, "x y z"]:
    """Keep what is bright under diffusion weighting, without its rim: brain, roughly."""
    mean = np.nan_to_num(
        dwi[..., ~gradients.b0_mask].mean(axis=-1, dtype=np.float32), posinf=0.0, neginf=0.0
    )
    bright = mean > 0.25 * np.percentile(mean, 98)
    opened = ndimage.binary_opening(bright, iterations=1)
    return ndimage.binary_erosion(ndimage.binary_fill_holes(opened))


def _coherence(
    fa: Float[np.ndarray, "x y z"],
    v1: Float[np.ndarray, "x y z 3"],
    vox2ras: Float[np.ndarray, "4 4"],
) -> tuple[Float[np.ndarray, "block change"], int]:
    """Sum the alignment of neighbours with the lines between them; and count the pairs."""
    index = np.full(fa.shape, -1, np.int64)
    where = np.argwhere(fa > 0)
    index[tuple(where.T)] = np.arange(len(where))
    strength, direction = fa[fa > 0], v1[fa > 0]
    padded = np.pad(index, 1, constant_values=-1)
    low, span = (where.min(axis=0), np.ptp(where, axis=0) + 1) if len(where) else (0, 1)
    block_3d = (where - low) * _BLOCKS // span
    block = block_3d @ np.array([_BLOCKS**2, _BLOCKS, 1])
    sizes_mm = np.linalg.norm(vox2ras[:3, :3], axis=0)
    handed = -1.0 if np.linalg.det(vox2ras[:3, :3]) > 0 else 1.0
    scores, n_pairs = np.zeros((_BLOCKS**3, len(AXIS_CHANGES))), 0
    turns = np.stack([change.matrix for change in AXIS_CHANGES])
    for step in itertools.product((-1, 0, 1), repeat=3):
        if step <= (0, 0, 0):  # each pair once
            continue
        other = padded[tuple((where + 1 + step).T)]
        first, second = np.flatnonzero(other >= 0), other[other >= 0]
        line = np.array(step) * sizes_mm * [handed, 1.0, 1.0]
        distance_mm = np.linalg.norm(line)
        # Turning the line back instead of every direction forth.
        lines = (turns.transpose(0, 2, 1) @ (line / distance_mm)).T.astype(np.float32)
        along = (direction[first] @ lines) ** _POWER * (direction[second] @ lines) ** _POWER
        parallel = np.einsum("ij,ij->i", direction[first], direction[second])
        weight = parallel**_POWER * strength[first] * strength[second] / distance_mm
        along *= weight[:, None]
        for number in range(len(AXIS_CHANGES)):
            scores[:, number] += np.bincount(
                block[first], weights=along[:, number], minlength=_BLOCKS**3
            )
        n_pairs += len(first)
    return scores, n_pairs
