"""Runs to learn from: found by their names, loaded onto one grid, and refused with a remedy."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from difftract_bids.bids.training_runs import find_training_runs
from difftract_bids.config import PairsConfig
from difftract_bids.core.sh import n_coefficients
from difftract_bids.errors import AtlasError, GradientError, InputError, UsageError
from difftract_bids.io.fodf_images import save_fodf, sidecar_name
from difftract_bids.io.gradients import write_gradients
from difftract_bids.io.images import save_volume
from difftract_bids.learn.scan import load_scan
from difftract_bids.phantom.schemes import make_scheme

SHAPE = (12, 11, 10)
BRAIN = np.s_[3:9, 4:9, 1:9]
SCHEME = make_scheme((1000.0,), 20, 4)
VOX2RAS = np.array(
    [[-2.0, 0.3, 0.0, 10.0], [0.3, 2.0, 0.1, -9.0], [0.0, -0.1, 2.0, 5.0], [0, 0, 0, 1.0]]
)


def random_fodf(seed, lmax=4):
    coefficients = np.zeros((*SHAPE, n_coefficients(lmax)), dtype=np.float32)
    drawn = np.random.default_rng(seed).standard_normal(coefficients[BRAIN].shape)
    coefficients[BRAIN] = 0.05 * drawn
    coefficients[BRAIN][..., 0] = 0.3
    return coefficients


def write_fodf(folder, stem, seed=0, model="csd", basis="mrtrix3", **kwargs):
    """Write an fODF image with its sidecar."""
    label = "_label-WM" if model == "msmtcsd" else ""
    path = folder / f"{stem}_model-{model}_param-fod{label}_dwimap.nii.gz"
    save_fodf(random_fodf(seed, **kwargs), VOX2RAS, path, basis)
    encoding = {"SphericalHarmonicBasis": sidecar_name(basis), "Reference": "xyz"}
    sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
    sidecar.write_text(json.dumps({"OrientationEncoding": encoding}))
    return path


def write_parcellation(folder, stem, atlas="Tiny"):
    """Write two halves of the brain as nodes 3 and 7, and a node 9 that is nowhere."""
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[BRAIN] = 7
    labels[3:6, 4:9, 1:9] = 3
    path = save_volume(labels, VOX2RAS, folder / f"{stem}_atlas-{atlas}_dseg.nii.gz")
    path.with_name(f"{stem}_atlas-{atlas}_dseg.tsv").write_text(
        "index\tname\n3\tone\n7\tother\n9\tnone\n"
    )
    return path


def write_run(root, stem, seed=0, **fodf):
    """Write a run as the app does, and give its folder."""
    session = [part for part in stem.split("_") if part.startswith("ses-")]
    folder = root.joinpath(stem.split("_")[0], *session, "dwi")
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[BRAIN] = True
    dwi = np.random.default_rng(seed).uniform(1, 2, (*SHAPE, 24)).astype(np.float32)
    save_volume(dwi, VOX2RAS, folder / f"{stem}_desc-preproc_dwi.nii.gz")
    write_gradients(SCHEME, VOX2RAS, folder / f"{stem}_desc-preproc_dwi")
    save_volume(mask, VOX2RAS, folder / f"{stem}_desc-brain_mask.nii.gz")
    write_fodf(folder, stem, seed, **fodf)
    write_parcellation(folder, stem)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("derivatives")
    for seed, stem in enumerate(("sub-01_ses-A_run-1", "sub-01_ses-A_run-2", "sub-01_ses-B")):
        write_run(root, stem, seed)
    write_run(root, "sub-02", 3)
    return root


@pytest.fixture
def tree(written, tmp_path):
    """Copy the tree: what a test breaks is its own."""
    return shutil.copytree(written, tmp_path / "derivatives")


@pytest.fixture
def only(tree):
    """Find the run of the second participant."""

    def find(**settings):
        (run,) = find_training_runs(tree, PairsConfig(**settings), ["02"])
        return run

    return find


def labels_of(runs):
    return [run.label for run in runs]


def test_sessions_and_runs_are_kept_apart(tree):
    runs = find_training_runs(tree, PairsConfig(), needs_parcellation=True)
    assert labels_of(runs) == [
        "sub-01_ses-A_run-1",
        "sub-01_ses-A_run-2",
        "sub-01_ses-B",
        "sub-02",
    ]
    assert [(run.participant, run.session) for run in runs[2:]] == [("01", "B"), ("02", None)]
    for run in runs:
        for path in (run.dwi, run.bval, run.bvec, run.mask, run.fodf, run.parcellation, run.table):
            assert path.is_file()
            assert path.name.startswith(run.label + "_")
        assert (run.model, run.atlas) == ("csd", "Tiny")


def test_participants_are_taken_by_label_with_or_without_prefix(tree):
    assert labels_of(find_training_runs(tree, PairsConfig(), ["sub-02"])) == ["sub-02"]
    with pytest.raises(UsageError, match=r"1 of 2 participants .*: 09") as caught:
        find_training_runs(tree, PairsConfig(), ["02", "09"])
    assert "01, 02" in caught.value.remedy


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("model-csd_param-fod_dwimap.nii.gz", "_model-csd_param-fod"),
        ("atlas-Tiny_dseg.nii.gz", "_atlas-Tiny_dseg"),
        ("atlas-Tiny_dseg.tsv", "_atlas-Tiny_dseg"),
        ("desc-brain_mask.nii.gz", "_desc-brain_mask"),
        ("desc-preproc_dwi.bvec", r"lacks \.bvec"),
        ("desc-preproc_dwi.nii.gz", "_desc-preproc_dwi"),
    ],
)
def test_a_participant_who_lacks_something_is_left_out_and_named(tree, file, said):
    (tree / "sub-02" / "dwi" / f"sub-02_{file}").unlink()
    with pytest.warns(UserWarning, match=f"1 of 4 runs are left out: sub-02 .*{said}"):
        runs = find_training_runs(tree, PairsConfig(), needs_parcellation=True)
    assert {run.participant for run in runs} == {"01"}
    with pytest.raises(InputError, match=said):
        find_training_runs(tree, PairsConfig(), ["01", "02"], needs_parcellation=True)


def test_a_parcellation_is_not_needed_unless_a_loss_needs_it(tree):
    for table in tree.glob("sub-*/**/*_dseg.tsv"):
        table.unlink()
    assert all(run.parcellation is None for run in find_training_runs(tree, PairsConfig()))
    with pytest.raises(InputError, match="nothing to learn from"):
        find_training_runs(tree, PairsConfig(), needs_parcellation=True)


def test_without_any_pair_the_remedy_says_how_to_make_them(tree):
    for fodf in tree.glob("sub-*/**/*param-fod*"):
        fodf.unlink()
    with pytest.raises(InputError, match=r"sub-01_ses-B lacks .*param-fod") as caught:
        find_training_runs(tree, PairsConfig())
    assert "difftract-bids" in caught.value.remedy
    assert "raw dataset" in caught.value.remedy


@pytest.mark.parametrize(("name", "said"), [("nowhere", "does not exist"), (".", "no sub-")])
def test_a_folder_without_participants_is_refused(tmp_path, name, said):
    with pytest.raises(InputError, match=said):
        find_training_runs(tmp_path / name, PairsConfig())


def test_of_several_models_one_must_be_chosen(tree):
    write_fodf(tree / "sub-02" / "dwi", "sub-02", model="msmtcsd")
    with pytest.raises(InputError, match=r"csd \(4 of 4 runs\), msmtcsd \(1 of 4 runs\)") as said:
        find_training_runs(tree, PairsConfig())
    assert 'target_model = "csd"' in said.value.remedy
    runs = find_training_runs(tree, PairsConfig(target_model="csd"))
    assert {run.model for run in runs} == {"csd"}
    with pytest.warns(UserWarning, match="3 of 4 runs are left out"):
        (run,) = find_training_runs(tree, PairsConfig(target_model="msmtcsd"))
    assert run.fodf.name == "sub-02_model-msmtcsd_param-fod_label-WM_dwimap.nii.gz"
    with pytest.raises(InputError, match="no ss2t; there is csd"):
        find_training_runs(tree, PairsConfig(target_model="ss2t"))


def test_of_several_atlases_one_must_be_chosen_if_one_is_needed(tree):
    write_parcellation(tree / "sub-02" / "dwi", "sub-02", "Other")
    with pytest.raises(InputError, match=r"Other \(1 of 4 runs\), Tiny \(4 of 4 runs\)"):
        find_training_runs(tree, PairsConfig(), needs_parcellation=True)
    assert find_training_runs(tree, PairsConfig())[-1].parcellation is None
    chosen = find_training_runs(tree, PairsConfig(atlas="Other"), ["02"], needs_parcellation=True)
    assert chosen[0].parcellation.name == "sub-02_atlas-Other_dseg.nii.gz"


def test_grey_matter_and_other_spaces_are_no_targets(tree):
    folder = tree / "sub-02" / "dwi"
    white = folder / "sub-02_model-csd_param-fod_dwimap.nii.gz"
    shutil.copy(white, folder / "sub-02_model-msmtcsd_param-fod_label-GM_dwimap.nii.gz")
    shutil.copy(white, folder / "sub-02_space-MNI_model-other_param-fod_dwimap.nii.gz")
    assert find_training_runs(tree, PairsConfig(), ["02"])[0].fodf == white


def test_names_of_qsiprep_and_qsirecon_in_one_folder_are_found(tree):
    folder = tree / "sub-02" / "dwi"
    for path in sorted(folder.iterdir()):
        name = path.name.replace("sub-02_", "sub-02_space-ACPC_").replace("atlas-", "seg-")
        name = name.replace("_param-fod", "_param-fod_label-WM").replace("-csd_", "-ss3t_")
        path.rename(folder / name)
    (run,) = find_training_runs(tree, PairsConfig(), ["02"], needs_parcellation=True)
    assert run.label == "sub-02_space-ACPC"
    assert (run.model, run.atlas) == ("ss3t", "Tiny")
    assert load_scan(run, PairsConfig()).node_names == ("one", "other", "none")


def test_a_scan_is_cropped_to_the_brain_and_a_margin_and_stays_in_place(only):
    scan = load_scan(only(), PairsConfig())
    box = np.s_[1:11, 2:11, 0:10]  # two voxels around the brain, where the image has them
    whole = nib.load(only().dwi)
    assert scan.dwi.dtype == torch.float32
    np.testing.assert_array_equal(scan.dwi, whole.get_fdata(dtype=np.float32)[box])
    np.testing.assert_allclose(
        scan.vox2ras @ torch.tensor([3.0, 1.0, 2.0, 1.0], dtype=torch.float64),
        whole.affine @ [4.0, 3.0, 2.0, 1.0],
    )
    np.testing.assert_array_equal(scan.fodf, random_fodf(3)[box])
    assert scan.mask.sum() == 6 * 5 * 8
    assert scan.parcellation.dtype == torch.int64
    assert torch.unique(scan.parcellation[scan.mask]).tolist() == [3, 7]
    assert scan.node_labels.tolist() == [3, 7, 9]
    assert scan.node_names == ("one", "other", "none")
    assert scan.lmax == 4
    assert scan.voxel_size_mm == pytest.approx(np.linalg.norm(VOX2RAS[:3, :3], axis=0), abs=1e-5)
    assert scan.sources["fodf"].endswith("_param-fod_dwimap.nii.gz")
    assert (scan.participant, scan.label) == ("02", "sub-02")


def test_a_scan_has_the_volumes_that_were_asked_for_with_their_vectors(only):
    pairs = PairsConfig(n_directions=8, n_b0=1)
    scan = load_scan(only(), pairs)
    whole = load_scan(only(), PairsConfig())
    assert scan.gradients.shells() == [(0.0, 1), (1000.0, 8)]
    for i, bvec in enumerate(scan.gradients.bvecs):
        apart = np.linalg.norm(whole.gradients.bvecs - bvec, axis=1)
        apart[whole.gradients.bvals_s_mm2 != scan.gradients.bvals_s_mm2[i]] = np.inf
        assert torch.equal(scan.dwi[..., i], whole.dwi[..., int(apart.argmin())])
        assert apart.min() == 0


@pytest.mark.parametrize(
    ("said", "settings", "is_noted"),
    [
        ({"Denoised": True}, {"n_directions": 8}, True),
        ({"Denoised": True}, {"n_b0": 1}, True),
        ({"Denoised": True}, {}, False),
        ({"Denoised": False}, {"n_directions": 8}, False),
        ({}, {"n_directions": 8}, False),
        (None, {"n_directions": 8}, False),
    ],
)
def test_volumes_of_an_image_that_was_denoised_whole_are_noted(said, settings, is_noted, only):
    run = only()
    if said is not None:
        run.dwi.with_name("sub-02_desc-preproc_dwi.json").write_text(json.dumps(said))
    notes = load_scan(run, PairsConfig(**settings)).notes
    assert [("--denoise-method none" in note) for note in notes] == [True] * is_noted


def test_a_damaged_sidecar_of_the_image_is_named(only):
    run = only()
    run.dwi.with_name("sub-02_desc-preproc_dwi.json").write_text("{")
    with pytest.raises(InputError, match=r"desc-preproc_dwi\.json"):
        load_scan(run, PairsConfig(n_directions=8))


def test_a_target_in_another_basis_or_orientation_is_the_same_target(only, tree):
    expected = load_scan(only(), PairsConfig()).fodf
    folder = tree / "sub-02" / "dwi"
    write_fodf(folder, "sub-02", 3, basis="descoteaux07_legacy")
    torch.testing.assert_close(load_scan(only(), PairsConfig()).fodf, expected)
    path = write_fodf(folder, "sub-02", 3)
    image = nib.as_closest_canonical(nib.load(path))
    assert not np.allclose(image.affine, VOX2RAS)
    nib.save(image, path)
    torch.testing.assert_close(load_scan(only(), PairsConfig()).fodf, expected)


def test_a_target_whose_basis_nobody_names_is_said_to_be_assumed(only):
    run = only()
    run.fodf.with_name(run.fodf.name.replace(".nii.gz", ".json")).unlink()
    with pytest.warns(UserWarning, match=r"param-fod_dwimap\.nii\.gz: No sidecar"):
        load_scan(run, PairsConfig())


@pytest.mark.parametrize("name", ["mask", "fodf", "parcellation"])
def test_an_image_on_another_grid_is_refused(only, name):
    path = getattr(only(), name)
    image = nib.load(path)
    moved = image.affine.copy()
    moved[:3, 3] += 1.0
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), moved), path)
    with pytest.raises(InputError, match="corners are up to 1") as caught:
        load_scan(only(), PairsConfig())
    assert str(path) == caught.value.where
    assert "mrtransform" in caught.value.remedy


def test_signal_that_is_not_finite_is_refused_in_the_brain_and_zero_outside(only):
    run = only()
    image = nib.load(run.dwi)
    data = image.get_fdata(dtype=np.float32)
    data[1, 2, 0, 5] = np.nan
    nib.save(nib.Nifti1Image(data, image.affine), run.dwi)
    assert load_scan(run, PairsConfig()).dwi[0, 0, 0, 5] == 0
    data[4, 5, 2:4, 5] = np.inf
    nib.save(nib.Nifti1Image(data, image.affine), run.dwi)
    with pytest.raises(InputError, match="2 of 240 voxels of the brain"):
        load_scan(run, PairsConfig())


def test_an_empty_mask_is_refused(only):
    run = only()
    save_volume(np.zeros(SHAPE, dtype=bool), VOX2RAS, run.mask)
    with pytest.raises(InputError, match="no voxel"):
        load_scan(run, PairsConfig())


def test_gradients_of_another_image_and_labels_without_a_name_are_refused(only):
    run = only()
    run.table.write_text("index\tname\n3\tone\n")
    with pytest.raises(AtlasError, match="1 of 2 labels"):
        load_scan(run, PairsConfig())
    write_gradients(make_scheme((1000.0,), 21, 4), VOX2RAS, run.bval.with_suffix(""))
    with pytest.raises(GradientError, match="24 volumes, the gradient table 25"):
        load_scan(run, PairsConfig())


def test_more_directions_than_were_measured_are_refused_with_the_file(only):
    with pytest.raises(InputError, match="30 directions") as caught:
        load_scan(only(), PairsConfig(n_directions=30))
    assert caught.value.where.endswith(".bval")
