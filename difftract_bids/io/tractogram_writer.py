"""Tractogram files of any size, written as streamlines come."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import DifftractError, InputError
from difftract_bids.io.aside import AsideFile, explained
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.thinning import thin
from difftract_bids.io.tractogram_formats import BODIES, ImageGrid, TractogramBody

#: Vertices that are formatted at a time: it bounds memory, whatever is appended at once.
_BLOCK_POINTS = 1 << 19


class TractogramWriter:
    """Write a TRX, TCK or TRK file a chunk of streamlines at a time, in bounded memory.

    A context manager. The file has its name only once it is whole; an exception in the block
    leaves what had that name before, and no other file.

    Parameters
    ----------
    path
        File to write, ending in ``.trx``, ``.tck`` or ``.trk``; its folder is made if need be.
    vox2ras, shape
        Grid of the image that was tracked in (kept by TRX and TRK headers).
    tolerance_mm
        Leave out vertices within this distance of the polyline through the others, see
        :func:`~difftract_bids.io.thinning.thin`; none or 0 writes every vertex.

    Raises
    ------
    InputError
        If the extension is not one of these.
    DifftractError
        On entering, appending or leaving, if the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        vox2ras: Float[np.ndarray, "4 4"],
        shape: tuple[int, int, int],
        tolerance_mm: float | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        if self.path.suffix not in BODIES:
            raise InputError(
                f"{self.path.suffix or 'No extension'} is not a tractogram format that can be "
                "written.",
                where=self.path,
                remedy="Use .trx, .tck or .trk.",
            )
        self._grid = ImageGrid(np.asarray(vox2ras, dtype=np.float64), shape)
        self._tolerance_mm = tolerance_mm
        self._n_streamlines = self._n_points = 0
        self._aside: AsideFile | None = None
        self._body: TractogramBody | None = None

    @property
    def n_streamlines(self) -> int:
        """Number of streamlines written so far."""
        return self._n_streamlines

    @property
    def n_points(self) -> int:
        """Number of vertices written so far, after thinning."""
        return self._n_points

    def __enter__(self) -> Self:
        try:
            with explained(self.path):
                self._aside = AsideFile(self.path)
                make = BODIES[self.path.suffix]
                self._body = make(self._aside.stream, self.path.parent, self._grid)
        except BaseException:
            self._discard()
            raise
        return self

    def append(self, streamlines: StreamlineArrays) -> None:
        """Write streamlines after those already there.

        Parameters
        ----------
        streamlines
            Vertices in RAS+ millimetres, finite; stored as float32.

        Raises
        ------
        ValueError
            If offsets and vertices do not fit, a streamline is empty or a vertex not finite.
        DifftractError
            If the disk is full or the like; the file is given up.
        """
        streamlines.check()
        body = self._open_body()
        try:
            with explained(self.path):
                for part in streamlines.blocks(_BLOCK_POINTS):
                    block = thin(part, self._tolerance_mm)
                    body.append(block)
                    self._n_streamlines += block.n_streamlines
                    self._n_points += len(block.points)
        except BaseException:
            self._discard()  # half a block may be there
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                body = self._open_body()
                with explained(self.path):
                    body.finish()
                    self._commit()
        finally:
            self._discard()

    def _open_body(self) -> TractogramBody:
        if self._body is None:
            raise DifftractError(
                "The tractogram is not open: it was not entered, or was given up when writing "
                "failed.",
                where=self.path,
                remedy="Append within the 'with' block, and let its errors end the block.",
            )
        return self._body

    def _commit(self) -> None:
        if self._aside is not None:
            self._aside.commit()

    def _discard(self) -> None:
        if self._body is not None:
            self._body.discard()
        if self._aside is not None:
            self._aside.discard()
        self._body = self._aside = None
