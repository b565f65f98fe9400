"""What cannot be tracked is refused, and what is odd but sound is tracked."""

from __future__ import annotations

import pytest
import torch
from problems import fodf_of, oblique, scaling
from tracking_cases import crossing_case

from difftract_bids.core import SeedStatus, TrackingConfig, track
from difftract_bids.core.field import FodfField
from difftract_bids.core.propagate import track_field
from difftract_bids.core.regions import RegionImage, Regions, Sphere
from difftract_bids.errors import ConfigError, DifftractError, FodfError, InputError, SeedError

X = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
SHAPE = (12, 5, 5)
every_backend = pytest.mark.parametrize("backend", ["cpu", "reference"])


def sound(**changes) -> dict:
    """Arguments of `track` that are fine, but for the changes."""
    arguments = {
        "fodf": fodf_of(X.expand_as, SHAPE, scaling(2.0)),
        "seeds_mm": torch.tensor([[10.0, 4.0, 4.0], [12.0, 4.5, 3.5]], dtype=torch.float64),
        "directions": X.expand(2, 3),
        "vox2ras": scaling(2.0),
        "config": TrackingConfig(),
    }
    return arguments | changes


def spoilt(name: str, value: float) -> torch.Tensor:
    tensor = sound()[name].clone()
    tensor.view(-1)[3] = value
    return tensor


