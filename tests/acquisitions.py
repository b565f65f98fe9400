"""Gradient tables with which tests simulate signals."""

from __future__ import annotations

import numpy as np

from difftract_bids.io.gradients import GradientTable


def directions(n):
    """Points of a spherical spiral, on one half."""
    z = (np.arange(n) + 0.5) / n
    azimuth = np.pi * (1 + 5**0.5) * np.arange(n)
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)


def scheme(*shells, n_b0=3):
    """Make a table of (b-value, number of directions) shells, b=0 first."""
    bvals, bvecs = [np.zeros(n_b0)], [np.zeros((n_b0, 3))]
    for bval, n in shells:
        bvals.append(np.full(n, float(bval)))
        bvecs.append(directions(n))
    return GradientTable(np.concatenate(bvals), np.concatenate(bvecs))
