"""fODFs that are adjusted to a target: what is found before anything starts, and the step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from acquisitions import scheme

from difftract_bids.bids.nodes import NodeTable
from difftract_bids.bids.refinement_target import (
    find_refinement_target,
    in_order_of,
    read_target_matrix,
)
from difftract_bids.config import RefinementConfig, TrackingConfig
from difftract_bids.errors import AtlasError, ConfigError, InputError, UsageError
from difftract_bids.interfaces.refinement import RefineFODF, _signal
from difftract_bids.interfaces.reportlets.refinement import PlotRefinement
from difftract_bids.io.gradients import read_gradients, write_gradients
from difftract_bids.io.images import load_volume, save_volume
from difftract_bids.io.matrices import write_matrix
from difftract_bids.io.tractograms import StreamlineArrays, write_tractogram
from difftract_bids.learn.refine import RefineOptions, refine_fodf
from difftract_bids.learn.refine_targets import ConnectomeTarget
from difftract_bids.learn.signal_fidelity import Signal
from difftract_bids.modelling.fodf import fit
from difftract_bids.modelling.predicted_signal import convolution_matrices
from difftract_bids.modelling.response import Response, write_response
from difftract_bids.modelling.zonal import fit_zonal
from difftract_bids.reports.fodf.refinement import edge_correlation, plot_refinement

SHAPE = (12, 9, 5)
AFFINE = np.diag([-3.0, 3.0, 3.0, 1.0])
NAMES = ("LH-front", "LH-back", "RH-front", "RH-back")
TRACKING = {"min_length_mm": 6.0, "max_length_mm": 40.0, "step_size_mm": 1.0}


def nodes_of(*names):
    return NodeTable(tuple(range(1, len(names) + 1)), names, ("",) * len(names))


def response_of(table):
    """Give the response of fibres along z, white matter; and of fluid, with the same shells."""
    shells = table.shell_volumes()
    rate = 0.25e-3 + 1.45e-3 * table.bvecs[:, 2] ** 2
    signal = 500 * np.exp(-table.bvals_s_mm2 * rate)
    fibre = np.array([[0.0, 0.0, 1.0]])
    rows = [
        np.pad(
            fit_zonal(signal[None, v], table.bvecs[v], fibre, 8 if b else 0), (0, 0 if b else 4)
        )
        for b, v in shells
    ]
    bvals = tuple(b for b, _ in shells)
    fluid = [1500 * np.sqrt(4 * np.pi) * np.exp(-b * 3e-3) for b in bvals]
    return Response(bvals, np.array(rows)), Response(bvals, np.array(fluid)[:, None])


def simulated(table):
    """Fibres that turn with y, some fluid in each voxel, and no noise."""
    angle = np.linspace(-0.5, 0.5, SHAPE[1])[None, :, None] + np.zeros(SHAPE)
    fibres = np.stack([np.cos(angle), np.sin(angle), np.zeros(SHAPE)], axis=-1)
    rate = 0.25e-3 + 1.45e-3 * (fibres @ table.bvecs.T) ** 2
    fluid = 300 * np.exp(-table.bvals_s_mm2 * 3e-3)
    return (500 * np.exp(-table.bvals_s_mm2 * rate) + fluid).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Files of a small run with a shell, fODFs of two tissues, and nodes at both ends."""
    folder = tmp_path_factory.mktemp("run")
    table = scheme((2000, 32), n_b0=2)
    dwi, mask = simulated(table), np.ones(SHAPE, bool)
    mask[[0, -1]] = False
    white, fluid = response_of(table)
    responses = {"WM": white, "CSF": fluid}
    found = fit(dwi, table, responses, mask, model="ss2t", lmax=6).sh_coeffs
    labels = np.zeros(SHAPE, np.int16)
    labels[:3, :4], labels[:3, 5:], labels[-3:, :4], labels[-3:, 5:] = 1, 2, 3, 4
    images = {"dwi": dwi, "brain_mask": mask.astype(np.uint8), "parcellation": labels}
    images |= {"fodf": found["WM"], "fodf_csf": found["CSF"]}
    for name, image in images.items():
        save_volume(image, AFFINE, folder / f"{name}.nii.gz")
    bval, bvec = write_gradients(table, AFFINE, folder / "dwi")
    write_response(white, folder / "wm.txt")
    write_response(fluid, folder / "csf.txt")
    rows = [f"{i + 1}\t{name}" for i, name in enumerate(NAMES)]
    (folder / "nodes.tsv").write_text("\n".join(["index\tname", *rows]) + "\n")
    target = np.array([[0, 0, 1, 3], [0, 0, 3, 1], [1, 3, 0, 0], [3, 1, 0, 0]], float)
    order = [2, 0, 3, 1]  # the nodes of a target may come in another order
    shuffled = target[np.ix_(order, order)]
    path = write_matrix(shuffled, [NAMES[i] for i in order], folder / "target.dense.tsv")
    inputs = {name: str(folder / f"{name}.nii.gz") for name in images}
    inputs |= {"bval": str(bval), "bvec": str(bvec), "model": "ss2t", "target": str(path)}
    inputs |= {"response_wm": str(folder / "wm.txt"), "response_csf": str(folder / "csf.txt")}
    inputs |= {"table": str(folder / "nodes.tsv"), **TRACKING}
    inputs |= {"refine_steps": 6, "refine_seeds": 400, "random_seed": 3, "refine_weight": 0.2}
    return SimpleNamespace(
        folder=folder, inputs=inputs, fodf=found["WM"], mask=mask, dwi=dwi, target=target
    )


