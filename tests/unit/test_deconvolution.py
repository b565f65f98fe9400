"""Spherical deconvolution: its solution against plain NumPy, its gradient, and hard input."""

import math

import numpy as np
import pytest
import torch
from acquisitions import directions, scheme
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from difftract_bids.core.deconvolution import (
    CSD,
    MSMTCSD,
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

CYLINDER, FLUID, GREY = (1.7e-3, 0.3e-3), 3.0e-3, 0.8e-3
BVALS = (0.0, 700.0, 1200.0, 2800.0)


def zonal(bval, lmax=8, scale=1.0):
    """Project a cylinder's signal onto zonal harmonics, by quadrature."""
    cosine, weight = np.polynomial.legendre.leggauss(64)
    signal = scale * np.exp(-bval * (CYLINDER[1] + (CYLINDER[0] - CYLINDER[1]) * cosine**2))
    return torch.tensor([
        2 * np.pi * math.sqrt((2 * degree + 1) / (4 * np.pi))
        * (weight * signal * np.polynomial.legendre.Legendre.basis(degree)(cosine)).sum()
        for degree in range(0, lmax + 1, 2)
    ])  # fmt: skip


def fibre_signal(bvals, bvecs, fibres, scale=1.0):
    across, along = CYLINDER[1], CYLINDER[0]
    cosine2 = (torch.as_tensor(fibres) @ bvecs.T) ** 2
    return scale * torch.exp(-bvals * (across + (along - across) * cosine2))


def vectors(n):
    return torch.from_numpy(directions(n))


def random_fibres(n, seed=0):
    found = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return found / found.norm(dim=1, keepdim=True)


def single_shell(n_voxels=12, n_directions=45, noise=0.03, seed=0):
    """Crossings with noise, some of it pure: as many negative lobes as real data have."""
    bvecs = vectors(n_directions)
    bvals = torch.full((n_directions,), 2000.0, dtype=torch.float64)
    first, second = (fibre_signal(bvals, bvecs, random_fibres(n_voxels, s)) for s in (1, 2))
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(first.shape, generator=generator, dtype=torch.float64)
    return 0.6 * first + 0.4 * second + noise * spread, bvecs, zonal(2000.0)


def multi_shell(n_voxels=8, noise=0.01, lmax=8, n_directions=24):
    table = scheme(*((b, n_directions) for b in BVALS[1:]), n_b0=4)
    bvecs, bvals = torch.from_numpy(table.bvecs), torch.from_numpy(table.bvals_s_mm2)
    shell = torch.tensor([BVALS.index(b) for b in table.bvals_s_mm2])
    share = torch.rand(
        n_voxels, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    share /= share.sum(dim=1, keepdim=True)
    fibre = fibre_signal(bvals, bvecs, random_fibres(n_voxels))
    dwi = share[:, :1] * fibre + share[:, 1:2] * 1.2 * torch.exp(-bvals * GREY)
    dwi = dwi + share[:, 2:] * 3 * torch.exp(-bvals * FLUID)
    spread = torch.randn(dwi.shape, generator=torch.Generator().manual_seed(4), dtype=dwi.dtype)
    root = math.sqrt(4 * math.pi)
    responses = [
        torch.stack(
            [zonal(b, lmax) * torch.tensor([1.0] + [float(b > 0)] * (lmax // 2)) for b in BVALS]
        ),
        torch.tensor([[1.2 * root * math.exp(-b * GREY)] for b in BVALS], dtype=torch.float64),
        torch.tensor([[3 * root * math.exp(-b * FLUID)] for b in BVALS], dtype=torch.float64),
    ]
    return (dwi + noise * spread).clamp_min(0), bvecs, shell, responses, share


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
