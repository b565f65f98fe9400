import numpy as np
import pytest

from difftract_bids.errors import InputError
from difftract_bids.modelling.response import Response, read_response, write_response

MRTRIX = """# Shells: 0,699,2800
# command_history: amp2response dwi.mif voxels.mif vecs.mif out.txt  (version=3.0.3)
3455.21699220175 0 0
2228.58868530022 -612.655287247031 81.3539439849584
1009.10052770875 -701.051842026391 351.188124474336
"""


def test_text_is_what_mrtrix_writes_and_comes_back_the_same():
    response = Response((0.0, 1000.0), np.array([[1500.0, 0, 0], [338.827, -101.5, 20.01]]))
    text = response.to_text()
    assert text.splitlines() == ["# Shells: 0,1000", "1500 0 0", "338.827 -101.5 20.01"]
    back = Response.from_text(text)
    assert back.bvals_s_mm2 == response.bvals_s_mm2
    np.testing.assert_array_equal(back.coefficients, response.coefficients)
    assert response.to_text(with_b0=False).splitlines()[1:] == ["338.827 -101.5 20.01"]
    assert response.lmax == 4
    np.testing.assert_array_equal(response.deconvolved, response.coefficients[1])


def test_mrtrix_files_with_their_history_are_read(tmp_path):
    (tmp_path / "wm.txt").write_text(MRTRIX)
    response = read_response(tmp_path / "wm.txt")
    assert response.bvals_s_mm2 == (0, 699, 2800)
    assert response.coefficients.shape == (3, 3)
    assert response.coefficients[1, 1] == -612.655287247031
    again = read_response(write_response(response, tmp_path / "again.txt"))
    np.testing.assert_allclose(again.coefficients, response.coefficients, rtol=1e-11)


def test_short_rows_end_in_zeros_and_a_column_is_isotropic():
    ragged = Response.from_text("# Shells: 0,1000\n1500\n338 -101, 20\n")
    np.testing.assert_array_equal(ragged.coefficients, [[1500, 0, 0], [338, -101, 20]])
    assert Response.from_text("# Shells: 0,1000\n1500\n338\n").lmax == 0


def test_a_row_without_shells_takes_the_b_value_of_the_caller():
    response = Response.from_text("338 -101 20", bvals_s_mm2=[1000])
    assert response.bvals_s_mm2 == (1000.0,)
    with pytest.raises(InputError, match="does not tell the b-values of its 1 rows"):
        Response.from_text("338 -101 20")


@pytest.mark.parametrize(
    "text",
    ["", "1 2 3", "# Shells: 1000\n1 two 3", "# Shells: 0,1000\n1 2 3", "# Shells: 1000\n1 nan"],
)
def test_text_that_is_no_response_is_refused_and_the_file_named(text, tmp_path):
    with pytest.raises(InputError, match="response"):
        Response.from_text(text)
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(InputError, match=r"where: .*bad\.txt"):
        read_response(tmp_path / "bad.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"where: .*none\.txt"):
        read_response(tmp_path / "none.txt")
