"""Tractograms of any size, read a block at a time."""

from __future__ import annotations

import json
import tracemalloc
import zipfile

import numpy as np
import pytest

from difftract_bids.errors import InputError
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.tractogram_reader import count_streamlines, iter_tractogram
from difftract_bids.io.tractogram_writer import TractogramWriter

VOX2RAS = np.array([[-2.0, 0.1, 0, 40], [0.1, 2.0, 0, -30], [0, 0, 2.5, -20], [0, 0, 0, 1]])
GRID = {"vox2ras": VOX2RAS, "shape": (40, 30, 20)}
SUFFIXES = ["trx", "tck", "trk"]
END = "END\n"


def some(n: int, longest: int = 40) -> StreamlineArrays:
    rng = np.random.default_rng(n)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, longest + 1, n))])
    points = rng.uniform(-30, 30, (offsets[-1], 3)).astype(np.float32)
    return StreamlineArrays(points, offsets.astype(np.int64))


def written(streamlines: StreamlineArrays, path):
    with TractogramWriter(path, **GRID) as writer:
        writer.append(streamlines)
    return path


def tck(path, rows, *, kind="Float32LE", header=(), end=True):
    """Write a TCK file by hand: rows of numbers, NaN where a streamline ends."""
    dtype = {"F": "f", "L": "<", "B": ">"}
    numpy_type = f"{dtype[kind[7]]}f{4 if '32' in kind else 8}"
    lines = ["mrtrix tracks", f"datatype: {kind}", *header]
    start = len("\n".join([*lines, "file: . 0000", END]))
    text = "\n".join([*lines, f"file: . {start:04d}", END])
    rows = [*rows, [np.inf] * 3] if end else rows
    path.write_bytes(text.encode() + np.array(rows, dtype=numpy_type).tobytes())
    return path


def trx(path, members):
    """Write a TRX file of two streamlines by hand, its members changed as asked."""
    header = {"NB_VERTICES": 3, "NB_STREAMLINES": 2}
    content = {
        "header.json": json.dumps(header).encode(),
        "positions.3.float32": np.arange(9, dtype="<f4").tobytes(),
        "offsets.uint32": np.array([0, 2, 3], dtype="<u4").tobytes(),
    } | members
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in content.items():
            if value is not None:
                archive.writestr(name, value)
    return path


def all_of(blocks):
    blocks = list(blocks)
    points = np.concatenate([block.points for block in blocks])
    counts = np.concatenate([np.diff(block.offsets) for block in blocks])
    return StreamlineArrays(points, np.concatenate([[0], np.cumsum(counts)]))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("max_points", [1, 40, 1000, 10**6])
def test_blocks_make_the_whole_whatever_their_size(tmp_path, suffix, max_points):
    streamlines = some(300)
    path = written(streamlines, tmp_path / f"a.{suffix}")
    blocks = list(iter_tractogram(path, max_points=max_points))
    for block in blocks:
        block.check()
        assert block.points.dtype == np.float32
        assert block.points.flags.writeable
        assert len(block.points) <= max_points or suffix == "tck" or block.n_streamlines == 1
        # What waits for the rest of its streamline comes on top.
        assert len(block.points) <= max(max_points, 40) + 40
    back = all_of(blocks)
    atol = 5e-5 if suffix == "trk" else 0
    np.testing.assert_allclose(back.points, streamlines.points, rtol=0, atol=atol)
    np.testing.assert_array_equal(back.offsets, streamlines.offsets)
    assert count_streamlines(path) == 300


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_tractogram_without_streamlines_has_no_blocks(tmp_path, suffix):
    path = written(
        StreamlineArrays(np.zeros((0, 3), np.float32), np.array([0])), tmp_path / f"a.{suffix}"
    )
    assert list(iter_tractogram(path)) == []
    assert count_streamlines(path) == 0


