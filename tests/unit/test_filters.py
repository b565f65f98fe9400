"""Filter files: which images count as inputs, in the words of fMRIPrep and QSIPrep."""

import json
import shutil

import nibabel as nib
import pytest
from bids import BIDSLayout
from bids.layout import Query
from datasets import image, write_dataset, write_run
from skeletons import ENCODED, write_skeleton

from difftract_bids.bids.filters import read_filters
from difftract_bids.bids.plan import make_plan
from difftract_bids.config import Config
from difftract_bids.errors import InputError, UsageError

NAMES = (
    "sub-01_ses-01_acq-hardi_run-01",
    "sub-01_ses-01_acq-hardi_run-02",
    "sub-01_ses-01_acq-fast",
    "sub-01_ses-02",
)


@pytest.fixture
def write(tmp_path):
    def write_filter(content):
        path = tmp_path / "filter.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_filter


@pytest.fixture
def dataset(tmp_path):
    root = write_dataset(tmp_path / "bids", [])
    for name in NAMES:
        write_run(root / "sub-01" / name[7:13] / "dwi", name)
    return root


def plan(bids_dir, filters, **options):
    out, work = bids_dir.parent / "out", bids_dir.parent / "work"
    config = options.pop("config", Config())
    return make_plan(bids_dir, out, work, config, bids_filters=filters, **options)


def kept(dataset, filters):
    return [run.stem for run in plan(dataset, filters).runs]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, (0, 1, 2, 3)),
        ({"acquisition": "hardi"}, (0, 1)),
        ({"acq": "hardi"}, (0, 1)),
        ({"acq": ["hardi", "fast"]}, (0, 1, 2)),
        ({"acq": ["fast", None]}, (2, 3)),
        ({"acq": []}, (0, 1, 2, 3)),
        ({"acq": "hard"}, ()),
        ({"session": "01", "run": 2}, (1,)),
        ({"run": [2, 3]}, (1,)),
        ({"run": "02"}, (1,)),
        ({"session": "2"}, ()),  # a label, and no number
        ({"session": "ses-02"}, (3,)),
        ({"run": None}, (2, 3)),
        ({"run": "Query.NONE"}, (2, 3)),
        ({"run": "<Query.NONE: 1>"}, (2, 3)),
        ({"run": "*"}, (0, 1)),
        ({"run": "Query.ANY"}, (0, 1)),
        ({"run": "Query.REQUIRED"}, (0, 1)),
        ({"run": "Query.OPTIONAL", "session": "02"}, (3,)),
        ({"datatype": "dwi", "suffix": "dwi", "extension": "nii.gz"}, (0, 1, 2, 3)),
        ({"extension": ".nii"}, ()),
        ({"subject": "01", "session": "02"}, (3,)),
        ({"acquisition": "^h.*i$", "regex_search": True}, (0, 1)),
    ],
)
def test_images_are_kept_by_the_entities_of_their_names(dataset, write, wanted, numbers):
    filters = read_filters(write({"dwi": wanted}))
    images = sorted(dataset.glob("sub-*/ses-*/dwi/*_dwi.nii.gz"))
    found = {image.name for image in images if filters.keep("dwi", image)}
    assert found == {f"{NAMES[number]}_dwi.nii.gz" for number in numbers}


@pytest.mark.parametrize(
    "wanted",
    [
        {"acquisition": "hardi"},
        {"acquisition": "hard"},
        {"acquisition": ["fast", None]},
        {"acquisition": []},
        {"session": "2"},
        {"session": "01", "run": 2},
        {"run": "2"},
        {"run": [2, 3]},
        {"run": Query.NONE},
        {"run": Query.ANY},
        {"run": Query.OPTIONAL},
        {"run": [Query.ANY, None]},
        {"acquisition": "H", "regex_search": True},
        {"datatype": "dwi", "extension": "nii.gz"},
        {"datatype": "anat"},
    ],
)
def test_a_filter_keeps_what_pybids_gives_for_it_as_a_query(dataset, write, wanted):
    query = {"suffix": "dwi", "extension": ".nii.gz", **wanted}
    asked = BIDSLayout(dataset, validate=False).get(return_type="filename", **query)
    filters = read_filters(write(json.dumps({"dwi": wanted}, default=str)))
    images = dataset.glob("sub-*/ses-*/dwi/*_dwi.nii.gz")
    assert {str(image) for image in images if filters.keep("dwi", image)} == set(asked)


def test_only_diffusion_images_that_the_file_lets_through_are_runs(dataset, write):
    stems = kept(dataset, write({"DWI": {"acquisition": "hardi"}}))
    assert stems == list(NAMES[:2])


def test_session_labels_and_filters_hold_together(dataset, write):
    filters = write({"dwi": {"run": None}})
    stems = [run.stem for run in plan(dataset, filters, sessions=["01"]).runs]
    assert stems == [NAMES[2]]


def test_a_filter_that_leaves_nothing_is_named_as_the_reason(dataset, write):
    path = write({"dwi": {"acquisition": "none"}})
    with pytest.raises(InputError, match="no diffusion image that the filter file") as caught:
        plan(dataset, path)
    said = str(caught.value)
    assert "leaves out 4, first sub-01_ses-01_acq-fast_dwi.nii.gz" in said
    assert '{"acquisition": "none"}' in said
    assert str(path) in said


