"""The graphs: complete, connected, described, and within the machine's means."""

import numpy as np
import pytest
from datasets import write_dataset
from nipype.interfaces.base import isdefined

from difftract_bids.bids.plan import make_plan
from difftract_bids.config import Config, merge
from difftract_bids.io.images import save_volume
from difftract_bids.reports.methods import methods_markdown
from difftract_bids.reports.references import bibliography
from difftract_bids.workflows.app import init_difftract_wf


def build(tmp_path, *, t1w=False, participants=("01",), sessions=(None,), **tables):
    dataset = write_dataset(tmp_path / "bids", participants, sessions=sessions, t1w=t1w)
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
    for name in ("preprocessing_wf.denoise", "fodf_wf.fodf", "tracking_wf.track"):
        node = nodes(workflow)[f"sub_01_wf.dwi_wf.{name}"]
        assert node.n_procs == 3
        assert node.mem_gb > 0.5


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
    assert inputs_connected_to_track(workflow) == {"fodf", "brain_mask"}
    other = build(
        tmp_path / "other",
        tracking={"algorithm": "tensor_det"},
        preprocessing={"b0_threshold_s_mm2": 70.0},
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


def test_every_entry_of_the_bibliography_is_cited_somewhere(workflow):
    from difftract_bids.workflows.anatomical import _CITATIONS

    cited = workflow.visit_desc()
    uncited = {key for key in bibliography() if f"@{key}" not in cited}
    assert uncited <= set(_CITATIONS.values())
