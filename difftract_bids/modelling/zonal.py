"""Response functions: what the signal of one straight fibre bundle looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import eval_legendre

from difftract_bids.errors import InputError

_REMEDY = "Write one row of zonal coefficients per shell, as MRtrix's dwi2response does."


@dataclass(frozen=True)
class Response:
    """Zonal spherical harmonic coefficients of the single-fibre signal, one row per shell.

    The signal at angle θ to the fibre is the sum over l = 0, 2, ... of
    ``coefficients[shell, l / 2] * sqrt((2 l + 1) / 4π) * P_l(cos θ)``: MRtrix's convention.

    Attributes
    ----------
    bvals_s_mm2
        Mean b-value of each shell, ascending, s/mm².
    coefficients
        In the units of the image; the b=0 row has nothing but its first one.
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
    def from_text(cls, text: str) -> Response:
        """Read MRtrix's text format; without its ``# Shells`` line the b-values are unknown.

        Raises
        ------
        InputError
            If it is not a table of finite numbers, or has another number of rows than shells.
        """
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        rows = [line.replace(",", " ").split() for line in lines if not line.startswith("#")]
        header = [line for line in lines if line.lower().startswith("# shells:")]
        try:
            table = np.array([[float(value) for value in row] for row in rows])
            bvals = tuple(float(value) for value in header[0].split(":")[1].split(","))
        except (ValueError, IndexError) as error:
            raise InputError(
                f"This is no response function with its shells: {error}.", remedy=_REMEDY
            ) from error
        if table.ndim != 2 or len(bvals) != len(table) or not np.isfinite(table).all():
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
    """
    basis = zonal_basis(fibres @ bvecs.T, lmax)
    solution, *_ = np.linalg.lstsq(basis.reshape(signal.size, -1), signal.ravel(), rcond=None)
    return solution
