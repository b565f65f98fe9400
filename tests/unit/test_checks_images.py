"""The lights of the diffusion images: good where all is well, and turned by each planted fault."""

import logging

import numpy as np
import pytest

from difftract_bids.checks.acquisition import check_acquisition, damaged_volumes
from difftract_bids.checks.anisotropy import check_anisotropy
from difftract_bids.checks.brain_tissue import powder_average
from difftract_bids.checks.gradient_axes import check_axes
from difftract_bids.checks.mask import check_mask
from difftract_bids.checks.motion import check_motion
from difftract_bids.checks.noise import check_noise
from difftract_bids.checks.verdict import Check
from difftract_bids.errors import InputError
from difftract_bids.interfaces.checked import safely
from difftract_bids.io.gradients import GradientTable
from difftract_bids.phantom.schemes import even_directions

VOXEL_MM = 3.0
VOX2RAS = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
SHAPE = (64, 74, 64)


def table(directions, n_b0=4, bval=1000.0):
    return GradientTable(
        np.r_[np.zeros(n_b0), np.full(len(directions), bval)],
        np.r_[np.zeros((n_b0, 3)), directions],
    )


@pytest.fixture(scope="module")
def even():
    return even_directions(60, np.random.default_rng(0))


def by_pole(directions):
    """Sort from the poles to the equator, as a scan does that measures one cap after the other."""
    return directions[np.argsort(-np.abs(directions[:, 2]))]


# Acquisition ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_b0", "light"), [(0, "bad"), (1, "look"), (2, "good")])
def test_b0_volumes_are_counted(even, n_b0, light):
    assert check_acquisition(table(even, n_b0)).light == light


@pytest.mark.parametrize(("n", "light"), [(5, "bad"), (12, "look"), (30, "good")])
def test_directions_are_counted(n, light):
    check = check_acquisition(table(even_directions(n, np.random.default_rng(1))))
    assert check.light == light
    assert f"{n} at b=1000" in check.found


def test_directions_that_are_measured_again_or_backwards_count_once():
    twelve = even_directions(12, np.random.default_rng(1))
    check = check_acquisition(table(np.concatenate([twelve, -twelve, twelve])))
    assert (check.light, check.value) == ("look", 12)


def test_directions_that_leave_a_part_of_the_sphere_out_are_seen(even):
    z, turn = np.linspace(np.cos(np.radians(50)), 1, 60), np.arange(60) * 2.4
    radius = np.sqrt(1 - z**2)
    cone = np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)
    assert check_acquisition(table(even)).light == "good"
    assert check_acquisition(table(by_pole(even)[12:])).light == "look"
    assert check_acquisition(table(cone)).light == "bad"


def test_volumes_without_signal_are_named(even):
    gradients = table(even)
    dwi = np.random.default_rng(0).uniform(90, 110, (6, 6, 6, 64)).astype(np.float32)
    mask = np.ones((6, 6, 6), dtype=bool)
    assert not damaged_volumes(dwi, mask, gradients).any()
    dwi[..., 7] *= 0.01
    dwi[..., 8] = 100.0
    dwi[:2, ..., 9] = np.nan
    dwi[0, 0, 0, 10] = np.nan  # one voxel of 216
    damaged = damaged_volumes(dwi, mask, gradients)
    assert list(np.flatnonzero(damaged)) == [7, 8, 9]
    check = check_acquisition(gradients, damaged)
    assert check.light == "bad"
    assert "3 volumes without signal (7, 8, 9" in check.found


@pytest.mark.parametrize("n_lost", [1, 16, 40, 64])
def test_however_many_volumes_of_a_shell_are_lost_they_are_found(even, n_lost):
    gradients = table(even)
    n_b0 = int(gradients.b0_mask.sum())
    dwi = np.random.default_rng(0).uniform(90, 110, (4, 4, 4, n_b0 + len(even)))
    dwi[..., ~gradients.b0_mask] *= 0.3
    lost = np.flatnonzero(~gradients.b0_mask)[:n_lost]
    dwi[..., lost] *= 0.001
    damaged = damaged_volumes(dwi, np.ones((4, 4, 4), dtype=bool), gradients)
    assert list(np.flatnonzero(damaged)) == list(lost)


