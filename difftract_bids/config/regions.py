"""Where streamlines may, must and must not go."""

from __future__ import annotations

from dataclasses import dataclass

from difftract_bids.validation import Validated, parse_numbers, setting


@dataclass(frozen=True)
class RegionsConfig(Validated):
    """Where streamlines may, must and must not go: images, or spheres as ``x,y,z,radius``."""

    include: tuple[str, ...] = setting(
        (), "Regions that a streamline must visit, every one of them.", unit="image|x,y,z,radius"
    )
    exclude: tuple[str, ...] = setting(
        (), "Regions that reject a streamline that enters any.", unit="image|x,y,z,radius"
    )
    mask: tuple[str, ...] = setting(
        (),
        "Regions outside which streamlines end, instead of the brain mask.",
        unit="image|x,y,z,radius",
    )
    stop: bool = setting(
        default=False, desc="End a streamline once it has visited every region to visit."
    )

    def __post_init__(self) -> None:
        """Check what can be checked without the files."""
        super().__post_init__()
        self._require("stop", ok=bool(self.include) or not self.stop, rule="off without include")
        for name in ("include", "exclude", "mask"):
            for entry in getattr(self, name):
                sphere = parse_numbers(entry, 4)
                ok = bool(entry.strip()) and (sphere is None or sphere[3] > 0)
                self._require(name, ok=ok, rule="images, or x,y,z,radius with a radius above 0")
