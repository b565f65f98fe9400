"""A phantom as files: a raw BIDS dataset, with the truth under ``derivatives/truth``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from difftract_bids.errors import UsageError
from difftract_bids.io.gradients import GradientTable, read_gradients, to_fsl_bvecs
from difftract_bids.io.images import save_volume
from difftract_bids.phantom import truth
from difftract_bids.phantom.bias import bias_field
from difftract_bids.phantom.bids import (
    file_name,
    write_dataset_files,
    write_gradients,
    write_sidecar,
)
from difftract_bids.phantom.bundles import Fixels, map_fixels
from difftract_bids.phantom.distortion import displacement_mm, distort
from difftract_bids.phantom.geometry import Geometry, load_geometry
from difftract_bids.phantom.head import Head
from difftract_bids.phantom.pose import Grid, make_grid, move_volume, random_rigid
from difftract_bids.phantom.schemes import make_scheme
from difftract_bids.phantom.settings import PhantomConfig
from difftract_bids.phantom.signal import add_rician_noise, diffusion_volumes, t1w_volume
from difftract_bids.phantom.tissue import TissueMap, map_tissue

#: Grey value of white matter at b=0 and in the T1w image.
_WHITE_VALUE = 1000.0
_T1W_AXES = "RAS"
#: What a stream of random numbers is for: each purpose has its own, so that asking for more
#: runs or sessions changes nothing in those that were there.
_WEIGHTS, _POSE, _T1W_NOISE, _MOTION, _DWI_NOISE = range(5)


@dataclass(frozen=True)
class Scan:
    """A simulated diffusion scan.

    Attributes
    ----------
    data
        The volumes, noise included.
    motion
        Head movement at each volume, scanner axes, millimetres; identity where there is none.
    """

    data: Int[np.ndarray, "x y z volume"]
    motion: Float[np.ndarray, "volume 4 4"]


def write_phantom(
    out_dir: Path,
    config: PhantomConfig,
    geometry: Geometry | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Simulate a dataset and write it; the same settings give the same bytes.

    Parameters
    ----------
    out_dir
        Where to write; it must be empty or not exist.
    config
        What to simulate.
    geometry
        The head, if another than the packaged one.
    progress
        Called with the label of each participant and session when it is begun.

    Returns
    -------
    Path
        The dataset's folder.

    Raises
    ------
    UsageError
        If the folder cannot be made or is not empty.
    GradientError
        If the scheme given in files cannot be used.
    """
    geometry = geometry or load_geometry()
    grid = make_grid(
        config.field_of_view_mm, config.voxel_size_mm, config.axes, config.oblique_deg
    )
    gradients = _gradients(config, grid)
    _make_folder(out_dir)
    subjects = [f"{index:02d}" for index in range(1, config.n_subjects + 1)]
    write_dataset_files(out_dir, subjects)
    truth.write_dataset_files(out_dir)
    for subject_index, subject in enumerate(subjects):
        weights = draw_weights(geometry, config, subject_index)
        for session_index, session in enumerate(config.sessions):
            progress(file_name(subject, session))
            pose = _rng(config, subject_index, session_index, 0, _POSE)
            head2ras = random_rigid(pose, config.pose_sd_mm, config.pose_sd_deg)
            head = Head(geometry, weights, head2ras)
            rngs = _Streams(config, subject_index, session_index)
            _write_session(out_dir, (subject, session), head, (grid, gradients), rngs)
    return out_dir


def draw_weights(
    geometry: Geometry, config: PhantomConfig, subject_index: int
) -> Int[np.ndarray, " bundle"]:
    """Draw one subject's true streamline counts: log-normal about the geometry's, whole numbers.

    A factor stays between 1/2 and 2, so that tubes neither vanish nor swallow their neighbours.
    """
    rng = _rng(config, subject_index, 0, 0, _WEIGHTS)
    typical = np.array([bundle.weight for bundle in geometry.bundles])
    factor = np.exp(config.weight_sd * rng.standard_normal(len(typical)))
    return np.maximum(np.rint(typical * np.clip(factor, 0.5, 2.0)), 1).astype(np.int64)


def simulate_dwi(
    tissue: TissueMap,
    fixels: Fixels,
    gradients: GradientTable,
    head: Head,
    vox2ras: Float[np.ndarray, "4 4"],
    config: PhantomConfig,
    rngs: tuple[np.random.Generator, np.random.Generator],
) -> Scan:
    """Simulate one diffusion scan.

    Parameters
    ----------
    tissue, fixels
        The head on the scan's grid, at rest.
    gradients
        Scheme, scanner axes.
    head
        The head; its pose turns directions into scanner axes.
    vox2ras
        The grid's affine.
    config
        Noise and motion.
    rngs
        Where motion and noise come from.
    """
    motion_rng, noise_rng = rngs
    motion = np.stack(
        [
            random_rigid(motion_rng, config.motion_sd_mm, config.motion_sd_deg)
            for _ in gradients.bvals_s_mm2
        ]
    )
    motion[0] = np.eye(4)  # the first volume defines where the head is
    rotations = motion[:, :3, :3] @ head.head2ras[:3, :3]
    data = np.empty((*tissue.labels.shape, len(motion)), np.int16)
    volumes = diffusion_volumes(tissue, fixels, gradients, rotations)
    bias = bias_field(tissue.labels.shape, vox2ras, config.bias) if config.bias else 1.0
    for index, volume in enumerate(volumes):
        moved = move_volume(volume, motion[index], vox2ras)
        if config.distortion_mm:
            moved = _distorted(moved, motion[index], head, vox2ras, config)
        data[..., index] = _scanned(moved * bias, config.snr, noise_rng)
    return Scan(data, motion)


