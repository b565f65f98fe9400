"""The page shows every picture once, works offline, and says what to look at."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from difftract_bids.bids.fodf_sidecars import (
    model_metadata,
    normalisation_metadata,
    sh_encoding,
)
from difftract_bids.config import Config
from difftract_bids.errors import InputError
from difftract_bids.reports.assembly import assemble_report
from difftract_bids.reports.methods import (
    methods_markdown,
    write_methods,
)
from difftract_bids.reports.references import bibliography, cited
from difftract_bids.reports.summary import (
    About,
    ConnectomeFacts,
    Notice,
    RunSummary,
    fodf_facts,
    notices_from_figures,
    write_about_html,
    write_summary_html,
)

PER_RUN = ("gradients", "mask", "coreg", "fa", "response", "tissues", "fodf", "tractogram")
PER_ATLAS = ("parcellation", "connectome")
SVG = '<?xml version="1.0"?>\n<svg width="9pt" viewBox="0 0 9 9" xmlns="http://www.w3.org/2000/svg"/>'
RUN = RunSummary(
    shape=(9, 9, 9),
    voxel_sizes_mm=(2.0, 2.0, 2.5),
    shells=[(0.0, 6), (1000.0, 64)],
    n_streamlines=900,
    n_seeds=1000,
)
METHODS = (
    "### Fibres\n\nfODFs were estimated [@tournier2007], with DIPY [@garyfallidis2014].\n\n"
    "### Streamlines\n\nFollowed.\n\n### Fibres\n\nOnce more [@tournier2007].\n"
)


def put_figures(out_dir, runs, atlases, subject="sub-01"):
    """Write a picture of every kind for each run: (folder, entities)."""
    written = []
    for folder, entities in runs:
        figures = out_dir / subject / folder / "figures"
        figures.mkdir(parents=True, exist_ok=True)
        names = [f"{subject}{entities}_desc-{desc}_dwi.svg" for desc in PER_RUN]
        names += [
            f"{subject}{entities}_atlas-{atlas}_desc-{desc}_dwi.svg"
            for atlas in atlases
            for desc in PER_ATLAS
        ]
        for name in names:
            (figures / name).write_text(SVG)
            written.append(f"./{(figures / name).relative_to(out_dir)}")
        write_summary_html(RUN, figures / f"{subject}{entities}_desc-summary_dwi.html")
    figures = out_dir / subject / "figures"
    write_methods(METHODS, figures / f"{subject}_desc-methods_dwi.html")
    about = About("1.2.3", "difftract-bids a b participant", "uuid", Config())
    write_about_html(about, figures / f"{subject}_desc-about_dwi.html")
    return written


class Page(HTMLParser):
    """Sources, links and identifiers of a page."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text()
        self.tags = []
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def values(self, name, tag=None):
        return [a[name] for t, a in self.tags if name in a and tag in (None, t)]


SEVERAL = [
    (f"ses-{session}", f"_ses-{session}{rest}")
    for session in ("A", "B")
    for rest in ("_dir-AP_run-1", "_dir-AP_run-2", "_dir-PA")
]


@pytest.mark.parametrize(
    ("runs", "atlases"),
    [
        ([("", "")], ["One"]),
        ([("", "_acq-x_run-1"), ("", "_run-2")], ["One", "Two"]),
        (SEVERAL, ["One"]),
    ],
)
def test_every_picture_is_on_the_page_once(tmp_path, runs, atlases):
    written = put_figures(tmp_path, runs, atlases)
    put_figures(tmp_path, [("", "")], ["One"], subject="sub-02")
    page = Page(assemble_report(tmp_path, "01", run_uuid="uuid"))
    assert sorted(page.values("src", "img")) == sorted(written)
    assert page.text.count("Free to copy") == 1
    assert page.text.count("voxels of") == len(runs)
    assert all((tmp_path / source).is_file() for source in page.values("src", "img"))


def test_headings_name_session_run_and_atlas(tmp_path):
    put_figures(tmp_path, SEVERAL[3:], ["One"])
    text = assemble_report(tmp_path, "sub-01", run_uuid="uuid").read_text()
    plain = re.sub(r"<[^>]+>", "", text)
    assert "session B, direction AP, run 2, atlas One" in plain
    assert "Outlines of the parcels of One" in plain
    assert "Reports for" not in plain


