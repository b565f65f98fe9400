"""Streamlines vertex by vertex against MRtrix3's own tckgen, from the same seeds and directions.

What differs on real data is known. MRtrix interpolates Legendre functions linearly between 512
samples, an error of up to 3e-4 of an amplitude. Where two peaks are about to merge, a search takes
dozens of updates, and such an error decides which peak it finds, and whether within its cap of 50.
With MRtrix's table in the reference propagator, all 10,000 common parts agreed at 3 mm.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from decisions import Decision, decisions, table
from legendre_table import TableField
from mrtrix import Scene, Tckgen, human_scene, phantom_scene, tckgen, write_image
from parity import Pair, pair_up, share_in_common_part, share_of_whole, shared_seeds

from difftract_bids.config import Integrator
from difftract_bids.core import Streamlines, TrackingConfig, track
from difftract_bids.core.propagate import mean_voxel_size_mm, track_field
from difftract_bids.core.seeding import SeedGrid

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("tckgen") is None, reason="MRtrix3's tckgen is not installed"),
]

N_STREAMLINES = 10_000
DIRECTION = (0.3, 0.8, 0.52)
#: Where RK4's streamlines start: its vertices do not tell the direction of its first peak.
DIRECTIONS = (DIRECTION, (-0.9, 0.3, 0.1), (0.9, 0.1, 0.4), (0.6, 0.6, -0.5))
SCENES = {
    "oblique": partial(phantom_scene, "oblique"),
    "isotropic": partial(phantom_scene, "isotropic"),
    "human-3mm": partial(human_scene, "ds-human-3mm"),
    "human": partial(human_scene, "ds-human"),
}
slow = pytest.mark.slow
BOTH_PHANTOMS = [(name, rule) for name in ("oblique", "isotropic") for rule in ("euler", "rk4")]


@dataclass(frozen=True)
class Run:
    """Both programs from the same seeds and directions."""

    scene: Scene
    config: TrackingConfig
    theirs: Tckgen
    starts: torch.Tensor
    pairs: list[Pair]


def directed(direction: tuple[float, ...], *options: object) -> tuple[object, ...]:
    return ("-seed_direction", ",".join(map(str, direction)), *options)


def follow(
    scene: Scene, theirs: Tckgen, starts: torch.Tensor, config: TrackingConfig
) -> Streamlines:
    return track(scene.fodf, theirs.seeds_mm(), starts, scene.vox2ras, config)


@pytest.fixture(scope="module")
def scene_of(tmp_path_factory):
    """Make each scene once."""
    made: dict[str, Scene] = {}

    def scene(name: str) -> Scene:
        if name not in made:
            made[name] = SCENES[name](tmp_path_factory.mktemp(name))
        return made[name]

    return scene


@pytest.fixture(scope="module")
def run_of(scene_of, tmp_path_factory):
    """Track each scene once by each integrator."""
    made: dict[tuple[str, Integrator], Run] = {}

    def run(name: str, integrator: Integrator) -> Run:
        if (name, integrator) not in made:
            made[name, integrator] = run_both(
                scene_of(name), integrator, tmp_path_factory.mktemp("run")
            )
        return made[name, integrator]

    return run


def run_both(scene: Scene, integrator: Integrator, folder) -> Run:
    from_mask = partial(tckgen, scene.fod_file, folder, "-seed_image", scene.mask_file)
    if integrator == "euler":
        theirs = from_mask("-select", N_STREAMLINES)
        starts = theirs.starts()
    else:
        share = N_STREAMLINES // len(DIRECTIONS)
        parts = [
            from_mask("-select", share, *directed(direction), integrator=integrator)
            for direction in DIRECTIONS
        ]
        theirs = Tckgen(
            [line for part in parts for line in part.streamlines],
            np.concatenate([part.seed_vertex for part in parts]),
        )
        starts = torch.tensor(DIRECTIONS).repeat_interleave(share, dim=0)
    config = TrackingConfig(integrator=integrator)
    ours = follow(scene, theirs, starts, config)
    return Run(scene, config, theirs, starts, pair_up(theirs, ours))


@pytest.mark.parametrize(("name", "integrator"), BOTH_PHANTOMS)
def test_every_vertex_on_a_phantom_is_tckgens(run_of, name, integrator, record_property):
    run = run_of(name, integrator)
    common, whole = share_in_common_part(run.pairs), share_of_whole(run.pairs)
    record_property("common_part", common)
    record_property("whole", whole)
    assert len(run.pairs) == N_STREAMLINES
    assert common >= (0.999 if integrator == "euler" else 0.995)
    assert whole >= 0.999


@pytest.mark.parametrize(
    ("name", "integrator", "bar"),
    [
        ("human-3mm", "euler", 0.999),
        ("human-3mm", "rk4", 0.995),
        pytest.param(
            "human",
            "euler",
            0.999,
            marks=[
                slow,
                pytest.mark.xfail(
                    strict=True,
                    reason="99.84%: searches near MRtrix's cap follow its Legendre table, as "
                    "test_with_their_legendre_table_the_reference_differs_no_more shows",
                ),
            ],
        ),
        pytest.param("human", "rk4", 0.995, marks=slow),
    ],
)
def test_common_parts_in_a_human_brain_are_tckgens(run_of, name, integrator, bar, record_property):
    share = share_in_common_part(run_of(name, integrator).pairs)
    record_property("common_part", share)
    assert share >= bar


@pytest.mark.parametrize(
    ("name", "integrator", "bar"),
    [
        ("human-3mm", "euler", 0.990),
        ("human-3mm", "rk4", 0.985),
        pytest.param("human", "euler", 0.990, marks=slow),
        pytest.param("human", "rk4", 0.985, marks=slow),
    ],
)
def test_whole_streamlines_in_a_human_brain_are_tckgens(
    run_of, name, integrator, bar, record_property
):
    share = share_of_whole(run_of(name, integrator).pairs)
    record_property("whole", share)
    assert share >= bar


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize(
    ("name", "per_axis"),
    [("oblique", 2), ("isotropic", 2), ("human-3mm", 1), pytest.param("human", 1, marks=slow)],
)
def test_the_seeds_accepted_are_tckgens(
    scene_of, name, per_axis, integrator, tmp_path, record_property
):
    scene = scene_of(name)
    seeded = scene.mask.clone()
    seeded[:, :, 1::3] = seeded[:, :, 2::3] = False
    seeded_file = write_image(seeded.to(torch.uint8), scene.vox2ras, tmp_path / "seeded.nii.gz")
    grid = ("-seed_grid_per_voxel", seeded_file, per_axis)
    theirs = tckgen(
        *(scene.fod_file, tmp_path, *grid, *directed(DIRECTION, "-select", 0)),
        integrator=integrator,
    )
    source = SeedGrid(seeded, scene.vox2ras, per_axis, random_seed=0, direction=DIRECTION)
    seeds, starts = (drawn.float() for drawn in source.draw(0, source.total))
    config = TrackingConfig(integrator=integrator)
    ours = track(scene.fodf, seeds, starts, scene.vox2ras, config)
    theirs_here, ours_there = shared_seeds(theirs.seeds_mm(), seeds[ours.seed_index])
    record_property("theirs_accepted_here", theirs_here)
    record_property("ours_accepted_there", ours_there)
    assert len(theirs.streamlines) >= 2_000
    assert len(ours) < 0.999 * source.total
    assert min(theirs_here, ours_there) >= 0.99


def differing_decisions(run: Run) -> list[Decision]:
    """What was decided otherwise; without a smallest length, as the short ones are lost."""
    longest = replace(run.config, min_length_mm=0.0)
    pairs = pair_up(run.theirs, follow(run.scene, run.theirs, run.starts, longest))
    return decisions(pairs, run.starts, run.scene.fodf, run.scene.vox2ras, run.config)


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize("name", ["human-3mm", pytest.param("human", marks=slow)])
def test_what_was_decided_otherwise_was_close_or_a_search_that_wanders(
    run_of, name, integrator, record_property
):
    found = differing_decisions(run_of(name, integrator))
    record_property("decisions", "\n" + table(found))
    close = [one.kind() == "search" or one.margin() < 1e-3 for one in found]
    assert len(found) >= 20
    assert sum(close) >= 0.95 * len(found)


def test_settings_and_masks_mean_what_they_mean_to_tckgen(scene_of, tmp_path, record_property):
    scene = scene_of("oblique")
    mask = torch.zeros_like(scene.mask)
    mask[4:22, 3:20, 3:16] = True
    region = write_image(mask.to(torch.uint8), scene.vox2ras, tmp_path / "region.nii.gz")
    settings = {"step": 0.37, "angle": 9, "cutoff": 0.25, "minlength": 8.3, "maxlength": 31.7}
    options = [word for name, value in settings.items() for word in (f"-{name}", value)]
    common = ("-seed_image", scene.mask_file, "-seeds", 5000, "-select", 0, "-mask", region)
    theirs = tckgen(scene.fod_file, tmp_path, *directed(DIRECTION, *common, *options))
    config = TrackingConfig(
        step_size_mm=0.37, max_angle_deg=9, cutoff=0.25, min_length_mm=8.3, max_length_mm=31.7
    )
    seeds = theirs.seeds_mm()
    starts = torch.tensor([DIRECTION]).expand_as(seeds)
    ours = track(scene.fodf, seeds, starts, scene.vox2ras, config, mask)
    share = share_of_whole(pair_up(theirs, ours))
    record_property("whole", share)
    longest = max(map(len, theirs.streamlines))
    assert len(theirs.streamlines) >= 1000
    assert longest == int(ours.n_vertices().max())
    assert share >= 0.999


def test_tckgen_keeps_no_other_seeds_than_we_do(scene_of, tmp_path):
    scene = scene_of("oblique")
    options = ("-seed_image", scene.mask_file, "-seeds", 1000, "-select", 0, "-maxlength", 400)
    directed_so = directed(DIRECTION, *options)
    everything = tckgen(scene.fod_file, tmp_path, *directed_so, "-minlength", 0)
    long_ones = tckgen(scene.fod_file, tmp_path, *directed_so, "-minlength", 25)
    config = TrackingConfig(min_length_mm=25, max_length_mm=400)
    seeds = everything.seeds_mm()
    ours = track(
        scene.fodf, seeds, torch.tensor([DIRECTION]).expand_as(seeds), scene.vox2ras, config
    )
    kept = len(long_ones.streamlines)
    assert kept < len(everything.streamlines)
    assert len(ours) == pytest.approx(kept, abs=0.002 * kept)


@slow
def test_with_their_legendre_table_the_reference_differs_no_more(run_of, record_property):
    run = run_of("human-3mm", "euler")
    n = 3_000
    few = Tckgen(run.theirs.streamlines[:n], run.theirs.seed_vertex[:n])
    field = TableField.from_fodf(run.scene.fodf, run.scene.vox2ras)
    config = run.config.resolve(mean_voxel_size_mm(run.scene.vox2ras))
    with torch.no_grad():
        pairs = pair_up(few, track_field(field, few.seeds_mm(), run.starts[:n], config))
    record_property("common_part", share_in_common_part(pairs))
    record_property("whole", share_of_whole(pairs))
    assert share_in_common_part(pairs) >= 0.9995
    assert share_of_whole(pairs) >= 0.998
