"""The group level as a whole: what it leaves in the derivatives, and what it says."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from apps import validator_errors
from groups import node_names, place, symmetric, write_connectome, write_quality

from difftract_bids.bids.describe import describe_dataset
from difftract_bids.checks.table import write_checks
from difftract_bids.checks.verdict import Check
from difftract_bids.cli.group import run_group
from difftract_bids.cli.run import main
from difftract_bids.config import GroupConfig
from difftract_bids.errors import ConfigError, DifftractError, InputError
from difftract_bids.group.publish import publish
from difftract_bids.io.matrices import read_matrix
from difftract_bids.modelling.response import write_response
from difftract_bids.modelling.zonal import Response

HOSTILE = "L_<script>alert(1)</script>&"
EVERY = {"mean", "sd", "cv", "consistency"}


class Page(HTMLParser):
    """Addresses, pictures and tags of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.pictures, self.tags, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        said = dict(attributes)
        self.links += [said[key] for key in ("href", "xlink:href") if key in said]
        if tag == "img":
            self.pictures.append(said)


def write_participants(out, n_participants=7, *, sessions=("A", "B"), seed=0):
    """Write derivatives with an outlier, a missing node and a report for each participant."""
    rng = np.random.default_rng(seed)
    usual = rng.gamma(1.0, 20.0, (8, 8))
    names = [*node_names(8)[:-1], HOSTILE]
    for i in range(n_participants):
        label = f"{i:02d}"
        for session in sessions:
            counts = symmetric(rng.poisson(usual))
            kept = slice(0, 7 if i == 1 else 8)
            for measure, values in (("count", counts), ("meanfa", 0.4 * (counts > 0))):
                write_connectome(
                    out,
                    label,
                    values[kept, kept],
                    names=names[kept],
                    session=session,
                    measure=measure,
                )
            moved_mm = (2.0 if i == 4 else 0.2) * rng.uniform(0.9, 1.1, 20)
            write_quality(out, label, session=session, moved_mm=moved_mm)
        (out / f"sub-{label}.html").write_text("<html></html>")
    return out


def put_response(out, label, bval=1000.0):
    rows = np.array([[900.0, 0, 0], [500, -150, 30]])
    path = out / f"sub-{label}" / "ses-A" / "dwi" / f"sub-{label}_model-csd_label-WM_response.txt"
    write_response(Response((0.0, bval), rows), path)


