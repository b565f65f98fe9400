"""Diffusion-weighted and T1-weighted signals, and the scanner's noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from difftract_bids.io.gradients import GradientTable
from difftract_bids.phantom.bundles import Fixels
from difftract_bids.phantom.tissue import Tissue, TissueMap

#: Share of a voxel's fibres that is left where it is grey matter (the rest is cell bodies).
_FIBRES_IN_GREY = 0.4


@dataclass(frozen=True)
class Relaxation:
    """Signal of a tissue without diffusion weighting: b=0 (T2) and T1-weighted, white matter 1."""

    b0: float
    t1w: float


#: Contrasts as at 3 T, echo time about 90 ms, fat suppressed in the diffusion images.
RELAXATION: dict[Tissue, Relaxation] = {
    Tissue.AIR: Relaxation(0.0, 0.0),
    Tissue.GREY: Relaxation(1.25, 0.65),
    Tissue.WHITE: Relaxation(1.0, 1.0),
    Tissue.CSF: Relaxation(3.5, 0.22),
    Tissue.BONE: Relaxation(0.04, 0.08),
    Tissue.SCALP: Relaxation(0.25, 0.80),
}
#: Diffusivities of the isotropic compartments, mm²/s. White matter that no bundle fills stands
#: for fibres without a common direction.
_DIFFUSIVITY_MM2_S: dict[Tissue, float] = {
    Tissue.GREY: 0.85e-3,
    Tissue.WHITE: 0.80e-3,
    Tissue.CSF: 3.0e-3,
    Tissue.BONE: 0.3e-3,
    Tissue.SCALP: 0.8e-3,
}


@dataclass(frozen=True)
class StickZeppelin:
    """One fibre population: a stick and a cylindrically symmetric tensor along it.

    The tensor's transverse diffusivity follows the tortuosity of the stick's volume fraction.

    References
    ----------
    Alexander 2008, doi:10.1002/mrm.21646; Panagiotaki et al. 2012,
    doi:10.1016/j.neuroimage.2011.09.081.
    """

    stick_fraction: float = 0.6
    along_mm2_s: float = 1.7e-3

    def attenuation(
        self, b_s_mm2: float, cosine: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Signal over its value at b=0, by the cosine between fibre and gradient."""
        across_mm2_s = (1.0 - self.stick_fraction) * self.along_mm2_s
        cos2 = cosine**2
        stick = np.exp(-b_s_mm2 * self.along_mm2_s * cos2)
        zeppelin = np.exp(-b_s_mm2 * (across_mm2_s + (self.along_mm2_s - across_mm2_s) * cos2))
        return self.stick_fraction * stick + (1.0 - self.stick_fraction) * zeppelin


def diffusion_volumes(
    tissue: TissueMap,
    fixels: Fixels,
    gradients: GradientTable,
    rotations: Float[np.ndarray, "volume 3 3"],
    model: StickZeppelin | None = None,
) -> Iterator[Float[np.ndarray, "x y z"]]:
    """Simulate the noise-free diffusion-weighted volumes one by one; white matter is 1 at b=0.

    Parameters
    ----------
    tissue
        Tissue fractions on the grid.
    fixels
        Fibre populations on the same grid.
    gradients
        b-values, and directions in scanner axes.
    rotations
        Head axes to scanner axes at each volume.
    model
        Signal of a fibre population.
    """
    model = model or StickZeppelin()
    shape = tissue.labels.shape
    flat = tissue.fractions.reshape(-1, len(Tissue))
    room = flat[:, Tissue.WHITE] + _FIBRES_IN_GREY * flat[:, Tissue.GREY]
    filled = np.bincount(fixels.voxel, weights=fixels.fraction, minlength=len(flat))
    share = fixels.fraction * room[fixels.voxel]
    isotropic = flat.copy()
    isotropic[:, Tissue.WHITE] *= 1.0 - filled
    isotropic[:, Tissue.GREY] *= 1.0 - _FIBRES_IN_GREY * filled
    for b_s_mm2, bvec, rotation in zip(
        gradients.bvals_s_mm2, gradients.bvecs, rotations, strict=True
    ):
        weights = [
            RELAXATION[kind].b0 * np.exp(-b_s_mm2 * _DIFFUSIVITY_MM2_S.get(kind, 0.0))
            for kind in Tissue
        ]
        attenuation = model.attenuation(b_s_mm2, fixels.direction @ (rotation.T @ bvec))
        fibres = np.bincount(fixels.voxel, weights=share * attenuation, minlength=len(flat))
        volume = isotropic @ np.array(weights) + RELAXATION[Tissue.WHITE].b0 * fibres
        yield volume.reshape(shape)


def t1w_volume(tissue: TissueMap) -> Float[np.ndarray, "x y z"]:
    """Simulate the noise-free T1-weighted image; white matter is 1."""
    return tissue.fractions @ np.array([RELAXATION[kind].t1w for kind in Tissue])


def add_rician_noise(
    signal: Float[np.ndarray, "*n"], sigma: float, rng: np.random.Generator
) -> Float[np.ndarray, "*n"]:
    """Take the magnitude of the signal with Gaussian noise in both channels.

    Parameters
    ----------
    signal
        Noise-free magnitude.
    sigma
        Standard deviation of each channel, in the signal's unit.
    rng
        Where the noise comes from.

    References
    ----------
    Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618.
    """
    real = signal + sigma * rng.standard_normal(signal.shape)
    return np.hypot(real, sigma * rng.standard_normal(signal.shape))
