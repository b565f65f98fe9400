"""What a dry run says of memory is what the graph asks for."""

from __future__ import annotations

import pytest
from datasets import TWO_SHELLS, write_dataset

from difftract_bids.bids.footprint import footprint_gb, largest_step_gb, series_gb
from difftract_bids.bids.plan import make_plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config, merge
from difftract_bids.workflows.run import init_run_wf

CASES = {
    "default": {},
    "no motion correction": {"preprocessing": {"motion_correction": "none"}},
    "weights": {"connectome": {"connectome_measures": ["count", "sift2"]}},
    "errors": {"sensitivity": {"edge_standard_errors": True}},
    "sensitivity": {"sensitivity": {"sensitivity": ["total"]}},
    "finer voxels": {"preprocessing": {"output_resolution_mm": 1.0}},
}


def planned(tmp_path, settings, shells):
    dataset = write_dataset(tmp_path / "bids", t1w=True, shells=shells)
    config = merge(Config(), settings, where="here")
    return make_plan(dataset, tmp_path / "out", tmp_path / "work", config)


@pytest.mark.parametrize("series", [0.0, 0.6, 5.0])
@pytest.mark.parametrize("case", CASES)
def test_the_largest_step_is_that_of_the_graph(tmp_path, monkeypatch, case, series):
    monkeypatch.setattr(DWIRun, "size_gb", series)
    shells = TWO_SHELLS if case == "weights" else ((1000, 8),)
    plan = planned(tmp_path, CASES[case], shells)
    graph = init_run_wf(plan, plan.runs[0])
    nodes = [graph.get_node(name) for name in graph.list_node_names()]
    assert largest_step_gb(plan, plan.runs[0])[1] == pytest.approx(max(n.mem_gb for n in nodes))


def test_finer_voxels_are_more_and_coarser_ones_no_fewer_before_they_are_made(tmp_path):
    plan = planned(tmp_path, {}, ((1000, 8),))
    (run,) = plan.runs

    def size(resolution):
        settings = {"preprocessing": {"output_resolution_mm": resolution}}
        return series_gb(run, merge(Config(), settings, where="here"))

    native = run.size_gb
    assert size(1.0) > 2 * native
    assert size(10.0) == native


def test_what_is_not_kept_takes_no_disk(tmp_path):
    plan = planned(tmp_path, {}, ((1000, 8),))
    (run,) = plan.runs
    without = merge(Config(), {"output": {"tractogram": False}}, where="here")
    whole = merge(Config(), {"output": {"tractogram_tolerance_mm": 0.0}}, where="here")
    outputs = [footprint_gb(run, config)[0] for config in (without, Config(), whole)]
    assert outputs[0] < 0.1 < outputs[1] < 0.5 < outputs[2]
