"""Anatomically constrained tracking: on a straight bundle through layers of tissue, by both."""

from __future__ import annotations

import pytest
import torch
from problems import scaling, sharp_sh, voxel_centres_mm
from tracking_cases import anatomy_of, crossing_case

from difftract_bids.config import ActConfig, Config, SeedingConfig
from difftract_bids.core import (
    Anatomy,
    CallableField,
    FODFToConnectome,
    InterfaceSeeds,
    SeedStatus,
    SoftConnectome,
    StopReason,
    Streamlines,
    TensorField,
    TrackingConfig,
    track,
    track_field,
)
from difftract_bids.core.anatomy import tissues_at
from difftract_bids.core.regions import Regions, Sphere
from difftract_bids.core.tissue_interface import _weights_on_interface
from difftract_bids.errors import ConfigError, InputError, SeedError

#: Volumes of the tissues that a letter stands for: cortex, deep grey, white, fluid, lesion.
LETTERS = "CDWFL"
SIDE = 6
both = pytest.mark.parametrize("backend", ["cpu", "reference"])


def anatomy_along_x(layers: str, **settings) -> Anatomy:
    """One letter for each millimetre along x, from 0 on; a dot is nothing."""
    tissues = torch.zeros(len(layers), SIDE, SIDE, 5)
    for x, letter in enumerate(layers):
        if letter != ".":
            tissues[x, :, :, LETTERS.index(letter)] = 1
    return Anatomy(tissues, scaling(1.0), **settings)


