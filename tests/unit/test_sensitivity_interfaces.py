"""The interfaces that differentiate a connectome, on a small simulated run."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from acquisitions import scheme

from difftract_bids.config import SensitivityConfig, TrackingConfig
from difftract_bids.core.connectome.soft import SoftConnectome
from difftract_bids.core.end_to_end import FODFToConnectome
from difftract_bids.core.regions import RegionImage, Regions
from difftract_bids.core.seeding import RandomSeeds
from difftract_bids.core.sensitivity import sensitivity
from difftract_bids.core.uncertainty import edge_standard_deviations
from difftract_bids.core.voxelwise import VoxelwiseFit
from difftract_bids.errors import UsageError
from difftract_bids.interfaces.fodf import FitFODF
from difftract_bids.interfaces.response import EstimateResponse
from difftract_bids.interfaces.sensitivity import EstimateEdgeErrors, MapSensitivity
from difftract_bids.interfaces.tracking import TrackStreamlines
from difftract_bids.io.gradients import read_gradients, write_gradients
from difftract_bids.io.images import load_volume, save_volume
from difftract_bids.io.matrices import read_matrix
from difftract_bids.io.summaries import read_summary
from difftract_bids.modelling.deconvolution import build_deconvolution
from difftract_bids.modelling.response import read_response

SHAPE = (14, 12, 8)
AFFINE = np.diag([-3.0, 3.0, 3.0, 1.0])
B0_SIGNAL, NOISE = 400.0, 4.0
TRACKING = {"max_length_mm": 40.0, "min_length_mm": 6.0}
SEED, N_SEEDS = 7, 500
NAMES = ("LH-front", "LH-back", "RH-front", "RH-back", "nowhere", "corner")


def simulated(table):
    """Fibres that turn with y, noise, and a signal at b=0 that falls with x."""
    rng = np.random.default_rng(0)
    angle = np.linspace(-0.4, 0.4, SHAPE[1])[None, :, None] + np.zeros(SHAPE)
    fibres = np.stack([np.cos(angle), np.sin(angle), np.zeros(SHAPE)], axis=-1)
    rate = 0.25e-3 + 1.45e-3 * (fibres @ table.bvecs.T) ** 2
    at_b0 = B0_SIGNAL * np.linspace(1.2, 0.8, SHAPE[0])[:, None, None, None]
    dwi = at_b0 * np.exp(-table.bvals_s_mm2 * rate)
    return np.abs(dwi + rng.normal(0, NOISE, dwi.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Files of a run as the app would have them, and what an interface needs of them."""
    folder = tmp_path_factory.mktemp("run")
    table = scheme((2500, 48), n_b0=3)
    save_volume(simulated(table), AFFINE, folder / "dwi.nii.gz")
    mask = np.ones(SHAPE, np.uint8)
    mask[[0, -1]] = 0
    save_volume(mask, AFFINE, folder / "mask.nii.gz")
    bval, bvec = write_gradients(table, AFFINE, folder / "dwi")
    labels = np.zeros(SHAPE, np.int16)
    labels[:5, :6], labels[:5, 6:], labels[9:, :6], labels[9:, 6:] = 1, 2, 3, 4
    labels[7, 0, 0] = 6
    save_volume(labels, AFFINE, folder / "labels.nii.gz")
    rows = [f"{i + 1}\t{name}" for i, name in enumerate(NAMES)]
    (folder / "nodes.tsv").write_text("\n".join(["index\tname", *rows]) + "\n")
    names = {"dwi": "dwi.nii.gz", "mask": "mask.nii.gz"}
    data = {key: str(folder / name) for key, name in names.items()}
    data |= {"bval": str(bval), "bvec": str(bvec)}
    response = EstimateResponse(**data).run(cwd=str(folder)).outputs.response_wm
    fodf = FitFODF(**data, response_wm=response).run(cwd=str(folder)).outputs.fodf
    settings = TRACKING | {"random_seed": SEED, "n_seeds": N_SEEDS}
    tracked = TrackStreamlines(fodf=fodf, brain_mask=data["mask"], **settings)
    summary = tracked.run(cwd=str(folder)).outputs.summary
    brain_mask = data.pop("mask")  # here "mask" is a region of tracking
    inputs = data | {
        "brain_mask": brain_mask,
        "fodf": fodf,
        "response_wm": response,
        "summary": summary,
        "parcellation": str(folder / "labels.nii.gz"),
        "table": str(folder / "nodes.tsv"),
        "random_seed": SEED,
        "soft_sigma_mm": 1.5,
        **TRACKING,
    }
    return SimpleNamespace(folder=folder, inputs=inputs, core=core_of(inputs))


