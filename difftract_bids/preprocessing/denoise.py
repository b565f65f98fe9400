"""Denoising by principal components with a threshold from random matrix theory (MP-PCA)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.errors import InputError

#: Patches decomposed together: bounds the memory.
_PATCHES_AT_ONCE = 1024
#: Fewer voxels than this in a patch say nothing about the spread of noise eigenvalues.
_MIN_PATCH_VOXELS = 8


def denoise_mppca(
    dwi: Float[np.ndarray, "x y z volume"],
    mask: Bool[np.ndarray, "x y z"] | None = None,
    *,
    stride: int | None = None,
) -> tuple[Float[np.ndarray, "x y z volume"], Float[np.ndarray, "x y z"]]:
    """Remove the components of each local patch that look like pure noise.

    A patch is a cube of 2 r + 1 voxels, with the smallest radius r that gives it more voxels than
    there are volumes (3 up to 26 volumes, 5 up to 124, 7 up to 342, ...), less along a short axis
    of the image. Components whose eigenvalue lies below the upper edge of the Marchenko-Pastur
    distribution are dropped, and overlapping patches averaged with weight 1 / (1 + components
    kept). Patch centres are r voxels apart, so that every voxel lies in several patches; with a
    stride of 1 the estimate is that of DIPY's ``mppca``, at r³ times the cost.

    Parameters
    ----------
    dwi
        Diffusion series before any interpolation, which would correlate the noise.
    mask
        Voxels to be denoised; the others are returned as they came. Default: all of them.
    stride
        Distance of patch centres in voxels; default r.

    Returns
    -------
    denoised
        Same shape, float32, never negative inside the mask.
    sigma
        Standard deviation of the noise, in the units of ``dwi``; 0 outside the mask and where the
        image is empty.

    Raises
    ------
    InputError
        If the series has fewer than two volumes, values that are not finite, or is too small for
        a patch.

    References
    ----------
    Veraart et al. 2016, doi:10.1016/j.neuroimage.2016.08.016 (threshold);
    Manjón et al. 2013, doi:10.1371/journal.pone.0073021 (overlapping patches, equation 3).
    """
    _check(dwi)
    radius = patch_radius(dwi.shape)
    step = max(1, int(radius.max())) if stride is None else stride
    image = torch.from_numpy(np.ascontiguousarray(dwi, dtype=np.float32))
    wanted = (
        np.ones(dwi.shape[:3], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    ) & dwi.any(axis=-1)
    weighted_sum = torch.zeros_like(image).view(-1, dwi.shape[3])
    variance_sum = torch.zeros(len(weighted_sum))
    weight_sum = torch.zeros(len(weighted_sum))
    for voxels in _patches(wanted, radius, step):
        patch = image.view(-1, dwi.shape[3])[voxels]
        estimate, variance, weight = _denoise_patches(patch)
        for column in range(voxels.shape[1]):  # distinct patches: no voxel twice in a column
            weighted_sum[voxels[:, column]] += weight[:, None] * estimate[:, column]
            variance_sum[voxels[:, column]] += weight * variance
            weight_sum[voxels[:, column]] += weight
    inside = torch.from_numpy(wanted).view(-1)
    denoised = image.clone().view(-1, dwi.shape[3])
    denoised[inside] = (weighted_sum[inside] / weight_sum[inside, None]).clamp(min=0)
    sigma = torch.zeros(len(weighted_sum))
    sigma[inside] = (variance_sum[inside] / weight_sum[inside]).sqrt()
    return denoised.view(dwi.shape).numpy(), sigma.view(dwi.shape[:3]).numpy()


def patch_radius(shape: tuple[int, ...]) -> Int[np.ndarray, " 3"]:
    """Choose the patch radius along each axis for a series of this shape (x, y, z, volumes).

    Raises
    ------
    InputError
        If the image is so small that a patch would hold fewer than 8 voxels.
    """
    radius = 1
    while (2 * radius + 1) ** 3 <= shape[3]:
        radius += 1
    per_axis = np.minimum(radius, (np.asarray(shape[:3]) - 1) // 2)
    if np.prod(2 * per_axis + 1) < _MIN_PATCH_VOXELS:
        raise InputError(
            f"The image of {shape[0]} x {shape[1]} x {shape[2]} voxels is too small to be "
            f"denoised: a patch would hold {np.prod(2 * per_axis + 1)} voxels, "
            f"{_MIN_PATCH_VOXELS} are needed.",
            remedy="Switch denoising off (--denoise-method none), or use the whole image.",
        )
    return per_axis


def _check(dwi: Float[np.ndarray, "x y z volume"]) -> None:
    if dwi.ndim != 4 or dwi.shape[3] < 2:
        raise InputError(
            f"Denoising needs a series of at least 2 volumes; the image's shape is {dwi.shape}.",
            remedy="Switch denoising off (--denoise-method none).",
        )
    refuse_gaps(dwi)


def refuse_gaps(dwi: Float[np.ndarray, "x y z volume"], where: object = None) -> None:
    """Refuse a series with values that are not finite: they would spread to their neighbours.

    Parameters
    ----------
    dwi
        The series.
    where
        Its file, for the message.

    Raises
    ------
    InputError
        If there are any.
    """
    of_volumes = dwi[..., 0].size - np.isfinite(dwi).sum(axis=(0, 1, 2))
    if of_volumes.any():
        volumes = np.flatnonzero(of_volumes)
        shown = ", ".join(map(str, volumes[:5])) + (" ..." if len(volumes) > 5 else "")
        raise InputError(
            f"{of_volumes.sum()} of {dwi.size} values of the diffusion series are not finite, in "
            f"{len(volumes)} of {dwi.shape[3]} volumes (counted from 0: {shown}).",
            where=where,
            remedy="Convert the DICOM files again, or replace these values.",
        )


def _patches(
    wanted: Bool[np.ndarray, "x y z"], radius: Int[np.ndarray, " 3"], step: int
) -> Iterator[Int[Tensor, "patch voxel"]]:
    """Yield the flat voxel indices of patches that meet the wanted voxels, some at a time."""
    index = np.arange(wanted.size).reshape(wanted.shape)
    centres = [
        np.unique(np.append(np.arange(r, n - r, max(1, min(step, int(r)))), n - 1 - r))
        for n, r in zip(wanted.shape, radius, strict=True)
    ]
    starts = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 3) - radius
    corner = index[tuple(starts.T)]
    offsets = index[tuple(slice(0, 2 * r + 1) for r in radius)].ravel()
    flat = wanted.ravel()
    for first in range(0, len(corner), _PATCHES_AT_ONCE):
        voxels = corner[first : first + _PATCHES_AT_ONCE, None] + offsets
        voxels = voxels[flat[voxels].any(axis=1)]
        if len(voxels):
            yield torch.from_numpy(voxels)


def _denoise_patches(
    patch: Float[Tensor, "patch voxel volume"],
) -> tuple[Float[Tensor, "patch voxel volume"], Float[Tensor, " patch"], Float[Tensor, " patch"]]:
    """Estimate the signal, the noise variance and the weight of each patch."""
    n_voxels, n_volumes = patch.shape[1:]
    mean = patch.mean(dim=1, keepdim=True)
    centred = patch - mean
    # In float64 because noise variances are small beside the largest eigenvalue.
    double = centred.double()
    eigenvalues, vectors = torch.linalg.eigh(double.mT @ double / n_voxels)
    variance = _noise_variance(eigenvalues.clamp(min=0), n_voxels)
    edge = (1 + (n_volumes / n_voxels) ** 0.5) ** 2 * variance
    kept = eigenvalues >= edge[:, None]
    n_kept = kept.sum(dim=1)
    # Only the columns that some patch of the batch keeps: a tenth of them, and of the time.
    columns = slice(n_volumes - int(n_kept.max()), None)
    basis = (vectors[:, :, columns] * kept[:, None, columns]).to(patch.dtype)
    estimate = (centred @ basis) @ basis.mT + mean
    # The mean and each component kept take one of the patch's degrees of freedom with them.
    left = (n_voxels - 1 - n_kept).clamp(min=1)
    variance = variance * (n_voxels / left)
    return estimate, variance.to(patch.dtype), (1.0 / (1.0 + n_kept)).to(patch.dtype)


def _noise_variance(
    eigenvalues: Float[Tensor, "patch volume"], n_voxels: int
) -> Float[Tensor, " patch"]:
    """Average the largest set of small eigenvalues that is no wider than noise alone makes it.

    Veraart 2016, equations 11 and 12: of the c smallest eigenvalues, the range may be at most
    4 sqrt(c / n_voxels) times their mean. Ascending order.
    """
    usable = eigenvalues[:, -(n_voxels - 1) :]  # subtracting the mean leaves the others at zero
    count = torch.arange(1, usable.shape[1] + 1, dtype=usable.dtype)
    mean = usable.cumsum(dim=1) / count
    fits = usable - usable[:, :1] <= 4 * (count / n_voxels).sqrt() * mean
    last = (fits * torch.arange(1, usable.shape[1] + 1)).argmax(dim=1)
    return mean.gather(1, last[:, None])[:, 0]
