"""MRtrix's image format, in files written value by value after its documentation."""

from __future__ import annotations

import gzip
import itertools
import re

import numpy as np
import pytest

from difftract_bids.errors import InputError
from difftract_bids.io.mif import load_mif, read_mif_header

DIMS = (2, 3, 4, 5)
#: Rotation by 90 degrees and some, translation, millimetres.
TRANSFORM = np.array([[0.0, -0.8, 0.6, 11.0], [1.0, 0.0, 0.0, -7.5], [0.0, 0.6, 0.8, 3.25]])
VOXEL_MM = (1.5, 2.0, 2.5, 1.0)


def image_values(dims=DIMS) -> np.ndarray:
    return np.arange(np.prod(dims), dtype=np.int64).reshape(dims)


def in_file_order(values: np.ndarray, layout: str) -> np.ndarray:
    """Put each value where the documentation of ``layout`` wants it, one at a time."""
    words = layout.split(",")
    ranks = [int(word[1:]) for word in words]
    sizes = [values.shape[ranks.index(rank)] for rank in range(values.ndim)]
    stored = np.zeros(values.size, dtype=values.dtype)
    for index in itertools.product(*map(range, values.shape)):
        place = 0
        for axis, position in enumerate(index):
            steps = values.shape[axis] - 1 - position if words[axis][0] == "-" else position
            place += steps * int(np.prod(sizes[: ranks[axis]]))
        stored[place] = values[index]
    return stored


