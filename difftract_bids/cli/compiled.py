"""Where compiled kernels are kept, which is said before numba is imported."""

from __future__ import annotations

import os
from pathlib import Path


def keep_compiled(folder: Path) -> None:
    """Keep compiled kernels in a working folder where they cannot lie beside their source.

    Compiling takes seconds in every process.

    Parameters
    ----------
    folder
        The user's own, as what lies in it is run: never a place in a temporary folder that others
        can guess.
    """
    beside = Path(__file__).parents[1]
    if "NUMBA_CACHE_DIR" not in os.environ and not os.access(beside, os.W_OK):
        os.environ["NUMBA_CACHE_DIR"] = str(folder / "numba")
