"""MRtrix3's image format: ``.mif``, ``.mif.gz``, and ``.mih`` with its data in a second file.

Written from the format's documentation (MRtrix3, "Images and other data", "MRtrix image formats"):
a text header of ``key: value`` lines up to ``END``, then the values in an order that ``layout``
gives by the rank and sign of each axis.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike, NDArray

from difftract_bids.errors import InputError
from difftract_bids.io.images import Volume
from difftract_bids.io.lengths import check_length

_MAGIC = b"mrtrix image"
#: Longer headers are no headers.
_LONGEST_HEADER = 1 << 26
_CONVERT = "Check that it was copied completely, or convert it: mrconvert IMAGE IMAGE.nii.gz."


@dataclass(frozen=True)
class MifHeader:
    """What the header says, in the axes of the array that `load_mif` returns.

    These are the axes in the order of the file, as in the NIfTI image that ``mrconvert`` makes of
    it: the spatial ones by rank, each in the direction in which its values are stored.

    Attributes
    ----------
    shape
        Size along each axis.
    vox2ras
        Voxels to RAS+ millimetres.
    ranks
        Rank of each axis in the file: 0 is that along which neighbours are adjacent.
    reversed_axes
        Axes, other than spatial, along which values are stored from the last to the first.
    dtype
        Type of the values; ``None`` is one bit each.
    intercept, slope
        The image's values are ``intercept + slope * stored``.
    data_path, data_start
        File that holds the values, and where in it they start, bytes (after decompression).
    """

    shape: tuple[int, ...]
    vox2ras: Float[np.ndarray, "4 4"]
    ranks: tuple[int, ...]
    reversed_axes: tuple[int, ...]
    dtype: np.dtype[np.generic] | None
    intercept: float
    slope: float
    data_path: Path
    data_start: int

    @property
    def n_bytes(self) -> int:
        """Bytes that the values take in the file."""
        n_bits = math.prod(self.shape) * (8 * self.dtype.itemsize if self.dtype else 1)
        return -(-n_bits // 8)


def read_mif_header(path: str | os.PathLike[str]) -> MifHeader:
    """Read and check the header alone, and the length of the data.

    Raises
    ------
    InputError
        If the file is missing, truncated or not in MRtrix's format, or holds what is not supported
        (complex values, data in several files).
    """
    place = Path(path)
    try:
        with _open(place) as stream:
            fields, start = _read_fields(stream, place)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(f"The image cannot be read: {error}.", place) from error
    try:
        header = _parsed(fields, start, place)
    except (KeyError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise _unreadable(f"The header is not that of an MRtrix image: {what}.", place) from error
    check_length(header.data_path, header.data_start + header.n_bytes)
    return header


def load_mif(path: str | os.PathLike[str], *, dtype: DTypeLike = np.float32) -> Volume:
    """Load an image whole, in the axes that nibabel gives to the NIfTI image made of it.

    Parameters
    ----------
    path
        File named ``.mif``, ``.mif.gz`` or ``.mih``.
    dtype
        Type of the array returned.

    Raises
    ------
    InputError
        As `read_mif_header`.
    """
    header = read_mif_header(path)
    try:
        with _open(header.data_path) as stream:
            stream.seek(header.data_start)
            stored = bytearray(stream.read(header.n_bytes))  # unlike bytes, it can be written to
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(f"The image cannot be read: {error}.", path) from error
    data = _arranged(_values(stored, header), header)
    if (header.intercept, header.slope) != (0.0, 1.0):
        data = header.intercept + header.slope * data.astype(np.float64)
    return Volume(data.astype(dtype, copy=False), header.vox2ras)


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _read_fields(stream: BinaryIO, path: Path) -> tuple[dict[str, list[str]], int]:
    """Collect the values of each key, and find where the header ends."""
    if stream.readline(64).strip() != _MAGIC:
        raise _unreadable("The file does not begin with 'mrtrix image'.", path)
    fields: dict[str, list[str]] = {}
    while stream.tell() < _LONGEST_HEADER and (raw := stream.readline(_LONGEST_HEADER)):
        line = raw.decode("utf-8", errors="replace").strip()
        if line == "END":
            return fields, stream.tell()
        if not line or line.startswith("#"):
            continue
        key, colon, value = line.partition(":")
        if not colon:
            raise _unreadable(f"The header has a line without a key: {line[:60]!r}.", path)
        fields.setdefault(key.strip().lower(), []).append(value.strip())
    if path.suffix == ".mih" and fields:  # mrconvert writes no END where no data follow
        return fields, stream.tell()
    raise _unreadable("The header has no END: the file is truncated or damaged.", path)


def _parsed(fields: dict[str, list[str]], header_end: int, path: Path) -> MifHeader:
    """Bring everything into the order of the file.

    Raises
    ------
    KeyError, ValueError
        If a key is missing, or its value is of no use.
    """
    dims = [int(size) for size in _last(fields, "dim").split(",")]
    words = [word.strip() for word in _last(fields, "layout").split(",")]
    # The sign stands for itself: of -0 a number keeps none.
    ranks, backwards = [abs(int(w)) for w in words], [w.startswith("-") for w in words]
    if len(dims) < 3 or min(dims) < 1:
        raise ValueError(f"'dim' is {_last(fields, 'dim')}")
    if sorted(ranks) != list(range(len(dims))):
        raise ValueError(f"'layout' {','.join(words)} does not order {len(dims)} axes")
    spatial = sorted(range(3), key=ranks.__getitem__)
    axes = [*spatial, *range(3, len(dims))]
    intercept, slope = _numbers(fields["scaling"][-1], 2) if "scaling" in fields else (0.0, 1.0)
    data_path, data_start = _data_place(fields, header_end, path)
    return MifHeader(
        shape=tuple(dims[axis] for axis in axes),
        vox2ras=_storage_affine(_image_affine(fields, dims), dims, spatial, backwards),
        ranks=tuple(ranks[axis] for axis in axes),
        reversed_axes=tuple(axis for axis in axes[3:] if backwards[axis]),
        dtype=_dtype(_last(fields, "datatype")),
        intercept=intercept,
        slope=slope,
        data_path=data_path,
        data_start=data_start,
    )


def _last(fields: dict[str, list[str]], key: str) -> str:
    return fields[key][-1]


def _numbers(text: str, at_least: int) -> list[float]:
    numbers = [float(word) for word in text.split(",")]
    if len(numbers) < at_least:
        raise ValueError(f"{at_least} numbers are needed, there are {len(numbers)}: {text!r}")
    return numbers


def _dtype(name: str) -> np.dtype[np.generic] | None:
    if name.lower() == "bit":
        return None
    match = re.fullmatch(r"(u?int|float)(8|16|32|64)(le|be)?", name.lower())
    if match is None or match.group(1, 2) == ("float", "8"):
        raise ValueError(f"'datatype' {name} is not supported")
    kind, bits, order = match.groups()
    letter = {"int": "i", "uint": "u", "float": "f"}[kind]
    return np.dtype(f"{ {'le': '<', 'be': '>', None: '='}[order] }{letter}{int(bits) // 8}")


def _image_affine(fields: dict[str, list[str]], dims: list[int]) -> Float[np.ndarray, "4 4"]:
    """Voxels along the header's axes to millimetres; centred on the origin if nothing is said."""
    voxel_mm = np.array(_numbers(_last(fields, "vox"), 3)[:3])
    if not (np.isfinite(voxel_mm).all() and (voxel_mm > 0).all()):
        raise ValueError(f"'vox' is {_last(fields, 'vox')}")
    affine = np.diag([*voxel_mm, 1.0])
    if "transform" not in fields:
        affine[:3, 3] = -0.5 * (np.array(dims[:3]) - 1) * voxel_mm
        return affine
    if len(fields["transform"]) < 3:
        raise ValueError("'transform' has fewer than three rows")
    transform = np.array([_numbers(row, 4)[:4] for row in fields["transform"][:3]])
    affine[:3, :3] = transform[:, :3] * voxel_mm
    affine[:3, 3] = transform[:, 3]
    return affine


