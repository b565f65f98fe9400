"""Seeds and regions against those of MRtrix3's ``tckgen``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from problems import fodf_of, oblique, scaling

from difftract_bids.core.interpolation import Grid
from difftract_bids.core.regions import (
    EXCLUDED,
    IN_MASK,
    Region,
    RegionImage,
    Regions,
    Sphere,
    bits_at,
    compile_regions,
)
from difftract_bids.core.seeding import SeedGrid, SeedsPerVoxel, SphereSeeds, WeightedSeeds

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("tckgen") is None, reason="MRtrix3's tckgen is not installed"),
]

SHAPE = (6, 5, 4)


def save(data: torch.Tensor, affine: torch.Tensor, path: Path) -> Path:
    values = data.to(torch.uint8) if data.dtype == torch.bool else data.float()
    nib.save(nib.Nifti1Image(values.numpy(), affine.numpy()), path)
    return path


def some_mask() -> torch.Tensor:
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) > 0.5
    # MRtrix 3.0.3 never seeds in the first voxel along RAS+ axes: it is a corner of the image.
    for corner in np.ndindex(2, 2, 2):
        mask[tuple(-i for i in corner)] = False
    return mask


def mrtrix_seeds(folder: Path, *options: object) -> torch.Tensor:
    """Seeds in MRtrix's order: its SeedTest accepts every one."""
    image = save(some_mask(), oblique(), folder / "any.nii.gz")
    words = ["tckgen", "-algorithm", "SeedTest", image, folder / "seeds.tck", *options]
    words += ["-output_seeds", folder / "seeds.csv", "-nthreads", 0, "-quiet", "-force"]
    environment = dict(os.environ, MRTRIX_RNG_SEED="7")
    subprocess.run([str(word) for word in words], env=environment, check=True)
    table = np.loadtxt(folder / "seeds.csv", delimiter=",", usecols=(2, 3, 4), ndmin=2)
    return torch.from_numpy(table)


def nearest_voxels(seeds_mm: torch.Tensor) -> torch.Tensor:
    grid = Grid.from_affine(SHAPE, oblique(), seeds_mm.device)
    return grid.nearest(grid.to_voxel(seeds_mm.T))


def stored_otherwise(mask: torch.Tensor, order: tuple[int, ...], axes: tuple[int, ...]):
    """Store the same image with its axes in another order, some reversed."""
    affine = oblique()
    affine[:, :3] = affine[:, list(order)]
    mask = mask.permute(order)
    for axis in axes:
        mask = mask.flip(axis)
        affine[:, 3] += affine[:, axis] * (mask.shape[axis] - 1)
        affine[:, axis] *= -1
    return mask, affine


@pytest.mark.parametrize("per_axis", [1, 2, 3])
@pytest.mark.parametrize(
    ("order", "reversed_axes"), [((0, 1, 2), ()), ((2, 0, 1), (1,)), ((1, 0, 2), (0, 1, 2))]
)
def test_grids_are_mrtrixs_in_place_and_order(per_axis, order, reversed_axes, tmp_path):
    mask, affine = stored_otherwise(some_mask(), order, reversed_axes)
    image = save(mask, affine, tmp_path / "mask.nii.gz")
    theirs = mrtrix_seeds(tmp_path, "-seed_grid_per_voxel", image, per_axis)
    source = SeedGrid(mask, affine, per_axis, 0)
    assert len(theirs) == source.total == int(mask.sum()) * per_axis**3
    assert float((source.draw(0, source.total)[0] - theirs).abs().max()) < 1e-4


def test_random_seeds_per_voxel_come_in_mrtrixs_order(tmp_path):
    image = save(some_mask(), oblique(), tmp_path / "mask.nii.gz")
    theirs = mrtrix_seeds(tmp_path, "-seed_random_per_voxel", image, 7)
    source = SeedsPerVoxel(some_mask(), oblique(), 7, 0)
    ours, _ = source.draw(0, source.total)
    assert torch.equal(nearest_voxels(ours), nearest_voxels(theirs))


def test_seeds_by_weight_are_distributed_as_by_rejection(tmp_path):
    weights = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3)) * some_mask()
    image = save(weights, oblique(), tmp_path / "weights.nii.gz")
    n = 50_000
    theirs = mrtrix_seeds(tmp_path, "-seed_rejection", image, "-seeds", n, "-select", 0)
    ours, _ = WeightedSeeds(weights, oblique(), 0).draw(0, n)
    heavy = weights.reshape(-1) > 0
    expected = n * weights.reshape(-1)[heavy] / weights.sum()
    degrees = int(heavy.sum()) - 1
    for seeds_mm in (ours, theirs):
        counts = torch.bincount(nearest_voxels(seeds_mm), minlength=weights.numel())
        assert int(counts[~heavy].sum()) == 0
        chi_square = float(((counts[heavy] - expected) ** 2 / expected).sum())
        assert abs(chi_square - degrees) < 4 * (2 * degrees) ** 0.5


