"""Direction field: the principal direction of the diffusion tensor, as MRtrix's Tensor_Det."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from difftract_bids.core.field.protocol import Heading
from difftract_bids.core.interpolation import Grid, interpolate
from difftract_bids.core.peaks import implicit_peak
from difftract_bids.core.streamlines import StopReason
from difftract_bids.errors import GradientError, InputError

#: FA below which ``tckgen -algorithm Tensor_Det`` stops.
DEFAULT_FA_CUTOFF = 0.1
#: Six of the tensor, and the signal without diffusion weighting.
_UNKNOWNS = 7


@dataclass(frozen=True)
class TensorField:
    """Principal directions of diffusion tensors, anywhere in an image.

    Made by `from_dwi`, it interpolates signals and fits a tensor at each position, which is what
    MRtrix does; made by `from_tensors`, it interpolates tensors. Tensors have the components xx,
    xy, xz, yy, yz, zz in scanner axes.

    Attributes
    ----------
    grid
        The image's voxels.
    table
        Signals, or tensors, one voxel each.
    occupied
        Which voxels are not all zeros.
    cutoff
        Fractional anisotropy below which there is nothing to follow.
    fit
        From the logarithms of signals to tensors; ``None`` if the table holds tensors.

    References
    ----------
    Basser et al. 2000, doi:10.1002/1522-2594(200010)44:4<625::AID-MRM17>3.0.CO;2-O;
    MRtrix3 3.0.3 for the order of tests and the interpolation of signals.
    """

    grid: Grid
    table: Float[Tensor, "voxel value"]
    occupied: Bool[Tensor, " voxel"]
    cutoff: float
    fit: Float[Tensor, "6 value"] | None = None

    @classmethod
    def from_dwi(
        cls,
        dwi: Float[Tensor, "x y z volume"],
        vox2ras: Float[Tensor, "4 4"],
        bvecs: Float[Tensor, "volume 3"],
        bvals_s_mm2: Float[Tensor, " volume"],
        *,
        cutoff: float = DEFAULT_FA_CUTOFF,
    ) -> TensorField:
        """Follow the tensors of a diffusion-weighted series, by ordinary least squares on logs.

        Differentiable in ``dwi``. Signals that are not positive count as 1, as in MRtrix.

        Parameters
        ----------
        dwi
            Signals, float32 or float64. A voxel of zeros is outside the image.
        vox2ras
            Affine from voxels to RAS+ millimetres.
        bvecs
            Vectors in scanner axes; anything where the b-value is 0. MRtrix takes a vector that
            is not of unit length for a b-value times its squared length, and so does this. (To
            have its streamlines to the last digit, give the vectors as they are in the file.)
        bvals_s_mm2
            b-values, s/mm².
        cutoff
            Fractional anisotropy below which there is nothing to follow.

        Raises
        ------
        InputError
            If the series is not a finite, four-dimensional image, or its affine is unusable.
        GradientError
            If the gradient table does not fit the series, or does not determine a tensor.
        """
        table = _checked_table(dwi, "diffusion-weighted series", "volume")
        fit = _least_squares(bvecs, bvals_s_mm2, dwi.shape[3]).to(dwi)
        return cls._make(table, dwi, vox2ras, cutoff, fit)

    @classmethod
    def from_tensors(
        cls,
        tensors: Float[Tensor, "x y z 6"],
        vox2ras: Float[Tensor, "4 4"],
        *,
        cutoff: float = DEFAULT_FA_CUTOFF,
    ) -> TensorField:
        """Follow the tensors of an image, interpolated component by component.

        Differentiable in ``tensors``.

        Parameters
        ----------
        tensors
            Components xx, xy, xz, yy, yz, zz in scanner axes, in any unit. A voxel of zeros is
            outside the image.
        vox2ras
            Affine from voxels to RAS+ millimetres.
        cutoff
            Fractional anisotropy below which there is nothing to follow.

        Raises
        ------
        InputError
            If the image is not finite or of another shape, or its affine is unusable.
        """
        table = _checked_table(tensors, "tensor image", "6")
        if tensors.shape[3] != 6:
            raise InputError(
                f"The tensor image has {tensors.shape[3]} components; 6 are needed.",
                where="tensors",
                remedy="Give xx, xy, xz, yy, yz and zz, in this order.",
            )
        return cls._make(table, tensors, vox2ras, cutoff, None)

    @classmethod
    def _make(
        cls, table: Tensor, image: Tensor, vox2ras: Tensor, cutoff: float, fit: Tensor | None
    ) -> TensorField:
        grid = Grid.from_affine(tuple(image.shape[:3]), vox2ras, image.device)
        return cls(grid, table, (table.detach() != 0).any(1), cutoff, fit)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the image."""
        return self.table.dtype

    @property
    def device(self) -> torch.device:
        """Where the image is."""
        return self.table.device

    def parameters(self) -> tuple[Tensor, ...]:
        """Give the image's values, which hang together with those given."""
        return (self.table,)

    def heading(self, position_mm: Float[Tensor, "3 n"], start: Float[Tensor, "3 n"]) -> Heading:
        """Find the principal direction at each position, in the sense of ``start``.

        Differentiable in the image and in the positions. Where the two largest eigenvalues are
        (nearly) equal any direction between theirs is as good; the one given is finite, and so is
        its derivative: their difference counts as no less than 0.0005 of the largest.
        """
        voxel = self.grid.to_voxel(position_mm)
        inside = self.grid.is_in(self.occupied, voxel)
        # An eigenvector's error is that of the tensor, magnified: add none in float64.
        tensor = self.tensors_at(voxel).double()
        with torch.no_grad():
            fa = fractional_anisotropy(tensor)
            reason = torch.where(
                (fa < self.cutoff) | (fa == 0), int(StopReason.BELOW_CUTOFF), int(StopReason.NONE)
            )
            reason = torch.where(inside, reason, int(StopReason.OUTSIDE_IMAGE))
        direction = principal_directions(tensor, start, reason == 0)
        return Heading(direction.to(self.dtype), reason)

    def strength(
        self,
        position_mm: Float[Tensor, "3 n"],
        direction: Float[Tensor, "3 n"],  # noqa: ARG002 - fODFs need it
    ) -> Float[Tensor, " n"]:
        """Compute the fractional anisotropy at each position; 0 outside the image."""
        voxel = self.grid.to_voxel(position_mm)
        fa = fractional_anisotropy(self.tensors_at(voxel).double())
        return torch.where(self.grid.is_in(self.occupied, voxel), fa, 0)

    def tensors_at(self, voxel: Float[Tensor, "3 n"]) -> Float[Tensor, "6 n"]:
        """Give the tensors at voxel coordinates; differentiable in these too."""
        values = interpolate(self.table, voxel, self.grid)
        if self.fit is None:
            return values
        positive = values > 0
        logs = torch.where(positive, torch.log(torch.where(positive, values, 1)), 0)
        tensors: Tensor = _SumInOrder.apply(self.fit, logs)  # type: ignore[no-untyped-call]
        return tensors


