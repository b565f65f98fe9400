"""The graphs: complete, connected, described, and within the machine's means."""

import numpy as np
import pytest
from datasets import ONE_SHELL, TWO_SHELLS, write_dataset
from nipype.interfaces.base import isdefined

from difftract_bids.bids.atlases import resolve_atlas
from difftract_bids.bids.phase_encoding import PhaseEncoding
from difftract_bids.bids.plan import make_plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import (
    Config,
    ConnectomeConfig,
    FodfConfig,
    PreprocessingConfig,
    merge,
)
from difftract_bids.errors import ConfigError, InputError, UsageError
from difftract_bids.io.gradients import read_gradients
from difftract_bids.io.images import load_volume, save_volume
from difftract_bids.io.matrices import write_matrix
from difftract_bids.learn.acquisition import Acquisition
from difftract_bids.learn.architectures import DEFAULT_ARCHITECTURE
from difftract_bids.learn.model_file import save_model
from difftract_bids.learn.network import FODFNetwork, NetworkSettings
from difftract_bids.reports.page.methods import methods_markdown
from difftract_bids.reports.page.references import bibliography
from difftract_bids.workflows.app import init_difftract_wf
from difftract_bids.workflows.connectome import connectome_methods
from difftract_bids.workflows.displacements import Displacements, init_displacements_wf
from difftract_bids.workflows.fodf import fodf_methods, init_fodf_wf
from difftract_bids.workflows.preprocessing import init_preprocessing_wf
from difftract_bids.workflows.weighting import init_weighting_wf


def build(
    tmp_path, *, t1w=False, participants=("01",), sessions=(None,), shells=ONE_SHELL, **tables
):
    dataset = write_dataset(
        tmp_path / "bids", participants, sessions=sessions, t1w=t1w, shells=shells
    )
    config = merge(Config(), tables, where="here")
    plan = make_plan(dataset, tmp_path / "out", tmp_path / "work", config)
    return init_difftract_wf(plan, omp_nthreads=3)


def nodes(workflow):
    return {name: workflow.get_node(name) for name in workflow.list_node_names()}


@pytest.fixture
def workflow(tmp_path):
    return build(tmp_path, t1w=True)


def test_every_mandatory_input_of_every_node_is_set_or_connected(workflow):
    graph = workflow._create_flat_graph()
    for node in graph.nodes:
        fed = {
            target for *_, data in graph.in_edges(node, data=True) for _, target in data["connect"]
        }
        for name in node.interface.inputs.traits(mandatory=True):
            assert name in fed or isdefined(getattr(node.inputs, name)), (node, name)


def test_every_run_of_every_session_has_a_graph_of_its_own(tmp_path):
    names = nodes(build(tmp_path, participants=["01", "02"], sessions=["A", "B"]))
    tracked = {name.rsplit(".", 2)[0] for name in names if name.endswith("tracking_wf.track")}
    assert tracked == {f"sub_{p}_wf.ses{s}_wf" for p in ("01", "02") for s in "AB"}


def test_a_template_is_registered_once_however_many_atlases_it_has(workflow):
    registrations = [name for name in nodes(workflow) if name.endswith(".register")]
    assert len(registrations) == 1


def test_without_a_t1w_tensor_maps_stand_in_for_it(tmp_path):
    names = nodes(build(tmp_path))
    assert not [name for name in names if "align_t1w" in name or "coreg" in name]
    assert "sub_01_wf.dwi_wf.pseudo_t1w_wf.make" in names


def test_heavy_steps_are_given_their_cpus_and_memory(workflow):
    for name in ("preprocessing_wf.part_1_wf.denoise", "fodf_wf.fodf", "tracking_wf.track"):
        node = nodes(workflow)[f"sub_01_wf.dwi_wf.{name}"]
        assert node.n_procs == 3
        assert node.mem_gb > 0.5


def test_figures_and_checks_of_a_large_series_ask_for_its_memory(tmp_path, monkeypatch):
    def asked(size_gb):
        monkeypatch.setattr(DWIRun, "size_gb", size_gb)
        report = nodes(build(tmp_path / str(size_gb))).items()
        return {name.rsplit(".", 1)[1]: node.mem_gb for name, node in report if ".report_" in name}

    small, large = asked(0.0), asked(4.2)
    grown = {name: (large[name] - small[name]) / 4.2 for name in small}
    # What loads series: as many times its size as was measured.
    measured = {"check_images": 3, "plot_denoising": 3, "plot_denoisingflicker": 3}
    measured |= {"plot_motionflicker": 2.5, "plot_gradients": 2, "plot_mask": 0}
    for name, times in measured.items():
        assert grown[name] == pytest.approx(times), name