def write_lines(points, offsets, path):
    return write_tractogram(StreamlineArrays(points, offsets), path, vox2ras=AFFINE, shape=SHAPE)


def refine(run, folder, *, without=(), **changed):
    folder.mkdir(exist_ok=True)
    inputs = {key: value for key, value in run.inputs.items() if key not in without}
    return RefineFODF(**inputs | changed).run(cwd=str(folder)).outputs


@pytest.fixture(scope="module")
def refined(run):
    metadata = {"FODFModel": "ss2t", "Description": "White matter"}
    return refine(run, run.folder / "refined", fodf_metadata=metadata)


def signal_of(run, **changed):
    inputs = RefineFODF(**run.inputs | changed).inputs
    return _signal(inputs, load_volume(inputs.fodf, ndim=4))


def test_the_step_gives_what_the_function_gives(run, refined):
    labels = load_volume(run.inputs["parcellation"], dtype=np.int64)
    vox2ras = torch.from_numpy(labels.vox2ras)
    expected = refine_fodf(
        torch.from_numpy(run.fodf),
        vox2ras,
        torch.from_numpy(run.mask),
        ConnectomeTarget(
            torch.from_numpy(run.target),
            torch.from_numpy(labels.data),
            vox2ras,
            torch.arange(1, 5),
        ),
        tracking=TrackingConfig(**TRACKING),
        signal=signal_of(run),
        options=RefineOptions(n_steps=6, n_seeds=400, signal_weight=0.2, random_seed=3),
    )
    assert expected.best_step > 0
    found = load_volume(refined.fodf, ndim=4)
    np.testing.assert_allclose(found.data, expected.fodf.numpy(), rtol=1e-5, atol=1e-6)
    said = refined.fodf_metadata["Refinement"]
    assert said["Loss"]["After"] == pytest.approx(expected.target_after)
    assert said["Loss"]["After"] < said["Loss"]["Before"]
    assert said["SignalMisfit"]["Before"] == pytest.approx(expected.misfit_before)
    assert (said["Steps"], said["Response"]) == (expected.best_step, "fitted")
    assert said["Target"] == "target.dense.tsv"
    assert refined.fodf_metadata["FODFModel"] == "ss2t"


def test_a_user_is_told_that_the_fodfs_are_no_longer_an_estimate(refined):
    (note,) = refined.notes
    assert "no estimate from the images alone" in note
    assert "misfit of the signal" in note


