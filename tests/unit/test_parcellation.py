"""Parcellations on the diffusion grid."""

from __future__ import annotations

import numpy as np
import pytest

from difftract_bids.bids.nodes import NodeTable
from difftract_bids.errors import AtlasError
from difftract_bids.io.images import Volume
from difftract_bids.io.transforms import LinearTransform
from difftract_bids.preprocessing.parcellation import parcellation_in_dwi

NODES = NodeTable((1, 2, 3), ("A", "B", "C"), ("", "", ""))
VOX2RAS = np.diag([-2.0, 2.0, 2.0, 1.0])


def brain():
    mask = np.zeros((10, 10, 10), dtype=bool)
    mask[2:8, 2:8, 2:8] = True
    return Volume(mask, VOX2RAS)


def labels():
    image = np.zeros((10, 10, 10), dtype=np.int16)
    image[3, 3, 3], image[6, 4, 5], image[0, 0, 0] = 1, 2, 3
    return image


def test_labels_on_the_same_grid_are_copied_and_those_far_outside_the_brain_are_lost():
    result = parcellation_in_dwi(Volume(labels(), VOX2RAS), NODES, brain())
    assert result.labels.dtype == np.int32
    expected = labels()
    expected[0, 0, 0] = 0
    assert np.array_equal(result.labels, expected)
    assert result.lost == ("C",)


def test_labels_a_voxel_outside_the_mask_are_kept():
    image = labels()
    image[8, 4, 4] = 3
    assert parcellation_in_dwi(Volume(image, VOX2RAS), NODES, brain()).lost == ()
    image[8, 4, 4], image[9, 4, 4] = 0, 3
    assert parcellation_in_dwi(Volume(image, VOX2RAS), NODES, brain()).lost == ("C",)


def test_labels_on_a_finer_grid_with_another_orientation_land_at_their_place():
    fine = np.zeros((20, 20, 20), dtype=np.int16)
    vox2ras = np.diag([1.0, 1.0, 1.0, 1.0])
    vox2ras[:3, 3] = -18, 0, 0
    fine[18 - 6, 6, 6] = 1  # RAS (-6, 6, 6) is voxel (3, 3, 3) of the mask's grid
    result = parcellation_in_dwi(Volume(fine, vox2ras), NODES, brain())
    assert np.argwhere(result.labels).tolist() == [[3, 3, 3]]
    assert result.lost == ("B", "C")


def test_a_transform_maps_diffusion_points_to_the_atlas():
    shift = LinearTransform(np.eye(4))
    shift.matrix[1, 3] = 4.0  # diffusion y 6 shows the atlas at y 10
    atlas = np.zeros((10, 10, 10), dtype=np.int16)
    atlas[3, 5, 3] = 2
    result = parcellation_in_dwi(Volume(atlas, VOX2RAS), NODES, brain(), [shift])
    assert np.argwhere(result.labels).tolist() == [[3, 3, 3]]


def test_no_label_in_the_brain_is_an_error():
    image = np.zeros((10, 10, 10), dtype=np.int16)
    image[0, 0, 0] = 1
    with pytest.raises(AtlasError, match="None of the 3 nodes"):
        parcellation_in_dwi(Volume(image, VOX2RAS), NODES, brain())
