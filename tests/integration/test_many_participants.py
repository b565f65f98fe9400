"""Eight participants with two sessions, each of the last four broken in another way."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from apps import copy_participant, make_phantom, run_app, validator_errors

pytestmark = pytest.mark.integration
GOOD = ("01", "02", "03", "04")
#: What each of the others is broken in, and what is said of it.
BROKEN = {
    "05": "Compressed file ended before",
    "06": "no .bvec file",
    "07": "No label of Phantom lies within",
    "08": "values of the diffusion series are not finite, in 1 of 32 volumes",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    # Spaces, letters beyond ASCII and a configuration file's own sign in every path.
    root = tmp_path_factory.mktemp("many") / "Müller's étude 100%"
    dataset = make_phantom(root / "bids", "--n-sessions", "2")
    for number in range(2, 9):
        copy_participant(dataset, "01", f"0{number}")
    image = dwi(dataset, "05")
    image.write_bytes(image.read_bytes()[:-2000])
    dwi(dataset, "06", "bvec").unlink()
    truth = dataset / "derivatives" / "truth" / "sub-07" / "ses-02" / "dwi"
    (parcellation,) = truth.glob("*_atlas-Phantom_dseg.nii.gz")
    moved = nib.load(parcellation)
    nib.save(nib.Nifti1Image(np.asarray(moved.dataobj), moved.affine + 1000.0), parcellation)
    broken = nib.load(dwi(dataset, "08"))
    data = broken.get_fdata(dtype=np.float32)
    data[10:12, 10:12, 10, 7] = np.nan
    nib.save(nib.Nifti1Image(data, broken.affine), dwi(dataset, "08"))
    return dataset


def dwi(dataset, participant, extension="nii.gz"):
    folder = dataset / f"sub-{participant}" / "ses-02" / "dwi"
    (path,) = folder.glob(f"*_dwi.{extension}")
    return path


def run(dataset, *options):
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    own = ("--sloppy", "--n-streamlines", "500", "--atlases", truth)
    return run_bare(dataset, *own, *options)


def run_bare(dataset, *options):
    """Run the app without a setting, as reports are made again."""
    root = dataset.parent
    return run_app(dataset, root / "out", "participant", "-w", root / "work dir", *options)


@pytest.fixture(scope="module")
def finished(dataset):
    return run(dataset)


def latest_table(dataset):
    logs = sorted((dataset.parent / "out" / "logs").glob("2*/participants.tsv"))
    return pd.read_csv(logs[-1], sep="\t", index_col="participant_id", keep_default_na=False)


def outputs(dataset):
    out = dataset.parent / "out"
    return {path: path.stat().st_mtime_ns for path in out.glob("sub-*/**/*") if path.is_file()}


@pytest.fixture
def kept(dataset):
    """Put a participant's files back as they were, though a test failed: the next needs them."""
    out = dataset.parent / "out"
    files = {}

    def keep(pattern):
        found = {path: path.read_bytes() for path in out.glob(pattern)}
        files.update(found)
        return found

    yield keep
    for path, content in files.items():
        path.write_bytes(content)


@pytest.fixture
def _no_session_pages(dataset):
    """Remove the pages of sessions and what is only theirs: a later run knows nothing of them."""
    yield
    for pattern in ("sub-0*_ses-*.html", "sub-0*/ses-0*/figures/*_desc-about_dwi.html"):
        for path in (dataset.parent / "out").glob(pattern):
            path.unlink()


def test_good_participants_are_done_and_each_bad_one_is_named_with_its_reason(dataset, finished):
    assert finished.returncode == 1, finished.stdout + finished.stderr
    table = latest_table(dataset)
    assert list(table.index) == [f"sub-0{number}" for number in range(1, 9)]
    for participant in GOOD:
        assert table.status[f"sub-{participant}"] == "done", table.reason[f"sub-{participant}"]
    for participant, reason in BROKEN.items():
        assert table.status[f"sub-{participant}"] == "failed"
        assert reason in table.reason[f"sub-{participant}"]
        (line,) = [one for one in finished.stdout.splitlines() if f"sub-{participant}: FAI" in one]
        assert reason in line
    assert Path(table.crash_file["sub-08"]).is_file()
    # What can be seen in a header is found before anything starts, and has no crash file.
    assert [bool(table.crash_file[f"sub-{label}"] != "n/a") for label in BROKEN] == [
        *(False, False, False),
        True,
    ]


def test_a_participant_with_one_bad_session_keeps_what_the_other_one_gave(dataset, finished):
    out = dataset.parent / "out"
    matrix = "dwi/sub-08_ses-{0}_atlas-Phantom_meas-count_relmat.dense.tsv"
    assert (out / "sub-08" / "ses-01" / matrix.format("01")).exists(), finished.stdout
    assert not (out / "sub-08" / "ses-02" / matrix.format("02")).exists()
    assert "This run failed" in (out / "sub-08.html").read_text()


def test_the_derivatives_of_such_a_dataset_are_valid_bids(dataset, finished):
    assert finished.stdout
    assert validator_errors(dataset.parent / "out") == []


def test_the_files_are_those_of_the_list(dataset, finished):
    assert finished.stdout
    out = dataset.parent / "out"
    lines = (Path(__file__).with_name("expected_outputs.txt")).read_text().splitlines()
    expected = {line for line in lines if not line.startswith("#")}
    expected |= {line.replace("ses-01", "ses-02") for line in expected}
    own = [path for path in (out / "sub-01").rglob("*") if path.is_file()]
    top = [path for path in out.iterdir() if path.is_file() and "sub-0" not in path.name]
    found = {str(path.relative_to(out)) for path in (*own, *top, out / "sub-01.html")}
    assert found == expected


