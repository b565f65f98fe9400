import numpy as np
import pytest

from difftract_bids.modelling.fodf import sh_basis, sh_degrees
from difftract_bids.modelling.response.lobes import (
    half_sphere,
    lobe_directions,
    peak_amplitudes,
)

LMAX = 8


def fibre(direction, lmax=LMAX):
    """A peak along a direction, smoothed so that it has no side lobes to speak of."""
    degree = sh_degrees(lmax)
    return sh_basis(direction[None], lmax)[0] * np.exp(-0.04 * degree * (degree + 1))


def random_directions(n, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def crossing(weight, angle_deg):
    """Peaks of 1 and ``weight`` at an angle, each turned somewhere else."""
    one = random_directions(20)
    aside = np.cross(one, random_directions(20, seed=1))
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    angle = np.radians(angle_deg)
    other = np.cos(angle) * one + np.sin(angle) * aside
    fodf = [fibre(a) + weight * fibre(b) for a, b in zip(one, other, strict=True)]
    return np.array(fodf), one, other


def test_half_of_a_sphere_has_neighbours_in_both_directions():
    sphere, neighbours = half_sphere()
    assert sphere.shape == (1281, 3)
    cosine = np.abs((sphere[neighbours] * sphere[:, None]).sum(axis=2))
    assert np.degrees(np.arccos(cosine.clip(0, 1))).max() < 6
    others = [set(row) - {i} for i, row in enumerate(neighbours)]
    assert all(i in others[j] for i, row in enumerate(others) for j in row)
    # The twelve corners of the icosahedron, six pairs of them, have five.
    assert sorted(map(len, others))[:7] == [5] * 6 + [6]


def test_the_amplitudes_of_two_crossing_fibres_are_found_between_the_grid_directions():
    fodf, one, other = crossing(0.5, 90.0)
    first, second = peak_amplitudes(fodf, 2).T
    at_one = (fodf * sh_basis(one, LMAX)).sum(axis=1)
    at_other = (fodf * sh_basis(other, LMAX)).sum(axis=1)
    np.testing.assert_allclose(first, at_one, rtol=1e-4)
    np.testing.assert_allclose(second, at_other, rtol=1e-3)


def test_the_second_peak_of_one_fibre_is_small_and_without_fodf_there_is_none():
    fodf, one, _ = crossing(0.0, 90.0)
    first, second = peak_amplitudes(fodf, 2).T
    np.testing.assert_allclose(first, (fodf * sh_basis(one, LMAX)).sum(axis=1), rtol=1e-4)
    assert (second < 0.02 * first).all()
    nothing = np.zeros((2, 45))
    assert not peak_amplitudes(nothing, 2).any()
    assert not lobe_directions(nothing).any()


@pytest.mark.parametrize(("weight", "tolerance_deg"), [(0.0, 0.6), (0.6, 1.0)])
def test_the_largest_lobe_points_along_its_fibre(weight, tolerance_deg):
    fodf, one, _ = crossing(weight, 90.0)
    cosine = np.abs((lobe_directions(fodf) * one).sum(axis=1)).clip(0, 1)
    assert np.degrees(np.arccos(cosine)).max() < tolerance_deg


def test_the_mean_of_a_lobe_leans_towards_its_heavier_side():
    """The peak alone would not: two fibres 35 degrees apart have one lobe between them."""
    fodf, one, other = crossing(0.5, 35.0)
    mean = lobe_directions(fodf)
    angle = np.degrees(np.arccos(np.abs((mean * one).sum(axis=1)).clip(0, 1)))
    assert ((angle > 5) & (angle < 17)).all()
    assert (np.abs(np.linalg.det(np.stack([mean, one, other], axis=1))) < 0.03).all()
