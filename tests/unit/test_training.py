"""Training: it learns, it stops where it must, and goes on as if it had never been stopped."""

import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from training_scans import quick_config, simulated_scan

from difftract_bids.errors import ConfigError, InputError, TrainingError, UsageError
from difftract_bids.learn.batches import Batches, learning_rate
from difftract_bids.learn.history import Silence
from difftract_bids.learn.making import make_network, settings_of
from difftract_bids.learn.materials import prepare, split_scans
from difftract_bids.learn.model_file import load_model
from difftract_bids.learn.step import Predictor
from difftract_bids.learn.training import train

EVERY_LOSS = {
    "points": 0.1,
    "directions": 0.1,
    "ends": 0.1,
    "connectome_relative": 0.1,
    "connectome_log": 0.1,
    "connectome_correlation": 0.1,
    "density": 0.1,
}
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def scans():
    return [simulated_scan(label) for label in ("01", "02", "03")]


@pytest.fixture(scope="module")
def uninterrupted(scans, tmp_path_factory):
    """Train with every loss, at one go."""
    out = tmp_path_factory.mktemp("uninterrupted")
    return train(scans, quick_config(losses=EVERY_LOSS), out)


def history_of(folder):
    return pd.read_csv(folder / "history.tsv", sep="\t", na_values="n/a")


def same_end(one, other, step=6):
    """Compare the files of the last checkpoint and of the model, byte by byte."""
    last = Path("checkpoints") / f"step-{step}"
    names = ("model.safetensors", "optimiser.safetensors", "state.json")
    paths = [Path("model.safetensors"), *(last / name for name in names)]
    return all((one / path).read_bytes() == (other / path).read_bytes() for path in paths)


def prepared(scans, config):
    parts = split_scans(scans, config)
    network = make_network(settings_of(parts.training, config, None, []), config, None)
    return network, *prepare(parts, network, config, torch.device("cpu"))


def test_losses_decrease_and_gradients_are_finite(scans, tmp_path):
    config = quick_config(
        losses={"points": 0.1}, optimisation={"n_steps": 40, "learning_rate": 0.01}
    )
    trained = train(scans, config, tmp_path)
    table = history_of(tmp_path)
    validation = table.validation_fodf.dropna()
    assert validation.iloc[-1] < 0.65 * validation.iloc[0]
    assert table.fodf[-10:].mean() < 0.8 * table.fodf[1:11].mean()
    assert np.isfinite(table.gradient_norm[1:]).all()
    assert (table.gradient_norm[1:] > 0).all()
    # At first the network gives nothing, and so no streamlines.
    assert (table.n_compared[-10:] > 20).all()
    assert (table.growth_worst[-10:] >= table.growth_median[-10:]).all()
    assert (table.growth_median[-10:] > 0).all()
    assert trained.validation["total"] == pytest.approx(table.validation_total.min())


def test_the_model_is_the_best_by_validation_and_says_what_it_learnt_from(scans, tmp_path):
    trained = train(scans, quick_config(), tmp_path, dataset="Small heads")
    loaded = load_model(trained.model)
    assert loaded.sha256 == trained.sha256
    record = loaded.training
    assert record["participants"] + record["validation_participants"] != []
    both = sorted(record["participants"] + record["validation_participants"])
    assert both == ["01", "02", "03"]
    assert record["dataset"] == "Small heads"
    assert record["step"] == trained.best_step
    assert record["validation"] == trained.validation
    assert record["settings"]["network"]["lmax"] == 4
    table = history_of(tmp_path)
    assert table.step[table.validation_total.idxmin()] == trained.best_step
    assert (tmp_path / "train.toml").read_text() == quick_config().to_toml()


def test_equal_trainings_give_equal_files(uninterrupted, scans, tmp_path):
    again = train(scans, quick_config(losses=EVERY_LOSS), tmp_path)
    assert again.sha256 == uninterrupted.sha256
    assert same_end(tmp_path, uninterrupted.model.parent)


def test_another_seed_gives_another_model(uninterrupted, scans, tmp_path):
    config = quick_config(losses=EVERY_LOSS, optimisation={"random_seed": 1})
    train(scans, config, tmp_path)
    assert not same_end(tmp_path, uninterrupted.model.parent)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_training import EVERY_LOSS
from training_scans import quick_config, simulated_scan
from difftract_bids.learn import checkpoints
from difftract_bids.learn.compiling import compile_apart
from difftract_bids.learn.training import train

flushed = checkpoints._flush
def die(path):
    flushed(path)
    if ".step-5." in str(path) and path.name.startswith("optimiser"):
        os.kill(os.getpid(), signal.SIGKILL)