# Axes of the b-vectors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("best", "sure", "z", "light"),
    [
        ("x y z", True, 8.0, "good"),
        ("x y z", False, 2.0, "good"),
        ("x y z", False, 0.4, "look"),
        ("x y z", False, 0.0, "unknown"),
        ("-x y z", False, 2.0, "look"),
        ("-x y z", True, 8.0, "bad"),
    ],
)
def test_axes_are_bad_only_if_others_are_better_beyond_doubt(best, sure, z, light):
    check = check_axes(best, is_identity=best == "x y z", is_sure=sure, margin=0.1, z=z)
    assert check.light == light
    assert ("--fix-gradients" in check.remedy) == (light == "bad")


# Noise ---------------------------------------------------------------------------------------


def noisy_series(directions, snr, *, bval=1000.0, anisotropic=1.0):
    """Simulate tissue whose signal varies with direction, and Gaussian noise."""
    gradients = table(directions, bval=bval)
    rng = np.random.default_rng(0)
    axis = np.array([0.6, 0.0, 0.8])
    along = anisotropic * 1.4e-3 * (gradients.bvecs @ axis) ** 2
    decay = (0.3e-3 + along) * gradients.bvals_s_mm2
    clean = 1000 * np.exp(-decay)
    noise = rng.normal(scale=1000 / snr, size=(12, 12, 12, len(clean)))
    return (clean + noise).astype(np.float32), gradients


# With few directions, what an ellipsoid cannot follow counts as noise: most of a brain has little.
@pytest.mark.parametrize(("n", "anisotropic"), [(60, 1.0), (13, 0.2)])
def test_noise_is_estimated_from_what_is_not_smooth_over_directions(n, anisotropic):
    directions = even_directions(n, np.random.default_rng(0))
    dwi, gradients = noisy_series(directions, 20, anisotropic=anisotropic)
    check = check_noise(dwi, gradients, np.ones(dwi.shape[:3], dtype=bool))
    assert check.light == "good"
    assert check.value == pytest.approx(20, rel=0.12)


@pytest.mark.parametrize(("snr", "light"), [(20, "good"), (8, "look"), (4, "bad")])
def test_a_noise_map_gives_the_ratio(even, snr, light):
    dwi, gradients = noisy_series(even, 100)
    sigma = np.full(dwi.shape[:3], 1000 / snr)
    sigma[0] = 0  # not known there
    check = check_noise(dwi, gradients, sigma >= 0, sigma)
    assert check.light == light
    assert check.value == pytest.approx(snr, rel=0.01)
    assert check.figure == "denoising"


def test_weighted_signal_near_the_noise_floor_is_seen(even):
    dwi, gradients = noisy_series(even, 100, bval=3000.0)
    check = check_noise(dwi, gradients, np.ones(dwi.shape[:3], bool), np.full(dwi.shape[:3], 80.0))
    assert check.value > 10
    assert check.light == "look"
    assert "b=3000" in check.remedy


def test_the_noise_of_magnitudes_is_not_taken_for_less_than_it_is(even):
    """Of nothing but noise, magnitudes are 1.25 of its standard deviations on average."""
    gradients = table(even)
    noise = np.random.default_rng(0).normal(scale=50, size=(2, 12, 12, 12, len(even) + 4))
    mask = np.ones(noise.shape[1:4], dtype=bool)
    signal = 100 * gradients.b0_mask
    dwi = np.hypot(noise[0, ..., : len(signal)] + signal, noise[1, ..., : len(signal)])
    check = check_noise(dwi, gradients, mask)
    assert check.light == "bad"
    assert "1.3 times at b=1000" in check.found
    assert check.value == pytest.approx(dwi[..., gradients.b0_mask].mean() / 50, rel=0.12)


def test_too_few_directions_give_no_estimate_of_the_noise():
    dwi, gradients = noisy_series(even_directions(6, np.random.default_rng(0)), 20)
    assert check_noise(dwi, gradients, np.ones(dwi.shape[:3], dtype=bool)).light == "unknown"


def test_an_empty_mask_or_empty_images_have_no_noise_to_be_judged(even):
    dwi, gradients = noisy_series(even, 20)
    mask = np.zeros(dwi.shape[:3], dtype=bool)
    assert check_noise(dwi, gradients, mask).light == "unknown"
    assert check_noise(0 * dwi, gradients, ~mask).light == "unknown"


