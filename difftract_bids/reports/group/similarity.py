"""The part of a group's page that shows how much the runs are like each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from difftract_bids.reports.group.files import QualityTable, RunSimilarity
from difftract_bids.reports.group.items import Item, inline, item
from difftract_bids.reports.group.similarity_matrix import (
    LEAST_RUNS,
    MOST_CELLS,
    OPTIMAL_ORDER_RUNS,
    WHITE_RUNS,
    SimilarRuns,
    plot_similarity,
)

_GOOD = (
    "Each run against each other: correlation of log(1 + count). Good: one even block. Sessions "
    "of one person are more alike than different people. A dark row and column is a run unlike "
    "all others: open its report, its name leads there. Several blocks are families of runs, as "
    "of two scanners, protocols or settings: find what their members share before you compare "
    "them."
)


def similarity_items(
    atlas: str,
    similarity: RunSimilarity | None,
    table: QualityTable,
    links: list[str],
    figures: Path,
) -> list[Item]:
    """Show the similarity of each run with each other, in one atlas.

    Parameters
    ----------
    atlas, similarity
        Its name, and the matrix; without one, or of fewer than 3 runs that can be compared, there
        is nothing to show.
    table, links
        Quality of all runs, and the address of the report of each; empty for none.
    figures
        Where the drawing goes.
    """
    if similarity is None or _n_compared(similarity.matrix) < LEAST_RUNS:
        return []
    rows = {row["run"]: (row, link) for row, link in zip(table.rows, links, strict=True)}
    known = [rows.get(run, ({}, "")) for run in similarity.runs]
    column = f"similarity_{atlas}"
    shown = SimilarRuns(
        matrix=similarity.matrix,
        runs=similarity.runs,
        participants=[row.get("participant_id", "") for row, _ in known],
        apart=[column in row.get("outliers", "").split(",") for row, _ in known],
        pages=[link for _, link in known],
    )
    name = f"atlas-{atlas}_similarity"
    path = plot_similarity(shown, figures / f"{name}.svg")
    n_runs = len(similarity.runs)
    return [
        item(
            f"atlas-{atlas}-similarity",
            inline(
                path,
                f"Matrix of the correlations between the connectomes of {n_runs} runs, atlas "
                f"{atlas}, like runs beside each other, and how the correlations are spread",
            ),
            subtitle="Similarity of the runs",
            description=_GOOD,
            caption=_caption(shown, atlas),
        )
    ]


def _caption(shown: SimilarRuns, atlas: str) -> str:
    n_runs = len(shown.runs)
    leaves = ", leaves so that neighbours are alike" if n_runs <= OPTIMAL_ORDER_RUNS else ""
    order = (
        "Runs are in the order of hierarchical clustering (average linkage of 1 - correlation"
        f"{leaves}), the smaller family or a run unlike all others last."
    )
    parts = [order, *(["White: a run with itself."] if n_runs <= WHITE_RUNS else [])]
    if n_runs > MOST_CELLS:
        step = -(-n_runs // MOST_CELLS)
        parts.append(f"A cell is the mean of {step} runs with {step} others.")
    lacking = int((~np.isfinite(shown.matrix.diagonal())).sum())
    if lacking:
        said = "1 run has" if lacking == 1 else f"{lacking} runs have"
        parts.append(f"Grey: no correlation, since {said} an empty matrix or a constant one.")
    same, different = shown.pairs()
    medians = [
        f"{np.median(values):.3f} {whose}"
        for values, whose in ((same, "of the same person"), (different, "of different people"))
        if values.size
    ]
    parts.append(f"Median correlation of two runs: {', '.join(medians)}.")
    parts.append(f"All numbers: group/atlas-{atlas}_meas-count_similarity.tsv.")
    return " ".join(parts)


def _n_compared(matrix: Float[np.ndarray, "run run"]) -> int:
    return int(np.isfinite(matrix.diagonal()).sum())
