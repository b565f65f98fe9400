"""Tractogram files."""

import nibabel as nib
import numpy as np
import pytest

from difftract_bids.errors import InputError
from difftract_bids.io.tractograms import StreamlineArrays, read_tractogram, write_tractogram

VOX2RAS = np.array([[-2.0, 0.1, 0, 40], [0.1, 2.0, 0, -30], [0, 0, 2.5, -20], [0, 0, 0, 1]])
TWO = StreamlineArrays(
    np.array([[0, 0, 0], [3, 4, 0], [1, 1, 1], [1, 1, 3], [1, 2, 3]], np.float32) + 61.2345,
    np.array([0, 2, 5]),
)
NONE = StreamlineArrays(np.zeros((0, 3), np.float32), np.array([0]))


@pytest.mark.parametrize("suffix", ["trx", "tck", "trk"])
@pytest.mark.parametrize("streamlines", [TWO, NONE], ids=["two", "none"])
def test_what_is_written_is_read_back(tmp_path, suffix, streamlines):
    path = write_tractogram(
        streamlines, tmp_path / f"a.{suffix}", vox2ras=VOX2RAS, shape=(40, 30, 20)
    )
    back = read_tractogram(path)
    # TRK keeps positions from a corner of the image: a rounding of float32 there and one back.
    atol = 5e-5 if suffix == "trk" else 0
    np.testing.assert_allclose(back.points, streamlines.points, rtol=0, atol=atol)
    np.testing.assert_array_equal(back.offsets, streamlines.offsets)


def test_trx_keeps_the_grid_that_viewers_need(tmp_path):
    from trx.trx_file_memmap import load

    trx = load(str(write_tractogram(TWO, tmp_path / "a.trx", vox2ras=VOX2RAS, shape=(40, 30, 20))))
    np.testing.assert_allclose(trx.header["VOXEL_TO_RASMM"], VOX2RAS)
    assert list(trx.header["DIMENSIONS"]) == [40, 30, 20]
    trx.close()


def test_nibabel_reads_the_tck_in_scanner_millimetres(tmp_path):
    path = write_tractogram(TWO, tmp_path / "a.tck", vox2ras=VOX2RAS, shape=(40, 30, 20))
    np.testing.assert_array_equal(nib.streamlines.load(path).streamlines[1], TWO.points[2:])


def test_lengths_and_ends_are_those_of_each_streamline():
    np.testing.assert_allclose(TWO.lengths_mm(), [5.0, 3.0], rtol=1e-5)
    np.testing.assert_array_equal(TWO.ends()[1], TWO.points[[2, 4]])
    assert NONE.lengths_mm().shape == (0,)
    assert NONE.ends().shape == (0, 2, 3)


def test_unknown_formats_and_broken_files_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"\.vtk"):
        write_tractogram(TWO, tmp_path / "a.vtk", vox2ras=VOX2RAS, shape=(4, 4, 4))
    for name in ("b.trx", "b.tck", "b.trk"):
        (tmp_path / name).write_bytes(b"no tractogram")
        with pytest.raises(InputError, match=name):
            read_tractogram(tmp_path / name)


@pytest.mark.parametrize("suffix", ["trx", "tck", "trk"])
def test_truncated_files_are_refused_by_name(tmp_path, suffix):
    path = write_tractogram(TWO, tmp_path / f"a.{suffix}", vox2ras=VOX2RAS, shape=(40, 30, 20))
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=path.name):
        read_tractogram(path)
