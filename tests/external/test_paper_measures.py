"""Agreement with tckgen in the measures of the paper on differentiable SD_STREAM.

It claims a mean angular error below 1.5 degrees, a Dice overlap of visited voxels above 92%, and
93% of 10,000 streamlines within 1 mm.

References
----------
Yoon et al. 2025, arXiv:2511.14807.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from mrtrix import human_scene, tckgen
from parity import (
    angular_errors_deg,
    dice_of_each,
    dice_of_voxels,
    pair_up,
    share_in_common_part,
    share_of_whole,
)

from difftract_bids.core import TrackingConfig, track

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("tckgen") is None, reason="MRtrix3's tckgen is not installed"),
]


@pytest.fixture(scope="module", params=[(), ("-max_iters", 2)], ids=["converged", "2-iterations"])
def run(request, tmp_path_factory):
    """10,000 streamlines of both, with a response that is converged, and one that is not."""
    folder = tmp_path_factory.mktemp("human")
    scene = human_scene("ds-human-3mm", folder, *request.param)
    theirs = tckgen(
        *(scene.fod_file, folder, "-seed_image", scene.mask_file),
        *("-select", 10_000),
    )
    config = TrackingConfig()
    ours = track(scene.fodf, theirs.seeds_mm(), theirs.starts(), scene.vox2ras, config)
    return scene, pair_up(theirs, ours)


def test_segments_point_the_same_way(run, record_property):
    errors = angular_errors_deg(run[1])
    record_property("mean_angular_error_deg", float(errors.mean()))
    assert len(errors) > 1_000_000
    assert errors.mean() < 1.5


def test_streamlines_visit_the_same_voxels(run, record_property):
    scene, pairs = run
    overall, each = dice_of_voxels(pairs, scene.vox2ras), dice_of_each(pairs, scene.vox2ras)
    record_property("dice", overall)
    record_property("mean_dice_of_each", float(each.mean()))
    assert overall > 0.92
    assert np.mean(each) > 0.92


def test_streamlines_are_within_a_millimetre(run, record_property):
    _, pairs = run
    share = share_of_whole(pairs, tolerance_mm=1.0)
    record_property("within_1_mm", share)
    record_property("within_0.01_mm", share_of_whole(pairs))
    record_property("common_part_within_0.01_mm", share_in_common_part(pairs))
    assert share > 0.93
