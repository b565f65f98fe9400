"""Interactive figures on a page of their own: fingers, odd names, and data that cannot be read."""

import numpy as np
import pytest
from browser import needs_browser, open_browser

from difftract_bids.reports.connectome.matrix_view import write_matrix_view
from difftract_bids.reports.page.scripts import page_scripts
from difftract_bids.reports.streamlines.view3d import write_view3d

pytestmark = [pytest.mark.external, needs_browser]
HEAD = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,">'
HEAD += '<meta name="viewport" content="width=device-width">'
NO_SCRIPTS = '<meta http-equiv="Content-Security-Policy" content="script-src \'none\'">'
#: As the report has the picture of a connectome, in the item before its interactive matrix.
PICTURE = '<img src="data:image/svg+xml,%3Csvg/%3E#_desc-connectome_" width="600" height="600">'
ITEMS = (
    f'<div class="item"><div class="reportlet">{PICTURE}</div></div><div class="item">{{}}</div>'
)
VIEW, MATRIX = ".view3d", ".matrix-view"
NAMES = ["L_<sub>a</sub>", "L_b &amp; c", "R_<a href='https://example.org'>d</a>", "R_e"]


@pytest.fixture(scope="module")
def window():
    with open_browser() as opened:
        yield opened


@pytest.fixture
def browser(window):
    """Give a window of a desk's size, whatever the test before wanted of it."""
    window.resize(1280)
    return window


