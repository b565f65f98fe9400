"""What is learnt from and what checks: other participants, or other parts of one brain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import maximum_filter
from torch import Tensor

from difftract_bids.config import PairsConfig
from difftract_bids.errors import InputError, UsageError

#: Blocks are scattered as long as their gaps leave this share of what is not in them; where they
#: do not, they lie at one end of the brain, and must leave the second share.
_LEFT_IF_SCATTERED, _LEFT_AT_LEAST = 0.5, 0.1


class OfParticipant(Protocol):
    """What is of a participant: a `TrainingRun`, or the `Scan` that was loaded from it."""

    @property
    def participant(self) -> str:
        """Label, without the ``sub-``."""


R = TypeVar("R", bound=OfParticipant)


@dataclass(frozen=True)
class Split(Generic[R]):
    """Runs that are learnt from and runs that check.

    Attributes
    ----------
    training, validation
        Runs, or scans. In a split by blocks they are the same ones, all of them.
    by
        What was split.
    """

    training: tuple[R, ...]
    validation: tuple[R, ...]
    by: Literal["participants", "blocks"]


class Blocks(NamedTuple):
    """Voxels of a scan that are learnt from and voxels that check; all others are the gap."""

    training: Bool[Tensor, "x y z"]
    validation: Bool[Tensor, "x y z"]


def split_runs(runs: Sequence[R], pairs: PairsConfig, random_seed: int = 0) -> Split[R]:
    """Split runs by participants, with all runs of one on one side; or say that blocks are split.

    Parameters
    ----------
    runs
        From `find_training_runs`, or the scans loaded from them.
    pairs
        Says how, which participants check, or which share of them.
    random_seed
        Seed of the choice of participants, if none is named.

    Raises
    ------
    InputError
        If participants are to be split and there is one only.
    UsageError
        If a participant who shall check is not there, or none is left to learn from.
    """
    participants = sorted({run.participant for run in runs})
    named = sorted({label.removeprefix("sub-") for label in pairs.validation_participants})
    if pairs.split == "blocks" or (pairs.split == "auto" and len(participants) < 2 and not named):
        return Split(tuple(runs), tuple(runs), "blocks")
    if len(participants) < 2:
        raise InputError(
            f"There is one participant, {', '.join(participants) or 'none'}, and a split by "
            "participants needs two.",
            where="[pairs] split",
            remedy='Add participants, or take split = "blocks" without validation_participants: '
            "parts of the one brain check.",
        )
    if named:
        _check_named(named, participants)
    checking = {*named} or _drawn(participants, pairs.validation_share, random_seed)
    return Split(
        tuple(run for run in runs if run.participant not in checking),
        tuple(run for run in runs if run.participant in checking),
        "participants",
    )


def split_blocks(
    mask: Bool[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    pairs: PairsConfig,
    *,
    gap_voxels: int,
    random_seed: int = 0,
) -> Blocks:
    """Choose blocks of a brain that check; what is nearer to them than a gap is left out.

    Blocks are cubes in scanner axes, anchored at the origin of the scanner, so that crops of a
    scan, and scans of a participant who lay alike, are split alike. They are drawn at random;
    where the gaps around scattered ones leave too little to learn from, they are instead those
    at one end of the brain, in a direction that is drawn.

    Parameters
    ----------
    mask
        The brain.
    vox2ras
        Voxels to RAS+ millimetres.
    pairs
        Side of the blocks, and the share of the brain's voxels that they have at least.
    gap_voxels
        Voxels along each axis that lie between what is learnt from and what checks: with the
        radius of the receptive field no voxel that checks is seen in training, with twice that
        no voxel is seen on both sides.
    random_seed
        Seed of the choice.

    Returns
    -------
    Blocks
        Disjoint parts of the mask, at least ``gap_voxels`` voxels between them.

    Raises
    ------
    InputError
        If nothing, or hardly anything, is left to learn from.
    """
    brain = mask.numpy(force=True)
    voxels = np.argwhere(brain)
    affine = vox2ras.numpy(force=True).astype(np.float64)
    places_mm = voxels @ affine[:3, :3].T + affine[:3, 3]
    cells, block = np.unique(
        np.floor(places_mm / pairs.block_size_mm).astype(np.int64), axis=0, return_inverse=True
    )
    n_wanted = pairs.validation_share * len(voxels)
    rng = np.random.default_rng(random_seed)
    scattered = _ranks_of(cells, random_seed)
    one_end = cells @ rng.standard_normal(3)
    left = 0.0
    for key, least in ((scattered, _LEFT_IF_SCATTERED), (one_end, _LEFT_AT_LEAST)):
        chosen = _first_blocks(key, np.bincount(block.ravel()), n_wanted)
        validation = np.zeros_like(brain)
        validation[tuple(voxels.T)] = chosen[block.ravel()]
        near = maximum_filter(validation, size=2 * gap_voxels + 1, mode="constant", cval=0)
        training = brain & ~near
        rest = int((brain & ~validation).sum())
        left = training.sum() / max(rest, 1)
        if training.any() and left >= least:
            return Blocks(torch.from_numpy(training), torch.from_numpy(validation))
    raise InputError(
        f"Between the blocks of {pairs.block_size_mm:g} mm that check and what is learnt from lie "
        f"{gap_voxels} voxels; that leaves {100 * left:.0f}% of the rest of the brain to learn "
        "from.",
        where="[pairs] validation_share, block_size_mm",
        remedy="Make the blocks smaller, lower validation_share, or take a network that sees less "
        "around a voxel (n_blocks in [network]); or add participants.",
    )


def _check_named(named: list[str], participants: list[str]) -> None:
    absent = [label for label in named if label not in participants]
    if absent:
        raise UsageError(
            f"{len(absent)} of {len(named)} participants that shall check are not there: "
            f"{', '.join(absent)}.",
            where="[pairs] validation_participants",
            remedy=f"Present are: {', '.join(participants)}.",
        )
    if len(named) == len(participants):
        raise UsageError(
            f"All {len(participants)} participants shall check, so there is none to learn from.",
            where="[pairs] validation_participants",
            remedy="Name fewer of them, or add participants.",
        )


def _drawn(participants: list[str], share: float, random_seed: int) -> set[str]:
    n_checking = min(max(round(share * len(participants)), 1), len(participants) - 1)
    order = np.random.default_rng(random_seed).permutation(len(participants))
    return {participants[i] for i in order[:n_checking]}


def _ranks_of(cells: Int[np.ndarray, "n 3"], random_seed: int) -> Float[np.ndarray, " n"]:
    """Draw a number for each block, by its place alone: the same in every scan that has it."""
    return np.array(
        [
            # Seeds of a sequence are not negative.
            np.random.default_rng([random_seed, *(int(i) + 2**31 for i in cell)]).random()
            for cell in cells
        ]
    )


def _first_blocks(
    key: Float[np.ndarray, " n"], sizes: Int[np.ndarray, " n"], n_wanted: float
) -> Bool[np.ndarray, " n"]:
    """Take blocks in the order of a key until they have as many voxels as are wanted."""
    order = np.argsort(key, kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = np.zeros(len(key), dtype=bool)
    chosen[order[before < n_wanted]] = True
    return chosen