def test_of_a_whole_dataset_participants_without_any_image_left_are_told_of(dataset, write):
    write_run(dataset / "sub-02" / "dwi", "sub-02")
    found = plan(dataset, write({"dwi": {"session": "02"}}))
    assert [run.stem for run in found.runs] == ["sub-01_ses-02"]
    assert list(found.unusable) == ["02"]


def test_a_participant_without_images_is_not_the_filter_s_doing(dataset, write):
    for path in dataset.glob("sub-01/ses-*/dwi/*.nii.gz"):
        path.unlink()
    with pytest.raises(InputError, match=r"Participant 01 has no diffusion image\."):
        plan(dataset, write({"dwi": {"acquisition": "hardi"}}))


def test_t1w_images_are_filtered_by_their_own_part(tmp_path, write):
    dataset = write_dataset(tmp_path / "bids", t1w=True)
    anat = dataset / "sub-01" / "anat"
    nib.save(image((6, 6, 6)), anat / "sub-01_ce-gado_T1w.nii.gz")
    (run,) = plan(dataset, write({"t1w": {"ceagent": "gado"}})).runs
    assert run.t1w.name == "sub-01_ce-gado_T1w.nii.gz"
    (run,) = plan(dataset, write({"T1w": {"ceagent": "other"}})).runs
    assert run.t1w is None
    assert "The filter file leaves out all 2 T1w image(s)." in run.notes


def test_fieldmaps_are_filtered_by_their_own_part(tmp_path, write):
    dataset = write_skeleton(tmp_path / "bids", 1, ["A"])
    (run,) = plan(dataset, write({"fmap": {"direction": "PA"}})).runs
    assert [one.image.name for one in run.fieldmaps.opposed] == [
        "sub-0000_ses-A_dir-PA_epi.nii.gz"
    ]
    (run,) = plan(dataset, write({"fmap": {"direction": "AP"}})).runs
    assert not run.fieldmaps.opposed
    assert run.fieldmaps.unused == (
        "sub-0000_ses-A_dir-PA_epi.nii.gz was not used: the filter file leaves it out.",
    )


def test_a_diffusion_image_that_is_left_out_is_no_fieldmap_either(tmp_path, write):
    dataset = write_skeleton(tmp_path / "bids", 1, ["A"])
    shutil.rmtree(dataset / "sub-0000" / "ses-A" / "fmap")
    folder = dataset / "sub-0000" / "ses-A" / "dwi"
    write_run(folder, "sub-0000_ses-A_dir-PA")
    back = ENCODED | {"PhaseEncodingDirection": "j-"}
    (folder / "sub-0000_ses-A_dir-PA_dwi.json").write_text(json.dumps(back))
    runs = plan(dataset, None).runs
    assert len(runs) == 2
    assert all(run.fieldmaps.opposed for run in runs)
    (run,) = plan(dataset, write({"dwi": {"direction": None}})).runs
    assert not run.fieldmaps.opposed


def test_diffusion_images_of_qsiprep_are_filtered_too(tmp_path, write):
    root = write_dataset(tmp_path / "qsiprep", [])
    maker = {"Name": "q", "BIDSVersion": "1.9.0", "GeneratedBy": [{"Name": "QSIPrep"}]}
    (root / "dataset_description.json").write_text(json.dumps(maker))
    for acquisition in "ab":
        stem = f"sub-01_acq-{acquisition}_space-ACPC_desc-preproc"
        write_run(root / "sub-01" / "dwi", stem)
    assert kept(root, write({"dwi": {"acq": "b"}})) == ["sub-01_acq-b"]
    with pytest.raises(InputError, match="filter file lets no diffusion image of participant 01"):
        plan(root, write({"dwi": {"acq": "c"}}))


def test_kinds_that_other_programs_read_are_noted(dataset, write):
    content = {"bold": {"echo": "*"}, "T2w": {}, "sbref": [], "dwi": {"session": "02"}}
    (run,) = plan(dataset, write(content)).runs
    assert run.stem == "sub-01_ses-02"
    assert any("filters bold, T2w, sbref too" in note for note in run.notes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read: it holds a list"),
        ({"dwis": {}}, "kind 'dwis'(.|\n)*Kinds are: dwi, t1w, fmap"),
        ({"dwi": {}, "DWI": {}}, "names dwi twice"),
        ({"dwi": "hardi"}, 'says of dwi "hardi"'),
        ({"dwi": {"acquistion": "x"}}, "'acquistion', which is no entity(.|\n)*acquisition"),
        ({"dwi": {"EchoTime": 0.1}}, "'EchoTime', which is no entity"),
        ({"dwi": {"acq": "x", "acquisition": "y"}}, "by acq twice"),
        ({"dwi": {"run": 1.5}}, "dwi by run 1.5"),
        ({"dwi": {"run": True}}, "dwi by run true"),
        ({"dwi": {"acq": {"in": "x"}}}, "dwi by acq {"),
        ({"dwi": {"acq": "(", "regex_search": True}}, "no regular expression"),
        ({"dwi": {"acq": "x", "regex_search": "yes"}}, "regex_search"),
    ],
)
def test_a_file_that_cannot_be_meant_so_is_refused_with_a_remedy(write, content, said):
    path = write(content)
    with pytest.raises(UsageError, match=said) as caught:
        read_filters(path)
    assert caught.value.where == f"--bids-filter-file {path}"
    assert caught.value.remedy


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_filters(tmp_path / "none.json")