def along_x(x: torch.Tensor) -> torch.Tensor:
    """fODFs along x whose amplitudes are those given, at each millimetre."""
    towards_x = sharp_sh(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    return (x[:, None, None, None] * towards_x).expand(-1, SIDE, SIDE, -1).clone()


def follow(
    layers: str,
    backend: str,
    *,
    seed: float,
    amplitude: torch.Tensor | None = None,
    start: float = -1.0,
    regions: Regions | None = None,
    crop_at_gmwmi: bool = False,
    **settings,
) -> Streamlines:
    """Track one seed at ``seed`` millimetres along x, first downwards, in steps of 0.5 mm."""
    strength = torch.ones(len(layers)).double() if amplitude is None else amplitude
    seeds = torch.tensor([[seed, 2.6, 2.4]], dtype=torch.float64)
    starts = torch.tensor([[start, 0.0, 0.0]], dtype=torch.float64)
    config = TrackingConfig(backend=backend, **({"step_size_mm": 0.5} | settings))
    anatomy = anatomy_along_x(layers, crop_at_gmwmi=crop_at_gmwmi)
    return track(along_x(strength), seeds, starts, scaling(1.0), config, None, regions, anatomy)


def ends_of(result: Streamlines) -> list[float]:
    """Where along x the one streamline begins and ends."""
    assert len(result) == 1
    return result.points[[0, -1], 0].tolist()


@both
def test_a_streamline_ends_with_its_first_vertex_in_the_cortex(backend):
    result = follow("CCCCWWWWWWWWWWWWWWWWCCCC", backend, seed=12.1)
    assert result.stop_reason.tolist() == [[StopReason.ENTERED_CORTEX] * 2]
    # Grey and white are equal at 3.5 and 19.5.
    assert ends_of(result) == pytest.approx([3.1, 19.6])


@both
@pytest.mark.parametrize("layers", ["FFFFWWWWWWWWWWWWCCCC", "CCCCWWWWWWWWWWWWFFFF"])
def test_who_enters_fluid_is_rejected(backend, layers):
    result = follow(layers, backend, seed=10.1)
    assert result.count_seeds() == {SeedStatus.ENDED_IN_FLUID: 1}


@both
def test_a_streamline_ends_where_there_is_no_tissue(backend):
    result = follow("....WWWWWWWWWWWWCCCC", backend, seed=10.1)
    assert result.stop_reason.tolist() == [[StopReason.LEFT_TISSUE, StopReason.ENTERED_CORTEX]]
    # At 3.6 the nearest voxel is the first of white matter.
    assert ends_of(result)[0] == pytest.approx(3.6)


@both
def test_a_streamline_is_cut_back_to_its_weakest_vertex_in_deep_grey(backend):
    x = torch.arange(24).double()
    weakest_at_15 = 0.3 + 0.05 * (x - 15).abs()
    layers = "CCCCWWWWWWWWDDDDDDWWWWWW"
    result = follow(layers, backend, seed=8.0, amplitude=weakest_at_15, cutoff=0.1)
    assert result.stop_reason.tolist() == [[StopReason.ENTERED_CORTEX, StopReason.LEFT_DEEP_GREY]]
    assert ends_of(result)[1] == pytest.approx(15.0)
    turned = follow(layers, backend, seed=8.0, amplitude=weakest_at_15, start=1.0, cutoff=0.1)
    assert ends_of(turned) == pytest.approx(ends_of(result)[::-1])


@both
@pytest.mark.parametrize(
    ("layer", "status"),
    [
        ("W", SeedStatus.ENDED_IN_WHITE_MATTER),
        ("D", SeedStatus.KEPT),
        ("L", SeedStatus.KEPT),
    ],
)
def test_where_the_fodf_fades_is_an_end_in_deep_grey_and_lesions_alone(backend, layer, status):
    fades = torch.ones(24).double()
    fades[14:] = 0.0001
    result = follow("CCCCWWWWWW" + 8 * layer + "WWCCCC", backend, seed=8.0, amplitude=fades)
    assert result.count_seeds() == {status: 1}
    if status == SeedStatus.KEPT:
        why = StopReason.WITHIN_DEEP_GREY if layer == "D" else StopReason.BELOW_CUTOFF
        assert result.stop_reason[0, 1] == why


@both
def test_too_long_is_rejected(backend):
    result = follow("C" + 40 * "W" + "C", backend, seed=20.0, max_length_mm=10.0)
    assert result.count_seeds() == {SeedStatus.TOO_LONG: 1}


@both
def test_two_voxels_are_long_enough_and_the_cutoff_is_half_as_high(backend):
    layers, half = "CCCWWWCCC", torch.full((9,), 0.07).double()
    assert len(follow(layers, backend, seed=4.0, amplitude=half)) == 1
    plain = TrackingConfig(backend=backend, step_size_mm=0.5)
    given = torch.tensor([[4.0, 2.6, 2.4]]).double(), torch.tensor([[1.0, 0, 0]]).double()
    low = track(along_x(half), *given, scaling(1.0), plain)
    assert low.count_seeds() == {SeedStatus.BELOW_CUTOFF: 1}
    short = track(along_x(torch.ones(4).double()), *given, scaling(1.0), plain)
    assert not len(short)


@both
@pytest.mark.parametrize(
    ("seed", "status"),
    [
        (1.0, SeedStatus.UNSUITABLE_TISSUE),  # cortex
        (12.0, SeedStatus.UNSUITABLE_TISSUE),  # fluid
        (25.0, SeedStatus.UNSUITABLE_TISSUE),  # nothing
        (5.0, SeedStatus.ENDED_IN_FLUID),
    ],
)
def test_seeds_lie_in_white_or_deep_grey_matter(backend, seed, status):
    result = follow("CCCCWWWWWWWFFF.............", backend, seed=seed)
    assert result.count_seeds() == {status: 1}


@both
@pytest.mark.parametrize("start", [1.0, -1.0])
def test_a_seed_on_the_interface_goes_into_white_matter_alone(backend, start):
    # At 3.497 there is 0.006 more grey than white matter.
    result = follow("CCCCWWWWWWWWWWCCC", backend, seed=3.497, start=start)
    assert result.stop_reason.tolist() == [[StopReason.NONE, StopReason.ENTERED_CORTEX]]
    assert result.seed_vertex.tolist() == [0]
    assert ends_of(result) == pytest.approx([3.497, 13.997])
    deeper = follow("CCCCWWWWWWWWWWCCC", backend, seed=3.49, start=start)
    assert deeper.count_seeds() == {SeedStatus.UNSUITABLE_TISSUE: 1}


@both
def test_a_seed_in_deep_grey_leaves_it_once_and_is_cut_back_on_the_other_side(backend):
    x = torch.arange(24).double()
    weakest_at_14 = 0.3 + 0.05 * (x - 14).abs()
    layers = "CCCCWWWWWWDDDDDDWWWWCCCC"
    result = follow(layers, backend, seed=12.0, amplitude=weakest_at_14)
    assert result.stop_reason.tolist() == [[StopReason.ENTERED_CORTEX, StopReason.LEFT_DEEP_GREY]]
    assert ends_of(result) == pytest.approx([3.5, 14.0])
    fades = torch.where((x > 10) & (x < 15), 1.0, 0.0001)
    stays = follow(layers, backend, seed=12.5, amplitude=fades, min_length_mm=0.1)
    assert stays.count_seeds() == {SeedStatus.STAYED_IN_DEEP_GREY: 1}


@both
def test_a_vertex_in_the_cortex_visits_no_region_as_in_mrtrix(backend):
    layers = "CCCCWWWWWWWWWWCCCC"
    last = Sphere((3.1, 2.6, 2.4), 0.2)
    missed = follow(layers, backend, seed=10.1, regions=Regions(include=(last,)))
    assert missed.count_seeds() == {SeedStatus.MISSED_INCLUDE: 1}
    kept = follow(layers, backend, seed=10.1, regions=Regions(exclude=(last,)))
    assert ends_of(kept)[0] == pytest.approx(3.1)


@both
def test_cropped_ends_are_on_the_interface_and_the_others_where_they_were(backend):
    layers = "CCCCWWWWWWWWDDDDDDWWWWWW"
    plain = follow(layers, backend, seed=8.1)
    cropped = follow(layers, backend, seed=8.1, crop_at_gmwmi=True)
    torch.testing.assert_close(cropped.points[1:], plain.points[1:])
    assert 3.495 <= ends_of(cropped)[0] <= 3.5
    assert cropped.points[0, 1:].tolist() == pytest.approx([2.6, 2.4])


def test_an_end_of_two_vertices_is_not_cropped_as_in_mrtrix():
    # Of the first half MRtrix sees the seed and one vertex alone.
    result = follow("CCCCWWWWWWWCCCC", "cpu", seed=3.8, crop_at_gmwmi=True)
    assert ends_of(result)[0] == pytest.approx(3.3)
    assert 10.5 <= ends_of(result)[1] <= 10.505


def test_derivatives_of_cropped_ends_go_to_the_vertices_that_they_are_between():
    case = crossing_case(80, (20, 18, 14))
    config = TrackingConfig(peak_tolerance=1e-12, integrator="rk4")
    leaves = [case.fodf.clone().requires_grad_() for _ in range(2)]
    given = (case.seeds, case.starts, case.vox2ras, config, None, None)
    cropped = track(leaves[0], *given, anatomy_of(case, crop_at_gmwmi=True))
    plain = track(leaves[1], *given, anatomy_of(case))
    in_cortex = plain.stop_reason[:, 1] == StopReason.ENTERED_CORTEX
    last = plain.offsets[1:][in_cortex & (plain.n_vertices() > 2)] - 1
    assert len(last) > 5
    three = torch.stack([plain.points[last - k] for k in range(3)])
    weights = _weights_on_interface(anatomy_of(case).table, three.detach())
    assert ((weights[0] - 1).abs() > 1e-3).any()
    expected = (weights[..., None] * three).sum(0)
    torch.testing.assert_close(cropped.points[last], expected)
    for points, leaf in ((cropped.points[last], leaves[0]), (expected, leaves[1])):
        (points * torch.arange(1.0, 4.0)).sum().backward()
        assert leaf.grad is not None
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)
    assert leaves[0].grad.abs().max() > 1e-3


