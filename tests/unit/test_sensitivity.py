"""What in an image makes an edge: derivatives by the fODFs and by the signal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from chain import part_of_a_head
from problems import fodf_of, scaling
from tracking_cases import crossing_case

from difftract_bids.config import TrackingConfig
from difftract_bids.core import Streamlines, track
from difftract_bids.core.connectome.soft import SoftConnectome
from difftract_bids.core.end_to_end import FODFToConnectome
from difftract_bids.core.propagate import track_field
from difftract_bids.core.sensitivity import influential, sensitivity
from difftract_bids.core.survival import soft_survival
from difftract_bids.core.voxelwise import VoxelwiseFit
from difftract_bids.errors import ConfigError, InputError
from difftract_bids.modelling.deconvolution import build_deconvolution

SOFTNESS = 0.03
CHAIN_SEEDS = 80


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return part_of_a_head(tmp_path_factory.mktemp("chain") / "raw")


@pytest.fixture(scope="module")
def head(chain):
    """Gather the chain's model, fit, seeds and connectome, and the strongest blurred edge."""
    model = chain.model(softness=SOFTNESS)
    model.tracking.connectome = blocks_of(chain.mask.shape, chain.vox2ras, 9.0, 3.0)
    seeds = chain.seeds(CHAIN_SEEDS)
    dwi = chain.dwi.clone().requires_grad_()
    fodf = model.fodf(dwi, chain.mask)
    fodf.retain_grad()
    matrix = model.tracking(fodf, *seeds, chain.mask)
    a, b = divmod(int(matrix.detach().triu(1).argmax()), len(matrix))
    by_fodf, by_dwi = torch.autograd.grad(matrix[a, b], (fodf, dwi))
    return SimpleNamespace(
        chain=chain,
        model=model,
        fit=chain.fit(model),
        seeds=seeds,
        matrix=matrix.detach(),
        edge=(a, b),
        target=edge_target(len(matrix), a, b),
        by_fodf=by_fodf,
        by_dwi=by_dwi,
    )


def blocks_of(shape, vox2ras, radius_mm, sigma_mm):
    """Make blocks of three voxels the nodes, so that every end is near to some."""
    i, j, k = (x // 3 for x in torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    return SoftConnectome(1 + i + 6 * j + 36 * k, vox2ras, radius_mm, sigma_mm)


def edge_target(n_nodes, a, b):
    target = torch.zeros(n_nodes, n_nodes, dtype=torch.float64)
    target[a, b] = target[b, a] = 1
    return target


def close(found, expected, rel=1e-9):
    """Compare with the largest value as the measure."""
    scale = float(expected.abs().max())
    assert scale > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=rel * scale)


def test_an_edge_is_differentiated_by_the_fodf(head):
    found = sensitivity(
        head.model.tracking, head.fit.fodf, *head.seeds, head.target, head.chain.mask
    )
    assert found.value == pytest.approx(float(head.matrix[head.edge]), rel=1e-12)
    assert found.value > 0.1
    close(found.fodf, head.by_fodf)


def test_the_derivative_by_the_signal_is_that_of_the_whole_chain(head):
    found = head.fit.to_signal(head.by_fodf)
    assert found.shape == head.chain.dwi.shape
    assert found.dtype == head.chain.dwi.dtype
    close(found, head.by_dwi)


def test_voxels_at_a_time_do_not_matter_for_the_signal(head, monkeypatch):
    whole = head.fit.to_signal(head.by_fodf)
    monkeypatch.setattr("difftract_bids.core.voxelwise._VOXELS_AT_ONCE", 11)
    close(head.fit.to_signal(head.by_fodf), whole, 1e-12)


def test_no_derivative_by_the_fodf_is_none_by_the_signal(head):
    assert not head.fit.to_signal(torch.zeros_like(head.by_fodf)).any()


def smooth_scale(shape):
    return (1 + 0.5 * torch.linspace(-1, 1, shape[0]).double())[:, None, None, None]


def test_a_factor_in_each_voxel_is_held_fixed(head):
    scale, mask = smooth_scale(head.chain.mask.shape), head.chain.mask
    fit = replace(head.fit, fodf=head.fit.fodf * scale)
    assert fit.explains()
    dwi = head.chain.dwi.clone().requires_grad_()
    matrix = head.model.tracking(head.model.fodf(dwi, mask) * scale, *head.seeds, mask)
    (expected,) = torch.autograd.grad((matrix * head.target).triu().sum(), dwi)
    found = sensitivity(head.model.tracking, fit.fodf, *head.seeds, head.target, mask)
    close(fit.to_signal(found.fodf), expected)
    assert float((expected - head.by_dwi).norm() / expected.norm()) > 0.01