NAN, INF = float("nan"), float("inf")
SINGULAR = torch.diag(torch.tensor([2.0, 2.0, 0.0, 1.0]))
BAD = {
    "fodf nan": ({"fodf": spoilt("fodf", NAN)}, FodfError, "1 of 300 voxels"),
    "fodf inf": ({"fodf": spoilt("fodf", INF)}, FodfError, "1 of 300 voxels"),
    "44 coefficients": ({"fodf": torch.zeros(*SHAPE, 44).double()}, FodfError, "44"),
    "0 coefficients": ({"fodf": torch.zeros(*SHAPE, 0).double()}, FodfError, "shape"),
    "lmax 0": ({"fodf": torch.zeros(*SHAPE, 1).double()}, FodfError, "^1 coeff"),
    "lmax 14": ({"fodf": torch.zeros(2, 2, 2, 120).double()}, FodfError, "120"),
    "fodf of 3 axes": ({"fodf": torch.zeros(5, 5, 45).double()}, FodfError, "shape"),
    "fodf of 5 axes": ({"fodf": torch.zeros(1, *SHAPE, 45).double()}, FodfError, "shape"),
    "no voxel": ({"fodf": torch.zeros(0, 5, 5, 45).double()}, FodfError, "shape"),
    "int fodf": ({"fodf": torch.zeros(*SHAPE, 45).int()}, FodfError, "int32"),
    "half fodf": ({"fodf": torch.zeros(*SHAPE, 45).half()}, FodfError, "float16"),
    "bfloat16 fodf": ({"fodf": torch.zeros(*SHAPE, 45).bfloat16()}, FodfError, "bfloat16"),
    "complex fodf": ({"fodf": torch.zeros(*SHAPE, 45).cfloat()}, FodfError, "complex"),
    "singular affine": ({"vox2ras": SINGULAR}, FodfError, "invertible"),
    "nan affine": ({"vox2ras": scaling(2.0) * NAN}, FodfError, "invertible"),
    "3x4 affine": ({"vox2ras": scaling(2.0)[:3]}, FodfError, "invertible"),
    "nan seeds": ({"seeds_mm": spoilt("seeds_mm", NAN)}, SeedError, "1 of 2 rows of seeds_mm"),
    "inf seeds": ({"seeds_mm": spoilt("seeds_mm", -INF)}, SeedError, "1 of 2 rows"),
    "float32 seeds": ({"seeds_mm": torch.zeros(2, 3)}, SeedError, "float32"),
    "int seeds": ({"seeds_mm": torch.zeros(2, 3).long()}, SeedError, "int64"),
    "flat seeds": ({"seeds_mm": torch.zeros(3).double()}, SeedError, "shape"),
    "seeds of 2": ({"seeds_mm": torch.zeros(2, 2).double()}, SeedError, "shape"),
    "other device": ({"seeds_mm": torch.zeros(2, 3, device="meta").double()}, SeedError, "meta"),
    "nan direction": ({"directions": spoilt("directions", NAN)}, SeedError, "directions"),
    "zero direction": ({"directions": torch.zeros(2, 3).double()}, SeedError, "2 of 2"),
    "3 directions": ({"directions": X.expand(3, 3)}, SeedError, "shape"),
    "small mask": ({"mask": torch.ones(3, 3, 3).bool()}, FodfError, "mask"),
    "float mask": ({"mask": torch.ones(SHAPE)}, FodfError, "torch.bool"),
    "cuda on cpu": ({"config": TrackingConfig(backend="cuda")}, ConfigError, "backend"),
    "nan sphere": (
        {"regions": Regions(exclude=(Sphere((0.0, NAN, 0.0), 3.0),))},
        InputError,
        "sphere",
    ),
    "number region": (
        {"regions": Regions(include=(RegionImage(torch.ones(SHAPE), scaling(2.0)),))},
        InputError,
        "region",
    ),
    "region of no place": (
        {"regions": Regions(mask=(RegionImage(torch.ones(SHAPE).bool(), SINGULAR),))},
        InputError,
        "invertible",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_tracked_is_refused(name):
    changes, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as caught:
        track(**sound(**changes))
    error = caught.value
    assert isinstance(error, DifftractError)
    assert error.what
    assert error.where
    assert error.remedy


@pytest.mark.parametrize("name", [name for name in BAD if "seeds" in name or "direction" in name])
def test_seeds_are_checked_for_fields_too(name):
    changes, kind, message = BAD[name]
    given = sound(**changes)
    field = FodfField.from_fodf(given["fodf"], given["vox2ras"], cutoff=0.1, peak_tolerance=1e-4)
    with pytest.raises(kind, match=message):
        track_field(field, given["seeds_mm"], given["directions"], given["config"])


@every_backend
def test_an_empty_mask_gives_an_empty_valid_result(backend):
    config = TrackingConfig(backend=backend)
    result = track(**sound(config=config, mask=torch.zeros(SHAPE).bool()))
    assert result.count_seeds() == {SeedStatus.OUTSIDE_MASK: 2}
    assert result.points.shape == (0, 3)
    assert result.offsets.tolist() == [0]


@every_backend
def test_an_empty_fodf_gives_an_empty_valid_result(backend):
    fodf = torch.zeros(*SHAPE, 45, dtype=torch.float64)
    result = track(**sound(config=TrackingConfig(backend=backend), fodf=fodf))
    assert result.count_seeds() == {SeedStatus.OUTSIDE_IMAGE: 2}


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_seeds_give_an_empty_valid_result(backend, dtype):
    none = torch.zeros(0, 3, dtype=dtype)
    given = sound(config=TrackingConfig(backend=backend), seeds_mm=none, directions=none)
    result = track(**given | {"fodf": given["fodf"].to(dtype)})
    assert len(result) == 0
    assert result.points.shape == (0, 3)
    assert result.points.dtype == dtype
    assert result.offsets.tolist() == [0]
    assert result.seed_status.shape == (0,)
    assert result.stop_reason.shape == (0, 2)
    assert result.count_seeds() == {}
    assert result.lengths_mm().shape == (0,)


@every_backend
def test_seeds_far_outside_are_outside(backend):
    far = torch.tensor([[1e30, 0.0, 0.0], [-1e300, 1e300, 4.0]], dtype=torch.float64)
    result = track(**sound(config=TrackingConfig(backend=backend), seeds_mm=far))
    assert result.count_seeds() == {SeedStatus.OUTSIDE_IMAGE: 2}


@every_backend
@pytest.mark.parametrize("length", [1e-300, 1e-30, 1e30, 1e300])
def test_directions_of_any_length_lead_the_same_way(backend, length):
    config = TrackingConfig(backend=backend)
    expected = track(**sound(config=config))
    found = track(**sound(config=config, directions=length * X.expand(2, 3)))
    torch.testing.assert_close(found.points, expected.points)


@every_backend
def test_memory_may_be_laid_out_in_any_way(backend):
    case = crossing_case(20)
    config = TrackingConfig(backend=backend, min_length_mm=1.0, max_length_mm=6.0)
    expected = track(case.fodf, case.seeds, case.starts, case.vox2ras, config, case.mask())
    assert len(expected) > 5
    fodf = case.fodf.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    seeds = torch.stack([case.seeds, case.seeds], dim=2)[..., 1]
    starts = case.starts.T.contiguous().T
    affine = case.vox2ras.T.contiguous().T
    mask = case.mask().permute(2, 1, 0).contiguous().permute(2, 1, 0)
    for tensor in (fodf, seeds, starts, affine, mask):
        assert not tensor.is_contiguous()
    found = track(fodf, seeds, starts, affine, config, mask)
    assert torch.equal(found.points, expected.points)


@every_backend
def test_expanded_tensors_are_tracked_and_pass_gradients_on(backend):
    one = fodf_of(X.expand_as, (1, 1, 1), scaling(2.0)).requires_grad_()
    seed = torch.tensor([[10.0, 4.0, 4.0]], dtype=torch.float64, requires_grad=True)
    config = TrackingConfig(backend=backend, min_length_mm=1.0)
    result = track(
        **sound(
            fodf=one.expand(*SHAPE, 45),
            seeds_mm=seed.expand(2, 3),
            config=config,
        )
    )
    assert len(result) == 2
    torch.testing.assert_close(result[0], result[1], rtol=0, atol=0)
    result.points.expand(2, *result.points.shape).sum().backward()
    torch.testing.assert_close(seed.grad, torch.full((1, 3), 2.0 * len(result.points)).double())
    assert one.grad.abs().max() > 0


@every_backend
def test_inputs_are_left_as_they_are(backend):
    given = sound(config=TrackingConfig(backend=backend), directions=3 * X.repeat(2, 1))
    before = {k: v.clone() for k, v in given.items() if isinstance(v, torch.Tensor)}
    track(**given)
    for name, tensor in before.items():
        assert torch.equal(given[name], tensor), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_affines_of_any_type_will_do(dtype):
    expected = track(**sound())
    assert torch.equal(track(**sound(vox2ras=scaling(2.0).to(dtype))).points, expected.points)


@every_backend
@pytest.mark.parametrize("size", [1e-6, 1e12])
def test_fodfs_of_any_size_have_the_same_peaks(backend, size):
    case = crossing_case(20).to(torch.float32)
    settings = {"backend": backend, "min_length_mm": 1.0, "max_length_mm": 6.0}
    expected = case.track(TrackingConfig(cutoff=0.1, **settings))
    given = track(
        case.fodf * size,
        case.seeds,
        case.starts,
        case.vox2ras,
        TrackingConfig(cutoff=0.1 * size, **settings),
    )
    assert torch.equal(given.seed_index, expected.seed_index)
    torch.testing.assert_close(given.points, expected.points, rtol=0, atol=1e-3)


def test_mirrored_and_tiny_voxels_are_tracked():
    affine = oblique() @ torch.diag(torch.tensor([1e-3, 1e-3, 1e-3, 1.0], dtype=torch.float64))
    direction = affine[:3, 0] / affine[:3, 0].norm()
    fodf = fodf_of(direction.expand_as, SHAPE, affine)
    seed = (affine @ torch.tensor([6.0, 2.0, 2.0, 1.0], dtype=torch.float64))[None, :3]
    result = track(fodf, seed, direction[None], affine, TrackingConfig())
    assert float(result.lengths_mm()) == pytest.approx(12 * 1.8e-3, rel=0.05)
