"""Tractogram files: TRX and TCK, in RAS+ millimetres of the scanner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from jaxtyping import Float, Int
from nibabel.streamlines import ArraySequence, Tractogram
from nibabel.streamlines.tractogram_file import DataError, HeaderError
from trx.trx_file_memmap import TrxFile
from trx.trx_file_memmap import load as load_trx
from trx.trx_file_memmap import save as save_trx

from difftract_bids.errors import InputError


class StreamlineArrays(NamedTuple):
    """Streamlines as two arrays: streamline i is ``points[offsets[i]:offsets[i + 1]]``.

    Attributes
    ----------
    points
        Vertices, RAS+ millimetres, all streamlines one after the other.
    offsets
        Where each streamline starts, and the number of vertices at the end.
    """

    points: Float[np.ndarray, "p 3"]
    offsets: Int[np.ndarray, " n+1"]

    @property
    def n_streamlines(self) -> int:
        """Number of streamlines."""
        return len(self.offsets) - 1

    def lengths_mm(self) -> Float[np.ndarray, " n"]:
        """Arc length of each streamline, millimetres."""
        steps = np.linalg.norm(np.diff(self.points.astype(np.float64), axis=0), axis=1)
        travelled = np.concatenate([[0.0], np.cumsum(steps)])
        first, last = self.offsets[:-1], np.maximum(self.offsets[1:] - 1, self.offsets[:-1])
        return travelled[last] - travelled[first] if len(first) else np.zeros(0)

    def ends(self) -> Float[np.ndarray, "n 2 3"]:
        """First and last vertex of each streamline, RAS+ millimetres."""
        return np.stack([self.points[self.offsets[:-1]], self.points[self.offsets[1:] - 1]], 1)


def write_tractogram(
    streamlines: StreamlineArrays,
    path: str | os.PathLike[str],
    *,
    vox2ras: Float[np.ndarray, "4 4"],
    shape: tuple[int, int, int],
) -> Path:
    """Write streamlines to a TRX or TCK file, by the extension of ``path``.

    Parameters
    ----------
    streamlines
        Vertices in RAS+ millimetres.
    path
        File to write, ending in ``.trx`` or ``.tck``.
    vox2ras, shape
        Grid of the image they were tracked in (kept in a TRX header).

    Returns
    -------
    Path
        The absolute path written.
    """
    target = Path(path).absolute()
    if target.suffix == ".trx":
        _write_trx(streamlines, target, vox2ras, shape)
    elif target.suffix == ".tck":
        tractogram = Tractogram(_as_sequence(streamlines), affine_to_rasmm=np.eye(4))
        nib.streamlines.TckFile(tractogram).save(str(target))
    else:
        raise InputError(
            f"{target.suffix or 'No extension'} is not a tractogram format that can be written.",
            where=target,
            remedy="Use .trx or .tck.",
        )
    return target


def read_tractogram(path: str | os.PathLike[str]) -> StreamlineArrays:
    """Read a TRX, TCK or TRK file.

    Raises
    ------
    InputError
        If it is missing, truncated or of another format.
    """
    source = Path(path)
    try:
        if source.suffix == ".trx":
            handle = load_trx(str(source))
            arrays = _from_sequence(handle.streamlines)
            handle.close()
            return arrays
        return _from_sequence(nib.streamlines.load(str(source)).streamlines)
    except (OSError, ValueError, KeyError, EOFError, HeaderError, DataError) as error:
        raise InputError(
            f"The tractogram cannot be read: {error}.",
            where=source,
            remedy="Give a complete .trx, .tck or .trk file.",
        ) from error


def _write_trx(
    streamlines: StreamlineArrays,
    target: Path,
    vox2ras: Float[np.ndarray, "4 4"],
    shape: tuple[int, int, int],
) -> None:
    reference = nib.Nifti1Image(np.zeros(shape, np.uint8), vox2ras)
    if streamlines.n_streamlines:
        trx = TrxFile(len(streamlines.points), streamlines.n_streamlines, reference=reference)
        # Left to itself it keeps positions in float16, which is off by up to 0.03 mm in a head.
        trx.streamlines = _as_sequence(streamlines)
        trx.streamlines._offsets = trx.streamlines._offsets.astype(np.uint32)
    else:
        trx = TrxFile(reference=reference)
    trx.header["VOXEL_TO_RASMM"] = np.asarray(vox2ras, dtype=float).tolist()
    trx.header["DIMENSIONS"] = [int(n) for n in shape]
    save_trx(trx, str(target))
    trx.close()


def _as_sequence(streamlines: StreamlineArrays) -> ArraySequence:
    sequence = ArraySequence()
    sequence._data = np.asarray(streamlines.points, dtype=np.float32)
    sequence._offsets = np.asarray(streamlines.offsets[:-1], dtype=np.int64)
    sequence._lengths = np.diff(streamlines.offsets).astype(np.int64)
    return sequence


def _from_sequence(sequence: ArraySequence) -> StreamlineArrays:
    points = np.array(sequence.get_data(), dtype=np.float32).reshape(-1, 3)
    lengths = np.asarray(sequence._lengths, dtype=np.int64)
    return StreamlineArrays(points, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
