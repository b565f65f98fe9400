"""Which fODF model a run gets, by its shells and the settings, and the words that say why."""

import numpy as np
import pytest
from acquisitions import directions, scheme

from difftract_bids.bids.fodf_model import ONE_TISSUE, ModelChoice, choose_model, usable_shells
from difftract_bids.config import TISSUES, FodfConfig
from difftract_bids.errors import ConfigError, GradientError
from difftract_bids.io.gradients import GradientTable


def jittered(*shells, spread, n_b0=4, b0=0.0, seed=0):
    """A table whose b-values scatter about those asked for, as some scanners write them."""
    table = scheme(*shells, n_b0=n_b0)
    rng = np.random.default_rng(seed)
    bvals = table.bvals_s_mm2 + rng.uniform(-spread, spread, len(table.bvals_s_mm2))
    return GradientTable(np.where(table.bvals_s_mm2 > 0, bvals, b0), table.bvecs)


def grid(b_max=4000.0, radius=4):
    """A half grid in q-space, as of diffusion spectrum imaging: many shells of few directions."""
    axis = np.arange(-radius, radius + 1)
    points = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    squared = (points**2).sum(axis=1)
    kept = (squared <= radius**2) & ((points @ [100, 10, 1] > 0) | (squared == 0))
    length = np.sqrt(squared[kept])[:, None]
    bvecs = points[kept] / np.where(length > 0, length, 1)
    return GradientTable(b_max * squared[kept] / radius**2, bvecs)


SCHEMES = {
    "one shell": (scheme((1000, 64)), "csd"),
    "one shell, jittered": (jittered((1000, 64), spread=15), "csd"),
    "two shells": (scheme((1000, 30), (3000, 60)), "msmtcsd"),
    "995, 1005, 2985": (jittered((1000, 90), (2985, 90), spread=5), "msmtcsd"),
    "HCP: b=5 for b=0, three jittered shells": (
        jittered((1000, 90), (2000, 90), (3000, 90), spread=15, n_b0=18, b0=5.0),
        "msmtcsd",
    ),
    "ABCD: a small low shell": (
        scheme((500, 6), (1000, 15), (2000, 15), (3000, 60)),
        "msmtcsd",
    ),
    "a few stray volumes are no shell": (scheme((300, 4), (1000, 64)), "csd"),
    "two low shells": (scheme((200, 12), (500, 30)), "csd"),
    "two shells of six directions": (scheme((1000, 6), (2000, 6)), "csd"),
    "grid (DSI)": (grid(), "msmtcsd"),
    "no b=0": (scheme((1000, 30), (3000, 60), n_b0=0), "csd"),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_the_model_follows_from_the_shells(name):
    table, expected = SCHEMES[name]
    choice = choose_model(table, FodfConfig())
    assert choice.name == expected
    assert choice.reason


def test_the_reason_names_the_shells():
    choice = choose_model(scheme((1000, 30), (3000, 60), n_b0=3), FodfConfig())
    assert choice.reason == (
        "there are 2 usable shells besides b=0 (volumes per shell: b=0: 3, b=1000: 30, b=3000: 60)"
    )
    asked = choose_model(scheme((1000, 30)), FodfConfig(model="csd"))
    assert asked.reason.startswith("it was asked for")


def test_a_ramp_of_b_values_is_no_shell():
    bvals = np.concatenate([[0.0], np.arange(100, 3000, 50.0)])
    table = GradientTable(bvals, np.vstack([np.zeros((1, 3)), directions(len(bvals) - 1)]))
    assert len(table.shells()) == 2
    assert usable_shells(table) == []


@pytest.mark.parametrize("model", TISSUES)
def test_what_is_asked_for_is_taken(model):
    choice = choose_model(scheme((1000, 30), (3000, 60)), FodfConfig(model=model))
    assert choice.name == model
    assert choice.tissues == TISSUES[model]
    assert choice.is_multi_tissue == (model != "csd")


def test_two_tissues_of_one_shell_only_if_asked_for():
    table = scheme((1000, 64))
    assert choose_model(table, FodfConfig()).name == "csd"
    assert choose_model(table, FodfConfig(model="ss2t")).tissues == ("WM", "CSF")


def test_three_tissues_of_one_shell_are_refused_with_the_shells_and_what_to_take_instead():
    with pytest.raises(GradientError, match=r"there is one .*b=0: 3, b=1000: 64") as caught:
        choose_model(scheme((1000, 64)), FodfConfig(model="msmtcsd"))
    assert "ss2t" in caught.value.remedy
    assert "csd" in caught.value.remedy


@pytest.mark.parametrize("model", ["msmtcsd", "ss2t"])
def test_tissues_without_b0_are_refused(model):
    with pytest.raises(GradientError, match="needs b=0"):
        choose_model(scheme((1000, 30), (3000, 60), n_b0=0), FodfConfig(model=model))


def test_settings_that_do_not_go_with_the_chosen_model_are_refused():
    table = scheme((1000, 30), (3000, 60))
    with pytest.raises(ConfigError, match="white matter alone"):
        choose_model(table, FodfConfig(response_algorithm="tournier"))
    with pytest.raises(ConfigError, match="2 responses are given"):
        choose_model(table, FodfConfig(response=("a.txt", "b.txt")))


def test_a_given_image_needs_no_model():
    choice = choose_model(scheme((1000, 64)), FodfConfig(input_fodf="fod.nii.gz"))
    assert choice == ModelChoice("given", "an fODF image was given")
    assert not choice.is_fitted
    assert choice.tissues == ("WM",)
    assert ONE_TISSUE.is_fitted
