"""Tracking problems that two implementations are to solve alike, and how alike they did."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from problems import circles, crossing_bundles, fodf_of, oblique, voxel_centres_mm

from difftract_bids.core import Anatomy, Streamlines, TrackingConfig, random_seeds, track
from difftract_bids.core.regions import RegionImage, Regions, Sphere

INTEGRATORS = ["euler", "midpoint", "rk4", "rk4_classic"]


@dataclass(frozen=True)
class Case:
    """An fODF image, and seeds with directions; all of one dtype, on one device."""

    fodf: torch.Tensor
    vox2ras: torch.Tensor
    seeds: torch.Tensor
    starts: torch.Tensor

    def to(self, target: torch.dtype | torch.device | str) -> Case:
        moved = (x.to(target) for x in (self.fodf, self.seeds, self.starts))
        fodf, seeds, starts = moved
        return Case(fodf, self.vox2ras, seeds, starts)

    def mask(self) -> torch.Tensor:
        return self.fodf[..., 0] != 0

    def track(
        self,
        config: TrackingConfig,
        regions: Regions | None = None,
        anatomy: Anatomy | None = None,
    ) -> Streamlines:
        given = (self.fodf, self.seeds, self.starts, self.vox2ras)
        return track(*given, config, None, regions, anatomy)


def crossing_case(
    n_seeds: int = 120,
    shape: tuple[int, int, int] = (14, 13, 10),
    lmax: int = 8,
    random_seed: int = 0,
    noise: float = 0.01,
) -> Case:
    """Two noisy bundles that cross, in oblique and anisotropic voxels, float64.

    Of four seeds two start about along one of the bundles, the others anywhere.
    """
    affine = oblique()
    fodf = crossing_bundles(affine, shape, lmax, noise)
    seeds, starts = random_seeds(fodf[..., 0] != 0, affine, n_seeds, random_seed=random_seed)
    starts[::4] = torch.tensor([0.0, 1.0, 0.0]) + 0.3 * starts[::4]
    starts[1::4] = torch.tensor([-1.0, 0.0, -0.4]) + 0.3 * starts[1::4]
    return Case(fodf, affine, seeds, starts)


def filled_case(n_seeds: int = 160, lmax: int = 8) -> Case:
    """A bent bundle that fills its image to the rim, and seeds up to the rim and beyond it."""
    affine, shape = oblique(), (7, 8, 6)
    middle = voxel_centres_mm(shape, affine).reshape(-1, 3).mean(0)
    fodf = fodf_of(circles((float(middle[0]) - 15, float(middle[1]), 0.0)), shape, affine, lmax)
    generator = torch.Generator().manual_seed(5)
    fodf = fodf + 0.02 * torch.randn(fodf.shape, generator=generator, dtype=torch.float64)
    spread = torch.rand(n_seeds, 3, generator=generator, dtype=torch.float64)
    voxel = spread * (torch.tensor(shape) + 0.4) - 0.7
    # On both sides of the very border.
    rims = (-0.5 - 1e-6, -0.5 + 1e-6, 6.5 - 1e-6, 6.5 + 1e-6)
    voxel[:16] = torch.tensor([[i, j, k] for i in rims for j in (0.1, 7.2) for k in (2.4, 3.1)])
    seeds = voxel @ affine[:3, :3].T + affine[:3, 3]
    starts = torch.randn(n_seeds, 3, generator=generator, dtype=torch.float64)
    starts[::2] = torch.tensor([0.0, 1.0, 0.0]) + 0.3 * starts[::2]
    return Case(fodf, affine, seeds, starts)


def anatomy_of(case: Case, *, crop_at_gmwmi: bool = False) -> Anatomy:
    """Tissue on a finer grid of its own: cortex around, deep grey, fluid and a lesion within.

    Borders are as wide as a voxel, and noisy, so that rules meet all sorts of mixtures.
    """
    shape = tuple(case.fodf.shape[:3])
    corners = voxel_centres_mm(shape, case.vox2ras).reshape(-1, 3)
    low, high = corners.amin(0) - 3.0, corners.amax(0) + 3.0
    size_mm = torch.tensor([1.1, 1.3, 1.2], dtype=torch.float64)
    affine = torch.diag(torch.cat([size_mm, torch.ones(1, dtype=torch.float64)]))
    affine[:3, 3] = low
    n = torch.ceil((high - low) / size_mm).int().tolist()
    centres = voxel_centres_mm(tuple(n), affine)
    index = (centres - case.vox2ras[:3, 3]) @ torch.linalg.inv(case.vox2ras[:3, :3]).T
    extent = torch.tensor(shape) / 2.0
    place = (index - extent + 0.5) / extent  # -1 to 1 across the fODFs

    def ball(middle: tuple[float, float, float], radius: float) -> torch.Tensor:
        distance = (place - torch.tensor(middle, dtype=torch.float64)).norm(dim=-1)
        return torch.sigmoid((radius - distance) / 0.05)

    generator = torch.Generator().manual_seed(3)
    deep, lesion = ball((0.05, 0.35, 0.1), 0.25), ball((-0.35, -0.3, 0.0), 0.2)
    fluid, white = ball((0.45, -0.2, -0.1), 0.15), ball((0.0, 0.0, 0.0), 0.8)
    inside = ball((0.0, 0.0, 0.0), 1.1)
    rest = 1 - torch.maximum(torch.maximum(deep, lesion), fluid)
    parts = [inside * (1 - white) * rest, deep, white * rest, fluid, lesion]
    tissues = torch.stack(parts, dim=-1)
    tissues = tissues + 0.05 * torch.rand(tissues.shape, generator=generator) * (tissues > 0.02)
    tissues = torch.where(inside[..., None] > 0.3, tissues, 0).float()
    return Anatomy(tissues.to(case.fodf.device), affine, crop_at_gmwmi)


def regions_of(name: str, case: Case) -> Regions:
    """Regions by name, laid through the middle of a case."""
    mask = case.mask().cpu()
    middle = voxel_centres_mm(tuple(mask.shape), case.vox2ras).reshape(-1, 3).mean(0)
    ball = Sphere(tuple(middle.tolist()), 5.0)
    aside = Sphere(tuple((middle + torch.tensor([3.0, 4.0, 0.0])).tolist()), 4.0)
    slab = torch.zeros_like(mask)
    slab[:, mask.shape[1] // 2] = True
    half = mask.clone()
    half[mask.shape[0] // 2 :] = False
    plane = RegionImage(slab, case.vox2ras)
    # A grid of its own: larger voxels along the scanner's axes.
    coarse = torch.diag(torch.tensor([3.0, 4.0, 5.0, 1.0], dtype=torch.float64))
    coarse[:3, 3] = middle - torch.tensor([9.0, 12.0, 10.0])
    box = torch.zeros(7, 7, 5, dtype=torch.bool)
    box[1:6, 2:5, 1:4] = True
    other = RegionImage(box, coarse)
    return {
        "none": Regions(),
        "mask": Regions(mask=(RegionImage(half, case.vox2ras),)),
        "two masks": Regions(mask=(other, ball)),
        "include image": Regions(include=(plane,)),
        "include sphere": Regions(include=(aside,)),
        "include three": Regions(include=(plane, aside, other)),
        "exclude": Regions(exclude=(aside, plane)),
        "exclude sphere": Regions(exclude=(aside,)),
        "stop": Regions(include=(plane, ball), stop_at_includes=True),
        "all": Regions(
            mask=(RegionImage(mask, case.vox2ras), ball),
            include=(plane,),
            exclude=(aside,),
            stop_at_includes=True,
        ),
    }[name]


REGION_NAMES = [
    *("none", "mask", "two masks", "include image", "include sphere", "include three"),
    *("exclude", "exclude sphere", "stop", "all"),
]


@dataclass(frozen=True)
class Agreement:
    """How alike two results are.

    Attributes
    ----------
    seeds
        Share of the seeds with the same status.
    streamlines
        Share of the streamlines that both have which end alike, at the same numbers of vertices.
    distances_mm
        Largest distance between vertices, for each of these.
    """

    seeds: float
    streamlines: float
    distances_mm: np.ndarray


def agreement(one: Streamlines, other: Streamlines) -> Agreement:
    """Compare two results from the same seeds, streamline by streamline."""
    same_status = (one.seed_status.cpu() == other.seed_status.cpu()).double().mean()
    place = {seed: i for i, seed in enumerate(other.seed_index.tolist())}
    pairs = [(i, place[s]) for i, s in enumerate(one.seed_index.tolist()) if s in place]
    alike, distances = 0, []
    a_all, b_all = (x.points.detach().cpu().double().numpy() for x in (one, other))
    a_at, b_at = one.offsets.tolist(), other.offsets.tolist()
    a_seed, b_seed = one.seed_vertex.tolist(), other.seed_vertex.tolist()
    a_why, b_why = one.stop_reason.tolist(), other.stop_reason.tolist()
    for i, j in pairs:
        a, b = a_all[a_at[i] : a_at[i + 1]], b_all[b_at[j] : b_at[j + 1]]
        if len(a) == len(b) and a_seed[i] == b_seed[j] and a_why[i] == b_why[j]:
            alike += 1
            distances.append(float(np.abs(a - b).max()))
    return Agreement(float(same_status), alike / max(len(pairs), 1), np.array([*distances, 0.0]))


def with_gradients(
    case: Case,
    config: TrackingConfig,
    regions: Regions | None = None,
    anatomy: Anatomy | None = None,
) -> tuple[Streamlines, torch.Tensor, torch.Tensor]:
    """Track, and differentiate a fixed random projection of all vertices by fODF and seeds.

    The weight of a vertex follows from its seed and its number from there, so that streamlines
    that only one implementation keeps do not change those of the others.
    """
    grown = replace(
        case,
        fodf=case.fodf.detach().clone().requires_grad_(),
        seeds=case.seeds.detach().clone().requires_grad_(),
    )
    result = grown.track(config, regions, anatomy)
    (result.points * weights_of(result)).sum().backward()
    return result, grown.fodf.grad, grown.seeds.grad


def weights_of(result: Streamlines) -> torch.Tensor:
    """A number for each coordinate of each vertex that looks random."""
    counts = result.n_vertices()
    owner = torch.repeat_interleave(result.seed_index, counts)
    first = torch.repeat_interleave(result.offsets[:-1] + result.seed_vertex, counts)
    number = torch.arange(len(result.points), device=counts.device) - first
    phase = 12.9898 * owner.double() + 78.233 * number.double()
    axes = torch.tensor([0.3, 1.7, 2.9], dtype=torch.float64, device=counts.device)
    return torch.sin(phase[:, None] * 1.37 + 5 * axes).to(result.points.dtype)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, by the largest value expected."""
    difference = (found.cpu().double() - expected.cpu().double()).abs().max()
    return float(difference / expected.abs().max())
