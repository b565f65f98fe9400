"""Head motion of a phantom that is known, and of one that holds still."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from difftract_bids.config import PreprocessingConfig
from difftract_bids.errors import GradientError, InputError
from difftract_bids.interfaces.motion import EstimateHeadMotion, ResampleDWI, WriteConfounds
from difftract_bids.interfaces.reportlets.motion import PlotMotion
from difftract_bids.io.gradients import GradientTable, read_gradients, write_gradients
from difftract_bids.io.images import load_volume, save_volume
from difftract_bids.phantom.dataset import write_phantom
from difftract_bids.phantom.pose import move_volume, rigid
from difftract_bids.phantom.settings import PhantomConfig
from difftract_bids.preprocessing import motion
from difftract_bids.preprocessing.confounds import (
    read_affines,
    read_confounds,
    read_outliers,
    write_affines,
    write_outliers,
)
from difftract_bids.preprocessing.continuity import link_by_continuity
from difftract_bids.preprocessing.motion import HeadMotion, estimate_head_motion
from difftract_bids.preprocessing.predicted_volumes import groups, predict_left_out
from difftract_bids.preprocessing.resampling import Grid, Sampler, apply_affine
from difftract_bids.preprocessing.rigid_fit import Frame, align, compose, full_affine, still
from difftract_bids.preprocessing.shrunken_series import shrink_series
from difftract_bids.workflows.motion import init_head_motion_wf

STILL = np.eye(4)[:3]


@dataclass(frozen=True)
class Scene:
    """A phantom's series, where its head truly was, and some points of its brain."""

    stem: str
    dwi: np.ndarray
    vox2ras: np.ndarray
    gradients: GradientTable
    motion: np.ndarray
    mask: np.ndarray

    @property
    def brain_mm(self):
        return np.argwhere(self.mask) @ self.vox2ras[:3, :3].T + self.vox2ras[:3, 3]

    def find(self, **options) -> HeadMotion:
        return estimate_head_motion(self.dwi, self.vox2ras, self.gradients, self.mask, **options)

    def errors(self, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean displacement over the brain, mm, and angle, degrees, of each volume."""
        apart = found - self.motion[:, :3]
        moved = np.einsum("vij,pj->vpi", apart[:, :, :3], self.brain_mm) + apart[:, None, :, 3]
        turns = np.einsum("vij,vkj->vik", found[:, :, :3], self.motion[:, :3, :3])
        angles = np.rad2deg(Rotation.from_matrix(turns).magnitude())
        return np.linalg.norm(moved, axis=2).mean(axis=1), angles

    def some(self, volumes) -> Scene:
        bvals, bvecs = self.gradients.bvals_s_mm2[volumes], self.gradients.bvecs[volumes]
        table = replace(self.gradients, bvals_s_mm2=bvals, bvecs=bvecs)
        return replace(
            self, dwi=self.dwi[..., volumes], gradients=table, motion=self.motion[volumes]
        )


def make_scene(folder, **settings) -> Scene:
    small = {"voxel_size_mm": 5.0, "t1w_voxel_size_mm": 6.0, "n_b0": 3, "snr": 30.0}
    write_phantom(folder, PhantomConfig(**small, **settings))
    stem = str(folder / "sub-01" / "dwi" / "sub-01_dwi")
    image = load_volume(f"{stem}.nii.gz", ndim=4)
    truth = folder / "derivatives" / "truth" / "sub-01" / "dwi"
    simulation = json.loads((truth / "sub-01_simulation.json").read_text())
    pairs = zip(simulation["MotionTranslationMM"], simulation["MotionRotationDeg"], strict=True)
    tissue = load_volume(truth / "sub-01_desc-tissue_dseg.nii.gz").data
    return Scene(
        stem,
        image.data,
        image.vox2ras,
        read_gradients(f"{stem}.bval", f"{stem}.bvec", image.vox2ras),
        np.stack([rigid(np.array(shift), np.array(turn)) for shift, turn in pairs]),
        (tissue >= 1) & (tissue <= 3),
    )


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moving") / "raw"
    return make_scene(folder, n_directions=14, motion_sd_mm=1.5, motion_sd_deg=1.5)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("quiet") / "raw", n_directions=8)


@pytest.fixture(scope="module")
def found(moving):
    return moving.find()


def test_every_volume_of_a_moving_head_is_found_within_half_a_millimetre_and_degree(
    moving, found, record_property
):
    before, _ = moving.errors(np.tile(STILL, (len(moving.motion), 1, 1)))
    errors_mm, errors_deg = moving.errors(found.rigid)
    record_property("largest_mm", errors_mm.max())
    record_property("largest_deg", errors_deg.max())
    assert np.median(before) > 2
    assert errors_mm.max() < 0.4
    assert errors_deg.max() < 0.5


def test_the_first_b0_volume_is_the_reference(found):
    assert np.array_equal(found.affines[0], STILL)


def test_directions_turn_the_way_the_head_did(moving, found):
    true = np.einsum("vij,vi->vj", moving.motion[:, :3, :3], moving.gradients.bvecs)
    weighted = ~moving.gradients.b0_mask
    apart = [
        np.rad2deg(np.arccos((true * bvecs)[weighted].sum(axis=1).clip(max=1)))
        for bvecs in (moving.gradients.bvecs, found.gradients.bvecs)
    ]
    assert np.median(apart[0]) > 1
    assert np.median(apart[1]) < 0.3 * np.median(apart[0])


def test_no_motion_is_invented(quiet):
    errors_mm, errors_deg = quiet.errors(quiet.find().rigid)
    assert np.median(errors_mm) < 0.1
    assert np.median(errors_deg) < 0.15
    assert errors_mm.max() < 0.2


def test_more_threads_find_the_same_motion(quiet, monkeypatch):
    # The link of averages always runs on one thread.
    monkeypatch.setattr(motion, "link", lambda *_: (STILL, 0.0))
    monkeypatch.setattr(motion, "_WEIGHTED_ROUNDS_MM", (5.0, 2.0, 1.2))
    part = quiet.some(np.arange(6))
    one, two = (part.find(num_threads=n).affines for n in (1, 2))
    assert np.array_equal(one, two)


def test_a_table_of_another_series_is_refused(quiet):
    short = replace(quiet.some(np.arange(8)), gradients=quiet.gradients)
    with pytest.raises(GradientError, match="8 volumes"):
        short.find()


def stepping(scene, from_volume, step):
    """Put b=0 volumes first, and let the head make one step."""
    b0 = scene.gradients.b0_mask
    sorted_scene = scene.some(np.concatenate([np.flatnonzero(b0), np.flatnonzero(~b0)]))
    dwi, motion_after = sorted_scene.dwi.astype(np.float32), sorted_scene.motion.copy()
    for volume in range(from_volume, dwi.shape[3]):
        dwi[..., volume] = move_volume(dwi[..., volume], step, scene.vox2ras)
        motion_after[volume] = step
    # Moving an image moves its tissue and the direction that its contrast is of.
    turned = np.einsum("vij,vj->vi", motion_after[:, :3, :3], sorted_scene.gradients.bvecs)
    table = replace(sorted_scene.gradients, bvecs=turned)
    return replace(sorted_scene, dwi=dwi, motion=motion_after, gradients=table)


def test_the_workflow_finds_a_step_and_a_lost_slice_with_b0_only_at_the_start(quiet, tmp_path):
    step = rigid(np.array([0.0, 3.0, 0.0]), np.array([3.0, 0.0, 0.0]))
    scene = stepping(quiet, 7, step)
    scene.dwi[:, :, 20, 6] *= 0.5
    save_volume(scene.dwi, scene.vox2ras, tmp_path / "dwi.nii.gz")
    bval, bvec = write_gradients(scene.gradients, scene.vox2ras, tmp_path / "dwi")
    workflow = init_head_motion_wf(PreprocessingConfig())
    workflow.base_dir = str(tmp_path)
    given = workflow.inputs.inputnode
    given.dwi, given.bval, given.bvec = (str(tmp_path / "dwi.nii.gz"), str(bval), str(bvec))
    nodes = {node.name: node for node in workflow.run(plugin="Linear").nodes}
    errors_mm, errors_deg = scene.errors(read_affines(nodes["estimate"].result.outputs.affines))
    assert errors_mm.max() < 0.5
    assert errors_deg.max() < 0.5
    flags = read_outliers(nodes["flag"].result.outputs.outliers)
    assert np.argwhere(flags).tolist() == [[20, 6]]
    table = read_confounds(nodes["confounds"].result.outputs.confounds)
    moved = table["framewise_displacement"]
    assert np.nanargmax(moved) == 7
    assert moved[7] > 3 * np.nanmax(np.delete(moved, 7))
    assert table["outlier_slices"].sum() == 1
    assert len(nodes["notes"].result.outputs.out) == 2


def smooth_image():
    grid = Grid((40, 44, 36), np.diag([-4.0, 4.0, 4.0, 1.0]))
    points = grid.points_mm() - np.array([-80.0, 86, 70]).reshape(3, 1, 1, 1)
    rng, image = np.random.default_rng(0), np.zeros(grid.shape)
    for _ in range(30):
        centre = rng.uniform(-45, 45, 3).reshape(3, 1, 1, 1)
        image += rng.uniform(0.3, 1) * np.exp(-0.5 * ((points - centre) ** 2).sum(axis=0) / 100)
    return grid, image


def moved_and_found(affine, frame):
    """Sample an image through an affine's inverse, and look for the affine."""
    grid, image = smooth_image()
    sampler = Sampler(image, grid.vox2ras)
    inverse = np.linalg.inv(np.vstack([affine, [0, 0, 0, 1]]))[:3]
    points = grid.points_mm().reshape(3, -1)
    moved = sampler(inverse[:, :3] @ points + inverse[:, 3:]).reshape(grid.shape)
    slope = np.stack([part.ravel() for part in np.gradient(image)])
    slope = np.linalg.inv(grid.vox2ras[:3, :3]).T @ slope
    target, trust = image.ravel(), np.ones(image.size)
    volume = Sampler(0.8 * moved, grid.vox2ras)
    return align(volume, points, target, slope, trust, still(), frame)


CENTRE = np.array([-80.0, 86.0, 70.0])


def test_a_step_of_three_millimetres_and_degrees_is_found_whatever_the_brightness():
    turn = Rotation.from_rotvec([3, 0, 0], degrees=True).as_matrix()
    true = np.column_stack([turn, CENTRE - turn @ CENTRE + [0, 0, 3]])
    found = moved_and_found(true, Frame(CENTRE, None))
    assert np.linalg.norm(found.rigid @ [*CENTRE, 1] - true @ [*CENTRE, 1]) < 0.02
    angle = Rotation.from_matrix(found.rigid[:, :3] @ turn.T).magnitude()
    assert np.rad2deg(angle) < 0.03


def test_the_axis_that_eddy_currents_distort_along_is_found(quiet):
    """Each volume sheared and stretched along j by another few percent, which no one tells."""
    axis = quiet.vox2ras[:3, 1] / np.linalg.norm(quiet.vox2ras[:3, 1])
    frame = Frame(quiet.brain_mm.mean(axis=0), axis)
    grid = Grid(quiet.mask.shape, quiet.vox2ras)
    rng, distorted = np.random.default_rng(1), quiet.dwi.astype(np.float32)
    for volume in np.flatnonzero(~quiet.gradients.b0_mask):
        eddy = full_affine(replace(still(), eddy=rng.normal(0, 0.03, 3)), frame)
        back = np.linalg.inv(np.vstack([eddy, [0, 0, 0, 1]]))[:3]
        sampler = Sampler(distorted[..., volume], quiet.vox2ras)
        distorted[..., volume] = sampler(apply_affine(back, grid.points_mm()))
    found = replace(quiet, dwi=distorted).find()
    assert found.pe_axis == 1
    moved_mm, _ = quiet.errors(found.affines)
    assert np.median(moved_mm) > 0.5  # the distortion
    errors_mm, errors_deg = quiet.errors(found.rigid)
    assert errors_mm.max() < 0.5
    assert errors_deg.max() < 0.5


def test_values_that_are_not_finite_count_as_nothing(quiet):
    spoilt = quiet.dwi[..., :2].astype(np.float32)
    spoilt[3, 3, 3] = np.inf, np.nan
    clean = np.where(np.isfinite(spoilt), spoilt, 0)
    shrunken = [shrink_series(dwi, quiet.vox2ras, (10, 10, 10)) for dwi in (spoilt, clean)]
    assert np.array_equal(shrunken[0].images, shrunken[1].images)


def test_a_slab_too_thin_for_motion_is_refused(quiet):
    thin = replace(quiet, dwi=quiet.dwi[:, :, 15:16], mask=quiet.mask[:, :, 15:16])
    with pytest.raises(InputError, match="thinner"):
        thin.find()


def test_an_eddy_current_along_phase_encoding_is_told_from_movement():
    frame = Frame(CENTRE, np.array([0.0, 1.0, 0.0]))
    eddy = np.array([0.01, -0.015, 0.02])
    turn = Rotation.from_rotvec([1, -1, 2], degrees=True).as_matrix()
    rigid_part = np.column_stack([turn, CENTRE - turn @ CENTRE + [1.0, 0.5, -1.0]])
    true = full_affine(replace(still(), rigid=rigid_part, eddy=eddy), frame)
    found = moved_and_found(true, frame)
    assert found.eddy == pytest.approx(eddy, abs=1e-3)
    angle = Rotation.from_matrix(found.rigid[:, :3] @ turn.T).magnitude()
    assert np.rad2deg(angle) < 0.05


def directions(count):
    vectors = np.random.default_rng(3).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_volume_does_not_take_part_in_its_own_prediction():
    table = GradientTable(np.full(20, 1000.0), directions(20))
    signals = np.random.default_rng(4).random((20, 50)).astype(np.float32)
    changed = signals.copy()
    changed[7] += 100
    before, after = predict_left_out(signals, table), predict_left_out(changed, table)
    assert np.abs(after - before)[7].max() < np.abs(after - before)[0].max()
    same = predict_left_out(signals, table, misaligned=True)[7]
    assert np.abs(same - predict_left_out(changed, table, misaligned=True)[7]).max() < 1e-3


def test_a_signal_that_follows_a_tensor_is_predicted_and_its_scale_kept():
    table = GradientTable(np.full(40, 1000.0), directions(40))
    rates = np.array([1.7e-3, 0.4e-3, 0.3e-3])
    signal = 500 * np.exp(-1000 * (table.bvecs**2 @ rates))[:, None]
    constant = np.full((40, 1), 300.0)
    found = predict_left_out(np.hstack([signal, constant]), table)
    error = np.sqrt(((found[:, 0] - signal[:, 0]) ** 2).mean())
    assert error < 0.15 * signal.std()
    assert found[:, 1] == pytest.approx(300, rel=1e-4)


def test_small_shells_are_predicted_with_their_neighbours():
    bvals = np.repeat([0.0, 300.0, 1000.0, 3000.0], [2, 3, 10, 12])
    table = GradientTable(bvals, directions(27))
    assert [len(group) for group in groups(table)] == [2, 12, 13]


def test_the_interfaces_write_what_the_next_step_reads(quiet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"bval": f"{quiet.stem}.bval", "bvec": f"{quiet.stem}.bvec"}
    moves = np.tile(STILL, (len(quiet.motion), 1, 1))
    moves[2, 0, 3] = 4.0
    rigid_file = str(write_affines("moves.txt", moves))
    flags = np.zeros((quiet.dwi.shape[2], len(moves)), dtype=bool)
    flags[3, 5] = True
    outliers = str(write_outliers("flags.tsv", flags))
    dwi = f"{quiet.stem}.nii.gz"
    table = WriteConfounds(dwi=dwi, rigid=rigid_file, outliers=outliers, **files).run().outputs
    columns = read_confounds(table.confounds)
    assert columns["framewise_displacement"][2] == pytest.approx(4)
    assert columns["outlier_slices"][5] == 1
    figure = PlotMotion(confounds=table.confounds, outliers=outliers).run().outputs.out_report
    assert "<svg" in Path(figure).read_text(encoding="utf-8")
    out = ResampleDWI(dwi=dwi, affines=rigid_file, output_resolution_mm=6.0).run().outputs.dwi
    assert load_volume(out).voxel_sizes_mm == pytest.approx([6, 6, 6])


def test_every_trait_is_described_and_the_graph_is_whole():
    for interface in (EstimateHeadMotion, ResampleDWI, WriteConfounds):
        for spec in (interface.input_spec(), interface.output_spec()):
            assert all(trait.desc for trait in spec.traits(transient=None).values())
    workflow = init_head_motion_wf(PreprocessingConfig())
    assert set(workflow.outputs.outputnode.get()) == {
        *("affines", "bval", "bvec", "confounds", "outliers", "notes")
    }
    assert "@andersson2016" in workflow.__desc__


def test_b0_volumes_between_weighted_ones_tell_the_offset_only_if_the_head_moves_steadily():
    turn = Rotation.from_rotvec([0, 0, 2], degrees=True).as_matrix()
    offset = np.column_stack([turn, CENTRE - turn @ CENTRE + [0, 0, 1.0]])
    b0 = np.array([0, 5, 10, 15])
    weighted = np.setdiff1d(np.arange(20), b0)
    drift = [np.column_stack([np.eye(3), [0.05 * volume, 0, 0]]) for volume in range(20)]
    back = np.linalg.inv(np.vstack([offset, [0, 0, 0, 1]]))[:3]
    seen = [one if at in b0 else compose(one, back) for at, one in enumerate(drift)]
    found = link_by_continuity(seen, b0, weighted, CENTRE)
    assert found == pytest.approx(offset, abs=1e-6)
    jumps = np.random.default_rng(0).normal(size=(20, 3))
    jumping = [
        np.column_stack([one[:, :3], one[:, 3] + by]) for one, by in zip(seen, jumps, strict=True)
    ]
    assert link_by_continuity(jumping, b0, weighted, CENTRE) is None
    assert link_by_continuity(seen, b0[:1], weighted, CENTRE) is None
