"""Tractogram files read and written whole, in RAS+ millimetres of the scanner."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from zipfile import BadZipFile

import nibabel as nib
import numpy as np
from jaxtyping import Float
from nibabel.streamlines import ArraySequence
from nibabel.streamlines.tractogram_file import DataError, HeaderError
from trx.trx_file_memmap import load as load_trx

from difftract_bids.errors import InputError
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.tractogram_writer import TractogramWriter

__all__ = ["StreamlineArrays", "read_tractogram", "write_tractogram"]

#: What the readers raise on files that are truncated or of another format.
_UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, EOFError, struct.error),
    *(BadZipFile, HeaderError, DataError),
)


def write_tractogram(
    streamlines: StreamlineArrays,
    path: str | os.PathLike[str],
    *,
    vox2ras: Float[np.ndarray, "4 4"],
    shape: tuple[int, int, int],
) -> Path:
    """Write streamlines to a TRX, TCK or TRK file, by the extension of ``path``.

    Parameters
    ----------
    streamlines
        Vertices in RAS+ millimetres.
    path
        File to write, ending in ``.trx``, ``.tck`` or ``.trk``.
    vox2ras, shape
        Grid of the image they were tracked in (kept by TRX and TRK headers).

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    InputError
        If the extension is another one.
    DifftractError
        If the file cannot be written.
    """
    with TractogramWriter(path, vox2ras=vox2ras, shape=shape) as writer:
        writer.append(streamlines)
    return writer.path


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
    except _UNREADABLE as error:
        raise InputError(
            f"The tractogram cannot be read: {error}.",
            where=source,
            remedy="Give a complete .trx, .tck or .trk file.",
        ) from error


def _from_sequence(sequence: ArraySequence) -> StreamlineArrays:
    points = np.array(sequence.get_data(), dtype=np.float32).reshape(-1, 3)
    lengths = np.asarray(sequence._lengths, dtype=np.int64)
    return StreamlineArrays(points, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
