"""Spherical deconvolution: its solution against plain NumPy, its gradient, and hard input."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from signals import fibre_signal, multi_shell, random_fibres, single_shell, vectors, zonal

from difftract_bids.core.deconvolution import (
    CSD,
    CSDOptions,
    constraint_directions,
    csd,
    directions_from_angles,
    msmt_csd,
)
from difftract_bids.core.deconvolution.active_set import nonnegative_multipliers
from difftract_bids.core.deconvolution.checks import flat_volumes
from difftract_bids.core.deconvolution.convolution import convolution_matrix
from difftract_bids.core.kernels.solvers import NonnegativeKernel
from difftract_bids.core.sh import sh_basis
from difftract_bids.errors import ConfigError, GradientError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*super-resolved:UserWarning")


def plain_csd(signal, bvecs, response, lmax=8):
    """Tournier 2007 in NumPy, a voxel at a time, from no start: the penalty's own fixed point."""
    matrix = convolution_matrix(bvecs, response.expand(len(bvecs), -1), lmax).numpy()
    sphere = sh_basis(constraint_directions(), lmax).numpy()
    weighed = 50 * float(response[0]) / len(sphere) * sphere
    normal = matrix.T @ matrix
    normal = normal + 2e-4 * normal[0, 0] * np.eye(len(normal))
    found = []
    for one in signal.clamp_min(0).numpy():
        x, last = np.linalg.solve(normal, matrix.T @ one), None
        for _ in range(200):
            negative = sphere @ x < 0
            if last is not None and (negative == last).all():
                break
            rows = weighed[negative]
            x, last = np.linalg.solve(normal + rows.T @ rows, matrix.T @ one), negative
        found.append(x)
    return torch.from_numpy(np.array(found))


def test_single_shell_solutions_are_the_fixed_points_of_a_plain_loop():
    signal, bvecs, response = single_shell(40)
    expected = plain_csd(signal, bvecs, response)
    for reference in (False, True):
        found = csd(signal, bvecs, response, reference=reference)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_a_voxel_whose_signal_is_the_response_has_an_fodf_of_integral_one():
    bvecs, response = vectors(64), zonal(2000.0)
    fibre = random_fibres(1)
    coeffs = csd(fibre_signal(2000.0, bvecs, fibre), bvecs, response)
    assert float(coeffs[0, 0]) * math.sqrt(4 * math.pi) == pytest.approx(1, abs=0.02)
    peak = constraint_directions()[(sh_basis(constraint_directions(), 8) @ coeffs[0]).argmax()]
    assert abs(float(peak @ fibre[0])) > math.cos(math.radians(6))


def test_multi_tissue_solutions_satisfy_the_optimality_conditions():
    dwi, bvecs, shell, responses, _ = multi_shell()
    found = torch.cat(msmt_csd(dwi, bvecs, shell, responses), dim=1)
    matrix = torch.cat([
        convolution_matrix(bvecs, response[shell], 2 * (response.shape[1] - 1))
        for response in responses
    ], dim=1)  # fmt: skip
    sphere = sh_basis(constraint_directions(), 8)
    rows = torch.block_diag(sphere, *[torch.full((1, 1), float(sphere[0, 0]))] * 2)
    slope = (found @ matrix.T - dwi) @ matrix
    scale = (dwi @ matrix).norm(dim=1)
    # MRtrix's ridge on the constraints, kept for the same solution, lets them give by this much.
    assert (found @ rows.T).min() > -3e-5
    for x, gradient, size in zip(found, slope, scale, strict=True):
        active = rows[(rows @ x) < 1e-4]
        # The gradient is a sum of the active constraints' normals, none with a negative weight.
        _, rest = nnls(active.T.numpy(), gradient.numpy())
        assert rest < 1e-6 * float(size)


def test_positive_fodfs_and_volume_fractions_come_back_without_noise():
    _, bvecs, shell, responses, share = multi_shell()
    sphere = vectors(2000)
    lobes = torch.exp(4 * (random_fibres(8) @ sphere.T) ** 2 - 3)
    white = torch.linalg.lstsq(sh_basis(sphere, 8), lobes.T).solution.T
    white = share[:, :1] * white / white[:, :1]
    tissues = [white, share[:, 1:2], share[:, 2:]]
    assert (white @ sh_basis(constraint_directions(), 8).T).min() > 0
    dwi = sum(
        tissue @ convolution_matrix(bvecs, response[shell], lmax).T
        for tissue, response, lmax in zip(tissues, responses, (8, 0, 0), strict=True)
    )
    for found, truth in zip(msmt_csd(dwi, bvecs, shell, responses), tissues, strict=True):
        torch.testing.assert_close(found[:, :15], truth[:, :15], atol=1e-4, rtol=0)
        # These data say little of degree 8, and the ridge of 1e-10 begins to count.
        torch.testing.assert_close(found, truth, atol=3e-3, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(5, 40), st.integers(0, 1000))
