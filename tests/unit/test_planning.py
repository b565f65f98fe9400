"""What is found before anything long starts: inputs, and everything wrong with them."""

import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from datasets import N_DIRECTIONS, image, write_dataset

from difftract_bids.bids.plan import make_plan
from difftract_bids.bids.uris import raw_uri
from difftract_bids.cli.resources import share
from difftract_bids.config import Config
from difftract_bids.errors import DifftractError


def plan(bids_dir, **options):
    out = options.pop("output_dir", bids_dir.parent / "out")
    work = options.pop("work_dir", bids_dir.parent / "work")
    return make_plan(bids_dir, out, work, options.pop("config", Config()), **options)


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "bids")


def run_file(dataset, extension):
    return dataset / "sub-01" / "dwi" / f"sub-01_dwi.{extension}"


def test_all_runs_of_the_participants_asked_for_are_found(tmp_path):
    dataset = write_dataset(tmp_path / "bids", ["01", "02", "010"], sessions=["A", "B"])
    found = plan(dataset, participants=["sub-01", "010"], sessions=["ses-B"])
    assert [run.stem for run in found.runs] == ["sub-01_ses-B", "sub-010_ses-B"]


def test_the_t1w_of_the_same_session_is_taken_before_any_other(tmp_path):
    dataset = write_dataset(tmp_path / "bids", sessions=["A", "B"], t1w=True)
    shutil.rmtree(dataset / "sub-01" / "ses-A" / "anat")
    taken = {run.session: run.t1w.name for run in plan(dataset).runs}
    assert taken == dict.fromkeys("AB", "sub-01_ses-B_T1w.nii.gz")


def test_gradients_and_sidecars_are_inherited_from_parent_folders(dataset):
    for extension in ("bval", "bvec", "json"):
        run_file(dataset, extension).rename(dataset / f"dwi.{extension}")
    (run,) = plan(dataset).runs
    assert run.bval == dataset / "dwi.bval"
    assert run.metadata == {"EchoTime": 0.09}


def test_the_closest_sidecar_has_the_last_word(dataset):
    (dataset / "dwi.json").write_text(json.dumps({"EchoTime": 1.0, "Manufacturer": "M"}))
    assert plan(dataset).runs[0].metadata == {"EchoTime": 0.09, "Manufacturer": "M"}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def rewrite(path, change):
    np.savetxt(path, change(np.loadtxt(path, ndmin=2)))


def replace_image(path, shape):
    nib.save(image(shape), path)


