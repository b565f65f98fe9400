"""The soft connectome: its formula, its limit, its derivatives, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from problems import oblique, scaling, voxel_centres_mm

from difftract_bids.core import assign_ends, connectome
from difftract_bids.core.connectome.sampling import sample_along
from difftract_bids.core.connectome.soft import SoftConnectome
from difftract_bids.core.kernels import soft_sums
from difftract_bids.errors import AtlasError, ConfigError, InputError

SHAPE = (8, 7, 6)
both_ways = pytest.mark.parametrize("reference", [False, True], ids=["kernel", "reference"])


def some_parcellation(share: float = 0.2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, 12, SHAPE, generator=generator) * 100_003
    return labels * (torch.rand(SHAPE, generator=generator) < share)


def some_ends(n: int, seed: int = 1) -> torch.Tensor:
    """Ends in and around the image, (n, 2, 3)."""
    generator = torch.Generator().manual_seed(seed)
    voxel = torch.rand(n * 2, 3, generator=generator, dtype=torch.float64) * 11 - 2
    affine = oblique()
    return (voxel @ affine[:3, :3].T + affine[:3, 3]).reshape(n, 2, 3)


def some_numbers(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, generator=generator, dtype=torch.float64) * 3


def probabilities_by_a_loop(end_mm, parcellation, labels, radius_mm, sigma_mm):
    centres = voxel_centres_mm(SHAPE, oblique()).reshape(-1, 3).numpy()
    flat = parcellation.ravel().numpy()
    squared = ((centres - end_mm) ** 2).sum(1)
    near = (squared < radius_mm**2) & (flat != 0)
    result = np.zeros(len(labels))
    if near.any():
        share = np.exp(-(squared[near] - squared[near].min()) / (2 * sigma_mm**2))
        for voxel, amount in zip(np.flatnonzero(near), share, strict=True):
            result[labels.index(int(flat[voxel]))] += amount / share.sum()
    return result


@both_ways
@pytest.mark.parametrize(("radius_mm", "sigma_mm"), [(4.0, 1.0), (1.5, 0.2), (9.0, 3.0)])
def test_edges_are_sums_of_products_of_probabilities(reference, radius_mm, sigma_mm):
    parcellation, ends, weights = some_parcellation(), some_ends(60), some_numbers(60, 2)
    soft = SoftConnectome(parcellation, oblique(), radius_mm, sigma_mm, reference=reference)
    labels = soft.node_labels.tolist()
    expected = np.zeros((len(labels), len(labels)))
    for (first, last), weight in zip(ends.numpy(), weights.tolist(), strict=True):
        p, q = (
            probabilities_by_a_loop(end, parcellation, labels, radius_mm, sigma_mm)
            for end in (first, last)
        )
        once = weight * np.outer(p, q)
        expected += once + once.T - np.diag(np.diag(once))
    found = soft(ends, weights)
    assert found.dtype == torch.float64
    assert expected.max() > 1
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-13)


@both_ways
def test_probabilities_add_to_one_where_a_label_is_near_and_to_zero_elsewhere(reference):
    parcellation, ends = some_parcellation(0.05), some_ends(300)
    nodes, probability = SoftConnectome(parcellation, oblique(), reference=reference).assign(ends)
    near = assign_ends(ends, parcellation, oblique()) != 0
    assert 0 < int(near.sum()) < near.numel()
    torch.testing.assert_close(probability.sum(2), near.double(), rtol=0, atol=1e-14)
    assert torch.equal((nodes >= 0).any(2), near)
    assert bool((probability[nodes < 0] == 0).all())


def test_assigned_nodes_ascend_and_are_filled_up_with_minus_one():
    nodes, _ = SoftConnectome(some_parcellation(), oblique()).assign(some_ends(100))
    known = nodes >= 0
    assert bool((known[..., 0] | ~known.any(-1)).all())
    assert bool((nodes.diff(dim=2)[known[..., 1:]] > 0).all())
    assert bool(known.any((0, 1)).all())  # no column more than needed


@both_ways
@pytest.mark.parametrize("radius_mm", [2.0, 4.0])
def test_the_limit_of_small_sigma_is_the_hard_connectome(reference, radius_mm):
    parcellation, ends = some_parcellation(), some_ends(1000)
    labels = assign_ends(ends, parcellation, oblique(), radius_mm)
    values, weights = some_numbers(1000, 3), torch.ones(1000)
    soft = SoftConnectome(parcellation, oblique(), radius_mm, 1e-5, reference=reference)
    hard = connectome(labels, soft.node_labels)
    assert int(hard.sum()) > 40
    assert torch.equal(soft(ends), hard)
    means = connectome(labels, soft.node_labels, values)
    torch.testing.assert_close(soft.mean(ends, values, weights), means, rtol=1e-12, atol=0)


@both_ways
def test_an_end_equally_near_to_two_nodes_is_shared_in_the_limit(reference):
    parcellation = torch.zeros(5, 5, 5, dtype=torch.int16)
    parcellation[1, 2, 2], parcellation[3, 2, 2] = 7, 4
    ends = torch.tensor([[[4.0, 4.0, 4.0], [5.5, 4.0, 4.0]]])
    soft = SoftConnectome(parcellation, scaling(2.0), sigma_mm=1e-6, reference=reference)
    assert soft.assign(ends).probabilities.tolist() == [[[0.5, 0.5], [1.0, 0.0]]]
    assert soft(ends).tolist() == [[0.5, 0.5], [0.5, 0.0]]
    through = SoftConnectome(parcellation, scaling(2.0), straight_through=True)
    hard = connectome(assign_ends(ends, parcellation, scaling(2.0)), through.node_labels)
    assert torch.equal(through(ends), hard)


@both_ways
def test_a_centre_at_exactly_the_radius_is_too_far(reference):
    parcellation = torch.zeros(5, 5, 5, dtype=torch.int32)
    parcellation[4, 2, 2] = 7
    ends = torch.tensor([[[4.0, 4.0, 4.0], [4.001, 4.0, 4.0]]])
    soft = SoftConnectome(parcellation, scaling(2.0), reference=reference)
    assert soft.assign(ends).probabilities.tolist() == [[[0.0], [1.0]]]


@both_ways
def test_the_matrix_is_differentiable_in_ends_and_weights(reference):
    soft = SoftConnectome(some_parcellation(), oblique(), reference=reference)
    ends, weights = some_ends(8).requires_grad_(), some_numbers(8, 4).requires_grad_()
    assert float(soft(ends).detach().max()) > 0.3
    assert torch.autograd.gradcheck(soft, (ends, weights))


@both_ways
@pytest.mark.parametrize("through", [False, True], ids=["soft", "straight-through"])
def test_the_mean_is_differentiable_in_values_weights_and_ends(reference, through):
    soft = SoftConnectome(
        some_parcellation(), oblique(), straight_through=through, reference=reference
    )
    ends = some_ends(8).requires_grad_(not through)  # its derivative by ends is no derivative
    given = (ends, some_numbers(8, 4).requires_grad_(), some_numbers(8, 5).requires_grad_())
    exists = soft(given[0]).detach() > 1e-4

    def means(*given):
        return soft.mean(*given)[exists]

    assert int(exists.sum()) > 5
    assert torch.autograd.gradcheck(means, given)


def test_lengths_and_image_means_of_edges_are_differentiable_in_points_and_image():
    soft = SoftConnectome(some_parcellation(), oblique())
    image = some_numbers(math.prod(SHAPE), 13).reshape(SHAPE).requires_grad_()
    ends, offsets = some_ends(6), torch.arange(0, 19, 3)
    middle = ends.mean(1, keepdim=True) + some_numbers(18, 14).reshape(6, 1, 3)
    points = torch.cat([ends[:, :1], middle, ends[:, 1:]], 1).reshape(-1, 3).requires_grad_()
    exists = soft(ends) > 1e-4

    def means(points, image):
        lines = points.reshape(6, 3, 3)
        lengths = torch.linalg.vector_norm(lines.diff(dim=1), dim=2).sum(1)
        values = sample_along(image, oblique(), points, offsets)
        return [soft.mean(lines[:, ::2], numbers)[exists] for numbers in (lengths, values)]

    assert int(exists.sum()) > 5
    assert torch.autograd.gradcheck(means, (points, image))


@both_ways
def test_assigned_probabilities_are_differentiable_in_the_ends(reference):
    soft = SoftConnectome(some_parcellation(), oblique(), reference=reference)
    ends = some_ends(8).requires_grad_()
    assert torch.autograd.gradcheck(lambda ends: soft.assign(ends).probabilities, (ends,))


@pytest.mark.parametrize("through", [False, True], ids=["soft", "straight-through"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_and_reference_agree_in_values_and_gradients(dtype, through):
    parcellation = some_parcellation(0.5)
    results = []
    for reference in (False, True):
        soft = SoftConnectome(
            *(parcellation, oblique(), 5.0, 0.7), straight_through=through, reference=reference
        )
        n = 700  # more than a thread takes at a time
        ends = some_ends(n).to(dtype).requires_grad_()
        weights, values = (some_numbers(n, i).requires_grad_() for i in (6, 7))
        matrix, mean, share = soft(ends, weights), soft.mean(ends, values), soft.assign(ends)
        slopes = some_numbers(matrix.numel(), 8).reshape_as(matrix)  # not symmetric
        loss = (matrix * slopes).sum() + (mean * slopes).sum()
        loss = loss + (share.probabilities**2 * share.nodes).sum()
        gradients = torch.autograd.grad(loss, (ends, weights, values))
        assert gradients[0].dtype == dtype
        results.append((matrix, mean, *share, *gradients))
    for kernel, reference in zip(*results, strict=True):
        rounding = 1e-5 if kernel.dtype == torch.float32 else 1e-11
        assert bool((kernel != 0).any())
        torch.testing.assert_close(kernel, reference, rtol=rounding, atol=rounding)


@both_ways
def test_reordering_or_reversing_streamlines_does_nothing(reference):
    soft = SoftConnectome(some_parcellation(), oblique(), reference=reference)
    ends, weights = some_ends(200), some_numbers(200, 9)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    again = soft(ends[order].flip(1), weights[order])
    torch.testing.assert_close(again, soft(ends, weights), rtol=1e-12, atol=1e-13)


@both_ways
def test_straight_through_has_hard_values_and_soft_derivatives(reference):
    parcellation, ends = some_parcellation(), some_ends(50).requires_grad_()
    weights = some_numbers(50, 10).requires_grad_()
    soft = SoftConnectome(parcellation, oblique())
    hard = SoftConnectome(parcellation, oblique(), straight_through=True, reference=reference)
    labels = assign_ends(ends, parcellation, oblique())
    assert torch.equal(hard(ends), connectome(labels, soft.node_labels))
    # By the product rule: one end's derivative is soft, the other end's value is hard.
    nodes, probability = soft.assign(ends)
    chosen = (soft.node_labels[nodes] == labels[..., None]) & (nodes >= 0)
    size = len(soft.node_labels)
    slopes = some_numbers(size * size, 11).reshape(size, size)
    slopes = slopes + slopes.T
    twice = 2 * slopes - torch.diag(slopes.diagonal())
    loss = torch.zeros((), dtype=torch.float64)
    for end in (0, 1):
        at_edge = twice[nodes[:, end, :, None], nodes[:, 1 - end, None, :]]
        both = probability[:, end, :, None] * chosen[:, 1 - end, None, :]
        loss = loss + (weights.detach() * (at_edge * both).sum((1, 2))).sum()
    (expected,) = torch.autograd.grad(loss, ends, retain_graph=True)
    (found,) = torch.autograd.grad((hard(ends, weights) * slopes).sum(), ends)
    assert float(expected.abs().max()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    hard_nodes, ones = hard.assign(ends)
    assert torch.equal(soft.node_labels[hard_nodes[ones == 1]], labels[labels != 0])
    (by_assign,) = torch.autograd.grad((ones * (1 + hard_nodes)).sum(), ends)
    (by_soft,) = torch.autograd.grad((probability * (1 + nodes)).sum(), ends)
    torch.testing.assert_close(by_assign, by_soft, rtol=1e-10, atol=1e-12)


def test_a_mean_of_one_value_is_that_value_and_zero_where_no_streamline_is():
    soft = SoftConnectome(some_parcellation(), oblique())
    ends = some_ends(12)
    mean, exists = soft.mean(ends, torch.full((12,), 7.5)), soft(ends) > 0
    assert 0 < int(exists.sum()) < exists.numel()
    torch.testing.assert_close(mean, 7.5 * exists.double(), rtol=1e-14, atol=0)


@both_ways
def test_single_precision_ends_give_the_same_matrix(reference):
    ends = some_ends(100).float().requires_grad_()
    soft = SoftConnectome(some_parcellation(), oblique(), reference=reference)
    assert torch.equal(soft(ends), soft(ends.double()))
    assert soft(ends).dtype == torch.float64
    (gradient,) = torch.autograd.grad(soft(ends).square().sum(), ends)
    assert gradient.dtype == torch.float32
    assert float(gradient.abs().max()) > 0
    assert soft.assign(ends).probabilities.dtype == torch.float32


def test_casting_the_module_changes_nothing():
    soft = SoftConnectome(some_parcellation(), oblique())
    expected = soft(some_ends(50))
    assert torch.equal(soft.float().half()(some_ends(50)), expected)


def test_rows_are_in_the_order_of_the_nodes_and_absent_ones_keep_zeros():
    parcellation, ends = some_parcellation(), some_ends(100)
    default = SoftConnectome(parcellation, oblique())
    backwards = torch.cat([default.node_labels.flip(0), torch.tensor([5])])
    given = SoftConnectome(parcellation, oblique(), node_labels=backwards)
    expected = torch.nn.functional.pad(default(ends).flip(0, 1), (0, 1, 0, 1))
    torch.testing.assert_close(given(ends), expected, rtol=1e-13, atol=0)


@both_ways
def test_ends_far_from_the_image_belong_nowhere(reference):
    ends = torch.cat([some_ends(2), torch.full((1, 2, 3), 1e12), torch.full((1, 2, 3), -1e30)])
    soft = SoftConnectome(some_parcellation(), oblique(), reference=reference)
    assert bool((soft.assign(ends).probabilities[2:] == 0).all())
    assert torch.equal(soft(ends), soft(ends[:2]))


@both_ways
def test_an_empty_tractogram_has_zeros_and_a_gradient(reference):
    soft = SoftConnectome(some_parcellation(), oblique(), reference=reference)
    ends = torch.zeros(0, 2, 3, requires_grad=True)
    soft(ends).sum().backward()
    assert ends.grad.shape == (0, 2, 3)
    assert not bool(soft(ends).any())
    assert soft.assign(ends).nodes.shape == (0, 2, 0)


@pytest.mark.parametrize("matrix_bytes", [0, 1 << 30], ids=["little memory", "memory"])
def test_more_threads_give_the_same_but_for_rounding(monkeypatch, matrix_bytes):
    monkeypatch.setattr(soft_sums, "_MATRIX_BYTES", matrix_bytes)
    soft = SoftConnectome(some_parcellation(), oblique())
    ends, weights = some_ends(3000).requires_grad_(), some_numbers(3000, 12)
    results = []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            matrix = soft(ends, weights)
            results.append((matrix, torch.autograd.grad(matrix.square().sum(), ends)[0]))
    finally:
        torch.set_num_threads(1)
    for one, three in zip(*results, strict=True):
        torch.testing.assert_close(three, one, rtol=1e-11, atol=1e-11)


def test_nodes_that_do_not_fit_the_image_are_refused():
    parcellation = some_parcellation()
    labels = SoftConnectome(parcellation, oblique()).node_labels
    with pytest.raises(AtlasError, match=f"2 labels that are no node: {labels[0]}, {labels[1]}"):
        SoftConnectome(parcellation, oblique(), node_labels=labels[2:])
    for bad in ([4, 4], [0, 4], []):
        with pytest.raises(AtlasError, match="differ from each other"):
            SoftConnectome(parcellation, oblique(), node_labels=torch.tensor(bad))
    with pytest.raises(AtlasError, match="no label but 0"):
        SoftConnectome(torch.zeros(3, 3, 3, dtype=torch.int32), oblique())


def test_a_parcellation_that_is_none_is_refused():
    with pytest.raises(InputError, match="integers") as caught:
        SoftConnectome(some_parcellation().float(), oblique())
    assert "round().long()" in caught.value.remedy
    with pytest.raises(InputError, match="three-dimensional"):
        SoftConnectome(some_parcellation()[None], oblique())
    with pytest.raises(InputError, match="affine"):
        SoftConnectome(some_parcellation(), torch.zeros(4, 4))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_sizes_outside_their_range_are_refused(bad):
    with pytest.raises(ConfigError, match="radius"):
        SoftConnectome(some_parcellation(), oblique(), bad)
    with pytest.raises(ConfigError, match="sigma"):
        SoftConnectome(some_parcellation(), oblique(), 4.0, bad)


def test_streamlines_that_cannot_be_used_are_refused():
    soft, ends = SoftConnectome(some_parcellation(), oblique()), some_ends(4)
    with pytest.raises(InputError, match="shape"):
        soft(ends[:, 0])
    with pytest.raises(InputError, match=r"\(3,\) weights for 4"):
        soft(ends, torch.ones(3))
    with pytest.raises(InputError, match="1 of 4 weights"):
        soft(ends, torch.tensor([1.0, 2.0, torch.nan, 1.0]))
    with pytest.raises(InputError, match="values"):
        soft.mean(ends, torch.ones(4, 1))
    ends[2, 1, 0] = torch.inf
    with pytest.raises(InputError, match="1 of 4"):
        soft(ends)


MEMORY = """
    import json, sys
    from pathlib import Path

    import torch
    from difftract_bids.core.connectome.soft import SoftConnectome

    n_nodes, n = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, n_nodes + 1, (60, 60, 60), generator=generator)
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])).double()
    soft = SoftConnectome(labels, affine, radius_mm=3.0)

    def number(field):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

    def run(n):
        ends = torch.rand(n, 2, 3, generator=generator) * 118
        ends.requires_grad_()
        weights = torch.ones(n, requires_grad=True)
        soft(ends, weights).sum().backward()
        return ends

    run(10)  # compiles, or loads what is compiled
    before = number("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    ends = run(n)
    print(json.dumps(dict(over=number("VmHWM") - before, ends=ends.nbytes)))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")
@pytest.mark.parametrize("n_nodes", [116, 5000])
def test_a_million_streamlines_need_no_matrix_of_streamlines_by_nodes(n_nodes, record_property):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEMORY), str(n_nodes), "1000000"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    matrix = n_nodes**2 * 8
    record_property("memory", found)
    # Ends and weights in both precisions and their gradients; matrices forwards and backwards.
    assert found["over"] <= 10 * found["ends"] + 5 * matrix
    assert found["over"] < 1_000_000 * n_nodes * 8