def test_the_methods_text_says_what_the_graph_does(tmp_path, workflow):
    text = methods_markdown(workflow.visit_desc())
    for words in (
        "until 1,000,000 streamlines were found",
        "Euler's method",
        "registered rigidly",
        "Marchenko-Pastur",
    ):
        assert words in text
    other = build(
        tmp_path / "other",
        preprocessing={"denoise_method": "none"},
        tracking={"integrator": "rk4", "cutoff": 0.07},
    )
    text = methods_markdown(other.visit_desc())
    assert "not denoised" in text
    assert "Veraart" not in text
    assert "Runge-Kutta" in text
    assert "below 0.07" in text
    assert "registered rigidly" not in text


def track_node(workflow, run="sub_01_wf.dwi_wf"):
    return nodes(workflow)[f"{run}.tracking_wf.track"]


def inputs_connected_to_track(workflow):
    graph = workflow._create_flat_graph()
    (node,) = (node for node in graph.nodes if node.name == "track")
    edges = graph.in_edges(node, data=True)
    return {target for *_, data in edges for _, target in data["connect"]}


def test_tensors_are_tracked_in_the_diffusion_image_and_peaks_in_the_fodf(tmp_path, workflow):
    assert inputs_connected_to_track(workflow) == {"fodf", "brain_mask", "images"}
    other = build(
        tmp_path / "other",
        tracking={"algorithm": "tensor_det"},
        preprocessing={"b0_threshold_s_mm2": 70.0},
        connectome={"connectome_measures": ["count"]},
    )
    assert inputs_connected_to_track(other) == {"dwi", "bval", "bvec", "brain_mask"}
    assert track_node(other).inputs.b0_threshold_s_mm2 == 70.0
    text = methods_markdown(other.visit_desc())
    assert "Tensor_Det" in text
    assert "a fractional anisotropy below 0.1" in text


def test_without_a_tractogram_nothing_saves_one_and_all_else_is_made(tmp_path, workflow):
    other = build(tmp_path / "other", t1w=True, output={"tractogram": False})
    saved = {name.split(".")[-1] for name in set(nodes(workflow)) - set(nodes(other))}
    assert saved == {"ds_tractogram"}


def test_each_run_tracks_with_its_own_files_and_all_share_a_methods_text(tmp_path):
    for label in ("01", "02"):
        image = np.ones((3, 3, 3), np.float32)
        save_volume(image, np.eye(4), tmp_path / f"wm-{label}.nii.gz")
    given = str(tmp_path / "wm-{subject}.nii.gz")
    workflow = build(
        tmp_path,
        participants=["01", "02"],
        seeding={"seed_image": given, "seed_grid_per_voxel": 2},
        regions={"include": (given, "1,2,3,4"), "stop": True},
    )
    for label in ("01", "02"):
        inputs = track_node(workflow, f"sub_{label}_wf.dwi_wf").inputs
        own = str(tmp_path / f"wm-{label}.nii.gz")
        assert inputs.seed_image == own
        assert inputs.include == [own, "1,2,3,4"]
    text = methods_markdown(workflow.visit_desc())
    assert text.count("Streamlines were propagated") == 1
    assert "on a grid in wm-{subject}.nii.gz, 8 a voxel" in text
    assert "visited wm-{subject}.nii.gz and the sphere (1,2,3,4) mm and ended then" in text


def in_stage(workflow, stage="fodf_wf"):
    """Nodes of a stage, and what they save."""
    prefix = f"sub_01_wf.dwi_wf.{stage}."
    return {name.removeprefix(prefix) for name in nodes(workflow) if name.startswith(prefix)}


def check_inputs(workflow):
    test_every_mandatory_input_of_every_node_is_set_or_connected(workflow)


def test_one_shell_is_deconvolved_into_one_tissue(workflow):
    assert in_stage(workflow) == {
        "inputnode", "outputnode", "tensor", "maps", "response", "fodf", "notes"
    }  # fmt: skip
    assert nodes(workflow)["sub_01_wf.dwi_wf.fodf_wf.fodf"].inputs.model == "csd"
    assert "of a single shell" in methods_markdown(workflow.visit_desc())