def test_the_page_needs_no_network_and_no_script(tmp_path):
    put_figures(tmp_path, [("", "")], ["One"])
    page = Page(assemble_report(tmp_path, "01", run_uuid="uuid"))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "object", "embed"})
    assert all(not source.startswith(("http", "//", "/")) for source in page.values("src"))
    assert page.values("href", "link") == ["data:,"]
    assert "@import" not in page.text
    assert "url(" not in page.text
    outside = [href for href in page.values("href", "a") if href.startswith("http")]
    assert outside
    assert all(href.startswith("https://doi.org/") for href in outside)


def test_links_within_the_page_lead_somewhere_and_pictures_have_alternative_texts(tmp_path):
    put_figures(tmp_path, SEVERAL[1:3], ["One", "Two"])
    page = Page(assemble_report(tmp_path, "01", run_uuid="uuid"))
    targets = page.values("id")
    sections = [a["id"] for t, a in page.tags if t == "section"]
    assert sections == ["Summary", "Diffusion", "Tractography", "Connectome", "Methods", "About"]
    for href in page.values("href", "a"):
        if href.startswith("#"):
            assert targets.count(href[1:]) == 1, href
    assert all(page.values("alt", "img"))
    assert len(page.values("alt", "img")) == len(page.values("src", "img"))


@pytest.mark.parametrize("folder", ["dwi", "sub-study", "ses-1/anat", "with 'quotes' and: spaces"])
def test_the_name_of_the_output_folder_does_not_matter(tmp_path, folder):
    out_dir = tmp_path / folder / "out"
    written = put_figures(out_dir, [("", "")], ["One"])
    page = Page(assemble_report(out_dir, "01", run_uuid="uuid"))
    assert sorted(page.values("src", "img")) == sorted(written)


def test_an_output_folder_behind_a_link_is_served_too(tmp_path):
    written = put_figures(tmp_path / "real", [("", "")], ["One"])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    page = Page(assemble_report(tmp_path / "link", "01", run_uuid="uuid"))
    assert sorted(page.values("src", "img")) == sorted(written)


def test_a_session_page_shows_that_session_alone(tmp_path):
    written = put_figures(tmp_path, SEVERAL, ["One"])
    path = assemble_report(tmp_path, "01", run_uuid="uuid", session="B")
    assert path == tmp_path / "sub-01_ses-B.html"
    expected = [name for name in written if "ses-B" in name]
    assert sorted(Page(path).values("src", "img")) == sorted(expected)


def test_a_participant_without_figures_is_refused(tmp_path):
    with pytest.raises(InputError, match="no figures of sub-09"):
        assemble_report(tmp_path, "09", run_uuid="uuid")


def test_a_second_assembly_changes_nothing(tmp_path):
    put_figures(tmp_path, [("", "")], ["One"])
    first = assemble_report(tmp_path, "01", run_uuid="uuid").read_bytes()
    assert assemble_report(tmp_path, "01", run_uuid="uuid").read_bytes() == first


def test_whatever_comes_from_outside_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    facts = ConnectomeFacts.of(evil, np.zeros((2, 2)), [evil, "b"])
    summary = replace(
        RUN,
        notices=[Notice(evil, evil, evil)],
        connectomes=[facts],
        stop_reasons={evil: 3},
        seed_fates={evil: 3},
    )
    about = About(evil, evil, evil, Config(), [evil], {evil: evil}, evil)
    for text in (
        write_summary_html(summary, tmp_path / "a.html").read_text(),
        write_about_html(about, tmp_path / "b.html").read_text(),
        write_methods(evil, tmp_path / "c.html").read_text(),
    ):
        assert "<script" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_figures_of_a_connectome_agree_with_its_matrix():
    counts = np.array([[5, 2, 0, 0], [2, 0, 8, 0], [0, 8, 0, 0], [0, 0, 0, 0]], dtype=float)
    facts = ConnectomeFacts.of("X", counts, ["a", "b", "c", "d"])
    assert (facts.n_nodes, facts.n_edges, facts.n_possible_edges) == (4, 2, 6)
    assert (facts.n_assigned, facts.n_within_nodes) == (15, 5)
    assert facts.per_edge == (2.0, 5.0, 8.0)
    assert facts.nodes_without == ("d",)


