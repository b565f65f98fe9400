"""Directions in a text file, as MRtrix3 keeps them."""

from __future__ import annotations

import os
import warnings

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import InputError

#: Fewer directions leave an fODF free to be negative between them.
_MIN_DIRECTIONS = 45


def read_directions(path: str | os.PathLike[str]) -> Float[np.ndarray, "n 3"]:
    """Read directions: azimuth and polar angle in radians in each row, or three numbers.

    The two angles are what MRtrix3's ``dirgen`` writes and ``dwi2fod -directions`` reads; the
    second is counted from the z axis.

    Returns
    -------
    directions
        Unit vectors.

    Raises
    ------
    InputError
        If the file cannot be read, has rows of another length, fewer than 45 directions, or one
        that is none.
    """
    remedy = (
        "Give azimuth and polar angle in radians in each row, as MRtrix3's dirgen writes them."
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file is told of below
            table = np.loadtxt(path, ndmin=2, dtype=np.float64)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The directions cannot be read: {error}.", where=path, remedy=remedy
        ) from error
    if table.ndim != 2 or table.shape[1] not in (2, 3) or len(table) < _MIN_DIRECTIONS:
        raise InputError(
            f"The file holds {' by '.join(map(str, table.shape))} numbers; at least "
            f"{_MIN_DIRECTIONS} directions are needed, of two or three numbers each.",
            where=path,
            remedy=remedy,
        )
    vectors = table
    if table.shape[1] == 2:
        # Only now: who gives no such file need not wait for torch.
        import torch

        from difftract_bids.core.deconvolution import directions_from_angles

        vectors = directions_from_angles(torch.from_numpy(table)).numpy()
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = int((~(length > 0) | ~np.isfinite(length)).sum())
    if wrong:
        raise InputError(
            f"{wrong} of {len(table)} directions are zero or not finite.",
            where=path,
            remedy=remedy,
        )
    return vectors / length