def test_gradients_under_constraints_are_finite_differences():
    case = crossing_case(200, (20, 18, 14))
    anatomy = anatomy_of(case)
    config = TrackingConfig(peak_tolerance=1e-12, max_length_mm=60.0)
    leaf = case.fodf.clone().requires_grad_()
    generator = torch.Generator().manual_seed(2)
    change = torch.randn(leaf.shape, generator=generator, dtype=torch.float64) * (case.fodf != 0)

    def run(fodf: torch.Tensor) -> Streamlines:
        return track(fodf, case.seeds, case.starts, case.vox2ras, config, None, None, anatomy)

    middle = run(leaf)
    assert {StopReason.LEFT_DEEP_GREY, StopReason.ENTERED_CORTEX} <= set(middle.count_stops())
    middle.points.square().sum().backward()
    h = 1e-7
    ahead, behind = run(case.fodf + h * change), run(case.fodf - h * change)
    assert torch.equal(ahead.offsets, behind.offsets)
    slope = (ahead.points.square().sum() - behind.points.square().sum()) / (2 * h)
    assert float((leaf.grad * change).sum()) == pytest.approx(float(slope), rel=1e-4)


def test_a_connectome_through_constraints_is_that_of_constrained_streamlines():
    case = crossing_case(200, (20, 18, 14))
    labels = torch.zeros(case.fodf.shape[:3], dtype=torch.int64)
    labels[:10], labels[10:] = 1, 2
    soft = SoftConnectome(labels, case.vox2ras, radius_mm=8.0, sigma_mm=2.0)
    anatomy = anatomy_of(case)
    given = (soft, case.vox2ras, TrackingConfig())
    constrained = FODFToConnectome(*given, seeds_per_chunk=64, anatomy=anatomy)
    expected = soft(case.track(TrackingConfig(), None, anatomy).ends())
    found = constrained(case.fodf, case.seeds, case.starts)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, FODFToConnectome(*given)(case.fodf, case.seeds, case.starts))


