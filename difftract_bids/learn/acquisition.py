"""What a model must know of the scan that it is given: shells, directions and voxel size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float
from torch import Tensor

from difftract_bids.core.sh import n_coefficients
from difftract_bids.errors import InputError
from difftract_bids.io.gradients import GradientTable, choose_deconvolved, is_same_shell
from difftract_bids.learn.frame import VoxelFrame

#: Voxel sizes that differ by less than this share count as the same.
_SAME_SIZE = 0.1
#: Higher degrees of the signal are noise at b-values in use (Tournier et al. 2013).
_MAX_SIGNAL_LMAX = 8


@dataclass(frozen=True)
class Acquisition:
    """Shells, directions and voxel size of a scan.

    Attributes
    ----------
    shells_s_mm2
        Mean b-value of each shell but b=0, s/mm², rising.
    n_directions
        Number of volumes of each of them.
    n_b0
        Number of b=0 volumes.
    voxel_size_mm
        Along the axes of `VoxelFrame`: that closest to left-right, posterior-anterior and
        inferior-superior.
    """

    shells_s_mm2: tuple[float, ...]
    n_directions: tuple[int, ...]
    n_b0: int
    voxel_size_mm: tuple[float, float, float]

    @classmethod
    def of(
        cls,
        gradients: GradientTable,
        vox2ras: Float[Tensor, "4 4"] | Float[np.ndarray, "4 4"],
    ) -> Self:
        """Describe a scan by its gradient table and affine (voxels to RAS+ millimetres)."""
        shells = [shell for shell in gradients.shells() if shell[0] > 0]
        return cls(
            shells_s_mm2=tuple(float(bval) for bval, _ in shells),
            n_directions=tuple(n for _, n in shells),
            n_b0=int(gradients.b0_mask.sum()),
            voxel_size_mm=VoxelFrame.of(vox2ras).voxel_size_mm,
        )

    @property
    def signal_lmax(self) -> int:
        """Largest degree, up to 8, that the shell with the fewest directions determines.

        References
        ----------
        Tournier et al. 2013, doi:10.1002/nbm.3017 (which degrees a signal has).
        """
        fewest = min(self.n_directions, default=0)
        usable = [k for k in range(0, _MAX_SIGNAL_LMAX + 1, 2) if n_coefficients(k) <= fewest]
        return max(usable, default=0)

    @property
    def deconvolved_s_mm2(self) -> float:
        """The b-value of the shell that is deconvolved, s/mm², see `choose_deconvolved`.

        That of a scan with other numbers of directions might be another one.

        Raises
        ------
        GradientError
            If no shell has six directions.
        """
        shells = list(zip(self.shells_s_mm2, self.n_directions, strict=True))
        return self.shells_s_mm2[choose_deconvolved(shells)]

    def check(self, met: Acquisition, *, signal_lmax: int | None = None) -> list[str]:
        """Compare a scan with this, which a model was trained for.

        Parameters
        ----------
        met
            The scan that the model is to be used for.
        signal_lmax
            Maximum degree of the signal in the model; by default that of this acquisition.

        Returns
        -------
        list of str
            What the user should be told: results may be worse than those of validation.

        Raises
        ------
        InputError
            If the scan has other shells, no b=0 volume, or too few directions.
        """
        self._require_same_shells(met)
        lmax = self.signal_lmax if signal_lmax is None else signal_lmax
        if min(met.n_directions) < n_coefficients(lmax):
            raise InputError(
                f"The scan has {_listed(met.n_directions)} directions per shell; the model takes "
                f"the signal up to lmax {lmax}, which needs {n_coefficients(lmax)}.",
                where="gradient table",
                remedy="Use a model that was trained for fewer directions, or leave the run out.",
            )
        notes = [
            f"The model was trained for {trained} directions at b={bval:.0f}, this scan has "
            f"{found}: the noise that it meets is not the noise it knows, and its fODFs may be "
            "worse than in validation."
            for bval, trained, found in zip(
                self.shells_s_mm2, self.n_directions, met.n_directions, strict=True
            )
            if trained != found
        ]
        pairs = zip(self.voxel_size_mm, met.voxel_size_mm, strict=True)
        if any(abs(found - trained) > _SAME_SIZE * trained for trained, found in pairs):
            notes.append(
                f"The model was trained for voxels of {_sizes(self.voxel_size_mm)} mm, those of "
                f"this scan are {_sizes(met.voxel_size_mm)} mm: what it knows of neighbours holds "
                "for other distances. Train with such voxels, or resample the scan to them."
            )
        return notes

    def _require_same_shells(self, met: Acquisition) -> None:
        if not met.n_b0:
            raise InputError(
                "The scan has no b=0 volume, and the model takes the signal relative to it.",
                where="gradient table",
                remedy="Raise --b0-threshold if a volume of low b-value is meant as b=0.",
            )
        pairs = list(zip(self.shells_s_mm2, met.shells_s_mm2, strict=False))
        same = len(self.shells_s_mm2) == len(met.shells_s_mm2) and all(
            is_same_shell(found, trained) for trained, found in pairs
        )
        if not same or not pairs:
            raise InputError(
                f"The model was trained for the shells b={_listed(self.shells_s_mm2)} s/mm², the "
                f"scan has b={_listed(met.shells_s_mm2)}.",
                where="gradient table",
                remedy="Use a model that was trained for these shells, or fit the fODFs.",
            )

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON can hold."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` gave.

        Raises
        ------
        InputError
            If a value is missing, of another type or impossible.
        """
        try:
            found = cls(
                shells_s_mm2=tuple(float(bval) for bval in values["shells_s_mm2"]),
                n_directions=tuple(int(n) for n in values["n_directions"]),
                n_b0=int(values["n_b0"]),
                voxel_size_mm=_three(values["voxel_size_mm"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(f"{type(error).__name__}: {error}") from error
        numbers = (*found.shells_s_mm2, *found.n_directions, *found.voxel_size_mm)
        if len(found.shells_s_mm2) != len(found.n_directions) or not found.shells_s_mm2:
            raise _damaged("as many numbers of directions as shells are needed, at least one")
        if not all(np.isfinite(number) and number > 0 for number in numbers):
            raise _damaged("all numbers must be above 0")
        return found


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = values
    return float(x), float(y), float(z)


def _damaged(why: str) -> InputError:
    return InputError(
        f"The description of an acquisition is damaged ({why}).",
        where="acquisition",
        remedy="Copy the model file again, or train it again.",
    )


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.0f}" for number in numbers) or "none"


def _sizes(sizes_mm: Sequence[float]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes_mm)