def test_the_signal_of_all_tissues_is_what_the_model_deconvolves(run):
    inside, fodf = torch.from_numpy(run.mask), torch.from_numpy(run.fodf)
    signal = signal_of(run)
    predicted = fodf @ signal.matrix.float().T + signal.background
    gradients = read_gradients(run.inputs["bval"], run.inputs["bvec"], AFFINE)
    white, fluid = response_of(gradients)
    again = fit(
        predicted.numpy(),
        gradients,
        {"WM": white, "CSF": fluid},
        run.mask,
        model="ss2t",
        lmax=6,
    ).sh_coeffs["WM"]
    scale = np.abs(run.fodf).max()
    np.testing.assert_allclose(again, run.fodf, atol=5e-3 * scale)
    misfit = float(signal.misfit(fodf, inside).relative(fodf[inside]))
    alone = Signal(signal.dwi, signal.matrix)
    assert float(alone.misfit(fodf, inside).relative(fodf[inside])) > 2 * misfit


def test_what_the_tissues_were_divided_by_changes_nothing_in_how_they_explain_it(run):
    field = np.linspace(0.5, 2, SHAPE[0], dtype=np.float32)[:, None, None] * np.ones(
        SHAPE, np.float32
    )
    divided = {"field": field}
    for name in ("fodf", "fodf_csf"):
        divided[name] = load_volume(run.inputs[name], ndim=4).data / field[..., None]
    paths = {
        name: str(save_volume(image, AFFINE, run.folder / f"divided_{name}.nii.gz"))
        for name, image in divided.items()
    }
    inside = torch.from_numpy(run.mask)
    found = []
    for fodf, signal in (
        (run.fodf, signal_of(run)),
        (divided["fodf"], signal_of(run, **paths)),
    ):
        rows = torch.from_numpy(fodf)
        found.append(float(signal.misfit(rows, inside).relative(rows[inside])))
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_the_matrix_of_one_shell_is_that_of_its_volumes(run):
    gradients = read_gradients(run.inputs["bval"], run.inputs["bvec"], AFFINE)
    white, _ = response_of(gradients)
    used, matrices = convolution_matrices(gradients, {"WM": white}, "csd", 6)
    row = torch.from_numpy(white.coefficients[1])
    expected = Signal.of_shell(torch.from_numpy(run.dwi), gradients, row, 6)
    assert used.sum() == 32
    torch.testing.assert_close(matrices["WM"], expected.matrix, check_dtype=False)


def test_streamlines_may_be_the_target_and_the_response_an_estimate(run):
    lines = [
        np.stack([np.linspace(-27, -6, 22), np.full(22, y), np.full(22, 6.0)], axis=1)
        for y in (9.0, 12.0, 15.0)
    ]
    points = np.concatenate(lines).astype(np.float32)
    path = write_lines(points, np.array([0, 22, 44, 66]), run.folder / "target.tck")
    outputs = refine(
        run,
        run.folder / "lines",
        without=("parcellation", "table"),
        target=str(path),
        refine_steps=2,
        response_notes=["It was rounder than most."],
    )
    assert outputs.fodf_metadata["Refinement"]["TargetType"] == "tractogram"
    assert outputs.fodf_metadata["Refinement"]["Response"] == "estimated"
    assert outputs.notes[0] == "It was rounder than most."
    assert "estimated from the images" in outputs.notes[1]
    figure = PlotRefinement(facts=outputs.facts).run(cwd=str(run.folder / "lines"))
    assert "<svg" in Path(figure.outputs.out_report).read_text(encoding="utf-8")


def test_a_connectome_without_its_parcellation_is_refused(run):
    with pytest.raises(UsageError, match="parcellation"):
        refine(run, run.folder / "no", without=("parcellation",))


def test_the_figure_shows_the_course_and_three_matrices(run, refined):
    with np.load(refined.facts) as facts:
        assert len(facts["loss"]) == len(facts["misfit"]) == len(facts["judged"]) == 7
        assert np.isfinite(facts["judged"][[0, -1]]).all()
        assert facts["target"].sum() == pytest.approx(facts["before"].sum(), rel=1e-6)
        before, after = (
            edge_correlation(facts[key], facts["target"]) for key in ("before", "after")
        )
    assert after >= before - 0.05
    figure = PlotRefinement(facts=refined.facts).run(cwd=str(run.folder)).outputs.out_report
    assert Path(figure).read_text(encoding="utf-8").count("<image") >= 3


