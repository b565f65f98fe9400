"""The figure of lengths and ends says what the tractogram's counts say."""

import re

import numpy as np
import pytest
from matplotlib.text import Text

from difftract_bids.interfaces.reportlets.streamlines import PlotStreamlineStatistics
from difftract_bids.io.summaries import write_summary
from difftract_bids.reports.streamlines import statistics as streamline_statistics
from difftract_bids.reports.streamlines.statistics import named, plot_streamline_statistics

LENGTHS_MM = np.concatenate([np.full(900, 20.0), np.full(100, 150.0)])
STOPS = {"left_mask": 500, "below_cutoff": 1499, "high_curvature": 1, "max_length": 0}
SEEDS = {"kept": 1000, "too_short": 3000}


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved, and its texts."""
    kept = []
    save = streamline_statistics.save_svg
    monkeypatch.setattr(
        streamline_statistics,
        "save_svg",
        lambda figure, path: kept.append(figure) or save(figure, path),
    )
    return kept


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_bars_have_the_order_the_share_and_the_number_of_the_counts(tmp_path, figures):
    plot_streamline_statistics(LENGTHS_MM, STOPS, SEEDS, tmp_path / "a.svg")
    _, ends, seeds = figures[0].axes
    assert [label.get_text() for label in ends.get_yticklabels()] == [
        "fODF below the cutoff",
        "left the brain mask",
        "turned too sharply",
    ]
    assert [patch.get_width() for patch in ends.patches] == pytest.approx([74.95, 25.0, 0.05])
    said = texts(figures[0])
    assert {"75.0%  1,499", "25.0%  500", "0.1%  1", "75.0%  3,000", "25.0%  1,000"} <= set(said)
    assert ends.get_ylim()[0] > ends.get_ylim()[1]  # the first is at the top
    kept, lost = (patch.get_facecolor() for patch in reversed(seeds.patches))
    assert kept != lost


def test_the_histogram_holds_every_streamline_and_marks_median_and_limits(tmp_path, figures):
    plot_streamline_statistics(LENGTHS_MM, STOPS, SEEDS, tmp_path / "a.svg", limits_mm=(10, 200))
    lengths = figures[0].axes[0]
    (steps,) = lengths.patches
    counts, edges, _ = steps.get_data()
    assert counts.sum() == 1000
    assert counts[np.searchsorted(edges, 20.0) - 1] == 900
    marked = [line.get_xdata()[0] for line in lengths.lines]
    assert marked == [20.0, 10]  # the largest is beyond the axis, and written
    said = " ".join(texts(figures[0]))
    assert "median: 20 mm" in said
    assert re.search(r"longest that is kept: 200 mm", said)


def test_what_nobody_counted_and_no_streamline_still_give_a_picture(tmp_path, figures):
    path = plot_streamline_statistics(np.zeros(0), {}, {}, tmp_path / "a.svg")
    assert "<svg" in path.read_text()
    assert texts(figures[0]).count("not counted") == 2


def test_a_name_without_a_wording_is_written_as_words():
    assert named({"entered_cortex": 2, "kept": 3, "no_peak": 0}, {"kept": "gave one"}) == {
        "gave one": 3,
        "entered cortex": 2,
    }


def test_the_interface_reads_all_lengths_and_the_sidecar(tmp_path, figures):
    ends_mm = np.zeros((1000, 2, 3))
    summary = write_summary(tmp_path / "s.parquet", np.arange(1000), ends_mm, LENGTHS_MM)
    sidecar = {
        "Counts": {"StopReasons": STOPS, "SeedStatus": SEEDS},
        "StreamlineAcceptanceCriteria": {"MinimumLength": 12.0, "MaximumLength": 240.0},
    }
    plot = PlotStreamlineStatistics(summary=summary, tractogram_metadata=sidecar)
    assert plot.run(cwd=tmp_path).outputs.out_report == str(tmp_path / "report.svg")
    said = texts(figures[0])
    assert "Lengths of 1,000 streamlines" in said
    assert "shortest that is kept: 12 mm (dotted)" in said
