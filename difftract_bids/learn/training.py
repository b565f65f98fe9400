"""Training: steps, validations and checkpoints, from wherever an earlier run stopped.

Every random choice is a function of the seed and the number of the step, and nothing else is
carried from one to the next but the weights and the optimiser's state. So a training that is
killed and goes on gives the weights, bit for bit, of one that was not: on a processor, with the
same number of threads, on which the last bits of sums depend, with kernels that were compiled
before (`difftract_bids.core.kernels`), and with ``MKL_CBWR=COMPATIBLE`` in the environment before
PyTorch first multiplies matrices, as ``difftract-train`` sets it: otherwise MKL's last bits depend
on where in memory numbers lie. On a GPU sums are made in any order.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from difftract_bids.config import TrainingConfig
from difftract_bids.errors import TrainingError
from difftract_bids.io.atomic import write_text_atomic
from difftract_bids.learn.batches import Purpose, generator, learning_rate
from difftract_bids.learn.checkpoints import (
    MODEL,
    Checkpoints,
    TrainingState,
    digest_of,
    publish,
)
from difftract_bids.learn.history import History, Listener, Silence
from difftract_bids.learn.locking import locked
from difftract_bids.learn.making import make_network, settings_of
from difftract_bids.learn.materials import Parts, digest_of_scan, prepare, split_scans
from difftract_bids.learn.network import FODFNetwork
from difftract_bids.learn.resuming import find_start
from difftract_bids.learn.scan import Scan
from difftract_bids.learn.step import Predictor, Stepper
from difftract_bids.learn.validation import Validator


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes
    ----------
    model
        File of the best network by validation.
    sha256
        Its digest.
    steps, best_step
        Steps taken, and after which the best network was found.
    validation
        Losses of the best network: ``total``, which is weighted, and each part, which is not.
    stopped
        Why it ended: all steps were taken, or validation had not become better for long.
    notes
        What a user should know.
    """

    model: Path
    sha256: str
    steps: int
    best_step: int
    validation: dict[str, float]
    stopped: str
    notes: tuple[str, ...] = ()


@dataclass
class _Run:
    """What a training works with; its state changes as it goes."""

    config: TrainingConfig
    folder: Path
    network: FODFNetwork
    optimiser: torch.optim.Optimizer
    stepper: Stepper
    validator: Validator
    checkpoints: Checkpoints
    listener: Listener
    record: dict[str, Any]
    state: TrainingState
    notes: list[str] = field(default_factory=list)


def train(
    scans: Sequence[Scan],
    config: TrainingConfig,
    out: Path,
    *,
    progress: Listener | None = None,
    resume: bool = True,
    model_class: str | None = None,
    dataset: str = "",
) -> Trained:
    """Train a network, or go on training it.

    Writes ``model.safetensors`` (the best by validation), ``history.tsv``, ``logs`` for
    TensorBoard, ``checkpoints`` and ``train.toml``.

    Parameters
    ----------
    scans
        What is learnt from and what checks; split as configured. Targets are in MRtrix3's basis.
    config
        Settings.
    out
        Folder of all that is written.
    progress
        Whom to tell how it goes.
    resume
        Go on from the last checkpoint in ``out``, if there is one; otherwise one is an error.
    model_class
        ``package.module:Class`` of a user's architecture, which the settings name too.
    dataset
        Name of what is learnt from, for the record.

    Returns
    -------
    Trained
        The model, and how well it does.

    Raises
    ------
    InputError, ConfigError, UsageError
        If scans cannot be learnt from, or checkpoints in ``out`` are of another training.
    TrainingError
        If a loss or gradient is not finite, or no checkpoint is whole; what was kept stays.
    """
    out, listener = Path(out), progress or Silence()
    notes: list[str] = []
    parts = split_scans(scans, config)
    with locked(out), _repeatable(config):
        run = _begin(parts, config, out, listener, model_class, dataset, notes)
        start = find_start(run.checkpoints, run.state, notes, resume=resume)
        for note in notes:
            listener.told(note)
        run.notes = notes
        if start is not None:
            run.checkpoints.restore(start, run.network, run.optimiser, model_class)
            run.state = replace(start.state, settings=run.state.settings)
        write_text_atomic(out / "train.toml", config.to_toml())
        with History(out, None if start is None else run.state.step) as history:
            listener.begun(run.state.step, config.optimisation.n_steps)
            if start is None:
                _validate(run, {"step": 0}, history)
            while not _is_over(run):
                _advance(run, history)
    return _finished(run)