def test_two_shells_are_deconvolved_into_three_tissues_that_are_normalised(tmp_path):
    workflow = build(tmp_path, shells=TWO_SHELLS)
    check_inputs(workflow)
    assert "normalise" in in_stage(workflow)
    fit = nodes(workflow)["sub_01_wf.dwi_wf.fodf_wf.fodf"].inputs
    assert fit.model == "msmtcsd"
    assert "2 usable shells" in fit.model_reason
    saved = in_stage(workflow, "derivatives_wf")
    assert {"ds_fodf", "ds_fodf_gm", "ds_fodf_csf", "ds_response_gm"} <= saved
    assert {"plot_response", "plot_tissues"} <= in_stage(workflow, "report_wf")
    text = methods_markdown(workflow.visit_desc())
    for words in ("Jeurissen", "Dhollander et al., 2019", "Raffelt et al., 2017"):
        assert words in text
    assert "Tournier et al., 2013" not in text


def source_of(graph, node, field):
    """Follow an input back to the node that computes it."""
    for source, _, data in graph.in_edges(node, data=True):
        for output, target in data["connect"]:
            if target == field:
                passes_on = source.name in {"inputnode", "outputnode"}
                return source_of(graph, source, output) if passes_on else source.name
    return None


@pytest.mark.parametrize(("normalise", "last"), [(True, "normalise"), (False, "fodf")])
def test_normalised_tissues_are_tracked_unless_that_is_not_wanted(tmp_path, normalise, last):
    workflow = build(tmp_path, shells=TWO_SHELLS, fodf={"normalise_tissues": normalise})
    graph = workflow._create_flat_graph()
    by_name = named(graph)
    assert source_of(graph, by_name["track"], "fodf") == last
    assert source_of(graph, by_name["ds_fodf_csf"], "in_file") == last
    assert source_of(graph, by_name["ds_fodf_csf"], "meta_dict") == last
    text = methods_markdown(workflow.visit_desc())
    assert ("not normalised" in text) != normalise


def test_two_tissues_of_one_shell_have_no_grey_matter(tmp_path):
    workflow = build(tmp_path, fodf={"model": "ss2t"})
    check_inputs(workflow)
    saved = in_stage(workflow, "derivatives_wf")
    assert {"ds_fodf", "ds_fodf_csf", "ds_response_wm", "ds_response_csf"} <= saved
    assert not [name for name in saved if name.endswith("_gm")]


def test_given_responses_are_not_estimated_and_not_saved(tmp_path):
    path = tmp_path / "response.txt"
    path.write_text("# Shells: 0,1000\n900 0\n500 -100\n")
    workflow = build(tmp_path, fodf={"response": [str(path)]})
    check_inputs(workflow)
    response = nodes(workflow)["sub_01_wf.dwi_wf.fodf_wf.response"]
    assert response.inputs.response_wm == str(path)
    assert not [name for name in in_stage(workflow, "derivatives_wf") if "response" in name]
    assert "were given (response.txt)" in methods_markdown(workflow.visit_desc())


def test_a_given_image_is_tracked_and_nothing_is_fitted(tmp_path):
    write_dataset(tmp_path / "bids")
    dwi = load_volume(tmp_path / "bids/sub-01/dwi/sub-01_dwi.nii.gz")
    fodf = np.zeros((*dwi.data.shape[:3], 15), np.float32)
    fodf[..., 0] = 0.3
    save_volume(fodf, dwi.vox2ras, tmp_path / "fod-01.nii.gz")
    given = str(tmp_path / "fod-{subject}.nii.gz")
    workflow = build(tmp_path, fodf={"input_fodf": given})
    check_inputs(workflow)
    assert in_stage(workflow) == {"inputnode", "outputnode", "tensor", "maps", "take"}
    take = nodes(workflow)["sub_01_wf.dwi_wf.fodf_wf.take"]
    assert take.inputs.in_file == given.format(subject="01")
    assert "the image fod-{subject}.nii.gz" in methods_markdown(workflow.visit_desc())


def named(graph):
    """Nodes by their names; figures are saved by nodes of the same names as derivatives."""
    return {node.name: node for node in graph.nodes if ".report_wf.ds_" not in node.fullname}


