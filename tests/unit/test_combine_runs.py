"""Several acquisitions as one series: which, and how they are put together."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from datasets import TWO_SHELLS, write_dataset, write_run
from scipy.spatial.transform import Rotation

from difftract_bids.bids.plan import make_plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config, PreprocessingConfig
from difftract_bids.errors import GradientError, UsageError
from difftract_bids.interfaces.combine import ConcatenateRuns
from difftract_bids.interfaces.gradients import ConformGradients
from difftract_bids.interfaces.noise import CarryNoise
from difftract_bids.io.gradients import (
    GradientTable,
    join_gradients,
    read_gradients,
    to_fsl_bvecs,
)
from difftract_bids.io.images import Volume, save_volume
from difftract_bids.preprocessing.combine import concatenate_parts
from difftract_bids.workflows.preprocessing import init_preprocessing_wf

LOW, HIGH = ((1000, 8),), ((3000, 8),)


@pytest.fixture
def folder(tmp_path) -> Path:
    """The diffusion folder of a participant without any image."""
    root = write_dataset(tmp_path / "bids", [])
    return root / "sub-01" / "dwi"


def write(folder: Path, name: str, shells=LOW, affine=None, **metadata) -> Path:
    stem = f"sub-01_{name}"
    write_run(folder, stem, shells)
    (folder / f"{stem}_dwi.json").write_text(json.dumps(metadata))
    path = folder / f"{stem}_dwi.nii.gz"
    if affine is not None:
        nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), affine), path)
    return path


def moved(path: Path, offset_mm=0.0, turn_deg=0.0) -> np.ndarray:
    affine = nib.load(path).affine.copy()
    affine[:3, :3] = Rotation.from_euler("z", turn_deg, degrees=True).as_matrix() @ affine[:3, :3]
    affine[1, 3] += offset_mm
    return affine


def runs(folder: Path, **settings) -> list[DWIRun]:
    bids_dir = folder.parents[1]
    config = Config(preprocessing=PreprocessingConfig(combine_runs=True, **settings))
    out = bids_dir.parent / "out"
    return list(make_plan(bids_dir, out, bids_dir.parent / "work", config).runs)


def test_runs_of_one_grid_become_one_with_the_entities_that_they_share(folder):
    write(folder, "acq-x_run-1", PhaseEncodingDirection="j", EchoTime=0.09, SliceTiming=[0])
    write(folder, "acq-x_run-2", PhaseEncodingDirection="j", EchoTime=0.09, SliceTiming=[1])
    (run,) = runs(folder)
    assert run.stem == "sub-01_acq-x"
    assert [part.entities["run"] for part in run.parts] == ["1", "2"]
    assert run.dwi == run.parts[0].dwi
    assert run.metadata == {"PhaseEncodingDirection": "j", "EchoTime": 0.09}
    assert run.notes[0].startswith("2 runs are combined: sub-01_acq-x_run-1_dwi.nii.gz, ")
    assert run.size_gb == pytest.approx(2 * 5 * 6 * 7 * 9 * 4e-9)


def test_without_the_option_each_stays_apart(folder):
    write(folder, "run-1")
    write(folder, "run-2")
    bids_dir = folder.parents[1]
    found = make_plan(bids_dir, bids_dir.parent / "out", bids_dir.parent / "work", Config()).runs
    assert [run.stem for run in found] == ["sub-01_run-1", "sub-01_run-2"]


def test_shells_of_several_runs_make_one_multi_shell_series(folder):
    write(folder, "acq-b1000", ((1000, 30),))
    write(folder, "acq-b3000", ((3000, 30),))
    (run,) = runs(folder)
    assert run.fodf_model.name == "msmtcsd"


def test_parts_with_too_few_directions_of_their_own_are_enough_together(folder):
    write(folder, "run-1", ((1000, 4),))
    vectors = Rotation.random(3, random_state=1).as_matrix()[:, 0]
    path = write(folder, "run-2", ((1000, 3),))
    stem = str(path).removesuffix(".nii.gz")
    np.savetxt(f"{stem}.bvec", np.vstack([np.zeros(3), vectors]).T)
    (run,) = runs(folder)
    assert len(run.parts) == 2


def test_sessions_are_never_combined(tmp_path):
    root = write_dataset(tmp_path / "bids", sessions=["A", "B"])
    assert [run.session for run in runs(root / "sub-01" / "dwi")] == ["A", "B"]


def test_other_grids_and_echo_times_stay_apart(folder):
    path = write(folder, "run-1", EchoTime=0.09)
    write(folder, "run-2", EchoTime=0.12)
    write(folder, "run-3", EchoTime=0.09, affine=moved(path, offset_mm=8.0))
    write(folder, "run-4", EchoTime=0.09, affine=np.diag([-2.5, 2.5, 2.5, 1]))
    assert [run.stem for run in runs(folder)] == [f"sub-01_run-{n}" for n in range(1, 5)]


def test_a_grid_a_little_apart_is_left_to_motion_correction_if_there_is_any(folder):
    path = write(folder, "run-1")
    write(folder, "run-2", affine=moved(path, offset_mm=3.0))
    (run,) = runs(folder)
    assert any("3.0 mm" in note for note in run.notes)
    assert len(runs(folder, motion_correction="none")) == 2


def test_an_unknown_phase_encoding_counts_as_that_of_the_others(folder):
    write(folder, "run-1", PhaseEncodingDirection="j")
    write(folder, "run-2")
    (run,) = runs(folder)
    assert run.metadata["PhaseEncodingDirection"] == "j"


def test_opposed_phase_encodings_are_not_combined(folder):
    write(folder, "dir-AP", PhaseEncodingDirection="j-")
    write(folder, "dir-PA", PhaseEncodingDirection="j")
    with pytest.raises(UsageError, match=r"dir-AP_dwi.nii.gz \(j-\), .*PA_dwi.nii.gz \(j\)") as e:
        runs(folder)
    assert "each run is then processed on its own" in e.value.remedy
    settings = {"motion_correction": "eddy", "susceptibility_correction": "topup"}
    with pytest.raises(UsageError, match="cannot be combined"):
        runs(folder, **settings)


def test_a_b0_image_joins_its_own_phase_encoding_and_is_a_fieldmap_for_the_other(folder):
    write(folder, "dir-AP", PhaseEncodingDirection="j-")
    for name, encoding in (("dir-AP_run-2", "j-"), ("dir-PA", "j")):
        path = write(folder, name, ((0, 2),), PhaseEncodingDirection=encoding)
        assert nib.load(path).shape[3] == 3
    (run,) = runs(folder)
    assert [part.dwi.name for part in run.parts] == [
        "sub-01_dir-AP_dwi.nii.gz",
        "sub-01_dir-AP_run-2_dwi.nii.gz",
    ]
    assert any("dir-PA" in note and "left out" in note for note in run.notes)


def series(scale=1.0, n=8, seed=0, n_b0=2):
    """A ball of known intensity on a dark ground, its b=0 volumes first."""
    rng = np.random.default_rng(seed)
    bvecs = np.vstack(
        [np.zeros((n_b0, 3)), Rotation.random(n, random_state=seed).as_matrix()[:, 0]]
    )
    bvals = np.r_[np.zeros(n_b0), np.full(n, 1000.0)]
    grid = np.indices((12, 12, 12)) - 5.5
    ball = np.linalg.norm(grid, axis=0) < 4
    signal = np.where(bvals == 0, 500.0, 200.0)
    data = ball[..., None] * signal + rng.normal(0, 2, (*ball.shape, len(bvals)))
    image = Volume((scale * data).astype(np.float32), np.diag([-2.0, 2, 2, 1]))
    return image, GradientTable(bvals, bvecs)


def test_parts_become_as_bright_as_the_first_at_b0():
    combined = concatenate_parts([series(), series(0.7, seed=1), series(1.3, seed=2)], "abc")
    np.testing.assert_allclose(combined.scales, [1, 1 / 0.7, 1 / 1.3], rtol=0.01)
    b0 = combined.dwi.data[6, 6, 6, combined.gradients.b0_mask]
    np.testing.assert_allclose(b0, 500, atol=15)
    assert combined.dwi.data.shape[3] == len(combined.gradients.bvals_s_mm2) == 30
    assert combined.notes == (
        f"The intensities of b were multiplied by {combined.scales[1]:.3f}.",
        f"The intensities of c were multiplied by {combined.scales[2]:.3f}.",
    )


def test_volumes_keep_their_order_and_their_own_gradients():
    one, two = series(), series(seed=3, n=5)
    combined = concatenate_parts([one, two])
    np.testing.assert_array_equal(combined.dwi.data[..., :10], one[0].data)
    ratio = combined.dwi.data[..., 10:] / two[0].data
    np.testing.assert_allclose(ratio, combined.scales[1], rtol=1e-4)
    np.testing.assert_allclose(
        combined.gradients.bvecs, np.vstack([one[1].bvecs, two[1].bvecs]), atol=1e-12
    )


def test_a_part_without_b0_is_left_as_it_is_and_told_of():
    combined = concatenate_parts([series(), series(0.5, seed=1, n_b0=0)], ["a", "b"])
    assert combined.scales == (1.0, 1.0)
    assert combined.notes == ("b has no b=0 volume: its intensities were left as they are.",)


def test_a_suspicious_difference_of_brightness_is_doubted():
    assert "acquired alike" in concatenate_parts([series(), series(0.2, seed=1)]).notes[0]


def test_vectors_stay_with_the_voxels_of_their_part():
    """The voxels of a turned part are given the first's affine, and its vectors turn with them."""
    (image, table), turn = series(), Rotation.from_euler("z", 2.0, degrees=True).as_matrix()
    turned = image.vox2ras.copy()
    turned[:3, :3] = turn @ turned[:3, :3]
    joined = join_gradients([(table, image.vox2ras), (table, turned)])
    along_voxels = to_fsl_bvecs(table.bvecs, turned)
    there = to_fsl_bvecs(joined.bvecs[10:], image.vox2ras)
    np.testing.assert_allclose(there, along_voxels, atol=1e-12)