DAMAGE = {
    "no such dataset": (shutil.rmtree, "no such dataset folder"),
    "not BIDS": (lambda d: (d / "dataset_description.json").unlink(), "not a BIDS dataset"),
    "nobody": (lambda d: shutil.rmtree(d / "sub-01"), "no participant"),
    "no DWI": (lambda d: run_file(d, "nii.gz").unlink(), "no diffusion image"),
    "no bvec": (lambda d: run_file(d, "bvec").unlink(), "no .bvec file"),
    "truncated": (lambda d: truncate(run_file(d, "nii.gz")), "truncated|cannot be read"),
    "not an image": (
        lambda d: run_file(d, "nii.gz").write_bytes(gzip.compress(b"hello")),
        "cannot be read",
    ),
    "three dimensions": (
        lambda d: replace_image(run_file(d, "nii.gz"), (5, 6, 7)),
        "4 dimensions are needed",
    ),
    "count": (
        lambda d: replace_image(run_file(d, "nii.gz"), (5, 6, 7, N_DIRECTIONS + 2)),
        "10 volumes, the gradient table 9",
    ),
    "no b0": (lambda d: rewrite(run_file(d, "bval"), lambda b: b + 100), "no b=0 volume"),
    "NaN gradient": (
        lambda d: rewrite(run_file(d, "bvec"), lambda v: np.where(v == v[0, 2], np.nan, v)),
        "1 of 8 diffusion-weighted b-vectors are not finite",
    ),
    "not unit": (lambda d: rewrite(run_file(d, "bvec"), lambda v: 2 * v), "not of unit length"),
    "few directions": (
        lambda d: rewrite(run_file(d, "bval"), lambda b: np.where(np.arange(9) > 5, 0, b)),
        "Only 5 volumes are diffusion-weighted",
    ),
    "bad JSON": (lambda d: run_file(d, "json").write_text("{"), "not valid JSON"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damage_is_named_with_its_place_and_remedy(dataset, damage):
    spoil, said = DAMAGE[damage]
    spoil(dataset)
    with pytest.raises(DifftractError, match=said) as caught:
        plan(dataset)
    assert caught.value.remedy
    assert str(dataset) in caught.value.where


def test_a_truncated_gzip_is_found_even_when_its_header_is_whole(dataset):
    # Large and incompressible, so that the cut leaves the header and most of the data readable.
    replace_image(run_file(dataset, "nii.gz"), (20, 20, 20, N_DIRECTIONS + 1))
    content = run_file(dataset, "nii.gz").read_bytes()
    run_file(dataset, "nii.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DifftractError, match="truncated"):
        plan(dataset)


def test_a_participant_that_is_not_there_is_named_with_those_that_are(dataset):
    with pytest.raises(DifftractError, match="99") as caught:
        plan(dataset, participants=["99"])
    assert "01" in caught.value.remedy


@pytest.mark.parametrize("place", [".", "sub-01/derivatives", "sub-02"])
def test_results_are_never_written_among_the_raw_data(dataset, place):
    with pytest.raises(DifftractError, match="raw data"):
        plan(dataset, output_dir=dataset / place)


def test_the_derivatives_folder_of_the_dataset_is_a_fine_place(dataset):
    assert plan(dataset, output_dir=dataset / "derivatives" / "d").output_dir.is_dir()


@pytest.mark.parametrize("folder", ["output_dir", "work_dir"])
def test_a_folder_that_cannot_be_written_to_is_found_at_once(dataset, folder):
    (dataset.parent / "file").write_text("in the way")
    with pytest.raises(DifftractError, match="cannot be written to"):
        plan(dataset, **{folder: dataset.parent / "file" / "below"})


def test_an_unknown_atlas_is_named_before_anything_starts(dataset):
    with pytest.raises(DifftractError, match="Nowhere2020"):
        plan(dataset, config=Config(atlases=("Nowhere2020=/no/such/folder",)))


def test_the_same_atlas_twice_would_overwrite_itself_and_is_refused(dataset):
    with pytest.raises(DifftractError, match="same name"):
        plan(dataset, config=Config(atlases=("ICBM100", "ICBM100")))


@pytest.mark.parametrize(
    ("n_runs", "n_procs", "omp", "expected"),
    [(1, 8, None, (8, 8)), (4, 8, None, (8, 2)), (100, 8, None, (8, 1)), (1, 2, 6, (2, 2))],
)
def test_many_runs_share_the_cpus_before_one_run_takes_several(n_runs, n_procs, omp, expected):
    resources = share(n_runs, n_procs, omp)
    assert (resources.n_procs, resources.omp_nthreads) == expected


def test_a_table_of_another_acquisition_is_not_taken_for_this_ones(dataset):
    for extension in ("bval", "bvec", "json"):
        source = run_file(dataset, extension)
        source.rename(source.with_name(f"sub-01_acq-x_dwi.{extension}"))
    with pytest.raises(DifftractError, match=r"no \.bval file"):
        plan(dataset)


def test_two_images_whose_outputs_would_have_one_name_are_refused(dataset):
    nib.save(nib.load(run_file(dataset, "nii.gz")), run_file(dataset, "nii"))
    with pytest.raises(DifftractError, match="same name"):
        plan(dataset)


def test_phase_images_are_left_out(dataset):
    for extension in ("nii.gz", "bval", "bvec", "json"):
        source = run_file(dataset, extension)
        for part in ("mag", "phase"):
            shutil.copy(source, source.with_name(f"sub-01_part-{part}_dwi.{extension}"))
        source.unlink()
    assert [run.dwi.name for run in plan(dataset).runs] == ["sub-01_part-mag_dwi.nii.gz"]


def test_links_into_a_store_keep_their_names_in_the_dataset(dataset):
    store = dataset.parent / "store"
    store.mkdir()
    path = run_file(dataset, "nii.gz").rename(store / "abc")
    run_file(dataset, "nii.gz").symlink_to(path)
    (run,) = plan(dataset).runs
    assert raw_uri(run.dwi, dataset) == "bids:raw:sub-01/dwi/sub-01_dwi.nii.gz"


def test_a_dataset_below_a_folder_called_sub_something_is_read_as_well(tmp_path):
    dataset = write_dataset(tmp_path / "sub-study" / "dwi" / "bids")
    assert [run.stem for run in plan(dataset).runs] == ["sub-01"]


def test_one_bad_participant_is_left_out_unless_it_is_the_only_one_named(tmp_path):
    dataset = write_dataset(tmp_path / "bids", ["01", "02"])
    (dataset / "sub-02" / "dwi" / "sub-02_dwi.bvec").unlink()
    found = plan(dataset)
    assert found.participants == ["01"]
    assert "no .bvec file" in str(found.unusable["02"])
    assert plan(dataset, participants=["01", "02"]).unusable.keys() == {"02"}
    with pytest.raises(DifftractError, match=r"no \.bvec file"):
        plan(dataset, participants=["02"])


def test_a_t1w_with_a_fourth_dimension_of_one_is_a_t1w(tmp_path):
    dataset = write_dataset(tmp_path / "bids", t1w=True)
    (path,) = dataset.glob("sub-01/anat/*.nii.gz")
    replace_image(path, (6, 6, 6, 1))
    assert plan(dataset).runs[0].t1w == path


@pytest.mark.parametrize("work", ["bids", "out", "."])
def test_a_working_folder_that_holds_data_or_results_is_refused(dataset, work):
    with pytest.raises(DifftractError, match=r"working folder|raw data"):
        plan(dataset, work_dir=dataset.parent / work)


def test_shells_without_enough_directions_are_found_at_once(dataset):
    rewrite(run_file(dataset, "bval"), lambda b: np.arange(b.size)[None] * 300.0)
    with pytest.raises(DifftractError, match="No shell has the 6 directions"):
        plan(dataset)


def test_a_parcellation_that_lies_elsewhere_is_found_at_once(dataset):
    atlas = dataset.parent / "atlas"
    folder = atlas / "sub-01" / "dwi"
    folder.mkdir(parents=True)
    (atlas / "dataset_description.json").write_text('{"Name": "a", "BIDSVersion": "1.10.0"}')
    (folder / "sub-01_atlas-Far_dseg.tsv").write_text("index\tname\n1\ta\n2\tb\n")
    labels = np.ones((5, 6, 7), np.int16)
    labels[:2] = 2
    config = Config(atlases=(f"Far={atlas}",))
    for shift_mm, there in ((0.0, True), (900.0, False)):
        affine = nib.load(run_file(dataset, "nii.gz")).affine.copy()
        affine[0, 3] += shift_mm
        nib.save(nib.Nifti1Image(labels, affine), folder / "sub-01_atlas-Far_dseg.nii.gz")
        if there:
            assert plan(dataset, config=config).atlases[0].name == "Far"
        else:
            with pytest.raises(DifftractError, match="No label of Far"):
                plan(dataset, config=config)


def test_repeated_directions_do_not_pass_for_many(dataset):
    rewrite(run_file(dataset, "bvec"), lambda v: v[:, [0, 1, 2, 3, 4, 1, 2, 3, 4]])
    with pytest.raises(DifftractError, match="determine 4 of the 6"):
        plan(dataset)


def test_a_sidecar_that_holds_no_object_is_refused_by_name(dataset):
    run_file(dataset, "json").write_text("[1]")
    with pytest.raises(DifftractError, match=r"not valid JSON: it holds a list"):
        plan(dataset)


def test_another_programs_derivatives_are_not_taken_over(dataset):
    out = dataset.parent / "out"
    out.mkdir()
    text = json.dumps({"GeneratedBy": [{"Name": "QSIPrep"}]})
    (out / "dataset_description.json").write_text(text)
    with pytest.raises(DifftractError, match="another program: QSIPrep"):
        plan(dataset)


def test_a_file_in_the_place_of_a_participants_folder_is_found_at_once(dataset):
    (dataset.parent / "out").mkdir()
    (dataset.parent / "out" / "sub-01").write_text("")
    with pytest.raises(DifftractError, match="cannot be written to"):
        plan(dataset)


def test_two_datasets_never_share_intermediate_files(tmp_path):
    one = plan(write_dataset(tmp_path / "a"), work_dir=tmp_path / "work")
    two = plan(write_dataset(tmp_path / "b"), work_dir=tmp_path / "work")
    assert one.scratch_dir != two.scratch_dir
    assert one.scratch_dir.parent == two.scratch_dir.parent == tmp_path / "work"