def model_file(tmp_path, dataset):
    """Write a network for the runs of a dataset."""
    stem = dataset / "sub-01" / "dwi" / "sub-01_dwi"
    vox2ras = load_volume(f"{stem}.nii.gz").vox2ras
    met = Acquisition.of(read_gradients(f"{stem}.bval", f"{stem}.bvec", vox2ras), vox2ras)
    options = {"width": 2, "n_blocks": 1}
    path = tmp_path / "model.safetensors"
    network = FODFNetwork(NetworkSettings(DEFAULT_ARCHITECTURE, met, 2, 4, options))
    save_model(path, network, {"participants": ["07"], "dataset": "Group A"})
    return str(path)


def test_fodfs_of_a_network_are_predicted_and_tracked(tmp_path):
    path = model_file(tmp_path, write_dataset(tmp_path / "bids"))
    workflow = build(tmp_path, fodf={"fodf_model_file": path, "fodf_model_class": "a.b:C"})
    check_inputs(workflow)
    assert in_stage(workflow) == {"inputnode", "outputnode", "tensor", "maps", "predict"}
    inputs = nodes(workflow)["sub_01_wf.dwi_wf.fodf_wf.predict"].inputs
    assert (inputs.model_file, inputs.model_class) == (path, "a.b:C")
    graph = workflow._create_flat_graph()
    by_name = named(graph)
    for node, field in (("track", "fodf"), ("ds_fodf", "in_file"), ("ds_fodf", "meta_dict")):
        assert source_of(graph, by_name[node], field) == "predict"
    assert not [name for name in in_stage(workflow, "derivatives_wf") if "response" in name]
    assert "plot_response" not in in_stage(workflow, "report_wf")
    assert "from 1 participant (Group A)" in methods_markdown(workflow.visit_desc())
    preprocessed = "bids::sub-01/dwi/sub-01_desc-preproc_dwi.nii.gz"
    assert preprocessed in by_name["ds_fodf"].interface._metadata["Sources"]


def connectome_of_atlas(path, atlas="ICBM100"):
    names = list(resolve_atlas(atlas).nodes.name)
    return str(write_matrix(np.ones((len(names), len(names))), names, path))


def test_fodfs_are_adjusted_before_they_are_tracked(tmp_path):
    target = connectome_of_atlas(tmp_path / "target-01.dense.tsv")
    given = target.replace("01", "{subject}")
    workflow = build(
        tmp_path,
        refinement={"refine_fodf": given, "refine_steps": 7},
        sensitivity={"sensitivity": ["total"]},
        connectome={"connectome_measures": ["count", "sift2"]},
    )
    check_inputs(workflow)
    inputs = nodes(workflow)["sub_01_wf.dwi_wf.refinement_wf.refine"].inputs
    assert (inputs.target, inputs.refine_steps, inputs.model) == (target, 7, "csd")
    graph = workflow._create_flat_graph()
    by_name = named(graph)
    fed = {
        ("track", "fodf"): "refine",
        ("weigh", "fodf"): "refine",
        ("map_total", "fodf"): "refine",
        ("plot_fodf", "fodf"): "refine",
        ("ds_refined_fodf", "in_file"): "refine",
        ("ds_refined_fodf", "meta_dict"): "refine",
        ("ds_fodf", "in_file"): "fodf",
        ("maps", "fodf"): "fodf",
        ("refine", "fodf"): "fodf",
        ("refine", "response_wm"): "response",
        ("refine", "parcellation"): "resample",
    }
    assert {edge: source_of(graph, by_name[edge[0]], edge[1]) for edge in fed} == fed
    refined = "bids::sub-01/dwi/sub-01_model-csd_param-fod_desc-refined_dwimap.nii.gz"
    assert by_name["ds_tractogram"].interface._metadata["Sources"] == [refined]
    assert "response_wm" not in connected_to(workflow, "map_total")
    registrations = [name for name in nodes(workflow) if name.endswith(".register")]
    assert len(registrations) == 1
    text = methods_markdown(workflow.visit_desc())
    assert "the connectome target-{subject}.dense.tsv, in at most 7 steps" in text


def test_the_other_tissues_and_their_field_go_into_the_signal_of_adjusted_fodfs(tmp_path):
    target = connectome_of_atlas(tmp_path / "t.dense.tsv")
    options = {"refinement": {"refine_fodf": target}, "shells": TWO_SHELLS}
    for normalise in (True, False):
        folder = tmp_path / str(normalise)
        workflow = build(folder, fodf={"normalise_tissues": normalise}, **options)
        check_inputs(workflow)
        given = connected_to(workflow, "refine")
        assert {"fodf_gm", "fodf_csf", "response_gm", "response_csf"} <= given
        assert ("field" in given) == normalise


