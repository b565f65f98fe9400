"""Atlas names on the command line, and what goes wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from difftract_bids.bids import templates
from difftract_bids.bids.anatomy import Anatomy
from difftract_bids.bids.atlases import (
    check_atlas,
    parcellation_of,
    read_nodes,
    resolve_atlas,
    subject_parcellation,
)
from difftract_bids.bids.runs import DWIRun
from difftract_bids.errors import AtlasError

SHARED = Path(
    os.environ.get("DIFFTRACT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")
).resolve()
TEMPLATE = "MNI152NLin2009cAsym"
TABLE = "index\tname\n1\tA_lh\n2\tA_rh\n"


def write_image(path, labels=(1, 2), voxel_mm=2.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros((4, 4, 4), dtype=np.int16)
    data.flat[: len(labels)] = labels
    nib.save(nib.Nifti1Image(data, np.diag([voxel_mm] * 3 + [1])), path)


def write_atlas(root, stems=("atlas-Two_res-02",), labels=(1, 2), table=TABLE):
    folder = root / f"tpl-{TEMPLATE}"
    for stem in stems:
        voxel_mm = 1.0 if "res-01" in stem else 2.0
        write_image(folder / f"tpl-{TEMPLATE}_{stem}_dseg.nii.gz", labels, voxel_mm)
    write_image(folder / f"tpl-{TEMPLATE}_desc-brain_T1w.nii.gz")
    (folder / f"tpl-{TEMPLATE}_atlas-Two_dseg.tsv").write_text(table, encoding="utf-8")
    return root


def write_own(root, name="sub-01/dwi/sub-01_atlas-Own_dseg", labels=(1, 2)):
    write_image(root / f"{name}.nii.gz", labels)
    (root / f"{name}.tsv").write_text(TABLE, encoding="utf-8")
    return root


def test_a_dataset_s_atlas_comes_with_table_template_and_t1w(tmp_path):
    atlas = resolve_atlas(f"Two={write_atlas(tmp_path)}")
    assert (atlas.name, atlas.kind, atlas.template) == ("Two", "template", TEMPLATE)
    assert atlas.nodes.index == (1, 2)
    assert atlas.nodes.hemisphere == ("left", "right")
    assert atlas.template_t1w.name == f"tpl-{TEMPLATE}_desc-brain_T1w.nii.gz"


@pytest.mark.parametrize(
    "stems",
    [("atlas-Two_res-01", "atlas-Two_res-02"), ("res-02_atlas-Two", "res-01_atlas-Two")],
)
def test_the_finer_of_two_resolutions_is_taken_in_either_order_of_entities(tmp_path, stems):
    atlas = resolve_atlas(f"Two={write_atlas(tmp_path, stems)}")
    assert "res-01" in atlas.image.name


def test_images_that_differ_by_more_than_resolution_are_ambiguous(tmp_path):
    write_atlas(tmp_path, ("atlas-Two_res-01", "atlas-Two_desc-other_res-01"))
    with pytest.raises(AtlasError, match="several images"):
        resolve_atlas(f"Two={tmp_path}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index\tlabel\n1\tA\n", "no column name"),
        ("name\nA\n", "no column index"),
        ("", "no column index"),
        ("index\tname\n1\tA\n1\tB\n", "repeats 1 values of index: 1"),
        ("index\tname\n1\tA\n2\tA\n", "repeats 1 values of name: A"),
        ("index\tname\n1.5\tA\n", "no whole number"),
        ("index\tname\n1\t\n", "empty name"),
        ("index\tname\n-1\tA\n", "negative"),
        ("index\tname\n1\tA\n", "1 of 2 labels in the image have no row in the table: 2"),
    ],
)
def test_a_bad_table_is_refused_with_the_fault_named(tmp_path, table, message):
    with pytest.raises(AtlasError, match=message):
        resolve_atlas(f"Two={write_atlas(tmp_path, table=table)}")


def test_an_image_without_labels_is_refused(tmp_path):
    with pytest.raises(AtlasError, match="holds no label"):
        resolve_atlas(f"Two={write_atlas(tmp_path, labels=())}")


def test_an_image_without_a_table_is_refused(tmp_path):
    next(write_atlas(tmp_path).rglob("*.tsv")).unlink()
    with pytest.raises(AtlasError, match="no node table"):
        resolve_atlas(f"Two={tmp_path}")


def test_background_is_no_node_and_a_node_may_lack_voxels(tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text(
        "index\tname\themisphere\n0\tBackground\t\n7\tLeft-Foo\t\n3\tBar\tR\n", encoding="utf-8"
    )
    nodes = read_nodes(table)
    assert nodes.index == (7, 3)
    assert nodes.hemisphere == ("left", "right")
    assert nodes.names_of({3, 7}) == ["Left-Foo", "Bar"]


def test_an_unknown_atlas_of_a_dataset_is_answered_with_those_it_has(tmp_path):
    with pytest.raises(AtlasError) as caught:
        resolve_atlas(f"Three={write_atlas(tmp_path)}")
    assert "It has: Two." in caught.value.remedy


@pytest.mark.parametrize("spec", ["Two=/no/such/folder", "a b=.", "=."])
def test_an_unusable_path_or_name_is_refused(spec):
    with pytest.raises(AtlasError):
        resolve_atlas(spec)


def test_an_unknown_name_is_answered_with_those_that_are_known(monkeypatch):
    monkeypatch.setattr(
        "difftract_bids.bids.atlases.from_templateflow",
        lambda *_, **__: [Path(f"tpl-{TEMPLATE}_res-01_atlas-Known_dseg.nii.gz")],
    )
    with pytest.raises(AtlasError) as caught:
        resolve_atlas("Nope")
    assert "ICBM100" in caught.value.remedy
    assert "Known" in caught.value.remedy
    assert "NAME=PATH" in caught.value.remedy


def test_several_kinds_of_a_templateflow_atlas_are_listed(monkeypatch):
    monkeypatch.setattr(
        "difftract_bids.bids.atlases.from_templateflow",
        lambda *_, **__: [
            Path(f"tpl-{TEMPLATE}_res-01_atlas-Many_desc-{n}Parcels_dseg.nii.gz")
            for n in (1000, 200)
        ],
    )
    with pytest.raises(AtlasError, match="2 kinds") as caught:
        resolve_atlas("Many")
    assert "Many:200Parcels, Many:1000Parcels" in caught.value.remedy


def test_templateflow_out_of_reach_is_answered_with_a_remedy(monkeypatch):
    class Api:
        @staticmethod
        def get(*_, **__):
            raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "templateflow", type(sys)("templateflow"))
    monkeypatch.setattr(sys.modules["templateflow"], "api", Api, raising=False)
    with pytest.raises(AtlasError, match="no route") as caught:
        templates.template_t1w(TEMPLATE, Path("nowhere"))
    assert "TEMPLATEFLOW_HOME" in caught.value.remedy


def test_a_file_that_templateflow_could_not_fill_is_no_file(monkeypatch, tmp_path):
    (tmp_path / "empty.nii.gz").touch()

    class Api:
        @staticmethod
        def get(*_, **__):
            return tmp_path / "empty.nii.gz"

    monkeypatch.setitem(sys.modules, "templateflow", type(sys)("templateflow"))
    monkeypatch.setattr(sys.modules["templateflow"], "api", Api, raising=False)
    with pytest.raises(AtlasError, match="could not download"):
        templates.template_t1w(TEMPLATE, tmp_path)


@pytest.mark.parametrize("kind", ["empty", "link"])
def test_offline_nothing_is_asked_of_the_network(monkeypatch, tmp_path, kind):
    path = tmp_path / "tpl_desc-brain_T1w.nii.gz"
    if kind == "link":  # DataLad's, to content that was never fetched
        path.symlink_to(tmp_path / "nowhere")
    else:  # TemplateFlow's own stub
        path.touch()

    class Api:
        @staticmethod
        def get(*_, **__):
            raise AssertionError("the network")

        @staticmethod
        def ls(*_, **__):
            return [path]

    monkeypatch.setitem(sys.modules, "templateflow", type(sys)("templateflow"))
    monkeypatch.setattr(sys.modules["templateflow"], "api", Api, raising=False)
    with pytest.raises(AtlasError, match="network may not be used") as caught:
        templates.template_t1w(TEMPLATE, tmp_path, offline=True)
    assert "TEMPLATEFLOW_HOME" in caught.value.remedy
    path.unlink()
    path.write_bytes(b"image")
    assert templates.template_t1w(TEMPLATE, tmp_path, offline=True) == path


def test_a_dataset_without_templates_is_read_subject_by_subject(tmp_path):
    write_own(tmp_path)
    write_own(tmp_path, "sub-02/anat/sub-02_space-T1w_atlas-Own_dseg")
    atlas = resolve_atlas(f"Own={tmp_path}")
    assert (atlas.kind, atlas.template) == ("subject", None)
    assert subject_parcellation(atlas, "01").space == "dwi"
    assert subject_parcellation(atlas, "02").space == "T1w"
    with pytest.raises(AtlasError, match="no parcellation of sub-03"):
        subject_parcellation(atlas, "03")


def test_session_run_and_space_choose_among_a_subject_s_images(tmp_path):
    stems = {
        "a1": "sub-01/ses-A/dwi/sub-01_ses-A_run-01_atlas-Own_dseg",
        "a2": "sub-01/ses-A/dwi/sub-01_ses-A_run-02_atlas-Own_dseg",
        "mni": f"sub-01/ses-A/dwi/sub-01_ses-A_run-03_space-{TEMPLATE}_atlas-Own_dseg",
        "all": "sub-01/anat/sub-01_atlas-Own_dseg",
    }
    for stem in stems.values():
        write_own(tmp_path, stem)
    atlas = resolve_atlas(f"Own={tmp_path}")

    def found(session, run):
        image = subject_parcellation(atlas, "01", session, {"run": run}).image
        return str(image.relative_to(tmp_path)).removesuffix(".nii.gz")

    assert found("A", "1") == stems["a1"]
    assert found("A", "02") == stems["a2"]
    assert found("A", "3") == stems["all"]
    assert found("B", "1") == stems["all"]
    with pytest.raises(AtlasError, match="equally well"):
        subject_parcellation(atlas, "01", "A")


def test_labels_in_t1w_space_need_a_t1w(tmp_path):
    write_own(tmp_path, "sub-01/anat/sub-01_atlas-Own_dseg")
    atlas = resolve_atlas(f"Own={tmp_path}")
    dwi = Path("sub-01_run-1_dwi.nii.gz")
    run = DWIRun({"subject": "01", "run": 1}, dwi, dwi, dwi)
    with pytest.raises(AtlasError, match="there is no T1w"):
        check_atlas(atlas, run)
    check_atlas(
        atlas, replace(run, anatomy=Anatomy(tmp_path / "sub-01/anat/sub-01_atlas-Own_dseg.nii.gz"))
    )
    assert parcellation_of(atlas, run).space == "T1w"


def test_the_dataset_s_own_description_of_the_atlas_is_passed_on(tmp_path):
    write_atlas(tmp_path)
    atlas = resolve_atlas(f"Two={tmp_path}")
    assert atlas.description()["Name"] == "Two"
    (tmp_path / "atlas-Two_description.json").write_text(json.dumps({"Name": "Two regions"}))
    assert atlas.description()["Name"] == "Two regions"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared test data are not at {SHARED}")
@pytest.mark.parametrize(
    ("spec", "name", "n_nodes"),
    [
        (f"Schaefer100TianS1={SHARED / 'atlases'}", "Schaefer100TianS1", 116),
        ("Schaefer2018", "Schaefer2018x100Parcels7Networks", 100),
        ("Schaefer2018:100Parcels7Networks", "Schaefer2018x100Parcels7Networks", 100),
    ],
)
def test_real_atlases_are_found_offline(spec, name, n_nodes):
    # In a process of its own: TemplateFlow reads TEMPLATEFLOW_HOME when imported.
    code = (
        "import sys\n"
        "from difftract_bids.bids.atlases import resolve_atlas\n"
        "a = resolve_atlas(sys.argv[1])\n"
        "print(a.name, len(a.nodes), a.template, a.image.name.count('res-01'), a.template_t1w)\n"
    )
    environment = os.environ | {"TEMPLATEFLOW_HOME": str(SHARED / "templateflow")}
    printed = subprocess.run(
        [sys.executable, "-c", code, spec],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert printed[:4] == [name, str(n_nodes), TEMPLATE, "1"]
    assert printed[4].endswith(f"tpl-{TEMPLATE}_res-01_desc-brain_T1w.nii.gz")