def test_an_fodf_is_explained_by_its_signal_and_response_whatever_its_scale(head):
    assert head.fit.explains()
    assert head.fit.explains(n=5)
    assert replace(head.fit, fodf=3 * head.fit.fodf).explains()
    assert replace(head.fit, fodf=head.fit.fodf.float(), dwi=head.fit.dwi.float()).explains()


def test_an_fodf_of_another_signal_or_response_is_not_explained(head):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(head.fit.dwi.shape, generator=generator, dtype=torch.float64)
    assert not replace(head.fit, dwi=head.fit.dwi + 20 * noise).explains()
    sharper = head.chain.response.coefficients.copy()
    sharper[:, 2:] *= 0.7
    response = replace(head.chain.response, coefficients=sharper)
    other = build_deconvolution(head.chain.gradients, {"WM": response}, "csd", 8)
    assert not replace(head.fit, deconvolution=other).explains()
    assert not replace(head.fit, fodf=head.fit.fodf.flip(0)).explains()


def test_an_fodf_of_nothing_is_explained_by_anything(head):
    assert replace(head.fit, fodf=torch.zeros_like(head.fit.fodf)).explains()


class Doubled(torch.nn.Module):
    """A deconvolution of several tissues."""

    def forward(self, dwi, mask=None):  # noqa: ARG002
        return dwi[..., :6] ** 2, dwi[..., :1]


def test_of_several_tissues_white_matter_is_what_counts():
    generator = torch.Generator().manual_seed(1)
    dwi = 1 + torch.rand(3, 2, 2, 8, generator=generator, dtype=torch.float64)
    fit = VoxelwiseFit(Doubled(), dwi, dwi[..., :6] ** 2)
    slope = torch.rand(3, 2, 2, 6, generator=generator, dtype=torch.float64)
    slope[1] = 0
    expected = torch.zeros_like(dwi)
    expected[..., :6] = 2 * dwi[..., :6] * slope
    close(fit.to_signal(slope), expected, 1e-12)
    assert fit.explains()


# From here on the fODF is given.


@pytest.fixture(scope="module")
def case():
    return crossing_case(150)


def tracking_of(case, softness=None, config=None, **settings):
    nodes = blocks_of(case.fodf.shape[:3], case.vox2ras, 4.0, 1.5)
    config = config or TrackingConfig(min_length_mm=1.0, max_length_mm=30.0)
    return FODFToConnectome(nodes, case.vox2ras, config, survival_softness=softness, **settings)


def derivatives(case, tracking, weights=None, seeds=None):
    """Differentiate a sum of edges by the fODF, the seeds and, where given, the weights."""
    fodf = case.fodf.clone().requires_grad_()
    seeds = (case.seeds if seeds is None else seeds).clone().requires_grad_()
    matrix = tracking(fodf, seeds, case.starts[: len(seeds)], case.mask(), weights)
    leaves = [x for x in (fodf, seeds, weights) if x is not None]
    return matrix.detach(), torch.autograd.grad((matrix * sizes_of(tracking)).sum(), leaves)


