"""Spherical deconvolution: its gradients, beside and at the kinks."""

import numpy as np
import pytest
import torch
from signals import multi_shell, single_shell

from difftract_bids.core.deconvolution import (
    CSD,
    MSMTCSD,
    csd,
    msmt_csd,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*super-resolved:UserWarning")


def test_many_voxels_at_once_and_one_at_a_time_agree_in_values_and_gradients():
    dwi, bvecs, shell, responses, _ = multi_shell(16, noise=0.03)
    values, gradients = [], []
    for reference in (False, True):
        signal = dwi.clone().requires_grad_()
        found = torch.cat(msmt_csd(signal, bvecs, shell, responses, reference=reference), dim=1)
        found.square().sum().backward()
        values.append(found.detach())
        gradients.append(signal.grad)
    torch.testing.assert_close(*values, atol=1e-6, rtol=1e-6)
    apart = (gradients[0] - gradients[1]).norm(dim=1) / gradients[0].norm(dim=1)
    assert apart.median() < 1e-6


@pytest.mark.parametrize("reference", [False, True])
def test_single_shell_gradients_pass_gradcheck(reference):
    signal, bvecs, response = single_shell(3, 20, noise=0.02)
    inputs = [x.clone().requires_grad_() for x in (signal.clamp_min(1e-3), bvecs, response)]

    def fodf(dwi, vectors_, zonal_):
        return csd(dwi, vectors_, zonal_, lmax=6, reference=reference)

    assert torch.autograd.gradcheck(fodf, inputs, eps=1e-7, atol=1e-5, rtol=1e-4)


def test_multi_tissue_gradients_pass_gradcheck():
    dwi, bvecs, shell, responses, _ = multi_shell(2, lmax=4, noise=0.1)
    weighted = bvecs.norm(dim=1) > 0
    free = [x.clone().requires_grad_() for x in (dwi.clamp_min(1e-3), bvecs[weighted])]
    zonals = [x.clone().requires_grad_() for x in responses]

    def tissues(dwi_, weighted_bvecs, *responses_):
        whole = torch.zeros_like(bvecs).index_put((weighted,), weighted_bvecs)
        return msmt_csd(dwi_, whole, shell, responses_)

    assert torch.autograd.gradcheck(
        tissues, [*free, *zonals], eps=1e-7, atol=1e-5, rtol=1e-3, nondet_tol=1e-8
    )


def test_gradients_by_b_vectors_agree_with_finite_differences_of_a_turned_table():
    """Turning all b-vectors turns the fODF: the derivative is known without the layer's own."""
    signal, bvecs, response = single_shell(5)
    turn = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 45, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def loss(angles):
        x, y, z = angles
        zero = torch.zeros((), dtype=torch.float64)
        generator = torch.stack([
            torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])
        ])  # fmt: skip
        return (
            csd(signal, bvecs @ torch.linalg.matrix_exp(generator).T, response) * weights
        ).sum()

    loss(turn).backward()
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-6
        difference = (loss(step) - loss(-step)).detach() / 2e-6
        assert float(turn.grad[axis]) == pytest.approx(float(difference), rel=1e-5, abs=1e-6)


def test_at_a_kink_the_gradient_is_that_of_one_side():
    """Along a line of signals the active set changes; beside the kink both sides are exact."""
    signal, bvecs, response = single_shell(2, noise=0.05)
    line = torch.linspace(0, 1, 201, dtype=torch.float64)

    def along(t):
        return csd((1 - t) * signal[:1] + t * signal[1:], bvecs, response)[0, 20]

    slopes = []
    for t in line:
        at = t.clone().requires_grad_()
        along(at).backward()
        slopes.append(float(at.grad))
    values = [float(along(t)) for t in line]
    secants = np.diff(values) / np.diff(line.numpy())
    low, high = np.minimum(slopes[:-1], slopes[1:]), np.maximum(slopes[:-1], slopes[1:])
    jumps = np.abs(np.diff(slopes)) > 1e-9
    assert jumps.sum() > 3  # there are kinks on the way
    assert np.isfinite(slopes).all()
    # Between two points without a kink the function is a line, with the slope of both.
    np.testing.assert_allclose(secants[~jumps], low[~jumps], rtol=1e-6, atol=1e-8)
    assert (secants[jumps] > low[jumps] - 0.05 * (high - low)[jumps].max() - 1e-6).mean() > 0.9


def test_negative_signals_count_as_zero_and_have_no_gradient():
    signal, bvecs, response = single_shell(4)
    signal[:, 7] = -0.2
    dwi = signal.clone().requires_grad_()
    found = csd(dwi, bvecs, response)
    found.square().sum().backward()
    torch.testing.assert_close(found.detach(), csd(signal.clamp_min(0), bvecs, response))
    assert not dwi.grad[:, 7].any()
    assert (dwi.grad != 0).eq(signal > 0).all()


def test_voxels_that_cannot_be_fitted_are_zero_and_have_no_gradient():
    signal, bvecs, response = single_shell(6)
    signal[0, 3], signal[1, 5], signal[2], signal[3] = torch.nan, torch.inf, 0.0, -1.0
    dwi = signal.clone().requires_grad_()
    mask = torch.tensor([True] * 5 + [False])
    found = csd(dwi, bvecs, response, mask=mask)
    assert found.isfinite().all()
    assert not found[[0, 1, 2, 3, 5]].any()
    assert found[4].any()
    found.sum().backward()
    assert dwi.grad.isfinite().all()
    assert not dwi.grad[[0, 1, 2, 3, 5]].any()


def test_modules_learn_their_response_and_b_vectors():
    signal, bvecs, response = single_shell(4)
    module = CSD(bvecs, response, learn_response=True, learn_bvecs=True)
    module(signal.view(2, 2, 1, -1)).square().sum().backward()
    assert module.response.grad.abs().min() > 0
    assert module.bvecs.grad.abs().max() > 0
    assert not [p for p in CSD(bvecs, response).parameters() if p.requires_grad]
    dwi, vectors_, shell, responses, _ = multi_shell(4)
    tissues = MSMTCSD(vectors_, shell, responses, learn_responses=True)
    sum(part.sum() for part in tissues(dwi)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tissues.responses)
    restored = MSMTCSD(vectors_, shell, [2 * r for r in responses])
    restored.load_state_dict(tissues.state_dict())
    torch.testing.assert_close(restored(dwi)[0], tissues(dwi)[0].detach())
