"""Whose files a group is made of: leftovers, unfinished runs, and who is missing."""

import json

import numpy as np
import pytest
from groups import place, symmetric, write_connectome, write_quality

from difftract_bids.errors import InputError
from difftract_bids.group.files import Selection, iter_participants
from difftract_bids.group.loading import load_run
from difftract_bids.group.responses import find_responses
from difftract_bids.group.summarise import summarise
from difftract_bids.io.matrices import read_matrix

COUNTS = np.array([[0.0, 4.0], [4.0, 0.0]])


def summed_up(out, **selection):
    folder = out / "made"
    folder.mkdir(exist_ok=True)
    return summarise(out, folder, Selection.of(**selection))


def mean(out, atlas="A"):
    return read_matrix(out / "made" / f"atlas-{atlas}_meas-count_stat-mean_relmat.dense.tsv")[0]


def record(out, stem, *, fingerprint="done", outputs=(), earlier=(), version="1.0"):
    path = out / "logs" / "finished" / f"{stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"Fingerprint": fingerprint, "Outputs": [*outputs], "EarlierOutputs": [*earlier]}
    path.write_text(json.dumps({**said, "Version": version}))


def put_tractogram(out, participant, model="sdstream", **sidecar):
    folder, stem = place(out, participant)
    path = folder / f"{stem}_model-{model}_tractogram.json"
    path.write_text(json.dumps({"Counts": {"Seeds": 1000, "Streamlines": 100}, **sidecar}))
    return path.relative_to(out).as_posix()


def loaded(out):
    ((_, (run,)),) = iter_participants(out, Selection())
    return load_run(run)


def test_a_run_that_has_been_begun_again_is_left_out_and_named(tmp_path):
    for label, factor in (("01", 1.0), ("02", 3.0), ("03", 90.0)):
        write_connectome(tmp_path, label, factor * COUNTS)
    record(tmp_path, "sub-01")
    record(tmp_path, "sub-03", fingerprint="")
    notes = summed_up(tmp_path).notes
    assert mean(tmp_path)[0, 1] == 8.0
    begun = "1 run(s) have been begun again and are not finished: first sub-03"
    assert any(note.startswith(begun) for note in notes)