# Motion --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usual_mm", "largest_mm", "share", "light"),
    [
        (0.2, 0.2, 0.0, "good"),
        (0.8, 0.8, 0.0, "look"),
        (2.0, 2.0, 0.0, "bad"),
        (0.2, 4.0, 0.0, "look"),
        (0.2, 0.2, 0.02, "look"),
        (0.2, 0.2, 0.1, "bad"),
    ],
)
def test_motion_jumps_and_lost_slices_are_judged(usual_mm, largest_mm, share, light):
    moved = np.full(100, usual_mm)
    moved[0], moved[40] = np.nan, largest_mm
    outliers = np.zeros((50, 100), dtype=bool)
    outliers.ravel()[: round(share * outliers.size)] = True
    check = check_motion(moved, outliers, VOXEL_MM)
    assert check.light == light
    assert check.value == pytest.approx(np.nanmean(moved))
    assert bool(check.remedy) == (light != "good")


def test_motion_that_was_not_measured_is_not_judged():
    assert check_motion(None, None, VOXEL_MM).light == "unknown"
    assert check_motion(None, np.zeros((50, 10), dtype=bool), VOXEL_MM).light == "good"


@pytest.mark.parametrize("replaced", [True, False])
def test_who_has_replaced_lost_slices_is_not_told_to(replaced):
    outliers = np.zeros((50, 10), dtype=bool)
    outliers[:20, 3] = True
    check = check_motion(None, outliers, VOXEL_MM, outliers_replaced=replaced)
    assert check.light == "look"
    assert ("--motion-correction eddy" in check.remedy) != replaced


# Mask ----------------------------------------------------------------------------------------


class Head:
    """Ellipsoids: a brain with fluid about it, skull, scalp, eyes and a neck."""

    def __init__(self):
        index = np.indices(SHAPE).reshape(3, -1).T * VOXEL_MM
        self.at = (index - [94, 112, 105]).T.reshape(3, *SHAPE)  # mm from the middle
        brain, fluid = self.ellipsoid(0), self.ellipsoid(5)
        scalp = self.ellipsoid(17) & ~self.ellipsoid(11)
        x, y, z = self.at
        self.neck = (x**2 + (y + 20) ** 2 < 45**2) & (z < -70)
        self.eyes = (np.abs(x) - 32) ** 2 + (y - 82) ** 2 + (z + 30) ** 2 < 13**2
        self.b0, self.powder = np.full(SHAPE, 20.0), np.full(SHAPE, 15.0)
        for part, b0, powder in (
            (scalp, 300, 90),
            (self.neck & ~self.ellipsoid(11), 300, 120),
            (self.eyes, 2500, 80),
            (fluid, 2500, 100),
            (brain, 1000, 450),
        ):
            self.b0[part], self.powder[part] = b0, powder
        rng = np.random.default_rng(0)
        self.b0 += rng.normal(scale=20, size=SHAPE)
        self.powder += rng.normal(scale=5, size=SHAPE)
        self.mask = fluid

    def ellipsoid(self, more_mm):
        radii = np.array([66, 84, 62]) + more_mm
        return ((self.at / radii[:, None, None, None]) ** 2).sum(axis=0) < 1

    def check(self, mask):
        return check_mask(mask, self.b0, self.powder, VOX2RAS)


@pytest.fixture(scope="module")
def head():
    return Head()


def test_a_mask_that_is_the_brain_is_good(head):
    check = head.check(head.mask)
    assert check.light == "good", check.found
    assert check.value == pytest.approx(head.mask.sum() * 27)
    assert head.check(head.ellipsoid(0)).light == "good"  # without the fluid about it


def test_bright_muscle_that_hangs_on_the_brain_by_a_bridge_is_not_left_out(head):
    x, y, z = head.at
    muscle = (np.abs(x) - 60) ** 2 + (y - 10) ** 2 + (z + 85) ** 2 < 16**2
    bridge = (np.abs(x - 50) < 4) & (np.abs(y - 10) < 4) & (z > -85) & (z < -30)
    powder = np.where(muscle | bridge, 450, head.powder)
    assert check_mask(head.mask, head.b0, powder, VOX2RAS).light == "good"


