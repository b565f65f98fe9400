"""A check: what was looked at, what was found, and whether somebody should look again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

#: ``good``: as it should be. ``look``: unusual, look at the figure. ``bad``: wrong more often than
#: not; what comes after it should not be used before it is understood. ``unknown``: not judged.
Light = Literal["good", "look", "bad", "unknown"]
#: From what matters least to what matters most.
LIGHTS: tuple[Light, ...] = ("unknown", "good", "look", "bad")


@dataclass(frozen=True)
class Check:
    """One traffic light.

    Attributes
    ----------
    name
        Identifier, lower case: ``gradients``, ``mask``, ``template``.
    title
        The same in words.
    light
        The verdict.
    found
        What was found, one sentence with its figures and their units.
    remedy
        What to do about it; empty where all is well.
    figure
        The figure of the report to look at, by the ``desc`` of its name; empty for none.
    of
        The atlas or template that it is of; empty for the run as a whole.
    value
        The figure that the verdict rests on, if there is one that says it all.
    unit
        Its unit, BIDS words (``mm``, ``mm^3``); empty for none.
    """

    name: str
    title: str
    light: Light
    found: str
    remedy: str = ""
    figure: str = ""
    of: str = ""
    value: float | None = None
    unit: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values, which Nipype hands from step to step."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Take it from plain values."""
        return cls(**values)


def judged(value: float, *, look: float, bad: float) -> Light:
    """Judge a value by two limits; the larger is the worse if ``bad`` is above ``look``.

    A value that is not a number is ``unknown``.
    """
    if value != value:  # noqa: PLR0124 - NaN
        return "unknown"
    sign = 1.0 if bad >= look else -1.0
    if sign * value >= sign * bad:
        return "bad"
    return "look" if sign * value >= sign * look else "good"


def worst(checks: Iterable[Check]) -> Light:
    """Give the light that matters most; ``unknown`` if there is none."""
    return max((check.light for check in checks), key=LIGHTS.index, default="unknown")
