"""Fitting a smooth displacement along one axis, so that two images of like anatomy agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """A distorted image and its model; the last axis is that of the displacement.

    Attributes
    ----------
    distorted
        Echo-planar image.
    anatomy
        Another contrast of the same anatomy, undistorted, on the same grid.
    weight
        Where they count, 0 to 1.
    sizes_mm
        Size of the voxels.
    """

    distorted: Float[np.ndarray, "x y z"]
    anatomy: Float[np.ndarray, "x y z"]
    weight: Float[np.ndarray, "x y z"]
    sizes_mm: tuple[float, ...]


@dataclass(frozen=True)
class _Level:
    """About what voxels the images have, how far control points are apart, and for how long."""

    voxel_mm: float
    spacing_mm: float
    iterations: int


_LEVELS = (_Level(4.0, 32.0, 40), _Level(4.0, 16.0, 60), _Level(2.0, 12.0, 40))
#: Weights of curvature, of the displacement itself, and of compression beyond 0.4.
_BENDING, _RIDGE, _COMPRESSION, _COMPRESSED_BELOW = 0.05, 0.004, 10.0, 0.4
_LEARNING_RATE_MM = 0.3
#: The contrast is matched again after so many iterations.
_MATCH_EVERY = 20
_BINS = 48
#: Receive coils and pulses shade images over this distance.
_BIAS_MM = 25.0


def fit_displacement(pair: Pair, start_mm: Float[np.ndarray, "x y z"]) -> np.ndarray:
    """Find the displacement (cubic B-splines, coarse to fine) under which the images agree best.

    Parameters
    ----------
    pair
        The images.
    start_mm
        Where to begin, millimetres.

    Returns
    -------
    numpy.ndarray
        Displacement, millimetres, towards larger indices: what belongs at x lies at x + d(x).
    """
    field = start_mm
    for level in _LEVELS:
        field = _fit_level(pair, field, level)
    return field


def _fit_level(
    pair: Pair, field: Float[np.ndarray, "x y z"], level: _Level
) -> Float[np.ndarray, "x y z"]:
    factors = [max(1, round(level.voxel_mm / size)) for size in pair.sizes_mm]
    sizes = [size * factor for size, factor in zip(pair.sizes_mm, factors, strict=True)]
    images = [_pooled(image, factors) for image in (pair.distorted, pair.anatomy, pair.weight)]
    distorted, weight = (torch.from_numpy(images[n]) for n in (0, 2))
    # Positions are those of the fine voxels, so that the field of one level is that of the next.
    coarse, fine = [], []
    for n, factor, size in zip(field.shape, factors, pair.sizes_mm, strict=True):
        extent = (n - 1) * size
        centres = (np.arange(n // factor) * factor + (factor - 1) / 2) * size
        coarse.append(_splines(centres, extent, level.spacing_mm))
        fine.append(_splines(np.arange(n) * size, extent, level.spacing_mm))
    inverses = [np.linalg.pinv(values, rcond=1e-3) for values, _ in fine]
    start = np.einsum("xyz,ax,by,cz->abc", field, *inverses, optimize=True)
    coefficients = torch.from_numpy(start).requires_grad_()
    bases = [torch.from_numpy(values) for values, _ in coarse]
    slopes = [*bases[:2], torch.from_numpy(coarse[2][1])]
    optimiser = torch.optim.Adam([coefficients], lr=_LEARNING_RATE_MM)
    model, scale = distorted, 1.0
    for iteration in range(level.iterations):
        shift, slope = _evaluate(coefficients, bases), _evaluate(coefficients, slopes)
        moved = _undistorted(distorted, shift / sizes[2], slope)
        if iteration % _MATCH_EVERY == 0:
            matched = _matched(images[1], moved.detach().numpy(), images[2], sizes)
            inside = matched[images[2] > 0.5]
            model, scale = torch.from_numpy(matched), float(inside.var())
        error = (moved - model).square() / scale
        loss = (
            (weight * error / (1.0 + error)).sum() / weight.sum()
            + _BENDING * _curvature(coefficients) / level.spacing_mm
            + _RIDGE * shift.square().mean()
            + _COMPRESSION * torch.relu(_COMPRESSED_BELOW - 1.0 - slope).square().mean()
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    whole = _evaluate(coefficients.detach(), [torch.from_numpy(values) for values, _ in fine])
    return whole.numpy()


def _evaluate(coefficients: Float[Tensor, "a b c"], bases: list[Tensor]) -> Float[Tensor, "x y z"]:
    # One axis after the other: a single einsum of all four would do so in a worse order.
    planes = torch.einsum("abc,zc->abz", coefficients, bases[2])
    columns = torch.einsum("abz,yb->ayz", planes, bases[1])
    return torch.einsum("ayz,xa->xyz", columns, bases[0])


def _curvature(coefficients: Float[Tensor, "a b c"]) -> Tensor:
    return torch.stack(
        [coefficients.diff(n=2, dim=axis).square().mean() for axis in range(3)]
    ).sum()


def _splines(
    positions_mm: Float[np.ndarray, " n"], extent_mm: float, spacing_mm: float
) -> tuple[Float[np.ndarray, "n control"], Float[np.ndarray, "n control"]]:
    """Evaluate cubic B-splines and their slopes (1/mm) at positions from 0 to the extent."""
    control = np.arange(int(np.ceil(extent_mm / spacing_mm)) + 3) - 1
    offset = positions_mm[:, None] / spacing_mm - control
    away = np.abs(offset)
    inner, outer = away < 1, away < 2
    values = np.where(inner, 2 / 3 - away**2 + away**3 / 2, (2 - away) ** 3 / 6)
    slopes = np.sign(offset) * np.where(inner, 1.5 * away**2 - 2 * away, -((2 - away) ** 2) / 2)
    return np.where(outer, values, 0.0), np.where(outer, slopes, 0.0) / spacing_mm


def _pooled(image: Float[np.ndarray, "x y z"], factors: list[int]) -> Float[np.ndarray, "u v w"]:
    """Average blocks of voxels; what does not fill a block at the end is left out."""
    x, y, z = (n // f for n, f in zip(image.shape, factors, strict=True))
    f, g, h = factors
    blocks = image[: x * f, : y * g, : z * h].reshape(x, f, y, g, z, h)
    return blocks.mean(axis=(1, 3, 5))


def _undistorted(
    image: Float[Tensor, "x y z"], shift: Float[Tensor, "x y z"], slope: Float[Tensor, "x y z"]
) -> Float[Tensor, "x y z"]:
    """Sample an image at displaced positions (linear), times how far they are stretched."""
    last = image.shape[-1] - 1
    place = torch.arange(last + 1, dtype=image.dtype) + shift
    lower = place.detach().floor().clamp(0, last - 1).long()
    before, after = image.gather(-1, lower), image.gather(-1, lower + 1)
    inside = (place >= 0) & (place <= last)
    return (before + (after - before) * (place - lower)) * inside * (1.0 + slope)


def _matched(
    anatomy: Float[np.ndarray, "x y z"],
    epi: Float[np.ndarray, "x y z"],
    weight: Float[np.ndarray, "x y z"],
    sizes_mm: list[float],
) -> Float[np.ndarray, "x y z"]:
    """Give the anatomy the contrast of the other image: the median of each value, and its bias."""
    counted = weight > 0.5
    edges = np.unique(np.quantile(anatomy[counted], np.linspace(0, 1, _BINS + 1)))
    which = np.clip(np.searchsorted(edges, anatomy, side="right") - 1, 0, max(len(edges) - 2, 0))
    within = np.where(counted, which, -1)
    bins = np.unique(which[counted])
    level, middle = ndimage.median(epi, within, bins), ndimage.mean(anatomy, within, bins)
    level = ndimage.gaussian_filter1d(level, 1.5, mode="nearest")
    matched = np.interp(anatomy, middle, level)
    sigma = [_BIAS_MM / size for size in sizes_mm]
    smooth = [
        ndimage.gaussian_filter(image * weight, sigma, mode="constant") for image in (epi, matched)
    ]
    bias = smooth[0] / np.maximum(smooth[1], 1e-6 * max(float(smooth[1].max()), 1e-12))
    return matched * np.clip(bias, 0.5, 2.0)
