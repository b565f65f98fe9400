"""Least-squares alignment of one volume to an image of the same contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from difftract_bids.preprocessing.resampling import Sampler

_MAX_ITERATIONS = 20
#: A step that moves no point of the brain further than this is the last one.
_STEP_MM = 0.003
#: A step longer than this is shortened: the linearisation does not reach so far.
_LONGEST_STEP_MM = 4.0
#: Residuals beyond this many robust standard deviations count less (Huber 1964).
_HUBER = 1.5
#: Radius of the head, which turns an angle into a distance.
_RADIUS_MM = 60.0
#: Spread of the gradients that eddy currents add, millimetres of shift per millimetre.
_EDDY_SD = 0.01
#: Neighbouring samples are alike: so many of them tell as much as one.
_SAMPLES_PER_DATUM = 20.0


@dataclass(frozen=True)
class Movement:
    """Where a volume's head is, and how its image is distorted.

    A point x of the reference position is seen at E(R x): R is rigid, and E moves points along
    the phase-encoding direction by a linear function of position.

    Attributes
    ----------
    rigid
        R, RAS+ millimetres.
    eddy
        Shift along the phase-encoding direction per millimetre along x, y and z from the centre.
    """

    rigid: Float[np.ndarray, "3 4"]
    eddy: Float[np.ndarray, " 3"]


@dataclass(frozen=True)
class Frame:
    """What alignments of one series have in common.

    Attributes
    ----------
    centre_mm
        Rotations and distortions are about this point, RAS+ millimetres.
    direction
        Unit vector of phase encoding, scanner axes; ``None`` to fit no distortion.
    """

    centre_mm: Float[np.ndarray, " 3"]
    direction: Float[np.ndarray, " 3"] | None


def still() -> Movement:
    """Give the movement of a volume in the reference position."""
    return Movement(np.eye(4)[:3], np.zeros(3))


def full_affine(movement: Movement, frame: Frame) -> Float[np.ndarray, "3 4"]:
    """Give the affine E R of a movement: reference position to the volume, RAS+ millimetres."""
    if frame.direction is None:
        return movement.rigid
    eddy = np.eye(3) + np.outer(frame.direction, movement.eddy)
    offset = -frame.direction * (movement.eddy @ frame.centre_mm)
    return np.column_stack([
        eddy @ movement.rigid[:, :3],
        eddy @ movement.rigid[:, 3] + offset,
    ])  # fmt: skip


def compose(outer: Float[np.ndarray, "3 4"], inner: Float[np.ndarray, "3 4"]) -> np.ndarray:
    """Chain two affines, the inner one first."""
    return np.column_stack([outer[:, :3] @ inner[:, :3], outer[:, :3] @ inner[:, 3] + outer[:, 3]])


def align(
    volume: Sampler,
    points_mm: Float[np.ndarray, "3 n"],
    target: Float[np.ndarray, " n"],
    slope: Float[np.ndarray, "3 n"],
    trust: Float[np.ndarray, " n"],
    start: Movement,
    frame: Frame,
) -> Movement:
    """Find the movement that makes a volume most like a target, up to a factor of brightness.

    Gauss-Newton steps in the target's frame, with Huber weights, so that a slice that fell out
    does not pull. The distortion is held near none by a prior; where the frame has no direction
    only the rigid part is found.

    Parameters
    ----------
    volume
        The volume.
    points_mm
        Where to compare, RAS+ millimetres of the reference position.
    target, slope
        What the volume should be there, and its gradient, per millimetre.
    trust
        Weight of each point, from 0 to 1.
    start
        Where to begin.
    frame
        Centre, and direction of distortions.

    References
    ----------
    Friston et al. 1995, doi:10.1002/hbm.460030303 (least squares with brightness);
    Andersson and Sotiropoulos 2016, doi:10.1016/j.neuroimage.2015.10.019 (the whole scheme).
    """
    arm = points_mm - frame.centre_mm[:, None]
    moving = np.cross(arm, slope, axis=0)  # d/dω of a(ω × arm)·slope
    movement = start
    for _ in range(_MAX_ITERATIONS):
        values = volume(_map(movement, frame, points_mm)).astype(np.float64)
        columns = [*slope, *moving, -target]
        if frame.direction is not None:
            columns += _eddy_columns(movement, frame, points_mm, slope)
        step = _step(np.stack(columns), target, values, trust)
        movement, length_mm = _apply(movement, frame, step)
        if length_mm < _STEP_MM:
            break
    return movement


def _map(
    movement: Movement, frame: Frame, points_mm: Float[np.ndarray, "3 n"]
) -> Float[np.ndarray, "3 n"]:
    affine = full_affine(movement, frame)
    return affine[:, :3] @ points_mm + affine[:, 3:]


def _eddy_columns(
    movement: Movement,
    frame: Frame,
    points_mm: Float[np.ndarray, "3 n"],
    slope: Float[np.ndarray, "3 n"],
) -> list[Float[np.ndarray, " n"]]:
    """Differentiate by the distortion: slope along its axis, times the place in the scanner."""
    along = (movement.rigid[:, :3].T @ frame.direction) @ slope
    placed = movement.rigid[:, :3] @ points_mm + movement.rigid[:, 3:]
    return list(along * (placed - frame.centre_mm[:, None]))


def _step(
    columns: Float[np.ndarray, "parameter n"],
    target: Float[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
    trust: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " parameter"]:
    """Solve for one step; the seventh column is that of the brightness."""
    gain = float((target @ values) / max(target @ target, 1e-12))
    scaled = columns * gain
    scaled[6] = columns[6]
    residual = values - gain * target
    spread = 1.4826 * float(np.median(np.abs(residual))) + 1e-12
    weights = trust * np.minimum(1.0, _HUBER * spread / (np.abs(residual) + 1e-12))
    normal = (scaled * weights) @ scaled.T
    # A prior variance in the units of the data: spread² x samples per datum.
    normal[7:, 7:] += np.eye(len(columns) - 7) * _SAMPLES_PER_DATUM * (spread / _EDDY_SD) ** 2
    normal += np.diag(1e-9 * np.diag(normal) + 1e-12)
    return -np.linalg.solve(normal, scaled @ (weights * residual))


def _apply(
    movement: Movement, frame: Frame, step: Float[np.ndarray, " parameter"]
) -> tuple[Movement, float]:
    """Move by a step, shortened if it is long; also say how far points of a head went."""
    length_mm = float(
        np.linalg.norm(step[:3])
        + _RADIUS_MM * (np.linalg.norm(step[3:6]) + np.abs(step[7:]).sum())
    )
    part = min(1.0, _LONGEST_STEP_MM / max(length_mm, 1e-12))
    turn = Rotation.from_rotvec(part * step[3:6]).as_matrix()
    shift = frame.centre_mm - turn @ frame.centre_mm + part * step[:3]
    rigid = compose(movement.rigid, np.column_stack([turn, shift]))
    eddy = movement.eddy + part * step[7:] if len(step) > 7 else movement.eddy
    return Movement(rigid, eddy), length_mm
