"""Signals to deconvolve: crossings of one shell, and mixtures of tissues in three."""

from __future__ import annotations

import math

import numpy as np
import torch
from acquisitions import directions, scheme

CYLINDER, FLUID, GREY = (1.7e-3, 0.3e-3), 3.0e-3, 0.8e-3
BVALS = (0.0, 700.0, 1200.0, 2800.0)


def zonal(bval, lmax=8, scale=1.0):
    """Project a cylinder's signal onto zonal harmonics, by quadrature."""
    cosine, weight = np.polynomial.legendre.leggauss(64)
    signal = scale * np.exp(-bval * (CYLINDER[1] + (CYLINDER[0] - CYLINDER[1]) * cosine**2))
    return torch.tensor([
        2 * np.pi * math.sqrt((2 * degree + 1) / (4 * np.pi))
        * (weight * signal * np.polynomial.legendre.Legendre.basis(degree)(cosine)).sum()
        for degree in range(0, lmax + 1, 2)
    ])  # fmt: skip


def fibre_signal(bvals, bvecs, fibres, scale=1.0):
    across, along = CYLINDER[1], CYLINDER[0]
    cosine2 = (torch.as_tensor(fibres) @ bvecs.T) ** 2
    return scale * torch.exp(-bvals * (across + (along - across) * cosine2))


def vectors(n):
    return torch.from_numpy(directions(n))


def random_fibres(n, seed=0):
    found = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return found / found.norm(dim=1, keepdim=True)


def single_shell(n_voxels=12, n_directions=45, noise=0.03, seed=0):
    """Crossings with noise, some of it pure: as many negative lobes as real data have."""
    bvecs = vectors(n_directions)
    bvals = torch.full((n_directions,), 2000.0, dtype=torch.float64)
    first, second = (fibre_signal(bvals, bvecs, random_fibres(n_voxels, s)) for s in (1, 2))
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(first.shape, generator=generator, dtype=torch.float64)
    return 0.6 * first + 0.4 * second + noise * spread, bvecs, zonal(2000.0)


def multi_shell(n_voxels=8, noise=0.01, lmax=8, n_directions=24):
    table = scheme(*((b, n_directions) for b in BVALS[1:]), n_b0=4)
    bvecs, bvals = torch.from_numpy(table.bvecs), torch.from_numpy(table.bvals_s_mm2)
    shell = torch.tensor([BVALS.index(b) for b in table.bvals_s_mm2])
    share = torch.rand(
        n_voxels, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    share /= share.sum(dim=1, keepdim=True)
    fibre = fibre_signal(bvals, bvecs, random_fibres(n_voxels))
    dwi = share[:, :1] * fibre + share[:, 1:2] * 1.2 * torch.exp(-bvals * GREY)
    dwi = dwi + share[:, 2:] * 3 * torch.exp(-bvals * FLUID)
    spread = torch.randn(dwi.shape, generator=torch.Generator().manual_seed(4), dtype=dwi.dtype)
    root = math.sqrt(4 * math.pi)
    responses = [
        torch.stack(
            [zonal(b, lmax) * torch.tensor([1.0] + [float(b > 0)] * (lmax // 2)) for b in BVALS]
        ),
        torch.tensor([[1.2 * root * math.exp(-b * GREY)] for b in BVALS], dtype=torch.float64),
        torch.tensor([[3 * root * math.exp(-b * FLUID)] for b in BVALS], dtype=torch.float64),
    ]
    return (dwi + noise * spread).clamp_min(0), bvecs, shell, responses, share
