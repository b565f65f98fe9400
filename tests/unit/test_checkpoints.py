"""Checkpoints: whole or not there, and never gone on from when they are damaged."""

import json

import pytest
import torch
from networks import network

from difftract_bids.errors import ConfigError, DifftractError, TrainingError
from difftract_bids.learn.checkpoints import Checkpoints, TrainingState, optimiser_tensors
from difftract_bids.learn.history import COLUMNS, History
from difftract_bids.learn.resuming import find_start

SETTINGS = {"optimisation": {"n_steps": 9, "learning_rate": 0.1}, "pairs": {"shells": [1.0]}}


def learning(seed=1):
    """Make a network, and an optimiser that has taken two steps."""
    made = network(seed=seed)
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-2)
    for step in range(2):
        optimiser.zero_grad()
        draw = torch.Generator().manual_seed(step)
        made(torch.rand(1, 15, 4, 4, 4, generator=draw)).square().sum().backward()
        optimiser.step()
    return made, optimiser


def state_of(step, best_step=1, **others):
    return TrainingState(step, best_step, 0.5, 1, {"total": 0.1 + step / 3}, SETTINGS, **others)


@pytest.fixture
def kept(tmp_path):
    """Keep the checkpoints of steps 1 to 4, of which the first is the best."""
    checkpoints = Checkpoints(tmp_path)
    made, optimiser = learning()
    for step in range(1, 5):
        checkpoints.save(made, optimiser, state_of(step), {"step": step})
    return checkpoints


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_last_two_and_the_best_are_kept(kept):
    assert kept.steps() == [4, 3, 1]
    assert names_in(kept.folder) == ["step-1", "step-3", "step-4"]


def test_what_is_restored_is_what_was_kept_bit_for_bit(kept):
    made, optimiser = learning()
    other = network(seed=7)
    its_optimiser = torch.optim.AdamW(other.parameters(), lr=1e-2)
    found = kept.latest([])
    assert found.state == state_of(4)
    kept.restore(found, other, its_optimiser)
    for name, value in made.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    before = optimiser_tensors(made, optimiser)
    after = optimiser_tensors(other, its_optimiser)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {"step", "exp_avg", "exp_avg_sq"} == {name.rpartition(":")[2] for name in before}


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "state.json"])
def test_of_a_damaged_checkpoint_the_one_before_is_taken_and_that_is_said(kept, name):
    damage(kept.of(4) / name)
    notes = []
    assert kept.latest(notes).state.step == 3
    assert len(notes) == 1
    assert "step-4" in notes[0]
    assert "damaged" in notes[0]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_a_checkpoint_whose_state_is_no_state_is_damaged(kept, content):
    (kept.of(4) / "state.json").write_bytes(content)
    with pytest.raises(TrainingError, match="damaged"):
        kept.read(4)


def test_a_state_that_was_edited_is_not_believed(kept):
    path = kept.of(4) / "state.json"
    content = json.loads(path.read_text())
    content["state"]["best_loss"] = 0.0
    path.write_text(json.dumps(content))
    with pytest.raises(TrainingError, match="changed"):
        kept.read(4)


def test_without_a_whole_checkpoint_nothing_goes_on(kept):
    for step in kept.steps():
        (kept.of(step) / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match="None of the 3"):
        kept.latest([])


def test_without_any_checkpoint_training_begins(tmp_path):
    assert Checkpoints(tmp_path / "none").latest([]) is None


def test_a_checkpoint_of_another_network_does_not_fit(kept):
    other = network(lmax=2)
    with pytest.raises(TrainingError, match="does not fit"):
        kept.restore(kept.latest([]), other, torch.optim.AdamW(other.parameters()))


def test_what_a_killed_run_left_half_written_is_removed(kept):
    (kept.folder / ".step-5.abc").mkdir()
    made, optimiser = learning()
    kept.save(made, optimiser, state_of(5), {})
    assert names_in(kept.folder) == ["step-1", "step-4", "step-5"]


def test_a_folder_that_cannot_be_written_to_is_told_and_the_others_stay(kept, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    made, optimiser = learning()
    monkeypatch.setattr("difftract_bids.learn.checkpoints.save_file", full)
    with pytest.raises(DifftractError, match="No space left"):
        kept.save(made, optimiser, state_of(5), {})
    assert names_in(kept.folder) == ["step-1", "step-3", "step-4"]


def wanted(settings, data=None):
    return TrainingState(settings=settings, data=data or {})


def test_other_settings_are_refused_by_their_names(kept):
    changed = SETTINGS | {"optimisation": {"n_steps": 9, "learning_rate": 0.2}}
    with pytest.raises(ConfigError, match=r"optimisation.learning_rate was 0.1 and is 0.2"):
        find_start(kept, wanted(changed), [], resume=True)


def test_more_steps_may_be_asked_for_and_what_that_does_is_said(kept):
    changed = SETTINGS | {"optimisation": {"n_steps": 20, "learning_rate": 0.1}}
    notes = []
    assert find_start(kept, wanted(changed), notes, resume=True).state.step == 4
    assert len(notes) == 1
    assert "n_steps was 9 and is 20" in notes[0]


def test_other_data_are_refused_by_their_names(tmp_path):
    checkpoints, (made, optimiser) = Checkpoints(tmp_path), learning()
    before = {"sub-01": "a", "sub-02": "b", "sub-03": "c"}
    checkpoints.save(made, optimiser, state_of(1, data=before), {})
    now = {"sub-01": "a", "sub-02": "x", "sub-04": "d"}
    said = r"missing: sub-03; new: sub-04; changed: sub-02"
    with pytest.raises(ConfigError, match=said):
        find_start(checkpoints, wanted(SETTINGS, now), [], resume=True)


def test_checkpoints_that_are_not_to_be_gone_on_from_are_not_overwritten(kept):
    with pytest.raises(ConfigError, match="not to go on"):
        find_start(kept, wanted(SETTINGS), [], resume=False)


def test_the_table_keeps_the_steps_before_and_drops_those_that_are_taken_again(tmp_path):
    with History(tmp_path, None) as history:
        for step in range(5):
            history.add({"step": step, "total": 1 / 3, "validation_total": float(step)})
    with (tmp_path / "history.tsv").open("a") as stream:
        stream.write("5\t0.3")  # killed while it wrote
    with History(tmp_path, 2) as history:
        history.add({"step": 3, "fodf": 2.0})
    header, *rows = (tmp_path / "history.tsv").read_text().splitlines()
    assert tuple(header.split("\t")) == COLUMNS
    assert [row.split("\t")[0] for row in rows] == ["0", "1", "2", "3"]
    last = dict(zip(COLUMNS, rows[-1].split("\t"), strict=True))
    assert (last["fodf"], last["total"]) == ("2", "n/a")
    assert any((tmp_path / "logs").iterdir())