def sizes_of(tracking):
    """Give each edge a number."""
    generator = torch.Generator().manual_seed(2)
    n_nodes = len(tracking.connectome.node_labels)
    return torch.rand(n_nodes, n_nodes, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("softness", [None, 0.1])
@pytest.mark.parametrize("seeds_per_chunk", [1, 37, 149, 150])
def test_seeds_at_a_time_do_not_matter(case, softness, seeds_per_chunk):
    whole, slopes = derivatives(case, tracking_of(case, softness))
    parts = tracking_of(case, softness, seeds_per_chunk=seeds_per_chunk)
    if seeds_per_chunk == 1:
        case = replace(case, seeds=case.seeds[:20], starts=case.starts[:20])
        whole, slopes = derivatives(case, tracking_of(case, softness))
    matrix, found = derivatives(case, parts)
    torch.testing.assert_close(matrix, whole, rtol=1e-12, atol=1e-13)
    for one, other in zip(found, slopes, strict=True):
        close(one, other, 1e-10)


def test_the_matrix_is_the_connectome_of_the_streamlines(case):
    tracking = tracking_of(case, 0.1)
    lines = case.track(tracking.config)
    weights = soft_survival(
        case.fodf,
        case.vox2ras,
        lines,
        cutoff=tracking.config.cutoff,
        softness=0.1,
        margin_mm=4.0,
        peak_tolerance=tracking.config.peak_tolerance,
    )
    assert 0 < float(weights.min()) < 0.9
    expected = tracking.connectome(lines.ends(), weights)
    found = tracking(case.fodf, case.seeds, case.starts)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("softness", [None, 0.1])
def test_weights_of_seeds_weigh_and_are_differentiated(case, softness):
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(len(case.seeds), generator=generator, dtype=torch.float64)
    weights.requires_grad_()
    tracking = tracking_of(case, softness, seeds_per_chunk=40)
    matrix, (_, _, by_weight) = derivatives(case, tracking, weights)
    plain, _ = derivatives(case, tracking)
    assert float((matrix - plain).abs().max()) > 0.1
    size = sizes_of(tracking)
    # It is linear in the weights.
    assert float((by_weight * weights.detach()).sum()) == pytest.approx(
        float((matrix * size).sum()), rel=1e-10
    )
    one = torch.zeros_like(weights.detach())
    place = int(by_weight.abs().argmax())
    one[place] = 1
    alone = tracking(case.fodf, case.seeds, case.starts, case.mask(), one)
    assert float((alone * size).sum()) == pytest.approx(float(by_weight[place]), rel=1e-10)


def test_derivatives_by_seeds_are_finite_differences(case):
    exact = TrackingConfig(min_length_mm=1.0, max_length_mm=8.0, peak_tolerance=1e-12)
    tracking = tracking_of(case, 0.3, exact)
    few = replace(case, seeds=case.seeds[:8], starts=case.starts[:8])
    _, (_, by_seeds) = derivatives(few, tracking)
    generator = torch.Generator().manual_seed(4)
    way = torch.randn(few.seeds.shape, generator=generator, dtype=torch.float64)
    size = sizes_of(tracking)
    up, down = (
        (tracking(few.fodf, few.seeds + e * way, few.starts, few.mask()) * size).sum()
        for e in (1e-6, -1e-6)
    )
    expected = float(up - down) / 2e-6
    assert abs(expected) > 1e-3
    assert float((by_seeds * way).sum()) == pytest.approx(expected, rel=1e-5)


def test_seeds_that_give_nothing_give_zeros_and_a_zero_gradient(case):
    tracking = tracking_of(case, 0.1, seeds_per_chunk=60)
    matrix, slopes = derivatives(case, tracking, seeds=case.seeds + 1e4)
    assert not matrix.any()
    assert all(not slope.any() for slope in slopes)
    target = torch.ones_like(matrix)
    for n in (0, len(case.seeds)):
        found = sensitivity(tracking, case.fodf, case.seeds[:n] + 1e4, case.starts[:n], target)
        assert found.value == 0
        assert found.fodf.shape == case.fodf.shape
        assert not found.fodf.any()


def test_streamlines_keep_to_the_mask(case):
    tracking, mask = tracking_of(case), case.mask()
    mask[:, : mask.shape[1] // 2] = False
    _, (by_fodf, _) = derivatives(case, tracking)
    leaf = case.fodf.clone().requires_grad_()
    tracking(leaf, case.seeds, case.starts, mask).trace().backward()
    assert leaf.grad.any()
    # A vertex depends on the voxels next to it, and no others.
    beyond = slice(None, mask.shape[1] // 2 - 2)
    assert not leaf.grad[:, beyond].any()
    assert by_fodf[:, beyond].any()


def test_of_a_target_only_the_upper_triangle_is_summed(case):
    tracking = tracking_of(case)
    n_nodes = len(tracking.connectome.node_labels)
    generator = torch.Generator().manual_seed(5)
    target = torch.rand(n_nodes, n_nodes, generator=generator, dtype=torch.float64)
    given = tracking, case.fodf, case.seeds, case.starts
    found, upper = sensitivity(*given, target), sensitivity(*given, target.triu())
    assert found.value == upper.value
    assert torch.equal(found.fodf, upper.fodf)
    matrix = tracking(case.fodf, case.seeds, case.starts)
    assert found.value == pytest.approx(float((matrix.triu() * target).sum()), rel=1e-12)
    assert sensitivity(*given, target.tril(-1)).value == 0


def test_the_fodf_given_is_left_as_it_was(case):
    tracking = tracking_of(case)
    fodf = case.fodf.clone()
    target = torch.ones(2 * (len(tracking.connectome.node_labels),))
    with torch.no_grad():
        found = sensitivity(tracking, fodf, case.seeds, case.starts, target)
    assert found.fodf.any()
    assert not fodf.requires_grad
    assert torch.equal(fodf, case.fodf)


def test_seeds_without_influence_change_nothing(case):
    tracking = tracking_of(case, 0.1)
    whole = tracking(case.fodf, case.seeds, case.starts)
    a, b = divmod(int(whole.triu(1).argmax()), len(whole))
    target = edge_target(len(whole), a, b)
    lines = case.track(tracking.config)
    some = influential(tracking.connectome, lines.ends(), target)
    number = lines.seed_index[some]
    assert 0 < len(some) < len(lines) / 2
    given = tracking, case.fodf
    every = sensitivity(*given, case.seeds, case.starts, target)
    few = sensitivity(*given, case.seeds[number], case.starts[number], target)
    assert few.value == pytest.approx(every.value, rel=1e-12)
    close(few.fodf, every.fodf, 1e-12)
    left_out = torch.ones(len(lines), dtype=torch.bool)
    left_out[some] = False
    number = lines.seed_index[left_out]
    none = sensitivity(*given, case.seeds[number], case.starts[number], target)
    assert none.value == 0
    assert not none.fodf.any()


def test_influence_is_found_whichever_way_round_and_however_many_at_a_time(case, monkeypatch):
    tracking = tracking_of(case)
    ends = case.track(tracking.config).ends()
    n_nodes = len(tracking.connectome.node_labels)
    matrix = tracking.connectome(ends)
    a, b = divmod(int(matrix.triu(1).argmax()), n_nodes)
    target = torch.zeros(n_nodes, n_nodes)
    target[a, b] = -1
    some = influential(tracking.connectome, ends, target)
    assert len(some)
    for other in (target.T, edge_target(n_nodes, a, b)):
        assert torch.equal(influential(tracking.connectome, ends, other), some)
    assert torch.equal(influential(tracking.connectome, ends.flip(1), target), some)
    monkeypatch.setattr(sys.modules[influential.__module__], "_ENDS_AT_ONCE", 7)
    assert torch.equal(influential(tracking.connectome, ends, target), some)
    assert not len(influential(tracking.connectome, ends, torch.zeros(n_nodes, n_nodes)))
    assert not len(influential(tracking.connectome, ends[:0], target))


def test_what_does_not_fit_is_refused(case):
    tracking = tracking_of(case)
    given = case.fodf, case.seeds, case.starts
    with pytest.raises(InputError, match="The target is"):
        sensitivity(tracking, *given, torch.zeros(3, 3))
    with pytest.raises(InputError, match=r"weights for 150 seeds"):
        tracking(*given, weights=torch.ones(149))
    for name in ("softness", "seeds_per_chunk"):
        with pytest.raises(ConfigError, match=f"{name} is 0") as caught:
            tracking_of(case, **{name: 0})
        assert caught.value.remedy


# The margin of soft survival: amplitudes fall along x, vertices are a millimetre apart.

SLOPE = 0.02


def ramp():
    fodf = fodf_of(torch.tensor([1.0, 0, 0]).double().expand_as, (20, 5, 5), scaling(2.0))
    falling = 0.9 - SLOPE * 2.0 * torch.arange(20, dtype=torch.float64)
    return fodf * falling[:, None, None, None]


def two_straight_lines():
    """Along x from 3 to 14 mm, and back from 20.5 to 12.5 mm."""
    x = torch.cat([3.0 + torch.arange(12), 20.5 - torch.arange(9)]).double()
    points = torch.stack([x, torch.full_like(x, 4.2), torch.full_like(x, 3.7)], dim=1)
    none = torch.zeros(2, dtype=torch.int64)
    return Streamlines(
        points=points,
        offsets=torch.tensor([0, 12, 21]),
        seed_index=torch.arange(2),
        seed_vertex=none,
        stop_reason=torch.stack([none, none], 1),
        seed_status=none,
    )


@pytest.mark.parametrize(
    ("margin_mm", "left_out"), [(0.0, 1), (0.9, 1), (1.5, 2), (3.01, 4), (4.5, 5), (99.0, 12)]
)
def test_vertices_nearer_to_an_end_than_the_margin_count_as_sure(margin_mm, left_out):
    lines = two_straight_lines()
    fodf = ramp().requires_grad_()
    found = soft_survival(
        fodf,
        scaling(2.0),
        lines,
        cutoff=0.5,
        softness=0.1,
        margin_mm=margin_mm,
        peak_tolerance=1e-12,
    )
    expected = [
        torch.sigmoid((0.9 - SLOPE * line[left_out : len(line) - left_out, 0] - 0.5) / 0.1).prod()
        for line in (lines[0], lines[1])
    ]
    torch.testing.assert_close(found.detach(), torch.stack(expected), rtol=1e-6, atol=0)
    assert (found < 0.99).all() == (left_out < 5)
    found.sum().backward()
    assert torch.isfinite(fodf.grad).all()
    assert fodf.grad.any() == (left_out < 6)


@pytest.mark.parametrize("margin_mm", [1.0, 2.5])
def test_gradients_with_a_margin_are_finite_differences(margin_mm):
    case = crossing_case(10)
    config = TrackingConfig(peak_tolerance=1e-12, min_length_mm=6.0, max_length_mm=12.0)
    generator = torch.Generator().manual_seed(4)
    way = 0.1 * torch.randn(case.fodf.shape, generator=generator, dtype=torch.float64)
    way = way * case.mask()[..., None]

    def value(fodf):
        lines = track(fodf, case.seeds, case.starts, case.vox2ras, config)
        weights = soft_survival(
            fodf,
            case.vox2ras,
            lines,
            cutoff=0.2,
            softness=0.3,
            margin_mm=margin_mm,
            peak_tolerance=1e-12,
        )
        assert len(weights) >= 4
        return (weights * torch.arange(1.0, len(weights) + 1)).sum()

    leaf = case.fodf.clone().requires_grad_()
    value(leaf).backward()
    expected = float(value(case.fodf + 1e-6 * way) - value(case.fodf - 1e-6 * way)) / 2e-6
    assert abs(expected) > 1e-4
    assert float((leaf.grad * way).sum()) == pytest.approx(expected, rel=1e-6)


def test_the_margin_of_the_chain_is_the_radius_of_its_connectome(case):
    tracking = tracking_of(case, 0.1)
    lines = track_field(tracking.field_of(case.fodf), case.seeds, case.starts, tracking.config)
    surplus = tracking.surplus(tracking.field_of(case.fodf), lines)
    for i in range(len(lines)):
        steps = lines[i].diff(dim=0).norm(dim=1)
        to_end = torch.minimum(
            torch.cat([steps.new_zeros(1), steps.cumsum(0)]),
            torch.cat([steps.flip(0).cumsum(0).flip(0), steps.new_zeros(1)]),
        )
        sure = torch.isinf(surplus[lines.offsets[i] : lines.offsets[i + 1]])
        inner = (to_end - 4.0).abs() > 1e-9
        assert torch.equal(sure[inner], (to_end < 4.0)[inner])


PROGRAM = """
    import json, sys
    from pathlib import Path

    import torch
    from problems import scaling, sharp_sh
    from difftract_bids.core import SoftConnectome, TrackingConfig
    from difftract_bids.core.end_to_end import FODFToConnectome

    n_chunks, size, per_chunk = int(sys.argv[1]), 24, 6_000
    torch.set_num_threads(1)
    affine = scaling(2.0)
    lobe = sharp_sh(torch.tensor([1.0, 0.2, 0.1]).double() / 1.05**0.5).float()
    labels = (1 + torch.arange(size) // 4)[:, None, None].expand(size, size, size)
    model = FODFToConnectome(
        SoftConnectome(labels, affine),
        affine,
        TrackingConfig(min_length_mm=1.0, max_length_mm=40.0, step_size_mm=0.2),
        survival_softness=0.1,
        seeds_per_chunk=per_chunk,
    )

    def number(field):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

    def run(n_seeds):
        generator = torch.Generator().manual_seed(0)
        fodf = lobe.expand(size, size, size, 45).clone().requires_grad_()
        seeds = torch.rand(n_seeds, 3, generator=generator) * 2 * (size - 1)
        starts = torch.tensor([[1.0, 0.2, 0.1]]).expand(n_seeds, 3)
        before = number("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        matrix = model(fodf, seeds, starts)
        matrix[0].sum().backward()
        assert fodf.grad.any()
        return number("VmHWM") - before, matrix.sum().item(), matrix.trace().item()

    run(200)  # compiles, or loads what is compiled
    over, total, own = run(n_chunks * per_chunk)
    print(json.dumps(dict(over=over, total=total)))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")
def test_memory_of_a_backward_pass_does_not_grow_with_the_number_of_chunks(record_property):
    one, many = (peak_of(n_chunks) for n_chunks in (1, 5))
    record_property("memory", {"one": one, "five": many})
    assert many["total"] > 4 * one["total"] > 0
    assert one["over"] > 20e6
    assert many["over"] < 1.5 * one["over"]


def peak_of(n_chunks):
    """Measure with large blocks given back at once: what a heap keeps is not what is in use."""
    tests = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(n_chunks)],
        env=os.environ | {"PYTHONPATH": tests, "MALLOC_MMAP_THRESHOLD_": "1000000"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
