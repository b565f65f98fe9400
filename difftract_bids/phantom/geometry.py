"""The head as data: tissues, parcels and bundles, read from TOML, mirrored to both sides."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import InputError

Hemisphere = Literal["left", "right", "midline"]
Kind = Literal["cortex", "nucleus"]

#: Prefix of a node's name, by hemisphere.
_PREFIX: dict[Hemisphere, str] = {"left": "LH-", "right": "RH-", "midline": ""}
_MIRROR = np.array([-1.0, 1.0, 1.0])
_SIDES: tuple[Hemisphere, Hemisphere] = ("left", "right")
#: A cortical bundle runs along the surface normal over this depth before it turns.
_ENTRY_DEPTH_MM = 13.0
#: It starts this far outside the brain, so that all of its cross-section reaches the cortex.
_BEYOND_MM = 6.0


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid along the head's axes, millimetres."""

    centre_mm: Float[np.ndarray, " 3"]
    semi_axes_mm: Float[np.ndarray, " 3"]

    def distance_mm(self, points_mm: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
        """Approximate signed distance to the surface, positive outside.

        First order in the distance: the implicit function over the length of its gradient
        (Taubin 1994, doi:10.1145/174462.174531).
        """
        scaled = (points_mm - self.centre_mm) / self.semi_axes_mm
        radius = np.sqrt(np.einsum("...i,...i->...", scaled, scaled))
        scaled /= self.semi_axes_mm
        slope = np.sqrt(np.einsum("...i,...i->...", scaled, scaled))
        return radius * (radius - 1.0) / np.maximum(slope, 1e-9)

    def mirrored(self) -> Ellipsoid:
        """Reflect through the midsagittal plane."""
        return Ellipsoid(self.centre_mm * _MIRROR, self.semi_axes_mm)


@dataclass(frozen=True)
class Fissure:
    """Interhemispheric CSF: a slab at x = 0, outside an ellipse in y-z and above a floor."""

    half_width_mm: float
    ellipse_centre_yz_mm: Float[np.ndarray, " 2"]
    ellipse_semi_axes_yz_mm: Float[np.ndarray, " 2"]
    floor_z_mm: float

    def distance_mm(self, points_mm: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
        """Approximate signed distance to the slab, positive outside it."""
        ellipse = Ellipsoid(self.ellipse_centre_yz_mm, self.ellipse_semi_axes_yz_mm)
        across = np.abs(points_mm[..., 0]) - self.half_width_mm
        within = -ellipse.distance_mm(points_mm[..., 1:])
        return np.maximum(np.maximum(across, within), self.floor_z_mm - points_mm[..., 2])


@dataclass(frozen=True)
class Parcel:
    """One node: a cortical centre (on the middle of the cortex), or a nucleus with its extent."""

    index: int
    name: str
    hemisphere: Hemisphere
    kind: Kind
    shape: Ellipsoid


@dataclass(frozen=True)
class Bundle:
    """A tube of streamlines between two nodes.

    Attributes
    ----------
    name
        Anatomical name, with the hemisphere's prefix.
    nodes
        Names of the two nodes; the path runs from the first to the second.
    path_mm
        Points that guide the centre line. A cortical end lies outside the brain: the streamlines
        are cut in the middle of the cortex.
    weight
        True number of streamlines.
    fan
        How much wider the tube is at its first and second end than at its waist.
    """

    name: str
    nodes: tuple[str, str]
    path_mm: Float[np.ndarray, "point 3"]
    weight: float
    fan: tuple[float, float]


@dataclass(frozen=True)
class Geometry:
    """A head: its tissues, its nodes and the bundles between them (head axes, millimetres)."""

    pial: Ellipsoid
    cortex_mm: float
    sulcal_depth_mm: float
    sulcal_wavelength_mm: float
    subarachnoid_mm: float
    skull_mm: float
    scalp_mm: float
    fissure: Fissure
    ventricles: tuple[Ellipsoid, ...]
    parcels: tuple[Parcel, ...]
    bundles: tuple[Bundle, ...]
    streamlines_per_mm2: float

    @property
    def node_names(self) -> list[str]:
        """Names of the nodes, in the order of their indices."""
        return [parcel.name for parcel in self.parcels]

    def depth_mm(self, points_mm: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
        """Depth under the folded pial surface, negative outside the brain.

        The sulci follow the zero lines of a gyroid: they branch and wind as real ones do, and cost
        six sines. They are the same on both sides.
        """
        depth = -self.pial.distance_mm(points_mm)
        phase = np.abs(points_mm) * (2.0 * np.pi / self.sulcal_wavelength_mm)
        sine, cosine = np.sin(phase), np.cos(phase)
        gyroid = np.einsum("...i,...i->...", sine, np.roll(cosine, 1, axis=-1))
        return depth - self.sulcal_depth_mm * np.clip(1.0 - np.abs(gyroid), 0.0, 1.0)

    def parcel(self, name: str) -> Parcel:
        """Look a node up by its name.

        Raises
        ------
        InputError
            If there is no such node.
        """
        for parcel in self.parcels:
            if parcel.name == name:
                return parcel
        raise InputError(
            f"A bundle ends in {name!r}, which is no parcel.",
            where="phantom geometry",
            remedy=f"Name one of: {', '.join(self.node_names)}.",
        )


def load_geometry(path: Path | None = None) -> Geometry:
    """Read a head from TOML; the packaged one by default (``data/phantom/head.toml``).

    Raises
    ------
    InputError
        If the file cannot be read, lacks an entry, or a bundle names an unknown parcel.
    """
    source = path or resources.files("difftract_bids.data") / "phantom" / "head.toml"
    try:
        return _build(tomllib.loads(source.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise InputError(
            f"The phantom's geometry cannot be read: {type(error).__name__} {error}.",
            where=source,
            remedy="Compare it with the packaged data/phantom/head.toml.",
        ) from error


def _build(table: dict[str, Any]) -> Geometry:
    head = table["head"]
    pial = Ellipsoid(np.zeros(3), np.array(head["pial_semi_axes_mm"]))
    fissure = head["fissure"]
    bare = Geometry(
        pial=pial,
        cortex_mm=head["cortex_mm"],
        sulcal_depth_mm=head["sulcal_depth_mm"],
        sulcal_wavelength_mm=head["sulcal_wavelength_mm"],
        subarachnoid_mm=head["subarachnoid_mm"],
        skull_mm=head["skull_mm"],
        scalp_mm=head["scalp_mm"],
        fissure=Fissure(
            fissure["half_width_mm"],
            np.array(fissure["ellipse_centre_yz_mm"]),
            np.array(fissure["ellipse_semi_axes_yz_mm"]),
            fissure["floor_z_mm"],
        ),
        ventricles=tuple(_ventricles(table.get("ventricle", []))),
        parcels=_parcels(table, pial, head["cortex_mm"]),
        bundles=(),
        streamlines_per_mm2=table["streamlines_per_mm2"],
    )
    bundles = [b for entry in table["bundle"] for b in _bundle_pair(entry, bare)]
    bundles += [_commissure(entry, bare) for entry in table.get("commissure", [])]
    return Geometry(**{**vars(bare), "bundles": tuple(bundles)})


def _ventricles(entries: list[dict[str, Any]]) -> Iterator[Ellipsoid]:
    for entry in entries:
        shape = _ellipsoid(entry)
        yield shape
        if not entry.get("midline", False):
            yield shape.mirrored()


def _ellipsoid(entry: dict[str, Any]) -> Ellipsoid:
    return Ellipsoid(np.array(entry["centre_mm"], float), np.array(entry["semi_axes_mm"], float))


def _parcels(table: dict[str, Any], pial: Ellipsoid, cortex_mm: float) -> tuple[Parcel, ...]:
    rows: list[tuple[str, Hemisphere, Kind, Ellipsoid]] = []
    for entry in table["cortex"]:
        centre = _below_surface(pial, np.array(entry["centre_mm"], float), cortex_mm / 2)
        shape = Ellipsoid(centre, np.full(3, cortex_mm / 2))
        rows += [(entry["name"], "left", "cortex", shape.mirrored())]
        rows += [(entry["name"], "right", "cortex", shape)]
    for entry in table["nucleus"]:
        shape = _ellipsoid(entry)
        if entry.get("midline", False):
            rows += [(entry["name"], "midline", "nucleus", shape)]
        else:
            rows += [(entry["name"], "left", "nucleus", shape.mirrored())]
            rows += [(entry["name"], "right", "nucleus", shape)]
    rows.sort(key=lambda row: ("left", "right", "midline").index(row[1]))
    return tuple(
        Parcel(index, _PREFIX[side] + name, side, kind, shape)
        for index, (name, side, kind, shape) in enumerate(rows, start=1)
    )


def _below_surface(
    pial: Ellipsoid, towards_mm: Float[np.ndarray, " 3"], depth_mm: float
) -> Float[np.ndarray, " 3"]:
    """Find the point at a depth under where the ray from the centre leaves the surface."""
    surface = towards_mm / np.linalg.norm(towards_mm / pial.semi_axes_mm)
    normal = surface / pial.semi_axes_mm**2
    return surface - depth_mm * normal / np.linalg.norm(normal)


def _end_points(
    head: Geometry, node: str, point_mm: list[float] | None
) -> list[Float[np.ndarray, " 3"]]:
    """Control points of one end, outermost first; right hemisphere."""
    parcel = head.parcel(node)
    point = parcel.shape.centre_mm if point_mm is None else np.array(point_mm, float)
    if parcel.kind == "nucleus":
        return [point]
    return [_below_surface(head.pial, point, depth) for depth in (-_BEYOND_MM, _ENTRY_DEPTH_MM)]


def _node_name(head: Geometry, name: str, side: Hemisphere) -> str:
    return name if name in head.node_names else head.parcel(_PREFIX[side] + name).name


def _bundle_pair(entry: dict[str, Any], head: Geometry) -> list[Bundle]:
    right = tuple(_node_name(head, entry[key], "right") for key in ("from", "to"))
    path = np.array(
        [
            *_end_points(head, right[0], entry.get("start_mm")),
            *np.array(entry["via_mm"], float),
            *reversed(_end_points(head, right[1], entry.get("end_mm"))),
        ]
    )
    return [
        Bundle(
            name=_PREFIX[side] + entry["name"],
            nodes=(_node_name(head, entry["from"], side), _node_name(head, entry["to"], side)),
            path_mm=path if side == "right" else path * _MIRROR,
            weight=float(weight),
            fan=(float(entry["fan"][0]), float(entry["fan"][1])),
        )
        for side, weight in zip(_SIDES, entry["weight"], strict=True)
    ]


def _commissure(entry: dict[str, Any], head: Geometry) -> Bundle:
    nodes = tuple(_node_name(head, entry["parcel"], side) for side in _SIDES)
    half = np.array(
        [*_end_points(head, nodes[1], entry.get("start_mm")), *np.array(entry["via_mm"], float)]
    )
    path = np.concatenate([half * _MIRROR, [entry["middle_mm"]], half[::-1]])
    fan = float(entry["fan"])
    return Bundle(entry["name"], (nodes[0], nodes[1]), path, float(entry["weight"]), (fan, fan))
