"""Networks, scans for them, and an architecture such as a user would bring."""

from __future__ import annotations

import numpy as np
import torch
from acquisitions import scheme
from torch import nn

from difftract_bids.core.sh import n_coefficients, sh_degrees_and_orders
from difftract_bids.learn.acquisition import Acquisition
from difftract_bids.learn.architectures import DEFAULT_ARCHITECTURE
from difftract_bids.learn.network import FODFNetwork, NetworkSettings

TABLE = scheme((1000.0, 30))
OWN = "networks:PerDegree"


class PerDegree(nn.Module):
    """Multiplies each degree by a number: a network that knows how to turn."""

    def __init__(self, in_channels: int, out_channels: int, gain: float = 0.5) -> None:
        super().__init__()
        lmax = next(k for k in range(2, 14, 2) if n_coefficients(k) == in_channels)
        degrees = torch.tensor([degree for degree, _ in sh_degrees_and_orders(lmax)])
        assert out_channels <= in_channels
        self.index = (degrees // 2)[:out_channels]
        self.gain = nn.Parameter(gain ** torch.arange(lmax // 2 + 1))

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        kept = signal[:, : len(self.index)]
        return kept * self.gain[self.index][:, None, None, None]


class TooSmall(nn.Module):
    """Forgets to pad."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv3d(in_channels, out_channels, 3)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return self.layer(signal)


def settings(architecture=DEFAULT_ARCHITECTURE, table=TABLE, lmax=4, signal_lmax=4, **options):
    acquisition = Acquisition.of(table, affine())
    return NetworkSettings(architecture, acquisition, signal_lmax, lmax, options)


def network(lmax=4, seed=1, table=TABLE, **options) -> FODFNetwork:
    """Make a network whose every weight counts: a new one gives nothing but zeros."""
    options = {"width": 6, "n_blocks": 1} | options
    made = FODFNetwork(settings(lmax=lmax, table=table, **options), random_seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in (made.architecture.last, made.architecture.skip):
            for weight in layer.parameters():
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return made


def affine(sizes=(2.0, 2.0, 2.0), turn=None, origin=(-10.0, -20.0, 5.0)) -> torch.Tensor:
    found = torch.eye(4, dtype=torch.float64)
    axes = torch.eye(3, dtype=torch.float64) if turn is None else turn
    found[:3, :3] = axes @ torch.diag(torch.tensor(sizes, dtype=torch.float64))
    found[:3, 3] = torch.tensor(origin, dtype=torch.float64)
    return found


def small_turn(angle_deg=20.0, seed=0) -> torch.Tensor:
    """Turn by less than 45 degrees about some axis: what obliqueness is."""
    axis = torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    axis = axis / axis.norm() * np.deg2rad(angle_deg)
    x, y, z = axis.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(cross)


def signal(shape=(7, 6, 5), table=TABLE, seed=0, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    n = len(table.bvals_s_mm2)
    decay = torch.from_numpy(np.where(table.b0_mask, 1.0, 0.5))
    noise = torch.rand(*shape, n, generator=generator, dtype=torch.float64)
    return (1000 * decay * (0.6 + 0.8 * noise)).to(dtype)


def stored_otherwise(image: torch.Tensor, vox2ras: torch.Tensor, order, reverse):
    """Store a scan with other axes first and some reversed: the same voxels in the same places."""
    moved = image.permute(*order, *range(3, image.ndim)).flip([i for i in range(3) if reverse[i]])
    columns = vox2ras[:3, list(order)].clone()
    origin = vox2ras[:3, 3].clone()
    for axis in range(3):
        if reverse[axis]:
            origin = origin + columns[:, axis] * (moved.shape[axis] - 1)
            columns[:, axis] *= -1
    found = torch.eye(4, dtype=torch.float64)
    found[:3, :3], found[:3, 3] = columns, origin
    return moved, found
