"""Regions, lengths and one-way tracking against tckgen: which seeds are accepted, and vertices.

All seeds are on a grid and start in one direction, so that both programs have the same ones.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from mrtrix import Scene, phantom_scene, tckgen, write_image
from problems import voxel_centres_mm
from scipy.spatial import cKDTree

from difftract_bids.core import SeedStatus, StopReason, TrackingConfig, track
from difftract_bids.core.regions import RegionImage, Regions, Sphere
from difftract_bids.core.seeding import SeedGrid

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("tckgen") is None, reason="MRtrix3's tckgen is not installed"),
]

DIRECTION = (0.3, 0.8, 0.52)
CLOSE_MM = 0.01
SHARE = 0.99


@dataclass(frozen=True)
class Rule:
    """One rule in both programs' words.

    Attributes
    ----------
    options
        For ``tckgen``.
    regions, settings
        The same for `track`.
    met
        What the rule must have led to here.
    """

    options: tuple[object, ...]
    regions: Regions
    settings: dict
    met: SeedStatus | StopReason | None


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    return phantom_scene("oblique", tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def rules(scene, tmp_path_factory) -> dict[str, Rule]:
    """Regions laid through the middle of the phantom, as files, spheres and in memory."""
    folder, shape = tmp_path_factory.mktemp("regions"), tuple(scene.mask.shape)
    centre = voxel_centres_mm(shape, scene.vox2ras).reshape(-1, 3).mean(0)

    def image(name: str, inside: torch.Tensor, affine: torch.Tensor) -> tuple:
        path = write_image(inside.to(torch.uint8), affine, folder / f"{name}.nii.gz")
        return path, RegionImage(inside, affine)

    def ball(shift_mm: tuple[float, float, float], radius_mm: float) -> tuple:
        # Six decimals are what the command line is given.
        place = [round(float(c) + s, 6) for c, s in zip(centre, shift_mm, strict=True)]
        text = ",".join(str(number) for number in (*place, radius_mm))
        return text, Sphere(tuple(place), radius_mm)

    low, slab = torch.zeros(shape).bool(), torch.zeros(shape).bool()
    low[: shape[0] // 2], slab[:, shape[1] // 2 :][:, :2] = True, True
    # Larger voxels on a grid of their own, along the scanner's axes.
    coarse = torch.diag(torch.tensor([4.0, 5.0, 3.0, 1.0], dtype=torch.float64))
    coarse[:3, 3] = centre - torch.tensor([16.0, 17.0, 9.0])
    box = torch.zeros(9, 8, 7).bool()
    box[2:8, 1:6, 1:6] = True
    low_file, low_image = image("low", low, scene.vox2ras)
    slab_file, slab_image = image("slab", slab, scene.vox2ras)
    box_file, box_image = image("box", box, coarse)
    ball_text, ball_here = ball((2.0, 3.0, 0.5), 6.0)
    aside_text, aside = ball((-6.0, -4.0, 2.0), 5.0)
    both = Regions(include=(slab_image, ball_here))
    return {
        "nothing": Rule((), Regions(), {}, None),
        "two masks": Rule(
            ("-mask", low_file, "-mask", box_file),
            Regions(mask=(low_image, box_image)),
            {},
            StopReason.LEFT_MASK,
        ),
        "include image": Rule(
            ("-include", slab_file), Regions(include=(slab_image,)), {}, SeedStatus.MISSED_INCLUDE
        ),
        "include both": Rule(
            ("-include", slab_file, "-include", ball_text), both, {}, SeedStatus.MISSED_INCLUDE
        ),
        "exclude image": Rule(
            ("-exclude", box_file), Regions(exclude=(box_image,)), {}, SeedStatus.EXCLUDED
        ),
        "exclude both": Rule(
            ("-exclude", aside_text, "-exclude", slab_file),
            Regions(exclude=(aside, slab_image)),
            {},
            SeedStatus.EXCLUDED,
        ),
        "stop": Rule(
            ("-include", slab_file, "-include", ball_text, "-stop"),
            Regions(include=(slab_image, ball_here), stop_at_includes=True),
            {},
            StopReason.ALL_INCLUDED,
        ),
        "stop and single vertices": Rule(
            ("-include", ball_text, "-stop", "-minlength", 0),
            Regions(include=(ball_here,), stop_at_includes=True),
            {"min_length_mm": 0.0},
            StopReason.ALL_INCLUDED,
        ),
        "one way": Rule(("-seed_unidirectional",), Regions(), {"one_way": True}, None),
        "one way and include": Rule(
            ("-seed_unidirectional", "-include", ball_text),
            Regions(include=(ball_here,)),
            {"one_way": True},
            SeedStatus.MISSED_INCLUDE,
        ),
        "no smallest length": Rule(("-minlength", 0), Regions(), {"min_length_mm": 0.0}, None),
        "long": Rule(("-minlength", 35), Regions(), {"min_length_mm": 35.0}, SeedStatus.TOO_SHORT),
        "largest length": Rule(
            ("-maxlength", 14), Regions(), {"max_length_mm": 14.0}, StopReason.MAX_LENGTH
        ),
        "all": Rule(
            (
                *("-mask", low_file, "-mask", box_file, "-include", ball_text),
                *("-exclude", aside_text, "-stop", "-minlength", 4),
            ),
            Regions(
                mask=(low_image, box_image),
                include=(ball_here,),
                exclude=(aside,),
                stop_at_includes=True,
            ),
            {"min_length_mm": 4.0},
            StopReason.ALL_INCLUDED,
        ),
    }


CASES = [
    *(
        (name, "euler")
        for name in (
            *("nothing", "two masks", "include image", "include both", "exclude image"),
            *("exclude both", "stop", "stop and single vertices", "one way"),
            *("one way and include", "no smallest length", "long", "largest length", "all"),
        )
    ),
    *((name, "rk4") for name in ("stop", "one way", "no smallest length", "all")),
]


@pytest.mark.parametrize(("name", "integrator"), CASES)
def test_the_rule_is_tckgens(scene, rules, name, integrator, tmp_path, record_property):
    rule = rules[name]
    theirs = tckgen(
        *(scene.fod_file, tmp_path, "-seed_grid_per_voxel", scene.mask_file, 1),
        *("-seed_direction", ",".join(map(str, DIRECTION)), "-select", 0, *rule.options),
        integrator=integrator,
    )
    source = SeedGrid(scene.mask, scene.vox2ras, 1, random_seed=0, direction=DIRECTION)
    seeds, starts = (drawn.float() for drawn in source.draw(0, source.total))
    config = TrackingConfig(integrator=integrator, **rule.settings)
    ours = track(scene.fodf, seeds, starts, scene.vox2ras, config, None, rule.regions)

    away, nearest = cKDTree(seeds.numpy()).query(theirs.seeds_mm().numpy())
    assert away.max() < 1e-3
    place = {seed: i for i, seed in enumerate(ours.seed_index.tolist())}
    pairs = [(i, place[s]) for i, s in enumerate(nearest.tolist()) if s in place]
    accepted = (len(pairs) / len(theirs.streamlines), len(pairs) / max(len(ours), 1))
    alike = [
        same(theirs.streamlines[i], ours[j].numpy())
        and int(theirs.seed_vertex[i]) == int(ours.seed_vertex[j])
        for i, j in pairs
    ]
    whole = sum(alike) / len(alike)
    record_property("accepted_seeds", f"{len(theirs.streamlines)} theirs, {len(ours)} ours")
    record_property("shared_theirs_ours", accepted)
    record_property("within_0.01_mm", whole)
    assert len(pairs) >= 100
    assert min(accepted) >= SHARE
    assert whole >= SHARE
    if rule.met is not None:
        counts = ours.count_stops() if isinstance(rule.met, StopReason) else ours.count_seeds()
        assert counts[rule.met] >= 20


def same(theirs: np.ndarray, ours: np.ndarray) -> bool:
    """Whether two streamlines have as many vertices, each within 0.01 mm."""
    if theirs.shape != ours.shape:
        return False
    return bool(np.linalg.norm(theirs - ours, axis=1).max() < CLOSE_MM)


def test_single_vertices_are_kept_like_tckgens(scene, tmp_path):
    # Where steps are so long that many streamlines cannot make one.
    options = ("-minlength", 0, "-step", 20, "-maxlength", 100)
    theirs = tckgen(
        *(scene.fod_file, tmp_path, "-seed_grid_per_voxel", scene.mask_file, 1),
        *("-seed_direction", ",".join(map(str, DIRECTION)), "-select", 0, *options),
        integrator="rk4",
    )
    source = SeedGrid(scene.mask, scene.vox2ras, 1, random_seed=0, direction=DIRECTION)
    seeds, starts = (drawn.float() for drawn in source.draw(0, source.total))
    config = TrackingConfig(
        integrator="rk4", step_size_mm=20.0, min_length_mm=0.0, max_length_mm=100.0
    )
    ours = track(scene.fodf, seeds, starts, scene.vox2ras, config)
    single = sum(len(line) == 1 for line in theirs.streamlines)
    assert single > 100
    assert int((ours.n_vertices() == 1).sum()) == pytest.approx(single, rel=0.01)
    assert len(ours) == pytest.approx(len(theirs.streamlines), rel=0.01)
