"""Results are saved under their names, as they are."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from difftract_bids.interfaces.outputs import DerivativesSink
from difftract_bids.io.images import save_volume


@pytest.fixture
def image(tmp_path):
    data = np.random.default_rng(0).normal(size=(6, 7, 8, 3)).astype(np.float32)
    return save_volume(data, np.diag([-2.0, 2, 2, 1]), tmp_path / "series.nii.gz")


def saved(image, tmp_path):
    sink = DerivativesSink(
        base_directory=str(tmp_path / "out"),
        source_file="sub-01/dwi/sub-01_dwi.nii.gz",
        in_file=str(image),
        desc="preproc",
    )
    return sink.run(cwd=tmp_path).outputs.out_file


def test_a_compressed_image_of_ours_is_copied_and_not_compressed_anew(image, tmp_path):
    path = saved(image, tmp_path)
    assert path == str(tmp_path / "out" / "sub-01" / "dwi" / "sub-01_desc-preproc_dwi.nii.gz")
    assert Path(path).read_bytes() == image.read_bytes()
    assert not list((tmp_path / "out").glob(".writing-*"))


def test_the_name_of_a_working_file_is_not_kept_in_a_header(image, tmp_path):
    named = tmp_path / "secret.nii.gz"
    with gzip.open(named, "wb") as stream:
        stream.write(gzip.decompress(image.read_bytes()))
    assert b"secret" in named.read_bytes()[:40]
    path = saved(named, tmp_path)
    assert b"secret" not in Path(path).read_bytes()[:40]
    again = nib.load(path)
    assert np.array_equal(again.get_fdata(), nib.load(image).get_fdata())
