"""Connectome tables."""

import numpy as np
import pandas as pd
import pytest

from difftract_bids.errors import InputError
from difftract_bids.io.matrices import read_matrix, write_matrix

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
