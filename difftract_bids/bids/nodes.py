"""Nodes of an atlas: the table that names the labels of its image."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from difftract_bids.errors import AtlasError, InputError
from difftract_bids.io.images import Volume, load_volume

TABLE_REMEDY = "It needs a row per label, with the columns index (a whole number >= 1) and name."
_SIDE = re.compile(r"(?:^|[_\-. ])(?:(l|lh|left)|(r|rh|right))(?:[_\-. ]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class NodeTable:
    """The nodes of an atlas, in the order of its table: label value, name, hemisphere.

    Attributes
    ----------
    index
        Label values in the image; positive and distinct.
    name
        Distinct names.
    hemisphere
        ``left``, ``right`` or the empty string where neither table nor name says.
    """

    index: tuple[int, ...]
    name: tuple[str, ...]
    hemisphere: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.index)

    def names_of(self, labels: Iterable[int]) -> list[str]:
        """Names of some labels, in the table's order."""
        wanted = set(labels)
        return [name for i, name in zip(self.index, self.name, strict=True) if i in wanted]


def read_nodes(table: Path) -> NodeTable:
    """Read the node table (TSV) of an atlas; a row with index 0 is background and left out.

    Raises
    ------
    AtlasError
        If the file cannot be read, a column is missing, or an index or name is missing, repeated
        or not usable.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AtlasError(
            f"The atlas table cannot be read: {error}.", where=table, remedy=TABLE_REMEDY
        ) from error
    columns = list(rows[0]) if rows else []
    missing = [column for column in ("index", "name") if column not in columns]
    if missing:
        raise AtlasError(
            f"The atlas table has no column {' and no column '.join(missing)}.",
            where=table,
            remedy=TABLE_REMEDY,
        )
    try:
        indices = [int(row["index"]) for row in rows]
    except (TypeError, ValueError) as error:
        raise AtlasError(
            f"An index is no whole number: {error}.", where=table, remedy=TABLE_REMEDY
        ) from error
    kept = [(i, row) for i, row in zip(indices, rows, strict=True) if i != 0]
    names = [(row["name"] or "").strip() for _, row in kept]
    _require_distinct("index", [str(i) for i, _ in kept], table)
    _require_distinct("name", names, table)
    if not kept or min(i for i, _ in kept) < 0 or not all(names):
        raise AtlasError(
            "The atlas table has no row, a negative index or an empty name.",
            where=table,
            remedy=TABLE_REMEDY,
        )
    sides = [hemisphere_of(row["name"], row.get("hemisphere") or "") for _, row in kept]
    return NodeTable(tuple(i for i, _ in kept), tuple(names), tuple(sides))


def load_labels(image: Path) -> Volume:
    """Load a label image; labels may be stored as floats, if they are whole numbers.

    Returns
    -------
    Volume
        Labels in int32, 0 for none.

    Raises
    ------
    AtlasError
        If the image cannot be read, is not three-dimensional, or holds what is no label.
    """
    try:
        data, vox2ras = load_volume(image, ndim=3, dtype=np.float64)
    except InputError as error:
        raise AtlasError(error.what, where=image, remedy=error.remedy) from error
    # Written so that NaN is caught; what scaling in a header rounds off is not.
    wrong = ~(np.abs(data - np.rint(data)) <= 1e-3) | (np.abs(data) > np.iinfo(np.int32).max)
    if wrong.any():
        some = ", ".join(f"{value:g}" for value in np.unique(data[wrong])[:5])
        raise AtlasError(
            f"{int(wrong.sum()):,} voxels of the parcellation hold no label but a number that is "
            f"not whole, such as {some}.",
            where=image,
            remedy="Give labels, not probabilities or intensities; when bringing labels onto "
            "another grid, interpolate by nearest neighbour.",
        )
    return Volume(np.rint(data).astype(np.int32), vox2ras)


def check_image(image: Path, nodes: NodeTable) -> Volume:
    """Check that a label image holds labels, and only such as the table names.

    Returns
    -------
    Volume
        Its labels, see :func:`load_labels`.

    Raises
    ------
    AtlasError
        If it cannot be read, has no label, or labels that the table lacks.
    """
    volume = load_labels(image)
    if not volume.data.any():
        raise AtlasError(
            "The atlas image holds no label.", where=image, remedy="Give a label image (dseg)."
        )
    check_labels(volume, nodes, image)
    return volume


def check_labels(volume: Volume, nodes: NodeTable, image: Path) -> None:
    """Check that the table names every label of an image.

    Raises
    ------
    AtlasError
        If it does not; the first labels that it lacks are told.
    """
    labels = np.unique(volume.data)
    labels = labels[labels != 0]
    unnamed = sorted(set(labels.tolist()) - set(nodes.index))
    if unnamed:
        some = ", ".join(map(str, unnamed[:8])) + (", ..." if len(unnamed) > 8 else "")
        raise AtlasError(
            f"{len(unnamed)} of {labels.size} labels in the image have no row in the table: "
            f"{some}.",
            where=image,
            remedy="Add them to the table, or set them to 0 in the image.",
        )


def hemisphere_of(name: str, given: str = "") -> str:
    """Tell ``left``, ``right`` or nothing from what a table gives, else from the node's name.

    What comes first in a name is its side: the ``L`` of ``ctx_rh_G_L`` is none.
    """
    match = _SIDE.search(given) or _SIDE.search(name)
    return "" if match is None else "left" if match[1] else "right"


def _require_distinct(column: str, values: Sequence[str], table: Path) -> None:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise AtlasError(
            f"The atlas table repeats {len(repeated)} values of {column}: "
            f"{', '.join(repeated[:5])}.",
            where=table,
            remedy=TABLE_REMEDY,
        )


def has_label_within(parcellation: Path, image: Path) -> bool:
    """Say whether any labelled voxel's centre lies in an image's grid."""
    labels, target = nib.load(parcellation), nib.load(image)
    voxels = np.argwhere(np.asanyarray(labels.dataobj) > 0)
    there = apply_affine(np.linalg.inv(target.affine) @ labels.affine, voxels)
    inside = (there > -0.5) & (there < np.array(target.shape[:3]) - 0.5)
    return bool(inside.all(axis=1).any())
