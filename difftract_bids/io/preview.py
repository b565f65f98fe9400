"""A few streamlines out of many, spread evenly, without knowing how many will come."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.thinning import thin


class Preview:
    """Every n-th streamline, where n doubles whenever there are too many.

    Between half of ``limit`` and ``limit`` streamlines are kept, or all if there are no more.

    Parameters
    ----------
    limit
        Streamlines to keep at most.
    tolerance_mm
        See :func:`~difftract_bids.io.thinning.thin`.
    """

    def __init__(self, limit: int = 5_000, tolerance_mm: float = 0.1) -> None:
        self._limit = limit
        self._tolerance_mm = tolerance_mm
        self._stride = 1
        self._seen = 0
        self._kept: list[Float[np.ndarray, "p 3"]] = []

    def append(self, streamlines: StreamlineArrays) -> None:
        """Look at the next streamlines, and keep copies of some."""
        number = -self._seen % self._stride
        while number < streamlines.n_streamlines:
            first, last = streamlines.offsets[number : number + 2]
            one = StreamlineArrays(streamlines.points[first:last], np.array([0, last - first]))
            self._kept.append(np.array(thin(one, self._tolerance_mm).points))
            if len(self._kept) > self._limit:
                self._kept = self._kept[::2]
                self._stride *= 2
            number += 1 + -(self._seen + number + 1) % self._stride
        self._seen += streamlines.n_streamlines

    def arrays(self) -> StreamlineArrays:
        """Give what was kept, in order."""
        points = np.concatenate([np.zeros((0, 3), dtype=np.float32), *self._kept])
        counts = np.array([0, *map(len, self._kept)], dtype=np.int64)
        return StreamlineArrays(points, np.cumsum(counts))
