"""What a network is made from, as a model file keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from difftract_bids.core.sh import MAX_LMAX, n_coefficients
from difftract_bids.errors import InputError
from difftract_bids.learn.acquisition import Acquisition


@dataclass(frozen=True)
class NetworkSettings:
    """Architecture, and what it is given and gives.

    Attributes
    ----------
    architecture
        ``package.module:Class``.
    acquisition
        The scans that it is for.
    signal_lmax
        Maximum degree of the signal of each shell, even, 0 to 12.
    lmax
        Maximum degree of the fODF, even, 2 to 12.
    options
        Arguments of the architecture besides its numbers of channels; what JSON can hold.

    Raises
    ------
    InputError
        If a degree is impossible.
    """

    architecture: str
    acquisition: Acquisition
    signal_lmax: int
    lmax: int
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the degrees."""
        for name, least in (("signal_lmax", 0), ("lmax", 2)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= MAX_LMAX or value % 2:
                raise InputError(
                    f"{name} is {value!r}, but it must be an even number from {least} to "
                    f"{MAX_LMAX}.",
                    where="settings of the network",
                    remedy="Give such a number; if a model file says this, it is damaged.",
                )

    @property
    def input_lmaxes(self) -> tuple[int, ...]:
        """Maximum degree of each series that goes in: one for each shell."""
        return (self.signal_lmax,) * len(self.acquisition.shells_s_mm2)

    @property
    def output_lmaxes(self) -> tuple[int, ...]:
        """Maximum degree of each series that comes out."""
        return (self.lmax,)

    @property
    def in_channels(self) -> int:
        """Number of coefficients of the signal."""
        return sum(map(n_coefficients, self.input_lmaxes))

    @property
    def out_channels(self) -> int:
        """Number of coefficients of the fODF."""
        return sum(map(n_coefficients, self.output_lmaxes))

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON can hold."""
        return {
            "architecture": self.architecture,
            "acquisition": self.acquisition.to_dict(),
            "signal_lmax": self.signal_lmax,
            "lmax": self.lmax,
            "options": dict(self.options),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` gave.

        Raises
        ------
        InputError
            If something is missing, of another type or impossible.
        """
        kinds = {
            "architecture": str,
            "acquisition": dict,
            "signal_lmax": int,
            "lmax": int,
            "options": dict,
        }
        for name, kind in kinds.items():
            if not isinstance(values.get(name), kind):
                raise InputError(
                    f"The settings of the network are damaged: {name} is {values.get(name)!r}.",
                    where="settings of the network",
                    remedy="Copy the model file again, or train it again.",
                )
        named = {name: values[name] for name in kinds}
        return cls(**named | {"acquisition": Acquisition.from_dict(values["acquisition"])})
