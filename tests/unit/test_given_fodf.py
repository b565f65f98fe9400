"""Responses and fODF images that are given: found, checked, and named when they are wrong."""

import nibabel as nib
import numpy as np
import pytest
from datasets import TWO_SHELLS, write_dataset
from nibabel.orientations import apply_orientation, inv_ornt_aff

from difftract_bids.bids.given_fodf import fodf_of
from difftract_bids.bids.plan import make_plan
from difftract_bids.config import Config, FodfConfig
from difftract_bids.errors import ConfigError, DifftractError, GradientError, InputError
from difftract_bids.io.directions import read_directions
from difftract_bids.io.grids import onto_grid
from difftract_bids.io.images import Volume, load_volume, save_volume

RESPONSE = "# Shells: 0,1000,2500\n900 0 0\n500 -100 20\n300 -110 40\n"


def plan(dataset, **settings):
    out, work = dataset.parent / "out", dataset.parent / "work"
    return make_plan(dataset, out, work, Config(fodf=FodfConfig(**settings)))


@pytest.fixture
def dataset(tmp_path):
    """A participant with one shell, and one with two."""
    dataset = write_dataset(tmp_path / "bids", ["01"])
    write_dataset(tmp_path / "bids", ["02"], shells=TWO_SHELLS)
    return dataset


@pytest.fixture
def folder(tmp_path):
    """Responses of a group, of both models."""
    folder = tmp_path / "group"
    folder.mkdir()
    for name in ("csd_label-WM", "msmtcsd_label-WM", "msmtcsd_label-GM", "msmtcsd_label-CSF"):
        (folder / f"model-{name}_response.txt").write_text(RESPONSE)
    return folder


def test_each_run_has_its_own_model(dataset):
    models = {run.participant: run.fodf_model.name for run in plan(dataset).runs}
    assert models == {"01": "csd", "02": "msmtcsd"}


def test_three_tissues_of_one_shell_leave_that_participant_out(dataset):
    found = plan(dataset, model="msmtcsd")
    assert found.participants == ["02"]
    assert isinstance(found.unusable["01"], GradientError)
    assert "b=1000: 8" in found.unusable["01"].what


def test_of_a_folder_each_run_takes_the_responses_of_its_model(dataset, folder):
    config = FodfConfig(response=(str(folder),))
    taken = [fodf_of(config, run).response for run in plan(dataset, response=(str(folder),)).runs]
    assert taken == [
        (str(folder / "model-csd_label-WM_response.txt"),),
        tuple(str(folder / f"model-msmtcsd_label-{t}_response.txt") for t in ("WM", "GM", "CSF")),
    ]


def test_a_response_that_a_folder_lacks_is_named_with_those_that_are_there(dataset, folder):
    (folder / "model-msmtcsd_label-GM_response.txt").unlink()
    found = plan(dataset, response=(str(folder),))
    assert "0 responses of GM for the model msmtcsd" in found.unusable["02"].what
    assert "model-msmtcsd_label-WM_response.txt" in found.unusable["02"].remedy


def test_one_file_is_no_set_of_three(dataset, folder):
    path = str(folder / "model-csd_label-WM_response.txt")
    found = plan(dataset, response=(path,))
    assert found.participants == ["01"]
    assert isinstance(found.unusable["02"], ConfigError)
    assert "WM GM CSF" in found.unusable["02"].what
    assert "usable shells" in found.unusable["02"].what


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("# Shells: 0\nmany\n", "cannot be read"),
        ("# Shells: 0\n", "empty"),
        ("1 nan\n", "not finite"),
        ("-3 1\n", "not positive"),
    ],
)
def test_a_file_that_is_no_response_is_found_before_anything_starts(tmp_path, content, said):
    dataset = write_dataset(tmp_path / "bids")
    path = tmp_path / "response.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        plan(dataset, response=(str(path),))
    assert caught.value.where == str(path)
    assert "--response" in caught.value.what


