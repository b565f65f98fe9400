"""What a model file says of itself: its JSON header, read without its weights."""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

from difftract_bids.errors import InputError

#: Entry of a model file that describes it, in JSON: the only one, as safetensors writes several in
#: an order that varies, and the same model should be the same file.
ENTRY = "difftract_bids"
#: A header that is longer is none: the weights do not belong to it.
_LONGEST_HEADER = 16 << 20
_REMEDY = "Give a model file as difftract-train writes it (model.safetensors); copy it again."


def read_model_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the metadata of a safetensors file, and check that the file is whole.

    Parameters
    ----------
    path
        The file. Nothing in it is executed.

    Returns
    -------
    dict
        Texts by their names.

    Raises
    ------
    InputError
        If the file is missing, truncated, or not of this format.

    References
    ----------
    The safetensors format, https://huggingface.co/docs/safetensors (length of the header in eight
    bytes, a JSON object with the place of each tensor, and the tensors).
    """
    source = Path(path)
    try:
        with source.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError("it does not begin with a header")  # noqa: TRY301
            header = json.loads(stream.read(length))
            n_bytes = os.fstat(stream.fileno()).st_size - 8 - length
        ends = [_end_of(entry) for name, entry in header.items() if name != "__metadata__"]
        metadata = header.get("__metadata__", {})
        texts = {str(name): _text(value) for name, value in metadata.items()}
    except (OSError, ValueError, struct.error, AttributeError, RecursionError) as error:
        raise InputError(
            f"The model file cannot be read: {_reason(error)}.", where=source, remedy=_REMEDY
        ) from error
    if max(ends, default=0) != n_bytes:
        raise InputError(
            f"The model file is truncated or damaged: {n_bytes:,} bytes of weights are there, "
            f"{max(ends, default=0):,} are named.",
            where=source,
            remedy=_REMEDY,
        )
    return texts


def _end_of(entry: dict[str, Any]) -> int:
    """Give where a tensor ends, counted from the end of the header."""
    try:
        first, end = entry["data_offsets"]
        shape = [int(size) for size in entry["shape"]]
    except (KeyError, TypeError) as error:
        raise ValueError("its header names no tensors") from error
    if not 0 <= int(first) <= int(end) or (end == first) != (math.prod(shape) == 0):
        raise ValueError("the places of its tensors make no sense")
    return int(end)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("its metadata are not texts")  # noqa: TRY004 - a damaged file
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, struct.error | UnicodeDecodeError | json.JSONDecodeError):
        return "it is no safetensors file"
    return str(error)