@pytest.mark.parametrize("suffix", ["trx", "tck"])
def test_memory_is_bounded_whatever_the_size_of_the_file(tmp_path, suffix):
    with TractogramWriter(tmp_path / f"a.{suffix}", **GRID) as writer:
        for _ in range(20):
            writer.append(some(2000, 100))
    path = writer.path
    assert path.stat().st_size > 20e6
    for _ in iter_tractogram(path, max_points=1000):
        break  # what is loaded and compiled once is not the file's
    tracemalloc.start()
    n_points = sum(len(block.points) for block in iter_tractogram(path, max_points=20_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_points == writer.n_points
    # Rows, their copy and offsets of one block; offsets of TRX are read 262,144 at a time.
    assert peak < 4e6


@pytest.mark.parametrize("kind", ["Float32LE", "Float32BE", "Float64LE", "Float64BE"])
def test_every_kind_of_tck_is_read(tmp_path, kind):
    rows = [[1, 2, 3], [4, 5, 6.5], [np.nan] * 3, [7, 8, 9], [np.nan] * 3]
    (block,) = iter_tractogram(tck(tmp_path / "a.tck", rows, kind=kind))
    assert block.points.tolist() == [[1, 2, 3], [4, 5, 6.5], [7, 8, 9]]
    assert block.offsets.tolist() == [0, 2, 3]


def test_a_tck_without_a_count_is_counted(tmp_path):
    rows = [[1, 2, 3], [np.nan] * 3] * 7
    for header in ((), ("count: 0",)):
        assert count_streamlines(tck(tmp_path / "a.tck", rows, header=header)) == 7


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_trx_of_another_width_is_read(tmp_path, kind):
    positions = np.arange(9, dtype=kind).tobytes()
    members = {"positions.3.float32": None, f"positions.3.{kind}": positions}
    (block,) = iter_tractogram(trx(tmp_path / "a.trx", members))
    assert block.points.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_trx_with_an_offset_to_a_streamline_and_no_more_is_read(tmp_path):
    members = {"offsets.uint32": None, "offsets.uint64": np.array([0, 2], "<u8").tobytes()}
    (block,) = iter_tractogram(trx(tmp_path / "a.trx", members))
    assert block.offsets.tolist() == [0, 2, 3]


def test_trx_may_be_compressed_or_a_folder(tmp_path):
    path = trx(tmp_path / "a.trx", {})
    packed, folder = tmp_path / "b.trx", tmp_path / "c.trx"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(packed, "w") as other:
        archive.extractall(folder)
        for name in archive.namelist():
            other.writestr(name, archive.read(name), zipfile.ZIP_DEFLATED)
    for one in (packed, folder):
        (block,) = iter_tractogram(one, max_points=100)
        assert block.points.ravel().tolist() == list(range(9))
        assert count_streamlines(one) == 2


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.999, 0.5, 0.1])
def test_a_truncated_file_is_told_of(tmp_path, suffix, share):
    path = written(some(300), tmp_path / f"a.{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="tractogram") as caught:
        list(iter_tractogram(path, max_points=500))
    assert str(path) in str(caught.value)


def test_a_tck_with_fewer_streamlines_than_its_header_says_is_told_of(tmp_path):
    rows = [[1, 2, 3], [np.nan] * 3]
    with pytest.raises(InputError, match="1 of 2 streamlines"):
        list(iter_tractogram(tck(tmp_path / "a.tck", rows, header=("count: 2",))))
    rows += [[4, 5, 6]]
    with pytest.raises(InputError, match="truncated"):
        list(iter_tractogram(tck(tmp_path / "b.tck", rows)))
    with pytest.raises(InputError, match="no end mark after 1"):
        list(iter_tractogram(tck(tmp_path / "c.tck", rows, end=False)))


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"offsets.uint32": None}, "offsets"),
        ({"positions.3.float32": np.zeros(8, "<f4").tobytes()}, "32 of 36 bytes"),
        ({"offsets.uint32": np.array([0, 3, 2], "<u4").tobytes()}, "rise"),
        ({"offsets.uint32": np.array([0, 1, 2], "<u4").tobytes()}, "2 of 3 vertices"),
        ({"offsets.uint32": np.array([0], "<u4").tobytes()}, "2 of 2 offsets"),
        ({"header.json": None}, "header.json"),
        ({"header.json": b"{}"}, "NB_STREAMLINES"),
        ({"header.json": b"{"}, "cannot be read"),
    ],
)
def test_a_trx_whose_parts_do_not_fit_is_told_of(tmp_path, members, what):
    with pytest.raises(InputError, match=what):
        list(iter_tractogram(trx(tmp_path / "a.trx", members)))


def test_streamlines_that_nothing_can_be_made_of_are_named(tmp_path):
    gap, one = [np.nan] * 3, [1.0, 2.0, 3.0]
    empty = tck(tmp_path / "empty.tck", [one, gap, one, gap, gap, one, gap])
    for max_points in (2, 100):
        with pytest.raises(InputError, match=r"no vertex; the first is number 2,"):
            list(iter_tractogram(empty, max_points=max_points))
    for bad in ([1.0, np.nan, 3.0], [np.nan, 1.0, 1.0], [1.0, np.inf, 3.0]):
        odd = tck(tmp_path / "odd.tck", [one, gap, one, bad, gap])
        with pytest.raises(InputError, match=r"not finite; the first is number 1,"):
            list(iter_tractogram(odd))
    positions = np.array([0, 1, 2, 3, 4, 5, 6, np.nan, 8], "<f4").tobytes()
    hurt = trx(tmp_path / "a.trx", {"positions.3.float32": positions})
    for max_points in (1, 100):
        with pytest.raises(InputError, match=r"not finite; the first is number 1,"):
            list(iter_tractogram(hurt, max_points=max_points))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_missing_or_something_else_is_told_of(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for read in (count_streamlines, lambda path: list(iter_tractogram(path))):
        with pytest.raises(InputError, match="cannot be read"):
            read(path)
    path.write_text("something else\n" * 200)
    for read in (count_streamlines, lambda path: list(iter_tractogram(path))):
        with pytest.raises(InputError, match="cannot be read"):
            read(path)


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (("file: else.dat 10",), "not in the same file"),
        (("datatype: Int8",), "datatype is int8"),
    ],
)
def test_a_tck_header_that_promises_something_else_is_told_of(tmp_path, header, what):
    path = tmp_path / "a.tck"
    rest = "file: . 100\n" if "datatype" in header[0] else "datatype: Float32LE\n"
    path.write_text("mrtrix tracks\n" + "\n".join(header) + "\n" + rest + END)
    with pytest.raises(InputError, match=what):
        list(iter_tractogram(path))


def test_a_tck_header_without_an_end_is_told_of(tmp_path):
    path = tmp_path / "a.tck"
    path.write_text("mrtrix tracks\ndatatype: Float32LE\n")
    with pytest.raises(InputError, match="no END"):
        list(iter_tractogram(path))


def test_other_extensions_are_refused(tmp_path):
    for read in (count_streamlines, lambda path: list(iter_tractogram(path))):
        with pytest.raises(InputError, match=r"\.vtk"):
            read(tmp_path / "a.vtk")
