"""From files of streamlines to the matrices of one parcellation, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.config import ConnectomeConfig
from difftract_bids.core.connectome.assignment import (
    assign_ends,
    assign_streamlines,
    visited_labels,
)
from difftract_bids.core.connectome.edges import EdgeSums
from difftract_bids.core.connectome.nodes import node_areas_mm2, node_volumes_mm3
from difftract_bids.core.connectome.scalings import (
    connection_density,
    inverse_lengths_per_mm,
    inverse_node_volumes,
)
from difftract_bids.errors import UsageError
from difftract_bids.io.aside import AsideFile, explained
from difftract_bids.io.images import Volume
from difftract_bids.io.streaming import Sampler
from difftract_bids.io.streamline_batches import StreamlineBatch, StreamlineFiles

#: Labels of both ends, or all labels of each streamline and where those of each begin.
_Labels = Int[Tensor, "n 2"] | tuple[Int[Tensor, " m"], Int[Tensor, " n+1"]]
_Matrix = Float[np.ndarray, "node node"]


@dataclass(frozen=True)
class Connectomes:
    """Matrices of one parcellation.

    Attributes
    ----------
    matrices
        By measure, in the order asked for; symmetric unless the settings want a triangle.
    streamlines
        Streamlines of each pair of nodes, without weights and with the diagonal.
    assigned, total
        Streamlines that connect two nodes (or one with itself), of how many.
    """

    matrices: dict[str, _Matrix]
    streamlines: _Matrix
    assigned: int
    total: int


def build_connectomes(
    files: StreamlineFiles,
    parcellation: Volume,
    node_labels: Sequence[int],
    config: ConnectomeConfig,
    *,
    samplers: Mapping[str, Sampler] | None = None,
    weights: Float[np.ndarray, " n"] | None = None,
    sift2_weights: Float[np.ndarray, " n"] | None = None,
    assignments: Path | None = None,
) -> Connectomes:
    """Sum up streamlines by the nodes that they connect.

    Parameters
    ----------
    files
        The streamlines.
    parcellation
        Labels, in integers, on any grid in the same space: assignment is in millimetres.
    node_labels
        The label of each row and column; every one keeps its row, also where it is empty.
    config
        How streamlines are assigned, and what is made of them.
    samplers
        Images to average along streamlines, by their names; a measure ``mean<name>`` each.
    weights
        One for each streamline, for all measures but ``sift2``.
    sift2_weights
        The same, for ``sift2``.
    assignments
        Table to write of the nodes of each streamline.

    Raises
    ------
    UsageError
        If a measure needs what is not given.
    InputError
        If a file cannot be read.
    """
    samplers = samplers or {}
    measures = list(config.connectome_measures)
    measures += [f"mean{name}" for name in samplers if f"mean{name}" not in measures]
    known = {*samplers, *files.sampled}
    _check(measures, known, sift2_weights)
    sums = _Sums(measures, torch.tensor(node_labels), parcellation)
    assign = _assignment(parcellation, config)
    done = 0
    with _assignment_table(assignments, config) as write:
        for batch in files.batches(samplers, with_paths=config.follows_paths):
            labels = assign(batch)
            span = slice(done, done + len(batch.lengths_mm))
            done = span.stop
            sums.add(labels, batch, _part(weights, span), _part(sift2_weights, span))
            write(labels)
    matrices = {}
    for measure in measures:
        matrix = sums.matrix(measure)
        if config.zero_diagonal:
            np.fill_diagonal(matrix, 0.0)
        matrices[measure] = np.triu(matrix) if config.upper_triangle else matrix
    counted = sums.counted
    return Connectomes(matrices, counted.count.numpy(), counted.assigned, counted.total)


def _check(
    measures: list[str], known: set[str], sift2_weights: Float[np.ndarray, " n"] | None
) -> None:
    lacking = [
        measure
        for measure in measures
        if measure.startswith("mean")
        and measure != "meanlength"
        and measure.removeprefix("mean") not in known
    ]
    lacking += ["sift2"] if "sift2" in measures and sift2_weights is None else []
    if lacking:
        raise UsageError(
            f"There is nothing to make {' and '.join(lacking)} from.",
            where="connectome_measures",
            remedy="Give the image for a mean along streamlines, and the SIFT2 weights for sift2; "
            "or leave the measure out.",
        )


class _Sums:
    """Sums over edges, one for each of what is summed: several measures may share one."""

    def __init__(
        self, measures: list[str], node_labels: Int[Tensor, " node"], parcellation: Volume
    ) -> None:
        kinds = dict.fromkeys(["count", *(_SUMMED.get(name, name) for name in measures)])
        self._sums = {
            kind: EdgeSums(node_labels, "mean" if kind.startswith("mean") else "sum")
            for kind in kinds
        }
        labels, vox2ras = map(torch.from_numpy, parcellation)
        self._nodes = labels, vox2ras, node_labels
        self._volumes_mm3 = node_volumes_mm3(*self._nodes)

    def add(
        self,
        labels: _Labels,
        batch: StreamlineBatch,
        weights: Float[Tensor, " n"] | None,
        sift2_weights: Float[Tensor, " n"] | None,
    ) -> None:
        lengths = torch.from_numpy(batch.lengths_mm.astype(np.float64))
        for kind, sums in self._sums.items():
            if kind == "count":
                sums.add(labels, None, weights)
            elif kind == "sift2":
                sums.add(labels, None, sift2_weights)
            elif kind == "meanlength":
                sums.add(labels, lengths, weights)
            elif kind == "invlength":
                sums.add(labels, inverse_lengths_per_mm(lengths), weights)
            elif kind == "invnodevol":
                scale = inverse_node_volumes(labels, self._nodes[2], self._volumes_mm3)
                sums.add(labels, scale, weights)
            else:
                values = batch.samples[kind.removeprefix("mean")].astype(np.float64)
                sums.add(labels, *_known(torch.from_numpy(values), weights))

    @property
    def counted(self) -> EdgeSums:
        """Counts."""
        return self._sums["count"]

    def matrix(self, measure: str) -> _Matrix:
        """Give the matrix of a measure."""
        matrix = self._sums[_SUMMED.get(measure, measure)].matrix()
        if measure == "density":
            matrix = connection_density(matrix, node_areas_mm2(*self._nodes))
        return matrix.numpy()


def _known(
    values: Float[Tensor, " n"], weights: Float[Tensor, " n"] | None
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"] | None]:
    """Give streamlines that an image has no number for no weight in its mean."""
    unknown = torch.isnan(values)
    if not bool(unknown.any()):
        return values, weights
    weights = torch.ones_like(values) if weights is None else weights
    return values.nan_to_num(0.0), torch.where(unknown, 0.0, weights)


#: What is summed for a measure, where it is not the measure itself.
_SUMMED = {"density": "invlength"}


def _assignment(
    parcellation: Volume, config: ConnectomeConfig
) -> Callable[[StreamlineBatch], _Labels]:
    labels = torch.from_numpy(parcellation.data)
    vox2ras = torch.from_numpy(parcellation.vox2ras)
    mode = config.assignment

    def assign(batch: StreamlineBatch) -> _Labels:
        if mode == "radial_search":
            ends_mm = torch.from_numpy(np.ascontiguousarray(batch.ends_mm))
            return assign_ends(ends_mm, labels, vox2ras, config.assignment_radius_mm)
        points_mm, offsets = _points(batch)
        if mode == "all_voxels":
            return visited_labels(points_mm, offsets, labels, vox2ras)
        return assign_streamlines(
            points_mm, offsets, labels, vox2ras, mode, config.assignment_distance_mm
        )

    return assign


def _points(batch: StreamlineBatch) -> tuple[Float[Tensor, "p 3"], Int[Tensor, " n+1"]]:
    """Take the streamlines, or their ends as streamlines of two vertices."""
    if batch.paths is not None:
        return torch.from_numpy(batch.paths.points), torch.from_numpy(batch.paths.offsets)
    points = np.ascontiguousarray(batch.ends_mm.reshape(-1, 3))
    return torch.from_numpy(points), torch.arange(0, len(points) + 1, 2)


def _part(weights: Float[np.ndarray, " n"] | None, span: slice) -> Float[Tensor, " m"] | None:
    return None if weights is None else torch.from_numpy(weights[span])


@contextmanager
def _assignment_table(
    path: Path | None, config: ConnectomeConfig
) -> Iterator[Callable[[_Labels], None]]:
    """Write the nodes of streamlines as they come, into a table that has its name once whole."""
    if path is None:
        yield lambda _: None
        return
    with explained(path):
        aside = AsideFile(path)
    try:
        heading = "nodes" if config.assignment == "all_voxels" else "first\tlast"
        aside.stream.write(f"{heading}\n".encode())

        def write(labels: _Labels) -> None:
            with explained(path):
                aside.stream.write(_as_text(labels).encode())

        yield write
        with explained(path):
            aside.commit()
    finally:
        aside.discard()


def _as_text(labels: _Labels) -> str:
    if isinstance(labels, Tensor):
        return "".join(f"{first}\t{last}\n" for first, last in labels.tolist())
    flat, offsets = labels[0].tolist(), labels[1].tolist()
    rows = (flat[start:stop] for start, stop in pairwise(offsets))
    return "".join(f"{' '.join(map(str, row)) or 'n/a'}\n" for row in rows)