@pytest.fixture
def show(browser, tmp_path):
    """Open a page of such a body with the scripts that it needs."""

    def shown(body, head=HEAD):
        page = tmp_path / "page.html"
        page.write_text(f"{head}{body}{page_scripts(body)}", encoding="utf-8")
        return browser.open(page)

    return shown


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    """Streamlines along each axis through a cube of grey."""
    along = np.linspace(-30, 30, 21)
    lines = [np.roll([along, 0 * along + 15, 0 * along - 15], axis, 0).T for axis in range(3)]
    mask = np.ones((17, 17, 17), bool)
    vox2ras = np.diag([4.0, 4, 4, 1])
    vox2ras[:3, 3] = -32
    points = np.concatenate(lines).astype(np.float32)
    path = tmp_path_factory.mktemp("view") / "view.html"
    write_view3d(points, np.arange(4) * 21, 100.0 * mask, mask, vox2ras, path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    path = tmp_path_factory.mktemp("matrix") / "matrix.html"
    counts = np.array([[0, 999.7, 1, 2], [0, 0, 0, 0], [0, 0, 0, 3.25], [0, 0, 0, 0]])
    write_matrix_view(counts, NAMES, path, groups=["<b>x</b>", "<b>x</b>", "&lt;y", "&lt;y"])
    return path.read_text(encoding="utf-8")


def camera(browser):
    """Where the eye really is, and where the figure takes it to be."""
    eyes = browser.run("""
        const plot = document.querySelector(".view3d-plot"), { layout } = plot;
        const { eye } = plot._fullLayout.scene._scene.getCamera();
        return [eye, layout.scene.camera.eye].map(({ x, y, z }) => [x, y, z]);""")
    return np.array(eyes)


@pytest.fixture
def phone(browser, show, view):
    browser.resize(390, 500)
    show(view).draw(VIEW)
    return browser


def drag(start, stop, n=3):
    return [tuple(place) for place in np.linspace(start, stop, n)]


def test_a_view_stays_as_a_finger_turned_it_and_is_cut_open_from_there(phone):
    plot = phone.find(".view3d-plot")
    before, _ = camera(phone)
    cut = """
        const { x, y, z } = document.querySelector(".view3d-plot").data[3];
        return [...x, ...y, ...z].map(String);"""
    shown = phone.run(cut)
    phone.touch(plot, drag((80, 150), (280, 160)))
    phone.run("await frames(5);")
    turned, known = camera(phone)
    assert np.linalg.norm(turned - before) > 0.5
    np.testing.assert_allclose(known, turned, atol=1e-6)
    assert phone.run(cut) != shown
    phone.find(f"{VIEW} button[data-zoom='0.8']").click()
    nearer, _ = camera(phone)
    np.testing.assert_allclose(nearer, 0.8 * turned, atol=1e-6)


def test_two_fingers_bring_a_view_nearer_and_farther_without_turning_it(phone):
    plot = phone.find(".view3d-plot")
    before, _ = camera(phone)
    phone.touch(plot, drag((150, 180), (100, 180)), drag((200, 180), (250, 180)))
    nearer, known = camera(phone)
    np.testing.assert_allclose(nearer, before / 3, atol=0.01)
    np.testing.assert_allclose(known, nearer, atol=1e-6)
    phone.touch(plot, drag((50, 180), (100, 180)), drag((350, 180), (200, 180)))
    np.testing.assert_allclose(camera(phone)[0], before, atol=0.03)
    assert phone.run("return visualViewport.scale;") == 1  # the page stays as large as it was


@pytest.mark.parametrize("size", [(390, 844), (667, 375)])
def test_a_phone_has_room_beside_the_view_to_scroll_the_page(browser, show, view, size):
    browser.resize(*size)
    show(view, HEAD + NO_SCRIPTS)
    height = "return document.querySelector('.view3d-picture').clientHeight;"
    assert browser.run(height) <= 0.7 * size[1]


def test_a_view_that_could_not_be_drawn_once_is_drawn_the_next_time(show, view):
    browser = show(view)
    browser.draw(VIEW)
    shown = browser.run("""
        const view = document.querySelector(".view3d"), { react } = Plotly;
        Plotly.react = () => Promise.reject(new Error("once"));
        addEventListener("unhandledrejection", event => event.preventDefault());
        view.querySelector("input[name=opacity]").dispatchEvent(new Event("input"));
        await frames(5);
        Plotly.react = react;
        const late = new Promise(done => setTimeout(done, 60000));
        await Promise.race([choose(view, "show-x", false), late]);
        return view.querySelector(".view3d-plot").data[0].visible;""")
    assert shown is False


def test_the_picture_of_a_connectome_gives_way_to_the_matrix_that_tells_more(show, matrix):
    browser = show(ITEMS.format(matrix))
    browser.draw(MATRIX)
    assert not browser.find(".reportlet img").is_displayed()


@pytest.mark.parametrize("fault", ["no scripts", "no data"])
def test_the_picture_of_a_connectome_stays_where_the_matrix_is_not(show, matrix, fault):
    head = HEAD + NO_SCRIPTS if fault == "no scripts" else HEAD
    broken = matrix.replace('"gaps": {', '"gaps": {"type": "none", "was": {}}, "x": {')
    browser = show(ITEMS.format(broken if fault == "no data" else matrix), head)
    assert browser.find(".reportlet img").is_displayed()
    said = browser.find(f"{MATRIX} .figure-message").text
    assert ("could not be read" in said) == (fault == "no data")


def test_a_figure_that_cannot_be_read_leaves_the_others_alone(show, matrix):
    broken = matrix.replace('"names": [', '"names": [}')
    assert broken != matrix
    browser = show(f"<div id='a'>{broken}</div><div id='b'>{matrix}</div>")
    browser.draw(f"#b {MATRIX}")
    said = browser.find("#a .figure-message").text
    assert "The data of this figure could not be read" in said
    assert "JSON" in said


def test_names_are_shown_as_they_are_and_numbers_without_exponents(show, matrix):
    browser = show(matrix)
    browser.draw(MATRIX)
    written = browser.run("""
        return [...document.querySelectorAll(".matrix-plot text")].map(one => one.textContent);""")
    assert {*NAMES, "<b>x</b>", "&lt;y"} <= set(written)
    assert not browser.find_all(".matrix-plot a[href], .matrix-plot a[*|href]")
    browser.find(".matrix-search").send_keys(NAMES[0])
    rows = [row.text.split()[-1] for row in browser.find_all(".matrix-node tr")[1:]]
    assert rows == ["1,000", "2.00", "1"]
    assert browser.console_errors() == []


def test_what_can_be_chosen_or_pressed_has_a_name(show, view, matrix):
    assert show(view + matrix, HEAD + NO_SCRIPTS).without_name() == []
