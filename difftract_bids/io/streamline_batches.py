"""What a connectome needs of streamlines, batch after batch, from whichever files there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from difftract_bids.core.connectome.sampling import subdivide
from difftract_bids.errors import InputError, UsageError
from difftract_bids.io.streaming import Sampler
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.summaries import (
    StreamlineSummary,
    count_summary,
    iter_summary,
    join_summaries,
)
from difftract_bids.io.tractogram_reader import count_streamlines, iter_tractogram


class StreamlineBatch(NamedTuple):
    """Some streamlines.

    Attributes
    ----------
    ends_mm
        First and last vertex, RAS+ millimetres.
    lengths_mm
        Arc length, millimetres.
    samples
        What images hold along each, by their names.
    paths
        The streamlines, if a tractogram was read.
    """

    ends_mm: Float[np.ndarray, "n 2 3"]
    lengths_mm: Float[np.ndarray, " n"]
    samples: Mapping[str, Float[np.ndarray, " n"]]
    paths: StreamlineArrays | None = None


class StreamlineFiles:
    """A summary, a tractogram, or both of the same streamlines in the same order.

    Lengths and samples are the summary's, where it has them: it was written before the tractogram
    was thinned. For the same reason long segments of a tractogram are divided before anything
    is looked up along them.

    Parameters
    ----------
    summary
        Parquet file that tracking wrote.
    tractogram
        TRX, TCK or TRK file.
    max_step_mm
        Longer segments are divided, millimetres.

    Raises
    ------
    UsageError
        If there is neither.
    InputError
        If a file cannot be read, or they are of different numbers.
    """

    def __init__(
        self, summary: Path | None, tractogram: Path | None, *, max_step_mm: float
    ) -> None:
        self.summary, self.tractogram = summary, tractogram
        self._max_step_mm = max_step_mm
        self.sampled: tuple[str, ...] = ()
        if summary is not None:
            self.n_streamlines, self.sampled = count_summary(summary)
        elif tractogram is not None:
            self.n_streamlines = count_streamlines(tractogram)
        else:
            raise UsageError(
                "There is neither a summary nor a tractogram to build a connectome from.",
                where="summary, tractogram",
                remedy="Give the summary that TrackStreamlines wrote, or a tractogram file.",
            )
        if summary is not None and tractogram is not None:
            self._refuse_strangers(summary, tractogram)

    def batches(
        self, samplers: Mapping[str, Sampler], *, with_paths: bool
    ) -> Iterator[StreamlineBatch]:
        """Read the streamlines; the tractogram only where the summary does not suffice.

        Parameters
        ----------
        samplers
            What images hold along streamlines, by their names; not used for those that the
            summary has.
        with_paths
            Whether whole streamlines are needed.

        Raises
        ------
        InputError
            If a file cannot be read, or a tractogram is needed and was not given.
        """
        lacking = [name for name in samplers if name not in self.sampled]
        if self.summary is not None and not lacking and not with_paths:
            for rows in iter_summary(self.summary):
                yield StreamlineBatch(rows.ends_mm, rows.lengths_mm, rows.samples)
            return
        if self.tractogram is None:
            what = f"what {' and '.join(lacking)} is along them" if lacking else "their way"
            raise InputError(
                f"The ends of the streamlines do not say {what}.",
                where=self.summary,
                remedy="Give the tractogram as well.",
            )
        rows_of = _Rows(self.summary) if self.summary is not None else None
        for arrays in iter_tractogram(self.tractogram):
            fine = self._divided(arrays)
            taken = {name: samplers[name](fine) for name in lacking}
            if rows_of is None:
                yield StreamlineBatch(arrays.ends(), arrays.lengths_mm(), taken, fine)
                continue
            rows = rows_of.take(arrays.n_streamlines)
            yield StreamlineBatch(rows.ends_mm, rows.lengths_mm, {**rows.samples, **taken}, fine)

    def _divided(self, arrays: StreamlineArrays) -> StreamlineArrays:
        points, offsets = subdivide(
            torch.from_numpy(np.ascontiguousarray(arrays.points)),
            torch.from_numpy(np.ascontiguousarray(arrays.offsets)),
            self._max_step_mm,
        )
        return StreamlineArrays(points.numpy(), offsets.numpy())

    def _refuse_strangers(self, summary: Path, tractogram: Path) -> None:
        n_paths = count_streamlines(tractogram)
        if n_paths != self.n_streamlines:
            raise InputError(
                f"The tractogram has {n_paths:,} streamlines, and its summary "
                f"{self.n_streamlines:,}.",
                where=f"{tractogram}, {summary}",
                remedy="Give those that one run of tracking wrote, or the tractogram alone.",
            )


class _Rows:
    """Rows of a summary, as many at a time as are asked for."""

    def __init__(self, summary: Path) -> None:
        self._batches = iter_summary(summary)
        self._left: list[StreamlineSummary] = []

    def take(self, n: int) -> StreamlineSummary:
        while sum(len(part.seed_index) for part in self._left) < n:
            self._left.append(next(self._batches))
        rows = join_summaries(self._left)
        self._left = [_some(rows, slice(n, None))]
        return _some(rows, slice(0, n))


def _some(rows: StreamlineSummary, which: slice) -> StreamlineSummary:
    samples = {name: values[which] for name, values in rows.samples.items()}
    return StreamlineSummary(
        rows.seed_index[which], rows.ends_mm[which], rows.lengths_mm[which], samples
    )
