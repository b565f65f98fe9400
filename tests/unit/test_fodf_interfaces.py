"""The interfaces of the fODF stage, each alone, on a small simulated brain."""

from pathlib import Path

import numpy as np
import pytest
from acquisitions import scheme

from difftract_bids.core.sh_bases import to_basis
from difftract_bids.errors import GradientError, UsageError
from difftract_bids.interfaces.diffusion import FitTensor
from difftract_bids.interfaces.fodf import FitFODF, NormaliseTissues
from difftract_bids.interfaces.fodf_maps import ConvertFODF, ImportFODF, MapFODF
from difftract_bids.interfaces.reportlets.fodf import PlotResponse, PlotTissues
from difftract_bids.interfaces.response import EstimateResponse
from difftract_bids.io.gradients import write_gradients
from difftract_bids.io.images import load_volume, save_volume
from difftract_bids.modelling.response import read_response

SHAPE = (16, 16, 16)
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])
SHELLS = ((1000, 30), (2500, 30))
TISSUES = {"WM": slice(0, 7), "GM": slice(7, 12), "CSF": slice(12, 16)}
#: Signal at b=0 and diffusivity (mm²/s) of the tissues without directions.
ISOTROPIC = {"GM": (1.2, 0.9e-3), "CSF": (3.0, 3.0e-3)}
FIBRE_RATES = 1.7e-3, 0.25e-3


