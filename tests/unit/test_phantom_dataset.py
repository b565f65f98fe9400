"""The phantom's signal against formulas, and its files against BIDS and the truth."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel

from difftract_bids.cli.phantom import main
from difftract_bids.errors import UsageError
from difftract_bids.io.gradients import read_gradients
from difftract_bids.io.images import load_volume
from difftract_bids.phantom.bundles import make_tube, map_fixels
from difftract_bids.phantom.dataset import draw_weights, write_phantom
from difftract_bids.phantom.geometry import load_geometry
from difftract_bids.phantom.head import Head
from difftract_bids.phantom.pose import make_grid, move_volume, rigid
from difftract_bids.phantom.schemes import even_directions, make_scheme
from difftract_bids.phantom.settings import PhantomConfig
from difftract_bids.phantom.signal import StickZeppelin, add_rician_noise, diffusion_volumes
from difftract_bids.phantom.tissue import map_tissue

SMALL = PhantomConfig(voxel_size_mm=6.0, t1w_voxel_size_mm=6.0, n_directions=12, n_b0=1)
DWI = "sub-01/dwi/sub-01_dwi"
TRUTH = "derivatives/truth/sub-01/dwi/sub-01"


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("phantom") / "ds", replace(SMALL, n_subjects=2))


def test_a_fibre_attenuates_as_a_stick_and_a_zeppelin():
    model = StickZeppelin(stick_fraction=0.6, along_mm2_s=1.7e-3)
    along, across = model.attenuation(1000.0, np.array([1.0, 0.0]))
    assert along == pytest.approx(np.exp(-1.7))
    assert across == pytest.approx(0.6 + 0.4 * np.exp(-0.4 * 1.7))
    np.testing.assert_array_equal(model.attenuation(0.0, np.linspace(-1, 1, 5)), 1.0)


def test_the_noise_is_rician():
    rng = np.random.default_rng(0)
    background = add_rician_noise(np.zeros(200_000), 2.0, rng)
    bright = add_rician_noise(np.full(200_000, 200.0), 2.0, rng)
    assert background.mean() == pytest.approx(2.0 * np.sqrt(np.pi / 2), rel=0.01)
    assert bright.std() == pytest.approx(2.0, rel=0.01)


def test_directions_are_spread_evenly_over_the_whole_sphere():
    directions = even_directions(64, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
    cosine = np.abs(directions @ directions.T) - 2 * np.eye(64)
    nearest_deg = np.degrees(np.arccos(cosine.max(axis=1)))
    # A hexagonal packing of 128 caps on the sphere would leave about 19 degrees between them.
    assert nearest_deg.min() > 14
    assert (directions[:, 2] < 0).any()
    assert (directions[:, 2] > 0).any()


def test_a_scheme_has_its_shells_and_its_b0_volumes_between_them():
    table = make_scheme([1000.0, 2500.0], 20, 4)
    assert table.shells() == [(0.0, 4), (1000.0, 20), (2500.0, 20)]
    assert np.flatnonzero(table.b0_mask).tolist() == [0, 11, 22, 33]


@pytest.mark.parametrize("axes", ["LAS", "PIR"])
def test_tensors_from_the_files_point_along_the_true_streamlines(tmp_path, axes):
    config = replace(SMALL, voxel_size_mm=4.0, snr=np.inf, axes=axes, oblique_deg=12.0)
    write_phantom(tmp_path / "ds", config)
    stem = str(tmp_path / "ds" / DWI)
    dwi = load_volume(stem + ".nii.gz", ndim=4)
    table = read_gradients(stem + ".bval", stem + ".bvec", dwi.vox2ras, n_volumes=13)
    lines = nib.streamlines.load(
        tmp_path / "ds" / (TRUTH + "_model-truth_tractogram.tck")
    ).streamlines
    middle = np.array([(line[len(line) // 2 - 1] + line[len(line) // 2]) / 2 for line in lines])
    along = np.array([line[len(line) // 2] - line[len(line) // 2 - 1] for line in lines])
    ijk = np.rint(nib.affines.apply_affine(np.linalg.inv(dwi.vox2ras), middle)).astype(int)
    tensor = TensorModel(gradient_table(table.bvals_s_mm2, bvecs=table.bvecs))
    fit = tensor.fit(dwi.data[tuple(ijk.T)])
    single = fit.fa > 0.6
    assert single.mean() > 0.3
    unit = along / np.linalg.norm(along, axis=1, keepdims=True)
    cosine = np.abs(np.einsum("ij,ij->i", fit.evecs[..., 0], unit))[single]
    assert np.degrees(np.arccos(np.median(cosine))) < 4
    assert np.quantile(cosine, 0.05) > np.cos(np.radians(30))


def test_a_moved_head_gives_the_volume_of_a_head_that_lies_there():
    geometry, gradients = load_geometry(), make_scheme([1000.0], 6, 1)
    weights = np.array([round(bundle.weight) for bundle in geometry.bundles])
    grid = make_grid((186.0, 219.0, 171.0), 5.0, "LAS", 5.0)
    motion = rigid(np.array([5.0, -3.0, 2.0]), np.array([4.0, -8.0, 20.0]))

    def volume(head2ras, rotation):
        vox2head = Head(geometry, weights, head2ras).vox2head(grid.vox2ras)
        tissue = map_tissue(geometry, grid.shape, vox2head, samples_per_axis=2)
        fixels = map_fixels(geometry, weights, grid.shape, vox2head)
        rotations = np.tile(rotation, (7, 1, 1))
        return list(diffusion_volumes(tissue, fixels, gradients, rotations))[3]

    truly, still = volume(motion, motion[:3, :3]), volume(np.eye(4), np.eye(3))
    turned = move_volume(volume(np.eye(4), motion[:3, :3]), motion, grid.vox2ras)
    not_turned = move_volume(still, motion, grid.vox2ras)
    error = np.abs(turned - truly).mean()
    assert error < 0.25 * np.abs(still - truly).mean()
    # Interpolation at 5 mm leaves some error; fibres that did not turn with the head add to it.
    assert error < 0.8 * np.abs(not_turned - truly).mean()


def test_motion_is_in_the_images_and_in_the_truth(tmp_path, small):
    write_phantom(tmp_path / "ds", replace(SMALL, motion_sd_mm=3.0, motion_sd_deg=3.0))
    record = json.loads((tmp_path / "ds" / (TRUTH + "_simulation.json")).read_text())
    shifts = np.array(record["MotionTranslationMM"])
    assert shifts.shape == (13, 3)
    assert not shifts[0].any()
    assert 1.0 < shifts[1:].std() < 5.0
    moved, still = (load_volume(root / (DWI + ".nii.gz")) for root in (tmp_path / "ds", small))
    np.testing.assert_array_equal(moved.data[..., 0], still.data[..., 0])
    assert np.abs(moved.data[..., 5] - still.data[..., 5]).mean() > 5


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path, small):
    again = write_phantom(tmp_path / "again", replace(SMALL, n_subjects=2))
    other = write_phantom(tmp_path / "other", replace(SMALL, seed=1))
    assert digests(again) == digests(small)
    differing = {name for name, value in digests(other).items() if value != digests(small)[name]}
    assert {DWI + ".nii.gz", DWI + ".bvec", "sub-01/anat/sub-01_T1w.nii.gz"} <= differing


def test_a_further_subject_changes_nothing_in_the_first(tmp_path, small):
    alone = digests(write_phantom(tmp_path / "alone", SMALL))
    both = digests(small)
    assert {n for n in alone if both[n] != alone[n]} == {"participants.tsv"}


def test_subjects_differ_in_their_true_edges_as_they_were_drawn(small):
    geometry = load_geometry()
    drawn = [draw_weights(geometry, SMALL, index) for index in range(400)]
    logs = np.log(np.array(drawn) / [bundle.weight for bundle in geometry.bundles])
    assert logs.std() == pytest.approx(0.2, rel=0.05)
    for index in (0, 1):
        folder = small / f"derivatives/truth/sub-0{index + 1}/dwi"
        matrix = pd.read_csv(next(folder.glob("*_relmat.dense.tsv")), sep="\t")
        assert list(matrix.columns) == geometry.node_names
        counts = matrix.to_numpy()
        np.testing.assert_array_equal(counts, counts.T)
        for bundle, weight in zip(geometry.bundles, drawn[index], strict=True):
            first, second = (geometry.node_names.index(node) for node in bundle.nodes)
            assert counts[first, second] == weight
        assert np.count_nonzero(counts) == 2 * len(geometry.bundles)


def test_the_true_streamlines_lie_in_the_head_as_it_was_scanned(small):
    geometry = load_geometry()
    record = json.loads((small / (TRUTH + "_simulation.json")).read_text())
    head2ras = np.array(record["HeadToRAS"])
    weight = draw_weights(geometry, SMALL, 0)[0]
    line = make_tube(geometry, geometry.bundles[0], float(weight)).streamlines()[0]
    stored = nib.streamlines.load(small / (TRUTH + "_model-truth_tractogram.tck")).streamlines
    np.testing.assert_allclose(stored[0], nib.affines.apply_affine(head2ras, line), atol=1e-3)
    assert not np.allclose(head2ras, np.eye(4))


def test_a_flip_reverses_the_named_axes_of_the_bvecs_and_nothing_else(tmp_path, small):
    flipped = write_phantom(tmp_path / "ds", replace(SMALL, flip="xz"))
    here, there = (np.loadtxt(root / (DWI + ".bvec")) for root in (flipped, small))
    np.testing.assert_array_equal(here, there * [[-1], [1], [-1]])
    assert digests(flipped)[DWI + ".nii.gz"] == digests(small)[DWI + ".nii.gz"]


def test_a_scheme_from_files_is_used_as_it_is(tmp_path, small):
    stem = small / DWI
    arguments = ["--bvals", f"{stem}.bval", "--bvecs", f"{stem}.bvec", "--voxel-size", "6"]
    assert main([str(tmp_path / "ds"), *arguments, "--t1w-voxel-size", "6"]) == 0
    for suffix in (".bval", ".bvec"):
        here, there = (np.loadtxt(f"{root / DWI}{suffix}") for root in (tmp_path / "ds", small))
        np.testing.assert_allclose(here, there, atol=2e-6)


def test_noise_in_the_air_follows_the_snr(small):
    corner = load_volume(small / (DWI + ".nii.gz")).data[:3, :3, :3]
    assert corner.mean() == pytest.approx(1000 / 30 * np.sqrt(np.pi / 2), rel=0.05)


def test_sessions_and_runs_are_in_the_names_and_the_validator_finds_no_error(tmp_path):
    out = write_phantom(tmp_path / "ds", replace(SMALL, n_sessions=2, n_runs=2))
    names = {path.name for path in out.rglob("*") if path.is_file()}
    for session in ("01", "02"):
        stem = f"sub-01_ses-{session}"
        assert {f"{stem}_T1w.nii.gz", f"{stem}_atlas-Phantom_dseg.nii.gz"} <= names
        assert {f"{stem}_run-1_dwi.bvec", f"{stem}_run-2_dwi.nii.gz"} <= names
    runs = sorted(out.glob("sub-01/ses-01/dwi/*.nii.gz"))
    assert len({path.read_bytes() for path in runs}) == 2
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    for root in (out, out / "derivatives/truth"):
        command = [validator, "--json", str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_a_folder_in_use_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main([str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "wrong", [{"snr": 0.0}, {"n_subjects": 0}, {"flip": "w"}, {"bval": Path("a.bval")}]
)
def test_settings_outside_their_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PhantomConfig(**wrong)


def test_axes_that_are_none_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="LLS"):
        write_phantom(tmp_path / "ds", replace(SMALL, axes="LLS"))
    assert not (tmp_path / "ds").exists()


def test_help_waits_for_no_numerical_library():
    code = (
        "import sys; from difftract_bids.cli.phantom import build_parser; "
        "build_parser().format_help(); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