def test_what_does_not_belong_together_is_not_drawn(tmp_path):
    course = np.ones(3), np.ones(2)
    with pytest.raises(ValueError, match="3 losses and 2 misfits"):
        plot_refinement(*course, tmp_path / "a.svg", target="t")
    matrices = dict.fromkeys(("target", "before", "after"), np.ones((2, 2)))
    with pytest.raises(ValueError, match="3 node names"):
        plot_refinement(
            np.ones(2), np.ones(2), tmp_path / "a.svg", target="t", matrices=matrices, names="abc"
        )
    assert np.isnan(edge_correlation(np.ones((3, 3)), np.eye(3)))


ATLASES = {"Other": nodes_of("x", "LH-front"), "Own": nodes_of(*NAMES)}


def test_the_atlas_is_the_one_of_the_targets_nodes_in_any_order(run):
    found = find_refinement_target(run.folder / "target.dense.tsv", "connectome", ATLASES)
    assert found.atlas == "Own"
    matrix, names = read_target_matrix(found.path)
    assert tuple(names) != NAMES
    np.testing.assert_array_equal(in_order_of(matrix, names, NAMES), run.target)


def test_a_target_of_another_atlas_is_named_with_what_is_shared(run):
    with pytest.raises(AtlasError, match="Other shares 1 of its 2") as caught:
        find_refinement_target(
            run.folder / "target.dense.tsv", "connectome", {"Other": ATLASES["Other"]}
        )
    assert "--refine-fodf" in caught.value.what
    assert "--atlases" in caught.value.remedy


@pytest.mark.parametrize(
    ("matrix", "names", "said"),
    [
        ([[0, 1], [2, 0]], "ab", "not symmetric"),
        ([[0, np.nan], [np.nan, 0]], "ab", "not finite"),
        ([[0, -1], [-1, 0]], "ab", "negative"),
        ([[3, 0], [0, 2]], "ab", "no edge"),
        ([[0, 1], [1, 0]], "aa", "two nodes of one name"),
    ],
)
def test_a_matrix_that_is_no_connectome_is_refused(tmp_path, matrix, names, said):
    path = write_matrix(np.array(matrix, float), list(names), tmp_path / "m.dense.tsv")
    with pytest.raises(InputError, match=said) as caught:
        find_refinement_target(path, "connectome", {"A": nodes_of(*names)})
    assert caught.value.where == str(path)


def test_missing_and_empty_targets_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no such file \(--refine-fodf\)"):
        find_refinement_target(tmp_path / "m.dense.tsv", "connectome", ATLASES)
    path = write_lines(np.zeros((0, 3), np.float32), np.array([0]), tmp_path / "none.tck")
    with pytest.raises(InputError, match="no streamline"):
        find_refinement_target(path, "tractogram", ATLASES)
    path = write_lines(np.ones((2, 3), np.float32), np.array([0, 2]), tmp_path / "one.tck")
    assert find_refinement_target(path, "tractogram", ATLASES).atlas is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"refine_fodf": "a.csv"}, "a file ending in"),
        ({"refine_fodf": ""}, "a file ending in"),
        ({"refine_steps": 0}, "1 or more"),
        ({"refine_seeds": 0}, "1 or more"),
        ({"refine_weight": -1.0}, "0 or more"),
        ({"refine_weight": float("nan")}, "0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        RefinementConfig(**settings)


def test_the_kind_of_a_target_is_told_by_its_name():
    assert not RefinementConfig().is_wanted
    kinds = {
        name: RefinementConfig(refine_fodf=name).kind
        for name in ("a.dense.tsv", "a.tck", "a.trk", "a.trx")
    }
    assert set(kinds.values()) == {"connectome", "tractogram"}
    assert kinds["a.dense.tsv"] == "connectome"
