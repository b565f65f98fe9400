"""What a network is made from, as a model file keeps it."""

from __future__ import annotations

import math
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
    response
        Zonal coefficients of one fibre's signal, relative to b=0, with which the scan is
        deconvolved; the network is given that too, and gives a correction of it. ``None`` leaves
        all to the network.

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
    response: tuple[float, ...] | None = None

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
        """Maximum degree of each series that goes in: of the shells, and of the fODFs behind."""
        start = () if self.response is None else (self.lmax,)
        return (self.signal_lmax,) * len(self.acquisition.shells_s_mm2) + start

    @property
    def output_lmaxes(self) -> tuple[int, ...]:
        """Maximum degree of each series that comes out."""
        return (self.lmax,)

    @property
    def in_channels(self) -> int:
        """Number of coefficients that go in."""
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
            "response": None if self.response is None else list(self.response),
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
                raise _damaged(name, values.get(name))
        named = {name: values[name] for name in kinds}
        acquisition = Acquisition.from_dict(values["acquisition"])
        return cls(**named | {"acquisition": acquisition, "response": _response(values)})


def _response(values: dict[str, Any]) -> tuple[float, ...] | None:
    """Read the response; models of before there was one have none."""
    found = values.get("response")
    if found is None:
        return None
    sound = isinstance(found, list) and all(type(value) in (int, float) for value in found)
    if not sound or not found or not all(math.isfinite(v) for v in found) or found[0] <= 0:
        raise _damaged("response", found)
    return tuple(float(value) for value in found)


def _damaged(name: str, value: object) -> InputError:
    return InputError(
        f"The settings of the network are damaged: {name} is {value!r}.",
        where="settings of the network",
        remedy="Copy the model file again, or train it again.",
    )