def test_tensors_obey_tissue_and_are_cut_back_where_they_are_least_anisotropic():
    layers = "CCCCWWWWWWWWDDDDDDWWWWWW"
    x = torch.arange(24).double()
    across = 0.2 + 0.6 * torch.exp(-(((x - 14) / 3) ** 2))
    tensors = torch.zeros(24, SIDE, SIDE, 6, dtype=torch.float64)
    tensors[..., 0] = 1.0
    tensors[..., 3] = tensors[..., 5] = across[:, None, None]
    field = TensorField.from_tensors(tensors, scaling(1.0), cutoff=0.05)
    given = torch.tensor([[8.0, 2.6, 2.4]]).double(), torch.tensor([[-1.0, 0, 0]]).double()
    config = TrackingConfig(algorithm="tensor_det", step_size_mm=0.5)
    result = track_field(field, *given, config, None, anatomy_along_x(layers))
    assert ends_of(result) == pytest.approx([3.5, 14.0])


def test_a_field_that_does_not_know_its_strength_is_not_cut_back():
    field = CallableField(lambda p: torch.tensor([[1.0, 0, 0]]).expand_as(p))
    given = torch.tensor([[8.0, 2.6, 2.4]]), torch.tensor([[-1.0, 0, 0]])
    config = TrackingConfig(step_size_mm=0.5, min_length_mm=1.0, max_length_mm=99.0)
    layers = "CCCCWWWWWWWWDDDDDDWWWWWW"
    result = track_field(field, *given, config, None, anatomy_along_x(layers))
    assert ends_of(result) == pytest.approx([3.5, 17.5])


def ball_of_white_matter(radius_mm: float = 12.0, voxel_mm: float = 1.5) -> Anatomy:
    """White matter within grey, off the middle of its grid, with a border of two voxels."""
    affine = scaling(voxel_mm, (-24.3, -24.1, -23.7))
    centres = voxel_centres_mm((33, 33, 33), affine)
    white = torch.sigmoid((radius_mm - centres.norm(dim=-1)) / (0.5 * voxel_mm))
    zero = torch.zeros_like(white)
    return Anatomy(torch.stack([1 - white, zero, white, zero, zero], -1).float(), affine)


