"""The page shows every picture once, works offline, and says what to look at."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from difftract_bids.bids.fodf_sidecars import (
    model_metadata,
    normalisation_metadata,
    sh_encoding,
)
from difftract_bids.checks.table import write_checks
from difftract_bids.checks.verdict import Check
from difftract_bids.config import Config
from difftract_bids.errors import InputError
from difftract_bids.reports.page.about import About, write_about_html
from difftract_bids.reports.page.assembly import assemble_report
from difftract_bids.reports.page.methods import methods_markdown, write_methods
from difftract_bids.reports.page.references import bibliography, cited
from difftract_bids.reports.page.summary import (
    ConnectomeFacts,
    Notice,
    RunSummary,
    fodf_facts,
    write_summary_html,
)
from difftract_bids.reports.placeholder import reason_not_drawn

PER_RUN = ("gradients", "mask", "coreg", "fa", "response", "tissues", "fodf", "tractogram")
PER_ATLAS = ("parcellation", "connectome")
SVG = '<?xml version="1.0"?>\n<svg viewBox="0 0 9 9" xmlns="http://www.w3.org/2000/svg"/>'
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


def test_a_page_without_interactive_figures_needs_no_network_and_no_script(tmp_path):
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


def test_a_page_that_cannot_be_put_together_becomes_a_plain_one_that_says_so(
    tmp_path, monkeypatch
):
    def fail(*_args, **_kwargs):
        raise ValueError('no <section> of "this"\nname')

    written = put_figures(tmp_path, SEVERAL, ["One"])
    put_figures(tmp_path, [("", "")], ["One"], subject="sub-02")
    monkeypatch.setattr("difftract_bids.reports.page.assembly.Report", fail)
    shown = [Path(one).name for one in written[1:]]
    path = assemble_report(tmp_path, "01", run_uuid="uuid", figures=shown)
    assert path == tmp_path / "sub-01.html"
    assert reason_not_drawn(path) == 'ValueError: no <section> of "this" name'
    page = Page(path)
    assert "no &lt;section&gt; of" in page.text
    assert all((tmp_path / link).is_file() for link in page.values("href", "a"))
    assert sorted(f"./{link}" for link in page.values("href", "a")) == sorted(written[1:])


def test_a_plain_page_of_a_session_shows_that_session_alone(tmp_path, monkeypatch):
    put_figures(tmp_path, SEVERAL, ["One"])
    monkeypatch.setattr("difftract_bids.reports.page.assembly.Report", None)
    links = Page(assemble_report(tmp_path, "01", run_uuid="u", session="B")).values("href", "a")
    assert links
    assert all("ses-B" in link for link in links)


def put_checks(out_dir, folder, entities, *checks):
    path = out_dir / "sub-01" / folder / "dwi" / f"sub-01{entities}_desc-checks_quality.tsv"
    return write_checks(checks, path)


def overview(page):
    """Rows of the table of all runs: name, and the words for its lights."""
    found = re.search(r'<table class="overview">.*?</table>', page.text, re.DOTALL)
    if found is None:
        return {}
    rows = re.findall(r"<tr>(.*?)</tr>", found[0], re.DOTALL)
    cells = [
        [re.sub(r"<[^>]+>", "", c).strip() for c in re.findall(r"<t[hd].*?</t[hd]>", r)]
        for r in rows
    ]
    return {name: rest for name, *rest in cells}


def test_the_lights_of_several_runs_are_in_one_table_that_leads_to_their_summaries(tmp_path):
    put_figures(tmp_path, SEVERAL[2:4], ["One"])
    bad = replace(GOOD, light="bad", found='Leaks "everywhere" <b>.')
    near, far = (
        replace(GOOD, name="x", title="Template", of=of, light=light)
        for of, light in (("Near", "look"), ("Far", "unknown"))
    )
    put_checks(tmp_path, *SEVERAL[2], GOOD, near, far)
    put_checks(tmp_path, *SEVERAL[3], bad, GOOD, near)
    page = Page(assemble_report(tmp_path, "01", run_uuid="uuid"))
    assert overview(page) == {
        "Run": ["Brain mask", "Template, Near", "Template, Far"],
        "sub-01_ses-A_dir-PA": ["●Good", "▲Look", "○Not judged"],
        # Of two checks of a name, the worse one; and nothing where there is none.
        "sub-01_ses-B_dir-AP_run-1": ["■Wrong", "▲Look", ""],
    }
    assert 'title="Leaks &#34;everywhere&#34; &lt;b&gt;."' in page.text
    for name in ("sub-01_ses-A_dir-PA", "sub-01_ses-B_dir-AP_run-1"):
        anchor = f"{name}_desc-summary_dwi"
        assert f"#{anchor}" in page.values("href", "a")
        assert page.values("id").count(anchor) == 1


def test_an_overview_has_the_runs_of_its_page_and_there_is_none_of_a_single_one(tmp_path):
    put_figures(tmp_path, SEVERAL, ["One"])
    for folder, entities in SEVERAL:
        put_checks(tmp_path, folder, entities, GOOD)
    # Of a run that is no longer shown, and one whose table is damaged.
    put_checks(tmp_path, "ses-B", "_ses-B_acq-old", GOOD)
    put_checks(tmp_path, *SEVERAL[0], GOOD).write_text("no table")

    def runs(**options):
        figures = [path.name for path in tmp_path.glob("sub-01/**/figures/*")]
        path = assemble_report(tmp_path, "01", run_uuid="uuid", figures=figures, **options)
        return [name.removeprefix("sub-01_") for name in overview(Page(path))][1:]

    assert runs() == [f"{entities[1:]}" for _, entities in SEVERAL[1:]]
    assert runs(session="B") == [f"{entities[1:]}" for _, entities in SEVERAL[3:]]
    for path in tmp_path.glob("sub-01/ses-*/dwi/*"):
        if "dir-PA" not in path.name or "ses-B" not in path.name:
            path.unlink()
    assert runs() == []


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
        checks=[Check(evil, evil, "bad", evil, evil, evil, evil, 1.0, evil)],
        anchors={f"{evil} {evil}": evil},
        fodf=[(evil, evil)],
        decisions=[evil],
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


GOOD = Check("mask", "Brain mask", "good", "1,400 mL in one piece.", figure="mask")


def test_a_good_run_has_no_warnings_and_says_so(tmp_path):
    text = write_summary_html(replace(RUN, checks=[GOOD]), tmp_path / "s.html").read_text()
    assert "All checks are good" in text
    assert "To know" not in text
    assert "remedy" not in text


@pytest.mark.parametrize(("light", "word"), [("bad", "Wrong"), ("look", "Look")])
def test_what_is_out_of_the_ordinary_is_told_with_a_remedy_and_leads_to_its_figure(
    tmp_path, light, word
):
    check = Check(
        *("connectome", "Connectome", light, "Only 10% of 900 streamlines."),
        *("Look at the parcellation.", "parcellation", "X"),
    )
    anchors = {"mask": "a_mask", "parcellation X": "x", "parcellation": "y"}
    summary = replace(RUN, checks=[GOOD, check], anchors=anchors)
    page = Page(write_summary_html(summary, tmp_path / "s.html"))
    row = page.text[page.text.index(f'<tr class="{light}">') :].split("</tr>")[0]
    told = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row))
    assert word in told  # for those who do not see the colour
    assert "Connectome, X Only 10% of 900 streamlines. Look at the parcellation." in told
    assert page.values("href", "a") == ["#a_mask", "#x"]
    assert "1 of 2 checks" in page.text


def test_what_the_stages_want_to_be_known_is_told(tmp_path):
    summary = replace(RUN, notices=[Notice("No fieldmap.", "Take one.", "sub-01_dwi.nii.gz")])
    text = write_summary_html(summary, tmp_path / "s.html").read_text()
    for words in ("No fieldmap.", "Take one.", "<code>sub-01_dwi.nii.gz</code>"):
        assert words in text


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
