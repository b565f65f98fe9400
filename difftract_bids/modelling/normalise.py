"""Multi-tissue intensity normalisation: amplitudes that compare across voxels and subjects.

The sum of the tissues should be the same everywhere in the brain. Where it is not, coils and the
scanner's gain are taken for the cause: a smooth field and one scale, by which all tissues are
divided. Responses of the tissues may be scaled badly to each other, which balance factors take up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from difftract_bids.errors import ConfigError, InputError

#: The l=0 coefficient of a distribution over the sphere with integral 1.
REFERENCE = 1 / math.sqrt(4 * math.pi)
_MAX_ORDER = 3
_MAX_ITERATIONS, _MAX_BALANCE_ITERATIONS = 15, 7
#: Sums further than this many interquartile ranges outside the quartiles (of their logarithm) are
#: outliers: generously while nothing is known of the field, then as in Tukey's box plot.
_FIRST_RANGE, _RANGE = 3.0, 1.5
#: No voxel's factor changes by more than this share: the field is found.
_TOLERANCE = 1e-6
_LARGEST_LOG = 60.0
#: Solvers leave negative amounts of this share of the largest, which nobody need be told.
_ROUNDING = 1e-6


class Normalisation(NamedTuple):
    """Result of the normalisation of one subject.

    Attributes
    ----------
    field
        Divide every tissue by it; positive and finite everywhere. float32.
    balance
        Factor of each tissue, product 1, by which tissues were weighted in the sum while the field
        was found. Tissues are not multiplied by them, lest amplitudes stop being comparable.
    scale
        Geometric mean of the field over the kept voxels: the subject's overall scale.
    reference
        What the sum of the balanced tissues is brought to.
    kept
        Voxels that the field was fitted to: in the mask, with signal, no outliers.
    n_iterations
        Fits of the field.
    n_not_finite
        Voxels of the mask left out because a tissue is NaN or infinite there.
    n_no_signal
        Voxels of the mask left out because no tissue is positive there.
    n_negative
        Voxels of the mask where a negative tissue was taken for zero.
    n_outliers
        Voxels left out because their sum is far from that of the others.
    left_out
        Tissues that are zero in the whole mask; their balance is 1.
    """

    field: Float[np.ndarray, "x y z"]
    balance: dict[str, float]
    scale: float
    reference: float
    kept: Bool[np.ndarray, "x y z"]
    n_iterations: int
    n_not_finite: int
    n_no_signal: int
    n_negative: int
    n_outliers: int
    left_out: tuple[str, ...]


class _Fit(NamedTuple):
    coefficients: Float[np.ndarray, " term"]
    balance: Float[np.ndarray, " tissue"]
    kept: Bool[np.ndarray, " voxel"]
    n_iterations: int


def normalise_tissues(
    tissues: Mapping[str, Float[np.ndarray, "x y z coeff"]],
    mask: Bool[np.ndarray, "x y z"],
    *,
    order: int = 3,
    reference: float = REFERENCE,
) -> Normalisation:
    """Find the field that makes the sum of the tissues the same everywhere in the mask.

    In turn, the tissues' balance factors are fitted by least squares, outliers are left out, and
    the logarithm of the sum is fitted by a polynomial of the position. Of each tissue only the
    l=0 coefficient counts.

    Parameters
    ----------
    tissues
        Coefficients of each tissue, on one grid; (x, y, z) for one coefficient will do.
    mask
        Brain.
    order
        Degree of the polynomial, 0 to 3; 0 is one factor for all voxels.
    reference
        What the sum of the l=0 coefficients is brought to; by default that of an integral of 1.

    Returns
    -------
    Normalisation
        The polynomial is the same whatever the axes, so no affine is needed. Outside the mask,
        where it is an extrapolation, it is held within the range that it has inside.

    Raises
    ------
    ConfigError
        If the order or the reference is out of range.
    InputError
        If grids differ, the mask is empty or without signal, or a balance factor is not positive.

    References
    ----------
    Raffelt et al. 2017, Proc. ISMRM 25:3541; Dhollander et al. 2021, Proc. ISMRM 29:2472;
    iterations, outliers and defaults as MRtrix3 3.0.3 ``mtnormalise``.
    """
    _check_settings(order, reference)
    inside = _checked_mask(tissues, mask)
    amounts = np.stack(
        [_isotropic(tissue)[inside].astype(np.float64) for tissue in tissues.values()], axis=1
    )
    finite = np.isfinite(amounts).all(axis=1)
    amounts = np.where(finite[:, None], amounts, 0.0)
    negative = (amounts < -_ROUNDING * amounts.max()).any(axis=1)
    amounts = amounts.clip(min=0.0)
    usable = amounts.sum(axis=1) > 0
    _require_signal(usable, finite)
    present = (amounts > 0).sum(axis=0) > 0
    where = np.argwhere(inside)
    low, high = where.min(axis=0), where.max(axis=0)
    fit = _fit(
        amounts[usable][:, present],
        _polynomials(_relative(where[usable], low, high), order),
        reference,
        [name for name, there in zip(tissues, present, strict=True) if there],
    )
    field, scale = _field(fit, inside, usable, low, high, order)
    kept = np.zeros(inside.shape, dtype=bool)
    kept[tuple(where[usable][fit.kept].T)] = True
    balance = np.ones(len(present))
    balance[present] = fit.balance
    return Normalisation(
        field=field,
        balance=dict(zip(tissues, balance.tolist(), strict=True)),
        scale=scale,
        reference=reference,
        kept=kept,
        n_iterations=fit.n_iterations,
        n_not_finite=int((~finite).sum()),
        n_no_signal=int((finite & ~usable).sum()),
        n_negative=int(negative.sum()),
        n_outliers=int((~fit.kept).sum()),
        left_out=tuple(name for name, there in zip(tissues, present, strict=True) if not there),
    )


def apply_normalisation(
    tissues: Mapping[str, Float[np.ndarray, "x y z coeff"]], normalisation: Normalisation
) -> dict[str, Float[np.ndarray, "x y z coeff"]]:
    """Divide every coefficient of every tissue by the field.

    Returns
    -------
    dict
        float32, shaped as given; zero in voxels that are not finite.

    Raises
    ------
    InputError
        If a tissue has another grid than the field.
    """
    field = normalisation.field
    for name, tissue in tissues.items():
        _check_grid(name, tissue, field.shape)
    divided = {}
    for name, tissue in tissues.items():
        coefficients = tissue.reshape(*field.shape, -1) / field[..., None]
        finite = np.isfinite(coefficients).all(axis=-1, keepdims=True)
        divided[name] = np.where(finite, coefficients, 0).astype(np.float32).reshape(tissue.shape)
    return divided


def _fit(
    amounts: Float[np.ndarray, "voxel tissue"],
    basis: Float[np.ndarray, "voxel term"],
    reference: float,
    names: list[str],
) -> _Fit:
    """Alternate between balance factors and outliers, and the field, until nothing changes."""
    field = np.ones(len(amounts))
    balance = np.ones(amounts.shape[1])
    kept = _within(amounts @ balance, _FIRST_RANGE)
    coefficients = np.zeros(basis.shape[1])
    iteration = 0
    for iteration in range(1, _MAX_ITERATIONS + 1):  # noqa: B007 - it is the number of fits
        before, even = field, amounts / field[:, None]
        for _ in range(_MAX_BALANCE_ITERATIONS):
            balance = _balance(even[kept], names)
            now = _within(even @ balance, _RANGE)
            settled = np.array_equal(now, kept)
            kept = now
            if settled:
                break
        target = np.log(amounts[kept] @ balance / reference)
        # Of a flat mask some terms are alike: the smallest solution keeps the field tame.
        coefficients = np.linalg.lstsq(basis[kept], target, rcond=1e-10)[0]
        field = _exp(basis @ coefficients)
        if np.abs(field / before - 1).max() < _TOLERANCE:
            break
    return _Fit(coefficients, balance, kept, iteration)


def _balance(
    amounts: Float[np.ndarray, "voxel tissue"], names: list[str]
) -> Float[np.ndarray, " tissue"]:
    """Weight the tissues so that their sum is as constant as can be; the product is 1."""
    if len(names) == 1:
        return np.ones(1)
    factors = np.linalg.lstsq(amounts, np.ones(len(amounts)), rcond=None)[0]
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        listed = ", ".join(f"{n} {f:.3g}" for n, f in zip(names, factors, strict=True))
        raise InputError(
            f"The tissues cannot be balanced: a factor is not positive ({listed}).",
            where="intensity normalisation",
            remedy="Check the brain mask and the tissues' response functions, or leave the "
            "intensities as they are: --no-normalise-tissues.",
        )
    return factors / np.exp(np.log(factors).mean())


def _within(sums: Float[np.ndarray, " voxel"], interquartile_ranges: float) -> NDArray[np.bool_]:
    """Tell which sums are no outliers, by the quartiles of their logarithm."""
    logs = np.log(sums, out=np.full(len(sums), -np.inf), where=sums > 0)
    lower, upper = np.quantile(logs, (0.25, 0.75), method="nearest")
    margin = interquartile_ranges * (upper - lower)
    # With a little room: of equal sums, rounding must not throw half away.
    return (logs >= lower - margin - 1e-9) & (logs <= upper + margin + 1e-9)


def _relative(
    index: Float[np.ndarray, "voxel 3"] | Int[np.ndarray, "voxel 3"],
    low: Int[np.ndarray, " 3"],
    high: Int[np.ndarray, " 3"],
) -> Float[np.ndarray, "voxel 3"]:
    """Scale voxel indices to -1..1 over the mask's bounding box, where powers are of one size."""
    return (2 * index - low - high) / np.maximum(high - low, 1)


