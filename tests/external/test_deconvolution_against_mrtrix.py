"""Our deconvolution beside ``dwi2fod``: same data, same responses, same constraint directions."""

import shutil
from importlib.resources import files

import numpy as np
import pytest
from mrtrix import run_mrtrix
from series import Series, human_series, phantom_series

from difftract_bids.io.gradients import write_gradients
from difftract_bids.io.images import load_volume, save_volume
from difftract_bids.modelling.fodf import TISSUES, fit
from difftract_bids.modelling.response import (
    Response,
    estimate_response,
    estimate_tissue_responses,
)

DIRECTIONS = str(files("difftract_bids.data") / "constraint_directions_300.txt")
#: Voxels compared; ``dwi2fod msmt_csd`` takes 4 ms for each.
N_SINGLE, N_MULTI = 6_000, 3_000

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("dwi2fod") is None, reason="MRtrix3 is not on the PATH"),
]


class Comparison:
    """Some voxels of a series, fitted by ``dwi2fod`` and by us."""

    def __init__(self, series: Series, n_voxels: int):
        self.series, self.folder = series, series.folder
        brain = np.flatnonzero(series.mask)
        chosen = np.random.default_rng(0).permutation(brain)[:n_voxels]
        self.sample = np.isin(np.arange(series.mask.size), chosen).reshape(series.mask.shape)
        save_volume(self.sample, series.vox2ras, self.folder / "sample.nii")

    def theirs(self, algorithm: str, responses: dict[str, Response], *options) -> np.ndarray:
        """Run ``dwi2fod`` and put all tissues' coefficients side by side."""
        pairs = []
        for tissue, response in responses.items():
            path = self.folder / f"{tissue}.txt"
            path.write_text(response.to_text(with_b0=algorithm != "csd"))
            pairs += [path, self.folder / f"{tissue}.nii"]
        run_mrtrix(
            *("dwi2fod", algorithm, self.folder / "dwi.mif", *pairs),
            *("-mask", self.folder / "sample.nii", "-force", *options),
        )
        parts = [load_volume(path).data for path in pairs[1::2]]
        return np.concatenate([p[self.sample].reshape(self.sample.sum(), -1) for p in parts], 1)

    def ours(self, model: str, responses: dict[str, Response], **options) -> np.ndarray:
        series = self.series
        fitted = fit(series.dwi, series.gradients, responses, self.sample, model=model, **options)
        return np.concatenate([part[self.sample] for part in fitted.sh_coeffs.values()], axis=1)


def differences(ours, theirs):
    """Relative difference of each voxel's coefficients; those without any are left out."""
    size = np.linalg.norm(theirs, axis=1)
    there = size > 1e-6
    return (np.linalg.norm(ours - theirs, axis=1)[there] / size[there]).astype(float)


def told(name, found):
    quantiles = np.percentile(found, [50, 99, 99.9, 100])
    print(f"{name}: median, 99%, 99.9%, largest:", *(f"{q:.2g}" for q in quantiles))  # noqa: T201
    return quantiles


@pytest.fixture(scope="module")
def human(tmp_path_factory):
    return Comparison(human_series("ds-human", tmp_path_factory.mktemp("human")), N_SINGLE)


@pytest.fixture(scope="module")
def human_response(human):
    series = human.series
    return {"WM": estimate_response(series.dwi, series.gradients, series.mask, algorithm="fa")}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return Comparison(phantom_series(tmp_path_factory.mktemp("phantom")), N_MULTI)


@pytest.fixture(scope="module")
def tissue_responses(phantom):
    return responses_of(phantom.series)


def responses_of(series):
    return estimate_tissue_responses(series.dwi, series.gradients, series.mask)


def test_single_shell_coefficients_are_those_of_dwi2fod_csd(human, human_response):
    theirs = human.theirs("csd", human_response, "-directions", DIRECTIONS)
    found = told("csd", differences(human.ours("csd", human_response), theirs))
    assert found[0] < 1e-6
    assert found[3] < 1e-5  # no tail: what differs is float32 in the file


