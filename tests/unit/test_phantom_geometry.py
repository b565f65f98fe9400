"""The head: symmetry, volumes that can be worked out, and where its streamlines end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from difftract_bids.errors import InputError
from difftract_bids.phantom.bundles import make_tube, map_fixels
from difftract_bids.phantom.geometry import Bundle, load_geometry
from difftract_bids.phantom.tissue import Tissue, map_tissue, parcel_at, tissue_at

SHAPE = (56, 68, 52)
VOX2HEAD = np.array([[3.0, 0, 0, -83], [0, 3.0, 0, -101], [0, 0, 3.0, -77], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def geometry():
    return load_geometry()


@pytest.fixture(scope="module")
def tissue(geometry):
    return map_tissue(geometry, SHAPE, VOX2HEAD, samples_per_axis=2)


@pytest.fixture(scope="module")
def fixels(geometry):
    weights = np.array([bundle.weight for bundle in geometry.bundles])
    return map_fixels(geometry, weights, SHAPE, VOX2HEAD)


def straight(start, end, weight=100.0, fan=(1.0, 1.0)):
    nodes = ("LH-Putamen", "RH-Putamen")  # nuclei: their ends are not cut
    return Bundle("straight", nodes, np.array([start, end], float), weight, fan)


def test_the_head_has_the_nodes_and_edges_it_promises(geometry):
    names = geometry.node_names
    cortical = [p for p in geometry.parcels if p.kind == "cortex"]
    pairs = {frozenset(bundle.nodes) for bundle in geometry.bundles}
    assert len(cortical) >= 24
    assert len(set(names)) == len(names)
    assert [p.index for p in geometry.parcels] == list(range(1, len(names) + 1))
    assert {n.replace("LH-", "RH-") for n in names if n.startswith("LH-")} == {
        n for n in names if n.startswith("RH-")
    }
    assert len(pairs) == len(geometry.bundles) >= 20


def test_the_left_half_mirrors_the_right(geometry):
    points = np.random.default_rng(0).uniform(-80, 80, (4000, 3))
    mirrored = points * [-1, 1, 1]
    np.testing.assert_array_equal(tissue_at(geometry, points), tissue_at(geometry, mirrored))
    names = np.array(["", *geometry.node_names])
    swap = {"L": "R", "R": "L"}
    here, there = (names[parcel_at(geometry, side)] for side in (points, mirrored))
    assert [swap.get(n[0], n[0]) + n[1:] for n in here] == list(there)


def test_every_parcel_is_found_where_its_node_table_says(geometry, tissue):
    found, counts = np.unique(tissue.labels[tissue.labels > 0], return_counts=True)
    assert found.tolist() == [p.index for p in geometry.parcels]
    assert counts.min() >= 20
    right = [p.index for p in geometry.parcels if p.hemisphere == "right"]
    voxels = np.argwhere(np.isin(tissue.labels, right))
    assert (voxels @ VOX2HEAD[0, :3] + VOX2HEAD[0, 3]).min() >= 0


def test_tissue_fractions_fill_each_voxel_and_the_brain_has_its_volume(geometry, tissue):
    np.testing.assert_allclose(tissue.fractions.sum(axis=-1), 1.0, atol=1e-5)
    # The subarachnoid space, skull and scalp are layers: what they enclose is an ellipsoid.
    within = tissue.fractions[..., [Tissue.AIR, Tissue.SCALP, Tissue.BONE]].sum(axis=-1)
    volume_mm3 = 27.0 * (1.0 - within).sum()
    semi_axes = geometry.pial.semi_axes_mm + geometry.subarachnoid_mm
    assert volume_mm3 == pytest.approx(4 / 3 * np.pi * semi_axes.prod(), rel=0.01)


def test_a_straight_tube_fills_its_volume_and_points_along_its_axis(geometry):
    one = replace(geometry, bundles=(straight([-32, 3, 5], [31, 10, 19]),))
    fixels = map_fixels(one, np.array([100.0]), SHAPE, VOX2HEAD)
    along = np.array([63, 7, 14])
    length = np.linalg.norm(along)
    assert 27.0 * fixels.fraction.sum() == pytest.approx(100.0 * length, rel=0.02)
    cosine = np.abs(fixels.direction @ along / length)
    np.testing.assert_allclose(cosine, 1.0, atol=1e-9)


def test_two_tubes_that_cross_share_a_voxel_in_halves(geometry):
    both = (
        straight([-40, 0, 10], [40, 0, 10], weight=400),
        straight([0, -40, 10], [0, 40, 10], weight=400),
    )
    fixels = map_fixels(replace(geometry, bundles=both), np.array([400.0, 400.0]), SHAPE, VOX2HEAD)
    centre = np.rint(np.linalg.inv(VOX2HEAD) @ [0, 0, 10, 1])[:3].astype(int)
    here = fixels.voxel == np.ravel_multi_index(tuple(centre), SHAPE)
    np.testing.assert_allclose(fixels.fraction[here], [0.5, 0.5], atol=0.05)
    assert abs(fixels.direction[here][0] @ fixels.direction[here][1]) < 1e-6
    total = np.bincount(fixels.voxel, weights=fixels.fraction)
    assert total.max() <= 1 + 1e-9


def test_the_packaged_bundles_cross_in_many_voxels(fixels):
    order = np.argsort(fixels.voxel, kind="stable")
    strong = order[fixels.fraction[order] > 0.25]
    voxel, direction = fixels.voxel[strong], fixels.direction[strong]
    neighbour = voxel[1:] == voxel[:-1]
    cosine = np.abs(np.einsum("ij,ij->i", direction[1:], direction[:-1]))
    assert (neighbour & (cosine < 0.5)).sum() > 150


def test_a_fan_diverges_by_its_factor_and_keeps_its_waist(geometry):
    bundle = straight([-40, 0, 10], [40, 0, 10], fan=(1.0, 1.5))
    tube = make_tube(geometry, bundle, 100.0)
    spread = tube.points_mm.std(axis=0)[:, 1:].max(axis=1)
    assert spread[-1] / spread[len(spread) // 2] == pytest.approx(1.5, rel=0.01)
    assert spread[0] == pytest.approx(spread[len(spread) // 2])
    np.testing.assert_allclose(tube.area_mm2[[0, -1]], [1.0, 2.25])


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_no_tube_folds_onto_itself(geometry, factor):
    for bundle in geometry.bundles:
        points = make_tube(geometry, bundle, factor * bundle.weight).points_mm
        pieces = np.diff(points, axis=1)
        along = np.diff(points[0], axis=0)  # the first line is next to the centre
        assert (np.einsum("lpi,pi->lp", pieces, along) > 0).all(), bundle.name


def test_true_streamlines_end_at_the_two_parcels_of_their_bundle(geometry, tissue):
    voxels = np.argwhere(tissue.labels > 0)
    tree = cKDTree(voxels @ VOX2HEAD[:3, :3].T + VOX2HEAD[:3, 3])
    labels = tissue.labels[tuple(voxels.T)]
    right, total = 0, 0
    for bundle in geometry.bundles:
        wanted = [geometry.parcel(node).index for node in bundle.nodes]
        lines = make_tube(geometry, bundle, bundle.weight).streamlines()
        assert len(lines) == round(bundle.weight)
        distance, nearest = tree.query(np.array([line[[0, -1]] for line in lines]))
        hits = ((labels[nearest] == wanted) & (distance < 4.0)).all(axis=1)
        assert hits.mean() > 0.6, bundle.name
        right, total = right + hits.sum(), total + len(lines)
    assert right / total > 0.95


def test_a_geometry_that_cannot_be_used_says_so(tmp_path):
    broken = tmp_path / "head.toml"
    broken.write_text("streamlines_per_mm2 = 1.0\n")
    with pytest.raises(InputError, match="head"):
        load_geometry(broken)
    with pytest.raises(InputError, match="no parcel"):
        load_geometry().parcel("LH-Nowhere")
