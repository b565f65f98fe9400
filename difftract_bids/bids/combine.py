"""Which diffusion runs of a session are one series, for ``--combine-runs``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.filebasedimages import ImageFileError

from difftract_bids.bids.runs import RunPart
from difftract_bids.config import PreprocessingConfig
from difftract_bids.errors import UsageError

#: Grids further apart than this, at their farthest corner, are different fields of view. Below,
#: the offset is one more movement of the head between volumes, and is corrected with it.
_OFFSET_MM = 5.0
#: Offsets below this are rounding.
_SAME_MM = 0.1
_SIZE_TOLERANCE_MM = 1e-3
#: Echo times further apart than this give another contrast.
_ECHO_TOLERANCE_S = 1e-3

Group = tuple[list[RunPart], list[str]]


def group_parts(
    parts: list[RunPart], weighted: Mapping[Path, int], config: PreprocessingConfig
) -> list[Group]:
    """Put acquisitions together that are one series.

    They are of one session, with the same voxel grid, echo time and phase encoding; one that is
    unknown counts as the others'. Shells may differ. Grids may lie up to 5 mm from each other if
    head motion is corrected, for which this is one more movement; without, they must coincide.
    b=0 images of another phase encoding stay apart: they are fieldmaps.

    Parameters
    ----------
    parts
        All acquisitions of a participant.
    weighted
        Number of diffusion-weighted volumes of each, by its image.
    config
        How motion is corrected.

    Returns
    -------
    list
        The parts of each series, in the order of their names, and what the user should know.

    Raises
    ------
    UsageError
        If series of different phase encoding share all else.
    """
    offset_mm = _SAME_MM if config.motion_correction == "none" else _OFFSET_MM
    groups: list[list[RunPart]] = []
    for part in sorted(parts, key=lambda one: one.dwi.name):
        for group in groups:
            if _is_alike(group[0], part, offset_mm):
                group.append(part)
                break
        else:
            groups.append([part])
    return [
        (members, _notes(members))
        for group in groups
        for members in _by_phase_encoding(group, weighted)
    ]


def common_entities(parts: list[RunPart]) -> dict[str, Any]:
    """Give the entities that all parts have with the same value."""
    first, *others = parts
    return {
        name: value
        for name, value in first.entities.items()
        if all(other.entities.get(name) == value for other in others)
    }


def agreed_metadata(parts: list[RunPart]) -> dict[str, Any]:
    """Merge sidecars, without the fields that parts disagree on."""
    merged: dict[str, Any] = {}
    for part in reversed(parts):
        merged |= part.metadata
    return {
        name: value
        for name, value in merged.items()
        if all(part.metadata.get(name, value) == value for part in parts)
    }


def _is_alike(one: RunPart, other: RunPart, offset_mm: float) -> bool:
    """Compare session, echo time and grid."""
    if one.entities.get("session") != other.entities.get("session"):
        return False
    echoes = [part.metadata.get("EchoTime") for part in (one, other)]
    first, second = (echo if isinstance(echo, int | float) else None for echo in echoes)
    if first is not None and second is not None and abs(first - second) > _ECHO_TOLERANCE_S:
        return False
    apart_mm = grid_offset_mm(one.dwi, other.dwi)
    return apart_mm is not None and apart_mm <= offset_mm


def grid_offset_mm(one: Path, other: Path) -> float | None:
    """Measure how far the corners of two grids lie apart, at most, in millimetres.

    Returns
    -------
    float or None
        ``None`` if their sizes differ, or an image cannot be read (which is told of later).
    """
    try:
        first, second = nib.load(one), nib.load(other)
    except (OSError, EOFError, ValueError, ImageFileError):
        return None
    shape = first.shape[:3]
    sizes = [np.linalg.norm(image.affine[:3, :3], axis=0) for image in (first, second)]
    if shape != second.shape[:3] or np.abs(sizes[0] - sizes[1]).max() > _SIZE_TOLERANCE_MM:
        return None
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape]), axis=-1).reshape(-1, 3)
    apart = apply_affine(first.affine, corners) - apply_affine(second.affine, corners)
    return float(np.linalg.norm(apart, axis=1).max())


def _by_phase_encoding(group: list[RunPart], weighted: Mapping[Path, int]) -> list[list[RunPart]]:
    """Split a series by phase encoding, as far as it must be."""
    encodings = _encodings(group)
    if len(encodings) < 2:
        return [group]
    series = [part for part in group if weighted[part.dwi]]
    known = _encodings(series)
    if len(known) > 1:
        named = ", ".join(
            f"{part.dwi.name} ({part.metadata.get('PhaseEncodingDirection', 'unknown')})"
            for part in series
        )
        raise UsageError(
            f"Runs of different phase encoding cannot be combined: {named}.",
            where="--combine-runs",
            remedy="Leave --combine-runs out: each run is then processed on its own, and with FSL "
            "one serves as the other's fieldmap (--susceptibility-correction topup).",
        )
    kept = known or {min(encodings)}
    apart = [part for part in group if not weighted[part.dwi] and _encodings([part]) - kept]
    return [[part for part in group if part not in apart], *([part] for part in apart)]


def _encodings(parts: list[RunPart]) -> set[str]:
    """List the phase encodings that are known."""
    return {str(part.metadata.get("PhaseEncodingDirection") or "") for part in parts} - {""}


def _notes(parts: list[RunPart]) -> list[str]:
    first, *others = parts
    if not others:
        return []
    named = ", ".join(part.dwi.name for part in parts)
    notes = [f"{len(parts)} runs are combined: {named}."]
    for other in others:
        apart_mm = grid_offset_mm(first.dwi, other.dwi) or 0.0
        if apart_mm > _SAME_MM:
            notes.append(
                f"The grid of {other.dwi.name} lies up to {apart_mm:.1f} mm from that of "
                f"{first.dwi.name}: this is left to the correction of head motion."
            )
    return notes