def test_projections_onto_a_cone_satisfy_moreau_s_conditions(n, n_constraints, seed):
    """What is taken off a point is orthogonal to what is left, and in the polar cone."""
    generator = torch.Generator().manual_seed(seed)
    normals = torch.randn(n_constraints, n, generator=generator, dtype=torch.float64)
    normals = normals / normals.norm(dim=1, keepdim=True)
    points = torch.randn(3, n, generator=generator, dtype=torch.float64)
    for multipliers in (
        nonnegative_multipliers(points @ normals.T, normals @ normals.T, 1e-10, n),
        NonnegativeKernel((normals @ normals.T).numpy(), 1e-10, n).solve(
            (points @ normals.T).numpy()
        ),
    ):
        taken = torch.as_tensor(multipliers)
        nearest = points + taken @ normals
        assert (nearest @ normals.T).min() > -1e-6
        assert taken.min() >= 0
        assert ((points - nearest) * nearest).sum(dim=1).abs().max() < 1e-6


def test_results_do_not_depend_on_chunks_threads_or_shape(monkeypatch):
    dwi, bvecs, shell, responses, _ = multi_shell(300)
    signal, vectors_, response = single_shell(300)
    whole = msmt_csd(dwi, bvecs, shell, responses)[0], csd(signal, vectors_, response)
    threads = torch.get_num_threads()
    monkeypatch.setattr("difftract_bids.core.deconvolution.layer.CHUNK_VOXELS", 37)
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            grid = dwi.view(10, 5, 6, -1)
            part = msmt_csd(grid, bvecs, shell, responses)[0], csd(signal, vectors_, response)
            # BLAS orders its sums by the shape of the chunk: equal to rounding.
            torch.testing.assert_close(part[0].view(300, -1), whole[0], rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(part[1], whole[1], rtol=1e-9, atol=1e-12)
    finally:
        torch.set_num_threads(threads)


def test_images_are_taken_as_they_lie_in_memory():
    """NIfTI has its first axis fastest; no copy of the image is made, and results are the same."""
    signal, bvecs, response = single_shell(24)
    grid = signal.view(2, 3, 4, -1)
    mask = torch.arange(24).view(2, 3, 4) % 5 != 0
    expected = csd(grid, bvecs, response, mask=mask)
    for order in ((3, 2, 1, 0), (1, 3, 0, 2), (3, 0, 1, 2)):
        stored = grid.permute(order).contiguous().requires_grad_()
        turned = stored.permute(tuple(order.index(axis) for axis in range(4)))
        found = csd(turned, bvecs, response, mask=mask)
        torch.testing.assert_close(found, expected)
        found.square().sum().backward()
        assert (
            (stored.grad.permute(tuple(order.index(a) for a in range(4))).abs().sum(3) > 0)
            .eq(mask)
            .all()
        )
    series = flat_volumes(torch.empty(45, 4, 3, 2).permute(3, 2, 1, 0), 45, None)
    assert series.dwi.stride() == (1, 24)
    one = csd(signal[0], bvecs, response)  # a single voxel has no grid
    torch.testing.assert_close(one, csd(signal[:1], bvecs, response)[0])


def test_float32_images_give_float32_fodfs_computed_in_float64():
    signal, bvecs, response = single_shell(5)
    single = signal.float().requires_grad_()
    found = csd(single, bvecs, response)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.detach(), csd(single.detach().double(), bvecs, response).float()
    )
    found.sum().backward()
    assert single.grad.dtype == torch.float32


def test_the_options_of_mrtrix_change_what_they_say():
    signal, bvecs, response = single_shell(6)
    sphere = sh_basis(constraint_directions(), 8)
    plain = (csd(signal, bvecs, response) @ sphere.T).min()
    strict = CSDOptions(neg_lambda=30.0)
    assert (csd(signal, bvecs, response, options=strict) @ sphere.T).min() > plain / 3
    small = csd(signal, bvecs, response, options=CSDOptions(norm_lambda=1e4))
    assert small.norm() < 0.5 * csd(signal, bvecs, response).norm()
    few = csd(signal, bvecs, response, options=CSDOptions(max_iterations=1))
    reference = csd(signal, bvecs, response, options=CSDOptions(max_iterations=1), reference=True)
    torch.testing.assert_close(few, reference)
    assert not torch.allclose(few, csd(signal, bvecs, response))


