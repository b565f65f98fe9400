"""The reports of a participant and of a group as Chromium shows them to a reader."""

import base64
import io
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from apps import make_phantom, run_app
from browser import needs_browser, open_browser
from PIL import Image
from report_pages import copy_derivatives, copy_figures, move, page_of_two_sessions

from difftract_bids.checks.table import read_checks
from difftract_bids.checks.verdict import worst
from difftract_bids.cli.group import run_group
from difftract_bids.config import GroupConfig
from difftract_bids.io.matrices import read_matrix
from difftract_bids.io.tractograms import read_tractogram
from difftract_bids.reports.page import assembly
from difftract_bids.reports.page.summary import SIGNS
from difftract_bids.reports.placeholder import write_placeholder

pytestmark = [pytest.mark.external, pytest.mark.integration, needs_browser]
#: Few streamlines, so that the run is short, and everything that a report can show.
EVERYTHING = [
    *("--sloppy", "--n-seeds", "3000", "--gradient-streamlines", "300"),
    *("--denoise-method", "mppca", "--motion-correction", "dipy", "--omp-nthreads", "1"),
    *("--connectome-measures", "count", "meanlength", "sift2"),
    *("--edge-standard-errors", "--sensitivity", "LH-Precentral-Brainstem"),
]
VIEW, MATRIX = ".view3d", ".matrix-view"
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


@pytest.fixture(scope="module")
def window():
    with open_browser() as opened:
        yield opened


@pytest.fixture
def browser(window):
    """Give a window of a desk's size, whatever the test before wanted of it."""
    window.resize(1280)
    window.prefer(dark=False)
    return window


@pytest.fixture(params=["sub-01.html", "group.html"])
def page(request, out):
    return out / request.param


@pytest.fixture
def shown(browser, page):
    """Open a page at the width of a desk's screen, in the light."""
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


def test_what_can_be_chosen_or_pressed_has_a_name(shown):
    assert shown.without_name() == []


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
    for figure in (VIEW, MATRIX) if page.stem == "sub-01" else ():
        browser.draw(figure)
    assert browser.broken_images() == []
    assert browser.console_errors() == []


@pytest.fixture
def report(browser, out):
    """Open the participant's page, and see that its use asks for nothing and raises nothing."""
    browser.resize(1280, 1400)
    yield browser.open(out / "sub-01.html")
    assert browser.console_errors() == []
    assert browser.requests() == []
    assert browser.file_fetches() == []


def choose(browser, **values):
    """Move sliders and tick boxes of the 3-D view; give what is seen then."""
    view = browser.find(VIEW)
    for name, value in values.items():
        browser.run("await choose(...arguments);", view, name.replace("_", "-"), value)
    return browser.still_pixels(browser.find(".view3d-plot")).astype(int)


def look_from(browser, side):
    """Turn the 3-D view; what is seen then differs, if only by where the letters are."""
    plot = browser.find(".view3d-plot")
    before = browser.pixels(plot)
    browser.find(f"{VIEW} button[data-view={side}]").click()
    return browser.still_pixels(plot, unlike=before).astype(int)


def in_colour(pixels):
    """Tell pixels of streamlines by the axis that they follow: red, green, blue."""
    strongest = pixels.argmax(axis=-1)
    vivid = np.ptp(pixels, axis=-1) > 80
    return [int((vivid & (strongest == axis)).sum()) for axis in range(3)]


def in_grey(pixels):
    return int(((np.ptp(pixels, axis=-1) < 10) & (pixels.max(axis=-1) > 60)).sum())


def test_the_3d_view_shows_streamlines_in_the_colours_of_directions_over_grey_slices(report):
    report.resize(1000, 600)
    report.draw(VIEW)
    pixels = choose(report)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 300
    assert min(in_colour(pixels)) > 100
    bare = choose(report, show_streamlines=False)
    assert sum(in_colour(bare)) < 0.02 * sum(in_colour(pixels))
    assert in_grey(bare) > 5000
    empty = choose(report, show_x=False, show_y=False, show_z=False)
    assert in_grey(empty) < 0.1 * in_grey(bare)


def test_sliders_move_slices_and_leave_long_streamlines(report):
    report.resize(1000, 600)
    report.draw(VIEW)
    before = choose(report, show_streamlines=False)
    moved = choose(report, at_x=-20)
    assert (np.abs(moved - before).max(axis=-1) > 20).mean() > 0.01
    assert report.find(f"{VIEW} output[data-of=at-x]").text.endswith("mm L")
    shown = [int(report.find(".view3d-shown").text.replace(",", ""))]
    for shortest in (60, 100):
        choose(report, shortest=shortest)
        shown.append(int(report.find(".view3d-shown").text.replace(",", "")))
    assert shown[0] > shown[1] > shown[2] > 0


