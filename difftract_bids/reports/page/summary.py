"""What was run and what came out: the tables of the report, and what to look at first."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from difftract_bids.checks.verdict import Check, Light, worst
from difftract_bids.reports.templates import render, save_text

#: What a light is called, its sign (for those who do not see the colour), and in which order.
SIGNS: dict[Light, tuple[str, str]] = {
    "bad": ("Wrong", "■"),
    "look": ("Look", "▲"),
    "good": ("Good", "●"),
    "unknown": ("Not judged", "○"),
}


@dataclass(frozen=True)
class Notice:
    """Something that the reader should look at.

    Attributes
    ----------
    what
        What was found, with its figures.
    remedy
        What to do about it.
    where
        File or stage concerned.
    """

    what: str
    remedy: str = ""
    where: str = ""


@dataclass(frozen=True)
class ConnectomeFacts:
    """Figures of one connectome.

    Attributes
    ----------
    atlas
        Name of the atlas.
    n_nodes, n_edges
        Nodes, and pairs of different nodes with at least one streamline.
    n_assigned
        Streamlines with both ends in a parcel, those within one parcel included.
    n_within_nodes
        Streamlines with both ends in the same parcel; ``None`` where streamlines were assigned to
        every parcel that they visit, and count for each pair of them.
    per_edge
        Smallest, median and largest number of streamlines over the edges that have any.
    nodes_without
        Names of nodes that no streamline ends in.
    """

    atlas: str
    n_nodes: int
    n_edges: int
    n_assigned: int
    n_within_nodes: int | None
    per_edge: tuple[float, float, float]
    nodes_without: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        atlas: str,
        counts: Float[np.ndarray, "node node"],
        names: Sequence[str],
        n_assigned: int | None = None,
    ) -> Self:
        """Work out the figures from a symmetric matrix of streamline counts.

        Parameters
        ----------
        atlas, counts, names
            The matrix, and whose it is.
        n_assigned
            Streamlines that connect parcels, where it is not the sum over the pairs.
        """
        above = counts[np.triu_indices(len(names), k=1)]
        edges = above[above > 0]
        within = float(np.trace(counts))
        in_pairs = round(float(above.sum()) + within)
        once_each = n_assigned is None or n_assigned == in_pairs
        return cls(
            atlas=atlas,
            n_nodes=len(names),
            n_edges=len(edges),
            n_assigned=in_pairs if n_assigned is None else n_assigned,
            n_within_nodes=round(within) if once_each else None,
            per_edge=(float(edges.min()), float(np.median(edges)), float(edges.max()))
            if len(edges)
            else (0.0, 0.0, 0.0),
            nodes_without=tuple(
                name for name, row in zip(names, counts, strict=True) if not row.any()
            ),
        )

    @property
    def n_possible_edges(self) -> int:
        """Pairs of different nodes."""
        return self.n_nodes * (self.n_nodes - 1) // 2

    @property
    def density(self) -> float:
        """Share of possible edges that have a streamline."""
        return self.n_edges / max(self.n_possible_edges, 1)


@dataclass(frozen=True)
class RunSummary:
    """Figures of one diffusion run.

    Attributes
    ----------
    shape
        Voxels along each axis.
    voxel_sizes_mm
        Their size, millimetres.
    shells
        (mean b-value in s/mm², number of volumes) of each, b=0 first.
    fodf
        Name and value of what there is to say about the fODFs.
    n_streamlines
        Streamlines kept.
    n_seeds
        Seeds tried; 0 if not known.
    median_length_mm
        Median length of the kept streamlines, millimetres.
    stop_reasons
        How many streamline ends stopped for each reason (two ends a streamline).
    seed_fates
        What became of how many seeds.
    connectomes
        One per atlas.
    checks
        Traffic lights, in the order of the work.
    anchors
        Where on the page the figure of a check is, by ``figure`` or ``figure of`` of the check.
    notices
        Warnings of the stages.
    decisions
        What was decided by the data and why, whose results were used: a sentence each.
    """

    shape: tuple[int, int, int]
    voxel_sizes_mm: tuple[float, float, float]
    shells: Sequence[tuple[float, int]]
    n_streamlines: int
    n_seeds: int = 0
    median_length_mm: float | None = None
    stop_reasons: Mapping[str, int] = field(default_factory=dict)
    seed_fates: Mapping[str, int] = field(default_factory=dict)
    fodf: Sequence[tuple[str, str]] = ()
    connectomes: Sequence[ConnectomeFacts] = ()
    checks: Sequence[Check] = ()
    anchors: Mapping[str, str] = field(default_factory=dict)
    notices: Sequence[Notice] = ()
    decisions: Sequence[str] = ()

    @property
    def voxel_sizes_text(self) -> str:
        """Voxel sizes as people write them."""
        return " by ".join(f"{size:.3g}" for size in self.voxel_sizes_mm)


def fodf_facts(sidecar: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say which fODF model there is and why, from the sidecar of the fODFs of white matter.

    Returns
    -------
    list of tuple
        Name and value of each row of the table; none if the sidecar is empty.
    """
    if "FODFModel" not in sidecar:
        return []
    described = sidecar["Model"]["Description"]
    model = f"{described} ({sidecar['FODFModel']}), as {sidecar['FODFModelReason']}"
    facts = [("fODF model", model)]
    if "OrientationEncoding" in sidecar:
        facts.append(("lmax", str(sidecar["OrientationEncoding"]["SphericalHarmonicDegree"])))
    parameters = sidecar["Model"].get("Parameters", {})
    if "SHA256" in parameters:
        facts.append(("Trained model", f"SHA-256 {parameters['SHA256'][:16]}"))
        facts.append(("Trained on", _training_in_words(sidecar.get("TrainingData", {}))))
    if "Refinement" in sidecar:
        done = sidecar["Refinement"]
        facts.append(("Adjusted to", f"{done['Target']} in {done['Steps']} steps"))
    if "NormalisedBy" in sidecar:
        low, high = (sidecar["NormalisedBy"]["FieldPercentiles"][p] for p in ("1", "99"))
        facts.append(("Intensity normalisation", f"field from {low:.3g} to {high:.3g}"))
    return facts