def test_where_every_run_has_been_begun_again_that_is_the_error(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    record(tmp_path, "sub-01", fingerprint="")
    with pytest.raises(InputError, match="begun again and are not finished: first sub-01"):
        summed_up(tmp_path)


def test_matrices_of_earlier_settings_are_left_out(tmp_path):
    for label in ("01", "02"):
        write_connectome(tmp_path, label, COUNTS)
    old = write_connectome(tmp_path, "01", COUNTS, atlas="Old").relative_to(tmp_path)
    record(tmp_path, "sub-01", earlier=[old.as_posix()])
    summed_up(tmp_path)
    assert not list((tmp_path / "made").glob("*Old*"))
    assert mean(tmp_path)[0, 1] == 4.0


def test_responses_of_unfinished_runs_and_earlier_settings_are_left_out(tmp_path):
    for label in ("01", "02", "03"):
        folder, stem = place(tmp_path, label)
        (folder / f"{stem}_model-csd_label-WM_response.txt").touch()
    record(tmp_path, "sub-01", fingerprint="")
    record(tmp_path, "sub-02", earlier=["sub-02/dwi/sub-02_model-csd_label-WM_response.txt"])
    assert [*find_responses(tmp_path, Selection())["csd", "WM"]] == ["03"]


def test_of_several_tractograms_the_one_of_the_record_is_measured(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    put_tractogram(tmp_path, "01", "ifod2", Counts={"Seeds": 10, "Streamlines": 7})
    current = put_tractogram(tmp_path, "01", "sdstream")
    record(tmp_path, "sub-01", outputs=[current])
    assert loaded(tmp_path).quality.measures["streamlines"] == 100


def test_of_several_tractograms_without_a_record_none_is_measured_and_that_is_said(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    for model in ("ifod2", "sdstream"):
        put_tractogram(tmp_path, "01", model)
    assert "streamlines" not in loaded(tmp_path).quality.measures
    assert any("tractograms of several models" in note for note in summed_up(tmp_path).notes)


def test_more_streamlines_than_there_are_is_no_share(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    write_quality(tmp_path, "01", streamlines=3)
    assert "assigned_share_A" not in loaded(tmp_path).quality.measures


def test_who_has_no_connectome_is_said(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    write_connectome(tmp_path, "01", COUNTS, atlas="B")
    write_connectome(tmp_path, "02", COUNTS)
    write_quality(tmp_path, "03")
    (tmp_path / "sub-04").mkdir()
    notes = summed_up(tmp_path).notes
    assert "2 of 4 participants have no connectome: 03, 04." in notes
    assert "1 of 4 participants have no connectome of atlas B: 02." in notes


@pytest.mark.parametrize("text", ["a\n", "a\ta\n1\t1\n1\t1\n"])
def test_one_matrix_that_cannot_be_used_stops_no_group(tmp_path, text):
    for label in ("01", "02", "03"):
        write_connectome(tmp_path, label, COUNTS)
        write_connectome(tmp_path, label, COUNTS, measure="density")
    write_connectome(tmp_path, "02", 7 * COUNTS)
    broken = write_connectome(tmp_path, "02", COUNTS, measure="density")
    broken.write_text(text)
    notes = summed_up(tmp_path).notes
    assert mean(tmp_path)[0, 1] == 4.0
    (note,) = (note for note in notes if "cannot be used" in note)
    assert broken.relative_to(tmp_path).as_posix() in note
    assert "(The matrix cannot be read" in note or "stand twice" in note


def test_an_atlas_of_which_nothing_can_be_used_is_left_out(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    write_connectome(tmp_path, "01", COUNTS, atlas="B").write_text("a\n")
    summary = summed_up(tmp_path)
    assert {path.name.partition("_")[0] for path in summary.matrices} == {"atlas-A"}
    assert "density_B" not in summary.runs.read_text()


def test_missing_nodes_of_a_session_are_those_of_its_matrices(tmp_path):
    names = ["a", "b", "c"]
    for label in ("01", "02"):
        for session in ("A", "B"):
            n = 2 if (label, session) == ("01", "A") else 3
            write_connectome(tmp_path, label, np.ones((n, n)), names=names[:n], session=session)
    summed_up(tmp_path)
    said = {
        before: json.loads(
            (tmp_path / f"made/{before}_meas-count_stat-mean_relmat.json").read_text()
        )
        for before in ("atlas-A", "ses-A_atlas-A", "ses-B_atlas-A")
    }
    assert said["atlas-A"]["MissingNodes"] == {"sub-01": ["c"]}
    assert said["ses-A_atlas-A"]["MissingNodes"] == {"sub-01": ["c"]}
    assert said["ses-B_atlas-A"]["MissingNodes"] == {}


def test_a_mask_in_another_space_is_no_run(tmp_path):
    write_connectome(tmp_path, "01", COUNTS)
    folder, stem = place(tmp_path, "01")
    (folder / f"{stem}_space-T1w_desc-brain_mask.nii.gz").touch()
    assert loaded(tmp_path).run.stem == "sub-01"


SETTINGS = {
    "StreamlineSeeding": {"Source": "sub-01_gm.nii.gz", "RandomSeed": 0, "SeedCount": 2000},
    "StreamlinePropagation": {"StepSize": 0.45000001, "Device": "cpu", "Backend": "auto"},
    "StreamlineTermination": {"MaximumAngle": 60.0},
    "StreamlineAcceptanceCriteria": {"MinimumLength": 20.0},
}


def differences(out, other, *, model="sdstream", version="1.0"):
    """Names of what differs between a run with the settings above and another."""
    for label, said, of, by in (
        ("01", SETTINGS, "sdstream", "1.0"),
        ("02", other, model, version),
    ):
        write_connectome(out, label, COUNTS)
        put_tractogram(out, label, of, **said)
        record(out, f"sub-{label}", version=by)
    summed_up(out)
    sidecar = out / "made" / "atlas-A_meas-count_stat-mean_relmat.json"
    return set(json.loads(sidecar.read_text()).get("DifferentSettings", {}))


@pytest.mark.parametrize(
    ("entry", "name", "value"),
    [
        ("StreamlineSeeding", "Source", "Brain mask"),
        ("StreamlinePropagation", "StepSize", 0.9),
        ("StreamlineTermination", "MaximumAngle", 45.0),
        ("StreamlineAcceptanceCriteria", "MinimumLength", 10.0),
    ],
)
def test_streamlines_of_other_settings_are_told(tmp_path, entry, name, value):
    other = {**SETTINGS, entry: SETTINGS[entry] | {name: value}}
    assert differences(tmp_path, other) == {entry}


def test_another_model_and_another_version_are_told(tmp_path):
    found = differences(tmp_path, SETTINGS, model="ifod2", version="2.0")
    assert found == {"TractogramModel", "Version"}


def test_what_is_of_a_run_alone_is_no_other_setting(tmp_path):
    seeding = {"Source": "sub-02_gm.nii.gz", "RandomSeed": 9, "SeedCount": 1234}
    moved = {"StepSize": 0.45000002, "Device": "cuda", "Backend": "cuda"}
    other = SETTINGS | {"StreamlineSeeding": seeding, "StreamlinePropagation": moved}
    assert differences(tmp_path, other) == set()


def test_weights_are_told_in_the_dictionary_of_edges(tmp_path):
    write_connectome(tmp_path, "01", COUNTS, MeasureDescription="Sum of the weights")
    said = json.loads(summed_up(tmp_path).edges_dictionary.read_text())
    assert said["count"]["Description"].startswith("Sum of the weights")


def test_a_participant_is_averaged_once_for_the_similarity_of_its_runs(tmp_path, monkeypatch):
    from difftract_bids.group import similarity

    rng = np.random.default_rng(0)
    for label in ("01", "02"):
        for run in (1, 2, 3):
            write_connectome(tmp_path, label, symmetric(rng.poisson(5.0, (4, 4))), run=run)
    edges = summed_up(tmp_path).edges
    asked = []
    monkeypatch.setattr(
        similarity,
        "mean_of",
        lambda *given, call=similarity.mean_of: asked.append(1) or call(*given),
    )
    assert len(similarity.similarity_with_others(edges)) == 6
    # Of each participant a session and their mean, in each of two passes.
    assert len(asked) == 8