def test_right_and_front_are_where_they_should_be_from_every_side(report):
    report.resize(1000, 600)
    report.draw(VIEW)
    # A ball at the right, and in front, and nothing else but the letters. What is cut open would
    # be drawn anew after each turn, some time later.
    hidden = {f"show_{name}": False for name in ("x", "y", "z", "streamlines")}
    choose(report, **hidden, at_x=40, at_y=40, at_z=0, cut=False)
    for side, across in (("back", 1), ("front", -1), ("left", -1), ("right", 1), ("top", 1)):
        empty = look_from(report, side)
        drawn = np.abs(choose(report, radius=15) - empty).max(axis=-1) > 60
        choose(report, radius=0, cut=False)
        assert drawn.sum() > 50, side
        assert across * (np.nonzero(drawn)[1].mean() - drawn.shape[1] / 2) > 30, side


def test_streamlines_of_the_3d_view_end_where_those_of_the_tractogram_do(report, out):
    report.resize(1000, 600)
    report.draw(VIEW)
    choose(report, cut=False)
    shown = report.run("""
        const plot = document.querySelector(".view3d-plot");
        const { x, y, z } = plot.data.find(trace => trace.mode === "lines");
        const there = i => i in x && !Number.isNaN(x[i]);
        const starts = [...x.keys()].filter(i => there(i) && !there(i - 1));
        return starts.map(i => [x[i], y[i], z[i]]);""")
    (tractogram,) = (out / "sub-01" / "dwi").glob("*_tractogram.trx")
    points_mm, offsets = read_tractogram(tractogram)
    ends = np.concatenate([points_mm[offsets[:-1]], points_mm[offsets[1:] - 1]])
    away = np.linalg.norm(np.asarray(shown)[:, None] - ends[None], axis=-1).min(axis=1)
    assert len(shown) == len(offsets) - 1
    assert away.max() < 0.5
    mirrored = np.asarray(shown) * [-1, 1, 1]
    assert np.linalg.norm(mirrored[:, None] - ends[None], axis=-1).min(axis=1).max() > 5


def counts_of(out):
    (table,) = (out / "sub-01" / "dwi").glob("*_meas-count_relmat.dense.tsv")
    counts, names = read_matrix(table)
    return np.fmax(counts, counts.T), list(names)


def point_at(browser, first, second):
    """Move the pointer to the middle of an edge's cell; give what the page tells of it."""
    figure = browser.draw(MATRIX)
    browser.hover(browser.find(f"{MATRIX} .matrix-legend"), 1, 1)
    i, j = browser.run(
        """const names = difftract.dataOf(arguments[0]).names;
        return arguments[1].map(name => names.indexOf(name));""",
        figure,
        [first, second],
    )
    x, y = browser.run(
        "return cellOf(document.querySelector('.matrix-plot'), ...arguments);", i, j
    )
    browser.hover(browser.find(f"{MATRIX} .nsewdrag"), x, y)
    return browser.wait_for(f"{MATRIX} .matrix-tip[data-nodes='{i},{j}']:not([hidden])")


def test_pointing_at_an_edge_tells_its_nodes_and_what_the_table_says_of_it(report, out):
    counts, names = counts_of(out)
    between = np.triu(counts, k=1)
    i, j = np.unravel_index(between.argmax(), between.shape)
    tip = point_at(report, names[i], names[j])
    assert tip.find_element("css selector", "strong").text == f"{names[i]} \N{EN DASH} {names[j]}"
    told = [one.text for one in tip.find_elements("css selector", "dd")]
    assert told[0].split()[0] == f"{counts[i, j]:,.0f}"
    # Another measure: another colour, and it is the one that stands out.
    plot = report.find(".matrix-plot")
    before = report.still_pixels(plot).astype(int)
    chosen = report.find_all(f"{MATRIX} .matrix-tip dt.chosen")
    assert [one.text for one in chosen] == ["Streamlines"]
    options = report.find_all(f"{MATRIX} select option")
    (length,) = [one for one in options if "length" in one.text.lower()]
    length.click()
    after = report.still_pixels(plot).astype(int)
    assert (np.abs(after - before).max(axis=-1) > 30).mean() > 0.01
    point_at(report, names[i], names[j])
    (chosen,) = report.find_all(f"{MATRIX} .matrix-tip dt.chosen")
    assert chosen.text in length.text


