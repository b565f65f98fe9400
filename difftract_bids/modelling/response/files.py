"""Response functions in files, in MRtrix's text format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from difftract_bids.errors import InputError
from difftract_bids.io.atomic import write_text_atomic
from difftract_bids.modelling.zonal import Response

__all__ = ["read_response", "write_response"]


def read_response(
    path: str | os.PathLike[str], bvals_s_mm2: Sequence[float] | None = None
) -> Response:
    """Read a file as ``dwi2response`` writes it.

    Parameters
    ----------
    path
        Text file.
    bvals_s_mm2
        b-value of each row, s/mm², for a file without a ``# Shells`` line.

    Raises
    ------
    InputError
        If it cannot be read or is no response function; the error names the file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The response function cannot be read: {error}.",
            where=path,
            remedy="Give the path of a text file as MRtrix's dwi2response writes it.",
        ) from error
    try:
        return Response.from_text(text, bvals_s_mm2)
    except InputError as error:
        raise InputError(error.what, where=path, remedy=error.remedy) from error


def write_response(response: Response, path: str | os.PathLike[str]) -> Path:
    """Write a file that MRtrix reads; return its absolute path."""
    target = Path(path).absolute()
    write_text_atomic(target, response.to_text())
    return target
