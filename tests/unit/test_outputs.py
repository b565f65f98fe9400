"""Names of outputs, and the check that promised ones exist."""

from pathlib import Path

import pytest
from bids.layout.writing import build_path

from difftract_bids.bids.anatomy import Anatomy
from difftract_bids.bids.fodf_model import ModelChoice
from difftract_bids.bids.layout import open_derivatives, path_patterns
from difftract_bids.bids.outputs import (
    OUTPUTS,
    output_entities,
    output_path,
    sensitivity_maps,
    tracked_in,
)
from difftract_bids.bids.promises import missing_outputs, promised_outputs
from difftract_bids.bids.refinement_target import RefinementTarget
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import (
    MEASURES,
    TISSUES,
    Config,
    ConnectomeConfig,
    FodfConfig,
    OutputConfig,
    TrackingConfig,
)


def dwi_run(t1w=None, model="csd", refinement=None, **entities):
    files = (Path("a.nii.gz"), Path("a.bval"), Path("a.bvec"))
    chosen = ModelChoice(model, "it was asked for")
    return DWIRun(
        {"subject": "01", **entities},
        *files,
        anatomy=Anatomy(t1w=t1w),
        fodf_model=chosen,
        refinement=refinement,
    )


def of_fodf(model, **settings):
    config = Config(fodf=FodfConfig(**settings))
    names = promised_outputs(dwi_run(model=model), ["A"], config)
    stem = f"sub-01/dwi/sub-01_model-{model}_"
    return sorted(
        name.removeprefix(stem)
        for name in names
        if name.startswith(stem) and not name.endswith(".json")
    )


MAPS = [f"param-{param}_dwimap.nii.gz" for param in ("afdtotal", "nufo", "peak")]


def test_one_tissue_has_one_fodf_and_one_response():
    expected = ["label-WM_response.txt", "param-fod_dwimap.nii.gz", *MAPS]
    assert of_fodf("csd") == sorted(expected)


@pytest.mark.parametrize("model", ["msmtcsd", "ss2t"])
def test_each_tissue_of_a_model_has_an_fodf_and_a_response_with_its_label(model):
    expected = [
        name
        for tissue in TISSUES[model]
        for name in (f"label-{tissue}_response.txt", f"param-fod_label-{tissue}_dwimap.nii.gz")
    ]
    assert of_fodf(model) == sorted(expected + MAPS)


def test_responses_that_were_given_are_no_outputs():
    assert not [name for name in of_fodf("csd", response=("r.txt",)) if "response" in name]
    expected = ["param-fod_dwimap.nii.gz", *MAPS]
    assert of_fodf("given", input_fodf="f.nii.gz") == sorted(expected)


def test_predicted_fodfs_have_no_response():
    assert of_fodf("learned", fodf_model_file="m") == sorted(["param-fod_dwimap.nii.gz", *MAPS])


def test_adjusted_fodfs_lie_beside_those_before_and_are_what_is_tracked():
    for model, label in (("csd", ""), ("ss2t", "label-WM_"), ("learned", "")):
        target = RefinementTarget(Path("t.dense.tsv"), "connectome", "A")
        before, after = dwi_run(model=model), dwi_run(model=model, refinement=target)
        names = [set(promised_outputs(run, ["A"], Config())) for run in (before, after)]
        stem = f"sub-01/dwi/sub-01_model-{model}_param-fod_{label}"
        assert names[1] - names[0] == {
            f"{stem}desc-refined_dwimap.nii.gz",
            f"{stem}desc-refined_dwimap.json",
            "sub-01/figures/sub-01_desc-refinement_dwi.svg",
        }
        assert [tracked_in(run, Config()) for run in (before, after)] == ["fodf", "refined_fodf"]
        assert "sensitivity_dwi" not in sensitivity_maps(after)
        assert ("sensitivity_dwi" in sensitivity_maps(before)) == (model != "learned")


def test_figures_follow_the_model():
    shown = {}
    for model in ("csd", "msmtcsd", "given"):
        names = " ".join(promised_outputs(dwi_run(model=model), ["A"], Config()))
        shown[model] = [desc for desc in ("response", "tissues") if f"desc-{desc}_dwi" in names]
    assert shown == {"csd": ["response"], "msmtcsd": ["response", "tissues"], "given": []}


def test_matrices_are_named_as_the_drafts_of_the_standard_have_them():
    run = dwi_run(session="A", direction="AP", run="02")
    assert output_path(run, "count", Config(), "X1") == (
        "sub-01/ses-A/dwi/sub-01_ses-A_dir-AP_run-02_atlas-X1_meas-count_relmat.dense.tsv"
    )


def test_no_two_outputs_of_a_run_share_a_name():
    names = list(promised_outputs(dwi_run(t1w=Path("t")), ["A", "B"], Config()))
    assert len(names) == len(set(names))
    assert sum("atlas-A_" in name for name in names) == sum("atlas-B_" in name for name in names)


