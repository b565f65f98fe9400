"""Standard deviations of edges, against the derivative of the whole chain written out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from chain import part_of_a_head
from tracking_cases import crossing_case

from difftract_bids.config import TrackingConfig
from difftract_bids.core.connectome.soft import SoftConnectome
from difftract_bids.core.field import FodfField
from difftract_bids.core.kernels import Job, backend_for
from difftract_bids.core.kernels.groups import pull_back_groups
from difftract_bids.core.propagate import track_field, unit_starts
from difftract_bids.core.regions import Regions, compile_regions
from difftract_bids.core.rules import TrackingRules
from difftract_bids.core.uncertainty import edge_standard_deviations, standard_errors, variances
from difftract_bids.core.uncertainty.memberships import find_memberships
from difftract_bids.core.voxelwise import VoxelwiseFit
from difftract_bids.errors import InputError

SOFTNESS = [None, 0.03]
N_SEEDS = 60


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return part_of_a_head(tmp_path_factory.mktemp("chain") / "raw")


def model_of(chain, softness=None):
    """Make the chain with blocks of voxels for nodes, so that every end is near to some."""
    model = chain.model(softness=softness)
    i, j, k = (x // 3 for x in torch.meshgrid(*map(torch.arange, chain.mask.shape), indexing="ij"))
    blocks = 1 + i + 5 * j + 25 * k
    model.tracking.connectome = SoftConnectome(blocks, chain.vox2ras, 9.0, 3.0)
    return model


@pytest.fixture(scope="module", params=SOFTNESS, ids=["hard", "soft survival"])
def scene(request, chain):
    return scene_of(chain, request.param)


@pytest.fixture(scope="module")
def soft_scene(chain):
    return scene_of(chain, SOFTNESS[1])


def scene_of(chain, softness):
    """Gather what standard deviations come from; the noise is another in each voxel."""
    model = model_of(chain, softness)
    generator = torch.Generator().manual_seed(0)
    sigma = 30 * torch.rand(chain.mask.shape, generator=generator, dtype=torch.float64)
    return SimpleNamespace(
        chain=chain,
        model=model,
        fit=chain.fit(model),
        seeds=chain.seeds(N_SEEDS),
        sigma=sigma,
    )


def errors_of(scene, sigma=None, **settings):
    return edge_standard_deviations(
        scene.model.tracking,
        scene.fit,
        *scene.seeds,
        scene.sigma if sigma is None else sigma,
        scene.chain.mask,
        **({"least": 0.0} | settings),
    )


def test_they_are_those_of_the_chain_differentiated_edge_by_edge(scene):
    # The rows of voxels without an fODF and of the first voxel are not to be mixed up.
    assert scene.chain.mask[0, 0, 0]
    assert not scene.chain.mask.all()
    found = errors_of(scene)
    dwi = scene.chain.dwi.clone().requires_grad_()
    matrix = scene.model(dwi, *scene.seeds, scene.chain.mask)
    torch.testing.assert_close(found.count, matrix.detach(), rtol=1e-12, atol=1e-12)
    edges = torch.nonzero(matrix.triu() > 0.05).tolist()
    n_moved = 0
    for a, b in edges[:: max(1, len(edges) // 12)]:
        (slope,) = torch.autograd.grad(matrix[a, b], dwi, retain_graph=True)
        expected = float(((slope * scene.sigma[..., None]) ** 2).sum().sqrt())
        assert float(found.sd[a, b]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        n_moved += expected > 1e-3
    assert n_moved >= 8


def test_they_are_symmetric_and_zero_where_there_is_no_streamline(scene):
    found = errors_of(scene)
    assert torch.equal(found.sd, found.sd.T)
    assert torch.equal(found.count, found.count.T)
    assert not found.sd[found.count == 0].any()
    assert (found.sd > 1e-3).sum() > 50
    assert torch.isfinite(found.sd).all()


def test_no_noise_moves_nothing_and_twice_the_noise_moves_twice(soft_scene):
    once = errors_of(soft_scene).sd
    assert not errors_of(soft_scene, torch.zeros_like(soft_scene.sigma)).sd.any()
    twice = errors_of(soft_scene, 2 * soft_scene.sigma).sd
    torch.testing.assert_close(twice, 2 * once, rtol=1e-12, atol=0)


def test_noise_of_separate_places_adds_up_by_squares(soft_scene):
    half = torch.zeros_like(soft_scene.sigma)
    half[:, : half.shape[1] // 2] = 1
    parts = [errors_of(soft_scene, soft_scene.sigma * part).sd for part in (half, 1 - half)]
    assert all((part > 1e-3).any() for part in parts)
    whole = errors_of(soft_scene).sd
    torch.testing.assert_close(parts[0].hypot(parts[1]), whole, rtol=1e-10, atol=1e-13)


def test_voxels_outside_the_mask_have_no_part(soft_scene):
    loud = torch.where(soft_scene.chain.mask, soft_scene.sigma, 1e6)
    assert torch.equal(errors_of(soft_scene, loud).sd, errors_of(soft_scene).sd)


SPLITS = {
    "no memory": ({"memory_mb": 0.0}, {}),
    "little memory": ({"memory_mb": 0.05}, {}),
    "members": ({}, {(standard_errors, "_MEMBERS_AT_ONCE"): 3}),
    "members, no memory": ({"memory_mb": 0.0}, {(standard_errors, "_MEMBERS_AT_ONCE"): 3}),
    "voxels": ({}, {(variances, "_VOXELS_AT_ONCE"): 13}),
    "pairs": ({}, {(variances, "_PAIRS_AT_ONCE"): 5}),
}


@pytest.mark.parametrize(("settings", "sizes"), SPLITS.values(), ids=SPLITS.keys())
def test_what_is_in_memory_together_changes_nothing(soft_scene, settings, sizes, monkeypatch):
    few = few_seeds(soft_scene)
    whole = errors_of(few)
    for (module, name), size in sizes.items():
        monkeypatch.setattr(module, name, size)
    found = errors_of(few, **settings)
    torch.testing.assert_close(found.sd, whole.sd, rtol=1e-10, atol=1e-13)
    assert torch.equal(found.count, whole.count)


def few_seeds(scene, n=30):
    given = vars(scene) | {"seeds": tuple(x[:n] for x in scene.seeds)}
    return SimpleNamespace(**given)


def test_an_edge_does_come_in_several_parts(soft_scene, monkeypatch):
    monkeypatch.setattr(standard_errors, "_MEMBERS_AT_ONCE", 3)
    edges = []
    add = variances.VarianceSum.add
    monkeypatch.setattr(
        variances.VarianceSum, "add", lambda own, part: (edges.append(part.edge), add(own, part))
    )
    errors_of(few_seeds(soft_scene))
    following = pairwise(edges)
    assert sum(int(one[-1]) == int(other[0]) for one, other in following) > 0


def test_threads_and_chunks_of_seeds_change_nothing(soft_scene):
    few, tracking = few_seeds(soft_scene), soft_scene.model.tracking
    whole = errors_of(few)
    before, per_chunk = torch.get_num_threads(), tracking.seeds_per_chunk
    try:
        torch.set_num_threads(2)
        torch.testing.assert_close(errors_of(few).sd, whole.sd, rtol=1e-12, atol=1e-15)
        tracking.seeds_per_chunk = 7
        torch.testing.assert_close(errors_of(few).sd, whole.sd, rtol=1e-10, atol=1e-13)
    finally:
        torch.set_num_threads(before)
        tracking.seeds_per_chunk = per_chunk


def test_leaving_small_shares_out_changes_little_and_never_adds_an_edge(soft_scene):
    whole, fewer = errors_of(soft_scene), errors_of(soft_scene, least=1e-4)
    assert torch.equal(whole.count, fewer.count)
    assert float((whole.sd - fewer.sd).abs().max()) < 1e-2 * float(whole.sd.max())
    assert not torch.equal(whole.sd, fewer.sd)
    assert not fewer.sd[whole.sd == 0].any()
    assert not errors_of(soft_scene, least=1.0).sd.any()


def test_a_factor_on_the_fodf_is_held_fixed(soft_scene):
    scale = 1 + 0.5 * torch.linspace(0, 1, len(soft_scene.fit.fodf)).double()[:, None, None, None]
    fit = replace(soft_scene.fit, fodf=soft_scene.fit.fodf * scale)
    found = errors_of(SimpleNamespace(**(vars(soft_scene) | {"fit": fit})))
    dwi = soft_scene.chain.dwi.clone().requires_grad_()
    model, mask = soft_scene.model, soft_scene.chain.mask
    matrix = model.tracking(model.fodf(dwi, mask) * scale, *soft_scene.seeds, mask)
    a, b = divmod(int(found.sd.triu().argmax()), len(matrix))
    (slope,) = torch.autograd.grad(matrix[a, b], dwi)
    expected = float(((slope * soft_scene.sigma[..., None]) ** 2).sum().sqrt())
    assert float(found.sd[a, b]) == pytest.approx(expected, rel=1e-9)


def test_single_precision_gives_nearly_the_same(soft_scene):
    double = errors_of(soft_scene)
    fit = soft_scene.fit
    single = VoxelwiseFit(fit.deconvolution, fit.dwi.float(), fit.fodf.float())
    found = errors_of(SimpleNamespace(**(vars(soft_scene) | {"fit": single})))
    assert found.sd.dtype == found.count.dtype == torch.float64
    # A streamline at the very edge of a decision may go another way.
    apart = (found.sd - double.sd).abs() / double.sd.max()
    assert float((apart < 1e-3).double().mean()) > 0.99


@pytest.mark.parametrize("seeds_mm", [torch.zeros(0, 3), torch.full((4, 3), 1e4)])
def test_without_streamlines_nothing_moves(soft_scene, seeds_mm):
    seeds = seeds_mm.double(), torch.ones_like(seeds_mm).double()
    found = errors_of(SimpleNamespace(**(vars(soft_scene) | {"seeds": seeds})))
    assert not found.count.any()
    assert not found.sd.any()
    assert found.sd.shape == (len(soft_scene.model.tracking.connectome.node_labels),) * 2


@pytest.mark.parametrize("value", [-1.0, torch.nan, torch.inf])
def test_a_noise_level_that_cannot_be_is_refused(soft_scene, value):
    sigma = soft_scene.sigma.clone()
    sigma[0, 1, 2] = value
    with pytest.raises(InputError, match="1 values of it negative or not finite") as caught:
        errors_of(soft_scene, sigma)
    assert caught.value.remedy


def test_a_noise_level_of_another_image_is_refused(soft_scene):
    with pytest.raises(InputError, match=r"shape .*the image is"):
        errors_of(soft_scene, soft_scene.sigma[1:])


def test_data_on_another_device_are_refused(soft_scene):
    fit = replace(soft_scene.fit, dwi=soft_scene.fit.dwi.to("meta"))
    with pytest.raises(InputError, match="processor") as caught:
        errors_of(SimpleNamespace(**(vars(soft_scene) | {"fit": fit})))
    assert "cpu" in caught.value.remedy


def test_a_covariance_is_that_of_the_jacobian(soft_scene):
    fit = soft_scene.fit
    voxel = torch.nonzero(soft_scene.chain.mask.flatten()).squeeze(1)[::200]
    signal = fit.dwi.flatten(0, 2)[voxel]
    jacobians = [
        torch.autograd.functional.jacobian(lambda s: fit.deconvolution(s[None], None)[0][0], one)
        for one in signal
    ]
    expected = torch.stack([jacobian @ jacobian.T for jacobian in jacobians])
    torch.testing.assert_close(fit.covariance(voxel), expected, rtol=1e-9, atol=1e-18)


def test_memberships_add_up_to_the_connectome_and_its_derivative():
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (6, 5, 4), generator=generator)
    net = SoftConnectome(labels, torch.eye(4), 2.5, 1.0)
    extent = torch.tensor([5.0, 4.0, 3.0], dtype=torch.float64)
    ends = torch.rand(40, 2, 3, generator=generator, dtype=torch.float64) * extent
    found = find_memberships(net, ends, 0.0)
    assert (found.edge.diff() >= 0).all()
    n_nodes = len(net.node_labels)
    upper = torch.zeros(n_nodes**2, dtype=torch.float64).index_add(0, found.edge, found.shares)
    torch.testing.assert_close(upper.reshape(n_nodes, n_nodes), net(ends).triu())
    leaf = ends.clone().requires_grad_()
    matrix = net(leaf)
    for a, b in ((0, 0), (0, 2), (1, 2)):
        mine = found.edge == a * n_nodes + b
        total = torch.zeros_like(ends).index_add(0, found.streamline[mine], found.cotangents[mine])
        (slope,) = torch.autograd.grad(matrix[a, b], leaf, retain_graph=True)
        assert slope.abs().max() > 0.01
        torch.testing.assert_close(total, slope, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_group_is_pulled_back_as_all_of_its_streamlines_are_together(dtype):
    case = crossing_case(60).to(dtype)
    config = TrackingConfig(min_length_mm=1.0, max_length_mm=20.0).resolve(2.0)
    field = FodfField.from_fodf(
        case.fodf, case.vox2ras, cutoff=config.cutoff, peak_tolerance=config.peak_tolerance
    )
    lines = track_field(field, case.seeds, case.starts, config)
    rules = TrackingRules.from_config(config, field.grid.voxel_size_mm, stop_at_includes=False)
    bits = compile_regions(Regions(), field.device)
    job = Job(field.lmax, field.row, field.grid.ras2vox, rules, bits)
    along = lines.points, lines.offsets, lines.seed_vertex
    starts = unit_starts(case.starts[lines.seed_index])
    generator = torch.Generator().manual_seed(1)

    def some(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    # One of a single streamline, one without any, and one with a streamline twice.
    sizes = torch.tensor([1, 0, 9, 12])
    members = torch.randint(0, len(lines), (int(sizes.sum()),), generator=generator)
    members[2] = members[1]
    by_ends, shares = some(len(members), 2, 3), some(len(members))
    survival = some(len(lines.points)) / 10
    survival[lines.offsets[:-1]] = survival[lines.offsets[1:] - 1] = 0
    groups = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    found = pull_back_groups(
        job, field.table, *along, starts, members, by_ends, shares, survival, groups
    )
    assert len(found) == len(sizes)
    backend = backend_for(field.table)
    for rows, first, beyond in zip(found, groups[:-1], groups[1:], strict=True):
        to_points, share = torch.zeros_like(lines.points), shares.new_zeros(len(lines))
        for i in range(int(first), int(beyond)):
            to_points[lines.offsets[members[i]]] += by_ends[i, 0]
            to_points[lines.offsets[members[i] + 1] - 1] += by_ends[i, 1]
            share[members[i]] += shares[i]
        by_amplitude = share.repeat_interleave(lines.n_vertices()) * survival
        expected, more = backend.pull_back_amplitudes(
            job, field.table, *along[:2], by_amplitude.contiguous()
        )
        expected = (
            expected + backend.pull_back(job, field.table, *along, starts, to_points + more).table
        )
        dense = torch.zeros_like(expected)
        dense[torch.from_numpy(rows.row)] = torch.from_numpy(rows.value)
        scale = float(expected.abs().max())
        torch.testing.assert_close(
            dense, expected, rtol=0, atol=scale * (1e-11 if dtype == torch.float64 else 1e-4)
        )
        assert (rows.value != 0).any(axis=1).all()
        assert (rows.row[1:] > rows.row[:-1]).all()
        assert (scale > 0) == (beyond > first)
