"""Quality measures of the runs of a group, and which runs stand apart."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from groups import place, write_connectome, write_quality

from difftract_bids.checks.table import write_checks
from difftract_bids.checks.verdict import Check
from difftract_bids.group.files import Selection, iter_participants
from difftract_bids.group.loading import load_run
from difftract_bids.group.outliers import spread_of
from difftract_bids.group.quality_columns import quality_columns
from difftract_bids.group.quality_table import assess_quality
from difftract_bids.group.summarise import summarise

COUNTS = np.array([[4.0, 6.0, 0.0], [6.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def measured(out):
    """Measures of the only run."""
    ((_, (run,)),) = iter_participants(out, Selection())
    return load_run(run).quality


def assessed(out, threshold=3.5):
    summary = summarise(out, out, Selection())
    table, dictionary = assess_quality(summary.runs, summary.edges, threshold, out)
    return pd.read_csv(table, sep="\t"), json.loads(dictionary.read_text())


def test_a_run_is_measured_by_its_files(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    lengths = np.where(COUNTS > 4, 50.0, 20.0) * (COUNTS > 0)
    write_connectome(tmp_path, "01", lengths, measure="meanlength")
    write_quality(
        tmp_path, "01", moved_mm=(0.1, 0.5), voxel_mm=2.0, fa=0.3, sigma=12.0, streamlines=20
    )
    found = measured(tmp_path).measures
    assert found == pytest.approx({
        "fd_mean": 0.3,
        "fd_max": 0.5,
        "volumes": 3,
        "outlier_share": 1 / 15,
        "mask_volume_mm3": 4**3 * 8,
        "fa_mean": 0.3,
        "sigma_median": 12.0,
        "seeds": 1000,
        "streamlines": 20,
        "kept_share": 0.02,
        "density_A": 1 / 3,
        "empty_nodes_A": 1,
        "assigned_share_A": 0.5,
        "length_mean_mm_A": (4 * 20 + 6 * 50) / 10,
    })  # fmt: skip


def put_checks(out, participant, *lights):
    folder, stem = place(out, participant)
    checks = [Check(f"check{i}", "Title", light, "Found.") for i, light in enumerate(lights)]
    return write_checks(checks, folder / f"{stem}_desc-checks_quality.tsv")


def test_lights_that_are_on_are_counted(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    path = put_checks(tmp_path, "01", "bad", "look", "look", "good", "unknown")
    found = measured(tmp_path).measures
    assert (found["checks_bad"], found["checks_look"]) == (1, 2)
    # An empty table must not pass for a run in which nothing was found.
    path.write_text("")
    quality = measured(tmp_path)
    assert not {"checks_bad", "checks_look"} & set(quality.measures)
    assert [Path(name).name for name in quality.unread] == [path.name]


def test_a_run_with_something_wrong_stands_apart_from_runs_without(tmp_path):
    for i in range(9):
        write_connectome(tmp_path, f"{i:02d}", COUNTS)
        put_checks(tmp_path, f"{i:02d}", *(["bad"] if i == 4 else []), "good")
    table, dictionary = assessed(tmp_path)
    assert list(table.checks_bad) == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert list(table.participant_id[table.outliers == "checks_bad"]) == ["sub-04"]
    assert "light bad" in dictionary["checks_bad"]["Description"]


def test_a_file_that_is_missing_leaves_its_measures_out(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    write_quality(tmp_path, "01")
    folder, stem = place(tmp_path, "01")
    for ending in ("desc-confounds_timeseries.tsv", "param-sigma_desc-noise_dwimap.nii.gz"):
        (folder / f"{stem}_{ending}").unlink()
    quality = measured(tmp_path)
    assert not {"fd_mean", "volumes", "sigma_median"} & set(quality.measures)
    assert {"fa_mean", "seeds", "density_A"} <= set(quality.measures)
    assert quality.unread == []


@pytest.mark.parametrize(
    ("ending", "lost"),
    [
        ("desc-confounds_timeseries.tsv", "fd_mean"),
        ("desc-outliers_timeseries.tsv", "outlier_share"),
        ("desc-brain_mask.nii.gz", "mask_volume_mm3"),
        ("model-tensor_param-fa_dwimap.nii.gz", "fa_mean"),
        ("model-sdstream_tractogram.json", "streamlines"),
    ],
)
@pytest.mark.parametrize("damage", ["nothing", "nonsense", "part"])
def test_a_file_that_is_damaged_is_named_and_the_others_are_measured(
    tmp_path, ending, lost, damage
):
    write_connectome(tmp_path, "01", COUNTS)
    write_quality(tmp_path, "01")
    folder, stem = place(tmp_path, "01")
    path = folder / f"{stem}_{ending}"
    content = path.read_bytes()
    part = content[: len(content) // 2] if ending.endswith("gz") else content[:-8]
    damaged = {"nothing": b"", "nonsense": b"\x80 no\tsuch\n1", "part": part}
    path.write_bytes(damaged[damage])
    quality = measured(tmp_path)
    assert lost not in quality.measures
    assert quality.unread == [path.name]
    assert "density_A" in quality.measures


def test_images_on_another_grid_than_the_mask_are_not_summed_up(tmp_path):
    write_quality(tmp_path, "01", shape=(5, 6, 7))
    folder, stem = place(tmp_path, "01")
    mask = (folder / f"{stem}_desc-brain_mask.nii.gz").read_bytes()
    write_quality(tmp_path, "01", shape=(6, 6, 6))
    (folder / f"{stem}_desc-brain_mask.nii.gz").write_bytes(mask)
    quality = measured(tmp_path)
    assert "fa_mean" not in quality.measures
    assert f"{stem}_model-tensor_param-fa_dwimap.nii.gz" in quality.unread


def test_where_fa_is_not_known_it_is_not_averaged(tmp_path):
    values = np.full((6, 6, 6), 0.5)
    values[2, 2, 2] = np.nan
    write_quality(tmp_path, "01", fa=values)
    assert measured(tmp_path).measures["fa_mean"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "sidecar",
    [
        {"StreamlineWeighting": "weights.tsv"},
        {"Assignment": {"Mode": "all_voxels"}},
        {"ValidDiagonal": False},
    ],
)
def test_weighted_counts_are_no_share_of_the_streamlines(tmp_path, sidecar):
    write_connectome(tmp_path, "01", COUNTS, **sidecar)
    write_quality(tmp_path, "01", streamlines=20)
    assert "assigned_share_A" not in measured(tmp_path).measures


def test_a_run_without_a_connectome_has_a_row(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    write_quality(tmp_path, "02")
    frame, _ = assessed(tmp_path)
    row = frame.set_index("run").loc["sub-02"]
    assert row["seeds"] == 1000
    assert np.isnan(row["density_A"])


def test_every_column_stands_in_the_dictionary(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    frame, dictionary = assessed(tmp_path)
    assert set(frame.columns) <= set(dictionary)
    assert all(dictionary[name]["Description"] for name in frame.columns)
    assert len(quality_columns(["A"])) + 4 == len(frame.columns)


def runs(out, moved_mm):
    for i, mm in enumerate(moved_mm):
        write_connectome(out, f"{i:02d}", COUNTS)
        write_quality(out, f"{i:02d}", moved_mm=(mm, mm))


def test_the_run_that_stands_apart_is_flagged_and_no_other(tmp_path):
    runs(tmp_path, [0.2, 0.21, 0.19, 0.22, 1.4, 0.2, 0.2])
    frame, dictionary = assessed(tmp_path)
    flagged = dict(zip(frame["run"], frame["outliers"], strict=True))
    assert flagged.pop("sub-04") == "fd_mean,fd_max"
    assert set(flagged.values()) == {"none"}
    said = dictionary["fd_mean"]
    assert said["Median"] == pytest.approx(0.2)
    # Deviations from 0.2: 0, 0.01, 0.01, 0.02, 1.2, 0, 0; their median is 0.01.
    assert said["RobustSD"] == pytest.approx(1.4826 * 0.01)
    assert said["UpperLimit"] == pytest.approx(0.2 + 3.5 * 1.4826 * 0.01)
    assert "LowerLimit" not in said


def test_the_threshold_is_that_of_the_settings(tmp_path):
    runs(tmp_path, [0.2, 0.21, 0.19, 0.22, 1.4, 0.2, 0.2])
    frame, dictionary = assessed(tmp_path, threshold=200.0)
    assert set(frame["outliers"]) == {"none"}
    assert dictionary["OutlierThreshold"] == 200.0


def test_fewer_than_five_runs_are_not_assessed_and_the_dictionary_says_why(tmp_path):
    runs(tmp_path, [0.2, 0.21, 0.19, 9.0])
    frame, dictionary = assessed(tmp_path)
    assert frame["outliers"].isna().all()
    assert "of 5 runs" in dictionary["outliers"]["Description"]
    assert "Median" not in dictionary["fd_mean"]


def flagged(values, fault="either", threshold=3.5):
    values = np.array(values, dtype=float)
    return np.flatnonzero(spread_of(values, threshold, fault).flagged(values)).tolist()


def test_only_the_side_that_is_a_fault_is_flagged():
    values = [-50.0, *range(10), 50.0]
    assert flagged(values, "high") == [11]
    assert flagged(values, "low") == [0]
    assert flagged(values, "either") == [0, 11]


def test_values_that_differ_by_rounding_are_not_flagged():
    assert flagged([0.1 + 0.2] * 20 + [0.3]) == []


def test_one_that_differs_among_the_same_is_flagged():
    assert flagged([2000.0] * 20 + [1999.0]) == [20]


def test_where_nearly_half_differ_from_the_same_none_is():
    assert flagged([0.0] * 11 + [1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.0, 1.0]) == []


def test_what_is_not_known_is_neither_flagged_nor_counted():
    assert flagged([np.nan, 1.0, 2.0, 3.0, 2.5, 1.5, 90.0]) == [6]
    assert spread_of(np.array([1.0, 2.0, 3.0, 4.0, np.nan]), 3.5, "either") is None
