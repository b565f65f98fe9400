"""Tractogram files written a chunk at a time."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from contextlib import nullcontext, suppress
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difftract_bids.errors import DifftractError, InputError
from difftract_bids.io import tractogram_writer
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.thinning import thin
from difftract_bids.io.tractogram_writer import TractogramWriter
from difftract_bids.io.tractograms import read_tractogram

VOX2RAS = np.array([[-2.0, 0.1, 0, 40], [0.1, 2.0, 0, -30], [0, 0, 2.5, -20], [0, 0, 0, 1]])
GRID = {"vox2ras": VOX2RAS, "shape": (40, 30, 20)}
SUFFIXES = ["trx", "tck", "trk"]
#: TRK keeps positions from a corner of the image: a rounding of float32 there and one back.
ROUNDING_MM = 5e-5


def some_streamlines(n=200, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 40, n))])
    points = np.cumsum(rng.normal(size=(offsets[-1], 3)), axis=0) % 80 - 40
    return StreamlineArrays(points.astype(np.float32), offsets)


def some_of(streamlines, first, last):
    offsets = streamlines.offsets[first : last + 1]
    return StreamlineArrays(streamlines.points[offsets[0] : offsets[-1]], offsets - offsets[0])


def assert_same(back, streamlines):
    np.testing.assert_array_equal(back.offsets, streamlines.offsets)
    np.testing.assert_allclose(back.points, streamlines.points, rtol=0, atol=ROUNDING_MM)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_chunks_make_the_file_that_one_piece_makes(tmp_path, suffix, monkeypatch):
    streamlines = some_streamlines()
    with TractogramWriter(tmp_path / f"whole.{suffix}", **GRID) as writer:
        writer.append(streamlines)
    assert (writer.n_streamlines, writer.n_points) == (200, len(streamlines.points))
    monkeypatch.setattr(tractogram_writer, "_BLOCK_POINTS", 50)
    with TractogramWriter(tmp_path / f"parts.{suffix}", **GRID) as writer:
        for first, last in pairwise([0, 1, 1, 60, 61, 200]):
            writer.append(some_of(streamlines, first, last))
    assert writer.path.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert_same(read_tractogram(writer.path), streamlines)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", ["tck", "trk"])
def test_nibabel_reads_the_streamlines_one_by_one(tmp_path, suffix):
    streamlines = some_streamlines(20)
    with TractogramWriter(tmp_path / f"a.{suffix}", **GRID) as writer:
        writer.append(streamlines)
    back = nib.streamlines.load(writer.path, lazy_load=True)
    assert int(back.header["nb_streamlines" if suffix == "trk" else "count"]) == 20
    expected = np.split(streamlines.points, streamlines.offsets[1:-1])
    for one, other in zip(back.streamlines, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING_MM)


@settings(max_examples=40, deadline=None)
@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    sizes_mm=st.tuples(*[st.floats(0.7, 4)] * 3),
    tilt_deg=st.floats(-30, 30),
)
def test_trk_is_in_scanner_millimetres_on_any_grid(
    tmp_path_factory, order, signs, sizes_mm, tilt_deg
):
    c, s = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
    tilt = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ [[1, 0, 0], [0, c, s], [0, -s, c]]
    vox2ras = np.eye(4)
    vox2ras[:3, :3] = tilt @ np.diag(signs)[:, list(order)] * sizes_mm
    vox2ras[:3, 3] = [31, -22, 13]
    path = tmp_path_factory.mktemp("trk") / "a.trk"
    streamlines = some_streamlines(5)
    with TractogramWriter(path, vox2ras=vox2ras, shape=(50, 60, 70)) as writer:
        writer.append(streamlines)
    loaded = nib.streamlines.load(path)
    np.testing.assert_allclose(
        loaded.streamlines.get_data(), streamlines.points, rtol=0, atol=2 * ROUNDING_MM
    )
    header = loaded.header
    np.testing.assert_allclose(header["voxel_to_rasmm"], vox2ras, atol=1e-5)
    np.testing.assert_allclose(header["voxel_sizes"], sizes_mm, rtol=1e-6)
    assert tuple(header["dimensions"]) == (50, 60, 70)
    assert header["voxel_order"].decode() == "".join(nib.aff2axcodes(vox2ras))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_tolerance_thins_what_is_stored(tmp_path, suffix):
    streamlines = some_streamlines()
    with TractogramWriter(tmp_path / f"a.{suffix}", tolerance_mm=1.0, **GRID) as writer:
        writer.append(streamlines)
    thinned = thin(streamlines, 1.0)
    assert writer.n_points == len(thinned.points) < len(streamlines.points)
    assert_same(read_tractogram(writer.path), thinned)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_streamlines_make_a_valid_empty_file(tmp_path, suffix):
    with TractogramWriter(tmp_path / f"a.{suffix}", **GRID) as writer:
        pass
    back = read_tractogram(writer.path)
    assert back.points.shape == (0, 3)
    assert back.n_streamlines == 0
    if suffix != "trx":
        assert len(nib.streamlines.load(writer.path).streamlines) == 0


def test_trx_counts_beyond_four_thousand_million_vertices(tmp_path):
    with TractogramWriter(tmp_path / "a.trx", **GRID) as writer:
        writer._body._n_points = (1 << 32) - 3  # as though so many had been written
        writer.append(some_of(some_streamlines(), 0, 10))
    ends = some_streamlines().offsets[1:11] + (1 << 32) - 3
    with zipfile.ZipFile(writer.path) as archive:
        assert archive.testzip() is None
        offsets = np.frombuffer(archive.read("offsets.uint64"), "<u8")
    np.testing.assert_array_equal(offsets, [0, *ends])


def test_trx_opens_in_dipy_with_its_grid(tmp_path):
    from dipy.io.streamline import load_tractogram

    streamlines = some_streamlines(20)
    with TractogramWriter(tmp_path / "a.trx", **GRID) as writer:
        writer.append(streamlines)
    loaded = load_tractogram(str(writer.path), "same", bbox_valid_check=False)
    np.testing.assert_allclose(loaded.affine, VOX2RAS, atol=1e-6)
    assert tuple(loaded.dimensions) == (40, 30, 20)
    np.testing.assert_array_equal(loaded.streamlines.get_data(), streamlines.points)


def write_and_be_interrupted(writer):
    with writer:
        writer.append(some_streamlines())
        raise KeyboardInterrupt


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_exception_leaves_what_was_there(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_text("of yesterday")
    with pytest.raises(KeyboardInterrupt):
        write_and_be_interrupted(TractogramWriter(path, **GRID))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "of yesterday"


KILLED = """
import os, signal, sys
from test_tractogram_writer import GRID, TractogramWriter, some_streamlines
with TractogramWriter(sys.argv[1], **GRID) as writer:
    for _ in range(100):
        writer.append(some_streamlines())
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run_python(code, *arguments):
    """Run code that may import this file."""
    here = os.path.dirname(__file__)  # noqa: PTH120
    environment = dict(os.environ, PYTHONPATH=here)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_killed_half_way_nothing_has_the_final_name(tmp_path, suffix):
    done = run_python(KILLED, tmp_path / f"a.{suffix}")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.glob(f"*.{suffix}")) == []
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f".a.{suffix}.")


