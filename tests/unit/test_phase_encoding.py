"""Phase encoding and fieldmaps: read from sidecars, and what is done with them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from difftract_bids.bids.fsl import find_eddy, require_eddy
from difftract_bids.bids.phase_encoding import (
    Fieldmaps,
    OpposedImage,
    PhaseEncoding,
    decide_correction,
    find_fieldmaps,
    read_phase_encoding,
    say_uncorrected,
    slice_direction,
)
from difftract_bids.config import PreprocessingConfig
from difftract_bids.errors import InputError, UsageError

RUN = {"PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.05}
BACK = {"PhaseEncodingDirection": "j", "TotalReadoutTime": 0.05}
OWN = PhaseEncoding("j", -1, 0.05)
LAS = np.diag([-2.0, 2, 2, 1])


def dataset(root, files):
    for name, content in files.items():
        path = root / "sub-01" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros((4, 5, 3)), LAS), path.with_name(path.name + ".nii.gz"))
        path.with_name(path.name + ".json").write_text(json.dumps(content))
    return root / "sub-01/dwi/sub-01_dwi.nii.gz"


def found(root, dwi, content=RUN):
    maps = find_fieldmaps(root, dwi, content)
    return [one.image.name for one in maps.opposed], maps.unused


@pytest.mark.parametrize(
    ("content", "row"),
    [
        (RUN, "0 -1 0 0.05"),
        ({"PhaseEncodingDirection": "i", "TotalReadoutTime": 0.1}, "1 0 0 0.1"),
        (
            {"PhaseEncodingDirection": "j", "EffectiveEchoSpacing": 0.0005, "ReconMatrixPE": 101},
            "0 1 0 0.05",
        ),
    ],
)
def test_the_table_of_topup_has_axis_sign_and_readout_time(content, row):
    assert read_phase_encoding(content, "x").acqparams() == row


def test_what_is_not_in_the_sidecar_is_unknown():
    assert read_phase_encoding({"TotalReadoutTime": 0.05}, "x") is None
    assert read_phase_encoding({"PhaseEncodingDirection": "j"}, "x").readout_s is None


@pytest.mark.parametrize(
    "nonsense",
    [
        {"PhaseEncodingDirection": "AP"},
        {"PhaseEncodingDirection": 1},
        {**RUN, "TotalReadoutTime": 50},
        {**RUN, "TotalReadoutTime": 0},
        {**RUN, "TotalReadoutTime": "0.05"},
        {"PhaseEncodingDirection": "j", "EffectiveEchoSpacing": 0.5e-3, "ReconMatrixPE": 1},
    ],
)
def test_nonsense_is_refused_with_a_remedy(nonsense):
    with pytest.raises(InputError, match="remedy"):
        read_phase_encoding(nonsense, "x.json")


@pytest.mark.parametrize(
    "intended",
    [
        "bids::sub-01/dwi/sub-01_dwi.nii.gz",
        "dwi/sub-01_dwi.nii.gz",
        ["func/other.nii.gz", "dwi/sub-01_dwi.nii.gz"],
    ],
)
def test_fieldmaps_are_found_by_intended_for_in_all_its_forms(tmp_path, intended):
    dwi = dataset(
        tmp_path,
        {
            "dwi/sub-01_dwi": RUN,
            "fmap/sub-01_dir-PA_epi": {**BACK, "IntendedFor": intended},
            "fmap/sub-01_dir-other_epi": {**BACK, "IntendedFor": "func/other.nii.gz"},
        },
    )
    assert found(tmp_path, dwi) == (["sub-01_dir-PA_epi.nii.gz"], ())


def test_the_newer_key_goes_before_intended_for(tmp_path):
    intended = {"IntendedFor": "dwi/sub-01_dwi.nii.gz"}
    dwi = dataset(
        tmp_path,
        {
            "dwi/sub-01_dwi": RUN,
            "fmap/sub-01_run-1_epi": {**BACK, **intended},
            "fmap/sub-01_run-2_epi": {**BACK, "B0FieldIdentifier": ["pepolar"]},
        },
    )
    names, _ = found(tmp_path, dwi, {**RUN, "B0FieldSource": "pepolar"})
    assert names == ["sub-01_run-2_epi.nii.gz"]


def test_another_run_of_the_session_counts_if_it_is_opposed(tmp_path):
    dwi = dataset(
        tmp_path,
        {
            "dwi/sub-01_dwi": RUN,
            "dwi/sub-01_dir-PA_dwi": BACK,
            "dwi/sub-01_dir-LR_dwi": {**BACK, "PhaseEncodingDirection": "i"},
        },
    )
    assert found(tmp_path, dwi)[0] == ["sub-01_dir-PA_dwi.nii.gz"]  # one volume: a b=0 image
    several = tmp_path / "sub-01/dwi/sub-01_dir-PA_dwi.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 3, 2)), LAS), several)
    names, (why,) = found(tmp_path, dwi)
    assert names == []
    assert "no b-values" in why
    (tmp_path / "dwi.bval").write_text("0 1000")  # of all series: inherited
    assert found(tmp_path, dwi)[0] == ["sub-01_dir-PA_dwi.nii.gz"]
    (tmp_path / "sub-01/dwi/sub-01_dir-PA_dwi.bval").write_text("700 1000")
    names, (why,) = found(tmp_path, dwi)
    assert names == []
    assert "no b=0 volume" in why


def test_phase_images_are_no_fieldmaps(tmp_path):
    intended = {**BACK, "IntendedFor": "dwi/sub-01_dwi.nii.gz"}
    dwi = dataset(
        tmp_path,
        {
            "dwi/sub-01_dwi": RUN,
            **dict.fromkeys(
                ("dwi/sub-01_dir-PA_part-mag_dwi", "dwi/sub-01_dir-PA_part-phase_dwi"), BACK
            ),
            "fmap/sub-01_dir-PA_part-phase_epi": intended,
        },
    )
    assert found(tmp_path, dwi) == (["sub-01_dir-PA_part-mag_dwi.nii.gz"], ())


def test_a_fieldmap_may_be_meant_for_any_part_of_a_run(tmp_path):
    intended = {**BACK, "IntendedFor": "dwi/sub-01_run-2_dwi.nii.gz"}
    names = {"dwi/sub-01_run-1_dwi": RUN, "dwi/sub-01_run-2_dwi": RUN, "fmap/sub-01_epi": intended}
    dataset(tmp_path, names)
    parts = [tmp_path / "sub-01" / "dwi" / f"sub-01_run-{number}_dwi.nii.gz" for number in "12"]
    assert not find_fieldmaps(tmp_path, parts[0], RUN).opposed
    (one,) = find_fieldmaps(tmp_path, parts[0], RUN, parts=parts).opposed
    assert one.image.name == "sub-01_epi.nii.gz"


@pytest.mark.parametrize(
    ("told", "direction"),
    [({}, "k"), ({"SliceEncodingDirection": "i-"}, "i-"), ({"SliceEncodingDirection": 3}, "k")],
)
def test_slices_follow_one_another_along_the_third_axis_unless_told(told, direction):
    assert slice_direction(told) == direction


def test_fieldmaps_that_cannot_be_used_are_named_with_the_reason(tmp_path):
    intended = {"IntendedFor": "dwi/sub-01_dwi.nii.gz"}
    dwi = dataset(
        tmp_path,
        {
            "dwi/sub-01_dwi": RUN,
            "fmap/sub-01_phasediff": intended,
            "fmap/sub-01_run-1_epi": {**RUN, **intended},
            "fmap/sub-01_run-2_epi": intended,
        },
    )
    names, unused = found(tmp_path, dwi)
    assert names == []
    same, silent, kind = unused
    assert "along j-" in same
    assert "no PhaseEncodingDirection" in silent
    assert "phasediff are not supported" in kind


@pytest.mark.parametrize(
    ("shape", "axes", "why"),
    [
        ((4, 5, 4), LAS, "4 x 5 x 4 voxels, the diffusion image 4 x 5 x 3"),
        ((4, 5, 3), np.diag([-3.0, 3, 3, 1]), "not of the size"),
        ((4, 5, 3), np.diag([-2.0, -2, 2, 1]), "voxel axes run other ways"),
        ((4, 5, 3), np.diag([2.0, 2, 2, 1]), "voxel axes run other ways"),
    ],
)
def test_images_on_another_grid_are_no_fieldmap(tmp_path, shape, axes, why):
    """Topup goes by voxels: a grid of other axes would be taken for the head turned over."""
    intended = {**BACK, "IntendedFor": "dwi/sub-01_dwi.nii.gz"}
    names = {"dwi/sub-01_dwi": RUN, "dwi/sub-01_dir-PA_dwi": BACK, "fmap/sub-01_epi": intended}
    dwi = dataset(tmp_path, names)
    (tmp_path / "sub-01/dwi/sub-01_dir-PA_dwi.bval").write_text("0 1000")
    assert len(found(tmp_path, dwi)[0]) == 2
    for name in ("dwi/sub-01_dir-PA_dwi", "fmap/sub-01_epi"):
        image = nib.Nifti1Image(np.zeros(shape), axes)
        nib.save(image, tmp_path / "sub-01" / f"{name}.nii.gz")
    opposed, unused = found(tmp_path, dwi)
    assert opposed == []
    assert [why in said for said in unused] == [True, True]


def test_an_opposed_run_without_b0_is_no_fieldmap(tmp_path):
    dwi = dataset(tmp_path, {"dwi/sub-01_dwi": RUN, "dwi/sub-01_dir-PA_dwi": BACK})
    (tmp_path / "sub-01/dwi/sub-01_dir-PA_dwi.bval").write_text("1000 1000")
    names, (said,) = found(tmp_path, dwi)
    assert names == []
    assert "no b=0 volume" in said


def decide(asked, *, opposed=True, own=OWN, t1w=True, fsl=True):
    image = OpposedImage(Path("pa.nii.gz"), PhaseEncoding("j", 1, 0.05))
    maps = Fieldmaps((image,) if opposed else ())
    config = PreprocessingConfig(susceptibility_correction=asked)
    decision = decide_correction(config, maps, own, has_t1w=t1w, fsl_present=fsl)
    return decision, say_uncorrected(decision, maps)


def test_topup_is_chosen_where_it_and_a_pair_are_there():
    decision, uncorrected = decide("auto")
    assert decision.method == "topup"
    assert "pa.nii.gz" in decision.reason
    assert not uncorrected


LACKING = [
    ({"fsl": False}, "not on the PATH"),
    ({"opposed": False}, "no image encoded the opposite way"),
    ({"own": None}, "direction is unknown"),
    ({"own": PhaseEncoding("j", -1)}, "readout time is unknown"),
    ({"own": PhaseEncoding("k", -1, 0.05)}, "third voxel axis"),
]


@pytest.mark.parametrize(("lacking", "said"), LACKING)
def test_the_report_says_plainly_what_was_not_corrected_and_why(lacking, said):
    decision, uncorrected = decide("auto", **lacking)
    assert decision.method == "none"
    assert "NOT corrected" in uncorrected
    assert said in uncorrected


@pytest.mark.parametrize(("lacking", "said"), LACKING)
def test_topup_asked_for_and_impossible_is_an_error_with_a_remedy(lacking, said):
    with pytest.raises(UsageError, match=f"(?s){said}.*remedy"):
        decide("topup", **lacking)


def test_the_t1w_is_used_only_where_it_was_asked_for_and_is_there():
    assert decide("auto", fsl=False)[0].method == "none"
    assert decide("t1w", opposed=False, fsl=False)[0].method == "t1w"
    assert decide("none")[0].method == "none"
    for lacking in ({"t1w": False}, {"own": None}):
        with pytest.raises(UsageError, match="remedy"):
            decide("t1w", **lacking)


def test_eddy_asked_for_and_absent_is_found_before_anything_starts(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    config = PreprocessingConfig(motion_correction="eddy")
    require_eddy(PreprocessingConfig(), None)
    with pytest.raises(UsageError, match=r"(?s)not on the PATH.*remedy"):
        require_eddy(config, OWN)
    for name in ("eddy", "eddy_openmp", "eddy_cuda9.1", "eddy_cuda10.2", "nvidia-smi"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        # Those for GPUs are of use only beside the driver of one.
        expected = {"eddy": "eddy", "nvidia-smi": "eddy_cuda10.2"}.get(name, "eddy_openmp")
        assert find_eddy() == expected
    require_eddy(config, OWN)
    with pytest.raises(UsageError, match="unknown"):
        require_eddy(config, None)
