"""Other programs' derivatives in the place of our own steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (its customary name)
from datasets import image, write_dataset
from derivative_trees import (
    TEMPLATE,
    heads,
    make_fmriprep_tree,
    make_freesurfer_tree,
    make_qsiprep_tree,
)

from difftract_bids.bids.atlases import check_atlas, parcellation_of, resolve_atlas
from difftract_bids.bids.derivative_inputs import resolve_derivatives
from difftract_bids.bids.outputs import output_entities, output_path
from difftract_bids.bids.plan import Plan, make_plan
from difftract_bids.bids.promises import promised_outputs
from difftract_bids.bids.uris import input_uri
from difftract_bids.cli.parser import build_parser, settings_from
from difftract_bids.config import Config, PreprocessingConfig, SensitivityConfig
from difftract_bids.errors import AtlasError, DifftractError, InputError, UsageError
from difftract_bids.interfaces.outputs import DerivativesSink
from difftract_bids.io.gradients import read_gradients
from difftract_bids.phantom.dataset import write_phantom
from difftract_bids.phantom.settings import PhantomConfig

MAKERS = {
    "qsiprep": make_qsiprep_tree,
    "fmriprep": make_fmriprep_tree,
    "freesurfer": lambda phantom, out: make_freesurfer_tree(phantom, out, voxel_size_mm=4),
}


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A small phantom in ``raw``, and what each program leaves of it."""
    root = tmp_path_factory.mktemp("trees")
    settings = PhantomConfig(
        voxel_size_mm=6, t1w_voxel_size_mm=4, n_directions=12, n_b0=2, n_runs=2
    )
    phantom = write_phantom(root / "raw", settings)
    for name, make in MAKERS.items():
        make(phantom, root / name)
    make_qsiprep_tree(phantom, root / "old", version="0.14.2", old_names=True)
    return root


@pytest.fixture
def trees(built, tmp_path) -> Path:
    """The same, to be damaged: without the truth, which is of no use here."""
    shutil.copytree(built, tmp_path / "trees", ignore=shutil.ignore_patterns("truth"))
    return tmp_path / "trees"


def plan(root: Path, *derivatives: str, bids_dir: str = "raw", **options) -> Plan:
    specs = tuple(f"{name}={root / name}" if "=" not in name else name for name in derivatives)
    config = options.pop("config", Config(derivatives=specs))
    return make_plan(root / bids_dir, root / "out", root / "work", config, **options)


def test_a_series_of_qsipreps_is_used_with_all_that_goes_with_it(trees):
    one, two = plan(trees, "qsiprep").runs
    assert (one.stem, two.stem) == ("sub-01_run-1", "sub-01_run-2")
    given = one.preprocessed
    dwi = trees / "qsiprep" / "sub-01" / "dwi"
    begin = dwi / "sub-01_run-1_space-ACPC"
    assert given.dwi == one.dwi == Path(f"{begin}_desc-preproc_dwi.nii.gz")
    assert given.bvec == one.bvec == Path(f"{begin}_desc-preproc_dwi.bvec")
    assert given.mask == Path(f"{begin}_desc-brain_mask.nii.gz")
    assert given.origin == one.anatomy.origin == "qsiprep 1.0.1"
    assert one.metadata["PhaseEncodingDirection"] == "j-"


def test_outputs_have_the_runs_entities_and_not_those_of_qsipreps_names(trees):
    found = plan(trees, "qsiprep")
    run = found.runs[0]
    entities = output_entities("mask", run, found.config)
    sink = DerivativesSink(
        base_directory=str(found.output_dir),
        source_file=run.source_name,
        in_file=str(run.preprocessed.mask),
        **entities,
    )
    written = sink.run(cwd=trees).outputs.out_file
    expected = output_path(run, "mask", found.config)
    assert written == str(found.output_dir / expected)
    assert expected == "sub-01/dwi/sub-01_run-1_desc-brain_mask.nii.gz"


