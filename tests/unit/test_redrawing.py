"""Figures of a finished run are drawn again from what of it is there, and from nothing else."""

import json
from dataclasses import replace
from pathlib import PurePath

import numpy as np
import pytest
from datasets import write_dataset

from difftract_bids.bids.drawn_from import atlas_sources, counts_of, run_sources, template_sources
from difftract_bids.bids.edge_targets import EdgeTarget
from difftract_bids.bids.figures import figure_anchors, promised_figures
from difftract_bids.bids.fodf_sidecars import sh_encoding
from difftract_bids.bids.outputs import output_path
from difftract_bids.bids.plan import make_plan
from difftract_bids.config import Config, ConnectomeConfig, OutputConfig, SensitivityConfig
from difftract_bids.interfaces.reread import RereadTractogram
from difftract_bids.io.summaries import read_summary
from difftract_bids.io.tractograms import StreamlineArrays, read_tractogram, write_tractogram
from difftract_bids.workflows.redrawing import init_redrawing_wf

COUNT = {
    "ValidDiagonal": True,
    "StorageFormat": "Full",
    "StreamlineWeighting": "none",
    "StreamlinesAssigned": 7,
}
SIDECARS = {
    "tractogram": {"Counts": {"Seeds": 9}},
    "fodf": {"FODFModel": "csd", **sh_encoding(8, "mrtrix3")},
    "checks": {"Notes": ["A note."]},
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("raw") / "bids", t1w=True)


@pytest.fixture
def finished(raw, tmp_path):
    """Two atlases of one template, and every file that was promised of them."""
    return finish(plan_of(raw, tmp_path))


def plan_of(raw, folder, **settings):
    plan = make_plan(raw, folder / "out", folder / "work", Config(**settings))
    (own,) = plan.atlases
    return replace(plan, atlases=(own, replace(own, name="Other")))


def finish(plan):
    run = plan.runs[0]
    for path in plan.promised(run):
        (plan.output_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (plan.output_dir / path).write_text("{}" if path.endswith(".json") else "x")
    for key, content in SIDECARS.items():
        describe(plan, key, content)
    for atlas in plan.atlases:
        describe(plan, "count", COUNT, atlas.name)
    return plan


def saved(plan, key, atlas=None):
    return plan.output_dir / output_path(plan.runs[0], key, plan.config, atlas)


def describe(plan, key, content, atlas=None):
    path = saved(plan, key, atlas)
    path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps(content))


def sources(plan):
    return run_sources(plan, plan.runs[0])


def test_everything_that_was_saved_is_drawn_from(finished):
    found = sources(finished)
    assert found.pop("tractogram_metadata") == SIDECARS["tractogram"]
    assert found.pop("fodf_metadata") == SIDECARS["fodf"]
    assert found.pop("notes") == ["A note."]
    files = {
        **{key: key for key in ("mask", "dwiref", "fa", "t1w_dwi", "fodf", "response_wm")},
        **{key: key for key in ("tractogram", "sigma", "confounds", "outliers")},
        "dwi": "preproc_dwi",
        "bval": "preproc_bval",
        "bvec": "preproc_bvec",
        "v1": "colour_fa",
        "earlier": "checks",
    }
    assert found == {field: str(saved(finished, key)) for field, key in files.items()}


@pytest.mark.parametrize(
    ("key", "field"),
    [("mask", "mask"), ("preproc_dwi", "dwi"), ("colour_fa", "v1"), ("tractogram", "tractogram")],
)
def test_what_is_not_there_is_left_out_and_nothing_else(finished, key, field):
    before = sources(finished)
    saved(finished, key).unlink()
    assert sources(finished) == {name: it for name, it in before.items() if name != field}


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '"Counts"', '{"Notes": 1}', "{}"])
def test_sidecars_that_say_nothing_are_left_out(finished, damage):
    for key in SIDECARS:
        path = saved(finished, key)
        path.with_name(path.name.split(".")[0] + ".json").write_text(damage)
    assert not {"tractogram_metadata", "fodf_metadata", "notes"} & set(sources(finished))


@pytest.mark.parametrize("encoding", [sh_encoding(8, "descoteaux07"), {"OrientationEncoding": 1}])
def test_fodfs_in_another_basis_are_not_drawn_and_their_model_is_told_all_the_same(
    finished, encoding
):
    # By what their sidecar says: the settings of this call are not those of the run.
    before = names(finished)
    describe(finished, "fodf", {"FODFModel": "csd", **encoding})
    found = sources(finished)
    assert "fodf" not in found
    assert found["fodf_metadata"] == {"FODFModel": "csd", **encoding}
    assert before - names(finished) == {"plot_fodf", "ds_fodf"}