def test_seeds_in_a_sphere_are_distributed_as_mrtrixs(tmp_path):
    n = 20_000
    theirs = mrtrix_seeds(tmp_path, "-seed_sphere", "3,-4,5,2.5", "-seeds", n, "-select", 0)
    ours, _ = SphereSeeds((3.0, -4.0, 5.0), 2.5, 0).draw(0, n)
    for seeds_mm in (ours, theirs):
        offset = (seeds_mm - torch.tensor([3.0, -4.0, 5.0])) / 2.5
        shares = (offset.norm(dim=1) ** 3 * 10).long().clamp(max=9).bincount(minlength=10)
        assert float(((shares - n / 10) ** 2 / (n / 10)).sum()) < 30
        assert (offset.mean(0).abs() < 0.02).all()


@pytest.fixture(scope="module")
def tckgen_from_the_middle(tmp_path_factory) -> Callable[..., np.ndarray]:
    """Track along straight lines in x from (4, 15, 13) mm: the x of the vertices, or none."""
    folder = tmp_path_factory.mktemp("lines")
    affine = scaling(2.0, (-20.0, 5.0, 3.0))
    x_axis = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    fod = save(
        fodf_of(lambda p: x_axis.expand(p.shape), (30, 10, 10), affine),
        affine,
        folder / "fod.nii.gz",
    )

    def run(options: Regions) -> np.ndarray:
        words: list[object] = ["tckgen", "-algorithm", "SD_STREAM", fod, folder / "lines.tck"]
        words += ["-seed_sphere", "4,15,13,0", "-seeds", 1, "-select", 0, "-minlength", 0]
        words += ["-seed_direction", "1,0,0", "-nthreads", 0, "-quiet", "-force"]
        for name in ("mask", "include", "exclude"):
            for region in getattr(options, name):
                words += [f"-{name}", specification(region, folder / f"{len(words)}.nii.gz")]
        subprocess.run([str(word) for word in words], check=True)
        streamlines = list(nib.streamlines.load(folder / "lines.tck").streamlines)
        return streamlines[0][::-1, 0] if streamlines else np.zeros(0)

    return run


def specification(region: Region, path: Path) -> object:
    """Put a region as an argument of tckgen."""
    if isinstance(region, Sphere):
        return ",".join(map(str, (*region.centre_mm, region.radius_mm)))
    return save(region.inside, region.vox2ras, path)


def slab(start_mm: float, size_mm: float) -> RegionImage:
    """Voxels of their own grid, as far as lines go in y and z."""
    affine = scaling(1.0, (0.0, 0.0, 0.0))
    affine[:3, :3] = torch.diag(torch.tensor([size_mm, 50.0, 50.0]))
    affine[:3, 3] = torch.tensor([start_mm + size_mm / 2, 15.0, 13.0])
    return RegionImage(torch.ones(1, 1, 1, dtype=torch.bool), affine)


AHEAD, BEHIND, AT_SEED = slab(10.07, 1.0), slab(-7.93, 2.0), Sphere((4.0, 15.0, 13.0), 0.01)
BESIDE = Sphere((4.0, 15.0, 15.0), 2.0)  # its surface touches the seed
CASES = {
    "two masks": Regions(mask=(slab(1.07, 5.0), slab(6.07, 3.0))),
    "masks of both kinds": Regions(mask=(slab(1.07, 5.0), Sphere((8.0, 15.0, 13.0), 3.13))),
    "mask without the seed": Regions(mask=(AHEAD,)),
    "exclude ahead": Regions(exclude=(BESIDE, AHEAD)),
    "exclude at the seed": Regions(exclude=(AT_SEED,)),
    "exclude touches the seed": Regions(exclude=(BESIDE,)),
    "exclude beyond the mask": Regions(mask=(slab(1.07, 5.0),), exclude=(AHEAD,)),
    "exclude out of the way": Regions(exclude=(Sphere((4.0, 15.0, 15.0), 1.99),)),
    "include at the seed": Regions(include=(AT_SEED,)),
    "include touches the seed": Regions(include=(BESIDE,)),
    "include on both sides": Regions(include=(AHEAD, BEHIND)),
    "include beyond the mask": Regions(mask=(slab(1.07, 5.0),), include=(AHEAD,)),
    "one include missed": Regions(include=(AHEAD, Sphere((0.0, 20.0, 13.0), 2.0))),
}


@pytest.mark.parametrize("regions", CASES.values(), ids=CASES.keys())
def test_regions_keep_and_cut_as_tckgens(regions, tckgen_from_the_middle):
    """The rules of `Regions`, followed along the line that tckgen makes without regions."""
    theirs = tckgen_from_the_middle(regions)
    x = torch.from_numpy(tckgen_from_the_middle(Regions()).copy()).double()
    seed = int((x - 4.0).abs().argmin())
    compiled = compile_regions(regions, "cpu")
    bits = bits_at(compiled, torch.stack([x, torch.full_like(x, 15.0), torch.full_like(x, 13.0)]))
    outside = torch.nonzero(bits & IN_MASK == 0).squeeze(1)
    first = max([int(i) + 1 for i in outside if i <= seed], default=0)
    last = min([int(i) for i in outside if i >= seed], default=len(x))
    here = bits[first:last]
    visited = 0
    for bit in here.tolist():
        visited |= bit
    kept = first <= seed < last and not visited & EXCLUDED
    kept = kept and visited & compiled.needed == compiled.needed
    assert np.allclose(theirs, x[first:last].numpy() if kept else np.zeros(0), atol=1e-4)