class _SumInOrder(torch.autograd.Function):
    """A matrix product whose terms are added one after another, as MRtrix's are.

    Rounding matters: along hundreds of steps through tensors whose two largest eigenvalues are
    nearly equal it grows from 1e-6 to 0.01 mm. And so it depends on no other column.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, vectors: Tensor) -> Tensor:  # noqa: ANN401 - torch leaves the type of its context open
        ctx.save_for_backward(matrix)
        total = vectors.new_zeros(len(matrix), vectors.shape[1])
        for column, row in zip(matrix.T, vectors, strict=True):
            total += column[:, None] * row
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, Tensor]:  # noqa: ANN401 - torch leaves the type of its context open
        (matrix,) = ctx.saved_tensors
        return None, matrix.T @ cotangent


def fractional_anisotropy(tensor: Float[Tensor, "6 n"]) -> Float[Tensor, " n"]:
    """Compute the fractional anisotropy of tensors (xx, xy, xz, yy, yz, zz); 0 for none.

    References
    ----------
    Basser and Pierpaoli 1996, doi:10.1006/jmrb.1996.0086, equation 17.
    """
    xx, xy, xz, yy, yz, zz = tensor
    mean = (xx + yy + zz) / 3
    off_diagonal = 2 * (xy * xy + xz * xz + yz * yz)
    deviation = (xx - mean) ** 2 + (yy - mean) ** 2 + (zz - mean) ** 2 + off_diagonal
    size = xx * xx + yy * yy + zz * zz + off_diagonal
    return torch.sqrt(1.5 * deviation / torch.where(size > 0, size, 1))


def principal_directions(
    tensor: Float[Tensor, "6 n"], start: Float[Tensor, "3 n"], wanted: Bool[Tensor, " n"]
) -> Float[Tensor, "3 n"]:
    """Find the eigenvectors of the largest eigenvalues, in the sense of ``start``.

    A tensor's quadratic form is a function on the sphere whose peak this is, so it has the peaks'
    implicit derivative. (That of an eigenvalue routine is infinite where any two are equal.)

    Parameters
    ----------
    tensor
        Components xx, xy, xz, yy, yz, zz.
    start
        Unit vectors.
    wanted
        Where there is something to find; elsewhere the result is ``start``.

    Returns
    -------
    Tensor
        Unit vectors in the dtype of ``tensor``.
    """
    with torch.no_grad():
        xx, xy, xz, yy, yz, zz = tensor
        matrix = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], dim=1).reshape(-1, 3, 3)
        vector = torch.linalg.eigh(matrix).eigenvectors[:, :, 2].T
        vector = torch.where((vector * start).sum(0) < 0, -vector, vector)
        direction = torch.where(wanted, vector, start.to(vector))
    if not tensor.requires_grad:
        return direction
    return implicit_peak(tensor, direction, wanted, 2)


def _least_squares(
    bvecs: Float[Tensor, "volume 3"], bvals_s_mm2: Float[Tensor, " volume"], n_volumes: int
) -> Float[Tensor, "6 volume"]:
    """Invert ln S = ln S0 - b g'Dg for D: the pseudo-inverse's rows for xx, xy, xz, yy, yz, zz."""
    if bvecs.shape != (n_volumes, 3) or bvals_s_mm2.shape != (n_volumes,):
        raise GradientError(
            f"The series has {n_volumes} volumes, but b-vectors and b-values have the shapes "
            f"{tuple(bvecs.shape)} and {tuple(bvals_s_mm2.shape)}.",
            where="bvecs, bvals_s_mm2",
            remedy="Give one row of three numbers and one b-value for each volume.",
        )
    b = bvals_s_mm2.detach().to("cpu", torch.float64)
    directions = bvecs.detach().to("cpu", torch.float64)
    # A scanner's table may hold NaN where there is no weighting and so no direction.
    x, y, z = torch.where(b > 0, directions.T, 0)
    squares = torch.stack([x * x, 2 * x * y, 2 * x * z, y * y, 2 * y * z, z * z])
    largest = float(b.max()) if n_volumes else 0.0
    if not bool(torch.isfinite(squares * b).all()) or largest <= 0:
        raise GradientError(
            "The gradient table is not finite, or has no diffusion weighting.",
            where="bvecs, bvals_s_mm2",
            remedy="Check that it belongs to this series.",
        )
    # In units of the largest b-value, so that the columns are alike and the rank can be told.
    design = torch.cat([-squares * (b / largest), torch.ones_like(b)[None]]).T
    rank = int(torch.linalg.matrix_rank(design, rtol=1e-6))
    if rank < _UNKNOWNS:
        raise GradientError(
            f"The gradient table determines {rank} of the {_UNKNOWNS} numbers of a tensor fit.",
            where="bvecs, bvals_s_mm2",
            remedy="At least two b-values and six directions that are not alike are needed.",
        )
    return torch.linalg.pinv(design)[:6] / largest


def _checked_table(image: Tensor, what: str, last_axis: str) -> Float[Tensor, "voxel value"]:
    if image.ndim != 4 or not image.numel():
        raise InputError(
            f"The {what} has the shape {tuple(image.shape)}; (x, y, z, {last_axis}) is needed.",
            where=what,
            remedy="Give a four-dimensional image.",
        )
    if image.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"The {what} is {image.dtype}; float32 or float64 is needed.",
            where=what,
            remedy="Convert it with .float().",
        )
    bad = int((~torch.isfinite(image.detach())).any(-1).sum())
    if bad:
        raise InputError(
            f"The {what} is not finite in {bad} of {image[..., 0].numel()} voxels.",
            where=what,
            remedy="Set these voxels to zero: image.nan_to_num(0, 0, 0).",
        )
    return image.reshape(-1, image.shape[3])