def of_atlas(plan, number=0):
    return atlas_sources(plan, plan.runs[0], plan.atlases[number])


def test_what_there_is_of_an_atlas_is_that_of_no_other(finished):
    first, second = of_atlas(finished), of_atlas(finished, 1)
    assert set(first) == set(second) == {
        *("streamlines", "meanlength", "meanfa", "meanmd", "parcellation", "table", "nodeindices"),
        *("dwiref", "mask", "fa"),
    }  # fmt: skip
    assert first["streamlines"] == str(saved(finished, "count", "ICBM100"))
    assert second["streamlines"] == str(saved(finished, "count", "Other"))
    saved(finished, "dseg", "Other").unlink()
    assert set(second) - set(of_atlas(finished, 1)) == {"parcellation"}
    assert of_atlas(finished) == first


@pytest.mark.parametrize(
    "change",
    [
        {"ValidDiagonal": False},
        {"StorageFormat": "UpperTriangle"},
        {"StreamlineWeighting": "weights.tsv"},
        {"ValidDiagonal": None},
    ],
)
def test_a_matrix_that_is_not_the_one_that_was_drawn_is_not_drawn(finished, change):
    # By what its sidecar says: the settings of this call are not those of the run.
    describe(finished, "count", COUNT | change, "Other")
    assert "streamlines" not in of_atlas(finished, 1)
    assert "streamlines" in of_atlas(finished)
    # Which figures there are of all atlases together, nobody can say any more.
    assert counts_of(finished, finished.runs[0]) == {}


def test_settings_of_this_call_do_not_hide_what_was_saved_otherwise(raw, tmp_path):
    settings = {
        "connectome": ConnectomeConfig(zero_diagonal=True),
        "output": OutputConfig(sh_basis="descoteaux07"),
    }
    plan = finish(plan_of(raw, tmp_path, **settings))
    assert "streamlines" in of_atlas(plan)
    assert "fodf" in sources(plan)


def test_counts_of_all_atlases_go_with_the_numbers_assigned_if_all_are_known(finished):
    run = finished.runs[0]
    counts = [str(saved(finished, "count", atlas)) for atlas in ("ICBM100", "Other")]
    assert counts_of(finished, run) == {"counts": counts, "assigned": [7, 7]}
    describe(finished, "count", COUNT | {"StreamlinesAssigned": None}, "Other")
    assert counts_of(finished, run) == {"counts": counts}
    saved(finished, "count", "Other").unlink()
    assert counts_of(finished, run) == {}


def test_a_template_is_drawn_where_its_way_and_the_t1w_are_there(finished):
    run = finished.runs[0]
    (template,) = finished.templates_of(run)
    assert set(template_sources(finished, run, template)) == {"t1w", "mask", "warp"}
    bare = replace(run, anatomy=replace(run.anatomy, t1w=None))
    assert set(template_sources(finished, bare, template)) == {"mask", "warp"}


def names(plan):
    """Figures that are drawn, and other steps."""
    steps = init_redrawing_wf(plan).list_node_names()
    return {step.rpartition(".")[2] for step in steps}


def test_all_that_can_be_is_drawn_again_and_what_came_before_the_results_is_not(finished):
    drawn = {
        *("gradients", "mask", "coreg", "coregflicker", "fa", "fodf", "response", "motion"),
        *("tractogram", "view3d", "lengths", "summary", "template", "templateflicker"),
        *("parcellation", "connectome", "matrix", "nodes", "edges"),
    }
    steps = names(finished)
    assert {step[5:] for step in steps if step.startswith("plot_")} == drawn
    assert {"ds_checks", "reread", "gather_checks", "check_images", "check_template"} <= steps
    # Not the steps themselves, and no record: that a run is finished is for it to say.
    assert not {step for step in steps if step.startswith("record")}


