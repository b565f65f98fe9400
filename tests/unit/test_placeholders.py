"""A figure that cannot be drawn says so and why, and costs nobody his results."""

import logging
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from nipype.interfaces.base import BaseInterfaceInputSpec

from difftract_bids.errors import InputError
from difftract_bids.interfaces.outputs import KEPT, FigureSink
from difftract_bids.interfaces.reportlets.base import Reportlet
from difftract_bids.reports.placeholder import reason_not_drawn, reason_of, write_placeholder

EVIL = "\"><script>alert(1)</script> & '{reason}' <!-- %s"
BYTES = "\udcff is no letter, \x00 no sign of XML, \x1b[31m none of a page\ufffe"
#: In the most bytes that letters can take, and with more than a file's beginning holds.
LONG = '"\U0001f9e0' * 5000


class Texts(HTMLParser):
    """Text and tags of a snippet."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.said = [], ""
        self.feed(text)

    def handle_starttag(self, tag, _):
        self.tags.append(tag)

    def handle_data(self, data):
        self.said += data


@pytest.fixture(autouse=True)
def _as_the_app_does(monkeypatch):
    """Take back what all other tests run under: that no placeholder is written."""
    monkeypatch.setattr("difftract_bids.reports.placeholder.write_placeholder", write_placeholder)


def shown(path):
    """What a reader sees, whichever kind of file it is."""
    if path.suffix == ".svg":
        texts = ET.fromstring(path.read_text()).iter("{http://www.w3.org/2000/svg}text")  # noqa: S314
        return " ".join(text.text or "" for text in texts)
    return Texts(path.read_text()).said


@pytest.mark.parametrize("suffix", ["svg", "html"])
def test_a_placeholder_tells_reader_and_program_why(tmp_path, suffix):
    path = write_placeholder(tmp_path / f"a.{suffix}", ValueError("no voxel\n\tis  in the mask"))
    assert reason_not_drawn(path) == "ValueError: no voxel is in the mask"
    assert "ValueError: no voxel is in the mask" in shown(path)
    assert "--reports-only draws the figures again" in shown(path)


@pytest.mark.parametrize("suffix", ["svg", "html"])
@pytest.mark.parametrize(
    "text", [EVIL, BYTES, LONG, "", " \n "], ids=["evil", "bytes", "long", "no", "blank"]
)
def test_whatever_an_error_says_the_placeholder_is_whole_and_harmless(tmp_path, suffix, text):
    path = write_placeholder(tmp_path / f"a.{suffix}", ValueError(text))
    said = shown(path)  # an SVG is parsed strictly, as browsers do
    assert reason_not_drawn(path).startswith("ValueError")
    assert reason_not_drawn(path).split() == reason_of(ValueError(text)).split()
    assert reason_not_drawn(path) in " ".join(said.split())
    if suffix == "html":
        assert set(Texts(path.read_text()).tags) == {"p", "strong"}
    else:
        assert b"<script" not in path.read_bytes()


def test_an_error_of_the_app_is_told_with_its_remedy(tmp_path):
    error = InputError("Too few volumes.", where="a.bval", remedy="Look at the scan.")
    reason = reason_not_drawn(write_placeholder(tmp_path / "a.svg", error))
    assert all(words in reason for words in ("Too few volumes.", "a.bval", "Look at the scan."))


def test_a_figure_and_a_file_that_is_not_there_have_no_reason(tmp_path):
    figure = tmp_path / "a.svg"
    figure.write_text('<svg xmlns="http://www.w3.org/2000/svg"><text>not drawn</text></svg>')
    assert reason_not_drawn(figure) is None
    assert reason_not_drawn(tmp_path / "b.svg") is None
    figure.write_bytes(b"\xff\xfe\x00")
    assert reason_not_drawn(figure) is None


class Failing(Reportlet):
    """What fails after it has begun to write."""

    input_spec, _extension = BaseInterfaceInputSpec, "html"

    def _draw(self, path):
        path.write_text("half a figu")
        raise ValueError("no voxel is in the mask")


def test_a_figure_that_fails_is_replaced_and_its_step_is_done_with_a_warning(
    tmp_path, monkeypatch
):
    told = []
    monkeypatch.setattr(logging.getLogger("nipype.interface"), "handle", told.append)
    path = tmp_path / "report.html"
    assert Failing().run(cwd=str(tmp_path)).outputs.out_report == str(path)
    assert reason_not_drawn(path) == "ValueError: no voxel is in the mask"
    assert "half a figu" not in path.read_text()
    (warning,) = [record for record in told if record.levelno == logging.WARNING]
    assert warning.getMessage() == "Failing could not draw."
    assert warning.exc_info[0] is ValueError


def test_being_stopped_is_no_failure_to_draw(tmp_path, monkeypatch):
    class Stop(BaseException):
        pass

    def stop(*_):
        raise Stop

    monkeypatch.setattr(Failing, "_draw", stop)
    with pytest.raises(Stop):
        Failing().run(cwd=str(tmp_path))
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("there", ["figure", "placeholder", "nothing"])
def test_no_placeholder_takes_the_place_of_a_figure_that_is_to_be_kept(tmp_path, keep, there):
    drawn = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
    final = tmp_path / "out" / "sub-01" / "figures" / "sub-01_desc-mask_dwi.svg"
    final.parent.mkdir(parents=True)
    if there == "figure":
        final.write_text(drawn)
    elif there == "placeholder":
        write_placeholder(final, ValueError("earlier"))
    failed = write_placeholder(tmp_path / "report.svg", ValueError("no such image"))
    sink = FigureSink(
        base_directory=str(tmp_path / "out"),
        source_file="sub-01/dwi/sub-01_dwi.nii.gz",
        in_file=str(failed),
        datatype="figures",
        desc="mask",
        suffix="dwi",
        keep_drawn=keep,
    )
    if keep and there == "figure":
        assert sink.run(cwd=tmp_path).outputs.out_file == str(final)
        assert final.read_text() == drawn
        said = (tmp_path / KEPT).read_text()
        assert (
            said
            == f"{final.name} could not be drawn again, and is kept: ValueError: no such image."
        )
    else:
        sink.run(cwd=tmp_path)
        assert not (tmp_path / KEPT).exists()
        assert reason_not_drawn(final) == "ValueError: no such image"
