"""Total AFD, peaks, NuFO and coloured anisotropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from difftract_bids.core import fodf_peaks
from difftract_bids.core.fodf_peaks import all_peaks
from difftract_bids.core.sh import n_coefficients, sh_basis, sh_degrees_and_orders
from difftract_bids.errors import FodfError, InputError
from difftract_bids.modelling.fodf_maps import afd_total, colour_fa, nufo, peaks
from difftract_bids.reports.fodf.peaks import fodf_peaks as sticks
from difftract_bids.reports.images.fa import plot_fa


def lobe(direction, lmax=8, weight=1.0):
    """A fibre: smooth, symmetric about its direction, amplitude ``weight`` there."""
    axis = torch.tensor(direction, dtype=torch.float64)
    degrees = torch.tensor([degree for degree, _ in sh_degrees_and_orders(lmax)])
    coeffs = sh_basis((axis / axis.norm())[None], lmax)[0] * torch.exp(-degrees / 8.0)
    height = coeffs @ sh_basis((axis / axis.norm())[None], lmax)[0]
    return (weight * coeffs / height).numpy()


def image(*coeffs):
    """One row of voxels."""
    return np.stack(coeffs)[:, None, None].astype(np.float32)


def angle_deg(first, second):
    first, second = np.asarray(first, float), np.asarray(second, float)
    across = np.linalg.norm(np.cross(first, second))
    return math.degrees(math.atan2(across, abs(first @ second)))


def sphere(n, seed=0):
    directions = np.random.default_rng(seed).normal(size=(n, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def test_total_afd_is_the_integral_over_the_sphere():
    fodf = image(lobe([1, 2, 3]) + lobe([1, 0, -1], weight=0.5))
    z, weights = np.polynomial.legendre.leggauss(12)
    azimuth = np.arange(24) * 2 * math.pi / 24
    ring = np.stack([np.cos(azimuth), np.sin(azimuth)])
    radius = np.sqrt(1 - z**2)
    grid = np.stack(
        [np.outer(radius, ring[0]), np.outer(radius, ring[1]), np.outer(z, np.ones(24))], axis=-1
    )
    amplitude = sh_basis(torch.from_numpy(grid.reshape(-1, 3)), 8).numpy() @ fodf[0, 0, 0]
    integral = (amplitude.reshape(12, 24).sum(axis=1) * weights).sum() * 2 * math.pi / 24
    assert afd_total(fodf)[0, 0, 0] == pytest.approx(integral, rel=1e-5)


def test_total_afd_is_zero_where_there_is_no_number():
    fodf = image(lobe([1, 0, 0]), np.full(45, np.nan), np.zeros(45), np.full(45, np.inf))
    assert afd_total(fodf)[0] > 0
    assert not afd_total(fodf)[1:].any()


@given(st.integers(0, 10_000), st.sampled_from([2, 4, 6, 8, 10, 12]))
def test_a_single_fibre_has_one_peak_in_its_direction(seed, lmax):
    direction = sphere(1, seed)[0]
    found = peaks(image(lobe(direction, lmax, 0.7)), relative_cutoff=0.5)[0, 0, 0]
    assert angle_deg(found[:3], direction) < 0.03
    assert np.linalg.norm(found[:3]) == pytest.approx(0.7, rel=1e-4)
    assert not found[3:].any()


def test_crossing_fibres_come_largest_first():
    first, second, third = np.eye(3)
    fodf = image(0.4 * lobe(first) + 0.9 * lobe(second) + 0.6 * lobe(third))
    found = peaks(fodf)[0, 0, 0].reshape(5, 3)
    for peak, axis in zip(found, (second, third, first), strict=False):
        assert angle_deg(peak, axis) < 0.1
    assert nufo(peaks(fodf))[0, 0, 0] == 3


@pytest.mark.parametrize("lmax", [2, 4, 8, 12])
def test_no_direction_is_higher_than_the_first_peak(lmax):
    rng = np.random.default_rng(lmax)
    fodfs = rng.normal(size=(200, n_coefficients(lmax)))
    found = all_peaks(torch.from_numpy(fodfs), 20)
    height = torch.linalg.vector_norm(found, dim=-1)
    everywhere = torch.from_numpy(fodfs) @ sh_basis(torch.from_numpy(sphere(4000)), lmax).T
    assert (height[:, 0] >= everywhere.amax(1) - 1e-9).all()
    assert (height.diff(dim=1) <= 0).all()


def test_every_peak_is_higher_than_all_around_it():
    rng = np.random.default_rng(5)
    fodfs = torch.from_numpy(rng.normal(size=(100, 45)) * np.r_[3, np.ones(44)])
    found = all_peaks(fodfs, 12)
    height = torch.linalg.vector_norm(found, dim=-1)
    voxel, which = torch.nonzero(height > 0, as_tuple=True)
    assert len(voxel) > 300
    way = found[voxel, which] / height[voxel, which, None]
    for offset in torch.from_numpy(sphere(12)) * math.radians(2.0):
        aside = torch.nn.functional.normalize(way + offset, dim=1)
        amplitude = (sh_basis(aside, 8) * fodfs[voxel]).sum(dim=1)
        assert (amplitude <= height[voxel, which] + 1e-6).all()


def test_opposite_directions_are_one_peak():
    # On the border of the hemisphere that is searched, both ends of a fibre are near it.
    found = peaks(image(*[lobe([math.cos(a), math.sin(a), 1e-4]) for a in np.arange(0, 6, 0.1)]))
    assert (nufo(found) == 1).all()


def test_a_peak_halfway_between_two_equally_high_directions_is_found():
    directions, _, neighbours = fodf_peaks._lattice(2, torch.float64, torch.device("cpu"))
    nearest = directions[neighbours[:, 0]]
    nearest *= (directions * nearest).sum(dim=1, keepdim=True).sign()
    halfway = (directions + nearest).numpy()
    found = peaks(image(*[lobe(way, lmax=2) for way in halfway]), relative_cutoff=0.9)
    assert (nufo(found) == 1).all()


def test_peaks_below_either_threshold_are_left_out():
    fodf = image(0.8 * lobe([1, 0, 0]) + 0.3 * lobe([0, 1, 0]))
    weaker = np.linalg.norm(peaks(fodf)[0, 0, 0, 3:6])
    stronger = np.linalg.norm(peaks(fodf)[0, 0, 0, :3])

    def count(**settings):
        return nufo(peaks(fodf, **settings))[0, 0, 0]

    assert count(cutoff=0.98 * weaker, relative_cutoff=0.0) >= 2
    assert count(cutoff=1.02 * weaker, relative_cutoff=0.0) == 1
    assert count(cutoff=0.98 * stronger) == 1
    assert count(cutoff=1.02 * stronger) == 0
    assert count(relative_cutoff=0.98 * weaker / stronger) == 2
    assert count(relative_cutoff=1.02 * weaker / stronger) == 1


def test_of_peaks_closer_than_the_separation_the_largest_stays():
    away = math.radians(50)
    second = [math.cos(away), math.sin(away), 0]
    fodf = image(lobe([1, 0, 0]) + 0.8 * lobe(second))
    assert nufo(peaks(fodf))[0, 0, 0] == 2
    alone = peaks(fodf, separation_deg=60.0)
    assert nufo(alone)[0, 0, 0] == 1
    assert angle_deg(alone[0, 0, 0, :3], [1, 0, 0]) < 5


def test_no_more_peaks_are_kept_than_asked_for():
    fodf = image(sum(lobe(axis) for axis in np.eye(3)))
    assert peaks(fodf, n_peaks=2).shape == (1, 1, 1, 6)
    assert nufo(peaks(fodf, n_peaks=2))[0, 0, 0] == 2


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_an_isotropic_fodf_has_no_peak(scale):
    rng = np.random.default_rng(0)
    constant = np.zeros((20, 45))
    constant[:, 0] = scale
    rounding = constant + 1e-7 * scale * rng.normal(size=constant.shape)
    for fodf in (constant, rounding):
        assert not peaks(image(*fodf), cutoff=0.0, relative_cutoff=0.0).any()


def test_empty_and_broken_voxels_have_no_peaks_and_disturb_no_others():
    sound = lobe([1, 2, 3])
    broken = sound.copy()
    broken[7] = np.nan
    infinite, endless = sound.copy(), sound.copy()
    infinite[0] = np.inf
    endless[7] = np.inf
    found = peaks(image(np.zeros(45), broken, sound, infinite, endless, -sound))
    assert np.isfinite(found).all()
    assert nufo(found)[:5, 0, 0].tolist() == [0, 0, 1, 0, 0]
    np.testing.assert_allclose(found[2], peaks(image(sound))[0], atol=1e-6)


def test_an_image_without_any_voxel_of_the_mask_has_no_peaks():
    fodf = image(lobe([1, 0, 0]), lobe([0, 1, 0]))
    assert not peaks(fodf, np.zeros((2, 1, 1), dtype=bool)).any()
    only_second = peaks(fodf, np.array([0, 1]).reshape(2, 1, 1))
    assert not only_second[0].any()
    assert angle_deg(only_second[1, 0, 0, :3], [0, 1, 0]) < 0.05


def test_degree_two_has_one_peak_and_a_ring_at_least_one():
    disc = -lobe([0, 0, 1], lmax=2) + 2 * lobe([0, 0, 1], lmax=2)[0] * np.eye(6)[0]
    fodf = image(lobe([1, 1, 0], lmax=2), disc)
    found = peaks(fodf, cutoff=0.01)
    assert nufo(found)[0, 0, 0] == 1
    ring = found[1, 0, 0].reshape(5, 3)
    assert ring[0].any()
    assert np.isfinite(ring).all()
    np.testing.assert_allclose(ring[:, 2], 0, atol=1e-3)


def test_peaks_do_not_depend_on_how_many_voxels_are_worked_on_at_once(monkeypatch):
    fodfs = torch.from_numpy(np.random.default_rng(1).normal(size=(50, 28)))
    whole = all_peaks(fodfs, 4)
    monkeypatch.setattr(fodf_peaks, "_CHUNK", 7)
    torch.testing.assert_close(all_peaks(fodfs, 4), whole, rtol=0, atol=1e-12)


def test_the_count_takes_absent_peaks_as_zeros_or_nan():
    found = np.zeros((1, 2, 1, 9))
    found[0, 0, 0, :6] = [0.0, 0.0, 0.5, 0.2, 0.0, 0.0]
    as_sh2peaks = np.where(found.reshape(1, 2, 1, 3, 3).any(-1, keepdims=True), 1, np.nan)
    absent = np.broadcast_to(as_sh2peaks, (1, 2, 1, 3, 3)).reshape(found.shape) * found
    assert np.isnan(absent).any()
    for volume in (found, absent):
        assert nufo(volume)[0, :, 0].tolist() == [2, 0]


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(FodfError, match="16 coefficients"):
        peaks(np.zeros((2, 2, 2, 16)))
    with pytest.raises(InputError, match="mask"):
        peaks(np.zeros((2, 2, 2, 45)), np.ones((2, 2, 3), dtype=bool))
    with pytest.raises(InputError, match="46 volumes"):
        nufo(np.zeros((2, 2, 2, 46)))


def test_sticks_of_the_report_are_these_peaks():
    fodf = lobe([1, 2, 3]) + 0.5 * lobe([3, 0, -1])
    here = peaks(image(fodf), n_peaks=3, relative_cutoff=0.3, separation_deg=25.0)
    np.testing.assert_allclose(sticks(fodf[None])[0].ravel(), here[0, 0, 0], rtol=1e-6)


def test_anisotropy_is_coloured_by_direction():
    fa = np.array([0.5, 0.8, 1.5, 0.4, np.nan, 0.3]).reshape(6, 1, 1)
    v1 = np.array(
        [[1, 0, 0], [0, -0.6, 0.8], [0, 0, -1], [0, 0, 0], [1, 0, 0], [np.nan, 0, 0]]
    ).reshape(6, 1, 1, 3)
    expected = [[0.5, 0, 0], [0, 0.48, 0.64], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(colour_fa(fa, v1)[:, 0, 0], expected, rtol=1e-6)


def test_the_report_shows_the_same_colours(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "difftract_bids.reports.images.fa.colour_fa",
        lambda fa, v1: drawn.append((fa, v1)) or colour_fa(fa, v1),
    )
    shape = (6, 6, 6)
    v1 = np.broadcast_to([0.0, 1.0, 0.0], (*shape, 3))
    plot_fa(np.full(shape, 0.35), v1, np.ones(shape, bool), np.eye(4), tmp_path / "fa.svg")
    ((brightened, _),) = drawn
    np.testing.assert_allclose(brightened, 0.5)