def write_mif(
    path, *, values=None, layout="+0,+1,+2,+3", datatype="Int32LE", data=None, drop=(), **fields
):
    values = image_values() if values is None else values
    lines = {
        "dim": ",".join(map(str, values.shape)),
        "vox": ",".join(map(str, VOXEL_MM[: values.ndim])),
        "layout": layout,
        "datatype": datatype,
        "transform": "\ntransform: ".join(", ".join(map(str, row)) for row in TRANSFORM),
        "command_history": "unknown keys: are nobody's concern",
        **fields,
    }
    header = "mrtrix image\n" + "".join(
        f"{key}: {value}\n" for key, value in lines.items() if key not in drop
    )
    if data is None:
        data = in_file_order(values, layout).astype("<i4").tobytes()
    start = 4 * (len(header) // 4) + 32
    content = f"{header}file: . {start}\nEND\n".encode().ljust(start, b"\0") + data
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def at_header_voxels(volume, dims=DIMS):
    """Look every value up by the millimetres of its voxel along the header's axes."""
    affine = np.vstack([TRANSFORM * [*VOXEL_MM[:3], 1.0], [0, 0, 0, 1]])
    index = np.stack(np.meshgrid(*map(np.arange, dims[:3]), indexing="ij"), axis=-1)
    mm = index @ affine[:3, :3].T + affine[:3, 3]
    ras2vox = np.linalg.inv(volume.vox2ras)
    voxel = mm @ ras2vox[:3, :3].T + ras2vox[:3, 3]
    np.testing.assert_allclose(voxel, np.rint(voxel), atol=1e-9)
    return volume.data[tuple(np.moveaxis(np.rint(voxel).astype(int), -1, 0))]


LAYOUTS = [
    "+0,+1,+2,+3",
    "-0,+1,+2,+3",
    "-1,+2,-3,+0",
    "+2,-0,-1,+3",
    "-3,-2,-1,-0",
    "+1,+0,+3,-2",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_value_is_found_at_its_place_in_millimetres(tmp_path, layout):
    volume = load_mif(write_mif(tmp_path / "image.mif", layout=layout), dtype=np.int64)
    np.testing.assert_array_equal(at_header_voxels(volume), image_values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_spatial_axes_are_those_of_the_file_and_volumes_come_last(tmp_path, layout):
    volume = load_mif(write_mif(tmp_path / "image.mif", layout=layout), dtype=np.int64)
    ranks = [int(word[1:]) for word in layout.split(",")]
    # In the order of the file, an index that grows goes on in the file.
    stored = list(in_file_order(image_values(), layout))
    corner = volume.data[0, 0, 0, 0]
    for axis, (size, rank) in enumerate(
        zip(volume.data.shape[:3], sorted(ranks[:3]), strict=True)
    ):
        assert size == DIMS[ranks.index(rank)]
        neighbour = volume.data[tuple(int(a == axis) for a in range(3))][0]
        assert stored.index(neighbour) > stored.index(corner)
    assert volume.data.shape[3] == DIMS[3]


@pytest.mark.parametrize(
    "name", ["Float32", "Float64", "Int8", "UInt8", "Int16", "UInt16", "UInt32"]
)
@pytest.mark.parametrize("order", ["LE", "BE", ""])
def test_numbers_of_every_type_and_byte_order_are_read(tmp_path, name, order):
    kind = {"F": "f", "I": "i", "U": "u"}[name[0]] + str(int(re.sub(r"\D", "", name)) // 8)
    prefix = {"LE": "<", "BE": ">", "": "="}[order]
    data = image_values().ravel(order="F").astype(prefix + kind).tobytes()
    path = write_mif(tmp_path / "image.mif", datatype=name + order, data=data)
    np.testing.assert_array_equal(at_header_voxels(load_mif(path)), image_values())


def test_bits_are_read_the_first_from_the_top_of_its_byte(tmp_path):
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[0, 0, 0] = mask[1, 2, 0] = mask[2, 2, 2] = True
    data = bytes([0b10000001, 0, 0, 0b00100000])  # places 0, 7 and 26
    path = write_mif(tmp_path / "m.mif", values=mask, layout="+0,+1,+2", datatype="Bit", data=data)
    np.testing.assert_array_equal(at_header_voxels(load_mif(path), mask.shape), mask)


def test_stored_values_are_scaled(tmp_path):
    path = write_mif(tmp_path / "image.mif", scaling="-3,0.5")
    expected = -3 + 0.5 * image_values()
    np.testing.assert_array_equal(at_header_voxels(load_mif(path)), expected)


def test_compressed_files_and_data_in_a_second_file_are_read(tmp_path):
    plain = load_mif(write_mif(tmp_path / "image.mif"))
    packed = load_mif(write_mif(tmp_path / "image.mif.gz"))
    np.testing.assert_array_equal(packed.data, plain.data)
    content = (tmp_path / "image.mif").read_bytes()
    header, _, _ = content.partition(b"file:")
    (tmp_path / "two.mih").write_bytes(header + b"file: the data.dat 8\n")
    (tmp_path / "the data.dat").write_bytes(b"8 bytes." + content[-4 * plain.data.size :])
    np.testing.assert_array_equal(load_mif(tmp_path / "two.mih").data, plain.data)
    (tmp_path / "the data.dat").unlink()
    with pytest.raises(InputError, match=r"cannot be read: .*the data\.dat"):
        read_mif_header(tmp_path / "two.mih")


def test_compressed_files_of_two_parts_are_read(tmp_path):
    path = write_mif(tmp_path / "image.mif.gz")
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:]))
    np.testing.assert_array_equal(at_header_voxels(load_mif(path)), image_values())


def test_an_image_without_a_transform_is_centred_on_the_origin(tmp_path):
    volume = load_mif(write_mif(tmp_path / "image.mif", drop=("transform",)))
    centre = volume.vox2ras @ [*(np.array(DIMS[:3]) - 1) / 2, 1]
    np.testing.assert_allclose(centre, [0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(volume.vox2ras[:3, :3], np.diag(VOXEL_MM[:3]))


def test_the_array_can_be_written_to_and_is_of_the_machines_byte_order(tmp_path):
    data = image_values().ravel(order="F").astype(">f4").tobytes()
    path = write_mif(tmp_path / "image.mif", datatype="Float32BE", data=data)
    volume = load_mif(path)
    assert volume.data.dtype.isnative
    volume.data[0, 0, 0, 0] = 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": ("dim",)}, "'dim' is missing"),
        ({"drop": ("layout",)}, "'layout' is missing"),
        ({"drop": ("datatype",)}, "'datatype' is missing"),
        ({"dim": "2,3"}, "'dim' is 2,3"),
        ({"dim": "2,3,0,5"}, "'dim' is 2,3,0,5"),
        ({"dim": "2,three,4,5"}, "invalid literal"),
        ({"layout": "+0,+1,+1,+3"}, "does not order 4 axes"),
        ({"vox": "1.5,nan,2.5,1"}, "'vox' is 1.5,nan"),
        ({"datatype": "CFloat32LE"}, "'datatype' CFloat32LE is not supported"),
        ({"transform": "1,0,0"}, "fewer than three rows"),
        ({"transform": "1,0,0\ntransform: 0,1,0\ntransform: 0,0,1"}, "4 numbers are needed"),
        ({"scaling": "1"}, "2 numbers are needed"),
        ({"file": "a.dat"}, "its data are in 2 files"),
    ],
)
def test_headers_of_no_use_are_refused(tmp_path, changes, message):
    path = write_mif(tmp_path / "image.mif", data=bytes(480), **changes)
    with pytest.raises(InputError, match=message) as caught:
        read_mif_header(path)
    assert str(path) in str(caught.value)
    assert "mrconvert" in caught.value.remedy


def test_other_files_are_refused(tmp_path):
    other, headless, endless = (tmp_path / f"{name}.mif" for name in "abc")
    endless.write_bytes(b"mrtrix image\ndim: 2,3,4\n")
    other.write_bytes(b"mrtrix tracks\nEND\n")
    headless.write_bytes(b"mrtrix image\ndim: 2,3,4\nno key\n")
    with pytest.raises(InputError, match="does not begin with 'mrtrix image'"):
        load_mif(other)
    with pytest.raises(InputError, match="line without a key: 'no key'"):
        load_mif(headless)
    with pytest.raises(InputError, match="has no END"):
        load_mif(endless)
    with pytest.raises(InputError, match="cannot be read"):
        load_mif(tmp_path / "absent.mif")


@pytest.mark.parametrize("name", ["image.mif", "image.mif.gz"])
@pytest.mark.parametrize("share", [0.2, 0.95])
def test_truncated_files_are_refused(tmp_path, name, share):
    path = write_mif(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"truncated|cannot be read"):
        read_mif_header(path)


def test_too_few_data_are_told_without_reading_them(tmp_path):
    path = write_mif(tmp_path / "image.mif", data=b"\0" * 100)
    with pytest.raises(InputError, match=r"truncated: \d+ of \d+ bytes"):
        read_mif_header(path)
