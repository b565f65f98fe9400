"""The reports of a participant and of a group as Chromium shows them to a reader."""

import base64
import io
import re
import shutil
from pathlib import Path

import pytest
from apps import make_phantom, run_app
from browser import needs_browser, open_browser
from PIL import Image

from difftract_bids.cli.group import run_group
from difftract_bids.config import GroupConfig

pytestmark = [pytest.mark.external, pytest.mark.integration, needs_browser]
#: Few streamlines, so that the run is short, and everything that a report can show.
EVERYTHING = [
    *("--sloppy", "--n-seeds", "3000", "--gradient-streamlines", "300"),
    *("--denoise-method", "mppca", "--motion-correction", "dipy", "--omp-nthreads", "1"),
    *("--connectome-measures", "count", "meanlength", "sift2"),
    *("--edge-standard-errors", "--sensitivity", "LH-Precentral-Brainstem"),
]
#: The participant that stands apart from the others of the group.
MOVED = "06"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One participant's derivatives, five like them, and the group's."""
    dataset = make_phantom(tmp_path_factory.mktemp("reports") / "bids")
    out = dataset.parent / "out"
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    options = ["-w", dataset.parent / "work", "--atlases", truth, *EVERYTHING]
    done = run_app(dataset, out, "participant", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    for number in range(2, 7):
        copy_derivatives(out, f"0{number}", 1 + 0.02 * number)
    move(out, MOVED, 20)
    run_group(out, GroupConfig(), None, None, work_dir=dataset.parent / "work")
    return out


def copy_derivatives(out, label, factor):
    """Give the group another participant, who moved so much more."""
    for path in sorted(out.glob("sub-01*")) + sorted((out / "sub-01").rglob("*")):
        target = out / str(path.relative_to(out)).replace("sub-01", f"sub-{label}")
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    page = out / f"sub-{label}.html"
    page.write_text(page.read_text().replace("sub-01", f"sub-{label}"))
    move(out, label, factor)


def move(out, label, factor):
    table = out / f"sub-{label}" / "dwi" / f"sub-{label}_desc-confounds_timeseries.tsv"
    header, first, *rows = (line.split("\t") for line in table.read_text().splitlines())
    column = header.index("framewise_displacement")
    for row in rows:
        row[column] = str(float(row[column]) * factor)
    table.write_text("".join("\t".join(row) + "\n" for row in (header, first, *rows)))


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture(params=["sub-01.html", "group.html"])
def page(request, out):
    return out / request.param


@pytest.fixture
def shown(browser, page):
    """Open a page at the width of a desk's screen, in the light."""
    browser.resize(1280)
    browser.prefer(dark=False)
    return browser.open(page)


def test_nothing_goes_wrong_and_nothing_is_asked_for_while_a_page_is_read(shown):
    assert shown.broken_images() == []
    assert shown.console_errors() == []
    assert shown.requests() == []
    assert shown.file_fetches() == []


def test_bitmaps_inside_vector_pictures_decode(page):
    figures = (page.parent / page.stem / "figures").glob("*.svg")
    pictures = [page.read_text(), *(figure.read_text() for figure in figures)]
    bitmaps = [
        base64.b64decode(data)
        for text in pictures
        for data in re.findall(r"data:image/\w+;base64,([A-Za-z0-9+/=\s]+)", text)
    ]
    assert bitmaps
    for bitmap in bitmaps:
        with Image.open(io.BytesIO(bitmap)) as image:
            image.load()


def test_pictures_say_in_words_what_they_show(shown):
    assert shown.without_alt() == []


def test_links_lead_to_what_lies_in_the_page_or_beside_it(shown):
    assert shown.broken_links() == []


def test_the_page_of_a_group_leads_to_each_participant(browser, out):
    browser.open(out / "group.html")
    linked = {link.get_attribute("href") for link in browser.find_all("a[href*='sub-']")}
    assert linked == {(out / f"sub-0{number}.html").as_uri() for number in range(1, 7)}
    told = browser.find("#outliers").text
    assert f"sub-{MOVED}" in told
    assert "sub-02" not in told


def test_sections_are_in_the_list_of_sections_under_their_names(shown):
    sections = shown.run("""
        return [...document.querySelectorAll("main section")].map(
            one => ["#" + one.id, one.querySelector("h2").textContent.trim()]);""")
    listed = shown.run("""
        return [...document.querySelectorAll("nav a")].map(
            one => [one.getAttribute("href"), one.textContent.trim()]);""")
    assert len(sections) >= 4
    assert [one for one in listed if one in sections] == sections


def test_no_two_elements_have_one_identifier(shown):
    assert shown.repeated_ids() == []


def test_a_phone_shows_a_page_without_scrolling_sideways(browser, page):
    browser.resize(390, 844)
    assert browser.open(page).overflowing() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser, page, dark):
    browser.resize(1280)
    browser.prefer(dark=dark)
    assert browser.open(page).low_contrast() == []


def test_a_dark_page_is_dark(shown):
    light = shown.run("return luminance(mixed([[getComputedStyle(document.body).color, 1]]));")
    shown.prefer(dark=True)
    dark = shown.run("return luminance(mixed([[getComputedStyle(document.body).color, 1]]));")
    assert light < 0.05
    assert dark > 0.5


def test_a_page_and_its_figures_can_be_taken_anywhere(browser, page, tmp_path):
    elsewhere = tmp_path / "Für Ärzte 100% & #1?"
    figures = Path(page.stem) / "figures"
    shutil.copytree(page.parent / figures, elsewhere / figures)
    shutil.copy(page, elsewhere)
    browser.open(elsewhere / page.name)
    assert browser.find_all("main img")
    assert browser.broken_images() == []
    assert browser.console_errors() == []
