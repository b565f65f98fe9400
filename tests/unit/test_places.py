"""Seeds and regions that settings name, and the files that these name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import write_dataset
from problems import oblique

from difftract_bids.bids.given_files import check_given_files, regions_of, seeding_of
from difftract_bids.bids.plan import make_plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config, RegionsConfig, SeedingConfig, TrackingConfig, merge
from difftract_bids.core.regions import Sphere
from difftract_bids.core.seeding import (
    GivenSeeds,
    RandomSeeds,
    SeedGrid,
    SeedsPerVoxel,
    SphereSeeds,
    WeightedSeeds,
)
from difftract_bids.errors import ConfigError, DifftractError, InputError
from difftract_bids.io.images import Volume, save_volume
from difftract_bids.io.places import load_regions, load_seed_source, read_coordinates

VOX2RAS = oblique().numpy()


@pytest.fixture
def brain():
    return Volume(np.ones((4, 5, 6), np.float32), VOX2RAS)


@pytest.fixture
def small(tmp_path):
    """An image of two voxels on another grid, with the values 1 and 3."""
    data = np.zeros((3, 3, 3), np.float32)
    data[1, 1, 1], data[2, 0, 0] = 1.0, 3.0
    return save_volume(data, np.diag([2.0, 2, 2, 1]), tmp_path / "small.nii.gz")


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ({}, RandomSeeds),
        ({"seed_random_per_voxel": 2}, SeedsPerVoxel),
        ({"seed_grid_per_voxel": 2}, SeedGrid),
        ({"seed_sphere": "1,2,3,4"}, SphereSeeds),
    ],
)
def test_each_kind_of_seeding_has_its_source(brain, setting, kind):
    source = load_seed_source(SeedingConfig(random_seed=7, **setting), brain)
    assert type(source) is kind
    assert source.random_seed == 7


def test_without_a_seed_image_seeds_are_in_the_brain_and_else_in_the_image(brain, small):
    assert load_seed_source(SeedingConfig(seed_grid_per_voxel=1), brain).total == 4 * 5 * 6
    seeding = SeedingConfig(seed_image=str(small), seed_grid_per_voxel=1)
    seeds_mm, _ = load_seed_source(seeding, brain).draw(0, 2)
    assert sorted(seeds_mm.tolist()) == [[2.0, 2.0, 2.0], [4.0, 0.0, 0.0]]


def test_weights_share_the_seeds_out(brain, small):
    source = load_seed_source(SeedingConfig(seed_rejection=str(small)), brain)
    assert isinstance(source, WeightedSeeds)
    seeds_mm, _ = source.draw(0, 4000)
    assert float((seeds_mm[:, 0] > 3).double().mean()) == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3\n-4 5.5 6e1\n",
        "x\ty\tz\n1\t2\t3\n-4\t5.5\t60\n",
        "# seeds\n\n1,2,3\n-4, 5.5, 60\n",
        "\ufeffx,y,z\r\n1,2,3\r\n-4,5.5,60\r\n",
    ],
)
def test_tables_of_seeds_are_read_in_their_usual_forms(tmp_path, brain, text):
    path = write(tmp_path / "seeds.txt", text)
    source = load_seed_source(SeedingConfig(seed_coordinates=path, seed_direction="0,0,2"), brain)
    assert isinstance(source, GivenSeeds)
    seeds_mm, directions = source.draw(0, 2)
    assert seeds_mm.tolist() == [[1.0, 2.0, 3.0], [-4.0, 5.5, 60.0]]
    assert directions.tolist() == [[0.0, 0.0, 1.0]] * 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2\n", "Row 1"),
        ("1 2 3 4\n", "Row 1"),
        ("x y z\nx y z\n", "Row 2"),
        ("1 2 3\n1 nan 3\n", "Row 2"),
        ("1 2 3\na b c\n", "Row 2"),
        ("x y z\n", "no row"),
        ("", "no row"),
    ],
)
def test_a_table_of_something_else_is_refused_with_its_row(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        read_coordinates(write(tmp_path / "seeds.txt", text))


def test_regions_are_images_or_spheres_and_the_brain_if_no_mask_is_given(brain, small):
    config = RegionsConfig(include=(str(small), "1,-2,3,4.5"), stop=True)
    regions = load_regions(config, brain)
    assert regions.include[1] == Sphere((1.0, -2.0, 3.0), 4.5)
    assert int(regions.include[0].inside.sum()) == 2
    assert regions.stop_at_includes
    assert torch.equal(regions.mask[0].vox2ras, torch.from_numpy(VOX2RAS))
    instead = load_regions(RegionsConfig(mask=("0,0,0,9",)), brain)
    assert instead.mask == (Sphere((0.0, 0.0, 0.0), 9.0),)


def run_of(subject="07", session=None):
    entities = {"subject": subject} | ({"session": session} if session else {})
    return DWIRun(entities, *[None] * 3)


def test_paths_hold_the_labels_of_each_run_and_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_of(session="A")
    seeding = seeding_of(SeedingConfig(seed_image="{subject}/{session}.nii.gz"), run)
    assert seeding.seed_image == str(tmp_path / "07" / "A.nii.gz")
    regions = regions_of(RegionsConfig(exclude=("e-{subject}.nii", "1,2,3,4")), run)
    assert regions.exclude == (str(tmp_path / "e-07.nii"), "1,2,3,4")


def test_a_session_that_a_run_does_not_have_cannot_be_filled_in():
    with pytest.raises(InputError, match="asks for a session"):
        seeding_of(SeedingConfig(seed_image="{session}.nii.gz"), run_of())


BAD_FILES = {
    "missing": (lambda _: None, "no such file"),
    "not an image": (lambda path: path.write_text("hello"), "cannot be read"),
    "four dimensions": (
        lambda path: save_volume(np.ones((2, 2, 2, 3), np.float32), np.eye(4), path),
        "3 are needed",
    ),
    "empty": (
        lambda path: save_volume(np.zeros((2, 2, 2), np.float32), np.eye(4), path),
        "empty",
    ),
}


@pytest.mark.parametrize("damage", BAD_FILES)
@pytest.mark.parametrize(
    ("table", "name"),
    [("seeding", "seed_image"), ("seeding", "seed_rejection"), ("regions", "include")],
)
def test_every_file_is_checked_and_named_with_its_option(tmp_path, damage, table, name):
    spoil, said = BAD_FILES[damage]
    path = tmp_path / "place.nii.gz"
    spoil(path)
    value = [str(path)] if table == "regions" else str(path)
    config = merge(Config(), {table: {name: value}}, where="here")
    with pytest.raises(InputError, match=said) as caught:
        check_given_files(config, run_of())
    assert caught.value.where == str(path)
    assert f"--{name.replace('_', '-')}" in str(caught.value)


def test_weights_below_zero_are_refused(tmp_path):
    path = save_volume(np.array([[[1.0, -1.0]]], np.float32), np.eye(4), tmp_path / "w.nii.gz")
    with pytest.raises(InputError, match="1 of 2 weights are negative"):
        check_given_files(Config(seeding=SeedingConfig(seed_rejection=str(path))), run_of())


def test_a_plan_is_not_made_with_a_file_that_is_not_there_for_a_participant(tmp_path, small):
    dataset = write_dataset(tmp_path / "bids", ["01", "02"])
    small.rename(tmp_path / "01.nii.gz")
    config = Config(seeding=SeedingConfig(seed_image=str(tmp_path / "{subject}.nii.gz")))
    folders = dataset, tmp_path / "out", tmp_path / "work"
    plan = make_plan(*folders, config)
    assert plan.participants == ["01"]
    assert "02.nii.gz" in str(plan.unusable["02"])
    with pytest.raises(DifftractError, match="no such file"):
        make_plan(*folders, config, participants=["02"])


def test_a_plan_is_not_made_for_a_gpu_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    dataset = write_dataset(tmp_path / "bids")
    config = Config(tracking=TrackingConfig(device="cuda"))
    with pytest.raises(ConfigError, match="no NVIDIA GPU"):
        make_plan(dataset, tmp_path / "out", tmp_path / "work", config)
