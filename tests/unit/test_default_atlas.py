"""The built-in atlas: what it promises, and that its script makes it."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from difftract_bids.bids.atlases import builtin_atlases, resolve_atlas

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def atlas():
    return resolve_atlas("ICBM100")


@pytest.fixture(scope="module")
def labels(atlas):
    return np.asarray(nib.load(atlas.image).dataobj)


def test_it_has_a_hundred_nodes_and_each_has_voxels(atlas, labels):
    assert builtin_atlases() == ("ICBM100",)
    assert len(atlas.nodes) == 100
    assert set(np.unique(labels)) == {0, *atlas.nodes.index}


def test_the_right_hemisphere_mirrors_the_left_one(atlas, labels):
    mirrored = labels[::-1].astype(int)
    swapped = np.where(mirrored > 50, mirrored - 50, np.where(mirrored > 0, mirrored + 50, 0))
    assert np.array_equal(swapped, labels)
    assert [n[2:] for n in atlas.nodes.name[:50]] == [n[2:] for n in atlas.nodes.name[50:]]
    x_mm = nib.affines.apply_affine(nib.load(atlas.image).affine, np.argwhere(labels))[:, 0]
    is_left = np.isin(labels[labels > 0], range(1, 51))
    assert (x_mm[is_left] < 0).all()
    assert (x_mm[~is_left] > 0).all()
    assert atlas.nodes.hemisphere == ("left",) * 50 + ("right",) * 50


def test_regions_are_in_one_piece_and_cortical_ones_of_nearly_equal_size(atlas, labels):
    sizes = np.bincount(labels.ravel())[1:]
    pieces = [ndimage.label(labels == i, np.ones((3, 3, 3)))[1] for i in range(1, 51)]
    assert pieces == [1] * 50
    cortex = [
        size for size, name in zip(sizes, atlas.nodes.name, strict=True) if name[2:5] == "Ctx"
    ]
    assert max(cortex) < 1.2 * min(cortex)
    assert sizes.min() * 8 > 2500


def test_regions_lie_in_the_grey_matter_of_the_t1w_they_are_registered_to(atlas, labels):
    t1w = nib.load(atlas.template_t1w)
    voxels = np.argwhere(labels > 0)
    ras = nib.affines.apply_affine(nib.load(atlas.image).affine, voxels)
    index = np.rint(nib.affines.apply_affine(np.linalg.inv(t1w.affine), ras)).astype(int)
    values = np.asarray(t1w.dataobj)[tuple(index.T)] / 255
    # Fluid is below 0.45 in this T1w, white matter above 0.8.
    assert np.mean((values > 0.45) & (values < 0.8)) > 0.9


@pytest.mark.parametrize(
    ("name", "x_mm", "y_mm", "z_mm"),
    [("Thalamus", -11, -18, 8), ("Caudate", -13, 12, 10), ("Hippocampus", -27, -22, -14)],
)
def test_a_landmark_lies_in_the_region_of_its_name(atlas, labels, name, x_mm, y_mm, z_mm):
    ras2vox = np.linalg.inv(nib.load(atlas.image).affine)
    for side, x in (("L", x_mm), ("R", -x_mm)):
        voxel = tuple(np.rint(nib.affines.apply_affine(ras2vox, (x, y_mm, z_mm))).astype(int))
        assert atlas.nodes.names_of([labels[voxel]]) == [f"{side}_{name}"]


def test_the_table_says_where_each_centroid_is(atlas, labels):
    with atlas.table.open(encoding="utf-8") as lines:
        row = list(csv.DictReader(lines, delimiter="\t"))[60]
    vox2ras = nib.load(atlas.image).affine
    centroid = nib.affines.apply_affine(vox2ras, np.argwhere(labels == 61)).mean(axis=0)
    assert [float(row[k]) for k in ("x_mm", "y_mm", "z_mm")] == pytest.approx(centroid, abs=0.051)


def test_it_is_small(atlas):
    assert sum(path.stat().st_size for path in atlas.dataset.rglob("*") if path.is_file()) < 3e5


@pytest.mark.slow
def test_the_script_makes_the_very_same_labels_and_table(atlas, labels, tmp_path):
    pytest.importorskip("skimage")
    spec = importlib.util.spec_from_file_location("maker", DATA / "make_default_atlas.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    maps = maker.load_maps()
    made, names = maker.make_labels(maps)
    assert np.array_equal(made, labels)
    maker.write(made, names, maps, tmp_path)
    again = next(tmp_path.rglob("*_dseg.tsv"))
    assert again.read_text(encoding="utf-8") == atlas.table.read_text(encoding="utf-8")