def test_a_node_that_is_looked_for_is_marked_and_its_partners_told(report, out):
    counts, names = counts_of(out)
    off = counts - np.diag(np.diag(counts))
    node = int(off.sum(axis=1).argmax())
    report.draw(MATRIX)
    assert not report.find(".matrix-node").is_displayed()
    before = report.still_pixels(report.find(".matrix-plot"))
    report.find(".matrix-search").send_keys(names[node])
    assert report.find(".matrix-node h5").text == names[node]
    assert f"{off[node].sum():,.0f}" in report.find(".matrix-node p").text
    rows = [row.text for row in report.find_all(".matrix-node tr")[1:]]
    partners = [row.split()[0] for row in rows]
    told = [float(row.split()[1].replace(",", "")) for row in rows]
    assert told == sorted(off[node][off[node] > 0], reverse=True)[:10]
    assert told == [off[node][names.index(partner)] for partner in partners]
    marked = report.still_pixels(report.find(".matrix-plot"))
    assert (marked != before).any(axis=-1).sum() > 500
    report.find(".matrix-node button").click()
    assert report.find(".matrix-search").get_attribute("value") == partners[0]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_matrix_is_as_wide_as_it_can_be_however_the_window_was_before(report, width):
    # Plotly keeps room for a colour bar that is gone, and pieces of it, unless told otherwise.
    report.resize(width, 1400)
    report.draw(MATRIX)
    first = report.still_pixels(report.find(".matrix-plot"))
    for other in (1280 + 390 - width, width):
        report.resize(other, 1400)
        report.still_pixels(report.find(".matrix-plot"))
    again = report.still_pixels(report.find(".matrix-plot"))
    assert again.shape == first.shape
    assert (np.abs(again.astype(int) - first).max(axis=-1) > 30).mean() < 0.001


def test_buttons_of_a_flicker_choose_which_picture_is_seen(report):
    flickers = report.find_all(".flicker")
    assert len(flickers) == 3
    for flicker in flickers:
        seen = flicker.find_element("css selector", ".flicker-pictures")
        before, after = (
            Image.open(io.BytesIO(base64.b64decode(one.get_attribute("src").split(",")[1])))
            for one in flicker.find_elements("css selector", "img")
        )
        for kind, right, wrong in (("before", before, after), ("after", after, before)):
            flicker.find_element("css selector", f".flicker-choose-{kind} + label").click()
            pixels = report.pixels(seen).astype(int)
            assert unlike(pixels, right) < unlike(pixels, wrong)


def unlike(pixels, picture):
    shown = picture.convert("RGB").resize(pixels.shape[1::-1], Image.Resampling.BILINEAR)
    return np.abs(pixels - np.asarray(shown, int)).mean()


def test_a_flicker_shows_both_pictures_in_turn_under_the_pointer_unless_nothing_is_to_move(report):
    report.prefer(dark=False, still=False)
    pictures = report.find(".flicker-pictures")
    report.hover(pictures, 50, 50)
    opacity = "return getComputedStyle(document.querySelector('.flicker-after')).opacity;"
    assert seen_within(report, opacity, 60, enough=2) == {"0", "1"}
    report.prefer(dark=False)
    assert seen_within(report, opacity, 1.5) == {"1"}


def seen_within(browser, script, seconds, enough=None):
    """What a script gives while so many seconds pass, or until it has given enough."""
    watch = f"""
        const seen = new Set(), end = performance.now() + 1000 * arguments[0];
        const look = () => {{ {script} }};
        while (performance.now() < end && seen.size < (arguments[1] ?? Infinity)) {{
            seen.add(look());
            await frames(3);
        }}
        return [...seen];"""
    return set(browser.run(watch, seconds, enough))


def test_traffic_lights_say_in_sign_and_word_what_the_checks_found(report, out):
    checks = read_checks(out / "sub-01" / "dwi" / "sub-01_desc-checks_quality.tsv")
    rows = report.find_all("table.lights tr")
    assert len({sign for _, sign in SIGNS.values()}) == len(SIGNS)
    assert len(rows) == len(checks)
    for row, check in zip(rows, checks, strict=True):
        word, sign = SIGNS[check.light]
        light = row.find_element("css selector", ".light").text
        assert light.split(maxsplit=1) == [sign, word]
        assert check.found in " ".join(row.text.split())
    linked = [link.get_attribute("href") for link in report.find_all("table.lights a")]
    assert len(linked) >= len(checks) - 2
    assert all(report.find_all(f"[id='{link.split('#')[1]}']") for link in linked)
    verdict = report.find(".verdict")
    light, many = worst(checks), Counter(check.light for check in checks)
    assert light in verdict.get_attribute("class").split()
    assert SIGNS[light][1] in verdict.text
    assert re.search(rf"\b{many[light]}\b", verdict.text)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_figures_that_are_in_use_can_be_read_in_the_dark_and_on_a_phone(report, out, width, dark):
    counts, names = counts_of(out)
    report.resize(width)
    report.prefer(dark=dark)
    report.draw(VIEW)
    report.draw(MATRIX)
    report.find(".matrix-search").send_keys(names[int(counts.sum(axis=1).argmax())])
    report.find(".flicker-choose-before + label").click()
    i, j = np.unravel_index(counts.argmax(), counts.shape)
    assert point_at(report, names[i], names[j]).is_displayed()
    assert report.low_contrast() == []
    assert report.overflowing() == []
    # On a page that is dark or light itself.
    brightness = """return [...document.querySelectorAll(".matrix-plot text")]
        .filter(one => one.textContent)
        .map(one => luminance(mixed([[getComputedStyle(one).fill, 1]])));"""
    told = report.run(brightness)
    assert told
    assert min(told) > 0.5 if dark else max(told) < 0.1