def _polynomials(
    position: Float[np.ndarray, "voxel 3"], order: int
) -> Float[np.ndarray, "voxel term"]:
    """Evaluate every product of Legendre polynomials up to a total degree."""
    by_axis = [np.polynomial.legendre.legvander(column, order) for column in position.T]
    terms = range(order + 1)
    columns = [
        by_axis[0][:, a] * by_axis[1][:, b] * by_axis[2][:, c]
        for a in terms
        for b in terms
        for c in terms
        if a + b + c <= order
    ]
    return np.stack(columns, axis=1)


def _field(
    fit: _Fit,
    inside: Bool[np.ndarray, "x y z"],
    usable: Bool[np.ndarray, " voxel"],
    low: Int[np.ndarray, " 3"],
    high: Int[np.ndarray, " 3"],
    order: int,
) -> tuple[Float[np.ndarray, "x y z"], float]:
    """Evaluate the field in every voxel, a slab at a time, and its mean over the kept ones."""
    logs = np.empty(inside.shape)
    plane = np.argwhere(np.ones((1, *inside.shape[1:]), dtype=bool))
    for x in range(inside.shape[0]):
        plane[:, 0] = x
        values = _polynomials(_relative(plane, low, high), order) @ fit.coefficients
        logs[x] = values.reshape(inside.shape[1:])
    within = logs[inside]
    scale = math.exp(within[usable][fit.kept].mean())
    return _exp(logs.clip(within.min(), within.max())).astype(np.float32), scale


