"""Planning large datasets: how long it takes, what is read, and indexes that are kept."""

import json
import resource
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from bids.layout.writing import build_path
from datasets import write_dataset, write_run
from fsspec.implementations.local import LocalFileSystem
from nipype.pipeline import engine as pe
from skeletons import settle, write_skeleton

from difftract_bids.bids import listing, raw_index
from difftract_bids.bids.labels import is_label, participant_wf_name
from difftract_bids.bids.layout import derivative_path, path_patterns
from difftract_bids.bids.outputs import OUTPUTS, output_entities
from difftract_bids.bids.plan import make_plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config
from difftract_bids.errors import InputError, UsageError

INDEX = "layout_index.sqlite"


def plan(bids_dir, **options):
    out, work = bids_dir.parent / "out", bids_dir.parent / "work"
    return make_plan(bids_dir, out, work, Config(), **options)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    root = write_skeleton(tmp_path_factory.mktemp("large") / "bids", 300)
    settle(root)
    return root


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "bids", ["01", "02", "03"], sessions=["A", "B"], t1w=True)


def cpu_seconds(who=resource.RUSAGE_SELF):
    """Time that other processes on the machine do not lengthen."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def test_three_hundred_participants_are_planned_in_under_half_a_minute(large, record_property):
    start = cpu_seconds()
    found = plan(large)
    record_property("seconds", cpu_seconds() - start)
    assert cpu_seconds() - start < 30
    assert len(found.runs) == 600
    assert not found.unusable
    assert all(run.t1w and len(run.fieldmaps.opposed) == 1 for run in found.runs)


def test_one_participant_of_three_hundred_is_planned_in_under_five_seconds(large):
    # In a process of its own: what must be imported counts.
    code = (
        "import sys; from pathlib import Path\n"
        "from difftract_bids.bids.plan import make_plan\n"
        "from difftract_bids.config import Config\n"
        "root = Path(sys.argv[1]); out = root.parent\n"
        "plan = make_plan(root, out / 'o', out / 'w', Config(), participants=['0123'])\n"
        "assert [run.stem for run in plan.runs] == ['sub-0123_ses-A', 'sub-0123_ses-B']\n"
        "print(*{'torch', 'scipy.spatial', 'SimpleITK', 'h5py', 'nipype'} & set(sys.modules))\n"
    )
    start = cpu_seconds(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", code, str(large)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert cpu_seconds(resource.RUSAGE_CHILDREN) - start < 5
    assert done.stdout.split() == []  # nothing is imported that takes long and is not needed


def test_folders_of_other_participants_and_other_kinds_are_not_even_listed(large, monkeypatch):
    listed = []

    def ls(self, path, *args, **options):
        listed.append(path)
        return real(self, path, *args, **options)

    real = LocalFileSystem.ls
    monkeypatch.setattr(LocalFileSystem, "ls", ls)
    plan(large, participants=["0123"])
    below = {path.removeprefix(str(large)) for path in listed}
    assert f"{large}/sub-0123/ses-A/dwi" in listed
    assert below <= {""} | {path for path in below if path.startswith("/sub-0123")}
    assert not any("func" in path for path in below)


def test_the_top_of_a_dataset_is_listed_once_for_all_runs(tmp_path, monkeypatch):
    root = write_skeleton(tmp_path / "bids", 4)
    settle(root)
    listed = []

    def spy(folder):
        listed.append(folder)
        return real(folder)

    real = listing._listed
    monkeypatch.setattr(listing, "_listed", spy)
    plan(root)
    assert listed.count(root) == 1


def test_a_listing_is_read_anew_when_its_folder_has_changed(tmp_path):
    settle(tmp_path)
    assert listing.names_in(tmp_path) == ()
    (tmp_path / "one").touch()
    assert listing.names_in(tmp_path) == ("one",)
    (tmp_path / "two").touch()  # so soon that the folder's time may be the same
    assert listing.names_in(tmp_path) == ("one", "two")
    assert listing.names_in(tmp_path / "none") == ()


def test_the_index_is_asked_once_for_all_participants(dataset, monkeypatch):
    asked = []

    def get(self, *args, **options):
        asked.append(options)
        return real(self, *args, **options)

    real = raw_index.BIDSLayout.get
    monkeypatch.setattr(raw_index.BIDSLayout, "get", get)
    assert len(plan(dataset).runs) == 6
    assert len(asked) == 1


def test_a_dataset_may_lie_below_folders_that_are_called_as_in_bids(tmp_path):
    above = tmp_path / "sub-99" / "ses-1" / "dwi"
    found = plan(write_dataset(above / "bids", ["01"], t1w=True))
    assert [(run.stem, run.t1w.name) for run in found.runs] == [("sub-01", "sub-01_T1w.nii.gz")]


def test_an_image_in_the_folder_of_another_participant_is_nobody_s(dataset):
    write_run(dataset / "sub-01" / "ses-A" / "dwi", "sub-02_ses-C")
    stems = [run.stem for run in plan(dataset).runs]
    assert len(stems) == 6
    assert "sub-02_ses-C" not in stems


# Indexes that are kept.


def never(*_):
    raise AssertionError("the dataset was indexed again")


def test_a_kept_index_is_made_once_and_gives_the_same_plan(dataset, tmp_path, monkeypatch):
    wanted = plan(dataset)
    kept = tmp_path / "not there yet" / "index"
    assert plan(dataset, participants=["01"], database_dir=kept).participants == ["01"]
    assert [path.name for path in kept.iterdir()] == [INDEX]
    monkeypatch.setattr(raw_index, "_indexed", never)
    assert plan(dataset, database_dir=kept) == wanted


def test_an_index_is_of_the_dataset_whatever_it_is_called(dataset, tmp_path, monkeypatch):
    kept = tmp_path / "index"
    plan(dataset, database_dir=kept)
    link = tmp_path / "link"
    link.symlink_to(dataset)
    monkeypatch.setattr(raw_index, "_indexed", never)
    found = plan(link, database_dir=kept)
    assert len(found.runs) == 6
    assert all(run.dwi.is_relative_to(link) for run in found.runs)


def new_session(dataset):
    write_run(dataset / "sub-02" / "ses-C" / "dwi", "sub-02_ses-C")


def new_participant(dataset):
    write_run(dataset / "sub-04" / "dwi", "sub-04")


def gone(dataset):
    (dataset / "sub-02" / "ses-B" / "anat" / "sub-02_ses-B_T1w.nii.gz").unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (new_session, r"02, 1 image\(s\) are not in it and 0 .* sub-02_ses-C_dwi.nii.gz"),
        (new_participant, r"04, 1 image\(s\) are not in it"),
        (gone, r"02, 0 image\(s\) are not in it and 1 .* sub-02_ses-B_T1w.nii.gz"),
    ],
)
def test_an_index_that_is_not_of_the_dataset_as_it_is_is_refused(dataset, tmp_path, change, said):
    kept = tmp_path / "index"
    plan(dataset, database_dir=kept)
    change(dataset)
    with pytest.raises(UsageError, match=said) as caught:
        plan(dataset, database_dir=kept)
    assert str(kept / INDEX) in caught.value.where
    assert plan(dataset, participants=["01"], database_dir=kept).runs  # nothing changed there
    (kept / INDEX).unlink()
    assert plan(dataset, database_dir=kept).runs


def other_dataset(kept, tmp_path):
    plan(write_dataset(tmp_path / "other"), database_dir=kept)


def no_database(kept, _):
    kept.mkdir()
    (kept / INDEX).write_text("hello, this is no database at all" * 100)


def empty_database(kept, _):
    kept.mkdir()
    sqlite3.connect(kept / INDEX).close()


def other_tables(kept, tmp_path):
    kept.mkdir()
    database = sqlite3.connect(kept / INDEX)
    with database:
        database.execute("CREATE TABLE layout_info (root TEXT)")
        database.execute("INSERT INTO layout_info VALUES (?)", [str(tmp_path / "bids")])
    database.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (other_dataset, "another dataset, .*other"),
        (no_database, "cannot be used: file is not a database"),
        (empty_database, "cannot be used"),
        (other_tables, "cannot be used: .*no such column"),
    ],
)
def test_what_is_no_index_of_the_dataset_is_refused_with_a_remedy(dataset, tmp_path, make, said):
    kept = tmp_path / "index"
    make(kept, tmp_path)
    with pytest.raises(UsageError, match=said) as caught:
        plan(dataset, database_dir=kept)
    assert "Remove it" in caught.value.remedy


def test_an_index_of_pybids_own_making_will_do(dataset, tmp_path, monkeypatch):
    (dataset / "sub-01" / "ses-x y" / "dwi").mkdir(parents=True)
    (dataset / "sub-01" / "ses-x y" / "dwi" / "sub-01_dwi.nii.gz").touch()
    raw_index.BIDSLayout(dataset, validate=False, database_path=tmp_path / "index")
    wanted = plan(dataset)
    monkeypatch.setattr(raw_index, "_indexed", never)
    assert plan(dataset, database_dir=tmp_path / "index") == wanted


def test_an_index_is_never_written_among_the_raw_data(dataset):
    with pytest.raises(UsageError, match="among the raw data"):
        plan(dataset, database_dir=dataset / "code" / "index")
    assert not (dataset / "code").exists()


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(dataset, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be used"):
        plan(dataset, database_dir=tmp_path / "file" / "index")


def test_two_runs_that_index_at_once_do_not_disturb_each_other(dataset, tmp_path, monkeypatch):
    kept, real = tmp_path / "index", raw_index._indexed

    def second_comes_between(*args):
        monkeypatch.setattr(raw_index, "_indexed", real)
        assert plan(dataset, database_dir=kept).runs
        return real(*args)

    monkeypatch.setattr(raw_index, "_indexed", second_comes_between)
    assert len(plan(dataset, database_dir=kept).runs) == 6
    assert [path.name for path in kept.iterdir()] == [INDEX]


def test_an_index_that_was_not_finished_is_not_taken_for_one(dataset, tmp_path, monkeypatch):
    kept = tmp_path / "index"

    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(raw_index, "_close", killed)
    with pytest.raises(KeyboardInterrupt):
        plan(dataset, database_dir=kept)
    assert not (kept / INDEX).exists()
    monkeypatch.undo()
    assert plan(dataset, database_dir=kept).runs


# Names of derivatives.


@pytest.mark.parametrize(
    "own",
    [
        {"subject": "01"},
        {"subject": "a+b", "session": "1", "run": "02"},
        {
            "subject": "01",
            "acquisition": "x",
            "reconstruction": "y",
            "direction": "AP",
            "chunk": 1,
        },
    ],
)
def test_names_of_derivatives_are_those_that_pybids_builds(own):
    run = DWIRun(own, *map(Path, ("a.nii.gz", "a.bval", "a.bvec")))
    for key, output in OUTPUTS.items():
        entities = own | output_entities(key, run, Config(), "MNI152NLin2009cAsym")
        entities |= {"atlas": "A"} if output.per_atlas else {}
        wanted = build_path(entities, path_patterns(), strict=True)
        assert derivative_path(entities) == wanted
        assert derivative_path(entities) == wanted  # from memory


def test_entities_that_no_pattern_takes_are_refused():
    with pytest.raises(ValueError, match="no pattern"):
        derivative_path({"subject": "01", "datatype": "dwi", "suffix": "dwi", "extension": ".doc"})


# Labels.


@pytest.mark.parametrize("name", ["01;rm -rf", "a b", "01_x", "$(id)", "é", "01.bak", ""])
def test_a_folder_without_a_label_is_no_participant_and_is_told_of(dataset, name):
    shutil.copytree(dataset / "sub-01", dataset / f"sub-{name}")
    found = plan(dataset)
    assert found.participants == ["01", "02", "03"]
    assert all(run.dwi.parts[-4] == f"sub-{run.participant}" for run in found.runs)
    assert list(found.unusable) == [name]
    assert "letters, digits and + only" in str(found.unusable[name])
    with pytest.raises(InputError, match="no participant: labels are"):
        plan(dataset, participants=[f"sub-{name}"])
    assert not plan(dataset, participants=["01"]).unusable  # who names participants means them


def test_a_name_that_cannot_be_printed_is_told_of_in_a_way_that_can(dataset):
    (dataset / "sub-a\nb\x1b[31m").mkdir()
    (dataset / "sub-\udcff").mkdir()
    told = plan(dataset).unusable
    assert set(told) == {"\\udcff", "a\\nb\\x1b[31m"}
    assert all(str(error).encode() and "\x1b" not in str(error) for error in told.values())


def test_a_dataset_without_any_label_says_so(tmp_path):
    dataset = write_dataset(tmp_path / "bids", ["AB_1", "AB_2"])
    with pytest.raises(InputError, match="sub-AB_1 is no participant"):
        plan(dataset)


def test_a_session_without_a_label_is_left_out_with_a_note(dataset):
    own = dataset / "sub-01"
    shutil.copytree(own / "ses-A", own / "ses-A;old")
    found = plan(dataset)
    assert [run.stem for run in found.of("01")] == ["sub-01_ses-A", "sub-01_ses-B"]
    for run in found.runs:
        said = any("ses-A;old is no session" in note for note in run.notes)
        assert said == (run.participant == "01")
    for session in "AB":
        shutil.rmtree(own / f"ses-{session}")
    with pytest.raises(InputError, match=r"no diffusion image\. ses-A;old is no session"):
        plan(dataset, participants=["01"])


@pytest.mark.parametrize("text", ["01", "a+b", "A0+"])
def test_labels_are_of_letters_digits_and_plus(text):
    assert is_label(text)
    assert not any(is_label(text + other) for other in (" ", "_", "-", ";", "é", "\n", "/"))


def test_every_label_makes_a_name_that_nipype_takes_and_no_two_the_same(tmp_path):
    labels = ["a+b", "aplusb", "ab", "a++b", "+ab", "ab+"]
    names = {pe.Workflow(name=participant_wf_name(label)).name for label in labels}
    assert len(names) == len(labels)
    dataset = write_dataset(tmp_path / "bids", ["a+b"], sessions=["1+", "1"])
    nodes = {pe.Workflow(name=run.node_name).name for run in plan(dataset).runs}
    assert len(nodes) == 2


def test_hidden_copies_are_no_images(dataset):
    folder = dataset / "sub-01" / "ses-A" / "dwi"
    shutil.copy(folder / "sub-01_ses-A_dwi.nii.gz", folder / "._sub-01_ses-A_dwi.nii.gz")
    assert len(plan(dataset, participants=["01"]).runs) == 2


def test_sidecars_at_the_top_still_apply(dataset):
    settle(dataset)
    (dataset / "dwi.json").write_text(json.dumps({"Manufacturer": "M"}))
    assert {run.metadata["Manufacturer"] for run in plan(dataset).runs} == {"M"}
