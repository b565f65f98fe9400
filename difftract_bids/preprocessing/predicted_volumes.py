"""What a diffusion-weighted volume should look like, judged by all the others."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float, Int

from difftract_bids.io.gradients import GradientTable

#: A shell with fewer volumes is predicted together with the shell nearest in b-value.
_ENOUGH = 6
#: Angles, radians, beyond which directions are not alike; and noise variance over the variance
#: that direction makes. The best pair is chosen by the error of the predictions.
_REACHES_RAD = (0.7, 1.0, 1.3, np.pi / 2)
_NOISE_RATIOS = (0.1, 0.5, 2.0, 8.0)
#: How alike two b-values are: standard deviation of their log ratio.
_LOG_BVAL_SD = 0.5
#: Variance of what all directions have in common, over that which direction makes.
_COMMON = 1e3
#: Voxels that the choice is made on.
_TUNING_VOXELS = 2000


def predict_left_out(
    signals: Float[np.ndarray, "volume voxel"],
    gradients: GradientTable,
    *,
    misaligned: bool = False,
) -> Float[np.ndarray, "volume voxel"]:
    """Predict each volume from the others of its shell by Gaussian processes.

    The covariance between two directions falls with the angle between their axes as a spherical
    variogram, and all b=0 volumes are alike. How far it reaches and how much noise there is are
    chosen per shell by the error of the predictions. A volume never contributes to its own
    prediction; one that is alone is predicted as it is.

    Parameters
    ----------
    signals
        Values of aligned volumes at the same points.
    gradients
        b-values, and directions in the frame that the volumes are aligned to.
    misaligned
        Whether the volumes may be misaligned. Predictions then follow the direction less, as they
        would repeat what volumes of neighbouring directions have in common by chance of movement.

    References
    ----------
    Andersson and Sotiropoulos 2015, doi:10.1016/j.neuroimage.2015.07.067 (covariance);
    Rasmussen and Williams 2006, equations 5.10 to 5.12 (prediction of what is left out).
    """
    out = np.array(signals, dtype=np.float32)
    for volumes in groups(gradients):
        if len(volumes) > 1:
            noise_ratios = _NOISE_RATIOS[-1:] if misaligned else _NOISE_RATIOS
            out[volumes] = _predict_group(out[volumes], gradients, volumes, noise_ratios)
    return out


def groups(gradients: GradientTable) -> list[Int[np.ndarray, " n"]]:
    """List the volumes of each shell, b=0 first; small shells join the one nearest in b-value."""
    b0 = np.flatnonzero(gradients.b0_mask)
    shells = [np.flatnonzero(volumes) for bval, volumes in gradients.shell_volumes() if bval > 0]
    while len(shells) > 1 and min(map(len, shells)) < _ENOUGH:
        means = np.log([gradients.bvals_s_mm2[shell].mean() for shell in shells])
        small = int(np.argmin([len(shell) for shell in shells]))
        apart = np.abs(means - means[small])
        apart[small] = np.inf
        other = int(apart.argmin())
        joined = np.sort(np.concatenate([shells[small], shells[other]]))
        shells = [s for at, s in enumerate(shells) if at not in {small, other}] + [joined]
    return [group for group in (b0, *shells) if len(group)]


def _predict_group(
    signals: Float[np.ndarray, "n voxel"],
    gradients: GradientTable,
    volumes: Int[np.ndarray, " n"],
    noise_ratios: tuple[float, ...],
) -> Float[np.ndarray, "n voxel"]:
    if gradients.b0_mask[volumes[0]]:
        covariances = [np.eye(len(volumes)) + _COMMON]
    else:
        bvals, bvecs = gradients.bvals_s_mm2[volumes], gradients.bvecs[volumes]
        covariances = [
            _covariance(bvals, bvecs, reach, noise)
            for reach, noise in itertools.product(_REACHES_RAD, noise_ratios)
        ]
    every = max(1, signals.shape[1] // _TUNING_VOXELS)
    few = signals[:, ::every].astype(np.float64)
    smoothers = [_left_out_smoother(covariance) for covariance in covariances]
    errors = [np.abs(smoother @ few - few).mean() for smoother in smoothers]
    best = smoothers[int(np.argmin(errors))]
    return best.astype(np.float32) @ signals


def _left_out_smoother(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Give the matrix that predicts each of n values from the others: zero on its diagonal."""
    precision = np.linalg.inv(covariance)
    smoother = np.eye(len(covariance)) - precision / np.diag(precision)[:, None]
    # The prior mean is 0, which pulls predictions down by a little: a constant is to be kept.
    return smoother / smoother.sum(axis=1, keepdims=True)


def _covariance(
    bvals_s_mm2: Float[np.ndarray, " n"],
    bvecs: Float[np.ndarray, "n 3"],
    reach_rad: float,
    noise_ratio: float,
) -> Float[np.ndarray, "n n"]:
    angle = np.arccos(np.abs(bvecs @ bvecs.T).clip(max=1.0))
    ratio = (angle / reach_rad).clip(max=1.0)
    direction = 1.0 - 1.5 * ratio + 0.5 * ratio**3
    log_ratio = np.subtract.outer(np.log(bvals_s_mm2), np.log(bvals_s_mm2))
    alike = np.exp(-0.5 * (log_ratio / _LOG_BVAL_SD) ** 2)
    return (_COMMON + direction) * alike + noise_ratio * np.eye(len(bvecs))