def _training_in_words(told: Mapping[str, Any]) -> str:
    number, datasets = told.get("Participants"), told.get("Datasets", [])
    said = [] if number is None else [f"{number} participant{'s' if number != 1 else ''}"]
    said += [f"of {', '.join(datasets)}"] if datasets else []
    return " ".join(said) or "not told"


def write_summary_html(summary: RunSummary, path: str | os.PathLike[str]) -> Path:
    """Write the summary of a run as an HTML snippet: traffic lights, warnings, then figures.

    Returns
    -------
    Path
        The absolute path written.
    """
    tallies = [
        (title, sorted(table.items(), key=lambda item: -item[1]), sum(table.values()))
        for title, table in (
            ("What became of seeds", summary.seed_fates),
            ("Why streamlines ended", summary.stop_reasons),
        )
        if sum(table.values())
    ]
    html = render(
        "summary.html.jinja",
        run=summary,
        tallies=tallies,
        lights=[_shown(check, summary.anchors) for check in summary.checks],
        verdict=verdict(summary.checks),
        signs=SIGNS,
    )
    return save_text(html, path)


def verdict(checks: Sequence[Check]) -> dict[str, str]:
    """Sum checks up: the light that matters most, its sign, and a sentence."""
    light = worst(checks)
    counts = Counter(check.light for check in checks)
    wants = f"want{'s' if counts['look'] == 1 else ''} a look"
    told = {
        "bad": f"{counts['bad']} of {len(checks)} checks found something wrong",
        "look": f"{counts['look']} of {len(checks)} checks {wants}",
        "good": f"{counts['good']} of {len(checks)} checks good",
        "unknown": "Nothing was checked by itself",
    }[light]
    if light == "bad" and counts["look"]:
        told += f", {counts['look']} more {wants}"
    if counts["unknown"]:
        told += f", {counts['unknown']} could not be made"
    elif light == "good":
        told = "All checks are good"
    return {"light": light, "sign": SIGNS[light][1], "said": told}


def full_title(check: Check) -> str:
    """Name a check, with the atlas or template that it is of."""
    told = not check.of or check.of in check.title
    return check.title if told else f"{check.title}, {check.of}"


def _shown(check: Check, anchors: Mapping[str, str]) -> dict[str, str]:
    """Give what the table shows of a check."""
    word, sign = SIGNS[check.light]
    own = f"{check.figure} {check.of}" if check.of else check.figure
    return {
        "light": check.light,
        "word": word,
        "sign": sign,
        "title": full_title(check),
        "found": check.found,
        "remedy": check.remedy,
        "anchor": anchors.get(own, ""),
    }
