"""Subsets of a scan's volumes: even, determined by angles alone, and counted."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from difftract_bids.errors import InputError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.learn.subsets import choose_volumes, pair_energies, spread_evenly
from difftract_bids.phantom.schemes import even_directions, make_scheme


@pytest.fixture(scope="module")
def directions():
    return even_directions(64, np.random.default_rng(0))


@pytest.fixture(scope="module")
def scheme():
    return make_scheme((1000.0, 2500.0), 30, 6, seed=1)


def energy(directions):
    return pair_energies(directions).sum() / 2


def test_two_charges_and_their_antipodes_have_the_energy_of_coulomb():
    pairs = pair_energies(np.array([[1.0, 0, 0], [0, 1.0, 0], [-0.6, 0.8, 0]]))
    assert pairs[0, 1] == pytest.approx(2 / np.sqrt(2))
    assert pairs[0, 2] == pytest.approx(1 / np.sqrt(0.8) + 1 / np.sqrt(3.2))
    assert pairs[0, 0] == 0


@pytest.mark.parametrize("n_chosen", [15, 20])
def test_a_subset_of_64_is_within_a_hundredth_of_the_best_directions_there_are(
    directions, n_chosen
):
    best = min(energy(even_directions(n_chosen, np.random.default_rng(i))) for i in range(3))
    chosen = directions[spread_evenly(directions, n_chosen)]
    at_random = directions[np.random.default_rng(0).permutation(64)[:n_chosen]]
    assert energy(chosen) < 1.01 * best
    assert energy(at_random) > 1.03 * best


def test_no_single_exchange_makes_a_subset_more_even(directions):
    chosen = spread_evenly(directions, 15)
    reached = energy(directions[chosen])
    for out in range(15):
        for into in np.setdiff1d(np.arange(64), chosen):
            other = chosen.copy()
            other[out] = into
            assert energy(directions[other]) >= reached * (1 - 1e-9)


def test_the_choice_depends_neither_on_the_pose_of_the_head_nor_on_the_ends_measured(directions):
    chosen = spread_evenly(directions, 15)
    for seed in range(3):
        turned = directions @ Rotation.random(rng=np.random.default_rng(seed)).as_matrix().T
        ends = np.random.default_rng(seed).choice([-1.0, 1.0], size=(64, 1))
        np.testing.assert_array_equal(spread_evenly(turned * ends, 15), chosen)


def test_ties_are_broken_alike_whatever_the_rounding():
    # The 15 axes through the edges of an icosahedron: many choices are as good as each other.
    turns = Rotation.create_group("I").as_matrix()
    images = turns @ [1.0, 0.0, 0.0]
    images = images[images @ [1.0, 0.1, 0.01] > 0]
    symmetric = images[np.unique(images.round(6), axis=0, return_index=True)[1]]
    assert len(symmetric) == 15
    chosen = spread_evenly(symmetric, 7)
    for seed in range(5):
        turned = symmetric @ Rotation.random(rng=np.random.default_rng(seed)).as_matrix().T
        np.testing.assert_array_equal(spread_evenly(turned, 7), chosen)


def test_repeated_directions_are_not_both_chosen(directions):
    twice = np.concatenate([directions[:20], directions[:20]])
    chosen = spread_evenly(twice, 12)
    assert len({*(chosen % 20)}) == 12


def test_each_shell_has_the_directions_asked_for_and_b0_are_spread_over_the_scan(scheme):
    chosen = choose_volumes(scheme, 12, n_b0=3)
    bvals = scheme.bvals_s_mm2[chosen]
    assert [(bvals == bval).sum() for bval in (0, 1000, 2500)] == [3, 12, 12]
    b0 = np.flatnonzero(scheme.b0_mask)
    assert {b0[0], b0[-1]} < {*chosen}
    assert (np.diff(chosen) > 0).all()


def test_without_wishes_all_volumes_are_chosen(scheme):
    np.testing.assert_array_equal(choose_volumes(scheme), np.arange(66))


def test_a_shell_is_found_by_about_its_b_value(scheme):
    scattered = GradientTable(scheme.bvals_s_mm2 + 4.0 * ~scheme.b0_mask, scheme.bvecs)
    chosen = choose_volumes(scattered, None, (2450.0,), 1)
    assert (scattered.bvals_s_mm2[chosen] > 2000).sum() == 30
    assert len(chosen) == 31


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ((31, (), None), "31 directions are asked for, and the shell b=1000 s/mm² has 30"),
        ((None, (), 7), "7 b=0 volumes are asked for, and the scan has 6"),
        ((None, (700.0,), None), "b=700 s/mm² is asked for, and the scan has 1000, 2500"),
        ((0, (), None), "0 directions"),
    ],
)
def test_more_than_there_is_is_refused_and_counted(scheme, wishes, said):
    with pytest.raises(InputError, match=said) as caught:
        choose_volumes(scheme, *wishes, where="a.bval")
    assert caught.value.where == "a.bval"
