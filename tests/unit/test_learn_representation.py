"""What a network sees of a scan, and which scans a model takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from acquisitions import scheme
from networks import affine, stored_otherwise

from difftract_bids.core.sh import sh_basis
from difftract_bids.errors import InputError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.learn.acquisition import Acquisition
from difftract_bids.learn.representation import signal_sh

TWO_SHELLS = scheme((1000.0, 30), (3000.0, 60))


def known(table: GradientTable, lmax=4, gain=700.0, shape=(2, 3, 2)):
    """Make a signal of known coefficients, between 0 and 1 relative to b=0."""
    generator = torch.Generator().manual_seed(0)
    n_shells = len(table.shells()) - 1
    n_coeff = sh_basis(torch.eye(3), lmax).shape[1]
    sh = 0.05 * torch.randn(*shape, n_shells, n_coeff, generator=generator, dtype=torch.float64)
    sh[..., 0] = 1.5
    dwi = torch.ones(*shape, len(table.bvals_s_mm2), dtype=torch.float64)
    for i, (_, volumes) in enumerate(table.shell_volumes()[1:]):
        basis = sh_basis(torch.from_numpy(table.bvecs[volumes]), lmax)
        dwi[..., torch.from_numpy(volumes)] = sh[..., i, :] @ basis.T
    return gain * dwi, sh.flatten(-2)


def test_each_shell_of_a_known_signal_is_recovered():
    dwi, expected = known(TWO_SHELLS)
    found = signal_sh(dwi, TWO_SHELLS, None, 4)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(signal_sh(3 * dwi, TWO_SHELLS, None, 4), expected)
    assert signal_sh(dwi.float(), TWO_SHELLS, None, 4).dtype == torch.float32


def test_volumes_may_be_in_any_order():
    dwi, expected = known(TWO_SHELLS)
    order = np.random.default_rng(0).permutation(dwi.shape[3])
    table = GradientTable(TWO_SHELLS.bvals_s_mm2[order], TWO_SHELLS.bvecs[order])
    torch.testing.assert_close(signal_sh(dwi[..., order], table, None, 4), expected)


def test_fifteen_directions_hold_back_the_highest_degree_a_little_and_noise_much():
    table = scheme((1000.0, 15))
    dwi, expected = known(table)
    found = signal_sh(dwi, table, None, 4)
    assert (found - expected).abs().max() < 0.06
    noise = 7.0 * torch.randn(dwi.shape, generator=torch.Generator().manual_seed(1))
    error = (signal_sh(dwi + noise, table, None, 4) - found).std()
    assert error < 0.1  # 1% of noise; a plain fit of 15 by 15 may amplify it without bound


def test_mask_and_damaged_voxels_are_zero_and_leave_the_others_alone():
    dwi, expected = known(TWO_SHELLS)
    b0 = torch.from_numpy(TWO_SHELLS.b0_mask)
    dwi[0, 0, 0, b0] = 0
    dwi[0, 1, 0, 7] = torch.nan
    dwi[0, 2, 0, b0] = 1e-9  # air: the ratio is bounded
    mask = torch.ones(dwi.shape[:3], dtype=torch.bool)
    mask[1, 0] = False
    dwi.requires_grad_()
    found = signal_sh(dwi, TWO_SHELLS, mask, 4)
    assert not found[0, :2, 0].any()
    assert not found[1, 0].any()
    assert found[0, 2, 0].abs().max() < 50
    torch.testing.assert_close(found[1, 1:], expected[1, 1:])
    (slope,) = torch.autograd.grad(found.square().sum(), dwi)
    assert slope.isfinite().all()


def test_the_representation_is_differentiable_in_the_signal():
    table = scheme((1000.0, 8), n_b0=2)
    dwi = 100 + 50 * torch.rand(
        1, 1, 2, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    assert torch.autograd.gradcheck(
        lambda x: signal_sh(x, table, None, 2), dwi.requires_grad_(), eps=1e-3
    )


def test_the_mean_over_directions_alone_can_be_asked_for():
    dwi, expected = known(TWO_SHELLS)
    found = signal_sh(dwi, TWO_SHELLS, None, 0)
    assert found.shape[-1] == 2
    torch.testing.assert_close(found, expected[..., [0, 15]], atol=0.02, rtol=0)


def test_tables_that_do_not_fit_are_refused():
    dwi, _ = known(TWO_SHELLS)
    with pytest.raises(InputError, match="92 volumes, the gradient table 93"):
        signal_sh(dwi[..., 1:], TWO_SHELLS, None, 4)
    only = GradientTable(TWO_SHELLS.bvals_s_mm2[3:], TWO_SHELLS.bvecs[3:])
    with pytest.raises(InputError, match="0 of 90 volumes are b=0"):
        signal_sh(dwi[..., 3:], only, None, 4)


def test_an_acquisition_says_what_a_scan_is_whatever_its_storage_order():
    found = Acquisition.of(TWO_SHELLS, affine((1.0, 2.0, 3.0)))
    assert found.shells_s_mm2 == (1000.0, 3000.0)
    assert found.n_directions == (30, 60)
    assert found.n_b0 == 3
    assert found.signal_lmax == 6
    _, other = stored_otherwise(
        torch.zeros(2, 2, 2), affine((1.0, 2.0, 3.0)), (2, 0, 1), (True, False, True)
    )
    assert Acquisition.of(TWO_SHELLS, other) == found
    assert Acquisition.from_dict(found.to_dict()) == found
    assert not found.check(found)


def test_other_directions_and_voxel_sizes_are_told_of():
    model = Acquisition.of(TWO_SHELLS, affine((2.0, 2.0, 2.0)))
    met = Acquisition.of(scheme((1040.0, 30), (2900.0, 45)), affine((2.0, 2.0, 2.5)))
    notes = model.check(met)
    assert len(notes) == 2
    assert "60 directions at b=3000, this scan has 45" in notes[0]
    assert "2 x 2 x 2.5 mm" in notes[1]
    assert not model.check(Acquisition.of(TWO_SHELLS, affine((2.1, 2.0, 1.9))))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (scheme((1000.0, 30)), "b=1000, 3000 s/mm², the scan has b=1000"),
        (scheme((1000.0, 30), (2000.0, 60)), "the scan has b=1000, 2000"),
        (scheme((1000.0, 30), (2000.0, 9), (3000.0, 60)), "the scan has b=1000, 2000, 3000"),
        (scheme((1000.0, 20), (3000.0, 60)), "20, 60 directions"),
        (scheme((1000.0, 30), (3000.0, 60), n_b0=0), "no b=0"),
    ],
)
def test_scans_that_a_model_cannot_take_are_refused(table, said):
    model = Acquisition.of(TWO_SHELLS, affine())
    with pytest.raises(InputError, match=said) as found:
        model.check(Acquisition.of(table, affine()))
    assert found.value.remedy


@pytest.mark.parametrize(
    "damage",
    [
        {"n_b0": None},
        {"n_directions": [30]},
        {"voxel_size_mm": [1.0, 2.0]},
        {"shells_s_mm2": ["much", "more"]},
        {"shells_s_mm2": [], "n_directions": []},
        {"shells_s_mm2": [-1000.0, 3000.0]},
    ],
)
def test_a_damaged_description_is_refused(damage):
    values = Acquisition.of(TWO_SHELLS, affine()).to_dict()
    with pytest.raises(InputError, match="damaged"):
        Acquisition.from_dict(values | damage)


def test_fewer_directions_are_enough_for_a_model_of_a_lower_degree():
    model = Acquisition.of(scheme((1000.0, 60)), affine())
    met = replace(model, n_directions=(20,))
    with pytest.raises(InputError, match="20 directions"):
        model.check(met)
    assert model.check(met, signal_lmax=4)
