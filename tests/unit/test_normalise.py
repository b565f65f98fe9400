"""Intensity normalisation of tissues: fields known exactly, and images that are not sound."""

from __future__ import annotations

import numpy as np
import pytest

from difftract_bids.errors import ConfigError, InputError
from difftract_bids.modelling.normalise import (
    REFERENCE,
    apply_normalisation,
    normalise_tissues,
)

SHAPE = (26, 22, 18)
#: Their product is 1.
BALANCE = {"WM": 0.8, "GM": 1.0, "CSF": 1.25}


def places():
    axes = [np.linspace(-1, 1, size) for size in SHAPE]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def ball():
    return np.linalg.norm(places() * (1.1, 1.0, 1.05), axis=-1) < 0.95


def cubic_field(strength=0.4):
    x, y, z = np.moveaxis(places(), -1, 0)
    return np.exp(strength * (0.6 * x - y**2 + 0.3 * x * z + 0.2 * y**3 - 0.4 * x * y * z))


def fractions(seed=0):
    """Shares of the tissues: patches that mix at their borders."""
    x, y, z = np.moveaxis(places(), -1, 0)
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(7 * x + p) + np.cos(8 * y - p) + np.sin(6 * z + 2 * p) for p in phases]
    shares = np.exp(2 * np.stack(waves, axis=-1))
    return shares / shares.sum(axis=-1, keepdims=True)


def tissues(field, noise=0.0, seed=0):
    """WM of 6 coefficients, GM and CSF of one, whose balanced sum is the field (and noise)."""
    shares = fractions(seed)
    rng = np.random.default_rng(seed)
    made = {}
    for index, (name, factor) in enumerate(BALANCE.items()):
        amount = REFERENCE * field * shares[..., index] / factor
        amount = amount * np.exp(noise * rng.normal(size=SHAPE))
        n_more = 5 if name == "WM" else 0
        rest = 0.3 * amount[..., None] * rng.normal(size=(*SHAPE, n_more))
        made[name] = np.concatenate([amount[..., None], rest], axis=-1).astype(np.float32)
    return made


def test_a_polynomial_field_and_the_balance_are_found_exactly():
    field = 1.3 * cubic_field()
    found = normalise_tissues(tissues(field), ball())
    np.testing.assert_allclose(found.field[ball()], field[ball()], rtol=1e-4)
    for name, factor in BALANCE.items():
        assert found.balance[name] == pytest.approx(factor, rel=1e-4)
    kept = found.kept
    assert found.scale == pytest.approx(np.exp(np.log(field[kept]).mean()), rel=1e-4)
    assert np.prod(list(found.balance.values())) == pytest.approx(1.0)


def test_the_balanced_sum_becomes_the_reference():
    given = tissues(2.0 * cubic_field())
    found = normalise_tissues(given, ball(), reference=0.5)
    divided = apply_normalisation(given, found)
    total = sum(found.balance[name] * divided[name][..., 0] for name in given)
    np.testing.assert_allclose(total[ball()], 0.5, rtol=1e-4)


