"""Peaks of fODFs: the search that MRtrix's SD_STREAM does, and the derivative of its result.

The search decides which peak is followed; it is never differentiated. A peak is where the tangent
gradient vanishes, so the implicit function theorem gives its derivative from the curvature there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from difftract_bids.core.tensor_form import contract, slope_cotangent

#: The tolerance of MRtrix's search, radians; smaller ones are reached by Newton's method.
SEARCH_TOLERANCE = 1e-4
LONGEST_STEP = 0.2  # radians
#: After so many updates MRtrix gives up.
SEARCH_ITERATIONS = 50
POLE = 1e-4  # sine of the elevation below which MRtrix takes a direction for the pole
#: From 1e-4 Newton's method needs two or three; more are for peaks that are about to merge.
NEWTON_ITERATIONS = 12
#: Curvatures below this share of the amplitude are raised to it, lest merging peaks, whose
#: direction has no derivative, send infinities through everything else.
SMALLEST_CURVATURE = 1e-3


class Peaks(NamedTuple):
    """Result of a search: unit ``direction``, ``amplitude`` there, whether one was ``found``."""

    direction: Float[Tensor, "3 n"]
    amplitude: Float[Tensor, " n"]
    found: Bool[Tensor, " n"]


def find_peaks(
    tensor: Float[Tensor, "component n"],
    start: Float[Tensor, "3 n"],
    lmax: int,
    tolerance: float = SEARCH_TOLERANCE,
    max_iterations: int = SEARCH_ITERATIONS,
) -> Peaks:
    """Climb from a direction to the peak it belongs to; differentiable in ``tensor``.

    Parameters
    ----------
    tensor
        fODFs in the tensor form, one column each.
    start
        Unit vectors; they choose the peak, and no gradient goes to them.
    lmax
        Degree of the fODFs.
    tolerance
        Largest last update, radians. Below 1e-4 Newton steps finish MRtrix's search.
    max_iterations
        After so many updates (not counting Newton's) there is no peak.

    Returns
    -------
    Peaks
        Where none was found the direction is ``start``. As in MRtrix, the amplitude is the one
        before the last update.

    References
    ----------
    Tournier et al. 2012, doi:10.1002/ima.22005, section 2.3; MRtrix3 3.0.3 for the step.
    """
    with torch.no_grad():
        coarse = max(tolerance, SEARCH_TOLERANCE)
        peaks = _climb(tensor, start, lmax, coarse, max_iterations)
        if tolerance < SEARCH_TOLERANCE:
            peaks = _refine(tensor, peaks, lmax, tolerance)
    if not tensor.requires_grad:
        return peaks
    return peaks._replace(direction=implicit_peak(tensor, peaks.direction, peaks.found, lmax))


def implicit_peak(
    tensor: Float[Tensor, "component n"],
    direction: Float[Tensor, "3 n"],
    found: Bool[Tensor, " n"],
    lmax: int,
) -> Float[Tensor, "3 n"]:
    """Give peaks, found by whatever search, their derivative by the tensors they are peaks of.

    Where none was ``found`` the derivative is zero.
    """
    peak: Tensor = _ImplicitPeak.apply(tensor, direction, found, lmax)  # type: ignore[no-untyped-call]
    return peak


def _climb(
    tensor: Float[Tensor, "component n"],
    start: Float[Tensor, "3 n"],
    lmax: int,
    tolerance: float,
    max_iterations: int,
) -> Peaks:
    direction, amplitude = start.clone(), torch.zeros_like(start[0])
    found = torch.zeros_like(amplitude, dtype=torch.bool)
    active = torch.arange(start.shape[1], device=start.device)
    here = start
    for _ in range(max_iterations):
        height, uphill, step = _line_search(contract(tensor, here, lmax, 2), here, lmax)
        here = _normalised(here + step * uphill)
        done = step < tolerance
        arrived = active[done]
        direction[:, arrived] = here[:, done]
        amplitude[arrived] = height[done]
        found[arrived] = True
        going = torch.nonzero(~done).squeeze(1)
        if not len(going):
            break
        active, here = active[going], here[:, going]
        tensor = tensor.index_select(1, going)
    return Peaks(direction, amplitude, found)


def _line_search(
    matrix: Float[Tensor, "6 n"], direction: Float[Tensor, "3 n"], lmax: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, "3 n"], Float[Tensor, " n"]]:
    """Take MRtrix's step: along the gradient, by slope over curvature, always uphill.

    MRtrix's second derivatives are those of spherical coordinates without the connection terms.
    Along the unit gradient t = a e_el + b e_az this adds cot(el) |g| a b² to the true curvature;
    at a pole only a² times the curvature along e_el is left.

    Returns
    -------
    amplitude, uphill, step
        The amplitude at ``direction``, the unit tangent uphill, and the angle to go, radians.
    """
    amplitude, gradient = _amplitude_and_gradient(matrix, direction, lmax)
    slope = _norm(gradient)
    uphill = gradient / torch.where(slope > 0, slope, 1)
    x, y, z = direction
    sine = torch.sqrt(x * x + y * y)
    safe_sine = torch.where(sine > 0, sine, 1)
    cos_az, sin_az = torch.where(sine > 0, x / safe_sine, 1), y / safe_sine
    along_el = z * (cos_az * uphill[0] + sin_az * uphill[1]) - sine * uphill[2]
    along_az = cos_az * uphill[1] - sin_az * uphill[0]
    curvature = lmax * (lmax - 1) * _quadratic(matrix, uphill) - lmax * amplitude
    curvature = curvature + z / safe_sine * slope * along_el * along_az * along_az
    pole = sine < POLE
    if bool(pole.any()):
        e_el = torch.stack([z * cos_az, z * sin_az, -sine])
        polar = lmax * (lmax - 1) * _quadratic(matrix, e_el) - lmax * amplitude
        curvature = torch.where(pole, along_el * along_el * polar, curvature)
    step = (slope / torch.where(curvature != 0, curvature, 1)).abs().clamp(max=LONGEST_STEP)
    return amplitude, uphill, torch.where(curvature != 0, step, 0)


def _refine(
    tensor: Float[Tensor, "component n"], peaks: Peaks, lmax: int, tolerance: float
) -> Peaks:
    """Finish a search by Newton's method on the sphere (Riemannian Hessian)."""
    direction, amplitude = peaks.direction.clone(), peaks.amplitude.clone()
    active = torch.nonzero(peaks.found).squeeze(1)
    for _ in range(NEWTON_ITERATIONS):
        here = direction[:, active]
        matrix = contract(tensor[:, active], here, lmax, 2)
        height, gradient = _amplitude_and_gradient(matrix, here, lmax)
        update = -_apply(_inverse_curvature(matrix, here, height, lmax), gradient)
        size = _norm(update)
        update = update * (LONGEST_STEP / size.clamp(min=LONGEST_STEP))
        direction[:, active] = _normalised(here + update)
        amplitude[active] = height
        active = active[size >= tolerance]
        if not len(active):
            break
    return Peaks(direction, amplitude, peaks.found)


class _ImplicitPeak(torch.autograd.Function):
    """Pass a peak's direction on, with dd/dT = -H⁻¹ dg/dT in the tangent plane as derivative."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, direction: Tensor, found: Tensor, lmax: int) -> Tensor:  # noqa: ANN401 - torch leaves the type of its context open
        matrix = contract(tensor, direction, lmax, 2)
        amplitude, _ = _amplitude_and_gradient(matrix, direction, lmax)
        inverse = _inverse_curvature(matrix, direction, amplitude, lmax)
        ctx.save_for_backward(direction, torch.where(found, inverse, 0))
        ctx.lmax = lmax
        return direction.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401 - torch leaves the type of its context open
        direction, inverse = ctx.saved_tensors
        along = -_apply(inverse, cotangent)
        return slope_cotangent(direction, along, ctx.lmax), None, None, None


def _amplitude_and_gradient(
    matrix: Float[Tensor, "6 n"], direction: Float[Tensor, "3 n"], lmax: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, "3 n"]]:
    """Evaluate an fODF and its tangent gradient from its twofold remainder."""
    product = _apply(matrix, direction)
    amplitude = _dot(direction, product)
    return amplitude, lmax * (product - amplitude * direction)


def _inverse_curvature(
    matrix: Float[Tensor, "6 n"],
    direction: Float[Tensor, "3 n"],
    amplitude: Float[Tensor, " n"],
    lmax: int,
) -> Float[Tensor, "6 n"]:
    """Invert the Riemannian Hessian on the tangent plane, as a symmetric 3 × 3 matrix.

    At a peak both eigenvalues are negative; they are taken so, and bounded away from zero.
    """
    u, v = _tangents(direction)
    mu = _apply(matrix, u)
    factor, shift = lmax * (lmax - 1), lmax * amplitude
    huu = factor * _dot(u, mu) - shift
    huv = factor * _dot(v, mu)
    hvv = factor * _quadratic(matrix, v) - shift
    mean, half = (huu + hvv) / 2, (huu - hvv) / 2
    radius = torch.sqrt(half * half + huv * huv)
    tiny = torch.finfo(matrix.dtype).tiny ** 0.5
    bound = (SMALLEST_CURVATURE * amplitude.abs()).clamp(min=tiny)
    first = -1 / torch.maximum((mean + radius).abs(), bound)
    second = -1 / torch.maximum((mean - radius).abs(), bound)
    even = (first + second) / 2
    odd = (first - second) / (2 * torch.where(radius > 0, radius, 1))
    iuu, ivv, iuv = even + odd * half, even - odd * half, odd * huv
    left = iuu * u + iuv * v
    right = iuv * u + ivv * v
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    return torch.stack([left[i] * u[j] + right[i] * v[j] for i, j in pairs])


def _tangents(direction: Float[Tensor, "3 n"]) -> tuple[Tensor, Tensor]:
    """Complete a direction to a right-handed frame (Duff et al. 2017, JCGT 6(1))."""
    x, y, z = direction
    sign = torch.where(z < 0, -1.0, 1.0).to(z.dtype)
    a = -1 / (sign + z)
    b = x * y * a
    u = torch.stack([1 + sign * x * x * a, sign * b, -sign * x])
    v = torch.stack([b, sign + y * y * a, -y])
    return u, v


def _apply(matrix: Float[Tensor, "6 n"], vector: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    """Multiply symmetric matrices (xx, xy, xz, yy, yz, zz) and vectors."""
    return contract(matrix, vector, 2, 1)


def _quadratic(matrix: Float[Tensor, "6 n"], vector: Float[Tensor, "3 n"]) -> Float[Tensor, " n"]:
    return _dot(vector, _apply(matrix, vector))


def _dot(a: Float[Tensor, "3 n"], b: Float[Tensor, "3 n"]) -> Float[Tensor, " n"]:
    return (a * b).sum(0)


def _norm(a: Float[Tensor, "3 n"]) -> Float[Tensor, " n"]:
    return torch.sqrt(_dot(a, a))


def _normalised(a: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    return a / _norm(a)