def test_streamlines_that_count_for_several_pairs_are_told_once(tmp_path):
    counts = np.array([[9, 9, 4], [9, 9, 9], [4, 9, 9]], dtype=float)
    facts = ConnectomeFacts.of("X", counts, ["a", "b", "c"], n_assigned=9)
    assert (facts.n_assigned, facts.n_within_nodes) == (9, None)
    summary = replace(RUN, connectomes=[facts])
    text = write_summary_html(summary, tmp_path / "s.html").read_text()
    assert "visit two parcels or more" in text
    assert "within one parcel" not in text


def test_a_good_run_has_no_warnings_and_says_so(tmp_path):
    assert notices_from_figures(RUN) == []
    assert "No warnings" in write_summary_html(RUN, tmp_path / "s.html").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_streamlines": 0}, "not one streamline"),
        ({"n_streamlines": 20}, "2.0% of the seeds"),
        (
            {"connectomes": [ConnectomeFacts("X", 10, 3, 900, 0, (1, 1, 1), ("a",))]},
            "1 of 10 nodes",
        ),
        ({"connectomes": [ConnectomeFacts("X", 10, 3, 90, 0, (1, 1, 1))]}, "Only 10%"),
    ],
)
def test_what_is_out_of_the_ordinary_becomes_a_warning_with_a_remedy(tmp_path, change, words):
    (notice,) = notices_from_figures(replace(RUN, **change))
    assert words in notice.what
    assert notice.remedy
    text = write_summary_html(replace(RUN, **change), tmp_path / "s.html").read_text()
    assert words in text
    assert notice.remedy in text


def test_the_settings_of_the_run_are_on_the_page(tmp_path):
    about = About("1", "difftract-bids in out participant", "uuid", Config())
    text = write_about_html(about, tmp_path / "about.html").read_text()
    assert "tractogram_tolerance_mm = 0.1" in text
    assert "difftract-bids in out participant" in text


def test_what_two_runs_have_in_common_is_said_once_in_the_methods():
    text = methods_markdown(METHODS)
    assert text.count("### Fibres") == 1
    assert text.index("Once more") < text.index("### Streamlines")
    assert "fODFs were estimated (Tournier et al., 2007)" in text
    assert "1. Tournier" in text


def test_every_citation_is_linked_to_its_reference_with_a_doi(tmp_path):
    path = write_methods(METHODS, tmp_path / "methods.html")
    page = Page(path)
    references = {target.removeprefix("ref-") for target in page.values("id")}
    links = {href.removeprefix("#ref-") for href in page.values("href") if href.startswith("#")}
    assert references == links
    assert references == {"tournier2007", "garyfallidis2014"}
    assert "[@" not in page.text
    assert path.read_text().count("https://doi.org/10.") >= 2 * len(references)


def test_a_reference_without_a_doi_has_no_link(tmp_path):
    path = write_methods("### A\n\nNormalised [@raffelt2017].\n", tmp_path / "methods.html")
    assert "Raffelt" in path.read_text()
    assert "https://doi.org" not in path.read_text()


def test_the_summary_says_which_model_there_is_and_why(tmp_path):
    sidecar = {
        **model_metadata("msmtcsd", "there are 3 usable shells"),
        **sh_encoding(8, "mrtrix3"),
        **normalisation_metadata(balance={"WM": 1.0}, reference=0.28, field_range=(0.8, 1.2)),
    }
    run = replace(RUN, fodf=fodf_facts(sidecar))
    text = write_summary_html(run, tmp_path / "s.html").read_text()
    for words in ("(msmtcsd), as there are 3 usable shells", "<td>8</td>", "from 0.8 to 1.2"):
        assert words in text
    assert fodf_facts({}) == []


def test_the_bibliography_is_complete():
    for reference in bibliography().values():
        # Abstracts of conferences have no DOI; they are found by meeting and number.
        abstract = re.search(r"International Society|ISMRM", reference.journal)
        assert abstract or re.fullmatch(r"10\.\d{4,}/\S+", reference.doi)
        assert re.fullmatch(r"\d{4}", reference.year)
        assert reference.title
        assert reference.journal


def test_an_unknown_citation_is_an_error():
    with pytest.raises(KeyError, match="nobody1900"):
        cited("As shown before [@nobody1900].")