def core_of(inputs):
    """Make of the files what the core needs."""
    dwi, fodf = load_volume(inputs["dwi"], ndim=4), load_volume(inputs["fodf"], ndim=4)
    mask = torch.from_numpy(load_volume(inputs["brain_mask"], ndim=3).data > 0)
    vox2ras = torch.from_numpy(fodf.vox2ras)
    labels = load_volume(inputs["parcellation"], ndim=3, dtype=np.int64).data
    tracking = FODFToConnectome(
        SoftConnectome(
            torch.from_numpy(labels),
            vox2ras,
            4.0,
            inputs["soft_sigma_mm"],
            node_labels=torch.arange(1, len(NAMES) + 1),
        ),
        vox2ras,
        TrackingConfig(**TRACKING),
        Regions(mask=(RegionImage(mask, vox2ras),)),
        survival_softness=SensitivityConfig().sensitivity_softness,
    )
    gradients = read_gradients(inputs["bval"], inputs["bvec"], dwi.vox2ras)
    bval = gradients.shells()[-1][0]
    response = read_response(inputs["response_wm"], bvals_s_mm2=[0.0, bval])
    model = build_deconvolution(gradients, {"WM": response}, "csd", 8)
    image = torch.from_numpy(fodf.data)
    seeds = (x.float() for x in RandomSeeds(mask, vox2ras, SEED).draw(0, N_SEEDS))
    return SimpleNamespace(
        tracking=tracking,
        fodf=image,
        fit=VoxelwiseFit(model, torch.from_numpy(dwi.data), image),
        b0=torch.from_numpy(dwi.data[..., gradients.b0_mask]).mean(dim=3),
        seeds=tuple(seeds),
    )


def interface(kind, run, tmp_path, *, without=(), **changed):
    inputs = {key: value for key, value in run.inputs.items() if key not in without}
    return kind(**inputs | changed).run(cwd=str(tmp_path)).outputs


def image_of(path):
    return torch.from_numpy(load_volume(path).data)


def expected_of(run, edge):
    """Differentiate with the core, with every seed."""
    target = torch.zeros(len(NAMES), len(NAMES), dtype=torch.float64)
    a, b = (NAMES.index(name) for name in edge)
    target[a, b] = target[b, a] = 1
    return sensitivity(run.core.tracking, run.core.fodf, *run.core.seeds, target)


EDGE = ("LH-front", "RH-front")


@pytest.fixture(scope="module")
def mapped(run, tmp_path_factory):
    return interface(MapSensitivity, run, tmp_path_factory.mktemp("map"), edge="-".join(EDGE))


def close(found, expected, rel=1e-4):
    scale = float(expected.abs().max())
    assert scale > 0
    torch.testing.assert_close(found.to(expected), expected, rtol=0, atol=rel * scale)


def test_maps_are_the_derivatives_of_the_core(run, mapped):
    expected = expected_of(run, EDGE)
    assert expected.value > 3
    close(image_of(mapped.sensitivity_fodf), expected.fodf)
    by_dwi = run.core.fit.to_signal(expected.fodf)
    close(image_of(mapped.sensitivity_dwi), by_dwi)
    assert mapped.metadata["SoftStreamlineCount"] == pytest.approx(expected.value, rel=1e-5)
    assert mapped.notes == []


def test_the_map_of_one_value_is_for_a_percent_of_the_signal_at_b0(run, mapped):
    by_dwi = image_of(mapped.sensitivity_dwi)
    expected = (by_dwi**2).sum(dim=3).sqrt() * run.core.b0 / 100
    found = image_of(mapped.sensitivity)
    assert found.shape == SHAPE
    close(found, expected, 1e-5)