def level(out, *, participants=None, sessions=None, **settings):
    return run_group(out, GroupConfig(**settings), participants, sessions, work_dir=out / "work")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A group with everything, made by the command line."""
    out = write_participants(tmp_path_factory.mktemp("group") / "out")
    put_response(out, "00")
    describe_dataset(out, raw_dir=out.parent, atlases=[], citation="Cite.")
    work = out.parent / "work"
    command = [str(out), str(out), "group", "-w", str(work)]
    assert main([*command, "--consistency-threshold", "0.6", "--outlier-threshold", "4"]) == 0
    return out


def test_its_files_are_those_of_the_readme(finished):
    found = {path.name for path in (finished / "group").iterdir()}
    wanted = {"edges.parquet", "edges.json", "quality.tsv", "quality.json", "figures"}
    wanted |= {f"atlas-A_meas-count_similarity.{end}" for end in ("tsv", "json")}
    wanted |= {f"model-csd_label-WM_response.{end}" for end in ("txt", "json")}
    for before in ("", "ses-A_", "ses-B_"):
        stems = {
            f"{before}atlas-A_meas-{measure}_stat-{statistic}"
            for measure in ("count", "meanfa")
            for statistic in (*EVERY, "mean_desc-consistent")
        }
        stems.add(f"{before}atlas-A_meas-count_stat-mask_desc-consistent")
        wanted |= {f"{stem}_relmat.{end}" for stem in stems for end in ("dense.tsv", "json")}
    assert found == wanted
    assert (finished / "group.html").is_file()
    assert list((finished.parent / "work").iterdir()) == []


def test_the_derivatives_are_valid_bids_afterwards(finished):
    assert validator_errors(finished) == []


def test_the_page_needs_nothing_but_what_lies_beside_it(finished):
    text = (finished / "group.html").read_text()
    page = Page(text)
    files = [said["src"] for said in page.pictures]
    assert len(files) >= 4
    shown = [Path(link) for link in page.links if not link.startswith(("#", "data:"))]
    assert all((finished / path).is_file() for path in [*files, *shown])
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert all(f'id="{anchor}"' in text for anchor in anchors)
    assert not re.search(r"(src|href)=\"(https?:)?//", text)


def test_every_picture_has_a_text_and_a_sentence_on_what_good_looks_like(finished):
    text = (finished / "group.html").read_text()
    assert all(said["alt"] for said in Page(text).pictures)
    assert 'role="img" aria-label="' in text
    items = re.split(r'<div (?:class="item" )?id="', text)
    with_picture = [item for item in items if 'class="reportlet' in item]
    # Distributions and similarity are in the page itself, for the links in them.
    assert len(with_picture) == len(Page(text).pictures) + 2
    assert all("Good: " in item for item in with_picture)


def test_a_run_that_stands_apart_is_named_and_linked(finished):
    text = (finished / "group.html").read_text()
    table = text[text.index('id="outliers"') : text.index('id="measures"')]
    assert '<a href="./sub-04.html">sub-04_ses-A</a>' in table
    assert "sub-03" not in table
    # In the picture as well.
    assert 'xlink:href="sub-04.html"' in text


def test_every_participant_is_listed_with_a_link(finished):
    text = (finished / "group.html").read_text()
    people = text[text.index('<ul class="people">') :]
    for i in range(7):
        assert f'<a href="./sub-{i:02d}.html">sub-{i:02d}</a>' in people


def test_the_lights_of_all_runs_of_a_participant_are_on_the_list(tmp_path):
    write_participants(tmp_path, 3)
    lights = {"00": ["good"], "01": ["bad", "look"], "02": ["look", "unknown"]}
    for label, own in lights.items():
        for session in ("A", "B"):
            checks = [Check(f"x{i}", "Title", light, "Found.") for i, light in enumerate(own)]
            folder, stem = place(tmp_path, label, session)
            write_checks(checks, folder / f"{stem}_desc-checks_quality.tsv")
    level(tmp_path)
    text = (tmp_path / "group.html").read_text()
    people = re.findall(r"<li>.*?</li>", text[text.index('<ul class="people">') :], re.DOTALL)
    told = [" ".join(re.sub(r"<[^>]+>", " ", one).split()) for one in people[:3]]
    assert told == [
        "sub-00 (2 runs)",
        "sub-01 (2 runs) ■ 2 wrong ▲ 2 to look at stands apart",
        "sub-02 (2 runs) ▲ 2 to look at",
    ]


def test_the_page_says_what_was_done(finished):
    text = (finished / "group.html").read_text()
    assert "consistency_threshold = 0.6" in text
    assert "outlier_threshold = 4.0" in text
    assert "all participants; all sessions" in text
    assert re.search(r"difftract_bids \d+\.\d+", text)


def test_names_of_nodes_are_escaped(finished):
    text = (finished / "group.html").read_text()
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "script" not in Page(text).tags


def test_a_session_report_is_linked_where_there_is_one(tmp_path):
    write_participants(tmp_path, 5)
    (tmp_path / "sub-04.html").rename(tmp_path / "sub-04_ses-B.html")
    level(tmp_path)
    text = (tmp_path / "group.html").read_text()
    assert '<a href="./sub-04_ses-B.html">sub-04_ses-B</a>' in text
    assert '<a href="./sub-04_ses-A.html">' not in text
    assert "./sub-04.html" not in text


def test_a_later_run_leaves_no_matrix_of_an_earlier_one(tmp_path):
    write_participants(tmp_path, 2)
    level(tmp_path, consistency_threshold=0.5)
    (tmp_path / "group" / "mine.txt").write_text("notes")
    level(tmp_path, sessions=["A"])
    names = {path.name for path in (tmp_path / "group").iterdir()}
    assert not any("desc-consistent" in name or name.startswith("ses-B") for name in names)
    assert "mine.txt" in names
    figures = {path.name for path in (tmp_path / "group" / "figures").iterdir()}
    assert "atlas-A_sessions.svg" not in figures
    said = json.loads((tmp_path / "group/atlas-A_meas-count_stat-mean_relmat.json").read_text())
    assert said["SourceCount"] == 2


def test_files_of_users_stay_and_responses_of_an_earlier_run_do_not(tmp_path):
    write_participants(tmp_path, 2)
    put_response(tmp_path, "00")
    level(tmp_path)
    own = tmp_path / "group" / "atlas-A_meas-count_stat-tstat_relmat.dense.tsv"
    drawn = tmp_path / "group" / "figures" / "paper.svg"
    other = tmp_path / "group" / "model-csd_label-WM_response_old.txt"
    for path in (own, drawn, other):
        path.write_text("mine")
    response = tmp_path / "group" / "model-csd_label-WM_response.txt"
    assert response.is_file()
    next(tmp_path.glob("sub-00/**/*_response.txt")).unlink()
    level(tmp_path, sessions=["A"])
    assert own.is_file()
    assert drawn.is_file()
    assert other.is_file()
    assert not response.exists()
    assert not response.with_suffix(".json").exists()


def test_a_run_that_fails_leaves_what_was_there(tmp_path):
    write_participants(tmp_path, 2)
    level(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "group").glob("*.*")}
    for broken in sorted(tmp_path.glob("sub-*/**/*meas-meanfa_relmat.dense.tsv"), reverse=True):
        broken.write_text("a\n")
    with pytest.raises(InputError, match="The matrix") as caught:
        level(tmp_path)
    assert caught.value.where == str(broken)
    assert {path: path.read_bytes() for path in (tmp_path / "group").glob("*.*")} == before
    assert list((tmp_path / "work").iterdir()) == []


def test_responses_that_do_not_fit_stop_no_connectomes(tmp_path):
    write_participants(tmp_path, 2)
    put_response(tmp_path, "00")
    put_response(tmp_path, "01", bval=3000.0)
    said = level(tmp_path)
    assert any(line.startswith("WARNING: no average responses") for line in said)
    assert (tmp_path / "group" / "quality.tsv").is_file()
    assert not list((tmp_path / "group").glob("*_response.*"))


def test_with_neither_connectomes_nor_responses_there_is_a_remedy(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    assert main([str(tmp_path), str(out), "group", "-w", str(tmp_path / "work")]) == 2
    said = capsys.readouterr().err
    assert "no connectomes" in said
    assert "participant level first" in said
    assert list(out.iterdir()) == []


def test_labels_on_the_command_line_choose(tmp_path):
    write_participants(tmp_path, 3)
    work = str(tmp_path / "work")
    command = [str(tmp_path), str(tmp_path), "group", "-w", work]
    assert main([*command, "--participant-label", "00", "02", "--session-label", "B"]) == 0
    said = json.loads((tmp_path / "group/atlas-A_meas-count_stat-mean_relmat.json").read_text())
    assert said["Participants"] == ["sub-00", "sub-02"]
    assert said["SourceCount"] == 2
    assert "participants 00, 02; sessions B" in (tmp_path / "group.html").read_text()


@pytest.mark.parametrize("threshold", ["0", "1.5"])
def test_a_threshold_out_of_range_is_refused(tmp_path, capsys, threshold):
    command = [str(tmp_path), str(tmp_path), "group", "--consistency-threshold", threshold]
    assert main(command) == 2
    assert "consistency_threshold" in capsys.readouterr().err


def test_a_threshold_of_zero_is_no_threshold():
    with pytest.raises(ConfigError, match="consistency_threshold"):
        GroupConfig(consistency_threshold=0.0)


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    write_participants(tmp_path, 2)
    monkeypatch.setattr("difftract_bids.group.statistics_files.write_matrix", full)
    with pytest.raises(DifftractError, match="No space left"):
        level(tmp_path)
    assert not (tmp_path / "group").exists()
    assert list((tmp_path / "work").iterdir()) == []


def made_by(scratch, letter, n_files=12):
    """Write what a group run would have made: every file says whose it is."""
    folder = scratch / letter / "group"
    folder.mkdir(parents=True)
    for i in range(n_files):
        name = f"atlas-{letter}{i}_meas-count_stat-mean_relmat.dense.tsv"
        (folder / name).write_text(letter)
        (folder / f"common{i}.tsv").write_text(letter)
    (scratch / letter / "group.html").write_text(letter)
    return scratch / letter


def published(out):
    """Files that are there, but for the lock."""
    return [path for path in out.rglob("*") if path.is_file() and path.suffix != ".lock"]


PUBLISH_SLOWLY = """
import sys
from pathlib import Path
from time import sleep
from difftract_bids.group import publish as publishing