def test_subjects_of_any_gain_and_field_become_comparable():
    white = []
    for gain, strength in ((0.7, 0.2), (1.0, 0.4), (1.6, -0.3)):
        given = tissues(gain * cubic_field(strength), noise=0.1)
        divided = apply_normalisation(given, normalise_tissues(given, ball()))
        white.append(divided["WM"][ball()])
    np.testing.assert_allclose(white[1], white[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(white[2], white[0], rtol=1e-4, atol=1e-6)


def test_a_field_that_is_no_polynomial_is_found_within_three_percent():
    distance = np.linalg.norm(places() - (1.6, 0.2, -0.3), axis=-1)
    coil = 0.6 + np.exp(-(distance**2))
    found = normalise_tissues(tissues(coil, noise=0.1), ball())
    ratio = found.field[ball()] / coil[ball()]
    assert ratio.std() / ratio.mean() < 0.03
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)


def test_outliers_do_not_bend_the_field():
    field = cubic_field()
    given = tissues(field, noise=0.05)
    rng = np.random.default_rng(3)
    bright, dark = rng.permutation(np.argwhere(ball()))[:400].reshape(2, 200, 3)
    given["WM"][tuple(bright.T)] += 20.0
    for tissue in given.values():
        tissue[tuple(dark.T)] *= 1e-3
    found = normalise_tissues(given, ball())
    assert not found.kept[tuple(bright.T)].any()
    assert not found.kept[tuple(dark.T)].any()
    assert found.n_outliers == ball().sum() - found.kept.sum() >= 400
    np.testing.assert_allclose(found.field[ball()], field[ball()], rtol=0.03)


def test_amplitudes_of_tissues_keep_their_ratios():
    given = tissues(cubic_field(), noise=0.1)
    divided = apply_normalisation(given, normalise_tissues(given, ball()))
    inside = ball()
    np.testing.assert_allclose(
        divided["WM"][inside][:, 3] / divided["CSF"][inside][:, 0],
        given["WM"][inside][:, 3] / given["CSF"][inside][:, 0],
        rtol=1e-4,
    )


def test_the_order_of_the_axes_and_their_direction_do_not_matter():
    given, mask = tissues(cubic_field(), noise=0.1), ball()
    found = normalise_tissues(given, mask)

    def turned(volume):
        return np.flip(volume.swapaxes(0, 2), axis=(0, 1))

    otherwise = normalise_tissues({k: turned(v) for k, v in given.items()}, turned(mask))
    np.testing.assert_allclose(otherwise.field, turned(found.field), rtol=1e-4)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_order_bounds_the_degree_of_the_field(order):
    x = places()[..., 0]
    found = normalise_tissues(tissues(1.2 * np.exp(0.3 * x**2), 0.1), ball(), order=order)
    logs = np.log(found.field[6:20, 11, 9].astype(float))
    assert np.abs(np.diff(logs, n=order + 1)).max() < 1e-6
    assert (np.abs(np.diff(logs, n=order)).max() > 1e-3) == (order != 1)


def test_outside_the_mask_the_field_stays_within_its_range():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[10:15, 9:13, 7:11] = True
    found = normalise_tissues(tissues(cubic_field(2.0), noise=0.2), mask)
    assert found.field.min() == found.field[mask].min()
    assert found.field.max() == found.field[mask].max()


def test_voxels_that_are_not_finite_are_left_out_and_counted():
    field, mask = cubic_field(), ball()
    given = tissues(field)
    first, second, third = np.argwhere(mask)[[0, 500, 900]]
    given["WM"][*first, 0] = np.nan
    given["GM"][*second, 0] = np.inf
    given["WM"][*third, 4] = np.nan
    found = normalise_tissues(given, mask)
    assert found.n_not_finite == 2
    assert not found.kept[*first]
    np.testing.assert_allclose(found.field[mask], field[mask], rtol=1e-4)
    divided = apply_normalisation(given, found)
    assert all(np.isfinite(tissue).all() for tissue in divided.values())
    assert not divided["WM"][*third].any()
    assert divided["GM"][*third].all()


def test_empty_and_negative_voxels_are_left_out_and_counted():
    field, mask = cubic_field(), ball()
    given = tissues(field)
    empty, negative, below = np.argwhere(mask)[[3, 400, 700]]
    for tissue in given.values():
        tissue[tuple(empty)] = 0.0
        tissue[tuple(negative)] *= -1.0
    given["CSF"][tuple(below)] = -0.1
    found = normalise_tissues(given, mask)
    assert (found.n_no_signal, found.n_negative) == (2, 2)
    assert not found.kept[*empty]
    assert not found.kept[*negative]
    np.testing.assert_allclose(found.field[mask], field[mask], rtol=1e-4)


def test_a_tissue_that_is_nowhere_is_left_out_and_named():
    given = tissues(cubic_field(), noise=0.1)
    two = {name: given[name] for name in ("WM", "GM")}
    alone = normalise_tissues(two, ball())
    found = normalise_tissues({**two, "CSF": 0 * given["CSF"]}, ball())
    assert found.left_out == ("CSF",)
    assert found.balance == {**alone.balance, "CSF": 1.0}
    np.testing.assert_array_equal(found.field, alone.field)


def test_one_tissue_alone_has_no_balance_to_find():
    given = {"WM": tissues(cubic_field())["WM"]}
    given["WM"][..., 0] = 3 * REFERENCE
    found = normalise_tissues(given, ball())
    assert found.balance == {"WM": 1.0}
    np.testing.assert_allclose(found.field, 3.0, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 1), (12, 9, 1), (1, 9, 12)])
def test_flat_and_tiny_masks_give_a_finite_field(size):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(5, 5 + length) for length in size)] = True
    field = normalise_tissues({"WM": REFERENCE * cubic_field()}, mask).field
    np.testing.assert_allclose(field[mask], cubic_field()[mask], rtol=1e-3)
    assert field.max() == field[mask].max()
    assert field.min() == field[mask].min() > 0


def test_rounding_makes_no_outliers_of_sums_that_are_equal():
    amount = np.full(SHAPE, REFERENCE)
    amount[::5] *= 1 + 1e-12
    amount[1::5] *= 1 - 1e-12
    found = normalise_tissues({"WM": amount}, ball())
    assert found.n_outliers == 0
    np.testing.assert_array_equal(found.kept, ball())


def test_a_volume_of_three_axes_is_one_coefficient():
    given = tissues(cubic_field(), noise=0.1)
    flat = {**given, "GM": given["GM"][..., 0]}
    found = normalise_tissues(flat, ball())
    np.testing.assert_array_equal(found.field, normalise_tissues(given, ball()).field)
    assert apply_normalisation(flat, found)["GM"].shape == SHAPE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given, mask: (given, 0 * mask), "mask is empty"),
        (lambda _, mask: ({}, mask), "no tissue"),
        (lambda given, mask: ({k: 0 * v for k, v in given.items()}, mask), "No voxel"),
        (lambda given, mask: ({k: np.nan * v for k, v in given.items()}, mask), "not finite"),
        (lambda given, mask: ({**given, "GM": given["GM"][1:]}, mask), "tissue GM"),
        (lambda given, mask: (given, mask[1:]), "tissue WM"),
    ],
)
def test_input_that_cannot_be_normalised_is_refused(change, message):
    with pytest.raises(InputError, match=message) as caught:
        normalise_tissues(*change(tissues(cubic_field()), ball()))
    assert caught.value.remedy


def test_tissues_that_cannot_be_balanced_are_refused():
    rng = np.random.default_rng(0)
    extra = rng.uniform(0.1, 0.3, SHAPE)
    with pytest.raises(InputError, match="not positive"):
        normalise_tissues({"WM": 1 + extra, "GM": extra}, ball())


@pytest.mark.parametrize(
    "setting", [{"order": 4}, {"order": -1}, {"reference": 0.0}, {"reference": np.nan}]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=r"order|reference"):
        normalise_tissues(tissues(cubic_field()), ball(), **setting)


def test_a_field_of_another_grid_is_refused():
    found = normalise_tissues(tissues(cubic_field()), ball())
    with pytest.raises(InputError, match="tissue WM"):
        apply_normalisation({"WM": np.ones((3, 3, 3, 6))}, found)