def test_maps_lie_where_the_images_do(run, mapped):
    for path, last in (
        (mapped.sensitivity, ()),
        (mapped.sensitivity_dwi, (51,)),
        (mapped.sensitivity_fodf, (45,)),
    ):
        volume = load_volume(path)
        assert volume.data.shape == (*SHAPE, *last)
        np.testing.assert_allclose(volume.vox2ras, AFFINE, atol=1e-6)
        assert np.isfinite(volume.data).all()
    assert not image_of(mapped.sensitivity)[[0, -1]].any()
    # b=0 volumes are not deconvolved by one shell.
    gradients = read_gradients(run.inputs["bval"], run.inputs["bvec"], AFFINE)
    assert not image_of(mapped.sensitivity_dwi)[..., gradients.b0_mask].any()


def test_sidecars_say_what_and_how(mapped):
    sidecars = mapped.metadata, mapped.dwi_metadata, mapped.fodf_metadata
    for sidecar in sidecars:
        assert sidecar["Edge"] == "LH-front-RH-front"
        assert sidecar["SoftAssignmentSigma"] == 1.5
        assert sidecar["SurvivalSoftness"] == SensitivityConfig().sensitivity_softness
        assert "adjoint" in sidecar["Method"]
        assert 3 < sidecar["SoftStreamlineCount"] <= sidecar["StreamlinesInvolved"] < N_SEEDS
    assert [sidecar["Units"] for sidecar in sidecars] == ["streamlines", "arbitrary", "arbitrary"]
    assert "1%" in mapped.metadata["Description"]
    assert len({sidecar["Description"] for sidecar in sidecars}) == 3


def test_an_edge_goes_by_its_indices_and_either_way_round(run, mapped, tmp_path):
    other = interface(MapSensitivity, run, tmp_path, edge="3-1")
    close(image_of(other.sensitivity_fodf), image_of(mapped.sensitivity_fodf), 1e-6)
    assert other.metadata["Edge"] == "3-1"


def test_a_node_is_all_of_its_edges_and_total_all_edges(run, tmp_path):
    core = run.core
    matrix = core.tracking(core.fodf, *core.seeds)
    node = interface(MapSensitivity, run, tmp_path, edge="LH-front")
    expected = float(matrix[0].sum() - matrix[0, 0])
    assert node.metadata["SoftStreamlineCount"] == pytest.approx(expected, rel=1e-5)
    total = interface(MapSensitivity, run, tmp_path, edge="total")
    expected = float(matrix.triu(1).sum())
    assert total.metadata["SoftStreamlineCount"] == pytest.approx(expected, rel=1e-5)


def test_an_edge_without_streamlines_is_zero_and_a_note_says_so(run, tmp_path):
    outputs = interface(MapSensitivity, run, tmp_path, edge="nowhere-corner")
    for path in (outputs.sensitivity, outputs.sensitivity_dwi, outputs.sensitivity_fodf):
        assert not image_of(path).any()
    assert outputs.metadata["StreamlinesInvolved"] == 0
    (note,) = outputs.notes
    assert "No streamline belongs to nowhere-corner" in note


def test_without_a_response_there_is_the_derivative_by_the_fodf_only(run, mapped, tmp_path):
    outputs = interface(
        MapSensitivity, run, tmp_path, edge="-".join(EDGE), without=["response_wm"]
    )
    by_fodf = image_of(outputs.sensitivity_fodf)
    close(by_fodf, image_of(mapped.sensitivity_fodf), 1e-6)
    close(image_of(outputs.sensitivity), (by_fodf**2).sum(dim=3).sqrt(), 1e-5)
    assert not isinstance(outputs.sensitivity_dwi, str)
    (note,) = outputs.notes
    assert "not known" in note
    assert outputs.metadata["Units"] == "arbitrary"


