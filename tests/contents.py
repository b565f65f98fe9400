"""What derivatives hold, whatever the bytes: two saves of one gzip or TRX file differ."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from difftract_bids.io.tractograms import read_tractogram

_TRACTOGRAMS = (".trx", ".tck", ".trk")


def contents(derivatives: Path) -> dict[str, object]:
    """Content of every file of the participants, by its path; figures only by their names."""
    return {
        str(path.relative_to(derivatives)): _content(path)
        for path in sorted(derivatives.glob("sub-*/**/*"))
        if path.is_file()
    }


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Name the files that only one has, or whose content is not the same to the last bit."""
    return sorted(
        name
        for name in one.keys() | other.keys()
        if name not in one or name not in other or not _same(one[name], other[name])
    )


def _content(path: Path) -> object:
    if "figures" in path.parts:
        return None
    if path.name.endswith(".nii.gz"):
        image = nib.load(path)
        return np.asarray(image.dataobj), image.affine
    if path.suffix in _TRACTOGRAMS:
        streamlines = read_tractogram(path)
        return streamlines.points, streamlines.offsets
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    return path.read_bytes()


def _same(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other