@pytest.mark.parametrize("lmax", [4, 10])
def test_other_degrees_super_resolved_or_not_are_the_same_too(human, human_response, lmax):
    options = ("-directions", DIRECTIONS, "-lmax", lmax)
    theirs = human.theirs("csd", human_response, *options)
    found = told(
        f"csd lmax {lmax}", differences(human.ours("csd", human_response, lmax=lmax), theirs)
    )
    assert found[0] < 1e-6
    assert found[1] < 1e-5


def test_with_the_built_in_directions_of_dwi2fod_the_difference_is_small(human, human_response):
    theirs = human.theirs("csd", human_response)
    found = told("csd, other directions", differences(human.ours("csd", human_response), theirs))
    assert found[0] < 0.02
    assert found[1] < 0.05


def test_multi_tissue_coefficients_are_those_of_dwi2fod_msmt_csd(phantom, tissue_responses):
    theirs = phantom.theirs("msmt_csd", tissue_responses, "-directions", DIRECTIONS)
    ours = phantom.ours("msmtcsd", tissue_responses)
    found = told("msmt_csd, all tissues", differences(ours, theirs))
    assert found[0] < 1e-6
    assert found[1] < 1e-4
    # The tail is voxels of fluid with next to no white matter, where nothing settles its shape.
    for name, part in (("white matter", slice(45)), ("grey matter", slice(45, 46))):
        one = told(f"msmt_csd, {name}", differences(ours[:, part], theirs[:, part]))
        assert one[0] < 1e-6
        assert one[1] < 1e-3


def test_multi_tissue_with_the_built_in_directions_differs_more(phantom, tissue_responses):
    theirs = phantom.theirs("msmt_csd", tissue_responses)
    ours = phantom.ours("msmtcsd", tissue_responses)
    found = told("msmt_csd, other directions", differences(ours, theirs))
    assert found[0] < 0.02


def test_two_tissues_of_one_shell_are_those_of_dwi2fod_msmt_csd(human):
    responses = responses_of(human.series)
    two = {tissue: responses[tissue] for tissue in TISSUES["ss2t"]}
    theirs = human.theirs("msmt_csd", two, "-directions", DIRECTIONS)
    found = told("two tissues", differences(human.ours("ss2t", two), theirs))
    assert found[0] < 1e-6
    assert found[1] < 1e-4


def test_voxels_with_bad_values_are_treated_as_dwi2fod_does(tmp_path, human_response, human):
    """Negative values count as 0; a voxel with a value that is not finite has no fODF."""
    place = np.argwhere(human.sample)[:40]
    data = human.series.dwi[tuple(place.T)].reshape(5, 8, 1, -1).copy()
    data[0, 0, 0, 9] = np.nan
    data[1, 1, 0, 7:30] *= -1
    data[2, 2] = 0
    save_volume(data, np.diag([2.0, 2, 2, 1]), tmp_path / "dwi.nii.gz")
    table = human.series.gradients
    bval, bvec = write_gradients(table, np.diag([2.0, 2, 2, 1]), tmp_path / "dwi")
    (tmp_path / "WM.txt").write_text(human_response["WM"].to_text(with_b0=False))
    run_mrtrix(
        *("dwi2fod", "csd", tmp_path / "dwi.nii.gz", tmp_path / "WM.txt", tmp_path / "fod.nii"),
        *("-fslgrad", bvec, bval, "-directions", DIRECTIONS),
    )
    theirs = load_volume(tmp_path / "fod.nii").data
    ours = fit(data, table, human_response, np.ones((5, 8, 1), bool), model="csd")
    fodf = ours.sh_coeffs["WM"]
    assert ours.left_out == {"not finite": 1, "without signal": 1}
    np.testing.assert_allclose(fodf, np.nan_to_num(theirs), atol=1e-6)