def _storage_affine(
    affine: Float[np.ndarray, "4 4"], dims: list[int], spatial: list[int], backwards: list[bool]
) -> Float[np.ndarray, "4 4"]:
    """Give the affine of the axes in the order and direction of the file."""
    stored = affine.copy()
    for place, axis in enumerate(spatial):
        column = affine[:3, axis]
        stored[:3, place] = -column if backwards[axis] else column
        if backwards[axis]:
            stored[:3, 3] += column * (dims[axis] - 1)
    return stored


def _data_place(fields: dict[str, list[str]], header_end: int, path: Path) -> tuple[Path, int]:
    if len(fields["file"]) > 1:
        raise ValueError(f"its data are in {len(fields['file'])} files, which is not supported")
    match = re.fullmatch(r"(.+?)(?:\s+(\d+))?", _last(fields, "file"))
    if match is None:
        raise ValueError("'file' names no file")
    name, start = match.group(1), int(match.group(2) or 0)
    if name != ".":
        return path.parent / name, start
    if start < header_end:
        raise ValueError(f"'file' puts the data at byte {start}, within the header")
    return path, start


def _values(stored: bytearray, header: MifHeader) -> NDArray[np.generic]:
    """Give the values in the order of the file, in this machine's byte order."""
    if header.dtype is None:
        bits = np.unpackbits(np.frombuffer(stored, dtype=np.uint8))
        return bits[: math.prod(header.shape)]
    values = np.frombuffer(stored, dtype=header.dtype)
    return values.astype(header.dtype.newbyteorder("="), copy=False)


def _arranged(values: NDArray[np.generic], header: MifHeader) -> NDArray[np.generic]:
    """Give the values their axes; without a copy where none is stored backwards."""
    by_rank = np.argsort(header.ranks)
    data = values.reshape([header.shape[axis] for axis in by_rank], order="F")
    data = data.transpose(header.ranks)
    if header.reversed_axes:
        data = np.ascontiguousarray(np.flip(data, header.reversed_axes))
    return data


def _unreadable(what: str, path: str | os.PathLike[str]) -> InputError:
    return InputError(what, where=path, remedy=_CONVERT)