@pytest.mark.parametrize(
    ("key", "lost"),
    [
        ("tractogram", {"tractogram", "view3d", "lengths", "summary"}),
        ("count", {"connectome", "matrix", "nodes", "summary"}),
        ("t1w_dwi", {"coreg", "coregflicker", "view3d", "template", "templateflicker"}),
        ("fodf", {"fodf"}),
        ("colour_fa", {"fa"}),
        ("confounds", {"motion"}),
        ("dseg", {"parcellation"}),
    ],
)
def test_a_missing_file_costs_the_figures_that_need_it(finished, key, lost):
    before = names(finished)
    for atlas in ("ICBM100", "Other") if key in ("count", "dseg") else (None,):
        saved(finished, key, atlas).unlink()
    after = names(finished)
    assert {step[5:] for step in before - after if step.startswith("plot_")} == lost
    # Without a summary of the run, its lights stay as they are.
    assert ("ds_checks" in after) == ("summary" not in lost)


def test_of_a_run_that_saved_nothing_nothing_is_drawn(finished):
    saved(finished, "preproc_dwi").unlink()
    assert init_redrawing_wf(finished).list_node_names() == []


def test_standard_errors_are_drawn_again_where_there_are_some(raw, tmp_path):
    settings = SensitivityConfig(edge_standard_errors=True)
    plan = finish(plan_of(raw, tmp_path, sensitivity=settings))
    assert {"plot_errors_atlas_ICBM100_wf", "plot_errors_atlas_Other_wf"} <= names(plan)
    saved(plan, "edge_sd", "Other").unlink()
    assert "plot_errors_atlas_Other_wf" not in names(plan)


def test_every_promised_figure_has_an_anchor_by_its_name(raw, tmp_path):
    plan = plan_of(raw, tmp_path)
    targets = tuple((atlas.name, EdgeTarget("total", "total")) for atlas in plan.atlases)
    run = replace(plan.runs[0], edge_targets=targets)
    of = [atlas.name for atlas in plan.atlases], plan.config, list(plan.templates_of(run))
    anchors = figure_anchors(run, *of)
    assert sorted(anchors.values()) == sorted(PurePath(p).stem for p in promised_figures(run, *of))
    assert anchors["mask"] == "sub-01_desc-mask_dwi"
    assert anchors["parcellation Other"] == "sub-01_atlas-Other_desc-parcellation_dwi"
    (template,) = plan.templates_of(run)
    assert anchors[f"template {template}"] == f"sub-01_label-{template}_desc-template_dwi"


def streamlines(n, seed=0):
    """Wavy lines of 5 to 60 vertices, 1 mm apart on average."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(5, 60, n)
    steps = rng.normal([0.9, 0, 0], 0.2, (counts.sum(), 3))
    offsets = np.r_[0, np.cumsum(counts)]
    points = np.cumsum(steps, axis=0) - np.repeat(np.cumsum(steps, 0)[offsets[:-1]], counts, 0)
    return StreamlineArrays(points.astype(np.float32), offsets)


def reread(path, folder):
    outputs = RereadTractogram(tractogram=str(path)).run(cwd=str(folder)).outputs
    return read_tractogram(outputs.preview), read_summary(outputs.summary)


@pytest.mark.parametrize("suffix", ["trx", "tck", "trk"])
def test_ends_and_lengths_of_a_saved_tractogram_are_those_that_were_saved(tmp_path, suffix):
    lines = streamlines(200)
    grid = {"vox2ras": np.diag([2.0, 2, 2, 1]), "shape": (40, 40, 40)}
    path = write_tractogram(lines, tmp_path / f"a.{suffix}", **grid)
    preview, summary = reread(path, tmp_path)
    np.testing.assert_allclose(summary.ends_mm, lines.ends(), atol=1e-4)
    np.testing.assert_allclose(summary.lengths_mm, lines.lengths_mm(), rtol=1e-4)
    np.testing.assert_array_equal(summary.seed_index, np.arange(200))
    # All of so few are shown, from end to end.
    np.testing.assert_allclose(preview.ends(), lines.ends(), atol=1e-4)


@pytest.mark.parametrize("n", [0, 12_001])
def test_of_many_streamlines_some_thousand_are_shown_and_of_none_none(tmp_path, n):
    lines = streamlines(n)
    path = tmp_path / "a.tck"
    write_tractogram(lines, path, vox2ras=np.eye(4), shape=(9, 9, 9))
    preview, summary = reread(path, tmp_path)
    assert len(summary.lengths_mm) == n
    assert 2500 * bool(n) <= preview.n_streamlines <= 5000 * bool(n)
    places = np.arange(0, n, 4)
    np.testing.assert_array_equal(preview.ends(), lines.ends()[places])