@pytest.mark.parametrize(
    ("shells", "fits"), [("0,1000", True), ("1040", True), ("0,3000", False), (None, True)]
)
def test_a_response_of_other_shells_is_found_before_anything_starts(tmp_path, shells, fits):
    dataset = write_dataset(tmp_path / "bids")
    path = tmp_path / "response.txt"
    rows = "900 0\n500 -100\n" if shells is None or "," in shells else "500 -100\n"
    path.write_text(f"# Shells: {shells}\n{rows}" if shells else rows)
    if fits:
        assert plan(dataset, response=(str(path),)).participants == ["01"]
    else:
        with pytest.raises(GradientError, match="shells 0, 3000; the data have b=1000"):
            plan(dataset, response=(str(path),))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("0.1 0.2\n" * 60, None),
        ("0 0 1\n" * 60, None),
        ("0.1 0.2\n" * 20, "20 by 2 numbers; at least 45 directions"),
        ("1\n" * 60, "60 by 1 numbers"),
        ("0 0 0\n" + "0 0 1\n" * 60, "1 of 61 directions are zero"),
        ("nan 1\n" + "0 1\n" * 60, "1 of 61 directions are zero or not finite"),
        ("north\n", "cannot be read"),
    ],
)
def test_given_directions_of_the_constraint_are_checked(tmp_path, rows, said):
    dataset = write_dataset(tmp_path / "bids")
    path = tmp_path / "directions.txt"
    path.write_text(rows)
    if said is None:
        found = plan(dataset, constraint_directions=str(path))
        assert fodf_of(found.config.fodf, found.runs[0]).constraint_directions == str(path)
    else:
        with pytest.raises(InputError, match=rf"{said}.*\(--constraint-directions\)"):
            plan(dataset, constraint_directions=str(path))


def test_directions_are_read_as_dwi2fod_reads_them(tmp_path):
    (tmp_path / "directions.txt").write_text("0 0\n1.5707963267948966 1.5707963267948966\n" * 30)
    found = read_directions(tmp_path / "directions.txt")
    np.testing.assert_allclose(found[:2], [[0, 0, 1], [0, 1, 0]], atol=1e-12)


def write_fodf(path, dataset, *, shift_mm=0.0, n_coeffs=15):
    dwi = nib.load(next(dataset.glob("sub-01/dwi/*.nii.gz")))
    data = np.zeros((*dwi.shape[:3], n_coeffs), np.float32)
    data[..., 0] = 0.3
    data[..., 3] = 0.1
    affine = dwi.affine.copy()
    affine[0, 3] += shift_mm
    save_volume(data, affine, path)
    return str(path)


def test_a_given_image_is_checked_and_each_run_takes_its_own(tmp_path):
    dataset = write_dataset(tmp_path / "bids", ["01", "02"])
    write_fodf(tmp_path / "fod-01.nii.gz", dataset)
    found = plan(dataset, input_fodf=str(tmp_path / "fod-{subject}.nii.gz"))
    assert [run.fodf_model.name for run in found.runs] == ["given"]
    assert "no such file" in found.unusable["02"].what
    own = fodf_of(found.config.fodf, found.runs[0])
    assert own.input_fodf == str(tmp_path / "fod-01.nii.gz")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"shift_mm": 30.0}, "up to 30.0 mm apart"), ({"n_coeffs": 16}, "--input-fodf")],
)
def test_an_image_of_another_space_or_kind_is_refused(tmp_path, options, said):
    dataset = write_dataset(tmp_path / "bids")
    path = write_fodf(tmp_path / "fod.nii.gz", dataset, **options)
    with pytest.raises(DifftractError, match=said):
        plan(dataset, input_fodf=path)


ORIENTATIONS = [[[2, 1], [0, -1], [1, 1]], [[0, -1], [1, 1], [2, -1]], [[1, 1], [2, -1], [0, -1]]]
OBLIQUE = np.array([[-2, 0.1, 0, 3], [0.1, 2.2, 0.2, 4], [0, -0.2, 3, 5], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_image_with_other_axes_is_turned_onto_the_grid(orientation):
    data = np.random.default_rng(0).random((4, 5, 6, 2))
    turn = np.array(orientation, float)
    stored = Volume(apply_orientation(data, turn), OBLIQUE @ inv_ornt_aff(turn, data.shape[:3]))
    np.testing.assert_array_equal(onto_grid(stored, (4, 5, 6), OBLIQUE, where="x").data, data)
    with pytest.raises(InputError, match="4 by 5 by 6 voxels, the diffusion run 4 by 5 by 7"):
        onto_grid(stored, (4, 5, 7), OBLIQUE, where="x")


def test_the_grid_of_a_run_is_that_of_its_image(tmp_path):
    dataset = write_dataset(tmp_path / "bids")
    volume = load_volume(write_fodf(tmp_path / "fod.nii.gz", dataset))
    assert onto_grid(volume, volume.data.shape[:3], volume.vox2ras, where="x").data.shape[3] == 15
