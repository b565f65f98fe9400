"""Input that is not as it should be: used where it can be, named with its remedy where not."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from datasets import image, write_dataset

from difftract_bids.bids.plan import Plan, make_plan
from difftract_bids.cli.notices import of_models
from difftract_bids.config import Config
from difftract_bids.errors import InputError
from difftract_bids.io.gradients import read_gradients
from difftract_bids.io.images import load_volume


def plan(bids_dir: Path, **options) -> Plan:
    root = bids_dir.parent
    return make_plan(bids_dir, root / "out", root / "work", Config(), **options)


@pytest.fixture
def dataset(tmp_path) -> Path:
    return write_dataset(tmp_path / "bids", sessions=["A"], t1w=True)


def dwi_file(dataset: Path, extension: str) -> Path:
    return dataset / "sub-01" / "ses-A" / "dwi" / f"sub-01_ses-A_dwi.{extension}"


def t1w_file(dataset: Path) -> Path:
    return dataset / "sub-01" / "ses-A" / "anat" / "sub-01_ses-A_T1w.nii.gz"


def table_of(dataset: Path):
    (run,) = plan(dataset).runs
    return read_gradients(run.bval, run.bvec, nib.load(run.dwi).affine)


TEXTS = {
    "tabs": lambda text: text.replace(" ", "\t"),
    "several spaces": lambda text: text.replace(" ", "   "),
    "spaces at the ends": lambda text: "\n".join(f"  {line} " for line in text.splitlines()),
    "no newline at the end": lambda text: text.rstrip("\n"),
    "empty lines at the end": lambda text: text + "\n\n  \n",
    "lines ended as on Windows": lambda text: text.replace("\n", "\r\n"),
    "a byte-order mark": lambda text: "\ufeff" + text,
}


@pytest.mark.parametrize("how", TEXTS)
def test_gradient_tables_are_read_however_their_text_is_written(dataset, how):
    expected = table_of(dataset)
    for extension in ("bval", "bvec"):
        path = dwi_file(dataset, extension)
        path.write_bytes(TEXTS[how](path.read_text()).encode())
    found = table_of(dataset)
    np.testing.assert_array_equal(found.bvals_s_mm2, expected.bvals_s_mm2)
    np.testing.assert_array_equal(found.bvecs, expected.bvecs)


def test_vectors_and_values_in_columns_are_read_like_those_in_rows(dataset):
    expected = table_of(dataset)
    for extension in ("bval", "bvec"):
        path = dwi_file(dataset, extension)
        np.savetxt(path, np.loadtxt(path, ndmin=2).T)
    np.testing.assert_array_equal(table_of(dataset).bvecs, expected.bvecs)


@pytest.mark.parametrize("in_columns", [False, True])
def test_three_vectors_are_told_from_three_rows_by_their_lengths(tmp_path, in_columns):
    vectors = np.array([[0, 0, 0], [0.6, 0.8, 0], [0, 0.6, 0.8]])
    bval, bvec = tmp_path / "a.bval", tmp_path / "a.bvec"
    np.savetxt(bval, [[0, 1000, 1000]])
    np.savetxt(bvec, vectors if in_columns else vectors.T)
    found = read_gradients(bval, bvec, np.diag([-2.0, 2, 2, 1]), whole=False)
    np.testing.assert_allclose(found.bvecs, vectors * (-1, 1, 1), atol=1e-12)


@pytest.mark.parametrize(
    "place",
    ["sub-01/ses-A/sub-01_ses-A_dwi", "sub-01/sub-01_dwi", "dwi", "sub-01/ses-A/dwi"],
)
def test_tables_and_sidecars_of_any_folder_above_apply(dataset, place):
    expected = table_of(dataset)
    for extension in ("bval", "bvec", "json"):
        target = dataset / f"{place}.{extension}"
        dwi_file(dataset, extension).rename(target)
    (run,) = plan(dataset).runs
    assert run.bval == dataset / f"{place}.bval"
    assert run.metadata == {"EchoTime": 0.09}
    np.testing.assert_array_equal(table_of(dataset).bvecs, expected.bvecs)


def test_a_sidecar_with_a_byte_order_mark_is_read(dataset):
    dwi_file(dataset, "json").write_bytes(b"\xef\xbb\xbf" + b'{"EchoTime": 0.08}')
    assert plan(dataset).runs[0].metadata == {"EchoTime": 0.08}


def test_images_need_not_be_compressed(dataset):
    for path in (dwi_file(dataset, "nii.gz"), t1w_file(dataset)):
        nib.save(nib.load(path), path.with_suffix(""))
        path.unlink()
    (run,) = plan(dataset).runs
    assert run.dwi.suffix == run.t1w.suffix == ".nii"


@pytest.mark.parametrize("axes", ["PIR", "RPS", "ASL", "LAS"])
def test_a_t1w_in_any_orientation_is_used_and_stays_where_it_is(dataset, axes):
    original = nib.load(t1w_file(dataset))
    voxel = (1, 2, 3)
    value = original.get_fdata()[voxel]
    position = nib.affines.apply_affine(original.affine, voxel)
    change = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(original.affine), nib.orientations.axcodes2ornt(axes)
    )
    nib.save(original.as_reoriented(change), t1w_file(dataset))
    assert plan(dataset).runs[0].t1w == t1w_file(dataset)
    data, vox2ras = load_volume(t1w_file(dataset), ndim=3)
    assert "".join(nib.aff2axcodes(vox2ras)) == axes
    there = np.rint(nib.affines.apply_affine(np.linalg.inv(vox2ras), position)).astype(int)
    assert data[tuple(there)] == value


def compress_as_nii(dataset):
    path = dwi_file(dataset, "nii.gz")
    path.rename(path.with_suffix(""))


def uncompressed_as_gz(dataset):
    path = dwi_file(dataset, "nii.gz")
    path.write_bytes(gzip.decompress(path.read_bytes()))


def dangling(dataset):
    t1w_file(dataset).unlink()
    t1w_file(dataset).symlink_to(dataset / ".git" / "annex" / "objects" / "x")


def singular(dataset):
    damaged = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), None)
    damaged.header.set_sform(np.diag([2, 2, 0, 1.0]), code=1)
    nib.save(damaged, t1w_file(dataset))


def values(extension, change):
    def spoil(dataset):
        path = dwi_file(dataset, extension)
        np.savetxt(path, change(np.loadtxt(path, ndmin=2)))

    return spoil


#: What is done, what is said, where, and the remedy.
DAMAGE = {
    "4-D T1w": (
        lambda d: nib.save(image((6, 6, 6, 2)), t1w_file(d)),
        r"shape \(6, 6, 6, 2\); 3 dimensions",
        t1w_file,
        "Keep one volume",
    ),
    "gzip called .nii": (
        compress_as_nii,
        "is compressed, but its name",
        lambda d: dwi_file(d, "nii"),
        "Rename it to sub-01_ses-A_dwi.nii.gz",
    ),
    ".nii called .nii.gz": (
        uncompressed_as_gz,
        "it is not compressed",
        lambda d: dwi_file(d, "nii.gz"),
        "rename it to sub-01_ses-A_dwi.nii;",
    ),
    "empty image": (
        lambda d: dwi_file(d, "nii.gz").write_bytes(b""),
        "empty",
        lambda d: dwi_file(d, "nii.gz"),
        "Copy",
    ),
    "empty T1w": (lambda d: t1w_file(d).write_bytes(b""), "empty", t1w_file, "Copy"),
    "not fetched": (dangling, "link to content that is not here", t1w_file, "datalad get"),
    "singular": (singular, "not invertible", t1w_file, "Convert"),
    "empty bval": (
        lambda d: dwi_file(d, "bval").write_text("\n"),
        "file is empty",
        lambda d: dwi_file(d, "bval"),
        "Convert",
    ),
    "words for numbers": (
        lambda d: dwi_file(d, "bval").write_text("a b c\n"),
        "cannot be read",
        lambda d: dwi_file(d, "bval"),
        "text",
    ),
    "b-value not a number": (
        values("bval", lambda b: np.where(np.arange(9) == 3, np.nan, b)),
        "1 b-values are negative or not finite",
        lambda d: dwi_file(d, "bval"),
        "Mend",
    ),
    "two rows of vectors": (
        values("bvec", lambda v: v[:2]),
        r"shape \(2, 9\)",
        lambda d: dwi_file(d, "bvec"),
        "Convert",
    ),
    "rows of unlike length": (
        lambda d: dwi_file(d, "bvec").write_text("0 1\n0 0 1\n0 0\n"),
        "cannot be read",
        lambda d: dwi_file(d, "bvec"),
        "three rows",
    ),
    "JSON not readable": (
        lambda d: dwi_file(d, "json").write_bytes(b"\xff\xfe{"),
        "not valid JSON",
        lambda d: dwi_file(d, "json"),
        "Mend",
    ),
    "JSON of a parent folder": (
        lambda d: (d / "dwi.json").write_text("{,}"),
        "not valid JSON",
        lambda d: d / "dwi.json",
        "Mend",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_cannot_be_used_is_named_with_its_place_and_remedy(dataset, damage):
    spoil, said, place, remedy = DAMAGE[damage]
    spoil(dataset)
    with pytest.raises(InputError, match=said) as caught:
        plan(dataset)
    assert str(place(dataset)) in caught.value.where
    assert remedy in caught.value.remedy


def test_one_bad_t1w_of_a_participant_does_not_stop_the_others(tmp_path):
    dataset = write_dataset(tmp_path / "bids", ["01", "02"], t1w=True)
    nib.save(image((6, 6, 6, 2)), dataset / "sub-02" / "anat" / "sub-02_T1w.nii.gz")
    found = plan(dataset)
    assert found.participants == ["01"]
    assert "3 dimensions" in str(found.unusable["02"])


def test_notes_of_a_run_are_said_before_anything_starts(dataset):
    dwi_file(dataset, "json").unlink()
    said = of_models(plan(dataset))
    assert any(line.startswith("WARNING: The JSON sidecar is missing") for line in said)