def _begin(
    parts: Parts,
    config: TrainingConfig,
    out: Path,
    listener: Listener,
    model_class: str | None,
    dataset: str,
    notes: list[str],
) -> _Run:
    """Make everything as it is before the first step."""
    settings = settings_of(parts.training, config, model_class, notes)
    network = make_network(settings, config, model_class)
    device = _device(config)
    network.to(device)
    training, validation = prepare(parts, network, config, device)
    options = config.optimisation
    # One tensor at a time: sums in groups of tensors are in an order of their own.
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=options.learning_rate,
        weight_decay=options.weight_decay,
        foreach=False,
    )
    predictor = Predictor(network, half=_is_half(config, device))
    if parts.by_blocks and config.losses.needs_propagation:
        notes.append(
            "Blocks of the same brains check: streamlines that are learnt from run through these "
            "blocks too, so that only the fODF loss of validation is independent."
        )
    notes += _said_of(parts)
    by_label = {scan.label: digest_of_scan(scan) for scan in (*parts.training, *parts.validation)}
    software = {name: version(name) for name in ("difftract-bids", "torch")}
    return _Run(
        config=config,
        folder=out,
        network=network,
        optimiser=optimiser,
        stepper=Stepper(predictor, training, optimiser, config),
        validator=Validator(predictor, validation, config),
        checkpoints=Checkpoints(out / "checkpoints"),
        listener=listener,
        record={
            "dataset": dataset,
            "participants": parts.participants["training"],
            "validation_participants": parts.participants["validation"],
            "split": "blocks" if parts.by_blocks else "participants",
            "settings": json.loads(json.dumps(asdict(config))),
            "software": software,
            "notes": list(notes),
        },
        state=TrainingState(
            settings=json.loads(json.dumps(asdict(config))), data=by_label, software=software
        ),
        notes=notes,
    )


def _said_of(parts: Parts) -> list[str]:
    """Give what scans say of themselves; what several say, once."""
    by_note: dict[str, set[str]] = {}
    for scan in (*parts.training, *parts.validation):
        for note in scan.notes:
            by_note.setdefault(note, set()).add(scan.label)
    return [
        f"{note} ({len(labels)} scan(s), first {min(labels)})" for note, labels in by_note.items()
    ]


def _advance(run: _Run, history: History) -> None:
    """Take a step; then validate and keep a checkpoint, where it is time for either."""
    options, step = run.config.optimisation, run.state.step
    started = time.monotonic()
    _seed_torch(options.random_seed, step)
    numbers = run.stepper.take(step, learning_rate(step, options))
    run.state = replace(run.state, step=step + 1)
    values = {"step": step + 1, **numbers, "seconds": time.monotonic() - started}
    if (step + 1) % options.validate_every == 0 or step + 1 == options.n_steps:
        _validate(run, values, history)
        return
    history.add(values)
    run.listener.stepped(step + 1, values)
    if (step + 1) % options.checkpoint_every == 0:
        _keep(run)


def _validate(run: _Run, values: dict[str, float], history: History) -> None:
    """Validate, write it down, and keep a checkpoint and the model if it is the best yet."""
    state = run.state
    found = run.validator.losses(state.step)
    better = found["total"] < state.best_loss
    run.state = replace(
        state,
        validation=found,
        best_step=state.step if better else state.best_step,
        best_loss=found["total"] if better else state.best_loss,
        stale=0 if better else state.stale + 1,
    )
    values |= {f"validation_{name}": value for name, value in found.items()}
    history.add(values)
    run.listener.stepped(state.step, values)
    due = state.step % run.config.optimisation.checkpoint_every == 0
    if better or due or _is_over(run):
        _keep(run)


def _keep(run: _Run) -> None:
    """Write a checkpoint; its model is published if it is the best."""
    record = run.record | {"step": run.state.step, "validation": run.state.validation}
    folder = run.checkpoints.save(run.network, run.optimiser, run.state, record)
    if run.state.best_step == run.state.step:
        publish(folder / MODEL, run.folder / MODEL)


def _is_over(run: _Run) -> bool:
    options = run.config.optimisation
    return run.state.step >= options.n_steps or run.state.stale >= options.patience


def _finished(run: _Run) -> Trained:
    """Make sure that the published model is the best one, also where a run was killed between."""
    model, best = run.folder / MODEL, run.state.best_step
    try:
        checkpoint = run.checkpoints.read(best)
        publish(checkpoint.folder / MODEL, model)
        validation = checkpoint.state.validation
    except TrainingError as error:
        if not model.is_file():
            raise
        run.notes.append(f"The best checkpoint is damaged, its model was kept: {error.what}")
        run.listener.told(run.notes[-1])
        validation = {"total": run.state.best_loss}
    return Trained(
        model=model,
        sha256=digest_of(model),
        steps=run.state.step,
        best_step=best,
        validation=validation,
        stopped="n_steps" if run.state.step >= run.config.optimisation.n_steps else "patience",
        notes=tuple(run.notes),
    )


def _device(config: TrainingConfig) -> torch.device:
    name = config.optimisation.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _is_half(config: TrainingConfig, device: torch.device) -> bool:
    """Say whether to use bfloat16: it has float32's range, so that losses need no scaling."""
    wanted = config.optimisation.mixed_precision and device.type == "cuda"
    return wanted and torch.cuda.is_bf16_supported(including_emulation=False)


def _seed_torch(random_seed: int, step: int) -> None:
    """Seed what a user's network may draw itself, such as dropout, for one step."""
    draw = generator(random_seed, Purpose.WEIGHTS, step + 1)
    torch.manual_seed(int(draw.integers(2**63)))


@contextmanager
def _repeatable(config: TrainingConfig) -> Iterator[None]:
    """Have torch sum up in a fixed order where it can, and leave its generator as it was."""
    on_gpu = _device(config).type == "cuda"
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng(enabled=True):
        try:
            # Gathering vertices passes derivatives back by additions whose order varies otherwise.
            torch.use_deterministic_algorithms(before or not on_gpu)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
