"""What goes into one check, gathered piece by piece: the worst of its lights is its light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from difftract_bids.checks.verdict import LIGHTS, Check, Light


@dataclass
class Findings:
    """Pieces of a sentence on what was found, and the lights and remedies of its faults."""

    found: list[str] = field(default_factory=list)
    lights: list[Light] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)

    def judge(self, light: Light, remedy: str) -> None:
        """Add a light; the remedy is told if it is not ``good``."""
        self.lights.append(light)
        if light in {"look", "bad"} and remedy not in self.remedies:
            self.remedies.append(remedy)

    def check(
        self, name: str, title: str, figure: str, *, value: float | None = None, unit: str = ""
    ) -> Check:
        """Make the check of them."""
        light: Light = max(self.lights, key=LIGHTS.index, default="unknown")
        found, remedy = sentence(self.found), " ".join(sentence([text]) for text in self.remedies)
        return Check(name, title, light, found, remedy, figure, value=value, unit=unit)


def sentence(parts: Sequence[str]) -> str:
    """Join pieces by semicolons, with a capital and a full stop."""
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}{'' if text[-1] in '.?' else '.'}" if text else ""