def of_atlas(**connectome):
    config = Config(connectome=ConnectomeConfig(**connectome))
    stem = "sub-01/dwi/sub-01_"
    return {
        name.removeprefix(stem)
        for name in promised_outputs(dwi_run(), ["A"], config)
        if name.startswith(stem) and not name.endswith(".json")
    }


def test_each_measure_has_a_matrix_of_its_own():
    matrices = {name for name in of_atlas(connectome_measures=MEASURES) if "relmat" in name}
    assert matrices == {f"atlas-A_meas-{measure}_relmat.dense.tsv" for measure in MEASURES}


def test_what_the_settings_ask_for_is_promised_and_nothing_else():
    usual = of_atlas()
    assert not [name for name in usual if "sift2" in name]
    weighed = of_atlas(connectome_measures=(*ConnectomeConfig().connectome_measures, "sift2"))
    assert weighed - usual == {
        "model-sdstream_desc-sift2_weights.tsv",
        "atlas-A_meas-sift2_relmat.dense.tsv",
    }
    assert of_atlas(streamline_assignments=True) - usual == {"atlas-A_assignments.tsv"}
    assert of_atlas(connectome_hdf5=True) - usual == {"desc-connectomes_relmat.h5"}
    assert usual - of_atlas(connectome_measures=("count", "meanfa", "meanmd")) == {
        "atlas-A_meas-meanlength_relmat.dense.tsv"
    }


def test_the_second_figure_is_there_where_it_has_something_to_show():
    for measures, there in ((("count",), False), (("count", "meanlength"), True)):
        config = Config(connectome=ConnectomeConfig(connectome_measures=measures))
        names = " ".join(promised_outputs(dwi_run(), ["A"], config))
        assert ("desc-edges_dwi.svg" in names) == there


@pytest.mark.parametrize(
    ("entities", "name"),
    [
        (
            {
                "desc": "LHIPxRTHA",
                "param": "sensitivity",
                "suffix": "dwimap",
                "extension": ".nii.gz",
            },
            "sub-01_atlas-A_desc-LHIPxRTHA_param-sensitivity_dwimap.nii.gz",
        ),
        (
            {"meas": "count", "stat": "sd", "suffix": "relmat", "extension": ".dense.tsv"},
            "sub-01_atlas-A_meas-count_stat-sd_relmat.dense.tsv",
        ),
    ],
)
def test_maps_and_errors_of_edges_have_names(entities, name):
    known = {"subject": "01", "datatype": "dwi", "atlas": "A", **entities}
    assert build_path(known, path_patterns(), strict=True) == f"sub-01/dwi/{name}"


@pytest.mark.parametrize("form", ["trx", "tck", "trk"])
def test_the_tractogram_has_the_extension_of_the_format_asked_for(form):
    config = Config(output=OutputConfig(tractogram_format=form))
    assert output_path(dwi_run(), "tractogram", config).endswith(f"_tractogram.{form}")


def test_the_tractogram_is_named_after_its_algorithm():
    config = Config(tracking=TrackingConfig(algorithm="tensor_det"))
    path = output_path(dwi_run(), "tractogram", config)
    assert path.endswith("_model-tensordet_tractogram.trx")


def test_without_a_tractogram_all_the_rest_is_promised():
    config = Config(output=OutputConfig(tractogram=False))
    names = set(promised_outputs(dwi_run(), ["A"], config))
    missing = set(promised_outputs(dwi_run(), ["A"], Config())) - names
    stem = "sub-01/dwi/sub-01_model-sdstream_tractogram"
    assert missing == {f"{stem}.trx", f"{stem}.json"}


def test_without_a_t1w_nothing_in_its_space_is_promised():
    names = list(promised_outputs(dwi_run(), ["A"], Config()))
    assert not [name for name in names if "T1w" in name]


def test_missing_and_empty_outputs_are_both_found(tmp_path):
    run = dwi_run()
    promised = list(promised_outputs(run, ["A"], Config()))
    for name in promised:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("content")
    assert missing_outputs(tmp_path, promised_outputs(run, ["A"], Config())) == []
    (tmp_path / promised[0]).unlink()
    (tmp_path / promised[3]).write_text("")
    found = missing_outputs(tmp_path, promised_outputs(run, ["A"], Config()))
    assert found == sorted([promised[0], promised[3]])


@pytest.mark.parametrize("key", OUTPUTS)
def test_pybids_reads_back_every_entity_of_every_output(tmp_path, key):
    target = RefinementTarget(Path("t.tck"), "tractogram")
    run = dwi_run(session="A", run="1", model="msmtcsd", refinement=target)
    atlas = "X" if OUTPUTS[key].per_atlas else None
    template = "T2009" if OUTPUTS[key].per_template else None
    path = tmp_path / output_path(run, key, Config(), atlas, template)
    path.parent.mkdir(parents=True)
    path.write_text("x")
    (tmp_path / "dataset_description.json").write_text('{"Name": "n", "BIDSVersion": "1.10.0"}')
    (found,) = open_derivatives(tmp_path).get(subject="01", session="A")
    wanted = output_entities(key, run, Config(), template)
    assert {name: found.get_entities()[name] for name in wanted} == wanted