def _exp(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raise e to a power that float32 can hold: far from where it was fitted the field may not."""
    return np.exp(logs.clip(-_LARGEST_LOG, _LARGEST_LOG))


def _isotropic(tissue: NDArray[Any]) -> Float[np.ndarray, "x y z"]:
    return tissue[..., 0] if tissue.ndim == 4 else tissue


def _check_settings(order: int, reference: float) -> None:
    if order not in range(_MAX_ORDER + 1):
        raise ConfigError(
            f"The field's polynomial cannot have order {order}.",
            where="intensity normalisation",
            remedy="Choose 0, 1, 2 or 3.",
        )
    if not (math.isfinite(reference) and reference > 0):
        raise ConfigError(
            f"The reference is {reference:g}.",
            where="intensity normalisation",
            remedy=f"Choose a positive number; {REFERENCE:.4f} is usual.",
        )


def _checked_mask(
    tissues: Mapping[str, NDArray[Any]], mask: NDArray[Any]
) -> Bool[np.ndarray, "x y z"]:
    if not tissues:
        raise InputError(
            "There is no tissue.", where="intensity normalisation", remedy="Give one or more."
        )
    inside = mask.astype(bool)
    for name, tissue in tissues.items():
        _check_grid(name, tissue, inside.shape)
    if not inside.any():
        raise InputError(
            "The mask is empty.",
            where="intensity normalisation",
            remedy="Check the brain mask.",
        )
    return inside


def _check_grid(name: str, tissue: NDArray[Any], grid: tuple[int, ...]) -> None:
    if tissue.ndim not in (3, 4) or tissue.shape[:3] != grid:
        raise InputError(
            f"The tissue {name} has the shape {tissue.shape}; its grid must be {grid}.",
            where="intensity normalisation",
            remedy="Tissues and mask must be of the same image.",
        )


def _require_signal(usable: NDArray[np.bool_], finite: NDArray[np.bool_]) -> None:
    if usable.any():
        return
    n_bad = int((~finite).sum())
    raise InputError(
        f"No voxel of the mask has a positive tissue: {n_bad} of {len(finite)} are not finite, "
        "the others zero or negative.",
        where="intensity normalisation",
        remedy="Check the brain mask and the fODFs.",
    )
