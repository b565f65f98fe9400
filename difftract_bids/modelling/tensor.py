"""Diffusion tensor maps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel
from jaxtyping import Bool, Float

from difftract_bids.errors import GradientError
from difftract_bids.io.gradients import GradientTable

#: Above this b-value the decay is no longer mono-exponential and the tensor is biased.
_MAX_BVAL_S_MM2 = 1500.0
_MIN_DIRECTIONS = 6


class TensorMaps(NamedTuple):
    """Maps of the diffusion tensor, zero outside the mask.

    Attributes
    ----------
    fa
        Fractional anisotropy, 0 to 1.
    md_mm2_s
        Mean diffusivity, mm²/s.
    v1
        Principal direction, unit vectors in scanner axes.
    """

    fa: Float[np.ndarray, "x y z"]
    md_mm2_s: Float[np.ndarray, "x y z"]
    v1: Float[np.ndarray, "x y z 3"]


def fit_tensor(
    dwi: Float[np.ndarray, "x y z volume"],
    gradients: GradientTable,
    mask: Bool[np.ndarray, "x y z"],
) -> TensorMaps:
    """Fit the tensor by weighted least squares (DIPY), in the mask.

    Of several shells only those up to b = 1500 s/mm² are used, where these have six directions.
    Values that are not positive are raised to the smallest positive one; voxels without any signal
    get zeros.

    Raises
    ------
    GradientError
        If the table does not fit the series, or has fewer than six directions or no b=0.

    References
    ----------
    Chung et al. 2006, doi:10.1016/j.neuroimage.2006.07.001 (weighted least squares);
    Basser and Pierpaoli 1996, doi:10.1006/jmrb.1996.0086 (anisotropy).
    """
    volumes = _tensor_volumes(gradients, dwi.shape[-1])
    fa = np.zeros(dwi.shape[:3], dtype=np.float32)
    md = np.zeros_like(fa)
    v1 = np.zeros((*dwi.shape[:3], 3), dtype=np.float32)
    signal = np.nan_to_num(dwi[mask][:, volumes].astype(np.float64), posinf=0.0, neginf=0.0)
    usable = (signal > 0).sum(axis=1) > _MIN_DIRECTIONS
    if usable.any():
        signal = signal[usable]
        table = gradient_table(
            gradients.bvals_s_mm2[volumes],
            bvecs=gradients.bvecs[volumes],
            b0_threshold=gradients.b0_threshold_s_mm2,
        )
        model = TensorModel(table, fit_method="WLS", min_signal=float(signal[signal > 0].min()))
        fit = model.fit(signal)
        where = tuple(index[usable] for index in np.nonzero(mask))
        fa[where] = np.nan_to_num(fit.fa).clip(0, 1)
        md[where] = np.nan_to_num(fit.md).clip(min=0)
        v1[where] = np.nan_to_num(fit.evecs[..., 0])
    return TensorMaps(fa, md, v1)


def _tensor_volumes(gradients: GradientTable, n_volumes: int) -> Bool[np.ndarray, " volume"]:
    if len(gradients.bvals_s_mm2) != n_volumes:
        raise GradientError(
            f"The image has {n_volumes} volumes, the gradient table {len(gradients.bvals_s_mm2)}.",
            remedy="They must belong to the same image.",
        )
    if not gradients.b0_mask.any() or gradients.n_directions < _MIN_DIRECTIONS:
        raise GradientError(
            f"A tensor needs a b=0 volume and {_MIN_DIRECTIONS} directions; there are "
            f"{int(gradients.b0_mask.sum())} and {gradients.n_directions}.",
            remedy="Leave this run out, or merge the parts of the acquisition.",
        )
    low = gradients.bvals_s_mm2 <= _MAX_BVAL_S_MM2
    if (low & ~gradients.b0_mask).sum() >= _MIN_DIRECTIONS:
        return low
    return np.ones(n_volumes, dtype=bool)
