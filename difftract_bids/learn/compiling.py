"""Compile the kernels that losses on streamlines need, in a process of their own.

A process that compiles a kernel may run other copies of its parts than one that loads it from
the cache on disk, and the last bits of sums then differ. So a training that was killed in the
process that compiled would go on with other bits. Compiled apart, kernels are loaded by all.
"""

from __future__ import annotations

import subprocess
import sys

import torch

from difftract_bids.config import LossConfig, TrackingConfig
from difftract_bids.core.sh import sh_basis
from difftract_bids.errors import TrainingError
from difftract_bids.learn.losses import Objective
from difftract_bids.learn.targets import PropagationTarget


def compile_apart(lmax: int) -> None:
    """Compile the kernels for fODFs of a degree, unless the cache has them; takes seconds.

    Raises
    ------
    TrainingError
        If the process that compiles them fails.
    """
    command = [sys.executable, "-m", __name__, str(lmax)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - us
    if done.returncode:
        raise TrainingError(
            f"The kernels could not be compiled: {done.stderr.strip()[-500:]}.",
            where="NUMBA_CACHE_DIR",
            remedy="Let it name a folder that can be written to.",
        )


def propagate_once(lmax: int) -> None:
    """Take a step through every kernel, on one straight bundle."""
    along = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    fodf = sh_basis(along, lmax).float().expand(12, 5, 5, -1).clone().requires_grad_()
    labels = torch.zeros(12, 5, 5, dtype=torch.int64)
    labels[:2], labels[-2:] = 1, 2
    mask = torch.ones(12, 5, 5, dtype=torch.bool)
    tracking = TrackingConfig(min_length_mm=2.0)
    vox2ras = torch.eye(4, dtype=torch.float64)
    for counts in (True, False):
        target = PropagationTarget(
            fodf.detach(),
            vox2ras,
            mask,
            tracking,
            labels,
            with_density=True,
            counts=counts,
            with_amplitudes=True,
        )
        drawn = target.draw(20, random_seed=0)
        losses = LossConfig(
            points=1.0, directions=1.0, ends=1.0, survival=1.0, connectome_log=1.0, density=1.0
        )
        parts = Objective(losses)(target.found(fodf, drawn), drawn.target)
        torch.autograd.backward(parts.total)


if __name__ == "__main__":
    propagate_once(int(sys.argv[1]))