def test_constraint_directions_are_even_unit_axes_that_mrtrix_can_read():
    sphere = constraint_directions()
    assert sphere.shape == (300, 3)
    torch.testing.assert_close(sphere.norm(dim=1), torch.ones(300, dtype=torch.float64))
    cosine = (sphere @ sphere.T).abs() - 2 * torch.eye(300, dtype=torch.float64)
    nearest = torch.rad2deg(torch.arccos(cosine.amax(dim=1)))
    assert nearest.min() > 7.9  # 300 axes cannot all be more than 9.6 degrees apart
    poles = directions_from_angles(torch.tensor([[0.3, 0.0], [math.pi / 2, math.pi / 2]]))
    torch.testing.assert_close(poles, torch.tensor([[0.0, 0, 1], [0, 1, 0]]), atol=1e-6, rtol=0)


def test_other_directions_can_be_given():
    signal, bvecs, response = single_shell(6)
    found = csd(signal, bvecs, response, directions=vectors(200))
    both = torch.cat([vectors(200), vectors(200)])
    assert not torch.allclose(found, csd(signal, bvecs, response))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(csd(signal, bvecs, response, directions=both), found)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"lmax": 3}, ConfigError, "lmax is 3"),
        ({"lmax": 14}, ConfigError, "lmax is 14"),
        ({"lmax": 0}, ConfigError, "lmax is 0"),
        ({"response": torch.tensor([-1.0, 0.1])}, InputError, "mean signals down to -1"),
        ({"response": torch.tensor([1.0, torch.nan])}, InputError, "1 coefficients that are not"),
        ({"bvecs": torch.zeros(45, 3)}, GradientError, "45 of 45"),
        ({"bvecs": torch.zeros(45, 2)}, GradientError, r"\(45, 2\)"),
        ({"bvecs": vectors(44)}, InputError, "has 44 volumes"),
        ({"dwi": torch.ones(4, 45, dtype=torch.int32)}, InputError, "int32"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, InputError, r"mask has the shape \(3,\)"),
        ({"volumes": torch.arange(45) < 5}, GradientError, "5 directions are too few"),
    ],
)
def test_unusable_single_shell_input_is_named(change, error, says):
    signal, bvecs, response = single_shell(4)
    given_ = {"dwi": signal, "bvecs": bvecs, "response": response} | change
    with pytest.raises(error, match=says):
        csd(given_.pop("dwi"), given_.pop("bvecs"), given_.pop("response"), **given_)


def test_unusable_multi_tissue_input_is_named():
    dwi, bvecs, shell, responses, _ = multi_shell(4)
    with pytest.raises(InputError, match="tissue 2 has 3 rows; the data have 4"):
        msmt_csd(dwi, bvecs, shell, [responses[0], responses[1][:3], responses[2]])
    one = shell.clamp_max(1)
    with pytest.raises(GradientError, match="2 b-values, b=0 included, cannot tell 3"):
        msmt_csd(dwi, bvecs, one, [r[:2] for r in responses])
    with pytest.raises(ConfigError, match="2 degrees for 3 tissues"):
        msmt_csd(dwi, bvecs, shell, responses, lmax=[8, 0])
    with pytest.raises(ConfigError, match="lmax is 5"):
        msmt_csd(dwi, bvecs, shell, responses, lmax=[5, 0, 0])
    with pytest.raises(InputError, match="75 shell numbers for 76"):
        msmt_csd(dwi, bvecs, shell[1:], responses)


def test_fewer_directions_than_coefficients_are_warned_of():
    signal, bvecs, response = single_shell(2, 32)
    with pytest.warns(UserWarning, match="32 directions for 45 coefficients"):
        csd(signal, bvecs, response)
    with pytest.warns(UserWarning, match="super-resolved"):
        CSD(bvecs, response)(signal)
    dwi, bvecs, shell, responses, _ = multi_shell(2, n_directions=12)
    with pytest.warns(UserWarning, match="36 directions for 45 coefficients"):
        msmt_csd(dwi, bvecs, shell, responses)
