"""Connectome tables."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest

from difftract_bids.errors import InputError
from difftract_bids.io.matrices import read_matrix, write_matrix
from difftract_bids.io.matrix_hdf5 import merge_hdf5, read_hdf5, write_hdf5

MATRIX = np.array([[0.0, 3.0, 1 / 3], [3.0, 2e9, 0.0], [1 / 3, 0.0, 0.0]])


def test_matrix_survives_the_round_trip(tmp_path):
    matrix, names = read_matrix(write_matrix(MATRIX, ["a", "b", "c d"], tmp_path / "m.tsv"))
    np.testing.assert_allclose(matrix, MATRIX, rtol=1e-8)
    assert names == ["a", "b", "c d"]


def test_one_line_of_pandas_loads_it(tmp_path):
    frame = pd.read_csv(write_matrix(MATRIX, ["a", "b", "c"], tmp_path / "m.tsv"), sep="\t")
    assert frame.shape == (3, 3)
    assert frame["b"][0] == 3


def test_a_table_that_is_not_square_is_refused(tmp_path):
    (tmp_path / "m.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(InputError, match="1 rows and 2 node names"):
        read_matrix(tmp_path / "m.tsv")


def test_what_is_no_number_is_told(tmp_path):
    matrix = np.array([[0.0, np.nan], [np.nan, 1.0]])
    back, _ = read_matrix(write_matrix(matrix, ["a", "b"], tmp_path / "m.tsv"))
    np.testing.assert_array_equal(back, matrix)


def written(tmp_path, name="a.h5"):
    nodes = {"index": [1, 2], "name": ["a", "b"], "x_mm": [1.5, "n/a"]}
    sidecars = {"count": {"Units": "count", "Assignment": {"RadiusMM": 4.0}}}
    matrices = {"count": MATRIX[:2, :2], "density": MATRIX[1:, 1:]}
    return write_hdf5(matrices, sidecars, nodes, tmp_path / name)


def test_hdf5_keeps_every_digit_and_the_sidecars(tmp_path):
    path = merge_hdf5({"A": written(tmp_path)}, tmp_path / "all.h5")
    stored = read_hdf5(path)
    np.testing.assert_array_equal(stored["A"]["density"], MATRIX[1:, 1:])
    with h5py.File(path) as file:
        assert file["A/count"].attrs["Units"] == "count"
        assert json.loads(file["A/count"].attrs["Assignment"]) == {"RadiusMM": 4.0}
        assert file["A/nodes/name"].asstr()[1] == "b"
        np.testing.assert_array_equal(file["A/nodes/x_mm"], [1.5, np.nan])


def test_the_same_matrices_give_the_same_file(tmp_path):
    assert written(tmp_path).read_bytes() == written(tmp_path, "b.h5").read_bytes()


def test_a_file_that_is_no_hdf5_is_refused_by_name(tmp_path):
    (tmp_path / "a.h5").write_text("no")
    with pytest.raises(InputError, match=r"a\.h5"):
        read_hdf5(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"a\.h5"):
        merge_hdf5({"A": tmp_path / "a.h5"}, tmp_path / "b.h5")
