"""Anatomically constrained tracking against ``tckgen -act``, from its own seeds and directions."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from human import tissues_of
from mrtrix import Scene, human_scene, phantom_scene, run_mrtrix, tckgen
from parity import pair_up, share, shared_seeds, vertices_agree
from tracking_cases import Case, anatomy_of

from difftract_bids.core import Anatomy, SeedStatus, StopReason, TrackingConfig, track
from difftract_bids.core.interface_seeds import InterfaceSeeds, interface_weights
from difftract_bids.core.seeding import SeedGrid
from difftract_bids.io.five_tissue_types import load_anatomy
from difftract_bids.io.images import load_volume, save_volume

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("tckgen") is None, reason="MRtrix3's tckgen is not installed"),
]

CLOSE_MM = 0.1
N_SEEDS = 10_000
DIRECTION = (0.3, 0.8, 0.52)


@dataclass(frozen=True)
class Place:
    """An fODF image, its tissue, and where grey and white matter meet by 5tt2gmwmi."""

    scene: Scene
    tissue_file: Path
    interface_file: Path

    def anatomy(self, *, crop: bool = False) -> Anatomy:
        return load_anatomy(self.tissue_file, crop_at_gmwmi=crop)


@pytest.fixture(scope="module")
def place_of(tmp_path_factory):
    """Make each place once."""
    places: dict[str, Place] = {}

    def get(name: str) -> Place:
        if name not in places:
            folder = tmp_path_factory.mktemp(name)
            if name == "phantom":
                scene = phantom_scene("oblique", folder)
                case = Case(scene.fodf, scene.vox2ras, scene.fodf, scene.fodf)
                anatomy = anatomy_of(case)
                # The sum of fractions is 1 in each voxel of a 5TT.
                total = anatomy.tissues.sum(-1, keepdim=True)
                tissues = torch.where(total > 0, anatomy.tissues / total.clamp(min=1e-6), 0)
                file = folder / "5tt.nii.gz"
                save_volume(tissues.numpy(), anatomy.vox2ras.numpy(), file)
            else:
                scene = human_scene(name, folder)
                file = tissues_of(scene)
            interface = folder / "interface.nii.gz"
            run_mrtrix("5tt2gmwmi", file, interface, "-quiet", "-force")
            places[name] = Place(scene, file, interface)
        return places[name]

    return get


@pytest.mark.parametrize("name", ["phantom", "ds-human-3mm"])
def test_mrtrix_takes_our_tissue_for_a_5tt(place_of, name):
    run_mrtrix("5ttcheck", place_of(name).tissue_file, "-quiet")


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize("crop", [False, True], ids=["whole", "cropped"])
@pytest.mark.parametrize("seeding", ["image", "gmwmi"])
@pytest.mark.parametrize("name", ["phantom", "ds-human-3mm"])
def test_streamlines_are_tckgens_vertex_by_vertex(
    place_of, name, seeding, crop, integrator, tmp_path, record_property
):
    place = place_of(name)
    scene, seeds_in = place.scene, place.interface_file
    if seeding == "image":
        seeds_in = place.scene.mask_file
    theirs = tckgen(
        *(scene.fod_file, tmp_path, f"-seed_{seeding}", seeds_in, "-seeds", N_SEEDS),
        # Known to both, as the first vertices do not tell with which direction RK4 started.
        *("-select", 0, "-seed_direction", ",".join(map(str, DIRECTION))),
        *("-act", place.tissue_file, *(["-crop_at_gmwmi"] if crop else [])),
        integrator=integrator,
    )
    seeds = theirs.seeds_mm().float()
    given = (seeds, torch.tensor([DIRECTION]).expand_as(seeds), scene.vox2ras)
    config = TrackingConfig(integrator=integrator)
    ours = track(scene.fodf, *given, config, None, None, place.anatomy(crop=crop))
    whole = share([vertices_agree(pair, CLOSE_MM) for pair in pair_up(theirs, ours)])
    record_property("streamlines", len(theirs.streamlines))
    record_property("whole_within_0.1_mm", whole)
    stops = ours.count_stops()
    assert len(theirs.streamlines) >= 1000
    assert stops[StopReason.LEFT_DEEP_GREY] > 50
    assert stops[StopReason.ENTERED_CORTEX] > 500
    if seeding == "gmwmi":
        assert stops[StopReason.NONE] > 500  # one way from the interface
    assert whole >= 0.99


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize("name", ["phantom", "ds-human-3mm"])
def test_the_seeds_rejected_are_tckgens(place_of, name, integrator, tmp_path, record_property):
    place = place_of(name)
    scene = place.scene
    theirs = tckgen(
        *(scene.fod_file, tmp_path, "-seed_grid_per_voxel", scene.mask_file, 1, "-select", 0),
        *("-seed_direction", ",".join(map(str, DIRECTION)), "-act", place.tissue_file),
        integrator=integrator,
    )
    source = SeedGrid(scene.mask, scene.vox2ras, 1, random_seed=0, direction=DIRECTION)
    seeds, starts = (drawn.float() for drawn in source.draw(0, source.total))
    config = TrackingConfig(integrator=integrator)
    given = (scene.fodf, seeds, starts, scene.vox2ras, config, None, None)
    ours = track(*given, place.anatomy())
    theirs_here, ours_there = shared_seeds(theirs.seeds_mm(), seeds[ours.seed_index])
    record_property("theirs_accepted_here", theirs_here)
    record_property("ours_accepted_there", ours_there)
    counts = ours.count_seeds()
    record_property("seeds", {status.name: n for status, n in counts.items()})
    for status in (
        *(SeedStatus.UNSUITABLE_TISSUE, SeedStatus.ENDED_IN_FLUID),
        SeedStatus.ENDED_IN_WHITE_MATTER,
    ):
        assert counts[status] > 20
    assert len(theirs.streamlines) > 500
    assert min(theirs_here, ours_there) >= 0.98


def test_candidates_for_interface_seeds_are_5tt2gmwmis(place_of):
    place = place_of("ds-human-3mm")
    theirs = torch.from_numpy(load_volume(place.interface_file, ndim=3).data)
    ours = interface_weights(place.anatomy())
    assert np.corrcoef(ours.flatten(), theirs.flatten())[0, 1] > 0.9999


def test_interface_seeds_give_as_many_streamlines_as_tckgens(place_of, tmp_path):
    place = place_of("ds-human-3mm")
    scene, anatomy = place.scene, place.anatomy()
    theirs = tckgen(
        *(scene.fod_file, tmp_path, "-seed_gmwmi", place.interface_file, "-seeds", N_SEEDS),
        *("-select", 0, "-act", place.tissue_file),
    )
    drawn = InterfaceSeeds(anatomy, random_seed=1).draw(0, N_SEEDS)
    seeds, starts = (x.float() for x in drawn)
    ours = track(scene.fodf, seeds, starts, scene.vox2ras, TrackingConfig(), None, None, anatomy)
    assert len(ours) == pytest.approx(len(theirs.streamlines), rel=0.05)
    lengths = [np.linalg.norm(np.diff(line, axis=0), axis=1).sum() for line in theirs.streamlines]
    assert float(ours.lengths_mm().mean()) == pytest.approx(float(np.mean(lengths)), rel=0.05)
