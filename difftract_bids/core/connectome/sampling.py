"""What an image holds along streamlines: one number for each of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from difftract_bids.core.connectome.checks import check_finite, check_streamlines
from difftract_bids.core.interpolation import Grid, interpolate
from difftract_bids.core.kernels.sampling import pull_back_means, statistic_along
from difftract_bids.core.uncompiled import uncompiled
from difftract_bids.errors import ConfigError, DerivativeError, InputError

Statistic = Literal["mean", "median", "min", "max"]

#: Vertices that plain PyTorch looks up together: some 100 MB for all that is computed.
_VERTICES_AT_A_TIME = 1 << 20
#: A segment longer than the largest step by less than this share is not cut in two: rounding.
_ROUNDING = 1e-4


@uncompiled
def sample_along(
    image: Float[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    points_mm: Float[Tensor, "p 3"],
    offsets: Int[Tensor, " n+1"],
    statistic: Statistic = "mean",
    *,
    reference: bool = False,
) -> Float[Tensor, " n"]:
    """Summarise the values of an image at the vertices of each streamline, as ``tcksample`` does.

    Values are interpolated trilinearly; a vertex outside the image has the value 0. The mean is
    weighed by length: each vertex by half the segments on both sides. It is differentiable in
    ``image`` and in ``points_mm``.

    Parameters
    ----------
    image
        FA, say. Integers are taken as real numbers of the type of ``points_mm``.
    vox2ras
        Affine of the image, voxels to RAS+ millimetres.
    points_mm
        Vertices, RAS+ millimetres.
    offsets
        Streamline ``i`` is ``points_mm[offsets[i]:offsets[i + 1]]``.
    statistic
        Median, smallest and largest value are those of the vertices, whatever their distances.
    reference
        Compute in plain PyTorch, also where compiled code would be used (on processors).

    Returns
    -------
    Tensor
        In the type that image and points have together. With both in float32 the mean is summed
        in float32, vertex by vertex, as MRtrix does, up to 1e-5 off over a long streamline;
        give either in float64 for more. The mean of a streamline without length is 0. NaN: the
        mean where any value met is NaN, the others where all are; any result that is infinite.

    Raises
    ------
    ConfigError
        If there is no such statistic.
    DerivativeError
        If a gradient is asked for of another statistic than the mean.
    InputError
        If shapes, types or offsets do not fit, or a vertex is not finite.

    References
    ----------
    ``tcksample -stat_tck`` of MRtrix3 3.0.3, without ``-precise``; Smith et al. 2013,
    doi:10.1016/j.neuroimage.2012.11.049.
    """
    _check_statistic(statistic)
    check_streamlines(points_mm, offsets)
    check_finite(points_mm, offsets)
    _check_image(image)
    if statistic != "mean" and torch.is_grad_enabled():
        _check_no_gradient(statistic, image, points_mm)
    real = torch.promote_types(image.dtype, points_mm.dtype)
    if real not in {torch.float32, torch.float64}:
        real = torch.float32
    data, points = image.to(real), points_mm.to(real)
    grid = Grid.from_affine(tuple(image.shape), vox2ras, image.device)
    if reference or image.device.type != "cpu":
        result = _by_torch(data, grid, points, offsets, statistic)
    elif statistic == "mean":
        result = _Mean.apply(data, points, offsets, grid)  # type: ignore[no-untyped-call]
    else:
        result = statistic_along(data, grid.ras2vox, points, offsets, statistic)
    return torch.where(torch.isfinite(result), result, torch.nan)


def subdivide(
    points_mm: Float[Tensor, "p 3"], offsets: Int[Tensor, " n+1"], max_step_mm: float
) -> tuple[Float[Tensor, "q 3"], Int[Tensor, " n+1"]]:
    """Insert vertices, evenly, into segments longer than a step; differentiable in the points.

    So that an image is sampled as densely along a thinned tractogram as along the whole one.

    Parameters
    ----------
    points_mm, offsets
        See `sample_along`.
    max_step_mm
        No segment of the result is longer, millimetres (but for rounding).

    Returns
    -------
    points, offsets
        Of the denser streamlines; all vertices given are among them.

    Raises
    ------
    ConfigError
        If the step is not above 0 and finite.
    InputError
        If shapes, types or offsets do not fit, or a vertex is not finite.
    """
    if not 0 < max_step_mm < float("inf"):
        raise ConfigError(
            f"The largest step is {max_step_mm} mm.",
            where="max_step_mm",
            remedy="Give a length above 0, half a voxel say.",
        )
    check_streamlines(points_mm, offsets)
    check_finite(points_mm, offsets)
    if not len(points_mm):
        return points_mm, offsets
    # Each vertex is followed by those that divide the segment after it; the last by none.
    is_last = torch.zeros(len(points_mm), dtype=torch.bool, device=points_mm.device)
    ends = offsets[1:][offsets.diff() > 0] - 1
    is_last[ends] = True
    step = points_mm.roll(-1, dims=0) - points_mm
    length = torch.linalg.vector_norm(step.detach(), dim=1)
    pieces = torch.ceil(length / max_step_mm * (1 - _ROUNDING)).long().clamp(min=1)
    pieces[is_last] = 1
    owner = torch.repeat_interleave(pieces)
    first = torch.nn.functional.pad(pieces.cumsum(0), (1, 0))
    piece = torch.arange(len(owner), device=owner.device) - first[owner]
    fraction = (piece / pieces[owner]).to(points_mm.dtype)
    dense = points_mm[owner] + fraction[:, None] * step[owner]
    return dense, first[offsets]


class _Mean(torch.autograd.Function):
    """The mean by the kernels, which look the values up again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, points: Tensor, offsets: Tensor, grid: Grid) -> Tensor:  # noqa: ANN401 - torch leaves the type of its context open
        ctx.save_for_backward(image, points, offsets)
        ctx.grid = grid
        return statistic_along(image, grid.ras2vox, points, offsets, "mean")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        image, points, offsets = ctx.saved_tensors
        ras2vox = ctx.grid.ras2vox
        to_image, to_points = pull_back_means(image, ras2vox, points, offsets, cotangent)
        return to_image, to_points, None, None


