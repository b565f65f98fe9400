"""Small scans to learn from: crossing bundles, and what a scanner would measure of them."""

from __future__ import annotations

import numpy as np
import problems
import torch

from difftract_bids.config import TrainingConfig
from difftract_bids.core.deconvolution.convolution import convolution_matrix
from difftract_bids.core.sh import n_coefficients
from difftract_bids.learn.scan import Scan
from difftract_bids.phantom.schemes import make_scheme

#: Of a fibre at b=1000, relative to b=0.
_RESPONSE = (1.3, -0.9, 0.4, -0.12, 0.03)
#: The smallest settings with which there is anything to see.
QUICK = {
    "pairs": {"split": "participants", "block_size_mm": 6.0},
    "network": {"lmax": 4, "width": 4, "n_blocks": 1, "signal_lmax": 4},
    "propagation": {"n_seeds": 60},
    "tracking": {"step_size_mm": 1.0, "min_length_mm": 4.0, "cutoff": 0.05},
    "optimisation": {
        "n_steps": 6,
        "learning_rate": 5e-3,
        "patch_size": 8,
        "validate_every": 2,
        "checkpoint_every": 1,
        "device": "cpu",
    },
}


def quick_config(**tables) -> TrainingConfig:
    """Take the smallest settings, with others laid over them, table by table."""
    from difftract_bids.config import merge

    config = merge(TrainingConfig(), QUICK, where="the test")
    return merge(config, tables, where="the test")


def simulated_scan(participant: str, shape=(12, 10, 8), n_directions=20, lmax=4) -> Scan:
    """Simulate a scan; that of each participant has noise and a shape of its own."""
    vox2ras = problems.scaling(2.0)
    seed = int(participant)
    fodf = problems.crossing_bundles(vox2ras, shape, lmax=lmax, noise=0.0)
    mask = fodf[..., 0] != 0
    bend = 1 + 0.1 * seed * torch.linspace(-1, 1, shape[0], dtype=fodf.dtype)
    fodf = fodf * bend[:, None, None, None]
    table = make_scheme([1000.0], n_directions, 2)
    matrix = convolution_matrix(
        torch.from_numpy(table.bvecs),
        torch.tensor(_RESPONSE, dtype=torch.float64)[: lmax // 2 + 1].expand(len(table.bvecs), -1),
        lmax,
    )
    signal = 0.3 * fodf.double() @ matrix.T
    signal[..., torch.from_numpy(table.b0_mask)] = 1.0
    draw = np.random.default_rng(seed)
    signal = signal * mask[..., None] + 0.02 * torch.from_numpy(draw.normal(size=signal.shape))
    labels = torch.zeros(shape, dtype=torch.int64)
    labels[:4], labels[-4:] = 1, 2
    return Scan(
        label=f"sub-{participant}",
        participant=participant,
        dwi=(1000 * signal).float(),
        gradients=table,
        vox2ras=vox2ras.double(),
        mask=mask,
        fodf=fodf[..., : n_coefficients(lmax)].float(),
        parcellation=labels * mask,
        node_labels=torch.tensor([1, 2]),
        node_names=("left", "right"),
        sources={"fodf": f"sub-{participant}_fodf.nii.gz"},
    )


class Forgetful(torch.nn.Module):
    """A user's network with dropout, which draws from torch's own generator."""

    def __init__(self, in_channels: int, out_channels: int, width: int = 4) -> None:
        super().__init__()
        self.first = torch.nn.Conv3d(in_channels, width, 3, padding=1)
        self.drop = torch.nn.Dropout(0.5)
        self.last = torch.nn.Conv3d(width, out_channels, 1)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(self.first(signal)))


class Steep(torch.nn.Module):
    """A user's network with finite values whose slope is not finite."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(in_channels, out_channels, 1)
        self.zero = torch.nn.Parameter(torch.zeros(()))

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return self.layer(signal) + self.zero.sqrt()