def simulated(table, seed=0, noise=5.0, scale=300.0):
    """White matter whose fibres turn with y, grey matter, and fluid, side by side along x."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, np.pi, SHAPE[1])[None, :, None] + np.zeros(SHAPE)
    fibres = np.stack([np.cos(angle), np.sin(angle), np.zeros(SHAPE)], axis=-1)
    along, across = FIBRE_RATES
    rate = across + (along - across) * (fibres @ table.bvecs.T) ** 2
    dwi = np.exp(-table.bvals_s_mm2 * rate)
    for tissue, (signal, diffusivity) in ISOTROPIC.items():
        dwi[TISSUES[tissue]] = signal * np.exp(-table.bvals_s_mm2 * diffusivity)
    return np.abs(scale * dwi + rng.normal(0, noise, dwi.shape)).astype(np.float32)


def written(folder, shells):
    """Write a run; return the inputs that every model of the signal has."""
    table = scheme(*shells, n_b0=4)
    save_volume(simulated(table), AFFINE, folder / "dwi.nii.gz")
    mask = np.ones(SHAPE, dtype=bool)
    mask[[0, -1]] = False
    save_volume(mask, AFFINE, folder / "mask.nii.gz")
    bval, bvec = write_gradients(table, AFFINE, folder / "dwi")
    names = {"dwi": folder / "dwi.nii.gz", "mask": folder / "mask.nii.gz"}
    return {key: str(path) for key, path in {**names, "bval": bval, "bvec": bvec}.items()}


def run(interface, folder, **inputs):
    folder.mkdir(exist_ok=True)
    return interface(**inputs).run(cwd=str(folder)).outputs


def responses_of(outputs):
    names = ("response_wm", "response_gm", "response_csf")
    found = {name: getattr(outputs, name) for name in names}
    return {name: path for name, path in found.items() if isinstance(path, str)}


@pytest.fixture(scope="module")
def two_shells(tmp_path_factory):
    """Inputs, responses and fODFs of three tissues."""
    folder = tmp_path_factory.mktemp("two")
    inputs = written(folder, SHELLS)
    responses = run(EstimateResponse, folder / "r", **inputs)
    fitted = run(FitFODF, folder / "f", **inputs, **responses_of(responses))
    return inputs, responses, fitted


@pytest.fixture(scope="module")
def one_shell(tmp_path_factory):
    """Inputs of a run of one shell."""
    return written(tmp_path_factory.mktemp("one"), SHELLS[1:])


def isotropic(path):
    return load_volume(path, ndim=4).data[..., 0]


def test_auto_of_two_shells_is_three_tissues_each_where_it_is(two_shells):
    _, responses, fitted = two_shells
    assert set(responses_of(responses)) == {"response_wm", "response_gm", "response_csf"}
    assert read_response(responses.response_wm).bvals_s_mm2 == (0.0, 1000.0, 2500.0)
    images = {"WM": fitted.fodf, "GM": fitted.fodf_gm, "CSF": fitted.fodf_csf}
    amounts = np.stack([isotropic(path)[1:-1] for path in images.values()])
    largest = amounts.argmax(axis=0)
    for number, part in enumerate(TISSUES.values()):
        inside = slice(max(part.start - 1, 0), part.stop - 1)
        assert (largest[inside] == number).mean() > 0.95


def test_the_sidecar_says_what_was_fitted_and_why(two_shells):
    inputs, responses, fitted = two_shells
    sidecar = fitted.fodf_metadata
    assert sidecar["FODFModel"] == "msmtcsd"
    assert "2 usable shells" in sidecar["FODFModelReason"]
    assert sidecar["Model"]["Parameters"]["Shells"] == [0.0, 1000.0, 2500.0]
    assert sidecar["Model"]["Parameters"]["ConstraintDirections"] == 300
    assert sidecar["OrientationEncoding"]["SphericalHarmonicDegree"] == 8
    assert load_volume(fitted.fodf).data.shape[3] == 45
    coefficients = read_response(responses.response_wm).coefficients
    assert sidecar["ResponseFunction"]["Coefficients"] == coefficients.tolist()
    assert fitted.fodf_csf_metadata["OrientationEncoding"]["SphericalHarmonicDegree"] == 0
    assert sidecar["Normalised"] is False
    assert inputs["dwi"] not in str(sidecar)


def test_a_reason_that_was_found_before_is_kept(two_shells, tmp_path):
    inputs, responses, _ = two_shells
    outputs = run(
        FitFODF, tmp_path / "f", **inputs, **responses_of(responses),
        model="msmtcsd", lmax=4, model_reason="the moon is full",
    )  # fmt: skip
    assert outputs.fodf_metadata["FODFModelReason"] == "the moon is full"
    assert load_volume(outputs.fodf).data.shape[3] == 15


def test_normalisation_brings_the_sum_of_tissues_to_the_reference(two_shells, tmp_path):
    inputs, _, fitted = two_shells
    ramp = np.linspace(0.7, 1.5, SHAPE[2]).astype(np.float32)[:, None]
    given = {}
    for name in ("fodf", "fodf_gm", "fodf_csf"):
        image = load_volume(getattr(fitted, name))
        path = save_volume(image.data * ramp, AFFINE, tmp_path / f"{name}.nii.gz")
        given[name] = str(path)
        given[f"{name}_metadata"] = getattr(fitted, f"{name}_metadata")
    outputs = run(NormaliseTissues, tmp_path / "n", mask=inputs["mask"], **given)
    said = outputs.fodf_metadata
    assert said["Normalised"] is True
    assert said["FODFModel"] == "msmtcsd"
    balance = said["NormalisedBy"]["BalanceFactors"]
    assert set(balance) == {"WM", "GM", "CSF"}
    names = {"WM": "fodf", "GM": "fodf_gm", "CSF": "fodf_csf"}
    total = sum(balance[t] * isotropic(getattr(outputs, n))[1:-1] for t, n in names.items())
    reference = said["NormalisedBy"]["ReferenceSum"]
    assert np.median(total) == pytest.approx(reference, rel=0.03)
    by_slice = np.median(total, axis=(0, 1))
    assert by_slice.max() / by_slice.min() < 1.06
    field = load_volume(outputs.field).data[1:-1].mean(axis=(0, 1))
    np.testing.assert_allclose(field / field.mean(), ramp[:, 0] / ramp.mean(), rtol=0.04)


def test_two_tissues_come_from_one_shell_if_asked_for(one_shell, tmp_path):
    responses = run(EstimateResponse, tmp_path / "r", **one_shell, model="ss2t")
    assert set(responses_of(responses)) == {"response_wm", "response_csf"}
    fitted = run(FitFODF, tmp_path / "f", **one_shell, **responses_of(responses), model="ss2t")
    assert not isinstance(fitted.fodf_gm, str)
    assert fitted.fodf_metadata["FODFModel"] == "ss2t"
    matter, fluid = isotropic(fitted.fodf), isotropic(fitted.fodf_csf)
    assert np.median(matter[1:6]) > 5 * np.median(fluid[1:6])
    assert np.median(fluid[13:15]) > 5 * np.median(matter[13:15])


def test_one_tissue_uses_one_shell_of_several_whatever_the_algorithm(two_shells, tmp_path):
    inputs, _, _ = two_shells
    for algorithm in ("tournier", "dhollander"):
        wanted = {"model": "csd", "response_algorithm": algorithm}
        responses = run(EstimateResponse, tmp_path / algorithm, **inputs, **wanted)
        assert set(responses_of(responses)) == {"response_wm"}
        assert read_response(responses.response_wm).bvals_s_mm2 == (0.0, 2500.0)


def test_three_tissues_of_one_shell_and_missing_responses_are_refused(one_shell, two_shells):
    with pytest.raises(GradientError, match="cannot be told apart"):
        EstimateResponse(**one_shell, model="msmtcsd").run()
    inputs, responses, _ = two_shells
    with pytest.raises(UsageError, match="needs a response of GM"):
        FitFODF(**inputs, response_wm=responses.response_wm, model="msmtcsd").run()


def test_a_response_without_its_b_values_is_that_of_the_shell(one_shell, tmp_path):
    responses = run(EstimateResponse, tmp_path / "r", **one_shell)
    full = read_response(responses.response_wm)
    row = " ".join(f"{value:.12g}" for value in full.deconvolved)
    (tmp_path / "row.txt").write_text(f"{row}\n")
    given = {"response_wm": str(tmp_path / "row.txt")}
    bare = run(FitFODF, tmp_path / "a", **one_shell, **given)
    told = run(FitFODF, tmp_path / "b", **one_shell, response_wm=responses.response_wm)
    np.testing.assert_array_equal(load_volume(bare.fodf).data, load_volume(told.fodf).data)


def test_other_directions_of_the_constraint_give_another_fodf_and_are_counted(one_shell, tmp_path):
    response = {"response_wm": run(EstimateResponse, tmp_path / "r", **one_shell).response_wm}
    angles = np.random.default_rng(0).uniform([0, 0], [2 * np.pi, np.pi], size=(60, 2))
    np.savetxt(tmp_path / "angles.txt", angles)
    given = {"constraint_directions": str(tmp_path / "angles.txt")}
    usual = run(FitFODF, tmp_path / "a", **one_shell, **response)
    other = run(FitFODF, tmp_path / "b", **one_shell, **response, **given)
    fodfs = [load_volume(found.fodf).data for found in (usual, other)]
    assert np.linalg.norm(fodfs[0] - fodfs[1]) > 0.001 * np.linalg.norm(fodfs[0])
    said = [
        found.fodf_metadata["Model"]["Parameters"]["ConstraintDirections"]
        for found in (usual, other)
    ]
    assert said == [300, 60]


def test_voxels_left_out_are_counted_and_told(one_shell, tmp_path):
    responses = run(EstimateResponse, tmp_path / "r", **one_shell)
    dwi = load_volume(one_shell["dwi"])
    dwi.data[2, 2, 2], dwi.data[3, 3, 3:5] = np.nan, 0.0
    spoilt = one_shell | {"dwi": str(save_volume(dwi.data, AFFINE, tmp_path / "dwi.nii.gz"))}
    fitted = run(FitFODF, tmp_path / "f", **spoilt, response_wm=responses.response_wm)
    assert sum(fitted.fodf_metadata["VoxelsLeftOut"].values()) == 3
    assert any(note.startswith("3 voxels of the mask") for note in fitted.notes)
    assert np.isfinite(load_volume(fitted.fodf).data).all()


def test_maps_agree_with_the_fodfs(two_shells, tmp_path):
    inputs, _, fitted = two_shells
    maps = run(MapFODF, tmp_path / "m", fodf=fitted.fodf, mask=inputs["mask"])
    density, number = load_volume(maps.afdtotal).data, load_volume(maps.nufo).data
    expected = isotropic(fitted.fodf) * np.sqrt(4 * np.pi)
    np.testing.assert_allclose(density[1:-1], expected[1:-1], rtol=1e-5)
    assert not density[0].any()
    assert (number[1:6] == 1).mean() > 0.9
    first = load_volume(maps.peak).data[1:6, :, :, :3]
    angle = np.linspace(0, np.pi, SHAPE[1])[:, None]
    fibre = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)
    cosine = np.abs((first * fibre).sum(-1)) / np.linalg.norm(first, axis=-1)
    assert np.median(cosine) > np.cos(np.radians(3))


def test_a_converted_image_is_in_the_other_basis_and_says_so(two_shells, tmp_path):
    import torch

    _, _, fitted = two_shells
    given = {"in_file": fitted.fodf, "in_metadata": fitted.fodf_metadata}
    outputs = run(ConvertFODF, tmp_path / "c", **given, basis="descoteaux07")
    before = torch.from_numpy(load_volume(fitted.fodf).data)
    expected = to_basis(before, "descoteaux07").numpy()
    np.testing.assert_array_equal(load_volume(outputs.out_file).data, expected)
    encoding = outputs.out_metadata["OrientationEncoding"]
    assert encoding["SphericalHarmonicBasis"] == "descoteaux07"
    assert encoding["SphericalHarmonicDegree"] == 8


def test_an_image_from_elsewhere_comes_back_on_the_grid_in_our_basis(two_shells, tmp_path):
    inputs, _, fitted = two_shells
    fodf = load_volume(fitted.fodf)
    flipped = AFFINE.copy()
    flipped[:, 3] += flipped[:, 0] * (SHAPE[0] - 1)
    flipped[:, 0] *= -1
    path = save_volume(fodf.data[::-1], flipped, tmp_path / "other.nii.gz")
    outputs = run(ImportFODF, tmp_path / "i", in_file=str(path), like=inputs["mask"])
    np.testing.assert_array_equal(load_volume(outputs.fodf).data, fodf.data)
    np.testing.assert_allclose(load_volume(outputs.fodf).vox2ras, AFFINE)
    assert outputs.fodf_metadata["FODFModel"] == "given"
    assert any("basis" in note for note in outputs.notes)


def test_colour_fa_is_fa_times_the_direction(two_shells, tmp_path):
    inputs, _, _ = two_shells
    maps = run(FitTensor, tmp_path / "t", **inputs)
    colour, fa = load_volume(maps.colour_fa).data, load_volume(maps.fa).data
    np.testing.assert_allclose(np.linalg.norm(colour, axis=-1), fa, atol=1e-5)


def test_figures_are_drawn_with_and_without_grey_matter_and_a_field(two_shells, tmp_path):
    inputs, responses, fitted = two_shells
    gradients = {key: inputs[key] for key in ("dwi", "bval", "bvec")}
    drawn = run(PlotResponse, tmp_path / "a", **gradients, **responses_of(responses))
    assert Path(drawn.out_report).read_text().count("<path") > 20
    tissues = {"fodf": fitted.fodf, "fodf_csf": fitted.fodf_csf, "mask": inputs["mask"]}
    drawn = run(PlotTissues, tmp_path / "b", **tissues)
    assert "data:image/png" in Path(drawn.out_report).read_text()
    field = np.linspace(0.5, 1.5, SHAPE[1], dtype=np.float32)[:, None] * np.ones(SHAPE, np.float32)
    path = save_volume(field, AFFINE, tmp_path / "field.nii.gz")
    more = run(PlotTissues, tmp_path / "c", **tissues, fodf_gm=fitted.fodf_gm, field=str(path))
    lines = [Path(each.out_report).read_text().count("<path") for each in (drawn, more)]
    assert lines[1] > lines[0] + 7
