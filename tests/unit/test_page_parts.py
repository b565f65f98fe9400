"""What is done to the parts of a page when it is put together."""

import re

from matplotlib.figure import Figure

from difftract_bids.reports.flickers.flicker import write_flicker
from difftract_bids.reports.page.assembly import assemble_report
from difftract_bids.reports.page.picture_sizes import with_picture_sizes

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1008.4 360"/>'


def test_a_picture_gets_the_size_that_it_says_it_has(tmp_path):
    (tmp_path / "a.svg").write_text(SVG)
    page = '<p><img class="a" src="./a.svg" style="width: 100%" /></p>'
    sized = '<p><img class="a" src="./a.svg" width="1008" height="360" style="width: 100%" /></p>'
    assert with_picture_sizes(page, tmp_path) == sized


def test_a_picture_that_says_no_size_or_is_not_there_is_left_alone(tmp_path):
    (tmp_path / "a.svg").write_text("<svg/>")
    page = '<img src="./a.svg" /><img src="./gone.svg" /><img src="data:image/png;base64,aa" />'
    assert with_picture_sizes(page, tmp_path) == page


def test_sessions_with_the_same_flicker_have_buttons_of_their_own(tmp_path):
    for session in ("A", "B"):
        figures = tmp_path / "sub-01" / f"ses-{session}" / "figures"
        figures.mkdir(parents=True)
        path = figures / f"sub-01_ses-{session}_desc-coregflicker_dwi.html"
        write_flicker(Figure((1, 1)), Figure((1, 1)), path, title="T1w", alts=("one", "other"))
    page = assemble_report(tmp_path, "01", run_uuid="x").read_text()
    ids = re.findall(r'<input [^>]*\bid="([^"]+)"', page)
    groups = re.findall(r'<input [^>]*\bname="([^"]+)"', page)
    assert len(ids) == len(set(ids)) == 6
    assert len(set(groups)) == 2
    assert set(re.findall(r'<label for="([^"]+)"', page)) == set(ids)
