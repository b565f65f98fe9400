"""Make the built-in atlas ICBM100 from the tissue maps that nilearn ships.

Run it from anywhere: ``python data/make_default_atlas.py``. It needs nilearn and scikit-image, no
network, and half a minute; the label image comes out identical every time.

The maps are the ICBM 152 2009a symmetric grey matter, white matter and T1 (Fonov et al. 2009,
doi:10.1016/S1053-8119(09)70884-5). One hemisphere is parcelled and mirrored:

- the cerebellum is told from the cerebrum by the cheaper path through grey matter to hand-placed
  points on either side of the tentorium;
- five subcortical regions are the grey matter inside hand-placed balls: compact stand-ins for
  those structures, not delineations of them;
- cerebral and cerebellar cortex are cut into regions of equal volume by weighted Lloyd iterations
  (power diagrams: Aurenhammer et al. 1998, doi:10.1007/PL00009187) over each voxel's own position
  and that of the white matter nearest to it, so that the two banks of a sulcus tend to fall to
  different regions.

Names of cortical regions say where their centroid lies; they are not anatomical areas.
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
from scipy.spatial.distance import cdist

Points = tuple[tuple[float, ...], ...]
Image = NDArray[Any]

HERE = Path(__file__).parent / "atlases"
TEMPLATE = "MNI152NLin2009aSym"
NAME = "ICBM100"
N_CEREBRUM, N_CEREBELLUM = 41, 4
WHITE_MATTER_WEIGHT = 0.7
LLOYD_ITERATIONS = 80

# Left hemisphere, RAS+ millimetres of the template.
CEREBELLUM: Points = (
    (-25, -60, -35), (-40, -60, -38), (-15, -50, -20), (-10, -75, -30), (-5, -60, -20),
    (-20, -40, -45), (-4, -50, -10), (-30, -50, -28), (-4, -60, -10), (-30, -75, -35),
    (-45, -50, -40),
)  # fmt: skip
CEREBRUM: Points = (
    (-12, -50, 0), (-30, -45, -12), (-25, -70, -10), (-12, -75, -4), (-22, -30, -22),
    (-50, -50, -15), (-8, -90, 0), (-30, -90, -10), (-8, -45, 5), (-40, -70, -12), (-60, -40, -10),
    (-10, -95, -12), (-25, -85, -15), (-20, -60, -5), (-45, -35, -22), (-36, -25, -25),
)  # fmt: skip
# x, y, z, radius
BALLS: dict[str, Points] = {
    "Thalamus": ((-8, -10, 7, 8), (-11, -18, 8, 10), (-15, -26, 6, 9)),
    "Caudate": ((-10, 17, 1, 8), (-13, 12, 10, 8), (-14, 4, 16, 7), (-15, -5, 19, 6)),
    "Lentiform": ((-20, 12, -4, 9), (-25, 6, 0, 9.5), (-27, -4, 3, 9), (-29, -13, 2, 7)),
    "Hippocampus": (
        (-22, -12, -21, 8), (-26, -18, -17, 8), (-29, -25, -13, 8), (-29, -32, -7, 8),
        (-25, -38, -1, 7),
    ),
    "Amygdala": ((-22, -4, -19, 9.5),),
}  # fmt: skip


class Maps(NamedTuple):
    """Tissue maps on a 2 mm grid whose middle column lies at x = 0; ``mm`` holds coordinates."""

    grey: Image
    white: Image
    t1: Image
    vox2ras: Image
    mm: Image


def load_maps() -> Maps:
    """Load the 1 mm maps, smooth them a little, and take every second voxel."""
    from nilearn import datasets

    images = [
        load(resolution=1)
        for load in (
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_template,
        )
    ]
    vox2ras = images[0].affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    grey, white, t1 = (_halve(np.asarray(image.dataobj, dtype=np.float64)) for image in images)
    index = np.indices(grey.shape)
    mm = np.stack([vox2ras[k, k] * index[k] + vox2ras[k, 3] for k in range(3)])
    return Maps(grey, white, t1, vox2ras, mm)


def _halve(data: Image) -> Image:
    for axis in range(3):
        data = ndimage.correlate1d(data, [0.25, 0.5, 0.25], axis)
    return data[::2, ::2, ::2]


def make_labels(maps: Maps) -> tuple[Image, list[str]]:
    """Parcel the left hemisphere, mirror it, and name the regions."""
    compartments = _compartments(maps)
    left = np.zeros(maps.grey.shape, dtype=np.int16)
    names: list[str] = []
    for compartment, n_regions, prefix in ((1, N_CEREBRUM, "Ctx"), (2, N_CEREBELLUM, "Cbl")):
        mask = compartments == compartment
        regions = _equal_regions(mask, maps, n_regions)
        order = np.argsort([-maps.mm[1][regions == k].mean() for k in range(1, n_regions + 1)])
        for rank, old in enumerate(order + 1, start=1):
            inside = regions == old
            left[inside] = len(names) + 1
            names.append(f"{prefix}{rank:02d}_{_whereabouts(maps.mm[:, inside].mean(axis=1))}")
    for offset, name in enumerate(BALLS):
        left[compartments == 3 + offset] = len(names) + 1
        names.append(name)
    mirrored = left[::-1]
    labels = left + np.where(mirrored > 0, mirrored + len(names), 0).astype(np.int16)
    return labels, [f"{side}_{name}" for side in "LR" for name in names]


def _compartments(maps: Maps) -> Image:
    """1: cerebral cortex, 2: cerebellar cortex, 3 and up: the balls, left hemisphere only."""
    x, y, z = maps.mm
    left = (x < 0) & (maps.t1 > 0.5)
    grey = left & (
        ndimage.binary_opening((maps.grey > 0.4) & left, ndimage.generate_binary_structure(3, 1))
        | (maps.grey > 0.6)
    )
    out = np.where(_in_cerebellum(maps), 2, 1) * grey
    out[(x**2 / 14**2 + (y + 26) ** 2 / 16**2 < 1) & (z < -4)] = 0  # brain stem
    nearest = np.full(grey.shape, np.inf)
    deep = np.zeros(grey.shape, dtype=np.int16)
    for label, balls in enumerate(BALLS.values(), start=3):
        distance = np.min(
            [np.linalg.norm(maps.mm - np.reshape(ball[:3], (3, 1, 1, 1)), axis=0) / ball[3]
             for ball in balls],
            axis=0,
        )  # fmt: skip
        inside = left & (maps.grey > 0.3) & (distance < np.minimum(1.0, nearest))
        deep[inside] = label
        nearest = np.minimum(nearest, distance)
    # What is left of the deep nuclei and the rim of the ventricles is no cortex.
    inner = (x > -29) & (y > -45) & (y < 24) & (z > -10) & (z < 24) & ~((x > -6) & (y < -32))
    out[(inner | (ndimage.distance_transform_edt(deep == 0) < 1.5)) & (out == 1)] = 0
    out = np.where(deep > 0, deep, out)
    for label in np.unique(out[out > 0]):
        # Whole structures only: a crumb across white matter belongs to nothing.
        pieces, n_pieces = ndimage.label(out == label, np.ones((3, 3, 3)))
        sizes = ndimage.sum_labels(out == label, pieces, np.arange(1, n_pieces + 1))
        out[np.isin(pieces, 1 + np.flatnonzero(sizes < sizes.max()))] = 0
    return out


def _in_cerebellum(maps: Maps) -> Image:
    from skimage.graph import MCP_Geometric

    x, y, z = maps.mm
    grey = np.clip(ndimage.gaussian_filter(maps.grey, 0.6), 0.02, 1)
    cost = np.where((x <= 0) & (maps.t1 > 0.2), 1 / grey**2, 1e6)
    cerebrum, cerebellum = (
        MCP_Geometric(cost).find_costs([_voxel(point, maps.vox2ras) for point in points])[0]
        for points in (CEREBRUM, CEREBELLUM)
    )
    return (cerebellum <= cerebrum) & (z <= 8) & ((y <= -25) | (z <= -15))


def _voxel(point_mm: tuple[float, ...], vox2ras: Image) -> tuple[int, ...]:
    return tuple(int(v) for v in np.rint((np.array(point_mm) - vox2ras[:3, 3]) / 2))


def _equal_regions(mask: Image, maps: Maps, n_regions: int) -> Image:
    voxels = np.argwhere(mask)
    core = maps.white > 0.7
    nearest = ndimage.distance_transform_edt(~core, return_distances=False, return_indices=True)
    position = maps.mm[:, mask].T
    at_white_matter = (nearest[:, mask].T * 2) + maps.vox2ras[:3, 3]
    features = np.hstack([position, WHITE_MATTER_WEIGHT * at_white_matter])
    label = _power_lloyd(features, n_regions)
    regions = np.zeros(mask.shape, dtype=np.int16)
    regions[tuple(voxels.T)] = label + 1
    return _in_one_piece(regions, mask)


def _power_lloyd(features: Image, n_regions: int) -> Image:
    """Cut points into compact groups of nearly equal size, from farthest-point centres on."""
    chosen = [int(np.argmin(features[:, 1]))]
    distance = cdist(features, features[chosen])[:, 0]
    while len(chosen) < n_regions:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, cdist(features, features[chosen[-1:]])[:, 0])
    centres, handicap = features[chosen], np.zeros(n_regions)
    target = len(features) / n_regions
    for _ in range(LLOYD_ITERATIONS):
        squared = cdist(features, centres, "sqeuclidean")
        for _ in range(5):
            label = np.argmin(squared + handicap, axis=1)
            size = np.bincount(label, minlength=n_regions)
            handicap += 100.0 * (size / target - 1)
        sums = [np.bincount(label, column, minlength=n_regions) for column in features.T]
        centres = np.stack(sums, axis=1) / np.maximum(size, 1)[:, None]
    return np.argmin(cdist(features, centres, "sqeuclidean") + handicap, axis=1)


def _in_one_piece(regions: Image, mask: Image) -> Image:
    """Give the crumbs of each region to the region nearest to them; drop what stays a crumb."""
    for _ in range(3):
        kept = np.zeros_like(regions)
        for label in range(1, int(regions.max()) + 1):
            pieces, n_pieces = ndimage.label(regions == label, np.ones((3, 3, 3)))
            sizes = ndimage.sum_labels(regions == label, pieces, np.arange(1, n_pieces + 1))
            kept[pieces == 1 + int(np.argmax(sizes))] = label
        nearest = ndimage.distance_transform_edt(
            kept == 0, return_distances=False, return_indices=True
        )
        regions = np.where(mask, kept[tuple(nearest)], 0)
    return kept


def _whereabouts(centroid_mm: Image) -> str:
    x, y, z = centroid_mm
    along = "Ant" if y > 10 else "Post" if y < -50 else "Mid"
    height = "Sup" if z > 30 else "Inf" if z < -5 else "Mid"
    return along + height + ("Med" if abs(x) < 22 else "Lat")


def write(labels: Image, names: list[str], maps: Maps, folder: Path) -> None:
    """Write the BIDS atlas dataset; the gzip stream carries no time."""
    template = folder / f"tpl-{TEMPLATE}"
    template.mkdir(parents=True, exist_ok=True)
    stem = f"tpl-{TEMPLATE}_atlas-{NAME}_res-02_dseg"
    image = nib.Nifti1Image(labels.astype(np.uint8), maps.vox2ras)
    image.header.set_xyzt_units("mm")
    image.set_sform(maps.vox2ras, code="mni")
    image.set_qform(maps.vox2ras, code="mni")
    (template / f"{stem}.nii.gz").write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))
    rows = ["index\tname\themisphere\tstructure\tx_mm\ty_mm\tz_mm\tvolume_mm3"]
    for index, name in enumerate(names, start=1):
        inside = labels == index
        centroid = "\t".join(f"{value:.1f}" for value in maps.mm[:, inside].mean(axis=1))
        kind = {"Ctx": "cerebral cortex", "Cbl": "cerebellum"}.get(name[2:5], "subcortex")
        side = {"L": "left", "R": "right"}[name[0]]
        rows.append(f"{index}\t{name}\t{side}\t{kind}\t{centroid}\t{8 * int(inside.sum())}")
    (template / f"{stem}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    _write_json(
        template / f"{stem}.json",
        {
            "SpatialReference": "ICBM 152 2009a symmetric T1, as nilearn's load_mni152_template",
            "Resolution": {"02": "2 mm isotropic"},
        },
    )
    _write_json(folder / "dataset_description.json", _description("Built-in atlases"))
    _write_json(
        folder / f"atlas-{NAME}_description.json",
        {
            "Name": f"{NAME}: 100 compact grey-matter regions of equal size, left-right paired",
            "License": "CC0 for the regions; ICBM 152 maps: McGill notice, copyright retained",
            "ReferencesAndLinks": ["https://doi.org/10.1016/S1053-8119(09)70884-5"],
        },
    )


def _description(name: str) -> dict[str, Any]:
    return {
        "Name": name,
        "BIDSVersion": "1.11.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "make_default_atlas.py"}],
        "License": "McGill notice of the ICBM 152 maps: free to use, copy, modify, distribute",
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tissue = load_maps()
    parcels, region_names = make_labels(tissue)
    write(parcels, region_names, tissue, HERE)