def test_a_wide_picture_is_scrolled_in_its_own_box_on_a_phone(report):
    report.resize(390)
    boxes = report.run("""return [...document.querySelectorAll(".reportlet")].filter(shown).map(
        one => [one.clientWidth, one.scrollWidth, one.querySelector("img").clientWidth]);""")
    assert boxes
    for seen, whole, picture in boxes:
        assert seen <= 390
        assert 700 <= picture <= whole


def test_on_paper_are_all_pictures_and_nothing_that_wants_a_pointer(report):
    report.run("await scrollThrough();")
    report.prefer(dark=False, printed=True)
    left = "return [...document.querySelectorAll(arguments[0])].filter(shown).map(where);"
    assert report.run(left, f"nav, button, input, select, {VIEW}, {MATRIX}") == []
    pictures = report.find_all("main img")
    assert len(pictures) > 15
    assert all(one.is_displayed() for one in pictures)
    report.resize(718)  # as wide as the text on A4
    assert report.run("""return [...document.images].every(
        one => one.getBoundingClientRect().right <= document.documentElement.clientWidth);""")
    report.prefer(dark=False)
    sheets = re.findall(rb"/Type\s*/Page\b", report.to_pdf())
    assert len(sheets) > 5


def test_a_figure_that_could_not_be_drawn_says_so_and_leaves_no_hole(browser, out, tmp_path):
    figures = copy_figures(out, tmp_path)
    for desc in ("mask_dwi.svg", "view3d_dwi.html"):
        write_placeholder(figures / f"sub-01_desc-{desc}", ValueError("no voxel <is> left & more"))
    browser.open(assembly.assemble_report(tmp_path, "01", run_uuid="x"))
    assert browser.broken_images() == []
    assert browser.console_errors() == []
    assert browser.overflowing() == []
    assert browser.low_contrast() == []
    assert "no voxel <is> left & more" in browser.find(".not-drawn").text
    assert not browser.find_all(VIEW)
    assert browser.draw(MATRIX)


def test_a_page_that_could_not_be_put_together_leads_to_its_figures(
    browser, out, tmp_path, monkeypatch
):
    folder = tmp_path / "Für Ärzte 100% & #1?"
    figures = copy_figures(out, folder)

    def fail(*_, **__):
        raise OSError("the disk <is> full")

    monkeypatch.setattr(assembly, "_assemble", fail)
    browser.resize(390)
    browser.open(assembly.assemble_report(folder, "01", run_uuid="x"))
    assert len(browser.find_all("li a")) == len(list(figures.iterdir()))
    assert browser.broken_links() == []
    assert browser.overflowing() == []
    assert browser.console_errors() == []
    assert "the disk <is> full" in browser.find("body").text


def test_sessions_share_a_page_and_nothing_else(browser, out, tmp_path):
    browser.open(page_of_two_sessions(out, tmp_path))
    assert browser.repeated_ids() == []
    assert browser.broken_links() == []
    for session in ("ses-A", "ses-B"):
        place = f"[id='sub-01_{session}_desc-view3d_dwi'] "
        browser.draw(place + VIEW)
        pixels = browser.still_pixels(browser.find(place + ".view3d-plot")).astype(int)
        assert min(in_colour(pixels)) > 100
    rows = browser.find_all("table.overview tbody tr")
    checks = read_checks(out / "sub-01" / "dwi" / "sub-01_desc-checks_quality.tsv")
    assert [row.find_element("css selector", "a").text for row in rows] == [
        "sub-01_ses-A",
        "sub-01_ses-B",
    ]
    signs = "".join(sorted(SIGNS[check.light][1] for check in checks))
    assert {"".join(sorted(re.sub(r"[\w\s-]", "", row.text))) for row in rows} == {signs}
    # A button of one session's flicker leaves the other's as it was.
    chosen = "[id*='ses-{}'] .flicker-choose-{} + label"
    browser.find(chosen.format("A", "before")).click()
    browser.find(chosen.format("B", "after")).click()
    assert len(browser.find_all(".flicker-choose-before:checked")) == 1
    browser.resize(390)
    assert browser.overflowing() == []
    assert browser.console_errors() == []
