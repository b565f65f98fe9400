"""Quality measures of one run, as far as its files give them."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from difftract_bids.checks.table import read_checks
from difftract_bids.errors import InputError
from difftract_bids.group.files import Run
from difftract_bids.group.triangles import triangle

#: What reading a file that is not what it should be may raise.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, zlib.error),
    *(ImageFileError, HeaderDataError, WrapStructError, InputError),
)
#: Images that are summed up over the brain mask: name of the measure, and how.
_IN_MASK: dict[str, tuple[str, Callable[..., Any]]] = {
    "model-tensor_param-fa_dwimap.nii.gz": ("fa_mean", partial(np.mean, dtype=np.float64)),
    "param-sigma_desc-noise_dwimap.nii.gz": ("sigma_median", np.median),
}


@dataclass
class Quality:
    """Measures of a run.

    Attributes
    ----------
    measures
        By the names of their columns; what is not known is left out.
    unread
        Files that are there and could not be read.
    tractogram
        The sidecar of the streamlines, as far as it can be read.
    """

    measures: dict[str, float] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    tractogram: dict[str, Any] = field(default_factory=dict)


def measure_run(run: Run) -> Quality:
    """Measure a run by its confounds, images and tractogram.

    A file that is not there leaves its measures out; so does one that cannot be read, and it is
    named.
    """
    quality = Quality()
    _try(quality, run.file("desc-confounds_timeseries.tsv"), _motion)
    _try(quality, run.file("desc-outliers_timeseries.tsv"), _outliers)
    _try(quality, run.file("desc-checks_quality.tsv"), _checks)
    sidecars = run.tractogram_sidecars()
    if len(sidecars) == 1:  # of several, nobody knows which is that of the matrices
        quality.tractogram = read_sidecar(sidecars[0])
        _try(quality, sidecars[0], _streamlines)
    masks: list[NDArray[np.bool_]] = []
    _try(quality, run.file("desc-brain_mask.nii.gz"), partial(_mask, masks=masks))
    for mask in masks:
        for ending, statistic in _IN_MASK.items():
            _try(quality, run.file(ending), partial(_inside, mask=mask, statistic=statistic))
    return quality


def measure_connectome(
    atlas: str,
    n_nodes: int,
    triangles: Mapping[str, Float[np.ndarray, " edge"]],
    sidecar: Mapping[str, Any],
    n_streamlines: float | None,
) -> dict[str, float]:
    """Measure a connectome.

    Parameters
    ----------
    atlas
        Its name.
    n_nodes
        Nodes of the matrix.
    triangles
        Upper triangles with the diagonal, row after row, by measure.
    sidecar
        Of the matrix of counts.
    n_streamlines
        Of the tractogram, if known.
    """
    counts = triangles.get("count")
    if counts is None or not np.isfinite(counts).all():
        return {}
    first, second = triangle(n_nodes)
    pairs = first != second
    found = {}
    if n_nodes > 1:
        found["density"] = float((counts[pairs] > 0).mean())
    connected = np.zeros(n_nodes, dtype=bool)
    connected[first[counts > 0]] = connected[second[counts > 0]] = True
    found["empty_nodes"] = float((~connected).sum())
    total = float(counts.sum())
    # More than all of them are those of another tractogram.
    if n_streamlines and total <= n_streamlines and _counts_once(sidecar):
        found["assigned_share"] = total / n_streamlines
    lengths_mm = triangles.get("meanlength")
    if lengths_mm is not None and total > 0 and np.isfinite(lengths_mm).all():
        found["length_mean_mm"] = float(counts @ lengths_mm / total)
    return {f"{name}_{atlas}": value for name, value in found.items()}


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read a JSON file; nothing, if it is not there or no table."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _counts_once(sidecar: Mapping[str, Any]) -> bool:
    """Say whether every streamline that connects nodes counts 1, in one pair."""
    assignment = sidecar.get("Assignment", {})
    return (
        assignment.get("Mode") != "all_voxels"
        and sidecar.get("StreamlineWeighting", "none") == "none"
        and sidecar.get("ValidDiagonal", True) is True
    )


def _try(quality: Quality, path: Path | None, measure: Callable[[Path], dict[str, float]]) -> None:
    if path is None:
        return
    try:
        found = measure(path)
    except _UNREADABLE:
        quality.unread.append(path.name)
        return
    quality.measures.update({name: value for name, value in found.items() if math.isfinite(value)})


def _motion(path: Path) -> dict[str, float]:
    columns = _columns(path)
    moved_mm = columns["framewise_displacement"]
    found = {"volumes": float(len(moved_mm))}
    if np.isfinite(moved_mm).any():
        found |= {"fd_mean": float(np.nanmean(moved_mm)), "fd_max": float(np.nanmax(moved_mm))}
    return found


def _columns(path: Path) -> dict[str, Float[np.ndarray, " row"]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    names = header.split("\t")
    cells = [line.replace("n/a", "nan").split("\t") for line in lines]
    table = np.array(cells, dtype=np.float64).reshape(len(lines), len(names))
    return dict(zip(names, table.T, strict=True))


def _outliers(path: Path) -> dict[str, float]:
    header, _, body = path.read_bytes().partition(b"\n")
    flags = np.array(body.split(), dtype=np.float64)
    n_volumes = header.count(b"\t") + 1
    if not flags.size or flags.size % n_volumes or not np.isin(flags, (0, 1)).all():
        raise ValueError("no table of flags")
    return {"outlier_share": float(flags.mean())}


def _checks(path: Path) -> dict[str, float]:
    lights = Counter(check.light for check in read_checks(path))
    return {"checks_bad": float(lights["bad"]), "checks_look": float(lights["look"])}


def _streamlines(path: Path) -> dict[str, float]:
    counts = json.loads(path.read_bytes())["Counts"]
    found = {name.lower(): float(counts[name]) for name in ("Seeds", "Streamlines")}
    if found["seeds"]:
        found["kept_share"] = found["streamlines"] / found["seeds"]
    return found


def _mask(path: Path, masks: list[NDArray[np.bool_]]) -> dict[str, float]:
    data, affine = _image(path)
    masks.append(data > 0)
    return {"mask_volume_mm3": float(masks[0].sum() * abs(np.linalg.det(affine[:3, :3])))}


def _inside(
    path: Path, mask: NDArray[np.bool_], statistic: tuple[str, Callable[..., Any]]
) -> dict[str, float]:
    """Sum an image up over the mask, if it is on its grid."""
    name, function = statistic
    image, _ = _image(path)
    if image.shape != mask.shape:
        raise ValueError("not the mask's grid")
    inside = image[mask]
    finite = np.isfinite(inside)
    if not finite.all():
        inside = inside[finite]
    return {name: float(function(inside))} if inside.size else {}


def _image(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read an image whole: at once, for gzip in small pieces takes several times as long."""
    image = nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
    return np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)
