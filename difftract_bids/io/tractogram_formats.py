"""The bytes of TRX, TCK and TRK files, written a block of streamlines at a time."""

from __future__ import annotations

import json
import tempfile
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from nibabel.streamlines import Field, Tractogram, TrkFile
from nibabel.streamlines.trk import get_affine_trackvis_to_rasmm, header_2_dtype
from numpy.typing import NDArray

from difftract_bids.io.streamline_arrays import StreamlineArrays


class ImageGrid(NamedTuple):
    """Grid of the image that was tracked in: ``vox2ras`` (4, 4), voxels to RAS+ mm, and shape."""

    vox2ras: Float[np.ndarray, "4 4"]
    shape: tuple[int, int, int]


class TractogramBody(Protocol):
    """What a format does with blocks of streamlines."""

    def append(self, block: StreamlineArrays) -> None:
        """Write a block: RAS+ millimetres, at least one vertex in each streamline."""

    def finish(self) -> None:
        """Write what is known only at the end."""

    def discard(self) -> None:
        """Let go of everything but the stream; harmless after ``finish``."""


class TrxBody:
    """TRX: a stored ZIP of positions, offsets and a JSON header (github.com/tee-ar-ex/trx-spec).

    trx-python allocates its arrays at their final size, which is unknown here; so positions go
    straight into the archive, and offsets, which are far fewer, wait in a nameless file.
    """

    def __init__(self, stream: BinaryIO, folder: Path, grid: ImageGrid) -> None:
        self._grid = grid
        self._n_streamlines = self._n_points = 0
        self._offsets = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._zip = zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED)
        self._positions = self._zip.open(_member("positions.3.float32"), "w", force_zip64=True)

    def append(self, block: StreamlineArrays) -> None:
        """Write positions, and set the ends of the streamlines aside."""
        self._positions.write(_bytes(block.points.astype("<f4", copy=False)))
        ends = block.offsets[1:].astype("<u8") + np.uint64(self._n_points)
        self._offsets.write(_bytes(ends))
        self._n_streamlines += block.n_streamlines
        self._n_points += len(block.points)

    def finish(self) -> None:
        """Write offsets and header."""
        self._positions.close()
        wide = self._n_points >= 1 << 32
        name, dtype = ("offsets.uint64", "<u8") if wide else ("offsets.uint32", "<u4")
        with self._zip.open(_member(name), "w", force_zip64=True) as member:
            member.write(bytes(np.dtype(dtype).itemsize))
            self._offsets.seek(0)
            while ends := self._offsets.read(1 << 22):
                member.write(_bytes(np.frombuffer(ends, "<u8").astype(dtype)))
        header = {
            "DIMENSIONS": [int(n) for n in self._grid.shape],
            "VOXEL_TO_RASMM": np.asarray(self._grid.vox2ras, dtype=float).tolist(),
            "NB_VERTICES": self._n_points,
            "NB_STREAMLINES": self._n_streamlines,
        }
        self._zip.writestr(_member("header.json"), json.dumps(header))
        self._zip.close()
        self._offsets.close()

    def discard(self) -> None:
        """Close the archive, which would otherwise try to complete itself when forgotten."""
        for part in (self._positions, self._zip, self._offsets):
            with suppress(OSError, ValueError):
                part.close()


class TckBody:
    """TCK of MRtrix3: text header, then vertices, NaN after each streamline, Inf at the end.

    nibabel writes a streamline at a time: 17 times slower on 200,000 thinned streamlines.
    """

    def __init__(self, stream: BinaryIO, folder: Path, grid: ImageGrid) -> None:
        del folder, grid
        self._stream = stream
        self._n_streamlines = 0
        self._stream.write(self._header())

    def append(self, block: StreamlineArrays) -> None:
        """Write vertices and delimiters."""
        n = block.n_streamlines
        rows = np.full((len(block.points) + n, 3), np.nan, dtype="<f4")
        rows[_all_but(len(rows), block.offsets[1:] + np.arange(n))] = block.points
        self._stream.write(_bytes(rows))
        self._n_streamlines += n

    def finish(self) -> None:
        """Write the end mark and, in the header, the count."""
        self._stream.write(_bytes(np.full(3, np.inf, dtype="<f4")))
        self._stream.seek(0)
        self._stream.write(self._header())

    def discard(self) -> None:
        """Nothing is held but the stream."""

    def _header(self) -> bytes:
        # Numbers have a fixed width, so that the header can be written again with the count in it.
        lines = ["mrtrix tracks", f"count: {self._n_streamlines:020d}", "datatype: Float32LE"]
        start = len("\n".join([*lines, "file: . 00000", "END", ""]))
        return "\n".join([*lines, f"file: . {start:05d}", "END", ""]).encode()


class TrkBody:
    """TRK of TrackVis: binary header, then for each streamline its vertex count and vertices.

    The header is nibabel's. Its writer of streamlines takes one at a time: 19 times slower on
    200,000 thinned streamlines.
    """

    def __init__(self, stream: BinaryIO, folder: Path, grid: ImageGrid) -> None:
        del folder
        header = {
            Field.VOXEL_TO_RASMM: np.asarray(grid.vox2ras, dtype=np.float32),
            Field.VOXEL_SIZES: voxel_sizes(grid.vox2ras).astype(np.float32),
            Field.DIMENSIONS: np.asarray(grid.shape, dtype=np.int16),
            Field.VOXEL_ORDER: "".join(aff2axcodes(grid.vox2ras)).encode(),
        }
        # Readers use the rounded numbers of the header, so the inverse is that of theirs.
        self._ras2trackvis = np.linalg.inv(get_affine_trackvis_to_rasmm(header).astype(np.float64))
        self._stream = stream
        self._n_streamlines = 0
        empty = BytesIO()
        TrkFile(Tractogram(affine_to_rasmm=np.eye(4)), header).save(empty)
        self._stream.write(empty.getvalue())

    def append(self, block: StreamlineArrays) -> None:
        """Write counts and vertices."""
        linear, shift = self._ras2trackvis[:3, :3], self._ras2trackvis[:3, 3]
        points = (block.points.astype(np.float64) @ linear.T + shift).astype("<f4")
        n = block.n_streamlines
        counts_at = 3 * block.offsets[:-1] + np.arange(n)
        words = np.empty(3 * len(points) + n, dtype="<i4")
        words[counts_at] = np.diff(block.offsets)
        words[_all_but(len(words), counts_at)] = points.view("<i4").ravel()
        self._stream.write(_bytes(words))
        self._n_streamlines += n

    def finish(self) -> None:
        """Write the count into the header."""
        self._stream.seek(header_2_dtype.fields[Field.NB_STREAMLINES][1])
        self._stream.write(np.array(self._n_streamlines, dtype="<i4").tobytes())

    def discard(self) -> None:
        """Nothing is held but the stream."""


#: Writers by the extension of the file.
BODIES: dict[str, type[TrxBody | TckBody | TrkBody]] = {
    ".trx": TrxBody,
    ".tck": TckBody,
    ".trk": TrkBody,
}


def _member(name: str) -> zipfile.ZipInfo:
    # With its fixed default date, the same streamlines make the same file.
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o644 << 16
    return info


def _all_but(n: int, at: NDArray[np.integer]) -> NDArray[np.bool_]:
    mask = np.ones(n, dtype=np.bool_)
    mask[at] = False
    return mask


def _bytes(array: NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(array).data.cast("B")