def test_qsipreps_anatomy_lies_in_the_space_of_its_series(trees):
    anatomy = plan(trees, "qsiprep").runs[0].anatomy
    begin = trees / "qsiprep" / "sub-01" / "anat" / "sub-01"
    assert anatomy.in_dwi_space
    assert anatomy.t1w == Path(f"{begin}_space-ACPC_desc-preproc_T1w.nii.gz")
    assert anatomy.t1w_mask == Path(f"{begin}_space-ACPC_desc-brain_mask.nii.gz")
    assert anatomy.aparcaseg == Path(f"{begin}_space-ACPC_desc-aseg_dseg.nii.gz")
    name = f"{begin}_from-{TEMPLATE}_to-ACPC_mode-image_xfm.h5"
    assert anatomy.from_template == {TEMPLATE: Path(name)}


def test_names_of_qsipreps_older_releases_are_known(trees):
    run = plan(trees, f"qsiprep={trees / 'old'}").runs[1]
    begin = trees / "old" / "sub-01" / "anat" / "sub-01"
    assert run.dwi.name == "sub-01_run-2_space-T1w_desc-preproc_dwi.nii.gz"
    assert run.preprocessed.origin == "qsiprep 0.14.2"
    assert run.anatomy.t1w == Path(f"{begin}_desc-preproc_T1w.nii.gz")
    assert sorted(run.anatomy.probseg) == ["CSF", "GM", "WM"]
    assert list(run.anatomy.from_template) == [TEMPLATE]


def test_a_series_in_several_spaces_is_one_run(trees):
    for space in ("T1w", TEMPLATE):
        for path in list(trees.glob("qsiprep/sub-01/dwi/*_space-ACPC_desc-preproc_dwi.*")):
            shutil.copy(path, path.with_name(path.name.replace("ACPC", space)))
    names = [run.dwi.name for run in plan(trees, "qsiprep").runs]
    assert names == [f"sub-01_run-{n}_space-ACPC_desc-preproc_dwi.nii.gz" for n in "12"]


def test_a_series_at_several_resolutions_is_refused(trees):
    for path in list(trees.glob("qsiprep/sub-01/dwi/*_space-ACPC_desc-preproc_dwi.*")):
        shutil.copy(path, path.with_name(path.name.replace("ACPC_", "ACPC_res-2mm_")))
    with pytest.raises(InputError, match="several resolutions"):
        plan(trees, "qsiprep")


def test_a_mask_of_another_resolution_is_not_taken(trees):
    for path in list(trees.glob("qsiprep/sub-01/dwi/*run-1*_space-ACPC_desc-brain_mask.*")):
        path.rename(path.with_name(path.name.replace("ACPC_", "ACPC_res-2mm_")))
    one, two = plan(trees, "qsiprep").runs
    assert one.preprocessed.mask is None
    assert two.preprocessed.mask is not None


def test_participants_may_be_links_to_elsewhere(trees):
    for name in ("qsiprep", "fmriprep"):
        folder = trees / name / "sub-01"
        folder.rename(trees / f"{name}-elsewhere")
        folder.symlink_to(trees / f"{name}-elsewhere", target_is_directory=True)
    found = plan(trees, "qsiprep")
    name = input_uri(found.runs[0].dwi, found.datasets)
    assert name.startswith("bids:qsiprep:sub-01/dwi/sub-01_run-1_")


def test_only_the_way_here_is_promised_of_a_template_that_others_registered(trees):
    found = plan(trees, "fmriprep")
    run = found.runs[0]
    promised = list(promised_outputs(run, [], found.config, [TEMPLATE, "Other"]))
    assert any(f"from-{TEMPLATE}_to-dwi" in name for name in promised)
    assert not any(f"from-dwi_to-{TEMPLATE}" in name for name in promised)
    assert any("from-dwi_to-Other" in name for name in promised)


