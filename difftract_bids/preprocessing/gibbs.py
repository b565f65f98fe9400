"""Gibbs ringing: whether it may be removed, and its removal by subvoxel shifts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from dipy.denoise.gibbs import gibbs_removal
from jaxtyping import Float

from difftract_bids.bids.phase_encoding import slice_direction

#: Power in the outer tenth of k-space below this share of that just inside: nothing was measured
#: there, so that the image was interpolated.
_EMPTY_SHARE = 0.02
_OUTER, _INNER = 0.45, (0.25, 0.35)
_SLICE_AXES = {"i": 0, "j": 1, "k": 2}
#: Below this a share of k-space is partial: converters round 1.
_FULL = 0.995


class Unringing(NamedTuple):
    """What was decided about a run.

    Attributes
    ----------
    wanted
        Whether ringing is removed.
    note
        What the user should know about it; empty where nothing is remarkable.
    """

    wanted: bool
    note: str


def decide_unringing(
    method: str, metadata: Mapping[str, Any], dwi: Float[np.ndarray, "x y z volume"]
) -> Unringing:
    """Decide whether ringing may be removed.

    Shifts by parts of a voxel undo the ringing of a full, symmetric sampling of k-space that was
    not interpolated. With partial Fourier the ringing along the phase-encoding axis is another
    one, and interpolation spreads it over more voxels.

    Parameters
    ----------
    method
        ``auto``, ``subvoxel`` or ``none``.
    metadata
        The run's sidecar.
    dwi
        The series, before anything interpolates it.
    """
    if method == "none":
        return Unringing(wanted=False, note="")
    obstacle = _obstacle(metadata, dwi)
    if method == "subvoxel":
        doubt = f"Gibbs ringing was removed as asked, although {obstacle}." if obstacle else ""
        return Unringing(wanted=True, note=doubt)
    if obstacle:
        return Unringing(
            wanted=False,
            note=f"Gibbs ringing was not removed: {obstacle}. --unringing-method subvoxel removes "
            "it all the same.",
        )
    return Unringing(wanted=True, note="")


def slice_axis(metadata: Mapping[str, Any]) -> int:
    """Give the voxel axis across slices: the sidecar's, or the third."""
    return _SLICE_AXES[slice_direction(metadata)[0]]


def remove_gibbs(
    dwi: Float[np.ndarray, "x y z volume"], axis: int = 2
) -> Float[np.ndarray, "x y z volume"]:
    """Shift each edge to where its ringing is sampled at its zeros, slice by slice (DIPY).

    Parameters
    ----------
    dwi
        Series on the grid it was measured on, after denoising.
    axis
        Voxel axis across slices.

    Returns
    -------
    numpy.ndarray
        Float32, never negative.

    References
    ----------
    Kellner et al. 2016, doi:10.1002/mrm.26054.
    """
    out = np.empty(dwi.shape, np.float32)
    for volume in range(dwi.shape[3]):  # one at a time: DIPY copies all it is given in float64
        # A value that is not finite would spread over its whole slice.
        data = np.nan_to_num(dwi[..., volume].astype(np.float64), posinf=0.0, neginf=0.0)
        out[..., volume] = gibbs_removal(data, slice_axis=axis, inplace=False, num_processes=1)
    return out.clip(min=0)


def is_interpolated(dwi: Float[np.ndarray, "x y z volume"], axis: int = 2) -> bool:
    """Say whether k-space is empty at its edge along an axis of the slices.

    Noise fills k-space evenly as far as it was measured; the power near the edge is compared with
    that at half way. Magnitudes and skull stripping put a little back, hence a share.

    Parameters
    ----------
    dwi
        The series; its last volume is looked at, as the noisiest.
    axis
        Voxel axis across slices.
    """
    in_plane = [a for a in range(3) if a != axis]
    volume = np.nan_to_num(np.asarray(dwi[..., -1], dtype=np.float64), posinf=0.0, neginf=0.0)
    power = np.abs(np.fft.fftn(volume, axes=in_plane)) ** 2
    for along in in_plane:
        if volume.shape[along] < 16:
            continue
        other = tuple(a for a in range(3) if a != along)
        frequency = np.abs(np.fft.fftfreq(volume.shape[along]))
        profile = power.mean(axis=other)
        inner = (frequency > _INNER[0]) & (frequency < _INNER[1])
        edge = profile[frequency > _OUTER].mean()
        if edge < _EMPTY_SHARE * profile[inner].mean():
            return True
    return False


def _obstacle(metadata: Mapping[str, Any], dwi: Float[np.ndarray, "x y z volume"]) -> str:
    """Say why unringing would be wrong, if it would."""
    share = metadata.get("PartialFourier")
    if share is None:
        return "the sidecar does not say whether k-space was sampled fully (PartialFourier)"
    try:
        is_full = float(share) >= _FULL
    except (TypeError, ValueError):
        return f"the sidecar's PartialFourier, {share!r}, is not a number"
    if not is_full:
        return f"only {float(share):g} of k-space was sampled (PartialFourier)"
    measured, made = (metadata.get(name) for name in ("AcquisitionMatrixPE", "ReconMatrixPE"))
    if isinstance(measured, (int, float)) and isinstance(made, (int, float)) and made > measured:
        return f"{measured:g} lines were measured and {made:g} reconstructed (ReconMatrixPE)"
    if is_interpolated(dwi, slice_axis(metadata)):
        return "the images were interpolated: the edge of their k-space is empty"
    return ""
