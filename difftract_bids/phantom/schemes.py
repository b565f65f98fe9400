"""Gradient schemes: which b-values and directions a simulated scan has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from difftract_bids.errors import UsageError
from difftract_bids.io.gradients import GradientTable


def even_directions(n_directions: int, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """Spread directions evenly over the sphere by electrostatic repulsion of antipodal pairs.

    Which of the two ends of each axis is measured is drawn at random, so that the set is not
    confined to one half of the sphere.

    References
    ----------
    Jones, Horsfield and Simmons 1999, Magnetic Resonance in Medicine 42(3):515-525.
    """
    start = rng.normal(size=3 * n_directions)
    found = minimize(_repulsion, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    spread = found.x.reshape(-1, 3)
    spread = spread / np.linalg.norm(spread, axis=1, keepdims=True)
    return spread * rng.choice([-1.0, 1.0], size=(n_directions, 1))


def _repulsion(
    flat: Float[np.ndarray, " coordinate"],
) -> tuple[float, Float[np.ndarray, " coordinate"]]:
    """Coulomb energy of charges at both ends of each axis, and its gradient.

    The vectors are free in length, and only their direction counts: no constraint is needed.
    """
    length = np.linalg.norm(flat.reshape(-1, 3), axis=1, keepdims=True)
    unit = flat.reshape(-1, 3) / length
    energy, slope = 0.0, np.zeros_like(unit)
    for sign in (-1.0, 1.0):
        apart = unit[:, None] + sign * unit[None]
        distance = np.linalg.norm(apart, axis=2)
        np.fill_diagonal(distance, np.inf)
        energy += (1.0 / distance).sum() / 2
        slope -= np.einsum("ij,ijk->ik", distance**-3, apart)
    slope -= (slope * unit).sum(axis=1, keepdims=True) * unit
    return energy, (slope / length).ravel()


def make_scheme(
    shells_s_mm2: Sequence[float], n_directions: int, n_b0: int, *, seed: int = 0
) -> GradientTable:
    """Make a scheme with b=0 volumes spread evenly between the diffusion-weighted ones.

    Parameters
    ----------
    shells_s_mm2
        b-value of each shell, s/mm².
    n_directions
        Directions per shell; each shell has its own set.
    n_b0
        Number of b=0 volumes; the first volume is one.
    seed
        Seed of the directions.

    Returns
    -------
    GradientTable
        b-vectors in scanner axes.

    Raises
    ------
    UsageError
        If there is no b=0 volume, no shell, a b-value is not positive, or there are fewer than 6
        directions.
    """
    if n_b0 < 1 or n_directions < 6 or not shells_s_mm2 or min(shells_s_mm2) <= 0:
        raise UsageError(
            f"{n_b0} b=0 volumes and {n_directions} directions on shells {list(shells_s_mm2)} "
            "make no usable scheme.",
            where="--n-b0, --directions, --shells",
            remedy="Give at least one b=0 volume, 6 directions and a positive b-value.",
        )
    rng = np.random.default_rng(seed)
    vectors = np.stack([even_directions(n_directions, rng) for _ in shells_s_mm2], axis=1)
    # Shells take turns, so that a scan cut short or a drift touches all of them alike.
    vectors = vectors.reshape(-1, 3)
    values = np.tile(np.asarray(shells_s_mm2, float), n_directions)
    before = np.linspace(0, len(values), n_b0, endpoint=False).astype(int)
    return GradientTable(
        np.insert(values, before, 0.0), np.insert(vectors, before, np.zeros(3), axis=0)
    )
