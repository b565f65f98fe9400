"""The browser of the other tests finds each fault that is planted in a page, and no other."""

import numpy as np
import pytest
from browser import needs_browser, open_browser
from PIL import Image

pytestmark = [pytest.mark.external, needs_browser]
HEAD = '<!DOCTYPE html><html lang="en"><meta name="color-scheme" content="light dark">'
HEAD += '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
ALT = "One circle and nothing else"
#: A page without a fault, whatever is asked.
GOOD = """
<style>@media (prefers-color-scheme: dark) { p { color: #ccc } }</style>
<nav><a href="#part">Part</a> <a href="b%20%C3%BC.html">Other</a> <a href="https://doi.org/1">DOI</a></nav>
<section id="part"><h2>Part</h2><p>Words</p>
<div style="height: 2000px"></div>
<details><summary>More</summary>
<img loading="lazy" src="a.png" alt="A square of one colour"></details>
<label>Size <input type="range"></label><label for="side">Side</label><select id="side"></select>
<button>Go</button><input type="checkbox" aria-label="All">
<div style="overflow-x: auto"><table style="width: 3000px"><tr><td>Wide</td></tr></table></div>
</section>"""


@pytest.fixture(scope="module")
def browser():
    with open_browser(390, 800) as opened:
        yield opened


@pytest.fixture
def show(browser, tmp_path):
    """Open a page of such a body, beside a picture and another page."""

    def shown(body):
        Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "a.png")
        (tmp_path / "broken.svg").write_text("<svg")
        (tmp_path / "b ü.html").write_text(HEAD + '<p id="there">Other</p>')
        page = tmp_path / "page.html"
        page.write_text(HEAD + body)
        browser.prefer(dark=False)
        return browser.open(page)

    return shown


def faults(browser):
    told = {
        "console": browser.console_errors(),
        "requests": browser.requests(),
        "files": browser.file_fetches(),
        "images": browser.broken_images(),
        "links": browser.broken_links(),
        "alt": browser.without_alt(),
        "width": browser.overflowing(),
        "contrast": browser.low_contrast(),
        "ids": browser.repeated_ids(),
        "names": browser.without_name(),
    }
    return {kind: found for kind, found in told.items() if found}


@pytest.mark.parametrize("dark", [False, True])
def test_a_good_page_has_no_fault(browser, show, dark):
    show(GOOD)
    browser.prefer(dark=dark)
    assert faults(browser) == {}


@pytest.mark.parametrize(
    ("planted", "kinds"),
    [
        ("<script>console.error('no')</script>", {"console"}),
        ("<script>nothing()</script>", {"console"}),
        ("<script>Promise.reject(new Error('no'))</script>", {"console"}),
        (
            '<meta http-equiv="Content-Security-Policy" content="img-src none">',
            {"console", "images"},
        ),
        (
            "<script>fetch('https://example.org/a').catch(() => 0)</script>",
            {"console", "requests"},
        ),
        ("<script>new WebSocket('wss://example.org/a')</script>", {"console", "requests"}),
        (
            '<link rel="stylesheet" href="https://example.org/a.css">',
            {"console", "requests", "links"},
        ),
        ('<link rel="preconnect" href="https://example.org">', {"links"}),
        ("<script>fetch('a.png').catch(() => 0)</script>", {"console", "files"}),
        (
            "<script>let r = new XMLHttpRequest(); r.open('GET', 'a.png'); r.send()</script>",
            {"console", "files"},
        ),
        ("<script src='broken.svg'></script>", {"console", "files"}),
        (f'<img src="broken.svg" alt="{ALT}">', {"images"}),
        (f'<img src="none.png" alt="{ALT}">', {"console", "images"}),
        (
            f'<svg aria-label="{ALT}"><image href="data:image/png;base64,iVBO"/></svg>',
            {"images"},
        ),
        (f'<object data="broken.svg" aria-label="{ALT}"></object>', {"images"}),
        ('<a href="#nowhere">a</a>', {"links"}),
        ('<a href="none.html">a</a>', {"links"}),
        ('<a href="b%20%C3%BC.html#not-there">a</a>', {"links"}),
        ('<a href="/etc/hostname">a</a>', {"links"}),
        ('<a href="file:///etc/hostname">a</a>', {"links"}),
        ('<a href="https://doi">a</a>', {"links"}),
        ('<img src="a.png">', {"alt"}),
        ('<img src="a.png" alt="a png">', {"alt"}),
        ("<canvas></canvas>", {"alt"}),
        ('<div style="width: 500px">wide</div>', {"width"}),
        (f"<p>{'wide' * 50}</p>", {"width"}),
        (f"<details><summary>a</summary><p>{'wide' * 50}</p></details>", {"width"}),
        ('<p style="color: #888; background: #fff">grey</p>', {"contrast"}),
        ('<p style="color: #0008; background: #fff">grey</p>', {"contrast"}),
        ('<p style="color: #000; background: #fff; opacity: .5">grey</p>', {"contrast"}),
        (
            f'<p id="one">a</p><svg aria-label="{ALT}"><g id="one"/></svg>',
            {"ids"},
        ),
        ('<input type="range">', {"names"}),
        # A label is the name of the first thing in it.
        ('<label>Size <output>3</output><input type="range"></label>', {"names"}),
        ("<select><option>a</option></select>", {"names"}),
        ('<button><svg aria-hidden="true"></svg></button>', {"names"}),
    ],
)
def test_a_planted_fault_is_found_and_no_other(show, planted, kinds):
    assert set(faults(show(planted + GOOD))) == kinds


def test_a_link_into_another_page_leads_where_it_says(show):
    assert show('<a href="b%20%C3%BC.html#there">a</a>').broken_links() == []


def test_text_that_a_dark_page_forgot_is_found_in_the_dark_alone(browser, show):
    show('<p style="color: #222">ink</p>')
    assert browser.low_contrast() == []
    browser.prefer(dark=True)
    (found,) = browser.low_contrast()
    assert found.startswith("rgb(34,34,34) on rgb(18,18,18)")


def test_what_webgl_draws_is_in_a_picture_of_its_canvas(show):
    browser = show(
        '<canvas width="60" height="40"></canvas><script>'
        'const gl = document.querySelector("canvas").getContext("webgl");'
        "gl.clearColor(1, 0.5, 0, 1); gl.clear(gl.COLOR_BUFFER_BIT);</script>"
    )
    pixels = browser.pixels(browser.find("canvas"))
    assert pixels.shape == (40, 60, 3)
    np.testing.assert_allclose(pixels, np.broadcast_to([255, 128, 0], pixels.shape), atol=1)


def test_the_pointer_is_where_it_was_sent(browser, show):
    show(
        '<div style="height: 4000px"></div>'
        '<div id="box" style="width: 300px; height: 200px"></div>'
        "<script>box.onmousemove = e => { box.title = e.offsetX + ' ' + e.offsetY }</script>"
    )
    browser.hover(browser.find("#box"), 120, 50)
    assert browser.find("#box").get_attribute("title") == "120 50"


def test_a_picture_of_the_whole_page_is_as_long_as_the_page(show, tmp_path):
    show('<body style="margin: 0"><div style="height: 3000px"></div>').screenshot(
        tmp_path / "whole.png"
    )
    with Image.open(tmp_path / "whole.png") as image:
        assert image.size == (390, 3000)