def test_the_response_of_adjusted_fodfs_that_have_none_is_estimated(tmp_path):
    path = model_file(tmp_path, write_dataset(tmp_path / "bids"))
    target = connectome_of_atlas(tmp_path / "t.dense.tsv")
    fodf = {"fodf_model_file": path}
    workflow = build(tmp_path, fodf=fodf, refinement={"refine_fodf": target})
    check_inputs(workflow)
    assert "response" in in_stage(workflow, "refinement_wf")
    assert {"response_wm", "response_notes"} <= connected_to(workflow, "refine")


@pytest.mark.parametrize(
    ("tables", "option"),
    [
        ({"tracking": {"algorithm": "tensor_det"}}, "sd_stream"),
        ({"sensitivity": {"edge_standard_errors": True}}, "adjusted to a target"),
    ],
)
def test_what_adjusted_fodfs_cannot_give_is_refused_at_once(tmp_path, tables, option):
    target = connectome_of_atlas(tmp_path / "t.dense.tsv")
    with pytest.raises(UsageError) as caught:
        build(tmp_path, refinement={"refine_fodf": target}, **tables)
    assert option in str(caught.value)


def test_saved_images_are_converted_and_tracked_ones_are_not(tmp_path, workflow):
    other = build(tmp_path / "other", t1w=True, output={"sh_basis": "descoteaux07"})
    check_inputs(other)
    added = {name.split(".")[-1] for name in set(nodes(other)) - set(nodes(workflow))}
    assert added == {"convert_fodf"}
    hashes = [track_node(each).inputs.get_hashval()[1] for each in (workflow, other)]
    assert hashes[0] == hashes[1]


def test_a_graph_needs_a_model():
    with pytest.raises(ConfigError, match="auto"):
        init_fodf_wf(FodfConfig())
    assert init_fodf_wf(FodfConfig(model="ss2t")).get_node("normalise")


def test_images_are_sampled_while_tracking_as_the_measures_need_them(tmp_path, workflow):
    track = track_node(workflow).inputs
    assert track.image_names == ["fa", "md"]
    graph = workflow._create_flat_graph()
    images = next(node for node in graph.nodes if node.name == "images")
    assert [source_of(graph, images, f"in{i}") for i in (1, 2)] == ["tensor", "tensor"]
    text = methods_markdown(workflow.visit_desc())
    assert "the mean over them of fractional anisotropy" in text
    other = build(
        tmp_path / "other",
        connectome={"connectome_measures": ["meanmd"], "streamline_statistic": "median"},
    )
    assert track_node(other).inputs.image_names == ["md"]
    assert track_node(other).inputs.streamline_statistic == "median"
    text = methods_markdown(other.visit_desc())
    assert "the median along each of them of mean diffusivity, of the streamlines" in text


def connected_to(workflow, name):
    graph = workflow._create_flat_graph()
    (node,) = (node for node in graph.nodes if node.name == name)
    edges = graph.in_edges(node, data=True)
    return {target for *_, data in edges for _, target in data["connect"]}


@pytest.mark.parametrize("mode", ["reverse_search", "forward_search", "all_voxels"])
def test_assignments_along_the_way_get_the_streamlines_also_of_those_who_save_none(tmp_path, mode):
    workflow = build(tmp_path, output={"tractogram": False}, connectome={"assignment": mode})
    check_inputs(workflow)
    assert track_node(workflow).inputs.tractogram is True
    assert "tractogram" in connected_to(workflow, "build")
    assert "ds_tractogram" not in in_stage(workflow, "derivatives_wf")
    words = {"reverse_search": "way", "forward_search": "3 mm", "all_voxels": "every two"}
    assert words[mode] in methods_markdown(workflow.visit_desc())