def _distorted(
    volume: Float[np.ndarray, "x y z"],
    motion: Float[np.ndarray, "4 4"],
    head: Head,
    vox2ras: Float[np.ndarray, "4 4"],
    config: PhantomConfig,
) -> Float[np.ndarray, "x y z"]:
    x, y, z = volume.shape
    way = config.phase_encoding
    field = displacement_mm(head, (x, y, z), vox2ras, config.distortion_mm, way, motion)
    return distort(volume, field, way, config.voxel_size_mm)


@dataclass(frozen=True)
class _Streams:
    """Random streams of one session."""

    config: PhantomConfig
    subject: int
    session: int

    def make(self, run: int, purpose: int) -> np.random.Generator:
        return _rng(self.config, self.subject, self.session, run, purpose)


def _rng(
    config: PhantomConfig, subject: int, session: int, run: int, purpose: int
) -> np.random.Generator:
    return np.random.default_rng([config.seed, subject, session, run, purpose])


def _gradients(config: PhantomConfig, grid: Grid) -> GradientTable:
    if config.bval is not None and config.bvec is not None:
        return read_gradients(config.bval, config.bvec, grid.vox2ras)
    return make_scheme(config.shells_s_mm2, config.n_directions, config.n_b0, seed=config.seed)


def _make_folder(out_dir: Path) -> None:
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        occupied = any(out_dir.iterdir())
    except OSError as error:
        raise UsageError(
            f"The output folder cannot be made: {error}.",
            where=out_dir,
            remedy="Name a folder that you may write to.",
        ) from error
    if occupied:
        raise UsageError(
            "The output folder is not empty, and a phantom overwrites nothing.",
            where=out_dir,
            remedy="Name a new folder, or remove this one.",
        )


def _write_session(
    out_dir: Path,
    labels: tuple[str, str],
    head: Head,
    scheme: tuple[Grid, GradientTable],
    rngs: _Streams,
) -> None:
    (subject, session), (grid, gradients), config = labels, scheme, rngs.config
    folder = out_dir / f"sub-{subject}" / (f"ses-{session}" if session else "")
    for kind in ("anat", "dwi"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    _write_t1w(folder / "anat" / file_name(subject, session, suffix="T1w"), head, rngs)
    vox2head = head.vox2head(grid.vox2ras)
    tissue = map_tissue(head.geometry, grid.shape, vox2head)
    fixels = map_fixels(head.geometry, head.weights, grid.shape, vox2head)
    truth.write_session(out_dir, labels, head, tissue, grid.vox2ras)
    if config.distortion_mm:
        way = config.phase_encoding
        field = displacement_mm(head, grid.shape, grid.vox2ras, config.distortion_mm, way)
        truth.write_displacement(out_dir, labels, field, grid.vox2ras)
    if config.bias:
        field = bias_field(grid.shape, grid.vox2ras, config.bias)
        truth.write_bias(out_dir, labels, field, grid.vox2ras)
    for run_index, run in enumerate(config.runs):
        streams = (rngs.make(run_index, _MOTION), rngs.make(run_index, _DWI_NOISE))
        scan = simulate_dwi(tissue, fixels, gradients, head, grid.vox2ras, config, streams)
        stem = folder / "dwi" / file_name(subject, session, run, "dwi")
        save_volume(scan.data, grid.vox2ras, stem.with_name(stem.name + ".nii.gz"))
        write_sidecar(
            stem.with_name(stem.name + ".json"),
            "dwi",
            {"PhaseEncodingDirection": config.phase_encoding},
        )
        signs = np.array([-1.0 if axis in config.flip else 1.0 for axis in "xyz"])
        order = ["xyz".index(axis) for axis in config.permute]
        bvecs = to_fsl_bvecs(gradients.bvecs, grid.vox2ras)[order] * signs[:, None]
        write_gradients(stem, gradients.bvals_s_mm2, bvecs)
        truth.write_run(out_dir, (subject, session, run), head, scan.motion, config)


def _write_t1w(stem: Path, head: Head, rngs: _Streams) -> None:
    config = rngs.config
    grid = make_grid(config.field_of_view_mm, config.t1w_voxel_size_mm, _T1W_AXES, 0.0)
    vox2head = head.vox2head(grid.vox2ras)
    tissue = map_tissue(head.geometry, grid.shape, vox2head, samples_per_axis=2)
    image = _scanned(t1w_volume(tissue), 2 * config.snr, rngs.make(0, _T1W_NOISE))
    save_volume(image, grid.vox2ras, stem.with_name(stem.name + ".nii.gz"))
    write_sidecar(stem.with_name(stem.name + ".json"), "T1w")


def _scanned(
    signal: Float[np.ndarray, "x y z"], snr: float, rng: np.random.Generator
) -> Int[np.ndarray, "x y z"]:
    noisy = signal if np.isinf(snr) else add_rician_noise(signal, 1.0 / snr, rng)
    return np.rint(np.minimum(noisy * _WHITE_VALUE, np.iinfo(np.int16).max)).astype(np.int16)