def test_of_many_streamlines_some_are_taken_and_results_scaled(run, tmp_path):
    n = len(read_summary(run.inputs["summary"]).seed_index)
    kept = n // 2
    assert kept > 50
    given = {"edge": "total", "gradient_streamlines": kept}
    half = interface(MapSensitivity, run, tmp_path, **given)
    numbers = torch.from_numpy(read_summary(run.inputs["summary"]).seed_index[:kept].copy())
    core = run.core
    target = 1 - torch.eye(len(NAMES), dtype=torch.float64)
    seeds = (x[numbers] for x in core.seeds)
    expected = sensitivity(core.tracking, core.fodf, *seeds, target)
    assert half.metadata["SoftStreamlineCount"] == pytest.approx(
        expected.value * n / kept, rel=1e-5
    )
    close(image_of(half.sensitivity_fodf), expected.fodf * (n / kept))
    whole = float(core.tracking(core.fodf, *core.seeds).triu(1).sum())
    assert half.metadata["SoftStreamlineCount"] == pytest.approx(whole, rel=0.3)


@pytest.mark.parametrize("kind", [MapSensitivity, EstimateEdgeErrors])
def test_an_fodf_of_another_signal_is_refused(run, kind, tmp_path):
    save_volume(run.core.fodf.flip(1).numpy(), AFFINE, tmp_path / "other.nii.gz")
    more = {"edge": "total"} if kind is MapSensitivity else {"sigma": sigma_file(tmp_path)[0]}
    with pytest.raises(UsageError, match="does not come from") as caught:
        interface(kind, run, tmp_path, fodf=str(tmp_path / "other.nii.gz"), **more)
    assert caught.value.remedy


@pytest.mark.parametrize("edge", ["LH-front-LH", "someone", "LH-front-9"])
def test_an_unknown_edge_is_refused(run, edge, tmp_path):
    with pytest.raises(UsageError, match=f"no edge '{edge}'") as caught:
        interface(MapSensitivity, run, tmp_path, edge=edge)
    assert str(caught.value.where).endswith("nodes.tsv")


def sigma_file(folder, scale=1.0):
    sigma = np.random.default_rng(1).uniform(2, 6, SHAPE).astype(np.float32) * scale
    path = save_volume(sigma.astype(np.float32), AFFINE, folder / "sigma.nii.gz")
    return str(path), torch.from_numpy(sigma)


def test_standard_errors_are_those_of_the_core(run, tmp_path):
    path, sigma = sigma_file(tmp_path)
    outputs = interface(EstimateEdgeErrors, run, tmp_path, sigma=path)
    found, names = read_matrix(outputs.sd)
    assert tuple(names) == NAMES
    core = run.core
    expected = edge_standard_deviations(core.tracking, core.fit, *core.seeds, sigma)
    assert (found > 0).sum() > 6
    np.testing.assert_allclose(found, expected.sd.numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(found, found.T)
    assert not found[4].any()
    assert outputs.notes == []
    sidecar = outputs.sd_metadata
    n = len(read_summary(run.inputs["summary"]).seed_index)
    assert (sidecar["NodeCount"], sidecar["StreamlinesInvolved"]) == (len(NAMES), n)
    assert sidecar["SoftAssignmentSigma"] == 1.5
    assert sidecar["Directed"] is False
    assert "delta method" in sidecar["Description"]


def test_standard_errors_of_some_streamlines_are_scaled(run, tmp_path):
    path, sigma = sigma_file(tmp_path)
    summary = read_summary(run.inputs["summary"])
    kept = len(summary.seed_index) // 2
    outputs = interface(EstimateEdgeErrors, run, tmp_path, sigma=path, gradient_streamlines=kept)
    numbers = torch.from_numpy(summary.seed_index[:kept].copy())
    core = run.core
    seeds = (x[numbers] for x in core.seeds)
    expected = edge_standard_deviations(core.tracking, core.fit, *seeds, sigma).sd
    scale = len(summary.seed_index) / kept
    np.testing.assert_allclose(
        read_matrix(outputs.sd)[0], scale * expected.numpy(), rtol=1e-3, atol=1e-5
    )
    assert outputs.sd_metadata["StreamlinesInvolved"] == kept


def test_standard_errors_need_a_response(run, tmp_path):
    path, _ = sigma_file(tmp_path)
    with pytest.raises(UsageError, match="Standard errors need") as caught:
        interface(EstimateEdgeErrors, run, tmp_path, sigma=path, without=["response_wm"])
    assert caught.value.remedy
