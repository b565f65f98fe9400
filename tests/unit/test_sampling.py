"""Image values along streamlines, and denser streamlines."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from problems import oblique, scaling, voxel_centres_mm

from difftract_bids.core.connectome import sampling
from difftract_bids.core.connectome.sampling import sample_along, subdivide
from difftract_bids.errors import ConfigError, DerivativeError, InputError

SHAPE = (8, 7, 6)
STATISTICS = ("mean", "median", "min", "max")
both_ways = pytest.mark.parametrize("reference", [False, True], ids=["kernel", "reference"])


def some_image(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 1, SHAPE))


def some_streamlines(n: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Streamlines in and around the image, of 0 to 12 vertices at uneven distances."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 13, n)
    voxel = rng.uniform(-1.5, np.array(SHAPE) + 0.5, (counts.sum(), 3))
    affine = oblique().numpy()
    points = voxel @ affine[:3, :3].T + affine[:3, 3]
    return torch.from_numpy(points), torch.from_numpy(np.r_[0, counts.cumsum()])


def value_by_hand(image: np.ndarray, point: np.ndarray) -> float:
    voxel = np.linalg.solve(oblique().numpy(), np.append(point, 1))[:3]
    if not ((voxel > -0.5) & (voxel < np.array(SHAPE) - 0.5)).all():
        return 0.0
    voxel = np.clip(voxel, 0, np.array(SHAPE) - 1)
    total = 0.0
    for corner in np.ndindex(2, 2, 2):
        index = np.floor(voxel).astype(int) + corner
        weight = np.prod(1 - np.abs(voxel - index))
        total += weight * image[tuple(np.minimum(index, np.array(SHAPE) - 1))]
    return total


def statistic_by_hand(statistic: str, values: np.ndarray, points: np.ndarray) -> float:
    if not len(values):
        return 0.0 if statistic == "mean" else math.nan
    if statistic != "mean":
        return getattr(np, statistic)(values)
    segments = np.linalg.norm(np.diff(points, axis=0), axis=1)
    lengths = (np.r_[0, segments] + np.r_[segments, 0]) / 2
    return (values * lengths).sum() / lengths.sum() if lengths.sum() else 0.0


@both_ways
@pytest.mark.parametrize("statistic", STATISTICS)
def test_statistics_are_those_of_interpolated_values(statistic, reference):
    image, (points, offsets) = some_image(), some_streamlines(80)
    assert {0, 1, 2} <= set(offsets.diff().tolist())
    expected = []
    for start, end in pairwise(offsets):
        vertices = points[start:end].numpy()
        values = np.array([value_by_hand(image.numpy(), vertex) for vertex in vertices])
        expected.append(statistic_by_hand(statistic, values, vertices))
    found = sample_along(image, oblique(), points, offsets, statistic, reference=reference)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-11)
    assert 0.0 in expected  # some streamline has a vertex outside


@both_ways
def test_the_mean_of_a_linear_image_along_a_line_is_its_value_in_the_middle(reference):
    gradient = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    image = voxel_centres_mm(SHAPE, oblique()) @ gradient
    affine = oblique()
    ends = torch.tensor([[1.2, 1.1, 1.3], [6.1, 4.4, 3.9]], dtype=torch.float64)
    ends = ends @ affine[:3, :3].T + affine[:3, 3]
    along = torch.tensor([0, 0.1, 0.15, 0.6, 1], dtype=torch.float64)[:, None]
    points = ends[0] + along * (ends[1] - ends[0])
    (found,) = sample_along(image, affine, points, torch.tensor([0, 5]), reference=reference)
    assert float(found) == pytest.approx(float(ends.mean(0) @ gradient), rel=1e-12)


@both_ways
def test_the_mean_is_differentiable_in_image_and_points(reference):
    points, offsets = some_streamlines(6)
    given = some_image().requires_grad_(), points.requires_grad_()

    def means(image, points):
        return sample_along(image, oblique(), points, offsets, reference=reference)

    assert torch.autograd.gradcheck(means, given)


@both_ways
def test_vertices_on_top_of_each_other_have_finite_gradients(reference):
    affine = scaling(1.0)
    points = torch.tensor([[1.2, 1, 1], [1.2, 1, 1], [3, 2, 2], [2, 2, 2], [2, 2, 2]]).double()
    points.requires_grad_()
    offsets = torch.tensor([0, 3, 5])  # the second is a streamline without length
    found = sample_along(some_image(), affine, points, offsets, reference=reference)
    found.sum().backward()
    assert float(found.detach()[1]) == 0
    assert bool(torch.isfinite(points.grad).all())
    assert bool((points.grad[:3] != 0).any())
    assert not bool(points.grad[3:].any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_kernel_and_reference_agree(monkeypatch, statistic, dtype):
    monkeypatch.setattr(sampling, "_VERTICES_AT_A_TIME", 100)
    points, offsets = some_streamlines(400)
    results = []
    for reference in (False, True):
        image = some_image().to(dtype).requires_grad_(statistic == "mean")
        moved = points.to(dtype).requires_grad_(statistic == "mean")
        found = sample_along(image, oblique(), moved, offsets, statistic, reference=reference)
        assert found.dtype == dtype
        results.append([found])
        if statistic == "mean":
            slopes = torch.linspace(-1, 1, len(found), dtype=dtype)
            results[-1] += torch.autograd.grad((found * slopes).sum(), (image, moved))
    rounding = 2e-5 if dtype == torch.float32 else 1e-11
    for kernel, reference in zip(*results, strict=True):
        torch.testing.assert_close(kernel, reference, rtol=rounding, atol=rounding, equal_nan=True)


@both_ways
def test_values_that_are_not_finite_are_left_out_of_medians_and_extremes(reference):
    image = torch.ones(14, 2, 2)
    image[:, 0, 0] = torch.tensor(
        [3, 0, torch.nan, 0, 1, 0, 2, 0, torch.nan, 0, torch.inf, 0, 0, 0]
    )
    points = torch.tensor([[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]]).T * torch.tensor([[1.0, 0.0, 0.0]])
    offsets = torch.tensor([0, 4, 5, 6])

    def found(statistic):
        result = sample_along(image, scaling(1.0), points, offsets, statistic, reference=reference)
        return [None if math.isnan(value) else value for value in result.tolist()]

    assert found("min") == [1.0, None, None]
    assert found("max") == [3.0, None, None]
    assert found("median") == [2.0, None, None]
    assert found("mean") == [None, 0.0, 0.0]  # those of one vertex have no length


def test_a_mean_that_is_nan_and_not_used_leaves_other_gradients_alone():
    image = some_image()
    image[0, 0, 0] = torch.nan
    image.requires_grad_()
    points = torch.tensor([[0.2, 0.3, 0.1], [1.5, 1, 1], [3.3, 3, 2], [4.1, 3, 3]]).double()
    points.requires_grad_()
    found = sample_along(image, scaling(1.0), points, torch.tensor([0, 2, 4]))
    assert found.isnan().tolist() == [True, False]
    found.nan_to_num().sum().backward()
    assert bool(torch.isfinite(image.grad).all())
    assert not bool(points.grad[:2].any())
    assert bool(points.grad[2:].any(1).all())


@both_ways
def test_in_the_rim_only_the_edge_voxel_counts(reference):
    image = torch.full((3, 3, 3), torch.nan)
    image[0, 0, 0], image[2, 2, 2] = 4.0, 6.0
    points = torch.tensor([[-0.4, -0.3, -0.2], [2.1, 2.3, 2.4]])
    offsets = torch.tensor([0, 1, 2])
    found = sample_along(image, scaling(1.0), points, offsets, "max", reference=reference)
    assert found.tolist() == pytest.approx([4.0, 6.0])


def test_a_float32_mean_is_summed_in_float32_in_the_order_of_the_vertices():
    rng = np.random.default_rng(3)
    points = rng.uniform(1, 4, (3000, 3)).astype(np.float32)
    image = some_image().float()
    offsets = torch.tensor([0, 3000])
    single = np.arange(3001)
    affine = scaling(1.0)
    values = sample_along(image, affine, torch.from_numpy(points), torch.from_numpy(single), "max")
    steps = np.diff(points, axis=0) ** 2
    segments = np.sqrt((steps[:, 0] + steps[:, 1]) + steps[:, 2])
    zero = np.zeros(1, np.float32)
    lengths = (np.append(zero, segments) + np.append(segments, zero)) * np.float32(0.5)
    integral = np.cumsum(values.numpy() * lengths, dtype=np.float32)[-1]
    expected = float(integral / np.cumsum(lengths, dtype=np.float32)[-1])
    (found,) = sample_along(image, affine, torch.from_numpy(points), offsets).tolist()
    (exact,) = sample_along(image, affine, torch.from_numpy(points).double(), offsets).tolist()
    assert abs(found / expected - 1) < 4e-7
    assert abs(exact / expected - 1) > 1e-6  # so the order matters here


def test_more_threads_give_the_same_but_for_rounding():
    points, offsets = some_streamlines(1000)
    results = []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            image = some_image().requires_grad_()
            found = sample_along(image, oblique(), points, offsets)
            results.append((found, torch.autograd.grad(found.sum(), image)[0]))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-12, atol=1e-13)


@both_ways
def test_an_empty_tractogram_has_no_values(reference):
    for statistic in STATISTICS:
        given = some_image(), oblique(), torch.zeros(0, 3), torch.tensor([0]), statistic
        assert sample_along(*given, reference=reference).shape == (0,)


def test_images_of_integers_are_taken_as_numbers():
    image = torch.arange(8).reshape(2, 2, 2).to(torch.int16)
    points, offsets = torch.tensor([[0.5, 0.5, 0.5]]), torch.tensor([0, 1])
    found = sample_along(image, scaling(1.0), points, offsets, "max")
    assert found.dtype == torch.float32
    assert found.tolist() == [3.5]


def test_only_the_mean_has_a_gradient():
    points, offsets = some_streamlines(3)
    points.requires_grad_()
    for statistic in ("median", "min", "max"):
        with pytest.raises(DerivativeError, match=statistic):
            sample_along(some_image(), oblique(), points, offsets, statistic)
        with torch.no_grad():
            sample_along(some_image(), oblique(), points, offsets, statistic)


def test_what_does_not_fit_is_refused():
    image, (points, offsets) = some_image(), some_streamlines(3)
    with pytest.raises(ConfigError, match="sum"):
        sample_along(image, oblique(), points, offsets, "sum")
    with pytest.raises(InputError, match="three-dimensional"):
        sample_along(image[..., None], oblique(), points, offsets)
    with pytest.raises(InputError, match="affine"):
        sample_along(image, torch.zeros(4, 4), points, offsets)
    with pytest.raises(InputError, match="Vertices"):
        sample_along(image, oblique(), points[:, :2], offsets)
    for bad in (offsets[:-1], offsets.flip(0), offsets.double(), offsets[None], offsets[:0]):
        with pytest.raises(InputError, match="offsets"):
            sample_along(image, oblique(), points, bad)
    points[2, 1] = torch.nan
    with pytest.raises(InputError, match="1 of"):
        sample_along(image, oblique(), points, offsets)


def test_subdivided_streamlines_have_short_even_segments_and_keep_their_vertices():
    points, offsets = some_streamlines(30)
    dense, new = subdivide(points, offsets, 0.7)
    assert new[0] == 0
    assert new[-1] == len(dense)
    for line in range(30):
        old, fine = points[offsets[line] : offsets[line + 1]], dense[new[line] : new[line + 1]]
        steps = torch.linalg.vector_norm(fine.diff(dim=0), dim=1)
        assert bool((steps <= 0.7 * (1 + 1e-4)).all())
        at = 0
        for start, end in pairwise(old):
            length = float(torch.linalg.vector_norm(end - start))
            n = math.ceil(length / 0.7)
            along = torch.arange(n + 1, dtype=torch.float64)[:, None] / n
            torch.testing.assert_close(fine[at : at + n + 1], start + along * (end - start))
            at += n
        assert len(fine) == at + min(len(old), 1)


def test_segments_as_long_as_the_step_but_for_rounding_stay_whole():
    points = (torch.arange(100)[:, None] * torch.tensor([[0.1, 0.2, 0.2]])).float()
    dense, offsets = subdivide(points, torch.tensor([0, 100]), 0.3)
    assert torch.equal(dense, points)
    assert offsets.tolist() == [0, 100]


def test_subdividing_is_differentiable():
    points, offsets = some_streamlines(4)
    assert torch.autograd.gradcheck(
        lambda points: subdivide(points, offsets, 1.5)[0], points.requires_grad_()
    )


def test_nothing_to_subdivide_stays_nothing():
    dense, offsets = subdivide(torch.zeros(0, 3), torch.tensor([0, 0]), 1.0)
    assert dense.shape == (0, 3)
    assert offsets.tolist() == [0, 0]


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan, math.inf])
def test_a_step_that_is_none_is_refused(step):
    with pytest.raises(ConfigError, match="step"):
        subdivide(*some_streamlines(2), step)
