"""What a network starts from: deconvolution of the same volumes, by a response for all scans."""

from __future__ import annotations

import math
from dataclasses import replace

import networks
import pytest
import torch
import training_scans
from torch.autograd import gradcheck

from difftract_bids.core.deconvolution import csd
from difftract_bids.core.sh import n_coefficients
from difftract_bids.errors import InputError
from difftract_bids.io.gradients import deconvolution_shell
from difftract_bids.learn.acquisition import Acquisition
from difftract_bids.learn.architectures import DEFAULT_ARCHITECTURE
from difftract_bids.learn.making import make_network, settings_of
from difftract_bids.learn.network import FODFNetwork
from difftract_bids.learn.network_settings import NetworkSettings
from difftract_bids.learn.starting_point import common_response, deconvolved_sh
from difftract_bids.phantom.schemes import make_scheme

RESPONSE = (0.9, -0.5, 0.2)
TABLE = make_scheme([1000.0], 20, 2)


def scan(participant: str, **settings):
    return training_scans.simulated_scan(participant, **settings)


def relative(dwi: torch.Tensor) -> torch.Tensor:
    b0 = torch.from_numpy(TABLE.b0_mask)
    return dwi / dwi[..., b0].mean(-1, keepdim=True)


def test_it_is_csd_of_the_signal_relative_to_b0_whatever_the_gain():
    dwi = networks.signal(table=TABLE, dtype=torch.float64)
    found = deconvolved_sh(dwi, TABLE, None, RESPONSE, bval_s_mm2=1000.0, lmax=4)
    expected = csd(
        relative(dwi),
        torch.from_numpy(TABLE.bvecs),
        torch.tensor(RESPONSE, dtype=torch.float64),
        lmax=4,
        volumes=torch.from_numpy(~TABLE.b0_mask),
    )
    torch.testing.assert_close(found, expected)
    gains = 1 + torch.rand(dwi.shape[:3], dtype=torch.float64)[..., None]
    torch.testing.assert_close(
        deconvolved_sh(gains * dwi, TABLE, None, RESPONSE, bval_s_mm2=1000.0, lmax=4), expected
    )


def test_the_shell_is_that_of_training_whatever_a_scan_has():
    """By its own directions, this scan would be deconvolved at its other shell."""
    table = make_scheme([1000.0, 2500.0], 20, 2)
    trained = replace(Acquisition.of(table, networks.affine()), n_directions=(20, 12))
    assert trained.deconvolved_s_mm2 == pytest.approx(1000)
    assert deconvolution_shell(table)[0] == pytest.approx(2500)
    settings = NetworkSettings(DEFAULT_ARCHITECTURE, trained, 2, 4, {}, RESPONSE)
    dwi = networks.signal(table=table)
    found = FODFNetwork(settings).predict(dwi, table, networks.affine())
    expected = deconvolved_sh(dwi, table, None, RESPONSE, bval_s_mm2=1000.0, lmax=4)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(
        found, deconvolved_sh(dwi, table, None, RESPONSE, bval_s_mm2=2500.0, lmax=4), atol=1e-2
    )


def test_it_is_zero_outside_the_mask_and_differentiable_inside():
    dwi = networks.signal((3, 2, 2), TABLE, dtype=torch.float64) / 1000
    mask = torch.ones(3, 2, 2, dtype=torch.bool)
    mask[0] = False
    found = deconvolved_sh(dwi, TABLE, mask, RESPONSE, bval_s_mm2=1000.0, lmax=4)
    assert not found[~mask].any()
    assert found[mask].any(-1).all()
    some = torch.zeros(3, 2, 2, dtype=torch.bool)
    some[1, 1] = True
    assert gradcheck(
        lambda x: deconvolved_sh(x, TABLE, some, RESPONSE, bval_s_mm2=1000.0, lmax=4),
        dwi.requires_grad_(),
        atol=1e-6,
    )


def test_the_response_is_that_of_the_group_whatever_the_gain_of_a_scanner():
    scans = [scan(label) for label in ("01", "02", "03")]
    found = common_response(scans, 4)
    assert found[0] > 0
    assert found[1] < 0  # less signal along the fibre than across it
    assert len(found) >= 3
    brighter = [
        replace(one, dwi=gain * one.dwi) for one, gain in zip(scans, (1, 7, 0.2), strict=True)
    ]
    assert common_response(brighter, 4) == pytest.approx(found, rel=1e-4)
    # Its mean is that of the signal of some voxels: those that look like one fibre.
    one = scans[0]
    means = relative(one.dwi)[one.mask][:, torch.from_numpy(~TABLE.b0_mask)].mean(1)
    assert means.min() < found[0] / math.sqrt(4 * math.pi) < means.max()


def test_a_scan_without_a_response_is_named():
    empty = scan("07")
    empty = replace(empty, dwi=torch.zeros_like(empty.dwi))
    with pytest.raises(InputError, match="sub-07") as caught:
        common_response([scan("01"), empty], 4)
    assert "deconvolve" in caught.value.remedy


def test_a_new_network_gives_what_deconvolution_gives():
    scans = [scan("01"), scan("02")]
    config = training_scans.quick_config()
    settings = settings_of(scans, config, None, [])
    network = make_network(settings, config, None)
    one = scans[0]
    found = network.predict(one.dwi, one.gradients, one.vox2ras, one.mask)
    expected = deconvolved_sh(
        one.dwi, one.gradients, one.mask, settings.response, bval_s_mm2=1000.0, lmax=4
    )
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_a_tile_is_deconvolved_as_the_whole_is():
    scans = [scan("01")]
    config = training_scans.quick_config()
    network = make_network(settings_of(scans, config, None, []), config, None)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    one = scans[0]
    given = one.dwi, one.gradients, one.vox2ras, one.mask
    torch.testing.assert_close(
        network.predict(*given, tile=6), network.predict(*given), atol=1e-5, rtol=1e-4
    )


def test_without_it_the_network_is_given_the_signal_alone():
    scans = [scan("01")]
    config = training_scans.quick_config(network={"deconvolve": False})
    settings = settings_of(scans, config, None, [])
    assert settings.response is None
    assert settings.in_channels == n_coefficients(4)
    one = scans[0]
    network = FODFNetwork(settings)
    assert not network.predict(one.dwi, one.gradients, one.vox2ras, one.mask).any()


@pytest.mark.parametrize("response", ["x", [], [0.0, 1.0], [float("nan")], [1.0, None], {"a": 1}])
def test_a_damaged_response_is_refused(response):
    values = networks.settings().to_dict() | {"response": response}
    with pytest.raises(InputError, match="response"):
        NetworkSettings.from_dict(values)


def test_a_response_is_kept_with_the_settings_and_need_not_be_there():
    settings = replace(networks.settings(), response=RESPONSE)
    assert NetworkSettings.from_dict(settings.to_dict()) == settings
    assert settings.input_lmaxes == (4, 4)
    older = networks.settings().to_dict()
    del older["response"]
    assert NetworkSettings.from_dict(older) == networks.settings()
