"""Make the prior of deep grey matter, ``data/deep_grey``, from what nilearn ships and geometry.

Run it from anywhere: ``python data/make_deep_grey.py``. It needs nilearn, no network, and half a
minute; the image comes out identical every time.

The maps are the ICBM 152 2009a symmetric grey matter, white matter and T1 (Fonov et al. 2009,
doi:10.1016/S1053-8119(09)70884-5). Each structure is what looks like grey matter inside
hand-placed ellipsoids, whose middles are the structures' well-known places in that space; thalamus
and pallidum hold so much white matter that their ellipsoids alone decide. The image, at 2 mm, has
two volumes: how likely a place is deep grey matter, and how likely it is cortical.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[Any]

FOLDER = Path(__file__).parent / "deep_grey"
STEM = "tpl-MNI152NLin2009aSym_res-02_desc-deepgrey_probseg"
#: How sure the prior is of itself: nobody's nuclei lie where the template's do to the millimetre.
BLUR_MM = 1.5
#: From here on a voxel of the template counts as grey matter.
GREY = 0.3


class Ellipsoid(NamedTuple):
    """Left hemisphere, RAS+ mm; ``pitch_deg`` lifts the front, ``yaw_deg`` turns it outwards."""

    centre_mm: tuple[float, float, float]
    semi_axes_mm: tuple[float, float, float]
    pitch_deg: float = 0.0
    yaw_deg: float = 0.0


class Structure(NamedTuple):
    """Ellipsoids, and the least share of grey matter that counts as the structure there."""

    ellipsoids: tuple[Ellipsoid, ...]
    grey: float


STRUCTURES = {
    "Thalamus": Structure((
        Ellipsoid((-9, -13, 8), (8.5, 11.5, 8.5), 0, -20),
        Ellipsoid((-14, -24, 7), (10, 9, 9.5), 0, -20),
        Ellipsoid((-20, -26, -1), (5, 5, 4)),
    ), 0.03),
    "Caudate": Structure((
        Ellipsoid((-12, 14, 4), (7, 9.5, 11)),
        Ellipsoid((-14, 3, 16), (5.5, 12, 6.5), 25, 0),
        Ellipsoid((-18, -13, 20), (5, 11, 5), -15, 0),
    ), GREY),
    "Putamen": Structure((
        Ellipsoid((-26, 3, 0), (8, 18, 11.5), 0, -10),
        Ellipsoid((-31, -12, 3), (5, 9, 9), 0, -8),
    ), 0.2),
    "Pallidum": Structure((Ellipsoid((-20, -4.5, -1.5), (6, 10, 6.5), 0, -25),), 0.0),
    "Accumbens": Structure((Ellipsoid((-11.5, 13, -7), (8, 8.5, 6.5)),), GREY),
    "Hippocampus": Structure((
        Ellipsoid((-24, -14, -19), (8, 8, 7)),
        Ellipsoid((-28, -24, -14), (7.5, 10, 6.5), -25, 0),
        Ellipsoid((-27, -35, -5), (7.5, 8, 7), -30, 0),
    ), GREY),
    "Amygdala": Structure((Ellipsoid((-23.5, -4.5, -19), (10, 9, 9)),), GREY),
}  # fmt: skip


def load_maps() -> tuple[Image, Image, Image]:
    """Load grey matter and T1 at 1 mm, and voxels to RAS+ millimetres."""
    from nilearn import datasets

    grey, t1 = (
        load(resolution=1)
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_template)
    )
    return (
        np.asarray(grey.dataobj, dtype=np.float32),
        np.asarray(t1.dataobj, dtype=np.float32),
        grey.affine,
    )


def make_structures(grey: Image, t1: Image, vox2ras: Image) -> dict[str, Image]:
    """Find the voxels of each structure, both sides; they do not overlap: the first one wins."""
    index = np.indices(grey.shape, dtype=np.float32)
    mm = np.stack([vox2ras[k, k] * index[k] + vox2ras[k, 3] for k in range(3)])
    mm[0] = -np.abs(mm[0])
    soft = ndimage.gaussian_filter(grey, 0.7)
    free = (t1 > 0.5) & (mm[0] < -0.5)  # no fluid
    found: dict[str, Image] = {}
    for name in ("Pallidum", *(name for name in STRUCTURES if name != "Pallidum")):
        structure = STRUCTURES[name]
        inside = np.zeros(grey.shape, dtype=bool)
        for ellipsoid in structure.ellipsoids:
            inside |= _inside(ellipsoid, mm)
        here = inside & free & (soft >= structure.grey)
        here = ndimage.binary_fill_holes(_two_largest(ndimage.binary_opening(here)))
        found[name] = here
        free &= ~here
    return found


def _inside(ellipsoid: Ellipsoid, mm: Image) -> Image:
    pitch, yaw = np.deg2rad([ellipsoid.pitch_deg, ellipsoid.yaw_deg])
    x, y, z = mm - np.reshape(ellipsoid.centre_mm, (3, 1, 1, 1))
    # Leftwards is outwards on the left side.
    x, y = x * np.cos(yaw) + y * np.sin(yaw), -x * np.sin(yaw) + y * np.cos(yaw)
    y, z = y * np.cos(pitch) + z * np.sin(pitch), -y * np.sin(pitch) + z * np.cos(pitch)
    a, b, c = ellipsoid.semi_axes_mm
    return (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 <= 1


def _two_largest(mask: Image) -> Image:
    """Keep one piece a side."""
    pieces, n_pieces = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, pieces, np.arange(1, n_pieces + 1))
    return np.isin(pieces, 1 + np.argsort(sizes)[-2:]) & mask


def make_prior(grey: Image, structures: dict[str, Image], vox2ras: Image) -> tuple[Image, Image]:
    """Blur deep and cortical grey matter, and take every second voxel."""
    deep = np.any(list(structures.values()), axis=0)
    near = ndimage.distance_transform_edt(~deep) < 3  # its rim is no cortex
    volumes = [
        ndimage.gaussian_filter(volume.astype(np.float32), BLUR_MM)[::2, ::2, ::2]
        for volume in (deep, np.where(near, 0, grey))
    ]
    return np.stack(volumes, axis=-1), vox2ras @ np.diag([2.0, 2.0, 2.0, 1.0])


def write(prior: Image, vox2ras: Image, folder: Path) -> None:
    """Write the prior as percent in bytes; the gzip stream carries no time."""
    folder.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.rint(100 * np.clip(prior, 0, 1)).astype(np.uint8), vox2ras)
    image.header.set_xyzt_units("mm")
    image.set_sform(vox2ras, code="mni")
    image.set_qform(vox2ras, code="mni")
    (folder / f"{STEM}.nii.gz").write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))
    sidecar = {
        "Description": "Deep and cortical grey matter (percent), from make_deep_grey.py",
        "SpatialReference": "ICBM 152 2009a symmetric T1, as nilearn's load_mni152_template",
        "Resolution": {"02": "2 mm isotropic"},
        "LabelMap": ["deep grey matter", "cortical grey matter"],
        "Units": "percent",
        "License": "McGill notice of the ICBM 152 maps: free to use, copy, modify, distribute",
    }
    (folder / f"{STEM}.json").write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    grey_map, t1_map, affine = load_maps()
    nuclei = make_structures(grey_map, t1_map, affine)
    write(*make_prior(grey_map, nuclei, affine), FOLDER)
