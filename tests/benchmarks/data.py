"""Where the real data are, if anywhere."""

from __future__ import annotations

import os
from pathlib import Path


def real_acquisition(data: Path | None) -> Path | None:
    """Path of a real subject's diffusion series without its extensions.

    Parameters
    ----------
    data
        Folder of the real data; ``None``: the environment's or the one beside the checkout.
    """
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    root = data or Path(os.environ.get("DIFFTRACT_TEST_DATA", beside))
    raw = root / "ds-human" / "sub-01" / "dwi" / "sub-01_dwi"
    return raw if raw.with_suffix(".nii.gz").exists() else None
