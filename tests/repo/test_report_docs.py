"""What docs/report.md says of the checks is what they do, and its pictures are there."""

import re
from pathlib import Path

import pytest

from difftract_bids.checks import (
    acquisition,
    anisotropy,
    connectome,
    mask,
    motion,
    noise,
    parcellation,
    registration,
    streamlines,
)

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PICTURES = ROOT / "docs" / "pictures"
TEXT = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
PAIRS = [
    ("how evenly they are spread", acquisition._LOOK_SPREAD, acquisition._BAD_SPREAD, 1),
    ("mean framewise displacement", motion._LOOK_MEAN_MM, motion._BAD_MEAN_MM, 1),
    ("slices whose signal fell out", motion._LOOK_SLICES, motion._BAD_SLICES, 100),
    ("median over the brain at b=0", noise._LOOK_B0, noise._BAD_B0, 1),
    ("of the strongest shell", noise._LOOK_DWI, noise._BAD_DWI, 1),
    ("bright tissue left out", mask._LOOK_LEFT_OUT, mask._BAD_LEFT_OUT, 100),
    ("neither tissue nor fluid", mask._LOOK_NOT_BRAIN, mask._BAD_NOT_BRAIN, 100),
    ("second piece", mask._LOOK_PIECE, mask._BAD_PIECE, 100),
    ("on a face of the image", mask._LOOK_CUT, mask._BAD_CUT, 100),
    ("FA's 90th percentile", anisotropy._LOOK_WHITE, anisotropy._BAD_WHITE, 1),
    ("its median", anisotropy._LOOK_MEDIAN, anisotropy._BAD_MEDIAN, 1),
    ("fits b=0 and FA best", *registration._AWAY_MM.values(), 1),
    ("share of its contrast", *registration._ALIKE.values(), 100),
    ("its grey and white matter outside", *registration._TISSUE_OUTSIDE.values(), 100),
    ("overlap of its brain", *registration._OVERLAP.values(), 1),
    ("voxels of parcels outside", *parcellation._OUTSIDE.values(), 100),
    ("that their name does not say", *parcellation._WRONG_SIDE.values(), 100),
    ("seeds that gave one", *streamlines._KEPT.values(), 100),
    ("median length", *streamlines._MEDIAN_MM.values(), 1),
    ("turned too sharply", *streamlines._TURNED.values(), 100),
    ("at the border of mask or image", *streamlines._CUT.values(), 100),
    ("both ends in a parcel", *connectome._ASSIGNED.values(), 100),
    ("nodes without any", *connectome._EMPTY.values(), 100),
    ("left minus right", *connectome._IMBALANCE.values(), 100),
    ("cross the midline", *connectome._CROSSING.values(), 100),
]


@pytest.mark.parametrize(("words", "look", "bad", "factor"), PAIRS, ids=[one[0] for one in PAIRS])
def test_limits_are_those_of_the_check(words, look, bad, factor):
    (row,) = [line for line in TEXT.splitlines() if line.startswith("|") and words in line]
    sign = "≥" if bad > look else "≤"
    cells = row.split("|")[3:5]
    told = [re.fullmatch(rf" {sign} ([\d.]+)(%| mm)? ", cell) for cell in cells]
    assert [float(cell[1]) for cell in told] == pytest.approx([look * factor, bad * factor])
    assert all((cell[2] == "%") == (factor == 100) for cell in told)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text):
        assert (page.parent / target).is_file(), target


def test_every_picture_is_shown_and_they_are_light_and_have_words():
    shown = "".join(page.read_text(encoding="utf-8") for page in [*DOCS, ROOT / "README.md"])
    alts = dict(re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", shown))
    assert all(len(alt.split()) > 4 for alt in alts)
    pictures = list(PICTURES.iterdir())
    assert {path.name for path in pictures} == {Path(target).name for target in alts.values()}
    assert sum(path.stat().st_size for path in pictures) < 1_500_000