@pytest.fixture
def _little_room():
    """Let no file grow beyond a megabyte, as though the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill_up(writer, what_then=nullcontext()):  # noqa: B008 - it has no state
    streamlines = some_streamlines(2000)
    with writer, what_then:
        for _ in range(10):
            writer.append(streamlines)


@pytest.mark.usefixtures("_little_room")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_told_and_cleaned_up(tmp_path, suffix):
    with pytest.raises(DifftractError, match=rf"a\.{suffix}"):
        fill_up(TractogramWriter(tmp_path / f"a.{suffix}", **GRID))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_little_room")
def test_a_file_given_up_is_not_completed_by_those_who_go_on(tmp_path):
    with pytest.raises(DifftractError, match="given up"):
        fill_up(TractogramWriter(tmp_path / "a.tck", **GRID), suppress(DifftractError))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DifftractError, match=r"file.a\.trx"):
        TractogramWriter(tmp_path / "file" / "a.trx", **GRID).__enter__()


@pytest.mark.parametrize(
    ("points", "offsets", "fault"),
    [
        (np.zeros((3, 3)), [0, 2], "offsets"),
        (np.zeros((3, 3)), [1, 3], "offsets"),
        (np.zeros((3, 3)), [], "offsets"),
        (np.zeros((3, 3)), [0, 2, 2, 3], "no vertex"),
        (np.zeros((3, 3)), [0, 2, 1, 3], "no vertex"),
        (np.full((3, 3), np.nan), [0, 3], "finite"),
        (np.zeros((3, 2)), [0, 3], "shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, points, offsets, fault):
    writer = TractogramWriter(tmp_path / "a.tck", **GRID)
    with pytest.raises(ValueError, match=fault), writer:
        writer.append(StreamlineArrays(points, np.array(offsets, dtype=int)))
    assert list(tmp_path.iterdir()) == []


def test_other_formats_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"\.vtk"):
        TractogramWriter(tmp_path / "new" / "a.vtk", **GRID)
    assert list(tmp_path.iterdir()) == []


MEASURED = """
import sys
import numpy as np
from test_tractogram_writer import GRID, StreamlineArrays, TractogramWriter

def peak_mib():
    # Not getrusage: its peak includes that of the process that forked this one.
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

path, n = sys.argv[1], int(sys.argv[2])
chunk = StreamlineArrays(
    np.random.default_rng(0).normal(size=(750_000, 3)).astype(np.float32),
    np.arange(50_001) * 15,
)
before = peak_mib()
with TractogramWriter(path, tolerance_mm=1e-6, **GRID) as writer:
    for _ in range(n // 50_000):
        writer.append(chunk)
print(peak_mib() - before, writer.n_streamlines, writer.path.stat().st_size)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_million_streamlines_pass_in_little_memory(tmp_path, suffix):
    done = run_python(MEASURED, tmp_path / f"a.{suffix}", 2_000_000)
    assert done.returncode == 0, done.stderr
    peak_mib, n_streamlines, size = map(float, done.stdout.split())
    (tmp_path / f"a.{suffix}").unlink()
    assert n_streamlines == 2_000_000
    assert size > 12 * 15 * 2_000_000
    assert peak_mib < 200


@pytest.mark.external
@pytest.mark.skipif(shutil.which("tckstats") is None, reason="MRtrix3 is not installed")
@pytest.mark.parametrize("n", [0, 200])
def test_mrtrix_reads_the_tck(tmp_path, n):
    streamlines = some_streamlines(n)
    with TractogramWriter(tmp_path / "a.tck", **GRID) as writer:
        writer.append(streamlines)
    info = subprocess.run(
        ["tckinfo", "-count", writer.path], capture_output=True, text=True, check=True
    )
    assert f"actual count in file: {n}" in info.stdout
    if n:
        dump = tmp_path / "lengths.txt"
        subprocess.run(["tckstats", "-quiet", "-dump", dump, writer.path], check=True)
        np.testing.assert_allclose(np.loadtxt(dump), streamlines.lengths_mm(), rtol=1e-4)