def test_standard_errors_of_a_preprocessed_series_are_refused(trees):
    config = Config(
        derivatives=(f"qsiprep={trees / 'qsiprep'}",),
        sensitivity=SensitivityConfig(edge_standard_errors=True),
    )
    with pytest.raises(UsageError, match="noise of the raw images"):
        plan(trees, "qsiprep", config=config)


def test_a_damaged_transform_is_found_before_anything_starts(trees):
    (path,) = trees.glob("fmriprep/sub-01/anat/*_to-T1w*.h5")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="transform cannot be read"):
        plan(trees, "fmriprep")


def test_parcellations_are_in_qsipreps_space_only_if_their_names_say_so(trees):
    run = plan(trees, "qsiprep").runs[0]
    dataset = trees / "atlases"
    anat = dataset / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (dataset / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    (dataset / "atlas-Own_dseg.tsv").write_text("index\tname\n1\tone\n")
    like = nib.load(run.dwi)
    labels = nib.Nifti1Image(np.ones(like.shape[:3], np.int16), like.affine)
    raw = anat / "sub-01_atlas-Own_dseg.nii.gz"
    nib.save(labels, raw)
    with pytest.raises(AtlasError, match="space of the raw T1w"):
        check_atlas(resolve_atlas(f"Own={dataset}"), run)
    raw.rename(anat / "sub-01_space-ACPC_atlas-Own_dseg.nii.gz")
    atlas = resolve_atlas(f"Own={dataset}")
    check_atlas(atlas, run)
    assert parcellation_of(atlas, run).space == "dwi"


def test_fmripreps_anatomy_is_used_for_raw_series(trees):
    (path,) = trees.glob("fmriprep/sub-01/anat/*_to-T1w*.h5")
    shutil.copy(path, path.with_name("sub-01_from-MNI152NLin6Asym_to-func_mode-image_xfm.h5"))
    run = plan(trees, "fmriprep").runs[0]
    begin = trees / "fmriprep" / "sub-01" / "anat" / "sub-01"
    found = run.anatomy
    assert run.preprocessed is None
    assert run.dwi.is_relative_to(trees / "raw")
    assert found.t1w == run.t1w == Path(f"{begin}_desc-preproc_T1w.nii.gz")
    assert found.t1w_mask == Path(f"{begin}_desc-brain_mask.nii.gz")
    assert found.aparcaseg == Path(f"{begin}_desc-aparcaseg_dseg.nii.gz")
    tissues = {t: Path(f"{begin}_label-{t}_probseg.nii.gz") for t in ("GM", "WM", "CSF")}
    assert found.probseg == tissues
    name = f"{begin}_from-{TEMPLATE}_to-T1w_mode-image_xfm.h5"
    assert found.from_template == {TEMPLATE: Path(name)}
    assert (found.origin, found.in_dwi_space) == ("fmriprep 24.1.1", False)


def test_smripreps_anatomy_is_found_alike(trees):
    tree = trees / "smriprep"
    shutil.copytree(trees / "old" / "sub-01" / "anat", tree / "sub-01" / "anat")
    maker = {"GeneratedBy": [{"Name": "sMRIPrep", "Version": "0.16.1"}]}
    (tree / "dataset_description.json").write_text(json.dumps(maker))
    anatomy = plan(trees, "smriprep").runs[0].anatomy
    assert anatomy.origin == "smriprep 0.16.1"
    assert anatomy.t1w.is_relative_to(tree)


def test_freesurfers_images_are_used_for_raw_series(trees):
    found = plan(trees, "freesurfer").runs[0].anatomy
    mri = trees / "freesurfer" / "sub-01" / "mri"
    assert (found.t1w, found.t1w_mask) == (mri / "T1.mgz", mri / "brainmask.mgz")
    assert found.aparcaseg == mri / "aparc+aseg.mgz"
    assert found.origin == "freesurfer 7.3.2"


def test_the_session_of_a_freesurfer_folder_is_the_runs(tmp_path):
    dataset = write_dataset(tmp_path / "raw", sessions=["A", "B"])
    for name in ("sub-01_ses-A", "sub-01_ses-B"):
        mri = tmp_path / "freesurfer" / name / "mri"
        mri.mkdir(parents=True)
        nib.save(nib.MGHImage(np.ones((6, 6, 6), np.int32), np.eye(4)), mri / "aparc+aseg.mgz")
    taken = {
        run.session: run.anatomy.aparcaseg.parts[-3] for run in plan(tmp_path, "freesurfer").runs
    }
    assert taken == {"A": "sub-01_ses-A", "B": "sub-01_ses-B"}
    shutil.rmtree(tmp_path / "freesurfer" / "sub-01_ses-B")
    (run,) = plan(tmp_path, "freesurfer", sessions=["B"]).runs
    assert run.anatomy.aparcaseg.parts[-3] == "sub-01_ses-A"
    assert any("another session" in note for note in run.notes)
    assert dataset.is_dir()


def test_what_the_user_names_besides_qsiprep_is_used(trees):
    run = plan(trees, "qsiprep", "fmriprep").runs[0]
    assert run.preprocessed is not None
    assert run.anatomy.origin == "fmriprep 24.1.1"
    assert not run.anatomy.in_dwi_space


def test_freesurfers_labels_complete_fmripreps_anatomy_in_one_space_only(trees):
    (labels,) = trees.glob("fmriprep/sub-01/anat/*aparcaseg_dseg.nii.gz")
    labels.unlink()
    mgz = trees / "freesurfer" / "sub-01" / "mri" / "aparc+aseg.mgz"
    assert plan(trees, "fmriprep", "freesurfer").runs[0].anatomy.aparcaseg == mgz
    (path,) = trees.glob("fmriprep/sub-01/anat/*from-fsnative_to-T1w*")
    moved = sitk.AffineTransform(3)
    moved.SetTranslation((4.0, 0.0, 0.0))
    sitk.WriteTransform(moved, str(path))
    run = plan(trees, "fmriprep", "freesurfer").runs[0]
    assert run.anatomy.aparcaseg.name == "sub-01_desc-aseg_dseg.nii.gz"
    assert any("another space" in note for note in run.notes)


def test_the_report_is_told_whose_results_are_used(trees):
    dwi, mask, t1w = plan(trees, "qsiprep").runs[0].origins
    assert dwi.startswith("Diffusion images were preprocessed by QSIPrep 1.0.1")
    assert "brain mask" in mask
    assert t1w.startswith("The T1w is that of QSIPrep 1.0.1, with its brain mask")
    assert plan(trees).runs[0].origins == ()


def test_a_folder_of_qsipreps_may_be_the_dataset_itself(trees):
    shutil.rmtree(trees / "raw")
    found = plan(trees, bids_dir="qsiprep")
    assert [run.preprocessed.origin for run in found.runs] == ["qsiprep 1.0.1"] * 2
    assert found.datasets == dict.fromkeys(("raw", "qsiprep"), trees / "qsiprep")


def test_fmripreps_folder_as_the_dataset_is_refused(trees):
    with pytest.raises(UsageError, match="no diffusion images") as caught:
        plan(trees, bids_dir="fmriprep")
    assert "--derivatives fmriprep=" in caught.value.remedy


def test_files_are_named_by_the_dataset_that_they_lie_in(trees):
    inner = trees / "raw" / "derivatives" / "qsiprep"
    (trees / "qsiprep").rename(inner.parent.mkdir(exist_ok=True) or inner)
    found = plan(trees, f"qsiprep={inner}")
    uris = {input_uri(path, found.datasets) for path in found.runs[0].files}
    begin = "bids:qsiprep:sub-01/dwi/sub-01_run-1_space-ACPC"
    assert f"{begin}_desc-preproc_dwi.nii.gz" in uris
    assert all(uri.startswith("bids:qsiprep:sub-01/") for uri in uris)
    assert input_uri(trees / "raw" / "a.json", found.datasets) == "bids:raw:a.json"
    with pytest.raises(ValueError, match="none of the datasets"):
        input_uri(trees / "b.json", found.datasets)


def remove(pattern):
    def spoil(root):
        paths = list(root.glob(pattern))
        assert paths
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def test_without_a_mask_of_qsipreps_the_user_is_told(trees):
    remove("qsiprep/sub-01/dwi/*desc-brain_mask.nii.gz")(trees)
    run = plan(trees, "qsiprep").runs[0]
    assert run.preprocessed.mask is None
    assert len(run.origins) == 2
    assert any("no brain mask" in note for note in run.notes)


def test_without_a_t1w_of_qsipreps_the_raw_one_is_taken(trees):
    remove("qsiprep/sub-01/anat")(trees)
    run = plan(trees, "qsiprep").runs[0]
    assert run.t1w == trees / "raw" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    assert not run.anatomy.in_dwi_space
    assert any("no T1w" in note for note in run.notes)
    remove("raw/sub-01/anat")(trees)
    assert plan(trees, "qsiprep").runs[0].t1w is None


def test_tissue_probabilities_are_taken_all_or_none(trees):
    remove("fmriprep/sub-01/anat/*label-WM_probseg.nii.gz")(trees)
    assert plan(trees, "fmriprep").runs[0].anatomy.probseg == {}


DAMAGE = {
    "no table": (remove("qsiprep/*/dwi/*.bv*"), "qsiprep", "no gradient table", "mrinfo"),
    "no bvec": (remove("qsiprep/*/dwi/*.bvec"), "qsiprep", r"dwi\.bvec missing", "-grad"),
    "no table at all": (remove("qsiprep/*/dwi/*.b*"), "qsiprep", "no gradient table", "run it"),
    "no series": (remove("qsiprep/*/dwi/*_dwi.nii.gz"), "qsiprep", "no preprocessed", "Expected"),
    "no participant": (
        lambda root: (root / "qsiprep" / "sub-01").rename(root / "qsiprep" / "sub-02"),
        "qsiprep",
        "no results of participant 01",
        "--participant-label",
    ),
    "another grid": (
        lambda root: nib.save(
            image((5, 5, 5)), next(root.glob("qsiprep/*/dwi/*run-1*brain_mask.nii.gz"))
        ),
        "qsiprep",
        "not on the grid",
        "Copy",
    ),
    "no fMRIPrep T1w": (
        remove("fmriprep/*/anat/sub-01_desc-preproc_T1w.nii.gz"),
        "fmriprep",
        "no preprocessed T1w",
        "Expected",
    ),
    "empty transform": (
        lambda root: next(root.glob("fmriprep/*/anat/*to-T1w*.h5")).write_bytes(b""),
        "fmriprep",
        "empty",
        "Copy",
    ),
    "no labels": (remove("freesurfer/*/mri/aparc*"), "freesurfer", r"no aparc\+aseg", "recon-all"),
    "no folder": (remove("fmriprep"), "fmriprep", "no such folder", "NAME=PATH"),
    "no subjects": (remove("fmriprep/sub-01"), "fmriprep", "no participant", "sub-"),
    "other maker": (
        lambda root: shutil.copy(root / "fmriprep" / "dataset_description.json", root / "qsiprep"),
        "qsiprep",
        "made by fMRIPrep",
        "--derivatives fmriprep=",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_with_derivatives_is_found_at_planning(trees, damage):
    spoil, name, said, remedy = DAMAGE[damage]
    spoil(trees)
    with pytest.raises(DifftractError, match=said) as caught:
        plan(trees, name)
    assert remedy in caught.value.remedy
    assert str(trees / name) in caught.value.where


def test_a_participant_that_is_missing_is_left_out_of_a_whole_dataset(trees):
    shutil.copytree(trees / "raw" / "sub-01", trees / "raw" / "sub-02")
    found = plan(trees, "qsiprep")
    assert found.participants == ["01"]
    assert "no results of participant 02" in str(found.unusable["02"])


def test_a_session_that_qsiprep_has_not_is_named(trees):
    with pytest.raises(InputError, match="in session X"):
        plan(trees, "qsiprep", sessions=["ses-X"], participants=["01"])


def test_kinds_are_told_from_the_name_or_from_who_made_the_folder(trees):
    def kinds(*specs):
        return [(one.name, one.kind) for one in resolve_derivatives(specs, trees / "raw")]

    assert kinds(f"mine={trees / 'qsiprep'}") == [("mine", "qsiprep")]
    assert kinds(str(trees / "old")) == [("qsiprep", "qsiprep")]
    (trees / "fmriprep" / "dataset_description.json").unlink()
    assert kinds(f"fMRIPrep={trees / 'fmriprep'}") == [("fMRIPrep", "fmriprep")]
    with pytest.raises(UsageError, match="not known") as caught:
        kinds(f"mine={trees / 'fmriprep'}")
    assert "qsiprep, fmriprep, smriprep, freesurfer" in caught.value.remedy
    with pytest.raises(UsageError, match="does not say"):
        kinds(str(trees / "fmriprep"))
    with pytest.raises(UsageError, match="letters and digits"):
        kinds(f"a b={trees / 'qsiprep'}")
    with pytest.raises(UsageError, match="give the same"):
        kinds(str(trees / "old"), f"mine={trees / 'qsiprep'}")


def test_a_folder_above_the_right_one_is_told_of(trees):
    with pytest.raises(InputError, match="no participant") as caught:
        resolve_derivatives((f"qsiprep={trees}",), trees / "raw")
    assert f"Did you mean {trees / 'qsiprep'}?" in caught.value.remedy


def rename(root, pattern, change):
    for path in list(root.glob(pattern)):
        target = path.with_name(change(path.name))
        path.rename(target)


def into_session(tree, datatype, label):
    """Move what a tree has of a datatype into a session."""
    folder = tree / "sub-01" / f"ses-{label}"
    folder.mkdir(exist_ok=True)
    shutil.copytree(tree / "sub-01" / datatype, folder / datatype)
    rename(
        folder, f"{datatype}/*", lambda name: name.replace("sub-01_", f"sub-01_ses-{label}_", 1)
    )


def test_qsipreps_t1w_of_all_sessions_goes_with_the_series_of_each(trees):
    for label in "AB":
        into_session(trees / "qsiprep", "dwi", label)
    remove("qsiprep/sub-01/dwi")(trees)
    runs = plan(trees, "qsiprep").runs
    assert [run.stem for run in runs] == [f"sub-01_ses-{s}_run-{n}" for s in "AB" for n in "12"]
    shared = trees / "qsiprep" / "sub-01" / "anat" / "sub-01_space-ACPC_desc-preproc_T1w.nii.gz"
    assert {run.t1w for run in runs} == {shared}
    into_session(trees / "qsiprep", "anat", "B")
    taken = {run.session: run.t1w.name for run in plan(trees, "qsiprep").runs}
    assert taken == {"A": shared.name, "B": f"sub-01_ses-B_{shared.name.removeprefix('sub-01_')}"}


def test_fmripreps_anatomy_is_that_of_the_session_or_of_all(trees):
    for label in "AB":
        into_session(trees / "raw", "dwi", label)
    remove("raw/sub-01/dwi")(trees)
    into_session(trees / "fmriprep", "anat", "A")

    def found():
        runs = plan(trees, "fmriprep").runs
        return {
            run.session: (
                run.t1w.name,
                len(run.anatomy.probseg),
                tuple(note for note in run.notes if "was NOT corrected" not in note),
            )
            for run in runs
        }

    own, shared = "sub-01_ses-A_desc-preproc_T1w.nii.gz", "sub-01_desc-preproc_T1w.nii.gz"
    assert found() == {"A": (own, 3, ()), "B": (shared, 3, ())}
    remove("fmriprep/sub-01/anat")(trees)
    name, n_tissues, (note,) = found()["B"]
    assert (name, n_tissues) == (own, 3)
    assert "another session" in note


@pytest.mark.parametrize("place", ["output_dir", "work_dir"])
def test_nothing_is_written_among_derivatives_that_are_used(trees, place):
    folders = {"output_dir": trees / "out", "work_dir": trees / "work"}
    folders[place] = trees / "fmriprep" / "inner"
    config = Config(derivatives=(f"fmriprep={trees / 'fmriprep'}",))
    with pytest.raises(UsageError, match="among derivatives"):
        make_plan(trees / "raw", *folders.values(), config)


def test_preprocessed_series_are_not_combined(trees):
    config = Config(
        derivatives=(f"qsiprep={trees / 'qsiprep'}",),
        preprocessing=PreprocessingConfig(combine_runs=True),
    )
    with pytest.raises(UsageError, match="not combined"):
        plan(trees, config=config)


def test_the_command_line_and_the_settings_file_name_derivatives(tmp_path):
    parse = build_parser().parse_args
    given = ["qsiprep=/q", "fmriprep=/f"]
    config = settings_from(parse(["bids", "out", "participant", "-d", *given]))
    assert config.derivatives == tuple(given)
    path = tmp_path / "config.toml"
    for expected in (config, Config()):
        path.write_text(expected.to_toml())
        assert Config.from_toml(path) == expected


def test_the_trees_hold_the_truth_of_the_phantom(built):
    """The helper is a measure for others: its vectors, labels and transforms must be right."""
    (head,) = heads(built / "raw")
    raw, new = head.dwi[0], plan(built, "qsiprep").runs[0]
    tables = [
        read_gradients(bval, bvec, nib.load(dwi).affine).bvecs
        for dwi, bval, bvec in (
            (raw, Path(str(raw)[:-7] + ".bval"), Path(str(raw)[:-7] + ".bvec")),
            (new.dwi, new.bval, new.bvec),
        )
    ]
    np.testing.assert_allclose(*tables, atol=1e-5)
    labels = nib.load(plan(built, "fmriprep").runs[0].anatomy.aparcaseg)
    conformed = nib.load(plan(built, "freesurfer").runs[0].anatomy.aparcaseg)
    thalamus = 10
    centres = []
    for one in (labels, conformed):
        voxels = np.argwhere(np.asarray(one.dataobj) == thalamus)
        assert len(voxels)
        centres.append(nib.affines.apply_affine(one.affine, voxels.mean(axis=0)))
    np.testing.assert_allclose(*centres, atol=4.0)
    (parcel,) = (p for p in head.geometry.parcels if p.name == "LH-Thalamus")
    true = nib.affines.apply_affine(head.head2ras, parcel.shape.centre_mm)
    np.testing.assert_allclose(centres[0], true, atol=2.0)
    name = plan(built, "fmriprep").runs[0].anatomy.from_template[TEMPLATE]
    forward = sitk.ReadTransform(str(name))
    inverse = sitk.ReadTransform(str(name).replace(f"{TEMPLATE}_to-T1w", f"T1w_to-{TEMPLATE}"))
    at_t1w = true * (-1, -1, 1)
    at_template = np.array(forward.TransformPoint(at_t1w.tolist()))
    # The template is the head in its own axes, bent by no more than 2 mm along each.
    assert np.abs(at_template * (-1, -1, 1) - parcel.shape.centre_mm).max() < 2.0
    back = np.array(inverse.TransformPoint(at_template.tolist()))
    np.testing.assert_allclose(back, at_t1w, atol=0.05)