@pytest.mark.parametrize(
    ("fault", "light"),
    [
        (lambda head: head.mask & (head.at[0] < 0), "bad"),  # a hemisphere missing
        (lambda head: head.mask & (head.at[1] < 40), "bad"),  # the frontal lobe
        (lambda head: head.mask & ~((np.abs(head.at[0]) > 40) & (head.at[1] > 20)), "look"),
        (lambda head: head.mask | head.neck, "bad"),
        (lambda head: head.ellipsoid(17), "bad"),  # the skull taken in
        (lambda head: head.ellipsoid(11), "bad"),  # grown by two voxels
        (lambda head: head.mask | head.eyes, "look"),
        (lambda head: np.roll(head.mask, 5, axis=1), "bad"),  # 15 mm to the front
        (lambda head: head.mask & (np.abs(head.at[0]) > 4), "bad"),  # in two pieces
        (lambda head: np.zeros_like(head.mask), "bad"),
        (lambda head: np.ones_like(head.mask), "bad"),
    ],
    ids=[
        *("hemisphere", "lobe", "poles", "neck", "skull", "grown", "eyes"),
        *("shifted", "pieces", "empty", "everything"),
    ],
)
def test_a_fault_of_the_mask_turns_the_light(head, fault, light):
    check = head.check(fault(head))
    assert check.light == light, check.found
    assert check.remedy


@pytest.mark.parametrize(("kept", "light"), [(slice(0, 52), "look"), (slice(36, None), "bad")])
def test_a_brain_that_the_field_of_view_cuts_is_seen(head, kept, light):
    images = head.mask, head.b0, head.powder
    check = check_mask(*(image[:, :, kept] for image in images), VOX2RAS)
    assert check.light == light, check.found
    assert f"{'upper' if kept.start == 0 else 'lower'} face" in check.found


def test_faces_are_named_by_the_axes_of_the_scanner(head):
    flipped = np.diag([-VOXEL_MM, VOXEL_MM, -VOXEL_MM, 1.0])
    images = (image[:, :, :52] for image in (head.mask, head.b0, head.powder))
    assert "lower face" in check_mask(*images, flipped).found


def test_each_face_is_judged_of_an_image_turned_by_half_a_right_angle(head):
    turn = VOXEL_MM * np.sqrt(0.5)
    turned = np.array([[turn, turn, 0, 0], [-turn, turn, 0, 0], [0, 0, VOXEL_MM, 0], [0, 0, 0, 1]])
    for axis in range(3):
        half = [slice(None)] * 3
        half[axis] = slice(head.mask.shape[axis] // 2, None)
        images = (image[tuple(half)] for image in (head.mask, head.b0, head.powder))
        assert "cut off" in check_mask(*images, turned).found, axis


def test_a_small_brain_is_looked_at_and_not_bad(head):
    small = np.diag([1.5, 1.5, 1.5, 1.0])
    brain = head.ellipsoid(0)
    check = check_mask(brain, head.b0 * brain, head.powder * brain, small)
    assert check.light == "look"
    assert "animals" in check.remedy
    assert "empty" in check.found  # nothing outside to be left out


def test_the_shell_nearest_1000_is_averaged(even):
    bvals = np.repeat([0.0, 300.0, 1200.0, 3000.0], [4, 15, 15, 30])
    gradients = GradientTable(bvals, np.r_[np.zeros((4, 3)), even])
    dwi = np.broadcast_to(bvals.astype(np.float32), (2, 2, 2, 64))
    assert powder_average(dwi, gradients) == pytest.approx(1200)


# Anisotropy ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("white", "grey", "light"),
    [(0.6, 0.15, "good"), (0.35, 0.1, "look"), (0.2, 0.1, "bad"), (0.7, 0.4, "look")],
)
def test_white_matter_must_stand_out(white, grey, light):
    fa = np.full((20, 20, 20), grey)
    fa[:6] = white
    fa[:, 15:] = 0  # outside the mask
    assert check_anisotropy(fa, fa > 0).light == light


def test_an_empty_map_is_bad():
    assert check_anisotropy(np.zeros((5, 5, 5)), np.ones((5, 5, 5), dtype=bool)).light == "bad"


# What goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (
            InputError("The image is cut.", remedy="Copy it again."),
            "The image is cut.",
        ),
    ],
)
def test_a_check_that_fails_is_unknown_and_warned_of(error, told, caplog):
    def fails():
        raise error

    logger = logging.getLogger("nipype.interface")
    logger.addHandler(caplog.handler)  # Nipype's loggers do not pass their records on
    try:
        check = safely("mask", "Brain mask", fails)
    finally:
        logger.removeHandler(caplog.handler)
    assert (check.name, check.title, check.light) == ("mask", "Brain mask", "unknown")
    assert told in check.found
    assert check.remedy
    assert "Brain mask" in caplog.text
    assert type(error).__name__ in caplog.text


def test_a_check_that_does_not_fail_is_given_as_it_is():
    check = Check("mask", "Brain mask", "good", "Well.")
    assert safely("other", "Other", lambda: check) is check
