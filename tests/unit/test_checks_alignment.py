"""Checks of T1w, template and parcellation turn when what they look for is planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat
from scipy import ndimage

from difftract_bids.checks.likeness import Likeness, shrunken
from difftract_bids.checks.parcellation import check_parcellation
from difftract_bids.checks.registration import (
    check_coregistration,
    check_template,
    dice,
    tissue_outside,
)
from difftract_bids.checks.sides import side_of
from difftract_bids.interfaces.alignment_checks import CheckParcellation
from difftract_bids.io.images import Volume, save_volume

SHAPE, SIZE_MM = (30, 36, 26), 4.0
GRID = np.diag([SIZE_MM] * 3 + [1.0])
GRID[:3, 3] = -SIZE_MM * (np.array(SHAPE) - 1) / 2
X, Y, Z = np.meshgrid(*(SIZE_MM * (np.arange(n) - (n - 1) / 2) for n in SHAPE), indexing="ij")
INSIDE = (X / 44) ** 2 + (Y / 56) ** 2 + (Z / 40) ** 2 < 1


@pytest.fixture(scope="module")
def head():
    """A brain whose folds differ from side to side: T1w, b=0 image, mask, FA."""
    return simulated(seed=3)


def simulated(seed):
    noise = np.random.default_rng(seed).standard_normal(SHAPE)
    folds = ndimage.gaussian_filter(noise, 7 / SIZE_MM)
    white = INSIDE * (folds > 0)
    fluid = INSIDE * (folds < -0.7 * folds.std())
    t1w = 40 + 60 * white - 30 * fluid
    return {
        "t1w": volume(ndimage.gaussian_filter(INSIDE * t1w, 0.6)),
        "dwiref": volume(INSIDE * (300.0 - 100 * white + 600 * fluid)),
        "mask": volume(INSIDE),
        "fa": volume(0.1 + 0.5 * white),
    }


def volume(data):
    return Volume(np.asarray(data, np.float32), GRID)


def moved(image, shift_mm=(0, 0, 0), angles_deg=(0, 0, 0), flip=(1, 1, 1)):
    x, y, z = np.deg2rad(angles_deg)
    motion = from_matvec(euler2mat(z, y, x) @ np.diag(flip), shift_mm)
    return Volume(image.data, motion @ image.vox2ras)


def coregistration(head, t1w=None, **more):
    given = head | {"t1w": head["t1w"] if t1w is None else t1w} | more
    return check_coregistration(**given)


def test_a_t1w_in_its_place_is_good(head):
    check = coregistration(head)
    assert (check.light, check.name, check.unit, check.remedy) == ("good", "coreg", "mm", "")
    assert check.value < 1


@pytest.mark.parametrize("shift_mm", [(5, 0, 0), (0, 0, -6)])
def test_a_shift_of_half_a_centimetre_is_to_be_looked_at_and_told(head, shift_mm):
    check = coregistration(head, moved(head["t1w"], shift_mm))
    assert check.light == "look"
    assert check.value == pytest.approx(max(map(abs, shift_mm)), abs=1)


@pytest.mark.parametrize(
    ("shift_mm", "angles_deg"),
    [((-25, 0, 0), (0, 0, 0)), ((0, 0, 0), (0, 0, 18))],
)
def test_a_large_motion_is_bad(head, shift_mm, angles_deg):
    check = coregistration(head, moved(head["t1w"], shift_mm, angles_deg))
    assert check.light == "bad"
    assert check.remedy


@pytest.mark.parametrize(
    ("flip", "words"), [((-1, 1, 1), "left to right"), ((1, -1, 1), "front to back")]
)
def test_a_flip_is_bad_and_named(head, flip, words):
    check = coregistration(head, moved(head["t1w"], flip=flip))
    assert check.light == "bad"
    assert f"flipped {words} it fits better" in check.found
    assert "orientation" in check.remedy


def test_a_t1w_of_somebody_else_is_not_good(head):
    check = coregistration(head, simulated(seed=4)["t1w"])
    assert check.light in {"look", "bad"}


def test_of_a_symmetric_head_the_sides_are_not_claimed(head):
    same = {name: volume((v.data + v.data[::-1]) / 2) for name, v in head.items()}
    check = coregistration(same)
    assert check.light == "good"
    assert "left and right cannot be told apart" in check.found


def test_an_image_without_contrast_is_bad(head):
    check = coregistration(head, volume(np.zeros(SHAPE)))
    assert check.light == "bad"
    assert "mirrored" not in check.found


def test_tissue_outside_the_mask_turns_the_light(head):
    tissues = Volume(np.stack([INSIDE, *[np.zeros(SHAPE)] * 4], axis=-1), GRID)
    half = volume(INSIDE & (X < 10))
    assert tissue_outside(tissues, head["mask"]) == 0
    share = float((INSIDE & (X >= 10)).sum() / INSIDE.sum())
    assert tissue_outside(tissues, half) == pytest.approx(share)
    check = coregistration(head, mask=half, five_tissue_types=tissues)
    assert check.light == "bad"
    assert f"{share:.0%} of its grey and white matter is outside the mask" in check.found


def test_what_is_explained_does_not_depend_on_contrast(head):
    inverted = volume((1000 - head["t1w"].data) ** 2)
    here = np.zeros(6)
    one, other = (
        Likeness.of([image.data], head["mask"], head["t1w"], sigma_mm=2, spacing_mm=6)
        for image in (head["t1w"], inverted)
    )
    assert one.explained(here) == pytest.approx(1, abs=0.02)
    assert other.explained(here) == pytest.approx(one.explained(here), abs=0.02)
    assert one.explained(np.array([12.0, 0, 0, 0, 0, 0])) < 0.5


def test_a_pure_shift_displaces_the_brain_by_its_length(head):
    likeness = Likeness.of([head["fa"].data], head["mask"], head["t1w"], sigma_mm=2, spacing_mm=6)
    assert likeness.displacement_mm(np.array([3.0, 4, 0, 0, 0, 0])) == pytest.approx(5)


def test_an_empty_mask_is_refused(head):
    with pytest.raises(ValueError, match="mask is empty"):
        coregistration(head, mask=volume(np.zeros(SHAPE)))


def test_shrinking_keeps_an_image_in_its_place():
    fine = np.diag([0.9, 1, 1, 1.0])
    blob = np.zeros((60, 40, 40), np.float32)
    blob[20:30, 11:21, 5:15] = 1
    small = shrunken(Volume(blob, fine))
    assert small.data.shape == (30, 20, 20)
    centre = ndimage.center_of_mass(small.data)
    expected = fine @ [*ndimage.center_of_mass(blob), 1]
    np.testing.assert_allclose(small.vox2ras @ [*centre, 1], expected, atol=1e-3)


def test_dice_of_halves_is_what_it_should_be():
    one, other = np.zeros((2, 8, 1, 1), bool)
    one[:4], other[2:6] = True, True
    assert dice(one, other) == 0.5
    assert dice(one & ~one, one & ~one) == 0


@pytest.mark.parametrize(
    ("shift_vox", "light"), [(0, "good"), (1, "look"), (-4, "bad")], ids=["none", "4mm", "16mm"]
)
def test_a_template_that_is_shifted_turns_the_light(head, shift_vox, light):
    template = np.roll(INSIDE * head["t1w"].data, shift_vox, axis=1)
    check = check_template(head["t1w"], head["mask"], template, name="Mean")
    assert (check.light, check.of, check.name) == (light, "Mean", "template")
    expected = dice(template > 0, INSIDE)
    assert check.value == pytest.approx(expected, abs=1e-3)


def test_a_template_of_other_folds_is_bad_though_the_brains_overlap(head):
    template = INSIDE * simulated(seed=4)["t1w"].data
    check = check_template(head["t1w"], head["mask"], template, name="Mean")
    assert check.value > 0.93
    assert check.light == "bad"
    assert "nowhere does the T1w fit the warped template" in check.found


NAMES = ("L_Front", "R_Front", "L_Back", "R_Back")
SIDES = tuple(map(side_of, NAMES))


def parcels():
    """Four parcels: left and right, front and back, at the rim of the brain."""
    rim = INSIDE & ((X / 36) ** 2 + (Y / 48) ** 2 + (Z / 32) ** 2 > 1) & (np.abs(X) > 8)
    return Volume((rim * (1 + (X > 0) + 2 * (Y < 0))).astype(np.int32), GRID)


def parcellation(labels, **more):
    deep = (X / 28) ** 2 + (Y / 40) ** 2 + (Z / 24) ** 2 < 1
    given = {"names": NAMES, "index": (1, 2, 3, 4), "sides": SIDES, "fa": volume(0.6 * deep)}
    return check_parcellation(labels, volume(INSIDE), atlas="Four", **(given | more))


def test_a_parcellation_on_the_rim_is_good():
    check = parcellation(parcels())
    assert (check.light, check.of, check.value) == ("good", "Four", 0)
    assert "left and right are as the names say" in check.found


def test_a_flipped_parcellation_is_bad():
    flipped = Volume(parcels().data[::-1], GRID)
    check = parcellation(flipped)
    assert check.light == "bad"
    assert "4 of 4 parcels with a side in their name are on the other side" in check.found
    assert check.figure == "nodes"  # where the side that a name says is seen
    assert parcellation(parcels()).figure == "parcellation"


def test_the_table_of_another_atlas_is_found_out_by_the_sides():
    assert parcellation(parcels(), index=(2, 1, 4, 3)).light == "bad"
    assert parcellation(parcels(), index=(2, 1, 3, 4)).light == "bad"


def test_lost_parcels_are_named():
    few = Volume(np.where(parcels().data == 3, 0, parcels().data), GRID)
    check = parcellation(few)
    assert check.light == "bad"
    assert "1 of 4 parcels have no voxel (L_Back)" in check.found
    many = tuple(range(1, 41))
    names = tuple(f"Node{i}" for i in many)
    all_there = Volume(np.where(INSIDE, np.arange(INSIDE.size).reshape(SHAPE) % 40 + 1, 0), GRID)
    more = {"index": (*many, 99), "names": (*names, "Lost"), "sides": ("",) * 41, "fa": None}
    assert parcellation(all_there, **more).light == "look"


@pytest.mark.parametrize(("shift_vox", "light"), [(1, "look"), (6, "bad")])
def test_parcels_beyond_the_brain_turn_the_light(shift_vox, light):
    check = parcellation(Volume(np.roll(parcels().data, shift_vox, axis=1), GRID), fa=None)
    assert check.light == light


def test_parcels_in_white_matter_are_to_be_looked_at():
    deep = (X / 24) ** 2 + (Y / 36) ** 2 + (Z / 20) ** 2 < 1
    check = parcellation(Volume((deep * (1 + (X > 0) + 2 * (Y < 0))).astype(np.int32), GRID))
    assert check.light == "look"
    assert "white matter" in check.remedy


def test_anisotropy_everywhere_says_nothing_of_where_parcels_are():
    noisy = np.random.default_rng(0).uniform(0, 0.9, SHAPE)
    check = parcellation(parcels(), fa=volume(noisy))
    assert check.light == "good"
    assert "which here does not tell white matter" in check.found


def test_no_parcel_at_all_is_bad():
    assert parcellation(Volume(np.zeros(SHAPE, np.int32), GRID)).light == "bad"


def test_a_check_that_cannot_be_made_turns_no_run_into_a_failure(tmp_path):
    """The mask is on another grid, so that the arrays do not go together."""
    table = tmp_path / "nodes.tsv"
    table.write_text("index\tname\n1\tOne\n")
    labels = save_volume(np.ones((4, 4, 4), np.int32), np.eye(4), tmp_path / "labels.nii.gz")
    mask = save_volume(np.ones((5, 4, 4), bool), np.eye(4), tmp_path / "mask.nii.gz")
    check = CheckParcellation(
        parcellation=str(labels), table=str(Path(table)), mask=str(mask), atlas="One"
    )
    (found,) = check.run(cwd=tmp_path).outputs.checks
    assert (found["light"], found["of"]) == ("unknown", "One")
