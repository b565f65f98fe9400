"""Figures of the fODF stage show what they claim to show."""

import numpy as np
import pytest

from difftract_bids.modelling.zonal import zonal_basis
from difftract_bids.reports.drawing.style import CATEGORIES
from difftract_bids.reports.fodf.response import amplitudes, plot_response
from difftract_bids.reports.fodf.tissues import plot_tissues, tissue_shares

WM = np.array([[900.0, 0, 0], [500.0, -150.0, 30.0], [300.0, -140.0, 60.0]])
GM = np.array([[1000.0], [500.0], [200.0]])
BVALS = (0.0, 1000.0, 3000.0)
MASK = np.zeros((12, 14, 10), dtype=bool)
MASK[2:-2, 2:-2, 2:-2] = True


def test_the_signal_at_an_angle_is_that_of_the_zonal_series():
    angle = np.linspace(0, np.pi / 2, 7)
    np.testing.assert_allclose(amplitudes(WM[1], angle), zonal_basis(np.cos(angle), 4) @ WM[1])
    np.testing.assert_allclose(amplitudes(GM[1], angle), 500 / np.sqrt(4 * np.pi))


def test_a_line_per_shell_has_the_colour_of_the_gradient_figure(tmp_path):
    path = plot_response({"WM": (BVALS, WM), "GM": (BVALS, GM)}, tmp_path / "r.svg")
    text = path.read_text()
    for shell in range(2):
        assert CATEGORIES[shell] in text
    assert CATEGORIES[2] not in text


def test_the_only_shell_of_a_response_keeps_the_colour_of_the_images_shell(tmp_path):
    one = {"WM": ((2990.0,), WM[1:2])}
    text = plot_response(one, tmp_path / "r.svg", shells_s_mm2=[700, 2000, 3000]).read_text()
    assert CATEGORIES[2] in text
    assert CATEGORIES[0] not in text


def test_the_decay_of_tissues_needs_more_than_one_shell(tmp_path):
    several = plot_response({"WM": (BVALS, WM)}, tmp_path / "a.svg").read_text()
    one = plot_response({"WM": (BVALS[1:2], WM[1:2])}, tmp_path / "b.svg").read_text()
    assert several.count("axes_") > one.count("axes_")


def test_each_tissue_has_its_colour_and_shares_sum_to_one():
    amounts = np.random.default_rng(0).random((3, *MASK.shape))
    tissues = dict(zip(("CSF", "GM", "WM"), amounts, strict=True))
    shares = tissue_shares(tissues, MASK)
    np.testing.assert_allclose(shares[MASK].sum(axis=-1), 1.0)
    np.testing.assert_allclose(shares[MASK], (amounts / amounts.sum(0))[:, MASK].T)
    assert not shares[~MASK].any()
    del tissues["GM"]
    assert not tissue_shares(tissues, MASK)[..., 1].any()


def test_what_is_not_finite_or_negative_has_no_share():
    wm, csf = np.ones(MASK.shape), np.ones(MASK.shape)
    wm[5, 5, 5], wm[5, 6, 5], csf[5, 6, 5] = np.nan, -2.0, 0.0
    shares = tissue_shares({"WM": wm, "CSF": csf}, MASK)
    np.testing.assert_array_equal(shares[5, 5, 5], [1, 0, 0])
    np.testing.assert_array_equal(shares[5, 6, 5], [0, 0, 0])


def test_an_empty_mask_still_gives_a_picture(tmp_path):
    tissues = {"WM": np.ones(MASK.shape), "CSF": np.zeros(MASK.shape)}
    nothing = np.zeros_like(MASK)
    path = plot_tissues(tissues, nothing, np.eye(4), tmp_path / "a.svg", field=tissues["WM"])
    assert "<svg" in path.read_text()


@pytest.mark.parametrize(
    ("spread", "drawn"), [(0.0, False), (0.01, False), (0.3, True), (8.0, True)]
)
def test_lines_of_the_field_are_drawn_where_it_varies(tmp_path, spread, drawn):
    ramp = np.linspace(1, 1 + spread, MASK.shape[0])[:, None, None] * np.ones(MASK.shape)
    tissues = {"WM": np.ones(MASK.shape), "CSF": np.zeros(MASK.shape)}
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    plain = plot_tissues(tissues, MASK, affine, tmp_path / "a.svg").read_text()
    lined = plot_tissues(tissues, MASK, affine, tmp_path / "b.svg", field=ramp).read_text()
    grown = lined.count("<path") > plain.count("<path")
    assert grown == drawn
    assert lined.count("<path") < plain.count("<path") + 2000
