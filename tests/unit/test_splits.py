"""Splits: no participant, and no voxel, on both sides."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_cdt

from difftract_bids.bids.training_runs import TrainingRun
from difftract_bids.config import PairsConfig
from difftract_bids.errors import InputError, UsageError
from difftract_bids.learn.splits import split_blocks, split_runs


def run(participant, session=None):
    label = f"sub-{participant}" + (f"_ses-{session}" if session else "")
    path = Path(label)
    return TrainingRun(participant, session, label, path, path, path, path, path, "csd")


SESSIONS = [run(f"{i:02}", session) for i in range(8) for session in "AB"]


def participants(runs):
    return {run.participant for run in runs}


@pytest.mark.parametrize("seed", range(5))
def test_all_sessions_of_a_participant_are_on_one_side(seed):
    split = split_runs(SESSIONS, PairsConfig(), seed)
    assert split.by == "participants"
    assert len(participants(split.validation)) == 2
    assert not participants(split.training) & participants(split.validation)
    assert {*split.training} | {*split.validation} == {*SESSIONS}


def test_the_split_is_drawn_by_the_seed_and_not_by_the_order_of_runs():
    drawn = [participants(split_runs(SESSIONS, PairsConfig(), seed).validation) for seed in (1, 2)]
    again = participants(split_runs(SESSIONS[::-1], PairsConfig(), 1).validation)
    assert drawn[0] == again
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_each_side_has_a_participant_whatever_the_share(share):
    split = split_runs(SESSIONS[:4], PairsConfig(validation_share=share))
    assert len(participants(split.training)) == len(participants(split.validation)) == 1


def test_named_participants_check():
    named = PairsConfig(validation_participants=("sub-03", "05"))
    assert participants(split_runs(SESSIONS, named).validation) == {"03", "05"}


@pytest.mark.parametrize(
    ("runs", "settings", "kind", "said"),
    [
        (SESSIONS, {"validation_participants": ("03", "99")}, UsageError, "1 of 2 .*: 99"),
        (
            SESSIONS[:4],
            {"validation_participants": ("00", "01")},
            UsageError,
            "All 2 participants shall check",
        ),
        (SESSIONS[:2], {"split": "participants"}, InputError, "one participant, 00, .*needs two"),
        (SESSIONS[:2], {"validation_participants": ("00",)}, InputError, "one participant, 00"),
    ],
)
def test_what_cannot_be_split_is_refused(runs, settings, kind, said):
    with pytest.raises(kind, match=said):
        split_runs(runs, PairsConfig(**settings))


def test_one_participant_is_split_by_blocks_and_so_are_more_if_asked_for():
    alone = split_runs(SESSIONS[:2], PairsConfig())
    assert alone.by == "blocks"
    assert alone.training == alone.validation == tuple(SESSIONS[:2])
    assert split_runs(SESSIONS, PairsConfig(split="blocks")).by == "blocks"


@pytest.fixture(scope="module")
def brain():
    """Make a ball of 60 mm radius in an oblique grid of 4 mm voxels: its mask and affine."""
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    vox2ras = np.eye(4)
    vox2ras[:3, :3] = 4.0 * turn
    vox2ras[:3, 3] = -vox2ras[:3, :3] @ [17.0, 17.0, 17.0]
    places = np.stack(np.meshgrid(*[np.arange(35)] * 3, indexing="ij"), axis=-1) - 17.0
    mask = 4.0 * np.linalg.norm(places, axis=-1) < 60
    return torch.from_numpy(mask), torch.from_numpy(vox2ras)


@pytest.mark.parametrize("gap_voxels", [0, 1, 3, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_gap_lies_between_blocks_and_what_is_learnt_from(brain, gap_voxels, seed):
    mask, vox2ras = brain
    split = split_blocks(mask, vox2ras, PairsConfig(), gap_voxels=gap_voxels, random_seed=seed)
    # The receptive field is a cube: the chessboard distance counts.
    apart = distance_transform_cdt(~split.validation.numpy(), metric="chessboard")
    assert apart[split.training.numpy()].min() == gap_voxels + 1
    assert not (split.training & ~mask).any()
    assert not (split.validation & ~mask).any()
    share = float(split.validation.sum() / mask.sum())
    assert 0.25 <= share < 0.35
    # Nothing is thrown away but the gap.
    gap = mask.numpy() & (apart > 0) & (apart <= gap_voxels)
    assert int((mask & ~split.training & ~split.validation).sum()) == int(gap.sum())


def test_blocks_are_scattered_only_where_gaps_leave_enough(brain):
    mask, vox2ras = brain

    def halves(gap_voxels):
        split = split_blocks(mask, vox2ras, PairsConfig(), gap_voxels=gap_voxels, random_seed=0)
        chosen = np.argwhere(split.validation.numpy()) - 17.0
        return np.linalg.norm(chosen.mean(axis=0)) * 4.0

    assert halves(0) < 20  # about the middle of the brain
    assert halves(7) > 30  # at one end


def test_a_crop_is_split_as_the_whole_is(brain):
    mask, vox2ras = brain
    padded = torch.nn.functional.pad(mask, (2, 3, 1, 0, 4, 4))
    shifted = vox2ras.clone()
    shifted[:3, 3] -= vox2ras[:3, :3] @ torch.tensor([4.0, 1.0, 2.0], dtype=torch.float64)
    settings = {"gap_voxels": 1, "random_seed": 3}
    whole = split_blocks(padded, shifted, PairsConfig(), **settings)
    part = split_blocks(mask, vox2ras, PairsConfig(), **settings)
    box = np.s_[4:-4, 1:, 2:-3]
    assert torch.equal(whole.validation[box], part.validation)
    assert torch.equal(whole.training[box], part.training)


def test_a_brain_that_is_all_gap_is_refused_with_what_is_left(brain):
    mask, vox2ras = brain
    with pytest.raises(InputError, match="20 voxels; that leaves 0%") as caught:
        split_blocks(mask, vox2ras, PairsConfig(), gap_voxels=20)
    assert "validation_share" in caught.value.remedy