def test_streamlines_are_weighed_once_for_all_atlases_if_that_is_asked_for(tmp_path, workflow):
    assert not [name for name in nodes(workflow) if "weigh" in name]
    assert "tractogram" not in connected_to(workflow, "build")
    other = build(
        tmp_path / "other",
        output={"tractogram": False},
        connectome={"connectome_measures": ["count", "sift2"]},
    )
    check_inputs(other)
    assert [name for name in nodes(other) if name.endswith(".weigh")] == [
        "sub_01_wf.dwi_wf.weighting_wf.weigh"
    ]
    assert track_node(other).inputs.tractogram is True
    graph = other._create_flat_graph()
    by_name = named(graph)
    assert source_of(graph, by_name["build"], "sift2_weights") == "weigh"
    assert source_of(graph, by_name["ds_weights"], "in_file") == "weigh"
    assert source_of(graph, by_name["ds_sift2"], "in_file") == "build"
    assert source_of(graph, by_name["plot_edges"], "sift2") == "build"
    assert "Smith et al., 2015" in methods_markdown(other.visit_desc())


def test_matrices_of_all_atlases_go_into_one_file_if_that_is_asked_for(tmp_path, workflow):
    options = {"connectome_hdf5": True, "streamline_assignments": True}
    other = build(tmp_path / "other", t1w=True, connectome=options)
    check_inputs(other)
    added = {name.split(".")[-1] for name in set(nodes(other)) - set(nodes(workflow))}
    assert added == {"hdf5", "hdf5_files", "ds_hdf5", "ds_assignments"}


def test_only_the_matrices_asked_for_are_saved(tmp_path, workflow):
    saved = in_stage(workflow, "atlas_ICBM100_wf.derivatives_wf")
    assert {"ds_count", "ds_meanlength", "ds_meanfa", "ds_meanmd"} <= saved
    other = build(tmp_path / "other", connectome={"connectome_measures": ["density"]})
    check_inputs(other)
    saved = in_stage(other, "atlas_ICBM100_wf.derivatives_wf")
    assert {name for name in saved if name.startswith("ds_")} == {
        "ds_dseg", "ds_dseg_table", "ds_nodeindices", "ds_density"
    }  # fmt: skip
    assert "plot_edges" not in in_stage(other, "atlas_ICBM100_wf.report_wf")


def test_each_run_has_its_own_streamline_weights(tmp_path):
    for label in ("01", "02"):
        np.savetxt(tmp_path / f"w-{label}.txt", [1.0, 2.0])
    given = str(tmp_path / "w-{subject}.txt")
    workflow = build(tmp_path, participants=["01", "02"], connectome={"streamline_weights": given})
    for label in ("01", "02"):
        node = nodes(workflow)[f"sub_{label}_wf.dwi_wf.atlas_ICBM100_wf.connectome_wf.build"]
        assert node.inputs.streamline_weights == given.format(subject=label)
    assert "the file w-{subject}.txt" in methods_markdown(workflow.visit_desc())
    with pytest.raises(InputError, match="--streamline-weights"):
        build(tmp_path / "other", connectome={"streamline_weights": "nowhere.txt"})


@pytest.mark.parametrize(
    ("distortion", "source"), [("topup", "undistorted_mask"), ("none", "mask")]
)
def test_eddy_is_told_where_the_brain_lies_in_what_it_makes(distortion, source):
    shown = Displacements("eddy", distortion, PhaseEncoding("j", 1, 0.05))
    workflow = init_displacements_wf(PreprocessingConfig(motion_correction="eddy"), shown)
    eddy = workflow.get_node("eddy_wf")
    given = {
        node.name: data["connect"] for node, _, data in workflow._graph.in_edges(eddy, data=True)
    }
    assert ("mask", "inputnode.mask") in given[source]


def test_every_entry_of_the_bibliography_is_cited_somewhere(workflow):
    from difftract_bids.workflows.anatomical import _CITATIONS, init_tissue_wf

    cited = workflow.visit_desc()
    for source in ("labels", "probabilities", "t1w"):
        cited += init_tissue_wf(source).visit_desc()
    encoding = PhaseEncoding("j", 1, 0.05)
    for motion, distortion in (("dipy", "t1w"), ("eddy", "topup")):
        cited += init_preprocessing_wf(
            PreprocessingConfig(denoise_method="patch2self", motion_correction=motion),
            displacements=Displacements(motion, distortion, encoding),
        ).visit_desc()
    for config, model in (
        (FodfConfig(), "msmtcsd"),
        (FodfConfig(), "ss2t"),
        (FodfConfig(response_algorithm="fa"), "csd"),
    ):
        cited += fodf_methods(config, model)
    cited += connectome_methods(ConnectomeConfig(connectome_measures=("density",)))
    cited += init_weighting_wf().visit_desc()
    uncited = {key for key in bibliography() if f"@{key}" not in cited}
    assert uncited <= set(_CITATIONS.values())