def test_parts_that_are_too_few_together_are_an_error():
    with pytest.raises(GradientError, match="Only 4 volumes"):
        concatenate_parts([series(n=2), series(n=2, seed=1)])


def test_the_interface_writes_what_the_function_gives(folder, tmp_path):
    paths = [write(folder, "run-1", LOW), write(folder, "run-2", HIGH)]
    stems = [str(path).removesuffix(".nii.gz") for path in paths]
    result = ConcatenateRuns(
        dwi=[str(path) for path in paths],
        bval=[f"{stem}.bval" for stem in stems],
        bvec=[f"{stem}.bvec" for stem in stems],
    ).run(cwd=tmp_path)
    out = result.outputs
    image = nib.load(out.dwi)
    assert image.shape == (5, 6, 7, 18)
    assert out.n_volumes == [9, 9]
    assert out.scales[0] == 1
    assert f"by {out.scales[1]:.3f}" in out.notes[0]
    assert "sub-01_run-2_dwi.nii.gz" in out.notes[0]
    table = read_gradients(out.bval, out.bvec, image.affine, n_volumes=18)
    assert table.shells() == [(0, 2), (1000, 8), (3000, 8)]


def test_the_noise_of_a_part_is_as_bright_as_the_part_became(tmp_path):
    """A part recorded at half the gain has half the noise, until both are doubled."""
    grid = np.diag([-2.0, 2, 2, 1])
    maps = [
        str(save_volume(np.full((4, 4, 4), sd, np.float32), grid, tmp_path / f"{sd}.nii.gz"))
        for sd in (10.0, 5.0)
    ]
    out = CarryNoise(sigma=maps, scales=[1.0, 2.0], like=maps[0]).run(cwd=tmp_path).outputs
    np.testing.assert_allclose(nib.load(out.sigma).get_fdata(), 10.0, rtol=1e-5)
    out = CarryNoise(sigma=maps[1], like=maps[0]).run(cwd=tmp_path).outputs
    np.testing.assert_allclose(nib.load(out.sigma).get_fdata(), 5.0, rtol=1e-5)


def test_several_parts_hand_their_scales_to_the_noise():
    workflow = init_preprocessing_wf(PreprocessingConfig(), parts=({}, {}))
    noise, joined = workflow.get_node("noise"), workflow.get_node("combine_wf")
    assert ("outputnode.scales", "scales") in workflow._graph[joined][noise]["connect"]


def test_datasets_with_one_series_are_not_changed(tmp_path):
    root = write_dataset(tmp_path / "bids", shells=TWO_SHELLS)
    (run,) = runs(root / "sub-01" / "dwi")
    assert run.stem == "sub-01"
    assert not any("combined" in note for note in run.notes)


def test_a_part_alone_is_conformed_where_it_is_known_to_be_one(folder, tmp_path):
    path = write(folder, "run-1", ((1000, 3),))
    stem = str(path).removesuffix(".nii.gz")
    files = {"dwi": str(path), "bval": f"{stem}.bval", "bvec": f"{stem}.bvec"}
    with pytest.raises(GradientError, match="Only 3 volumes"):
        ConformGradients(**files).run(cwd=tmp_path)
    out = ConformGradients(**files, whole=False).run(cwd=tmp_path).outputs
    np.testing.assert_array_equal(np.loadtxt(out.bval), [0, 1000, 1000, 1000])
