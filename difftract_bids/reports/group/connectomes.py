"""The part of a group's page that shows the connectomes of one atlas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from difftract_bids.reports.connectome.matrix import plot_connectome
from difftract_bids.reports.group.files import GroupAtlas
from difftract_bids.reports.group.items import Item, filled, in_words, item, picture
from difftract_bids.reports.group.matrices import (
    MatrixPanel,
    plot_consistency,
    plot_group_matrices,
)

_MOST_SESSIONS = 6
_TITLES = {
    "count": ("Number of streamlines", "amount"),
    "meanlength": ("Mean length", "property"),
    "meanfa": ("Mean FA", "property"),
    "meanmd": ("Mean MD", "property"),
    "invlength": ("Inverse length", "amount"),
    "invnodevol": ("Inverse node volume", "amount"),
    "density": ("Connection density", "amount"),
    "sift2": ("SIFT2", "amount"),
}


def atlas_items(atlas: str, own: GroupAtlas, figures: Path) -> list[Item]:
    """Show mean, consistency, variation and the other measures of one atlas.

    Parameters
    ----------
    atlas, own
        Its name, and its matrices.
    figures
        Where the drawings go.
    """
    first = own.overall[own.first]
    mean, names = first["mean"].values()
    consistency, _ = first["consistency"].values()
    variation, _ = first["cv"].values()
    said = first["mean"].sidecar
    n = said["ParticipantCount"]
    title, _ = _look(own.first)
    chosen = first.get("mask-consistent")
    threshold = chosen.sidecar["ConsistencyThreshold"] if chosen else None
    stem = f"atlas-{atlas}"
    drawn = np.nan_to_num(mean)
    items = [
        item(
            f"{stem}-facts",
            filled(
                "group_atlas.html.jinja",
                said=said,
                edges=_edges(consistency),
                lacking=_lacking(said["MissingNodes"]),
                threshold=chosen.sidecar if chosen else None,
            ),
            title=f"Atlas {atlas}",
        ),
        item(
            f"{stem}-mean",
            picture(
                plot_connectome(
                    drawn,
                    names,
                    figures / f"{stem}_mean.svg",
                    measure=f"mean {title[0].lower()}{title[1:]}",
                ),
                f"Matrix of the mean connectome of {n} participants, atlas {atlas}",
            ),
            subtitle=f"Mean connectome: {title[0].lower()}{title[1:]}",
            description="Good: two dense squares along the diagonal (within the hemispheres), a "
            "fainter second diagonal between them (homotopic pairs, through the corpus callosum), "
            "no empty rows.",
        ),
        item(
            f"{stem}-spread",
            picture(
                plot_group_matrices(
                    [
                        MatrixPanel("Consistency", "participants", consistency, "share"),
                        MatrixPanel(
                            "Coefficient of variation", "SD / mean, log", variation, "variation"
                        ),
                    ],
                    names,
                    figures / f"{stem}_spread.svg",
                ),
                f"Matrices of consistency and coefficient of variation, atlas {atlas}",
            ),
            subtitle="Consistency and variation",
            description="Left, the share of participants that have the edge; right, how much it "
            "varies among them. Good: strong edges of the matrix above are in everyone and vary "
            "little (up to 0.5); many edges in few participants are spurious streamlines or too "
            "few seeds.",
        ),
        item(
            f"{stem}-consistency",
            picture(
                plot_consistency(
                    consistency,
                    mean,
                    figures / f"{stem}_consistency.svg",
                    threshold=threshold,
                    n_chosen=chosen.sidecar["EdgesKept"] if chosen else None,
                    meaning=f"mean {title[0].lower()}{title[1:]}",
                ),
                f"Edges kept by each threshold of consistency, and mean by consistency, {atlas}",
            ),
            subtitle="What a consistency threshold keeps",
            description="The shaded thresholds are those that de Reus and van den Heuvel "
            "recommend (2013, doi:10.1016/j.neuroimage.2012.12.066). Good: a curve that is flat "
            "there, so that the choice of the threshold matters little.",
        ),
    ]
    items += _other_measures(stem, atlas, own, names, figures)
    items += _sessions(stem, atlas, own, names, figures)
    return items


def _other_measures(
    stem: str, atlas: str, own: GroupAtlas, names: list[str], figures: Path
) -> list[Item]:
    panels = []
    for measure, statistics in own.overall.items():
        if measure != own.first:
            title, scale = _look(measure)
            matrix, _ = statistics["mean"].values()
            units = in_words(statistics["mean"].sidecar["Units"])
            meaning = "mean" if units == "arbitrary" else f"mean, {units}"
            panels.append(
                MatrixPanel(title, meaning + (", log" if scale == "amount" else ""), matrix, scale)
            )
    if not panels:
        return []
    path = plot_group_matrices(panels, names, figures / f"{stem}_measures.svg")
    alternative = f"Mean matrices of the other measures, atlas {atlas}"
    return [
        item(
            f"{stem}-measures",
            picture(path, alternative),
            subtitle="Means of the other measures",
            description="Means of lengths, FA and MD are over those who have the edge. "
            "Good: long edges between the hemispheres, FA without stripes (a stripe is a node in "
            "cerebrospinal fluid or grey matter).",
        )
    ]


def _sessions(
    stem: str, atlas: str, own: GroupAtlas, names: list[str], figures: Path
) -> list[Item]:
    if len(own.sessions) < 2:
        return []
    shown = sorted(own.sessions)[:_MOST_SESSIONS]
    panels = []
    matrices = {session: own.sessions[session].values()[0] for session in shown}
    values = np.concatenate([matrix[matrix > 0] for matrix in matrices.values()])
    limits = (float(values.min()), float(values.max())) if values.size else None
    for session, matrix in matrices.items():
        n = own.sessions[session].sidecar["ParticipantCount"]
        title = f"ses-{session} ({n} participant{'s' if n != 1 else ''})"
        panels.append(MatrixPanel(title, "mean count, log", matrix, "amount", limits))
    path = plot_group_matrices(panels, names, figures / f"{stem}_sessions.svg")
    rest = len(own.sessions) - len(shown)
    more = f" {rest} more sessions are not drawn." if rest else ""
    return [
        item(
            f"{stem}-sessions",
            picture(path, f"Mean connectome of each session, atlas {atlas}"),
            subtitle="Mean connectome of each session",
            description="Good: the same picture each time. A session that differs as a whole was "
            f"acquired or seeded in another way.{more}",
        )
    ]


def _look(measure: str) -> tuple[str, Any]:
    """Give the title of a measure and its scale."""
    scale = "property" if measure.startswith("mean") else "amount"
    return _TITLES.get(measure, (measure, scale))


def _edges(consistency: Float[np.ndarray, "node node"]) -> dict[str, int]:
    pairs = consistency[np.triu_indices(len(consistency), k=1)]
    known = pairs[np.isfinite(pairs)]
    return {
        "possible": len(pairs),
        "anyone": int((known > 0).sum()),
        "half": int((known >= 0.5).sum()),
        "everyone": int((known == 1).sum()),
    }


def _lacking(missing: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """Say which participants lack which nodes; those that lack the same share a row."""
    by_nodes: dict[str, list[str]] = {}
    for participant, nodes in missing.items():
        by_nodes.setdefault(", ".join(nodes), []).append(participant)
    return [(", ".join(those), nodes) for nodes, those in by_nodes.items()]