def test_the_same_command_touches_only_what_was_not_done(dataset, finished):
    assert finished.stdout
    before = outputs(dataset)
    again = run(dataset)
    assert again.returncode == 1
    assert set(latest_table(dataset).status[:4]) == {"skipped"}
    changed = {path for path, time in outputs(dataset).items() if before.get(path) != time}
    assert {path.relative_to(dataset.parent / "out").parts[:2] for path in changed} <= {
        ("sub-08", "figures"),  # the failure is told of again
        *((f"sub-{label}", "figures") for label in ("05", "06", "07")),
    }


@pytest.mark.usefixtures("_no_session_pages")
def test_reports_of_sessions_are_made_of_what_there_is(dataset, finished, kept):
    assert finished.stdout
    out = dataset.parent / "out"
    records = {path: path.read_bytes() for path in (out / "logs" / "finished").iterdir()}
    drawn = kept("sub-01/ses-02/figures/*")
    for path in drawn:
        path.unlink()
    done = run_bare(
        *(dataset, "--reports-only", "--report-output-level", "session"),
        *("--participant-label", "01", "08"),
    )
    assert done.returncode == 1  # sub-08 has a session that failed
    # Figures are drawn again as they were, but for streamlines, which were thinned to be saved.
    again = {path: path.read_bytes() for path in drawn if path.is_file()}
    descs = {_desc(path) for path, content in drawn.items() if again.get(path) == content}
    assert descs >= {"gradients", "mask", "coreg", "coregflicker", "fa", "fodf", "response"}
    assert descs >= {"parcellation", "connectome", "matrix", "nodes", "edges"}
    redrawn = {_desc(path) for path in again}
    assert redrawn - descs <= {"summary", "tractogram", "view3d", "lengths"}
    assert redrawn >= {"summary", "tractogram", "view3d", "lengths"}
    assert {path: path.read_bytes() for path in records} == records
    assert not list((dataset.parent / "work dir").glob("**/redraw-*"))
    page = (out / "sub-01_ses-02.html").read_text()
    assert "sub-01_ses-02_desc-fa_dwi.svg" in page
    assert "ses-01" not in page.replace("sub-01", "")
    assert "About this run" in page
    assert "This run failed" not in (out / "sub-08_ses-01.html").read_text()


def test_a_figure_that_cannot_be_drawn_again_is_kept_and_costs_a_warning(dataset, finished, kept):
    assert finished.stdout
    out = dataset.parent / "out"
    own = "sub-02/ses-01"
    ((colours, content),) = kept(f"{own}/dwi/*_desc-dec_dwimap.nii.gz").items()
    ((figure, drawn),) = kept(f"{own}/figures/*_desc-fa_dwi.svg").items()
    (checks,) = kept(f"{own}/dwi/*_desc-checks_quality.tsv")
    # What an earlier version has not left is made.
    checks.unlink()
    colours.write_bytes(content[:-200])
    before = outputs(dataset)
    done = run_bare(
        *(dataset, "--reports-only", "--participant-label", "02", "--session-label", "01"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert latest_table(dataset).status["sub-02"] == "done"
    (warning,) = [line for line in done.stdout.splitlines() if "could not be drawn" in line]
    assert warning.startswith(f"WARNING: {figure.name} could not be drawn again, and is kept: ")
    assert colours.name in warning
    assert figure.read_bytes() == drawn
    page = (out / "sub-02.html").read_text()
    assert figure.name in page
    changed = {path for path, time in outputs(dataset).items() if before.get(path) != time}
    assert {path.parent.name for path in changed} == {"figures", "dwi"}
    assert {_desc(path) for path in changed if path.parent.name == "dwi"} == {"checks"}
    assert checks.read_bytes() != b""


def _desc(path):
    return path.name.split("_desc-")[1].split("_")[0]


def test_settings_that_were_not_run_do_not_pass_for_done(dataset, finished):
    assert finished.stdout
    # The bad one fails first and stops the others, whose files of these names are there already.
    stopped = run(
        *(dataset, "--cutoff", "0.12", "--stop-on-first-crash", "--nprocs", "1"),
        *("--participant-label", "01", "08"),
    )
    assert stopped.returncode == 1
    status = latest_table(dataset).status
    assert status["sub-08"] == "failed"
    assert status["sub-01"] == "failed"
    assert "Not finished" in latest_table(dataset).reason["sub-01"]
    run(dataset, "--participant-label", "01", "08")
    assert latest_table(dataset).status["sub-01"] == "done"


def test_a_mended_participant_is_all_that_is_done_next(dataset, finished):
    assert finished.stdout
    shutil.copy(dwi(dataset, "01"), dwi(dataset, "08"))
    before = outputs(dataset)
    mended = run(dataset)
    table = latest_table(dataset)
    assert table.status["sub-08"] == "done", mended.stdout + mended.stderr
    assert set(table.status[:4]) == {"skipped"}
    changed = {path for path, time in outputs(dataset).items() if before.get(path) != time}
    folders = {path.relative_to(dataset.parent / "out").parts[:2] for path in changed}
    assert folders == {("sub-08", "ses-02"), ("sub-08", "figures")}
    assert "This run failed" not in (dataset.parent / "out" / "sub-08.html").read_text()
