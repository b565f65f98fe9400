"""Volumes of a scan as a shorter acquisition would have: fewer shells, directions and b=0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from difftract_bids.errors import InputError
from difftract_bids.io.gradients import GradientTable, is_same_shell

#: Directions nearer to each other than an angle of √(2 · this) rad, 0.08°, are one, and repel as
#: much as that.
_SAME_DIRECTION = 1e-6
#: Energies that differ by less than this share are equal: rounding must not choose between them.
_SAME_ENERGY = 1e-9
#: The best of the sets that the greedy search finds are bettered by exchange.
_N_BETTERED = 8


def choose_volumes(
    gradients: GradientTable,
    n_directions: int | None = None,
    shells_s_mm2: Sequence[float] = (),
    n_b0: int | None = None,
    *,
    where: object = None,
) -> Int[np.ndarray, " chosen"]:
    """Choose volumes of a scan: of each shell, directions that are spread as evenly as can be.

    Parameters
    ----------
    gradients
        Table of all volumes.
    n_directions
        Number of directions of each shell; all by default.
    shells_s_mm2
        b-values of the shells, as they were asked for of the scanner; all by default.
    n_b0
        Number of b=0 volumes, spread over the scan; all by default.
    where
        What errors name.

    Returns
    -------
    numpy.ndarray
        Indices of the volumes, ascending. They depend on the angles between directions only, not
        on how the head lay.

    Raises
    ------
    InputError
        If a shell is not there, or has fewer directions, or there are fewer b=0 volumes.
    """
    b0 = np.flatnonzero(gradients.b0_mask)
    n_wanted = len(b0) if n_b0 is None else n_b0
    if not 1 <= n_wanted <= len(b0):
        raise InputError(
            f"{n_wanted} b=0 volumes are asked for, and the scan has {len(b0)}.",
            where=where,
            remedy="At least one is needed; ask for no more than there are (n_b0 in [pairs]).",
        )
    chosen = [b0[np.rint(np.linspace(0, len(b0) - 1, n_wanted)).astype(int)]]
    for bval, volumes in _shells(gradients, shells_s_mm2, where):
        measured = np.flatnonzero(volumes)
        n = len(measured) if n_directions is None else n_directions
        if not 1 <= n <= len(measured):
            raise InputError(
                f"{n} directions are asked for, and the shell b={bval:.0f} s/mm² has "
                f"{len(measured)}.",
                where=where,
                remedy="Ask for no more than there are (n_directions in [pairs]), or leave this "
                "shell out (shells_s_mm2).",
            )
        chosen.append(measured[spread_evenly(gradients.bvecs[measured], n)])
    return np.sort(np.concatenate(chosen))


def spread_evenly(directions: Float[np.ndarray, "n 3"], n_chosen: int) -> Int[np.ndarray, " k"]:
    """Choose the directions, of those measured, that are spread most evenly.

    Their electrostatic energy is made small, by a greedy search from every direction and then by
    exchange, as long as that lowers it: a local minimum, close to the best.

    Parameters
    ----------
    directions
        Unit vectors; a vector and its opposite are the same.
    n_chosen
        How many to choose.

    Returns
    -------
    numpy.ndarray
        Indices, ascending.

    References
    ----------
    Jones, Horsfield & Simmons 1999,
    doi:10.1002/(SICI)1522-2594(199909)42:3<515::AID-MRM14>3.0.CO;2-Q.
    """
    if n_chosen >= len(directions):
        return np.arange(len(directions))
    energies = pair_energies(directions)
    grown = [_grown(energies, first, n_chosen) for first in range(len(directions))]
    order = _ascending(np.array([_energy(energies, chosen) for chosen in grown]))
    bettered = [_exchanged(energies, grown[start]) for start in order[:_N_BETTERED]]
    least = _lowest(np.array([_energy(energies, chosen) for chosen in bettered]))
    return np.flatnonzero(bettered[least])


def pair_energies(directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n n"]:
    """Energy of each pair of unit charges on the sphere, each with its antipode; 0 with itself."""
    alike = np.clip(np.abs(directions @ directions.T), 0.0, 1.0 - _SAME_DIRECTION)
    energies = 1.0 / np.sqrt(2.0 - 2.0 * alike) + 1.0 / np.sqrt(2.0 + 2.0 * alike)
    np.fill_diagonal(energies, 0.0)
    return energies


def _shells(
    gradients: GradientTable, wanted_s_mm2: Sequence[float], where: object
) -> list[tuple[float, Bool[np.ndarray, " volume"]]]:
    measured = [shell for shell in gradients.shell_volumes() if shell[0] > 0]
    if not wanted_s_mm2:
        return measured
    chosen = []
    for wanted in wanted_s_mm2:
        same = [shell for shell in measured if is_same_shell(shell[0], wanted)]
        if not same:
            listed = ", ".join(f"{bval:.0f}" for bval, _ in measured)
            raise InputError(
                f"The shell b={wanted:.0f} s/mm² is asked for, and the scan has {listed}.",
                where=where,
                remedy="Ask for shells that all scans have (shells_s_mm2 in [pairs]).",
            )
        chosen.append(min(same, key=lambda shell: abs(shell[0] - wanted)))
    return chosen


def _grown(
    energies: Float[np.ndarray, "n n"], first: int, n_chosen: int
) -> Bool[np.ndarray, " n"]:
    """Add, to a first direction, the one with least energy, again and again."""
    chosen = np.zeros(len(energies), dtype=bool)
    chosen[first] = True
    potential = energies[first].copy()
    for _ in range(n_chosen - 1):
        added = _lowest(np.where(chosen, np.inf, potential))
        chosen[added] = True
        potential += energies[added]
    return chosen


def _exchanged(
    energies: Float[np.ndarray, "n n"], start: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Exchange one direction for another, the pair that gains most, until none gains."""
    chosen = start.copy()
    while True:
        inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        potential = energies[:, inside].sum(axis=1)
        # What comes in has no energy with what goes out.
        gains = (
            potential[inside, None] - potential[None, outside] + energies[np.ix_(inside, outside)]
        )
        best = _lowest(-gains.ravel())
        if gains.ravel()[best] <= _SAME_ENERGY * _energy(energies, chosen):
            return chosen
        chosen[inside[best // len(outside)]] = False
        chosen[outside[best % len(outside)]] = True


def _energy(energies: Float[np.ndarray, "n n"], chosen: Bool[np.ndarray, " n"]) -> float:
    return float(energies[np.ix_(chosen, chosen)].sum() / 2)


def _lowest(values: Float[np.ndarray, " n"]) -> int:
    """Give the first of those that are the lowest but for rounding."""
    lowest = values.min()
    return int(np.flatnonzero(values <= lowest + _SAME_ENERGY * abs(lowest))[0])


def _ascending(values: Float[np.ndarray, " n"]) -> list[int]:
    """Sort by value, and by place where values are equal but for rounding."""
    left, order = values.copy(), []
    for _ in values:
        order.append(_lowest(left))
        left[order[-1]] = np.inf
    return order
