"""Fibre orientation distributions of an image: the bridge from arrays to `core.deconvolution`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from difftract_bids.config import TISSUES, FittedModel
from difftract_bids.core import sh
from difftract_bids.core.deconvolution import csd
from difftract_bids.core.deconvolution.single_shell import DEFAULT_LMAX
from difftract_bids.errors import ConfigError, GradientError, InputError, told
from difftract_bids.io.gradients import GradientTable
from difftract_bids.modelling.deconvolution import build_deconvolution, build_tissue_deconvolution
from difftract_bids.modelling.zonal import Response

#: The lmax of a response that is estimated, MRtrix's.
_RESPONSE_LMAX = 10


@dataclass(frozen=True)
class FodfFit:
    """What was fitted.

    Attributes
    ----------
    sh_coeffs
        Coefficients of each tissue (x, y, z, coeff), float32, MRtrix's basis, scanner axes; white
        matter first. Zero outside the mask and where voxels were left out.
    lmax
        Largest degree of white matter.
    left_out
        Voxels of the mask that were not fitted, by reason.
    notes
        What a user should know.
    """

    sh_coeffs: dict[str, Float[np.ndarray, "x y z coeff"]]
    lmax: int
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def choose_lmax(response: Response, wanted: int | None) -> int:
    """Take the lmax asked for, else 8, or the response's if that is less."""
    return min(DEFAULT_LMAX, response.lmax) if wanted is None else wanted


def response_lmax(wanted: int | None) -> int:
    """Choose the lmax of a response for an fODF of the lmax asked for: 10, as MRtrix, or more."""
    return max(_RESPONSE_LMAX, wanted or 0)


def fit(
    dwi: Float[np.ndarray, "x y z volume"],
    gradients: GradientTable,
    responses: Mapping[str, Response],
    mask: Bool[np.ndarray, "x y z"],
    *,
    model: FittedModel,
    lmax: int | None = None,
    directions: Float[np.ndarray, "n 3"] | None = None,
) -> FodfFit:
    """Fit the fODF, and the isotropic tissues of a multi-tissue model, in the mask.

    Parameters
    ----------
    dwi
        Diffusion series.
    gradients
        Its table. ``csd`` and ``ss2t`` use the shell of `deconvolution_shell` (``ss2t`` also b=0),
        ``msmtcsd`` every shell.
    responses
        Responses by tissue, "WM", "GM", "CSF", in the units of ``dwi``.
    mask
        Where to fit. Voxels with a value that is not finite, without positive signal, with a mean
        b=0 signal that is not positive, or with the same signal in every volume are left out and
        counted.
    model
        ``csd``, ``ss2t`` or ``msmtcsd``.
    lmax
        Largest degree of white matter; default by `choose_lmax`.
    directions
        Unit vectors along which amplitudes may not be negative; default
        `difftract_bids.core.deconvolution.constraint_directions`.

    Raises
    ------
    ConfigError
        If ``lmax`` is odd or out of range, or a tissue's response is missing.
    GradientError
        If the table does not fit the series, no shell can be deconvolved, there are fewer b-values
        than tissues, or a response is of other shells than the data.
    InputError
        If shapes differ, or no voxel of the mask can be fitted.

    References
    ----------
    Tournier et al. 2007, doi:10.1016/j.neuroimage.2007.02.016; Jeurissen et al. 2014,
    doi:10.1016/j.neuroimage.2014.07.061.
    """
    _check(dwi, gradients, responses, mask, model)
    left_out = _left_out(dwi, gradients, mask)
    kept = mask & ~np.logical_or.reduce(list(left_out.values()))
    if not kept.any():
        raise InputError(
            f"None of the {int(mask.sum())} voxels of the mask can be fitted: "
            + ", ".join(f"{int(where.sum())} {reason}" for reason, where in left_out.items()),
            where="mask",
            remedy="Check that the mask covers the brain and belongs to this image.",
        )
    degree = choose_lmax(responses["WM"], lmax)
    sphere = None if directions is None else torch.from_numpy(directions)
    notes: list[str] = []
    with told(notes):
        deconvolution = build_deconvolution(gradients, responses, model, degree, sphere)
        with torch.no_grad():
            found = deconvolution(_as_tensor(np.asarray(dwi)), torch.from_numpy(kept))
        fitted = [part.float().numpy() for part in found]
    return FodfFit(
        sh_coeffs=dict(zip(TISSUES[model], fitted, strict=True)),
        lmax=degree,
        left_out={reason: int(where.sum()) for reason, where in left_out.items() if where.any()},
        notes=notes,
    )


