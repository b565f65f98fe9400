"""Head motion and eddy currents: every volume aligned to what the others predict of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from difftract_bids.errors import GradientError, InputError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.preprocessing.continuity import link_by_continuity
from difftract_bids.preprocessing.contrast_link import link
from difftract_bids.preprocessing.eddy_offset import eddy_offsets
from difftract_bids.preprocessing.predicted_volumes import groups, predict_left_out
from difftract_bids.preprocessing.resampling import Sampler, for_each
from difftract_bids.preprocessing.rigid_fit import (
    Frame,
    Movement,
    align,
    compose,
    full_affine,
    still,
)
from difftract_bids.preprocessing.shrunken_series import (
    Samples,
    ShrunkenSeries,
    sample_brain,
    shrink_series,
)

#: Standard deviation of the smoothing in each round, millimetres: wide ones reach further.
_B0_ROUNDS_MM = (5.0, 2.0, 1.2)
_WEIGHTED_ROUNDS_MM = (5.0, 3.0, 2.0, 2.0, 1.2, 1.2)
#: Rounds after which points count by how well they are predicted, and distortions are fitted.
_COARSE_ROUNDS = 2
#: Of the points of these rounds' smooth images one in so many is enough.
_COARSE_EVERY = 3
#: What is left of the misfit where distortions along an axis explain volumes, at most. Without
#: distortion an axis leaves more than 0.99 of it, in phantoms and a brain; with it 0.68 was left.
_EXPLAINED = 0.95
#: Last rounds, in which predictions may follow the direction closely: volumes are nearly aligned.
_CLOSE_ROUNDS = 2
#: Smoothing of the averages that are aligned across contrasts.
_LINK_MM = 1.0
#: And the distance of the points that these are compared at: coarser ones mislead by 1 mm.
_LINK_SAMPLING_MM = 2.5


@dataclass(frozen=True)
class HeadMotion:
    """Where the head is at each volume.

    Attributes
    ----------
    affines
        RAS+ millimetres of the reference position (the first b=0 volume's) to those in each
        volume, distortion by eddy currents included.
    rigid
        The rigid part: where the head itself is, without shifts that follow the gradient.
    gradients
        Table with the directions as the head in the reference position saw them.
    pe_axis
        Voxel axis that the distortion is along; ``None`` where there is none.
    """

    affines: Float[np.ndarray, "volume 3 4"]
    rigid: Float[np.ndarray, "volume 3 4"]
    gradients: GradientTable
    pe_axis: int | None = None


def estimate_head_motion(
    dwi: NDArray[Any],
    vox2ras: Float[np.ndarray, "4 4"],
    gradients: GradientTable,
    mask: Bool[np.ndarray, "x y z"],
    *,
    pe_axis: int | None = None,
    num_threads: int = 1,
) -> HeadMotion:
    """Align all volumes to the position of the first b=0 volume.

    b=0 volumes are aligned to their average, weighted volumes to what the other volumes of their
    shell predict of them, in rounds of less and less smoothing. Points that are predicted badly
    count less. Shells are then brought to b=0: by the b=0 volumes between theirs, if these agree
    that the head moves steadily, or else by mutual information of the averages.

    Parameters
    ----------
    dwi, vox2ras
        The series, of any type; it may stay on disk. Better as acquired than denoised: principal
        components of patches mix the positions of the head.
    gradients
        Its table, scanner axes.
    mask
        Brain at the first b=0 volume; it need not be exact.
    pe_axis
        Voxel axis of phase encoding. A shift along it that is linear in position is fitted to
        weighted volumes, too: the larger part of what eddy currents do. Where the axis is not
        known it is the one that explains the volumes best, if any explains them clearly.
    num_threads
        Volumes that are worked on at a time; the result does not depend on it.

    Raises
    ------
    GradientError
        If the table does not fit the series.
    InputError
        If the mask or an average is empty.

    References
    ----------
    Andersson and Sotiropoulos 2016, doi:10.1016/j.neuroimage.2015.10.019;
    Cieslak et al. 2021, doi:10.1038/s41592-021-01185-5.
    """
    if len(gradients.bvals_s_mm2) != dwi.shape[3]:
        raise GradientError(
            f"The image has {dwi.shape[3]} volumes, the gradient table "
            f"{len(gradients.bvals_s_mm2)}.",
            remedy="They must belong to the same image.",
        )
    samples = sample_brain(mask, vox2ras)
    axes = vox2ras[:3, :3].T / np.linalg.norm(vox2ras[:3, :3], axis=0)[:, None]
    frame = Frame(samples.points_mm.mean(axis=1), None if pe_axis is None else axes[pe_axis])
    with threadpool_limits(1):  # sums in BLAS must not depend on the number of threads
        series = shrink_series(dwi, vox2ras, num_threads=num_threads)
        fine = sample_brain(mask, vox2ras, _LINK_SAMPLING_MM, margin_mm=0.0)
        alignment = _Alignment(series, (samples, fine), frame, gradients, mask)
        movements, frame = alignment.run(axes if pe_axis is None else ())
    rigid = _heads(movements, frame, gradients)
    affines = np.stack([full_affine(movement, frame) for movement in movements])
    along = None if frame.direction is None else int((axes @ frame.direction).argmax())
    return HeadMotion(affines, rigid, rotate_gradients(gradients, rigid), along)


def rotate_gradients(
    gradients: GradientTable, rigid: Float[np.ndarray, "volume 3 4"]
) -> GradientTable:
    """Turn directions with the head, back into the frame of the reference position.

    Parameters
    ----------
    gradients
        Table as acquired, scanner axes.
    rigid
        Reference position to each volume.

    References
    ----------
    Leemans and Jones 2009, doi:10.1002/mrm.21890.
    """
    turned = np.einsum("vij,vi->vj", rigid[:, :, :3], gradients.bvecs)
    return replace(gradients, bvecs=turned)


def _heads(
    movements: list[Movement], frame: Frame, gradients: GradientTable
) -> Float[np.ndarray, "volume 3 4"]:
    """Give where the head is: the rigid parts without what eddy currents shift them by."""
    rigid = np.stack([movement.rigid for movement in movements])
    if frame.direction is None:
        return rigid
    moved_mm = rigid[:, :, :3] @ frame.centre_mm + rigid[:, :, 3] - frame.centre_mm
    for volumes in groups(gradients):
        if not gradients.b0_mask[volumes[0]]:
            along_mm = moved_mm[volumes] @ frame.direction
            offsets = eddy_offsets(
                along_mm, gradients.bvals_s_mm2[volumes], gradients.bvecs[volumes]
            )
            rigid[volumes, :, 3] -= offsets[:, None] * frame.direction
    return rigid


class _Alignment:
    """The movements of a series, while they are being found."""

    def __init__(
        self,
        series: ShrunkenSeries,
        samples: tuple[Samples, Samples],
        frame: Frame,
        gradients: GradientTable,
        mask: Bool[np.ndarray, "x y z"],
    ) -> None:
        self._mask = mask
        self._series, self._frame, self._gradients = series, frame, gradients
        self._samples, self._fine = samples
        self._movements = [still() for _ in gradients.bvals_s_mm2]
        self._points_mm = self._samples.points_mm

    def run(self, directions: Sequence[Float[np.ndarray, " 3"]]) -> tuple[list[Movement], Frame]:
        """Align b=0 volumes, then each shell to itself and its average to that of b=0.

        Parameters
        ----------
        directions
            Where distortions may be along, to be judged by the largest shell.
        """
        b0 = np.flatnonzero(self._gradients.b0_mask)
        self._align_b0(b0)
        shells = [one for one in groups(self._gradients) if not self._gradients.b0_mask[one[0]]]
        for volumes in sorted(shells, key=len, reverse=True):
            self._align_weighted(volumes, directions)
            directions = ()
            rigid = [movement.rigid for movement in self._movements]
            moved = link_by_continuity(rigid, b0, volumes, self._frame.centre_mm)
            if moved is None:
                moved = self._link(b0, volumes)
            for volume in volumes:
                here = self._movements[volume]
                self._movements[volume] = replace(here, rigid=compose(here.rigid, moved))
        return self._movements, self._frame

    def _align_b0(self, volumes: Int[np.ndarray, " n"]) -> None:
        """Align b=0 volumes to the first one, which stays, and then to all others."""
        rigid_only = replace(self._frame, direction=None)
        for number, sd_mm in enumerate(_B0_ROUNDS_MM if len(volumes) > 1 else ()):
            samplers = self._series.smoothed(volumes, sd_mm)
            signals = self._signals(samplers, volumes)
            targets = predict_left_out(signals, _some(self._gradients, volumes))
            if number == 0:
                targets = np.broadcast_to(signals[0], signals.shape)
            trust = np.ones(self._points_mm.shape[1])
            self._align(samplers[1:], volumes[1:], targets[1:], trust, rigid_only)

    def _align_weighted(
        self, volumes: Int[np.ndarray, " n"], directions: Sequence[Float[np.ndarray, " 3"]]
    ) -> None:
        """Align weighted volumes to what the others predict."""
        rigid_only = replace(self._frame, direction=None)
        for number, sd_mm in enumerate(_WEIGHTED_ROUNDS_MM):
            coarse = number < _COARSE_ROUNDS
            samplers = self._series.smoothed(volumes, sd_mm)
            signals = self._signals(samplers, volumes)
            rigid = np.stack([self._movements[volume].rigid for volume in volumes])
            table = rotate_gradients(_some(self._gradients, volumes), rigid)
            misaligned = number < len(_WEIGHTED_ROUNDS_MM) - _CLOSE_ROUNDS
            targets = predict_left_out(signals, table, misaligned=misaligned)
            trust = np.ones(self._points_mm.shape[1])
            if not coarse:
                wrong = ((signals - targets)[:, self._samples.inside.ravel()] ** 2).mean(axis=0)
                typical = np.median(wrong) + 1e-12
                trust = typical / (typical + wrong)
            if number == _COARSE_ROUNDS and len(directions):
                chosen = self._explaining(directions, samplers, volumes, targets, trust)
                self._frame = replace(self._frame, direction=chosen)
            frame, every = (rigid_only, _COARSE_EVERY) if coarse else (self._frame, 1)
            self._align(samplers, volumes, targets, trust, frame, every)

    def _explaining(
        self,
        directions: Sequence[Float[np.ndarray, " 3"]],
        samplers: list[Sampler],
        volumes: Int[np.ndarray, " n"],
        targets: Float[np.ndarray, "n point"],
        trust: Float[np.ndarray, " inside"],
    ) -> Float[np.ndarray, " 3"] | None:
        """Find the direction along which distortions explain the volumes, if one does."""
        inside = self._samples.inside.ravel()
        expected = targets[:, inside]
        before, misfits = list(self._movements), []
        frame = self._frame
        for direction in (None, *directions):
            self._frame = replace(frame, direction=direction)
            self._align(samplers, volumes, targets, trust, self._frame, _COARSE_EVERY)
            seen = self._signals(samplers, volumes)[:, inside]
            gains = (seen * expected).sum(axis=1) / ((expected**2).sum(axis=1) + 1e-12)
            left = seen - gains[:, None] * expected
            misfits.append((trust * left**2).sum(axis=1) + 1e-12)
            self._movements, self._frame = list(before), frame
        # Volumes that lost slices misfit whatever the direction: the typical one decides.
        ratios = [float(np.median(misfit / misfits[0])) for misfit in misfits]
        best = int(np.argmin(ratios))
        return directions[best - 1] if ratios[best] < _EXPLAINED else None

    def _link(
        self, b0: Int[np.ndarray, " n"], volumes: Int[np.ndarray, " m"]
    ) -> Float[np.ndarray, "3 4"]:
        """Align averages across contrasts, with and without the sensitivity of the coils.

        Left in where it is strong, it misleads by more than half a millimetre. Where it is weak
        its estimate takes some anatomy for sensitivity, which misleads by a third of that. The
        images tell more of each other where they are better aligned and better made: they choose.
        """
        found = []
        for series in (self._series, self._evened) if self._evened else (self._series,):
            fixed, moving = (self._average(series, which) for which in (b0, volumes))
            fine = self._fine
            found.append(link(fixed, moving, fine.grid, fine.inside, self._frame.centre_mm))
        return max(found, key=lambda one: one[1])[0]

    @cached_property
    def _evened(self) -> ShrunkenSeries | None:
        try:
            return self._series.evened(np.flatnonzero(self._gradients.b0_mask), self._mask)
        except InputError:
            return None

    def _average(
        self, series: ShrunkenSeries, volumes: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "x y z"]:
        samplers = series.smoothed(volumes, _LINK_MM)
        box_mm = self._fine.grid.points_mm().reshape(3, -1)
        total = np.zeros(box_mm.shape[1])
        for sampler, volume in zip(samplers, volumes, strict=True):
            affine = full_affine(self._movements[volume], self._frame)
            total += sampler(affine[:, :3] @ box_mm + affine[:, 3:])
        return (total / len(volumes)).reshape(self._fine.grid.shape)

    def _signals(
        self, samplers: list[Sampler], volumes: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n point"]:
        """Sample volumes on the whole box, in the reference position."""
        box_mm = self._samples.grid.points_mm().reshape(3, -1)
        out = np.empty((len(volumes), box_mm.shape[1]), np.float32)

        def sample(index: int) -> None:
            affine = full_affine(self._movements[volumes[index]], self._frame)
            out[index] = samplers[index](affine[:, :3] @ box_mm + affine[:, 3:])

        for_each(sample, len(volumes), self._series.num_threads)
        return out

    def _align(
        self,
        samplers: list[Sampler],
        volumes: Int[np.ndarray, " n"],
        targets: Float[np.ndarray, "n point"],
        trust: Float[np.ndarray, " inside"],
        frame: Frame,
        every: int = 1,
    ) -> None:
        shape, inside = self._samples.grid.shape, self._samples.inside
        some = slice(None, None, every)

        def move(index: int) -> None:
            image = targets[index].reshape(shape).astype(np.float64)
            self._movements[volumes[index]] = align(
                samplers[index],
                self._points_mm[:, some],
                image[inside][some],
                self._samples.slope(image)[:, some],
                trust[some],
                self._movements[volumes[index]],
                frame,
            )

        for_each(move, len(volumes), self._series.num_threads)


def _some(gradients: GradientTable, volumes: Int[np.ndarray, " n"]) -> GradientTable:
    return replace(
        gradients,
        bvals_s_mm2=gradients.bvals_s_mm2[volumes],
        bvecs=gradients.bvecs[volumes],
    )
