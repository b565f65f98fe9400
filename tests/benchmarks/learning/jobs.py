"""What is timed of learning: one function for each job of `JOBS`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
from timing import Result, in_use_mib, timed

from difftract_bids.config import LossConfig, PropagationConfig, TrackingConfig, TrainingConfig
from difftract_bids.learn.making import make_network, settings_of
from difftract_bids.learn.materials import Material, Parts, prepare
from difftract_bids.learn.network import FODFNetwork
from difftract_bids.learn.step import Predictor, Stepper
from difftract_bids.learn.targets import PropagationTarget
from learning.scene import load

#: Seeds of the step that compiles.
_FEW = 32
#: Smaller than the fODF's, so that none of them outweighs it.
_LOSSES = LossConfig(points=0.1, directions=1.0, ends=0.1, connectome_relative=1.0)


@dataclass(frozen=True)
class Job:
    """What is learnt from, and how many seeds a step has."""

    folder: Path
    n_seeds: int

    @classmethod
    def load(cls, given: dict[str, object]) -> Job:
        return cls(Path(str(given["scene"])), int(str(given.get("n_seeds", _FEW))))


def kernel_step(job: Job) -> Result:
    """A step with losses on streamlines and connectomes, by the compiled propagator."""
    return _step(job, _LOSSES, backend="cpu")


def reference_step(job: Job) -> Result:
    """The same step by the readable propagator in plain PyTorch."""
    return _step(job, _LOSSES, backend="reference")


def fodf_step(job: Job) -> Result:
    """A step that compares fODFs alone."""
    return _step(job, LossConfig(), backend="cpu")


def _step(job: Job, losses: LossConfig, backend: str) -> Result:
    config = TrainingConfig(losses=losses, propagation=PropagationConfig(n_seeds=job.n_seeds))
    scan = load(job.folder)
    parts = Parts((scan,), (scan,), by_blocks=False)
    network = make_network(settings_of(parts.training, config, None, []), config, None)
    (material,), _ = prepare(parts, network, config, torch.device("cpu"))
    _fit_linear_part(network, material)
    # The weights stay as they are: both steps, and those of other jobs, are of one network.
    before = in_use_mib()
    few = replace(config, propagation=PropagationConfig(n_seeds=_FEW))
    _stepper(network, material, few).take(0, learning_rate=0.0)
    if material.propagation is not None:
        tracking = TrackingConfig(backend=backend)
        material = replace(material, propagation=replace(material.propagation, tracking=tracking))
    stepper = _stepper(network, material, config)
    # The first step leaves memory to the second: what is told is what a step needs from nothing.
    left = in_use_mib() - before
    with _watched() as seen:
        numbers, measured = timed(lambda: stepper.take(1, learning_rate=0.0))
    n_streamlines = numbers.get("n_streamlines", 0)
    own = {"n_seeds": job.n_seeds, "streamlines": n_streamlines, "loss": numbers["total"]}
    measured["peak_mib"] += left
    return measured | own | seen | {"steps": 1}


def _stepper(network: FODFNetwork, material: Material, config: TrainingConfig) -> Stepper:
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.0, foreach=False)
    return Stepper(Predictor(network), [material], optimiser, config)


@torch.no_grad()
def _fit_linear_part(network: FODFNetwork, material: Material) -> None:
    """Fit the skip from input to output: a network that knows nothing has no streamlines."""
    signal = material.encoded.movedim(0, -1)[material.counted].double()
    signal = torch.cat([signal, torch.ones_like(signal[:, :1])], dim=1)
    wanted = material.target.movedim(0, -1)[material.counted].double()
    # A normal equation is enough for what is only timed, and cannot fail where it is singular.
    square = signal.T @ signal
    square += 1e-6 * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
    found = torch.linalg.solve(square, signal.T @ wanted).T.float()
    skip = network.architecture.skip
    skip.weight.copy_(found[:, :-1, None, None, None])
    skip.bias.copy_(found[:, -1])


@contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """Tell the seconds of passing derivatives back, and the vertices of the prediction."""
    seen = {"backward_seconds": 0.0, "vertices": 0}
    backward, found = torch.autograd.backward, PropagationTarget.found

    def clocked(*given: object, **more: object) -> None:
        start = time.perf_counter()
        backward(*given, **more)
        seen["backward_seconds"] += time.perf_counter() - start

    def counted(*given: object) -> object:
        propagated = found(*given)
        seen["vertices"] += len(propagated.streamlines.points)
        return propagated

    with (
        patch.object(torch.autograd, "backward", clocked),
        patch.object(PropagationTarget, "found", counted),
    ):
        yield seen


JOBS = {job.__name__: job for job in (kernel_step, reference_step, fodf_step)}