def deconvolve(
    signal: Float[np.ndarray, "voxel direction"],
    bvecs: Float[np.ndarray, "direction 3"],
    response: Float[np.ndarray, " order"],
    lmax: int,
) -> Float[np.ndarray, "voxel coeff"]:
    """Deconvolve each voxel's signal of one shell; see `difftract_bids.core.deconvolution.csd`."""
    with warnings.catch_warnings():
        # Where this is a step of something else, fewer directions than coefficients are no news.
        warnings.filterwarnings("ignore", message=".*super-resolved", category=UserWarning)
        return csd(
            torch.from_numpy(np.ascontiguousarray(signal, np.float64)),
            torch.from_numpy(np.ascontiguousarray(bvecs, np.float64)),
            torch.from_numpy(np.ascontiguousarray(response, np.float64)),
            lmax=lmax,
        ).numpy()


def deconvolve_tissues(
    dwi: Float[np.ndarray, "*grid volume"],
    gradients: GradientTable,
    shells: Sequence[tuple[float, Bool[np.ndarray, " volume"]]],
    responses: Sequence[Float[np.ndarray, "shell order"]],
    lmax: Sequence[int],
    *,
    mask: torch.Tensor | None = None,
    directions: torch.Tensor | None = None,
) -> list[Float[np.ndarray, "*grid coeff"]]:
    """Deconvolve some shells into tissues; see `difftract_bids.core.deconvolution.msmt_csd`.

    Parameters
    ----------
    dwi
        Signal of all volumes.
    gradients
        Their table.
    shells
        Of its `GradientTable.shell_volumes`, those that are used, b=0 first.
    responses
        Zonal coefficients of each tissue, a row for each of these shells.
    lmax
        Largest degree of each tissue.
    mask, directions
        As for `msmt_csd`.
    """
    model = build_tissue_deconvolution(gradients, shells, responses, lmax, directions)
    with torch.no_grad():
        return [part.numpy() for part in model(_as_tensor(dwi), mask)]


def _as_tensor(dwi: Float[np.ndarray, "*grid volume"]) -> torch.Tensor:
    """Give a signal as a tensor of floating-point numbers."""
    return torch.from_numpy(dwi.astype(np.result_type(dwi, np.float32), copy=False))


def sh_degrees(lmax: int) -> Int[np.ndarray, " coeff"]:
    """Degree l of each coefficient, in MRtrix's order."""
    return np.array([degree for degree, _ in sh.sh_degrees_and_orders(lmax)])


def sh_basis(
    directions: Float[np.ndarray, "direction 3"], lmax: int
) -> Float[np.ndarray, "direction coeff"]:
    """Evaluate MRtrix's real SH basis in unit directions."""
    vectors = torch.from_numpy(np.ascontiguousarray(directions, np.float64))
    return sh.sh_basis(vectors, lmax).numpy()


def _check(
    dwi: Float[np.ndarray, "x y z volume"],
    gradients: GradientTable,
    responses: Mapping[str, Response],
    mask: Bool[np.ndarray, "x y z"],
    model: FittedModel,
) -> None:
    if len(gradients.bvals_s_mm2) != dwi.shape[-1]:
        raise GradientError(
            f"The image has {dwi.shape[-1]} volumes, the gradient table "
            f"{len(gradients.bvals_s_mm2)}.",
            remedy="They must belong to the same image.",
        )
    missing = [tissue for tissue in TISSUES[model] if tissue not in responses]
    if missing:
        raise ConfigError(
            f"The model {model} needs the response of {', '.join(missing)} too.",
            where="response",
            remedy=f"Give responses of {', '.join(TISSUES[model])}.",
        )
    shells = gradients.shells()
    if len(shells) < len(TISSUES[model]):
        found = ", ".join(f"{bval:.0f}" for bval, _ in shells)
        raise GradientError(
            f"{len(shells)} b-values ({found} s/mm²) cannot tell {len(TISSUES[model])} tissues "
            "apart.",
            where="fODF model",
            remedy="Choose ss2t or csd, or auto.",
        )
    if mask.shape != dwi.shape[:3]:
        raise InputError(
            f"The mask has the shape {mask.shape}, the image {dwi.shape[:3]}.",
            where="mask",
            remedy="Give a mask on the image's grid.",
        )


def _left_out(
    dwi: Float[np.ndarray, "x y z volume"],
    gradients: GradientTable,
    mask: Bool[np.ndarray, "x y z"],
) -> dict[str, Bool[np.ndarray, "x y z"]]:
    """Find voxels of the mask whose signal is none, each under its first reason."""
    reasons = {
        reason: np.zeros(mask.shape, dtype=bool)
        for reason in ("not finite", "without signal", "b=0 not positive", "constant")
    }
    b0 = gradients.b0_mask
    for z in range(dwi.shape[2]):  # by slices, for their copies
        signal, rest = dwi[:, :, z], mask[:, :, z].copy()
        tests = (
            ~np.isfinite(signal).all(axis=-1),
            ~(signal > 0).any(axis=-1),
            ~(signal[..., b0].mean(axis=-1) > 0) if b0.any() else np.zeros(rest.shape, bool),
            (signal == signal[..., :1]).all(axis=-1),
        )
        for where, test in zip(reasons.values(), tests, strict=True):
            where[:, :, z] = rest & test
            rest &= ~test
    return reasons
