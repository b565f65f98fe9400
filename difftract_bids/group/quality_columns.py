"""The quality measures of a run: what each is, its unit, and which side of it is a fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fault = Literal["high", "low", "either", "none"]


@dataclass(frozen=True)
class QualityColumn:
    """One measure.

    Attributes
    ----------
    name
        Name of the column; of a measure of connectomes, ``_<atlas>`` follows.
    title
        A few words, for figures.
    description
        What it is, and from which file.
    units
        Unit; empty for a share or number without one.
    fault
        On which side of the others a value is flagged.
    good
        What good looks like.
    """

    name: str
    title: str
    description: str
    units: str
    fault: Fault
    good: str


#: Of a run, whatever the atlas.
RUN_COLUMNS = (
    QualityColumn(
        "checks_bad",
        "Checks that found something wrong",
        "Checks of the run with the light bad, from the table of checks",
        "",
        "high",
        "0: the report of the run says what each of them found.",
    ),
    QualityColumn(
        "checks_look",
        "Checks that want a look",
        "Checks of the run with the light look, from the table of checks",
        "",
        "high",
        "0, or few: the report of the run says what each of them found.",
    ),
    QualityColumn(
        "fd_mean",
        "Mean framewise displacement",
        "Mean framewise displacement between volumes, from the table of confounds",
        "mm",
        "high",
        "Small: below 0.5 mm the head was held still.",
    ),
    QualityColumn(
        "fd_max",
        "Largest framewise displacement",
        "Largest framewise displacement between two volumes, from the table of confounds",
        "mm",
        "high",
        "Small: one jump of several millimetres spoils the volumes beside it.",
    ),
    QualityColumn(
        "outlier_share",
        "Share of outlier slices",
        "Slices whose signal fell out, of all slices of all volumes, from the table of outliers",
        "",
        "high",
        "Close to 0: above a few per cent, directions are missing from the model.",
    ),
    QualityColumn(
        "volumes",
        "Volumes",
        "Volumes of the run, from the table of confounds",
        "",
        "either",
        "The same in all runs: fewer volumes are an interrupted scan.",
    ),
    QualityColumn(
        "mask_volume_mm3",
        "Volume of the brain mask",
        "Volume of the voxels of the brain mask",
        "mm^3",
        "either",
        "One cloud: a mask that leaks into the neck or misses lobes stands apart.",
    ),
    QualityColumn(
        "fa_mean",
        "Mean FA",
        "Mean fractional anisotropy in the brain mask",
        "",
        "either",
        "One cloud: noise raises it, motion and wrong gradients lower it.",
    ),
    QualityColumn(
        "sigma_median",
        "Noise",
        "Median over the brain mask of the noise's standard deviation before denoising",
        "arbitrary",
        "either",
        "One cloud for each scanner: units are arbitrary.",
    ),
    QualityColumn(
        "seeds",
        "Seeds",
        "Seeds tried, from the sidecar of the tractogram",
        "",
        "either",
        "The same in all runs, or one cloud where a number of streamlines was asked for.",
    ),
    QualityColumn(
        "streamlines",
        "Streamlines",
        "Streamlines kept, from the sidecar of the tractogram",
        "",
        "either",
        "One cloud, or the same in all runs where a number was asked for.",
    ),
    QualityColumn(
        "kept_share",
        "Streamlines per seed",
        "Streamlines over seeds, from the sidecar of the tractogram",
        "",
        "either",
        "One cloud: few streamlines per seed are short fODF peaks or a small mask.",
    ),
)
#: Of a run's connectome; their names end in that of the atlas.
ATLAS_COLUMNS = (
    QualityColumn(
        "assigned_share",
        "Share of streamlines assigned",
        "Streamlines that connect two nodes (or one with itself), of all streamlines; n/a where "
        "the counts are weighted, or streamlines are assigned to all nodes that they visit",
        "",
        "low",
        "High: a low share is a parcellation that does not lie on this brain.",
    ),
    QualityColumn(
        "length_mean_mm",
        "Mean streamline length",
        "Mean length of the streamlines that connect two nodes, from the matrices of counts and "
        "mean lengths",
        "mm",
        "either",
        "One cloud: short streamlines are broken ones.",
    ),
    QualityColumn(
        "density",
        "Density",
        "Pairs of different nodes with a streamline or more, of all pairs",
        "",
        "either",
        "One cloud: density grows with the number of streamlines.",
    ),
    QualityColumn(
        "empty_nodes",
        "Nodes without streamlines",
        "Nodes that no streamline ends in",
        "",
        "high",
        "0, or few: many are a parcellation or a mask that misses part of the brain.",
    ),
    QualityColumn(
        "similarity",
        "Similarity with the others",
        "Correlation of log(1 + count) over pairs of different nodes with its mean over the other "
        "participants",
        "",
        "low",
        "High: a connectome unlike all others is the first to look at.",
    ),
)


def quality_columns(atlases: list[str]) -> list[tuple[str, QualityColumn, str]]:
    """List the columns of measures: name, what it is, and its atlas (or nothing)."""
    of_runs = [(column.name, column, "") for column in RUN_COLUMNS]
    return of_runs + [
        (f"{column.name}_{atlas}", column, atlas) for atlas in atlases for column in ATLAS_COLUMNS
    ]