move = publishing._move
publishing._move = lambda *paths: (sleep(0.005), move(*paths))
print("ready", flush=True)
sys.stdin.readline()
publishing.publish(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_of_two_runs_at_once_one_is_there_whole(tmp_path):
    folders = [made_by(tmp_path, letter) for letter in "AB"]
    pipe = subprocess.PIPE
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH_SLOWLY, folder, tmp_path / "out"],
            stdin=pipe,
            stdout=pipe,
            text=True,
        )
        for folder in folders
    ]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        print(file=run.stdin, flush=True)
    for run in runs:
        run.communicate()
        assert run.returncode == 0
    files = published(tmp_path / "out")
    assert len(files) == 25
    assert len({path.read_text() for path in files}) == 1


def test_files_go_to_another_file_system(tmp_path, monkeypatch):
    def refused(self, target):
        if "out" not in self.parts:
            raise OSError(18, "Invalid cross-device link")
        return replace(self, target)

    replace = Path.replace
    monkeypatch.setattr(Path, "replace", refused)
    publish(made_by(tmp_path, "A"), tmp_path / "out")
    files = published(tmp_path / "out")
    assert len(files) == 25
    assert {path.read_text() for path in files} == {"A"}


def test_the_workflow_gives_what_the_command_line_gives(finished, tmp_path):
    from difftract_bids.workflows.group import init_group_wf

    out = write_participants(tmp_path / "out")
    put_response(out, "00")
    config = GroupConfig(consistency_threshold=0.6, outlier_threshold=4.0)
    workflow = init_group_wf(out, config)
    workflow.base_dir = tmp_path / "work"
    workflow.run()
    expected = {path.name for path in (finished / "group").rglob("*")}
    assert {path.name for path in (out / "group").rglob("*")} == expected
    for path in (out / "group").glob("*.tsv"):
        assert path.read_text() == (finished / "group" / path.name).read_text()
    assert "1 participant(s) lack nodes" in (out / "group.html").read_text()
    matrix, _ = read_matrix(out / "group/atlas-A_meas-count_stat-mean_relmat.dense.tsv")
    assert matrix.sum() > 0


