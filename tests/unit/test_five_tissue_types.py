"""Tissue images on their way into tracking: files, settings, seeds, the interface, its sidecar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mif_files import write_mif
from problems import crossing_bundles, scaling

from difftract_bids.bids.given_files import check_given_files
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import (
    ActConfig,
    Config,
    OutputConfig,
    RegionsConfig,
    SeedingConfig,
    TrackingConfig,
)
from difftract_bids.errors import InputError, UsageError
from difftract_bids.interfaces.tracking import TrackStreamlines
from difftract_bids.io.five_tissue_types import load_five_tissue_types
from difftract_bids.io.images import save_volume
from difftract_bids.io.tractograms import read_tractogram
from difftract_bids.workflows.tracking import init_tracking_wf, tracking_methods

AFFINE = scaling(2.0)
SHAPE = (14, 14, 8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A phantom, and tissue in layers along its first axis: grey, white, grey."""
    folder = tmp_path_factory.mktemp("data")
    fodf = crossing_bundles(AFFINE, shape=SHAPE, lmax=4).float()
    tissues = np.zeros((*SHAPE, 5), np.float32)
    tissues[:4, ..., 0], tissues[4:10, ..., 2], tissues[10:, ..., 0] = 1, 1, 1
    images = {"fodf": fodf.numpy(), "mask": (fodf[..., 0] != 0).numpy(), "5tt": tissues}
    for name, image in images.items():
        save_volume(image, AFFINE.numpy(), folder / f"{name}.nii.gz")
    return folder


def track(data: Path, **settings):
    files = {"fodf": data / "fodf.nii.gz", "brain_mask": data / "mask.nii.gz"}
    given = {name: str(path) for name, path in files.items()}
    return TrackStreamlines(**given, **{"n_seeds": 300, **settings}).run().outputs


@pytest.mark.parametrize("crop", [False, True])
def test_streamlines_of_the_interface_end_in_grey_matter(data, tmp_path, monkeypatch, crop):
    monkeypatch.chdir(tmp_path)
    tissue = {"five_tissue_types": str(data / "5tt.nii.gz"), "crop_at_gmwmi": crop}
    outputs = track(data, **tissue)
    said = outputs.metadata["StreamlineTermination"]
    assert said["AnatomicalConstraints"]["CropAtInterface"] is crop
    assert said["AmplitudeCutoff"] == 0.05
    assert outputs.metadata["StreamlineAcceptanceCriteria"]["MinimumLength"] == 4.0
    counts = outputs.metadata["Counts"]
    assert counts["StopReasons"]["entered_cortex"] > 20
    assert counts["SeedStatus"]["unsuitable_tissue"] > 20
    points, offsets = read_tractogram(outputs.tractogram)
    ends_x = np.concatenate([points[offsets[:-1], 0], points[offsets[1:] - 1, 0]])
    # The interfaces are at 7 and 19 mm.
    at_border = np.minimum(abs(ends_x - 7), abs(ends_x - 19))
    near = int((at_border < (0.02 if crop else 0.25)).sum())
    assert near >= 0.8 * counts["StopReasons"]["entered_cortex"]


def test_without_tissue_none_is_told(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = track(data).metadata["StreamlineTermination"]
    assert said["AnatomicalConstraints"] is False
    assert said["AmplitudeCutoff"] == 0.1


def test_seeds_on_the_interface_need_tissue(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no tissue image"):
        track(data, seed_gmwmi=True)
    outputs = track(data, seed_gmwmi=True, five_tissue_types=str(data / "5tt.nii.gz"))
    assert outputs.metadata["StreamlineSeeding"]["Source"].startswith("Interface")
    # Half-way between voxels grey and white matter are equal to the last digit: both ways.
    assert outputs.metadata["Counts"]["Streamlines"] > 20


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda x: x[..., :4], "4 volumes"),
        (lambda x: x * 100, "no fractions"),
        (lambda x: np.where(x == 0, np.nan, x), "no fractions"),
        (lambda x: x * [0, 0, 1, 1, 1], "no grey matter"),
        (lambda x: x * [1, 1, 0, 1, 1], "no white matter"),
        (lambda x: x[..., 0], "dimensions"),
    ],
)
def test_what_is_no_5tt_is_refused_before_anything_starts(data, tmp_path, spoil, match):
    image = load_five_tissue_types(data / "5tt.nii.gz")
    bad = tmp_path / "bad.nii.gz"
    save_volume(spoil(image.data).astype(np.float32), image.vox2ras, bad)
    with pytest.raises(InputError, match=match):
        load_five_tissue_types(bad)
    config = Config(act=ActConfig(act_5tt=str(bad)))
    with pytest.raises(InputError, match="--act-5tt"):
        check_given_files(config, run_of())


def test_mrtrixs_own_format_is_read(data, tmp_path):
    image = load_five_tissue_types(data / "5tt.nii.gz")
    again = load_five_tissue_types(write_mif(tmp_path / "5tt.mif", image.data, image.vox2ras))
    assert np.array_equal(again.data[::-1], image.data)  # stored from right to left
    assert np.allclose(again.vox2ras @ [SHAPE[0] - 1, 0, 0, 1], image.vox2ras[:, 3])


def run_of() -> DWIRun:
    return DWIRun({"subject": "01"}, *[Path("dwi")] * 3)


def test_a_tissue_image_of_each_participant_is_found_by_its_label(data, tmp_path):
    (tmp_path / "sub-01.nii.gz").write_bytes((data / "5tt.nii.gz").read_bytes())
    of_each = ActConfig(act_5tt=str(tmp_path / "sub-{subject}.nii.gz"))
    check_given_files(Config(act=of_each), run_of())
    with pytest.raises(InputError, match="no such file"):
        check_given_files(Config(act=ActConfig(act_5tt=str(tmp_path / "none"))), run_of())


def test_interface_seeds_without_constraints_are_refused():
    config = Config(act=ActConfig(act="off"), seeding=SeedingConfig(seed_gmwmi=True))
    with pytest.raises(UsageError, match="are off"):
        check_given_files(config, run_of())


def test_the_workflow_takes_tissue_where_it_is_told_to():
    given = (TrackingConfig(), SeedingConfig(), OutputConfig())
    without = init_tracking_wf(*given)
    within = init_tracking_wf(*given, act=ActConfig(crop_at_gmwmi=True))
    for workflow, connected in ((without, False), (within, True)):
        fields = [
            field
            for _, _, edge in workflow._graph.edges(data=True)
            for field, _ in edge["connect"]
        ]
        assert ("five_tissue_types" in fields) is connected
        assert workflow.get_node("track").inputs.crop_at_gmwmi is connected
    assert "smith2012" in within.__desc__
    assert "below 0.05" in within.__desc__
    assert "smith2012" not in without.__desc__


def test_methods_name_seeds_on_the_interface():
    seeding = SeedingConfig(seed_gmwmi=True)
    said = tracking_methods(TrackingConfig(), seeding, RegionsConfig(), ActConfig())
    assert "on the interface of grey and white matter" in said
