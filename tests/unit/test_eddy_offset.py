"""What eddy currents shift is told from where the head is."""

import numpy as np
import pytest

from difftract_bids.preprocessing.eddy_offset import eddy_offsets

SHIFT_MM = np.array([0.2, -0.5, 0.6])
BVALS = np.full(60, 1000.0)


@pytest.fixture
def bvecs():
    directions = np.random.default_rng(0).normal(size=(60, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.fixture
def head_mm():
    """A head that drifts by 2 mm and jumps by 4 for three volumes, measured to 0.05 mm."""
    noise = np.random.default_rng(1).normal(0, 0.05, 60)
    where = np.linspace(0, 2, 60) + noise
    where[20:23] += 4
    return where


def test_shifts_that_follow_the_direction_are_told_from_a_drifting_and_jumping_head(
    bvecs, head_mm
):
    found = eddy_offsets(head_mm + bvecs @ SHIFT_MM, BVALS, bvecs)
    assert np.abs(found - bvecs @ SHIFT_MM).max() < 0.06


def test_a_head_without_eddy_currents_keeps_its_movement(bvecs, head_mm):
    assert not eddy_offsets(head_mm, BVALS, bvecs).any()


def test_few_volumes_keep_theirs(bvecs, head_mm):
    assert not eddy_offsets((head_mm + bvecs @ SHIFT_MM)[:8], BVALS[:8], bvecs[:8]).any()


def test_a_head_at_rest_has_none(bvecs):
    assert not eddy_offsets(np.zeros(60), BVALS, bvecs).any()


def test_a_steady_drift_is_the_heads_however_directions_are_ordered(bvecs):
    ordered = bvecs[np.argsort(bvecs[:, 2])]
    assert np.abs(eddy_offsets(np.linspace(0, 2, 60), BVALS, ordered)).max() < 1e-9


def test_a_wandering_head_is_seldom_taken_for_eddy_currents(bvecs):
    wandering = np.random.default_rng(2).normal(0, 0.2, (100, 60)).cumsum(axis=1)
    taken = [eddy_offsets(one, BVALS, bvecs).any() for one in wandering]
    assert np.mean(taken) < 0.05
