"""Motion parameters, framewise displacement and the table that holds them."""

from __future__ import annotations

import numpy as np
import pytest

from difftract_bids.bids.confounds_sidecar import confounds_metadata
from difftract_bids.io.gradients import GradientTable
from difftract_bids.phantom.pose import rigid
from difftract_bids.preprocessing.confounds import (
    COLUMNS,
    framewise_displacement,
    motion_parameters,
    read_affines,
    read_confounds,
    read_outliers,
    write_affines,
    write_confounds,
    write_outliers,
)


def test_parameters_are_those_that_made_the_movement():
    move = rigid(np.array([1.0, -2.0, 3.0]), np.array([4.0, -5.0, 6.0]))
    (found,) = motion_parameters(move[None, :3], np.zeros(3))
    assert found == pytest.approx([1, -2, 3, *np.deg2rad([4, -5, 6])])


def test_translations_are_of_the_brains_centre():
    centre = np.array([10.0, -20.0, 30.0])
    turn = rigid(np.zeros(3), np.array([0.0, 0.0, 90.0]))
    (found,) = motion_parameters(turn[None, :3], centre)
    assert found[:3] == pytest.approx([20 - 10, 10 + 20, 0])


def test_framewise_displacement_adds_shifts_and_arcs_at_50_mm():
    still, moved = np.zeros(6), np.array([1, -1, 0.5, 0.01, 0, -0.02])
    found = framewise_displacement(np.stack([still, moved, moved]))
    assert np.isnan(found[0])
    assert found[1:] == pytest.approx([2.5 + 50 * 0.03, 0])


def test_the_table_comes_back_and_says_what_is_missing(tmp_path):
    parameters = np.array([[0.0] * 6, [0.1, 0.2, 0.3, 0.01, 0.02, 0.03]])
    gradients = GradientTable(np.array([0.0, 1000]), np.array([[0.0, 0, 0], [0, 0.6, -0.8]]))
    path = write_confounds(tmp_path / "c.tsv", parameters, gradients)
    lines = path.read_text().splitlines()
    assert lines[0].split("\t") == list(COLUMNS)
    assert lines[1].split("\t")[6] == "n/a"
    table = read_confounds(path)
    assert table["rot_z"] == pytest.approx([0, 0.03])
    assert table["grad_z"] == pytest.approx([0, -0.8])
    assert np.isnan(table["outlier_slices"]).all()
    flags = np.array([[True, False], [True, False], [False, False]])
    counted = read_confounds(write_confounds(path, parameters, gradients, flags))
    assert counted["outlier_slices"].tolist() == [2, 0]


def test_flags_and_affines_come_back(tmp_path):
    flags = np.random.default_rng(0).random((5, 3)) > 0.5
    assert np.array_equal(read_outliers(write_outliers(tmp_path / "o.tsv", flags)), flags)
    affines = np.random.default_rng(1).normal(size=(4, 3, 4))
    assert read_affines(write_affines(tmp_path / "a.txt", affines)) == pytest.approx(affines)


def test_the_sidecar_describes_every_column_and_the_reference():
    said = confounds_metadata("dipy")
    assert set(COLUMNS) <= set(said)
    assert "first b=0" in said["MotionReference"]
