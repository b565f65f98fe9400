"""Response functions: what the signal of one fibre bundle, or of one tissue, looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls
from scipy.special import eval_legendre

from difftract_bids.errors import InputError

_REMEDY = "Write one row of zonal coefficients per shell, as MRtrix's dwi2response does."
#: At these angles to the fibre the response is held not negative, and not decreasing.
_CONSTRAINT_ANGLES_DEG = np.arange(91.0)
#: Of the mean eigenvalue: lets one voxel with few directions have a response of any degree.
_RIDGE = 1e-10
_MAX_PIVOTS = 10_000


@dataclass(frozen=True)
class Response:
    """Zonal spherical harmonic coefficients of a signal, one row per shell.

    The signal at angle θ to the fibre is the sum over l = 0, 2, ... of
    ``coefficients[shell, l / 2] * sqrt((2 l + 1) / 4π) * P_l(cos θ)``: MRtrix's convention.

    Attributes
    ----------
    bvals_s_mm2
        Mean b-value of each shell, ascending, s/mm².
    coefficients
        In the units of the image; the b=0 row has nothing but its first one, and an isotropic
        tissue only that column.
    """

    bvals_s_mm2: tuple[float, ...]
    coefficients: Float[np.ndarray, "shell order"]

    @property
    def lmax(self) -> int:
        """Largest degree."""
        return 2 * (self.coefficients.shape[1] - 1)

    @property
    def deconvolved(self) -> Float[np.ndarray, " order"]:
        """Coefficients of the largest shell, with which the signal is deconvolved."""
        return self.coefficients[int(np.argmax(self.bvals_s_mm2))]

    def to_text(self, *, with_b0: bool = True) -> str:
        """Write MRtrix's text format, one row per shell.

        Parameters
        ----------
        with_b0
            Include the b=0 row; ``dwi2fod csd`` wants the other row only.
        """
        kept = [i for i, bval in enumerate(self.bvals_s_mm2) if with_b0 or bval > 0]
        shells = ",".join(f"{self.bvals_s_mm2[i]:.10g}" for i in kept)
        rows = [" ".join(f"{value:.12g}" for value in self.coefficients[i]) for i in kept]
        return "\n".join([f"# Shells: {shells}", *rows]) + "\n"

    @classmethod
    def from_text(cls, text: str, bvals_s_mm2: Sequence[float] | None = None) -> Response:
        """Read MRtrix's text format.

        Parameters
        ----------
        text
            Rows of coefficients, and comments, of which ``# Shells: ...`` has the b-values. Rows
            shorter than the longest one end in zeros.
        bvals_s_mm2
            b-value of each row, s/mm², for a text that does not tell them.

        Raises
        ------
        InputError
            If it is not a table of finite numbers, has another number of rows than shells, or
            nobody tells the b-values.
        """
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        rows = [line.replace(",", " ").split() for line in lines if not line.startswith("#")]
        header = [line for line in lines if line.lower().startswith("# shells:")]
        try:
            values = [[float(value) for value in row] for row in rows]
            if header:
                bvals_s_mm2 = [float(value) for value in header[0].split(":")[1].split(",")]
        except ValueError as error:
            raise InputError(f"This is no response function: {error}.", remedy=_REMEDY) from error
        if bvals_s_mm2 is None:
            raise InputError(
                f"The response function does not tell the b-values of its {len(values)} rows.",
                remedy="Add a line '# Shells: 0,1000' with the b-value of each row.",
            )
        table = np.zeros((len(values), max(map(len, values), default=0)))
        for row, given in zip(table, values, strict=True):
            row[: len(given)] = given
        bvals = tuple(float(bval) for bval in bvals_s_mm2)
        if not table.size or len(bvals) != len(table) or not np.isfinite(table).all():
            raise InputError(
                f"The response has {len(bvals)} shells and a table of shape {table.shape}; "
                "rows and shells must agree and all values be finite.",
                remedy=_REMEDY,
            )
        return cls(bvals, table)


def zonal_basis(cosine: Float[np.ndarray, ...], lmax: int) -> Float[np.ndarray, "... order"]:
    """Evaluate the zonal spherical harmonics Y_l0 of even degree at cos θ."""
    return np.stack(
        [
            np.sqrt((2 * degree + 1) / (4 * np.pi)) * eval_legendre(degree, cosine)
            for degree in range(0, lmax + 1, 2)
        ],
        axis=-1,
    )


def fit_zonal(
    signal: Float[np.ndarray, "voxel direction"],
    bvecs: Float[np.ndarray, "direction 3"],
    fibres: Float[np.ndarray, "voxel 3"],
    lmax: int,
    *,
    constrained: bool = False,
) -> Float[np.ndarray, " order"]:
    """Fit one zonal series to the signals of many voxels, each about its own fibre direction.

    Parameters
    ----------
    signal
        Signal of one shell.
    bvecs
        Its unit gradient directions.
    fibres
        Unit fibre direction of each voxel, in the same frame.
    lmax
        Largest degree.
    constrained
        Hold the response not negative, and not decreasing from the fibre to the plane across it,
        at each degree of angle.

    References
    ----------
    Smith, Dhollander and Connelly 2019, "Constrained linear least squares estimation of
    anisotropic response function for spherical deconvolution", ISMRM Workshop on Breaking the
    Barriers of Diffusion MRI, 23 (the constraints); Lawson and Hanson 1974, "Solving Least Squares
    Problems", chapter 23 (least distance programming).
    """
    basis = zonal_basis(fibres @ bvecs.T, lmax).reshape(signal.size, -1)
    normal, moment = basis.T @ basis, basis.T @ signal.ravel()
    normal += _RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal))
    factor = cholesky(normal)
    free = solve_triangular(factor, solve_triangular(factor, moment, trans="T"))
    if not constrained or lmax == 0:
        return free
    shape = _shape_constraints(lmax)
    # In u = factor (x - free) it is the point nearest to zero where rows @ u >= bound.
    rows = solve_triangular(factor, shape.T, trans="T").T
    scale = max(float(np.linalg.norm(factor @ free)), np.finfo(float).tiny)
    bound = -(shape @ free) / scale
    if (bound <= 0).all():
        return free
    target = np.zeros(len(free) + 1)
    target[-1] = 1.0
    dual = np.vstack([rows.T, bound])
    residual = dual @ nnls(dual, target, maxiter=_MAX_PIVOTS)[0] - target
    return free - solve_triangular(factor, residual[:-1] / residual[-1]) * scale


def _shape_constraints(lmax: int) -> Float[np.ndarray, "constraint order"]:
    """Rows whose product with the coefficients may not be negative: amplitudes and slopes."""
    angle = np.radians(_CONSTRAINT_ANGLES_DEG)
    amplitude = zonal_basis(np.cos(angle), lmax)
    # The slope is zero at both ends; between, d P_l / dθ = l (x P_l - P_{l-1}) / sin θ.
    angle = angle[1:-1]
    slope = np.zeros((len(angle), amplitude.shape[1]))
    for degree in range(2, lmax + 1, 2):
        x = np.cos(angle)
        difference = x * eval_legendre(degree, x) - eval_legendre(degree - 1, x)
        norm = np.sqrt((2 * degree + 1) / (4 * np.pi))
        slope[:, degree // 2] = norm * degree * difference / np.sin(angle)
    return np.concatenate([amplitude, slope])
