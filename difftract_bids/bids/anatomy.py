"""The anatomy that goes with a diffusion run: a T1w, and what others have already made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from difftract_bids.bids.templates import entities_of

#: Tissues of the probability maps, by their ``label-``.
TISSUE_LABELS = ("GM", "WM", "CSF")


@dataclass(frozen=True)
class Anatomy:
    """A T1w and what is known of it.

    Attributes
    ----------
    t1w
        The image; ``None`` if there is none.
    t1w_mask
        Its brain mask: brain is where it is not zero (FreeSurfer's holds intensities).
    probseg
        Tissue probabilities on the T1w's grid, by ``GM``, ``WM`` and ``CSF``; all three or none.
    aparcaseg
        Image of FreeSurfer's labels in the space of the T1w.
    in_dwi_space
        Whether the T1w lies in the space of the diffusion images already.
    from_template
        By name of template, the file that brings its images onto the T1w
        (``from-<template>_to-T1w``): it maps T1w points to template points.
    origin
        Who made all this: ``raw``, or a program and its version.
    """

    t1w: Path | None = None
    t1w_mask: Path | None = None
    probseg: dict[str, Path] = field(default_factory=dict)
    aparcaseg: Path | None = None
    in_dwi_space: bool = False
    from_template: dict[str, Path] = field(default_factory=dict)
    origin: str = "raw"

    @property
    def images(self) -> list[Path]:
        """Every image there is, the T1w first."""
        found = [self.t1w, self.t1w_mask, *self.probseg.values(), self.aparcaseg]
        return [path for path in found if path is not None]

    @property
    def parts(self) -> list[str]:
        """Say what there is besides the T1w, for the report."""
        masks = ["its brain mask"] if self.t1w_mask else []
        tissues = ["tissue probabilities"] if self.probseg else []
        labels = ["FreeSurfer's labels"] if self.aparcaseg else []
        return masks + tissues + labels + [f"the transform to {t}" for t in self.from_template]


def choose_t1w(session: str | None, images: list[Path]) -> tuple[Path | None, list[str]]:
    """Choose the T1w of a session: its own, else that of the first session which has one.

    Among several, one without contrast agent, then the plainest name (no ``acq-``, ``rec-``),
    then the first run.

    Parameters
    ----------
    session
        Label of the session, or ``None``.
    images
        All T1w images of the participant.

    Returns
    -------
    tuple
        The image, if there is one, and what the user should know of the choice.
    """
    same = [image for image in images if entities_of(image).get("ses") == session]
    pool = same or _first_session(images)
    if not pool:
        return None, []
    chosen, *others = sorted(pool, key=_plainness)
    notes = []
    if not same:
        notes.append(f"The T1w {chosen.name} is of another session: this one has none.")
    if others:
        notes.append(f"Of {len(pool)} T1w images {chosen.name} was taken.")
    return chosen, notes


def _first_session(images: list[Path]) -> list[Path]:
    """List the images of one session: none first, then in the order of labels."""
    if not images:
        return []
    first = min(entities_of(image).get("ses", "") for image in images)
    return [image for image in images if entities_of(image).get("ses", "") == first]


def _plainness(image: Path) -> tuple[bool, int, int, str]:
    names = entities_of(image)
    run = names.pop("run", "0")
    return "ce" in names, len(names), int(run) if run.isdigit() else 0, image.name