scans, out = [simulated_scan(label) for label in ("01", "02", "03")], Path(sys.argv[1])
config = quick_config(losses=EVERY_LOSS)
compile_apart(config.network.lmax)
if sys.argv[2] == "kill":
    train(scans, config, out / "whole")
    checkpoints._flush = die
train(scans, config, out / "killed")
"""


def run_apart(out, what):
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(out), what],
        # As difftract-train sets it: without, MKL's last bits depend on where numbers lie.
        env={
            **os.environ,
            "PYTHONPATH": f"{TESTS}:{TESTS / 'unit'}",
            "MKL_CBWR": "COMPATIBLE",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_killed_while_it_writes_and_gone_on_with_gives_the_same_bits(tmp_path):
    done = run_apart(tmp_path, "kill")
    assert done.returncode == -signal.SIGKILL, done.stderr
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert (killed / "checkpoints" / "step-4").is_dir()
    assert not (killed / "checkpoints" / "step-5").exists()
    done = run_apart(tmp_path, "go on")
    assert done.returncode == 0, done.stderr
    assert same_end(killed, whole)
    names = [
        sorted(path.name for path in (out / "checkpoints").iterdir()) for out in (killed, whole)
    ]
    assert names[0] == names[1]
    tables = [history_of(out).drop(columns="seconds") for out in (killed, whole)]
    pd.testing.assert_frame_equal(*tables)


class Stop(Silence):
    """Interrupt after a step, as control-C does."""

    def __init__(self, step):
        self._step, self.lines = step, []

    def stepped(self, step, values):  # noqa: ARG002 - as the interface has it
        if step == self._step:
            raise KeyboardInterrupt

    def told(self, line):
        self.lines.append(line)


def test_a_users_network_that_draws_random_numbers_goes_on_with_the_same_ones(scans, tmp_path):
    name = "training_scans:Forgetful"
    config = quick_config(network={"architecture": name})
    train(scans, config, tmp_path / "whole", model_class=name)
    with pytest.raises(KeyboardInterrupt):
        train(scans, config, tmp_path / "other", progress=Stop(3), model_class=name)
    torch.rand(3)
    train(scans, config, tmp_path / "other", model_class=name)
    assert same_end(tmp_path / "other", tmp_path / "whole")


def test_from_a_damaged_checkpoint_it_goes_on_from_the_one_before(uninterrupted, scans, tmp_path):
    out, stop = tmp_path, Stop(5)
    config = quick_config(losses=EVERY_LOSS)
    with pytest.raises(KeyboardInterrupt):
        train(scans, config, out, progress=stop)
    last = max((out / "checkpoints").iterdir(), key=lambda path: path.name)
    assert last.name == "step-4"
    (last / "optimiser.safetensors").write_bytes(b"nothing")
    listener = Stop(None)
    train(scans, config, out, progress=listener)
    assert any("step-4" in line and "damaged" in line for line in listener.lines)
    assert same_end(out, uninterrupted.model.parent)


def test_a_training_that_has_ended_is_not_begun_again(uninterrupted, scans):
    again = train(scans, quick_config(losses=EVERY_LOSS), uninterrupted.model.parent)
    assert replace(again, notes=()) == replace(uninterrupted, notes=())


def test_it_goes_on_with_other_data_or_settings_never(uninterrupted, scans, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(uninterrupted.model.parent, out)
    other = [scans[0], scans[1], replace(scans[2], dwi=scans[2].dwi * 1.01)]
    with pytest.raises(ConfigError, match="changed: sub-03"):
        train(other, quick_config(losses=EVERY_LOSS), out)
    with pytest.raises(ConfigError, match=r"losses.points was 0.1 and is 0.2"):
        train(scans, quick_config(losses=EVERY_LOSS | {"points": 0.2}), out)
    longer = quick_config(losses=EVERY_LOSS, optimisation={"n_steps": 7})
    assert train(scans, longer, out).steps == 7


def test_a_loss_that_is_not_finite_stops_it_and_the_last_good_checkpoint_stays(scans, tmp_path):
    config = quick_config(optimisation={"learning_rate": 1e35, "validate_every": 3})
    with pytest.raises(TrainingError, match=r"In step 2, the loss fodf .* not finite"):
        train(scans, config, tmp_path)
    assert (tmp_path / "checkpoints" / "step-0").is_dir()
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.training["step"] == 0
    assert all(value.isfinite().all() for value in loaded.network.state_dict().values())


def test_a_gradient_that_is_not_finite_stops_it_before_any_weight_is_lost(scans, tmp_path):
    name = "training_scans:Steep"
    config = quick_config(network={"architecture": name})
    with pytest.raises(TrainingError, match="In step 1, the gradient is not finite"):
        train(scans, config, tmp_path, model_class=name)
    assert load_model(tmp_path / "model.safetensors", name).training["step"] == 0


def test_without_any_streamline_it_goes_on_and_says_so_in_the_table(scans, tmp_path):
    config = quick_config(losses=EVERY_LOSS, tracking={"cutoff": 50.0})
    trained = train(scans, config, tmp_path)
    table = history_of(tmp_path)
    assert trained.steps == 6
    assert (table.n_streamlines[1:] == 0).all()
    assert np.isfinite(table.total[1:]).all()
    assert table.growth_worst.isna().all()


def test_validation_that_does_not_get_better_ends_it(scans, tmp_path):
    config = quick_config(
        optimisation={"learning_rate": 1e-30, "n_steps": 50, "patience": 2, "validate_every": 1}
    )
    trained = train(scans, config, tmp_path)
    assert (trained.stopped, trained.steps, trained.best_step) == ("patience", 2, 0)


def test_streamlines_are_propagated_in_the_steps_that_are_asked_for(scans, tmp_path):
    config = quick_config(
        losses={"points": 0.1}, propagation={"from_step": 1, "every": 2, "n_seeds": 20}
    )
    train(scans, config, tmp_path)
    table = history_of(tmp_path)[1:]
    assert table.step[table.points.notna()].tolist() == [2, 4, 6]


def test_blocks_of_one_brain_are_learnt_from_and_others_check(scans, tmp_path):
    config = quick_config(
        pairs={"split": "auto"}, network={"n_blocks": 0}, losses={"points": 0.01}
    )
    _, training, validation = prepared(scans[:1], config)
    assert len(training) == len(validation) == 1
    both = training[0].counted & validation[0].counted
    assert not both.any()
    assert training[0].counted.any()
    assert validation[0].counted.any()
    seeds = training[0].propagation.draw(50, 0).seeds_mm
    voxels = ((seeds - scans[0].vox2ras[:3, 3]) / 2.0).round().long()
    assert training[0].propagation.seed_mask[tuple(voxels.T)].all()
    listener = Stop(None)
    train(scans[:1], config, tmp_path, progress=listener)
    assert any("only the fODF loss" in line for line in listener.lines)


def test_only_voxels_that_are_learnt_from_have_a_gradient(scans):
    config = quick_config(pairs={"split": "blocks"}, network={"n_blocks": 0})
    network, training, _ = prepared(scans[:1], config)
    material = training[0]
    target = material.target.clone().requires_grad_()
    found = Predictor(network)(material.encoded)
    loss = (found - target).square().sum(0)[material.counted].sum()
    (gradient,) = torch.autograd.grad(loss, target)
    assert (gradient.abs().sum(0) > 0).equal(material.counted)


def test_patches_are_a_function_of_seed_and_step_and_lie_about_the_mask():
    mask = torch.zeros(20, 9, 6, dtype=torch.bool)
    mask[12:15, 2:4, 1] = True
    config = quick_config(optimisation={"patches_per_step": 30}).optimisation
    batches = Batches([mask, mask.flip(0)], [48, 8], config)
    drawn = batches.patches(5)
    assert drawn == Batches([mask, mask.flip(0)], [48, 8], config).patches(5)
    assert drawn != batches.patches(6)
    assert {patch.scan for patch in drawn} == {0, 1}
    assert max(patch.rotation for patch in drawn if patch.scan == 1) < 8
    assert max(patch.rotation for patch in drawn) > 8
    for patch in drawn:
        part = patch.of([mask, mask.flip(0)][patch.scan])
        assert part.shape == (8, 8, 6)
        assert part.any()


def test_the_learning_rate_falls_along_half_a_cosine():
    config = quick_config(optimisation={"n_steps": 8, "learning_rate": 2.0}).optimisation
    rates = [learning_rate(step, config) for step in (0, 4, 8)]
    assert rates == pytest.approx([2.0, 1.0, 0.0])


def test_half_precision_is_near_full_precision_and_its_gradients_are_finite(scans):
    network, training, _ = prepared(scans, quick_config())
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():  # a new network gives zeros
        for weight in network.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=draw))
    encoded = training[0].encoded
    full, half = Predictor(network)(encoded), Predictor(network, half=True)(encoded)
    assert half.dtype == torch.float32
    assert not half.equal(full)
    assert (half - full).norm() < 0.01 * full.norm()
    half.square().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())


def test_what_is_turned_to_be_seen_is_turned_back(scans):
    network, training, _ = prepared(scans, quick_config(network={"n_blocks": 0, "width": 1}))
    with torch.no_grad():
        network.architecture.skip.weight[:] = 0
        network.architecture.skip.weight[:15, :15, 0, 0, 0] = torch.eye(15)
        network.architecture.skip.bias[:] = 0
    material = training[0]
    straight = Predictor(network)(material.encoded)
    assert len(material.rotations) == 48
    for rotation in material.rotations[::7]:
        found = Predictor(network)(material.encoded, rotation)
        torch.testing.assert_close(found, straight, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "tables", "kind", "said"),
    [
        (lambda _: [], {}, InputError, "no scan"),
        (lambda s: s[:1], {}, InputError, "one participant"),
        (lambda s: s, {"network": {"lmax": 6}}, InputError, "lmax 4; the network gives .* lmax 6"),
        (lambda s: s, {"network": {"signal_lmax": 8}}, InputError, "needs 45 directions"),
        (
            lambda s: [replace(scan, parcellation=None) for scan in s],
            {"losses": {"connectome_log": 1.0}},
            InputError,
            "no parcellation",
        ),
        (lambda s: [*s[:2], replace(s[2], fodf=None)], {}, InputError, "sub-03 has no fODF"),
        (lambda s: s, {"network": {"architecture": "os:system"}}, InputError, "not one of"),
        (
            lambda s: s,
            {"pairs": {"validation_participants": ("09",)}},
            UsageError,
            "not there: 09",
        ),
    ],
)
def test_what_cannot_be_learnt_is_refused_with_a_remedy(
    change, tables, kind, said, scans, tmp_path
):
    with pytest.raises(kind, match=said) as caught:
        train(change(scans), quick_config(**tables), tmp_path)
    assert caught.value.remedy
    assert not (tmp_path / "checkpoints").exists()


def test_a_scan_of_another_acquisition_is_named(scans, tmp_path):
    other = simulated_scan("04", n_directions=15)
    gradients = replace(other.gradients, bvals_s_mm2=2 * other.gradients.bvals_s_mm2)
    many = [*scans, replace(other, gradients=gradients)]
    config = quick_config(pairs={"validation_participants": ("01",)})
    with pytest.raises(InputError, match="sub-04 was not acquired as sub-02"):
        train(many, config, tmp_path)


@pytest.mark.parametrize("counts", [False, True])
def test_settings_say_whether_streamlines_count_one(counts, scans):
    config = quick_config(losses=EVERY_LOSS, propagation={"counts": counts})
    parts = split_scans(scans, config)
    network = make_network(settings_of(parts.training, config, None, []), config, None)
    materials, _ = prepare(parts, network, config, torch.device("cpu"))
    assert all(one.propagation.propagation.counts is counts for one in materials)


def test_what_scans_say_of_themselves_is_told_once_and_kept_with_the_model(scans, tmp_path):
    listener = Stop(None)
    noted = [replace(scan, notes=("It was denoised.",)) for scan in scans[:2]]
    config = quick_config(optimisation={"n_steps": 1})
    trained = train([*noted, scans[2]], config, tmp_path, progress=listener)
    note = "It was denoised. (2 scan(s), first sub-01)"
    assert [line for line in listener.lines if "denoised" in line] == [note]
    assert trained.notes == (note,)
    assert load_model(trained.model).training["notes"] == [note]


def test_fewer_directions_are_told(scans, tmp_path):
    listener = Stop(None)
    many = [*scans, simulated_scan("04", n_directions=16)]
    config = quick_config(pairs={"validation_participants": ("01",)}, optimisation={"n_steps": 1})
    train(many, config, tmp_path, progress=listener)
    assert any("sub-04" in line and "16" in line for line in listener.lines)


def test_two_trainings_in_one_folder_do_not_meet(scans, tmp_path):
    class Second(Silence):
        def begun(self, step, n_steps):  # noqa: ARG002 - as the interface has it
            with pytest.raises(UsageError, match="Another training"):
                train(scans, quick_config(), tmp_path)

    train(scans, quick_config(optimisation={"n_steps": 1}), tmp_path, progress=Second())


@pytest.mark.slow
def test_two_threads_give_the_same_bits_each_time(scans, tmp_path):
    torch.set_num_threads(2)
    try:
        config = quick_config(losses=EVERY_LOSS, propagation={"n_seeds": 400})
        for name in ("one", "other"):
            train(scans, config, tmp_path / name)
    finally:
        torch.set_num_threads(1)
    assert same_end(tmp_path / "one", tmp_path / "other")


def test_torch_is_left_as_it_was(uninterrupted, scans, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(scans, quick_config(optimisation={"n_steps": 1}), tmp_path)
    assert torch.equal(torch.rand(2), expected)
    assert not torch.are_deterministic_algorithms_enabled()
    assert math.isfinite(uninterrupted.validation["total"])
