"""The field of principal tensor directions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from acquisitions import scheme
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from problems import circles, oblique, scaling, voxel_centres_mm

from difftract_bids.config import TrackingConfig
from difftract_bids.core import StopReason
from difftract_bids.core.field import TensorField
from difftract_bids.core.field.tensor import fractional_anisotropy
from difftract_bids.core.propagate import track_field
from difftract_bids.errors import GradientError, InputError

TABLE = scheme((700, 10), (1500, 15))
BVECS, BVALS = torch.from_numpy(TABLE.bvecs), torch.from_numpy(TABLE.bvals_s_mm2)
SHAPE = (5, 5, 4)
X, Y = torch.eye(3, dtype=torch.float64)[:2]
ALONG, ACROSS = 1.5e-3, 0.4e-3  # mm²/s


def as_components(matrices: torch.Tensor) -> torch.Tensor:
    """Symmetric matrices (..., 3, 3) as xx, xy, xz, yy, yz, zz."""
    row, column = torch.triu_indices(3, 3)
    return matrices[..., row, column]


def prolate(direction: torch.Tensor) -> torch.Tensor:
    """Tensors of cylindrical symmetry along unit vectors, as matrices, mm²/s."""
    outer = direction[..., :, None] * direction[..., None, :]
    return ACROSS * torch.eye(3, dtype=torch.float64) + (ALONG - ACROSS) * outer


def signals(matrices: torch.Tensor, s0: float = 700.0) -> torch.Tensor:
    decay = BVALS * torch.einsum("vi,...ij,vj->...v", BVECS, matrices, BVECS)
    return s0 * torch.exp(-decay)


def bent_bundle(affine: torch.Tensor) -> torch.Tensor:
    """Tensors along circles, different in each voxel."""
    position = voxel_centres_mm(SHAPE, affine)
    middle = position.reshape(-1, 3).mean(0)
    direction = circles((float(middle[0]) - 15, float(middle[1]), 0.0))(position)
    direction = direction + torch.tensor([0.0, 0.0, 3.0])
    return prolate(direction / direction.norm(dim=-1, keepdim=True))


def field_of_dwi(dwi: torch.Tensor, affine: torch.Tensor, **options) -> TensorField:
    return TensorField.from_dwi(dwi, affine, BVECS, BVALS, **options)


def one_voxel(matrix: torch.Tensor, **options) -> TensorField:
    image = as_components(matrix).expand(1, 1, 1, 6)
    return TensorField.from_tensors(image, scaling(2.0), **options)


def columns(*rows: torch.Tensor) -> torch.Tensor:
    return torch.stack(rows).T


ORIGIN = torch.zeros(3, 1, dtype=torch.float64)


@pytest.mark.parametrize("affine", [scaling(2.0), oblique()], ids=["isotropic", "oblique"])
def test_noise_free_signals_give_the_tensors_back_at_voxel_centres(affine):
    tensors = bent_bundle(affine)
    field = field_of_dwi(signals(tensors), affine)
    centres = voxel_centres_mm(SHAPE, affine).reshape(-1, 3).T
    found = field.tensors_at(field.grid.to_voxel(centres))
    expected = as_components(tensors).reshape(-1, 6).T
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)


def test_directions_are_principal_and_take_the_sense_of_the_start():
    affine = oblique()
    tensors = bent_bundle(affine)
    centres = voxel_centres_mm(SHAPE, affine).reshape(-1, 3).T
    expected = torch.linalg.eigh(tensors.reshape(-1, 3, 3)).eigenvectors[:, :, 2].T
    for field in (
        field_of_dwi(signals(tensors), affine),
        TensorField.from_tensors(as_components(tensors), affine),
    ):
        for sense in (1.0, -1.0):
            start = sense * Y[:, None].expand(3, centres.shape[1])
            direction, reason = field.heading(centres, start)
            assert (reason == 0).all()
            assert ((direction * start).sum(0) > 0).all()
            cosine = (direction * expected).sum(0).abs()
            torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_tensors_fitted_by_dipy_have_the_same_directions_and_anisotropy():
    generator = torch.Generator().manual_seed(0)
    dwi = signals(bent_bundle(scaling(2.0)))
    dwi = dwi + 20 * torch.randn(dwi.shape, generator=generator, dtype=dwi.dtype)
    table = gradient_table(TABLE.bvals_s_mm2, bvecs=TABLE.bvecs, b0_threshold=50)
    theirs = TensorModel(table, fit_method="OLS").fit(dwi.numpy())
    field = field_of_dwi(dwi, scaling(2.0))
    centres = voxel_centres_mm(SHAPE, scaling(2.0)).reshape(-1, 3).T
    start = torch.from_numpy(theirs.evecs[..., 0].reshape(-1, 3)).T
    direction = field.heading(centres, start).direction
    torch.testing.assert_close(direction, start, rtol=0, atol=1e-8)
    fa = fractional_anisotropy(field.tensors_at(field.grid.to_voxel(centres)))
    np.testing.assert_allclose(fa, theirs.fa.ravel(), rtol=1e-8)


def test_signals_are_interpolated_before_the_fit_and_given_tensors_as_they_are():
    pair = torch.stack([prolate(X), prolate(Y)])
    half_way = torch.tensor([[0.5], [0.0], [0.0]], dtype=torch.float64)
    given_tensors = TensorField.from_tensors(
        as_components(pair).reshape(2, 1, 1, 6), scaling(1.0)
    ).tensors_at(half_way)[:, 0]
    torch.testing.assert_close(given_tensors, as_components(pair.mean(0)))
    fitted = field_of_dwi(signals(pair).reshape(2, 1, 1, -1), scaling(1.0)).tensors_at(half_way)
    mean_signal = signals(pair).mean(0).expand(1, 1, 1, -1)
    expected = field_of_dwi(mean_signal, scaling(1.0)).tensors_at(0 * half_way)
    torch.testing.assert_close(fitted, expected)
    assert (fitted[:, 0] - given_tensors).norm() > 0.1 * given_tensors.norm()


@given(st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_directions_turn_with_the_tensor(entries, seed):
    matrix = torch.tensor(entries, dtype=torch.float64).reshape(3, 3)
    matrix = matrix @ matrix.T + torch.diag(torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64))
    values = torch.linalg.eigvalsh(matrix)
    assume(values[2] - values[1] > 1e-3)
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    before = one_voxel(matrix).heading(ORIGIN, columns(X)).direction
    turned = one_voxel(rotation @ matrix @ rotation.T)
    after = turned.heading(ORIGIN, rotation @ before).direction
    torch.testing.assert_close(after, rotation @ before, rtol=0, atol=1e-9)


def test_anisotropy_of_a_cylindrical_tensor_has_a_formula():
    expected = (ALONG - ACROSS) / math.sqrt(ALONG**2 + 2 * ACROSS**2)
    tensors = torch.stack([as_components(prolate(X)), as_components(7 * prolate(Y))])
    found = fractional_anisotropy(tensors.T)
    assert found.tolist() == pytest.approx([expected] * 2)
    nothing = fractional_anisotropy(torch.zeros(6, 1, dtype=torch.float64))
    assert nothing.tolist() == [0.0]


def test_reasons_tell_outside_from_below_the_cutoff():
    tensors = as_components(prolate(X.expand(4, 1, 1, 3)))
    tensors[2] = 0.0
    tensors[3] = as_components(torch.eye(3, dtype=torch.float64))
    field = TensorField.from_tensors(tensors, scaling(1.0), cutoff=0.3)
    x = torch.tensor([0.0, -0.49, -0.51, 1.9, 3.0, 9.0], dtype=torch.float64)
    position = torch.stack([x, 0 * x, 0 * x])
    direction, reason = field.heading(position, X[:, None].expand(3, 6))
    outside = StopReason.OUTSIDE_IMAGE
    assert reason.tolist() == [0, 0, outside, outside, StopReason.BELOW_CUTOFF, outside]
    assert torch.isfinite(direction).all()


def test_the_cutoff_is_one_of_anisotropy():
    fa = float(fractional_anisotropy(as_components(prolate(X))[:, None]))
    for cutoff, reason in ((fa - 1e-9, 0), (fa + 1e-9, StopReason.BELOW_CUTOFF)):
        field = one_voxel(prolate(X), cutoff=cutoff)
        assert field.heading(ORIGIN, columns(X)).reason.tolist() == [reason]


def test_there_is_nothing_to_follow_where_no_eigenvalue_is_the_largest():
    field = one_voxel(torch.eye(3, dtype=torch.float64), cutoff=0.0)
    direction, reason = field.heading(ORIGIN, columns(Y))
    assert reason.tolist() == [StopReason.BELOW_CUTOFF]
    assert torch.equal(direction[:, 0], Y)


def test_vectors_matter_only_where_there_is_diffusion_weighting():
    dwi = signals(prolate(X)).expand(1, 1, 1, -1)
    holes = torch.where(BVALS[:, None] > 0, BVECS, torch.nan)
    found = TensorField.from_dwi(dwi, scaling(2.0), holes, BVALS).tensors_at(ORIGIN)
    torch.testing.assert_close(found[:, 0], as_components(prolate(X)))


def test_signals_that_are_not_positive_count_as_one():
    dwi = signals(prolate(X)).expand(1, 1, 1, -1).clone()
    mended = dwi.clone()
    dwi[..., 4], dwi[..., 9] = -3.0, 0.0
    mended[..., [4, 9]] = 1.0
    affine = scaling(2.0)
    found, expected = (field_of_dwi(d, affine).tensors_at(ORIGIN) for d in (dwi, mended))
    torch.testing.assert_close(found, expected)
    dwi.requires_grad_()
    field_of_dwi(dwi, affine).heading(ORIGIN, columns(X)).direction.sum().backward()
    assert torch.isfinite(dwi.grad).all()


@pytest.mark.parametrize(
    "eigenvalues", [(2.0, 2.0, 1.0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (2.0, 1.0, 1.0)]
)
def test_equal_eigenvalues_give_finite_directions_and_gradients(eigenvalues):
    tensor = as_components(torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)))
    image = tensor.repeat(2, 2, 2, 1).requires_grad_()
    position = torch.full((3, 1), 0.4, dtype=torch.float64, requires_grad=True)
    field = TensorField.from_tensors(image, scaling(1.0), cutoff=0.0)
    direction, _ = field.heading(position, columns(X))
    assert float(direction.detach().norm()) == pytest.approx(1.0)
    direction.sum().backward()
    assert torch.isfinite(image.grad).all()
    assert torch.isfinite(position.grad).all()


def test_gradcheck_of_directions_by_signals_tensors_and_positions():
    affine = oblique()
    tensors = bent_bundle(affine)[:2, :2, :2]
    generator = torch.Generator().manual_seed(1)
    voxel = torch.rand(3, 3, generator=generator, dtype=torch.float64)
    position = (affine[:3, :3] @ voxel + affine[:3, 3:]).requires_grad_()
    start = Y[:, None].expand(3, 3)
    given_tensors = (1e3 * as_components(tensors)).requires_grad_()
    dwi = signals(tensors, s0=1.0).requires_grad_()

    def by_tensors(image: torch.Tensor, position_mm: torch.Tensor) -> torch.Tensor:
        return TensorField.from_tensors(image, affine).heading(position_mm, start).direction

    def by_signals(image: torch.Tensor, position_mm: torch.Tensor) -> torch.Tensor:
        return field_of_dwi(image, affine).heading(position_mm, start).direction

    assert torch.autograd.gradcheck(by_tensors, (given_tensors, position), rtol=1e-5)
    assert torch.autograd.gradcheck(by_signals, (dwi, position), rtol=1e-5)


@pytest.mark.parametrize("integrator", ["euler", "midpoint", "rk4", "rk4_classic"])
def test_gradcheck_of_whole_streamlines_by_signals_and_seeds(integrator):
    affine = oblique()
    dwi = signals(bent_bundle(affine), s0=1.0).requires_grad_()
    centre = voxel_centres_mm(SHAPE, affine).reshape(-1, 3).mean(0)
    offsets = torch.tensor([[0.13, 0.21, -0.17], [-1.3, 0.8, -0.6]], dtype=torch.float64)
    seeds = (centre + offsets).requires_grad_()
    config = TrackingConfig(
        integrator=integrator, step_size_mm=1.3, min_length_mm=2.6, max_length_mm=30.0
    )

    def points(image: torch.Tensor, seeds_mm: torch.Tensor) -> torch.Tensor:
        return track_field(field_of_dwi(image, affine), seeds_mm, Y.expand(2, 3), config).points

    assert len(points(dwi, seeds)) > 10
    # fast_mode compares random projections of the Jacobian, not each of its entries.
    assert torch.autograd.gradcheck(points, (dwi, seeds), fast_mode=True)
    assert torch.autograd.gradcheck(lambda s: points(dwi.detach(), s), (seeds,), fast_mode=True)


def test_streamlines_of_a_bent_bundle_stay_on_their_circles():
    affine, shape = scaling(1.0, (-2.0, -11.0, -1.0)), (15, 23, 3)
    direction = circles((0.0, 0.0, 0.0))(voxel_centres_mm(shape, affine))
    direction = direction / direction.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    field = TensorField.from_tensors(as_components(prolate(direction)), affine, cutoff=0.2)
    seed = torch.tensor([[9.0, 0.0, 0.0]], dtype=torch.float64)
    config = TrackingConfig(
        integrator="rk4", step_size_mm=0.2, min_length_mm=0.0, max_length_mm=20.0
    )
    result = track_field(field, seed, Y[None], config)
    assert len(result[0]) > 90
    radius = result[0][:, :2].norm(dim=1)
    torch.testing.assert_close(radius, torch.full_like(radius, 9.0), rtol=0, atol=0.03)


def test_float32_images_give_float32_directions_of_the_same_tensors():
    affine = oblique()
    dwi = signals(bent_bundle(affine))
    centres = voxel_centres_mm(SHAPE, affine).reshape(-1, 3).T
    start = Y[:, None].expand(3, centres.shape[1])
    double = field_of_dwi(dwi, affine).heading(centres, start)
    single = field_of_dwi(dwi.float(), affine).heading(centres.float(), start.float())
    assert single.direction.dtype == torch.float32
    torch.testing.assert_close(single.direction.double(), double.direction, rtol=0, atol=1e-5)


def test_results_do_not_depend_on_how_many_positions_are_asked_at_once():
    affine = oblique()
    field = field_of_dwi(signals(bent_bundle(affine)).float(), affine)
    centres = voxel_centres_mm(SHAPE, affine).reshape(-1, 3).T.float() + 0.3
    start = Y.float()[:, None].expand(3, centres.shape[1])
    whole = field.heading(centres, start).direction
    for size in (1, 7):
        pairs = zip(centres.split(size, 1), start.split(size, 1), strict=True)
        parts = [field.heading(*pair).direction for pair in pairs]
        assert torch.equal(torch.cat(parts, dim=1), whole)


def test_gradients_reach_the_image_through_the_fields_parameters():
    dwi = signals(prolate(X)).expand(2, 2, 2, -1).clone().requires_grad_()
    (table,) = field_of_dwi(dwi, scaling(2.0)).parameters()
    table.sum().backward()
    assert (dwi.grad == 1).all()


@pytest.mark.parametrize(
    ("bvecs", "bvals", "message"),
    [
        (BVECS[:-1], BVALS, "28 volumes"),
        (BVECS, torch.zeros_like(BVALS), "no diffusion weighting"),
        (BVECS * torch.nan, BVALS, "not finite"),
        (torch.where(BVALS[:, None] > 0, BVECS, X), 0 * BVALS + 1000.0, "6 of the 7"),
        (BVECS * torch.tensor([1.0, 1.0, 0.0]), BVALS, "4 of the 7"),
    ],
)
def test_gradient_tables_that_determine_no_tensor_are_refused(bvecs, bvals, message):
    with pytest.raises(GradientError, match=message):
        TensorField.from_dwi(torch.ones(2, 2, 2, 28), scaling(2.0), bvecs, bvals)


@pytest.mark.parametrize(
    ("image", "affine", "message"),
    [
        (torch.zeros(2, 2, 6), scaling(2.0), "shape"),
        (torch.zeros(0, 2, 2, 6), scaling(2.0), "shape"),
        (torch.zeros(2, 2, 2, 7), scaling(2.0), "7 components"),
        (torch.zeros(2, 2, 2, 6).int(), scaling(2.0), "int32"),
        (torch.full((2, 2, 2, 6), torch.inf), scaling(2.0), "8 of 8 voxels"),
        (torch.zeros(2, 2, 2, 6), torch.zeros(4, 4), "invertible"),
    ],
)
def test_images_that_hold_no_tensors_are_refused(image, affine, message):
    with pytest.raises(InputError, match=message):
        TensorField.from_tensors(image, affine)
