"""Streamlines from the tracker to files as they come, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from difftract_bids.core.streamlines import SeedStatus, StopReason, Streamlines
from difftract_bids.io.preview import Preview
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.summaries import StreamlineSummary, SummaryWriter
from difftract_bids.io.tractogram_writer import TractogramWriter

#: From streamlines to a number for each, such as the mean of an image along the way.
Sampler = Callable[[StreamlineArrays], Float[np.ndarray, " n"]]


@dataclass
class Tally:
    """What became of seeds and streamlines.

    Attributes
    ----------
    seeds, streamlines
        Seeds tried, and streamlines kept.
    vertices, stored_vertices
        Vertices of the streamlines, and of the saved tractogram.
    seed_status, stop_reasons
        Seeds by what became of them, ends by their reason.
    """

    seeds: int = 0
    streamlines: int = 0
    vertices: int = 0
    stored_vertices: int = 0
    seed_status: Counter[SeedStatus] = field(default_factory=Counter)
    stop_reasons: Counter[StopReason] = field(default_factory=Counter)

    def add(self, streamlines: Streamlines) -> None:
        """Take note of the next streamlines."""
        self.seeds += len(streamlines.seed_status)
        self.streamlines += len(streamlines)
        self.vertices += len(streamlines.points)
        self.seed_status.update(streamlines.count_seeds())
        self.stop_reasons.update(streamlines.count_stops())

    def as_metadata(self) -> dict[str, object]:
        """Give the counts as they stand in a sidecar."""
        return {
            "Seeds": self.seeds,
            "Streamlines": self.streamlines,
            "Vertices": self.vertices,
            "StoredVertices": self.stored_vertices,
            "SeedStatus": {
                key.name.lower(): self.seed_status[key] for key in sorted(self.seed_status)
            },
            "StopReasons": {
                key.name.lower(): self.stop_reasons[key] for key in sorted(self.stop_reasons)
            },
        }


def stream_to_files(
    chunks: Iterable[Streamlines],
    *,
    tractogram: Path | None,
    summary: Path,
    preview: Path,
    vox2ras: Float[np.ndarray, "4 4"],
    shape: tuple[int, int, int],
    tolerance_mm: float,
    progress: Callable[[Tally], None],
    samplers: Mapping[str, Sampler] | None = None,
    in_background: bool = False,
) -> Tally:
    """Write streamlines as they come; each file has its name only once it is whole.

    Parameters
    ----------
    chunks
        What is tracked.
    tractogram
        File of the streamlines, thinned to ``tolerance_mm``; none is written if left out.
    summary
        Parquet file of seed, ends and length of each, before thinning.
    preview
        Tractogram file of at most 5,000 of them, for figures.
    vox2ras, shape
        Grid of the image they are tracked in.
    tolerance_mm
        See :func:`~difftract_bids.io.thinning.thin`.
    progress
        Called after each chunk.
    samplers
        What to write of each streamline into the summary besides, by name, before any thinning.
    in_background
        Write a chunk while the next one is tracked, by a thread of its own.

    Raises
    ------
    DifftractError
        If a file cannot be written, and whatever tracking raises: then there are no files.
    """
    tally, sample, samplers = Tally(), Preview(), samplers or {}
    with ExitStack() as files:
        rows = files.enter_context(SummaryWriter(summary, tuple(samplers)))
        body = None
        if tractogram is not None:
            body = files.enter_context(
                TractogramWriter(
                    tractogram, vox2ras=vox2ras, shape=shape, tolerance_mm=tolerance_mm
                )
            )

        def write(
            chunk: Streamlines,
            arrays: StreamlineArrays,
            samples: dict[str, Float[np.ndarray, " n"]],
        ) -> None:
            seeds = chunk.seed_index.cpu().numpy()
            rows.append(StreamlineSummary(seeds, arrays.ends(), arrays.lengths_mm(), samples))
            sample.append(arrays)
            if body is not None:
                body.append(arrays)
                tally.stored_vertices = body.n_points

        # Within the files: they are closed when nothing is left to write.
        do = files.enter_context(_one_behind(write)) if in_background else write
        for chunk in chunks:
            tally.add(chunk)
            arrays = StreamlineArrays(chunk.points.cpu().numpy(), chunk.offsets.cpu().numpy())
            # Not behind: samplers use the threads that tracking uses.
            do(chunk, arrays, {name: take(arrays) for name, take in samplers.items()})
            progress(tally)
    with TractogramWriter(preview, vox2ras=vox2ras, shape=shape) as small:
        small.append(sample.arrays())
    return tally


@contextmanager
def _one_behind(write: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """Let a thread write, and wait for it before the next chunk: two are in memory at most."""
    waiting: Future[None] | None = None

    def do(*arguments: object) -> None:
        nonlocal waiting
        if waiting is not None:
            waiting.result()
        waiting = writer.submit(write, *arguments)

    with ThreadPoolExecutor(max_workers=1) as writer:
        yield do
        if waiting is not None:
            waiting.result()