def test_interface_seeds_are_on_the_grey_side_of_the_interface():
    anatomy = anatomy_of(crossing_case(4, (20, 18, 14)))
    seeds_mm, _ = InterfaceSeeds(anatomy, random_seed=3).draw(0, 500)
    surplus = tissues_at(anatomy.table, seeds_mm.T).surplus
    assert surplus.min() >= 0
    assert surplus.max() <= 0.01


def test_interface_seeds_are_evenly_spread_over_the_interface():
    seeds_mm, _ = InterfaceSeeds(ball_of_white_matter(), random_seed=1).draw(0, 4000)
    assert seeds_mm.norm(dim=1).sub(12.0).abs().max() < 0.3
    # On a sphere the height along any axis is uniform (Archimedes): 1000 in each quarter.
    for axis in range(3):
        quarter = ((seeds_mm[:, axis] / 12.0 + 1) * 2).long().clamp(0, 3)
        assert torch.bincount(quarter).sub(1000).abs().max() < 120


def test_an_interface_seed_is_a_function_of_its_number_alone():
    anatomy = ball_of_white_matter()
    whole = InterfaceSeeds(anatomy, random_seed=5).draw(0, 60)
    source = InterfaceSeeds(anatomy, random_seed=5)
    parts = [source.draw(0, 7), source.draw(7, 53)]
    for k in range(2):
        assert torch.equal(whole[k], torch.cat([part[k] for part in parts]))
    assert not torch.equal(whole[0], InterfaceSeeds(anatomy, random_seed=6).draw(0, 60)[0])


def test_tracking_from_interface_seeds_goes_one_way_from_the_seed():
    case = crossing_case(4, (20, 18, 14))
    anatomy = anatomy_of(case)
    seeds = InterfaceSeeds(anatomy, random_seed=3).draw(0, 300)
    config = TrackingConfig(max_length_mm=60.0)
    found = track(case.fodf, *seeds, case.vox2ras, config, None, None, anatomy)
    one_way = found.stop_reason[:, 0] == StopReason.NONE
    assert len(found) > 50
    assert one_way.double().mean() > 0.5
    assert (found.seed_vertex[one_way] == 0).all()


def test_an_image_without_an_interface_has_no_seeds():
    with pytest.raises(SeedError, match="meet nowhere"):
        InterfaceSeeds(anatomy_along_x("WWWWWW"), random_seed=0)


@pytest.mark.parametrize("shape", [(4, 4, 4), (4, 4, 4, 4), (4, 4, 4, 5)])
def test_what_is_no_tissue_image_is_refused(shape):
    with pytest.raises(InputError, match="tissue image"):
        Anatomy(torch.zeros(shape), scaling(1.0))


def test_a_tissue_image_far_from_whole_cells_of_white_matter_gives_the_same():
    # The shortcut through cells that are surely white must change nothing.
    case = crossing_case(200, (20, 18, 14))
    anatomy = anatomy_of(case)
    with_shortcut = case.track(TrackingConfig(), None, anatomy)
    assert anatomy.table.surely_white.any()
    anatomy.table.surely_white.zero_()
    without = case.track(TrackingConfig(), None, anatomy)
    assert torch.equal(with_shortcut.points, without.points)
    assert torch.equal(with_shortcut.seed_status, without.seed_status)


def test_settings_of_constraints_that_are_off_are_refused():
    for settings in ({"act_5tt": "5tt.nii.gz"}, {"crop_at_gmwmi": True}):
        with pytest.raises(ConfigError, match="act off"):
            ActConfig(act="off", **settings)
    assert Config().act.act == "auto"
    assert SeedingConfig(seed_gmwmi=True).kind == "seed_gmwmi"
    with pytest.raises(ConfigError, match="one place only"):
        SeedingConfig(seed_gmwmi=True, seed_sphere="0,0,0,1")
