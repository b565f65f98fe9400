"""Files of one weight for each streamline: our tables, and the text files of MRtrix3."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import InputError
from difftract_bids.io.atomic import write_text_atomic

_COLUMN = "weight"


def read_weights(path: str | os.PathLike[str], n: int | None = None) -> Float[np.ndarray, " n"]:
    """Read a weight for each streamline, in the order of the tractogram.

    Parameters
    ----------
    path
        Text file of numbers with white space or commas between them, in rows or columns; lines
        that begin with ``#`` are left out, and so is one name of a column (``tcksift2`` writes
        the one, `write_weights` the other).
    n
        Number of streamlines, to be checked if given.

    Raises
    ------
    InputError
        If it cannot be read, holds something else than numbers, a weight is negative or not
        finite, or there are not as many as streamlines.
    """
    source = Path(path)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The streamline weights cannot be read: {error}.",
            where=source,
            remedy="Give a text file with one number for each streamline.",
        ) from error
    lines = [line.strip() for line in lines if not line.lstrip().startswith("#")]
    if lines and re.fullmatch(r"[A-Za-z_]\w*", lines[0]) and lines[0].lower() not in _NUMBERS:
        del lines[0]
    weights = _numbers(re.split(r"[\s,]+", " ".join(lines).strip()), source)
    _check(weights, n, source)
    return weights


#: Words that are numbers.
_NUMBERS = {"nan", "inf", "infinity"}


def _numbers(words: list[str], source: Path) -> Float[np.ndarray, " n"]:
    try:
        return np.array([word for word in words if word], dtype=np.float64)
    except ValueError as error:
        raise InputError(
            f"Not all streamline weights are numbers: {error}.",
            where=source,
            remedy="Give a text file with one number for each streamline and nothing else.",
        ) from error


def _check(weights: Float[np.ndarray, " n"], n: int | None, source: Path) -> None:
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        first = int(bad.argmax())
        raise InputError(
            f"{int(bad.sum())} of {len(weights)} streamline weights are negative or not finite; "
            f"the first is number {first}, counted from 0: {weights[first]:g}.",
            where=source,
            remedy="Weights are 0 or more; fit them again.",
        )
    if n is not None and len(weights) != n:
        raise InputError(
            f"There are {len(weights)} weights for {n} streamlines.",
            where=source,
            remedy="Give the weights that were made for this tractogram, all of its streamlines.",
        )


def write_weights(path: str | os.PathLike[str], weights: Float[np.ndarray, " n"]) -> Path:
    """Write a table (TSV) with the column ``weight`` and a row for each streamline.

    Nine significant digits are kept.

    Returns
    -------
    Path
        The absolute path written.
    """
    target = Path(path).absolute()
    rows = "".join(f"{weight:.9g}\n" for weight in np.asarray(weights, np.float64).tolist())
    write_text_atomic(target, f"{_COLUMN}\n{rows}")
    return target