def _by_torch(
    image: Tensor, grid: Grid, points: Tensor, offsets: Tensor, statistic: Statistic
) -> Float[Tensor, " n"]:
    """Cut the streamlines into what is looked at together, and find the statistic of each."""
    # Beyond the rim lies the same voxel again: the next one inside must not matter, be it NaN.
    padded = torch.nn.functional.pad(image[None, None], (1,) * 6, mode="replicate")[0, 0]
    wanted = torch.arange(0, len(points), _VERTICES_AT_A_TIME, device=offsets.device)
    cuts = torch.searchsorted(offsets, wanted.to(offsets.dtype)).tolist()
    cuts = sorted({0, *cuts, len(offsets) - 1})
    if len(cuts) == 1:
        return points.new_zeros(0)
    firsts = offsets[cuts]
    parts = torch.split(points, firsts.diff().tolist())
    some = [offsets[at : end + 1] - offsets[at] for at, end in pairwise(cuts)]
    results = [
        # The values are looked up again in the backward pass, or all would be kept.
        checkpoint(_statistic, padded, grid, part, its, statistic, use_reentrant=False)
        for part, its in zip(parts, some, strict=True)
    ]
    return torch.cat(results)


def _statistic(
    padded: Tensor, grid: Grid, points: Tensor, offsets: Tensor, statistic: Statistic
) -> Float[Tensor, " n"]:
    voxel = grid.to_voxel(points.T)
    x, y, z = padded.shape
    wider = replace(grid, shape=(x, y, z))  # only its shape is needed here
    values = interpolate(padded.reshape(-1, 1), voxel + 1, wider)[0]
    values = torch.where(grid.contains(voxel), values, 0)
    counts = offsets.diff()
    owner = torch.repeat_interleave(counts)
    if statistic == "mean":
        return _mean(values, points, owner, len(counts))
    if statistic == "median":
        return _median(values, owner, counts)
    sign = 1 if statistic == "min" else -1
    values = torch.where(values.isnan(), torch.inf, values * sign)
    best = values.new_full((len(counts),), torch.inf)
    return best.scatter_reduce(0, owner, values, "amin") * sign


def _mean(values: Tensor, points: Tensor, owner: Tensor, n: int) -> Float[Tensor, " n"]:
    inner = torch.nonzero(owner[1:] == owner[:-1]).squeeze(1)
    length = torch.linalg.vector_norm(points[inner + 1] - points[inner], dim=1)
    both = (values[inner] + values[inner + 1]) / 2
    integral = values.new_zeros(n).index_add(0, owner[inner], both * length)
    total = values.new_zeros(n).index_add(0, owner[inner], length)
    return torch.where(total > 0, integral / torch.where(total > 0, total, 1), 0)


def _median(values: Tensor, owner: Tensor, counts: Tensor) -> Float[Tensor, " n"]:
    order = torch.argsort(values, stable=True)  # NaN come last
    order = order[torch.argsort(owner[order], stable=True)]
    ranked = values[order]
    numbers = torch.zeros_like(counts).index_add(0, owner, (~values.isnan()).to(counts.dtype))
    first = counts.cumsum(0) - counts
    usable = numbers > 0
    result = values.new_full(counts.shape, torch.nan)
    low = (first + (numbers - 1) // 2)[usable]
    high = (first + numbers // 2)[usable]
    result[usable] = (ranked[low] + ranked[high]) / 2
    return result


def _check_statistic(statistic: str) -> None:
    if statistic not in get_args(Statistic):
        raise ConfigError(
            f"There is no statistic {statistic!r}.",
            where="statistic",
            remedy=f"Choose one of {', '.join(get_args(Statistic))}.",
        )


def _check_image(image: Tensor) -> None:
    if image.ndim != 3 or not image.numel() or image.is_complex():
        raise InputError(
            f"The image is {image.dtype} {tuple(image.shape)}; a three-dimensional image of real "
            "numbers is needed.",
            where="image",
            remedy="Give one volume: image[..., 0] of a series.",
        )


def _check_no_gradient(statistic: str, *given: Tensor) -> None:
    if any(tensor.requires_grad for tensor in given):
        raise DerivativeError(
            f"The {statistic} along a streamline has no derivative here.",
            where="statistic",
            remedy="Take the mean, or give detached tensors.",
        )
