import numpy as np
import pytest

from difftract_bids.errors import InputError
from difftract_bids.modelling.response import Response, average_responses

BASE = np.array([[1500.0, 0, 0], [340.0, -100.0, 20.0]])


def test_subjects_that_differ_in_brightness_only_count_alike():
    subjects = [Response((0.0, 1000.0), scale * BASE) for scale in (0.5, 1.0, 3.0)]
    np.testing.assert_allclose(average_responses(subjects).coefficients, 1.5 * BASE)


def test_each_subject_is_scaled_to_the_group_by_the_geometric_mean_over_shells():
    other = BASE * np.array([[2.0], [1.0]])
    average = average_responses([Response((0.0, 990.0), BASE), Response((0.0, 1010.0), other)])
    assert average.bvals_s_mm2 == (0.0, 1000.0)
    mean = np.array([2250.0, 340.0])
    scales = [np.sqrt((mean / table[:, 0]).prod()) for table in (BASE, other)]
    expected = (scales[0] * BASE + scales[1] * other) / 2
    np.testing.assert_allclose(average.coefficients, expected)


def test_one_response_is_its_own_average_and_short_rows_end_in_zeros():
    one = Response((0.0, 1000.0), BASE)
    np.testing.assert_allclose(average_responses([one]).coefficients, BASE)
    short = Response((0.0, 1000.0), BASE[:, :2])
    average = average_responses([one, short]).coefficients
    np.testing.assert_allclose(average[1], [340.0, -100.0, 10.0])


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (Response((1000.0,), BASE[1:]), r"numbers of shells: \[1, 2\]"),
        (Response((0.0, 1200.0), BASE), "shell 2 range from 1000 to 1200"),
        (Response((0.0, 1000.0), 0 * BASE), "1 of 2 responses"),
    ],
)
def test_responses_that_do_not_go_together_are_refused(other, match):
    with pytest.raises(InputError, match=match):
        average_responses([Response((0.0, 1000.0), BASE), other])


def test_no_response_has_no_average():
    with pytest.raises(InputError, match="no response"):
        average_responses([])
