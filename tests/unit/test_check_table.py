"""The checks of a run: summed up in words, gathered, and kept in a table."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from difftract_bids.checks.table import checks_metadata, read_checks, write_checks
from difftract_bids.checks.verdict import LIGHTS, Check, worst
from difftract_bids.errors import InputError
from difftract_bids.interfaces.gather_checks import GatherChecks
from difftract_bids.io.matrices import write_matrix
from difftract_bids.io.summaries import write_summary
from difftract_bids.reports.page.summary import full_title, verdict

MASK = Check("mask", "Brain mask", "good", "1,400 mL in one piece.", value=1.4e6, unit="mm^3")
TEMPLATE = Check(
    "template", "Template", "look", "Overlap of 0.9.", "Look at it.", "template", "MNI", 0.9
)
SIDES = [f"{side}-{i}" for side in ("LH", "RH") for i in range(4)]


def of_lights(*lights):
    return [replace(MASK, name=f"check{i}", light=light) for i, light in enumerate(lights)]


@pytest.mark.parametrize(
    ("lights", "said"),
    [
        ([], "Nothing was checked by itself"),
        (["unknown"], "Nothing was checked by itself, 1 could not be made"),
        (["good"], "All checks are good"),
        (["good", "good"], "All checks are good"),
        (["good", "unknown"], "1 of 2 checks good, 1 could not be made"),
        (["good", "look"], "1 of 2 checks wants a look"),
        (["look", "look", "unknown"], "2 of 3 checks want a look, 1 could not be made"),
        (["bad", "good"], "1 of 2 checks found something wrong"),
        (["bad", "look", "good"], "1 of 3 checks found something wrong, 1 more wants a look"),
        (
            ["bad", "look", "look", "unknown"],
            "1 of 4 checks found something wrong, 2 more want a look, 1 could not be made",
        ),
    ],
)
def test_checks_are_summed_up_by_the_worst_and_nothing_is_left_unsaid(lights, said):
    told = verdict(of_lights(*lights))
    assert told["said"] == said
    assert (
        told["light"] == worst(of_lights(*lights)) == max(lights or ["unknown"], key=LIGHTS.index)
    )


def test_a_check_is_named_with_what_it_is_of_once():
    assert full_title(MASK) == "Brain mask"
    assert full_title(TEMPLATE) == "Template, MNI"
    assert full_title(replace(TEMPLATE, title="Template MNI")) == "Template MNI"


def test_a_table_gives_back_the_checks_that_were_written(tmp_path):
    checks = [MASK, TEMPLATE, replace(MASK, name="x", light="unknown", value=None, unit="")]
    assert read_checks(write_checks(checks, tmp_path / "checks.tsv")) == checks
    assert read_checks(write_checks([], tmp_path / "none.tsv")) == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("two\tcells\r\nand\v rows", "two cells and rows"),
        ('"quoted", and more\'', '"quoted", and more\''),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("=1+2\x00 \udcff\x1b[0m", "=1+2 [0m"),
        ("\t \n", ""),
        ("Größe 脳 🧠", "Größe 脳 🧠"),
    ],
)
def test_text_stays_in_its_cell(tmp_path, text, kept):
    path = write_checks([replace(MASK, found=text), TEMPLATE], tmp_path / "checks.tsv")
    assert read_checks(path) == [replace(MASK, found=kept), TEMPLATE]
    table = pd.read_csv(path, sep="\t")
    assert list(table.columns) == [
        key for key in checks_metadata() if key not in ("Description", "Notes")
    ]
    assert list(table.check) == ["mask", "template"]
    assert "" not in path.read_text().rstrip("\n").replace("\n", "\t").split("\t")


def test_a_value_that_is_no_number_is_not_available(tmp_path):
    checks = [replace(MASK, value=float("nan")), replace(TEMPLATE, value=np.float32(0.25))]
    path = write_checks(checks, tmp_path / "checks.tsv")
    assert [check.value for check in read_checks(path)] == [None, 0.25]
    assert "nan" not in path.read_text()


def test_values_have_the_digits_that_mean_something(tmp_path):
    checks = [replace(MASK, value=1 / 3), replace(TEMPLATE, value=1234567.8)]
    path = write_checks(checks, tmp_path / "checks.tsv")
    assert [check.value for check in read_checks(path)] == [0.333333, 1234570.0]
    assert "e+" not in path.read_text()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda _: "no table",
        lambda text: text.replace("light", "colour", 1),
        lambda text: text.replace("\tgood\t", "\tgreen\t"),
        lambda text: text.replace("1400000.0", "large"),
        lambda text: text[: text.index("1,400")],
        lambda text: text.replace("\n", "\textra\n").replace("\textra", "", 1),
    ],
    ids=["empty", "nonsense", "column", "light", "value", "cut", "cells"],
)
def test_what_is_no_table_of_checks_is_refused_by_name(tmp_path, damage):
    path = write_checks([MASK, TEMPLATE], tmp_path / "checks.tsv")
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=r"checks\.tsv"):
        read_checks(path)


def test_bytes_and_a_missing_file_are_refused_too(tmp_path):
    (tmp_path / "checks.tsv").write_bytes(b"\xff\xfe\x00\x80")
    for name in ("checks.tsv", "none.tsv"):
        with pytest.raises(InputError, match=name):
            read_checks(tmp_path / name)


def test_the_sidecar_describes_every_column_and_keeps_the_notes():
    said = checks_metadata(["Distortion was not corrected."])
    assert set(said["light"]["Levels"]) == set(LIGHTS)
    assert said["Notes"] == ["Distortion was not corrected."]
    json.dumps(said)


@pytest.fixture
def tracked(tmp_path):
    """A thousand streamlines, all of them between the nodes of one atlas of two."""
    ends = np.zeros((1000, 2, 3), np.float32)
    lengths_mm = np.random.default_rng(0).uniform(20, 120, 1000).astype(np.float32)
    write_summary(tmp_path / "summary.parquet", np.arange(1000), ends, lengths_mm)
    counts = np.full((8, 8), 1000 / 36)
    return {
        "summary": str(tmp_path / "summary.parquet"),
        "tractogram_metadata": {"Counts": {"Seeds": 2000, "StopReasons": {"curvature": 2000}}},
        "atlases": ["Near", "Far"],
        "counts": [
            str(write_matrix(counts, SIDES, tmp_path / "near.dense.tsv")),
            str(write_matrix(np.zeros((8, 8)), SIDES, tmp_path / "far.dense.tsv")),
        ],
    }


def gathered(inputs, tmp_path):
    """The checks, by name and what they are of."""
    outputs = GatherChecks(**inputs).run(cwd=str(tmp_path)).outputs
    checks = read_checks(Path(outputs.table))
    assert [check.to_dict() for check in checks] == [
        {**check, "value": pytest.approx(check["value"])} for check in outputs.checks
    ]
    return checks, outputs


def test_streamlines_and_connectomes_are_checked_after_what_was_checked_before(tmp_path, tracked):
    before = [MASK.to_dict(), TEMPLATE.to_dict()]
    checks, outputs = gathered({**tracked, "checks": before, "notes": ["A note."]}, tmp_path)
    names = [(check.name, check.of) for check in checks]
    assert names[:2] == [("mask", ""), ("template", "MNI")]
    assert names[2:] == [("streamlines", ""), ("connectome", "Near"), ("connectome", "Far")]
    assert outputs.metadata["Notes"] == ["A note."]
    near, far = checks[3:]
    assert near.light == "good", near.found
    assert far.light == "bad"
    assert "0% of 1,000 streamlines" in far.found
    assert far.value == 0.0


def test_the_number_of_assigned_streamlines_counts_where_it_is_known(tmp_path, tracked):
    checks, _ = gathered({**tracked, "assigned": [50, 900]}, tmp_path)
    assert [check.value for check in checks[1:]] == [0.05, 0.9]


def test_few_streamlines_of_many_seeds_turn_the_light(tmp_path, tracked):
    lights = [
        gathered({**tracked, "tractogram_metadata": {"Counts": {"Seeds": n}}}, tmp_path)[0][
            0
        ].light
        for n in (2000, 10**7)
    ]
    assert lights[0] != lights[1] == "bad"


@pytest.mark.parametrize("broken", ["counts", "summary"])
def test_a_file_that_cannot_be_read_leaves_its_light_off_and_fails_nothing(
    tmp_path, tracked, broken
):
    path = tracked["counts"][0] if broken == "counts" else tracked["summary"]
    Path(path).write_text("no table")
    checks, _ = gathered(tracked, tmp_path)
    lights = {check.of or check.name: check.light for check in checks}
    others = {"streamlines", "Near", "Far"} if broken == "summary" else {"Near"}
    assert {name for name, light in lights.items() if light == "unknown"} == others
    unknown = next(check for check in checks if check.light == "unknown")
    assert "could not be judged" in unknown.found
    assert unknown.remedy


def test_checks_that_cannot_be_made_again_keep_their_lights_and_places(tmp_path, tracked):
    coreg = replace(MASK, name="coreg", light="bad")
    old = replace(MASK, light="look")
    earlier = write_checks([old, coreg, TEMPLATE], tmp_path / "earlier.tsv")
    inputs = {**tracked, "checks": [MASK.to_dict()], "earlier": str(earlier)}
    checks, _ = gathered(inputs, tmp_path)
    assert [check.name for check in checks] == [
        *("mask", "coreg", "template", "streamlines", "connectome", "connectome")
    ]
    assert checks[0] == MASK  # what is made again is not what it was
    assert checks[1].light == "bad"
    unknown = replace(MASK, light="unknown").to_dict()
    again, _ = gathered({**inputs, "checks": [unknown]}, tmp_path)
    assert again[0] == old  # what was judged once is not forgotten
    assert [check.name for check in again] == [check.name for check in checks]
    # Whatever order the checks had before.
    other = replace(MASK, name="streamlines", light="bad")
    write_checks([other, coreg, old], tmp_path / "earlier.tsv")
    again, _ = gathered({**inputs, "checks": [unknown]}, tmp_path)
    lights = {check.name: check.light for check in again}
    assert (lights["mask"], lights["coreg"], lights["streamlines"]) == ("look", "bad", "good")
    write_checks([old, coreg, TEMPLATE], tmp_path / "earlier.tsv")
    earlier.write_text("no table")
    assert [check.name for check in gathered(inputs, tmp_path)[0]][:2] == ["mask", "streamlines"]