def test_the_workflow_says_who_was_selected_and_which_responses_do_not_fit(tmp_path):
    from difftract_bids.workflows.group import init_group_wf

    out = write_participants(tmp_path / "out", 3)
    put_response(out, "00")
    put_response(out, "01", bval=3000.0)
    workflow = init_group_wf(out, participants=["00", "01"])
    workflow.base_dir = tmp_path / "work"
    nodes = {node.name: node for node in workflow.run().nodes()}
    assert "participants 00, 01; all sessions" in (out / "group.html").read_text()
    (note,) = nodes["average"].result.outputs.notes
    assert note.startswith("no average responses. The responses of WM (csd)")
    said = level(out, participants=["00", "01"])
    assert f"WARNING: {note}" in said


def test_a_page_without_a_selection_does_not_make_one_up(finished, tmp_path):
    from difftract_bids.interfaces.group import PlotGroup

    group = finished / "group"
    plot = PlotGroup(
        matrices=[str(path) for path in group.glob("*.dense.tsv")],
        quality=str(group / "quality.tsv"),
        dictionary=str(group / "quality.json"),
        derivatives_dir=str(finished),
    )
    page = plot.run(cwd=str(tmp_path)).outputs.page
    assert "Selected" not in Path(page).read_text()


def test_dollars_in_names_of_nodes_are_no_formula(tmp_path):
    names = ["L_a$_{b$", "L_c$x^$", *node_names(8)[4:6]]
    for label in ("01", "02"):
        counts = np.ones((4, 4))
        write_connectome(tmp_path, label, counts, names=names)
    level(tmp_path)
    assert (tmp_path / "group" / "figures" / "atlas-A_mean.svg").is_file()


def test_the_picture_counts_the_edges_that_the_mask_keeps(tmp_path, monkeypatch):
    from difftract_bids.reports.group import matrices

    told = []
    draw = matrices._draw_kept
    monkeypatch.setattr(
        matrices, "_draw_kept", lambda *given: told.append(given[-1]) or draw(*given)
    )
    for i in range(3):
        counts = np.array([[0.0, 1.0, i == 0], [1.0, 0.0, 0.0], [i == 0, 0.0, 0.0]])
        write_connectome(tmp_path, f"{i:02d}", counts)
    level(tmp_path, consistency_threshold=1 / 3)
    stem = "atlas-A_meas-count_stat-mask_desc-consistent_relmat"
    assert told == [json.loads((tmp_path / "group" / f"{stem}.json").read_text())["EdgesKept"]]
    assert told == [2]
