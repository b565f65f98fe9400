"""The graphs of topup and eddy, run with programs that stand in for FSL's, which are not here.

What is tested is what FSL is given and what becomes of what it writes, not FSL.
"""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from difftract_bids.bids.fsl import check_path
from difftract_bids.bids.phase_encoding import OpposedImage, PhaseEncoding
from difftract_bids.errors import InputError, UsageError
from difftract_bids.interfaces.fsl import topup_config
from difftract_bids.io.fsl_storage import eddy_affines, restored, signed_direction, stored_for_fsl
from difftract_bids.io.gradients import GradientTable, read_gradients, write_gradients
from difftract_bids.io.images import Volume, load_volume, save_volume
from difftract_bids.preprocessing.confounds import read_outliers
from difftract_bids.workflows.eddy import init_eddy_wf
from difftract_bids.workflows.susceptibility import init_t1w_susceptibility_wf, init_topup_wf

SHAPE = (6, 8, 4)
LAS, RAS = np.diag([-2.0, 2, 2, 1]), np.diag([2.0, 2, 2, 1])
OWN = PhaseEncoding("j", -1, 0.05)
#: Both write what FSL would: topup a field that is its row number along x, eddy its own input.
COMMON = """#!{python}
import json, os, sys
import nibabel as nib, numpy as np
options = dict(a[2:].split("=", 1) if "=" in a else (a[2:], True) for a in sys.argv[1:])
with open("{log}", "a") as log:
    log.write(json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:]]) + "\\n")
image = nib.load(options["imain"])
n = image.shape[3]
assert np.linalg.det(image.affine[:3, :3]) < 0
"""
TOPUP = """
assert np.loadtxt(options["datain"], ndmin=2).shape == (n, 4)
field = np.broadcast_to(np.arange(image.shape[0])[:, None, None], image.shape[:3])
nib.save(nib.Nifti1Image(field.astype("f4"), image.affine), options["fout"])
nib.save(nib.Nifti1Image(field.astype("f4"), image.affine), options["out"] + "_fieldcoef.nii.gz")
np.savetxt(options["out"] + "_movpar.txt", np.zeros((n, 6)))
nib.save(image, options["iout"])
open(options["logout"], "w").close()
for i in range(1, n + 1):
    nib.save(image.slicer[..., 0], f"{{options['dfout']}}_{{i:02d}}.nii.gz")
    nib.save(image.slicer[..., 0], f"{{options['jacout']}}_{{i:02d}}.nii.gz")
    np.savetxt(f"{{options['rbmout']}}_{{i:02d}}.mat", np.eye(4))
"""
EDDY = """
assert nib.load(options["mask"]).shape == image.shape[:3]
acqp, index = np.loadtxt(options["acqp"], ndmin=2), np.loadtxt(options["index"]).ravel()
bvecs = np.loadtxt(options["bvecs"])
assert acqp.shape[1] == 4 and index.shape == (n,) and index.max() <= len(acqp)
assert bvecs.shape == (3, n) and np.loadtxt(options["bvals"]).shape == (n,)
if "topup" in options:
    assert os.path.exists(options["topup"] + "_fieldcoef.nii.gz")
    assert os.path.exists(options["topup"] + "_movpar.txt")
out = options["out"]
nib.save(image, out + ".nii.gz")
np.savetxt(out + ".eddy_rotated_bvecs", bvecs)
moved = np.zeros((n, 16)); moved[1, 0] = 3.0; moved[2, 5] = 0.1
np.savetxt(out + ".eddy_parameters", moved)
with open(out + ".eddy_outlier_report", "w") as report:
    report.write("Slice 2 in scan 5 is an outlier with mean -4.1 standard deviations off, and "
                 "mean squared 3.2 standard deviations off.\\n")
"""


@pytest.fixture
def fsl(tmp_path, monkeypatch):
    """Programs in FSL's place; gives what they were called with."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    folder.mkdir()
    bodies = {"topup": TOPUP} | dict.fromkeys(("eddy_openmp", "eddy_cpu", "eddy_cuda10.2"), EDDY)
    for name, body in bodies.items():
        (folder / name).write_text((COMMON + body).format(python=sys.executable, log=log))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FSLOUTPUTTYPE", "NIFTI_GZ")
    monkeypatch.chdir(tmp_path)
    return log.read_text


def series(folder, vox2ras, shape=SHAPE):
    rng = np.random.default_rng(1)
    bvecs = rng.standard_normal((9, 3))
    bvecs /= np.linalg.norm(bvecs, axis=1, keepdims=True)
    bvecs[:2] = 0
    table = GradientTable(np.array([0.0] * 2 + [1000.0] * 7), bvecs)
    bval, bvec = write_gradients(table, vox2ras, folder / "run")
    data = rng.random((*shape, 9)).astype(np.float32)
    dwi = save_volume(data, vox2ras, folder / "run.nii.gz")
    mask = save_volume(np.ones(shape, np.uint8), vox2ras, folder / "mask.nii.gz")
    return {"dwi": str(dwi), "bval": str(bval), "bvec": str(bvec), "mask": str(mask)}


def run(workflow, inputs, base):
    workflow.base_dir = str(base)
    workflow.config["execution"]["remove_unnecessary_outputs"] = "false"
    for name, value in inputs.items():
        setattr(workflow.inputs.inputnode, name, value)
    nodes = {node.name: node for node in workflow.run(plugin="Linear").nodes()}
    return {name: node.result.outputs for name, node in nodes.items()}


@pytest.mark.parametrize(
    ("program", "vox2ras"), [("eddy_openmp", LAS), ("eddy_cpu", RAS), ("eddy_cuda10.2", RAS)]
)
def test_eddy_is_told_the_axes_as_it_holds_them_and_its_image_comes_back(
    fsl, tmp_path, program, vox2ras
):
    inputs = series(tmp_path, vox2ras)
    workflow = init_eddy_wf(PhaseEncoding("i", 1, 0.06), program, omp_nthreads=2)
    results = run(workflow, inputs, tmp_path / "work")
    out = results["collect"]
    before, after = load_volume(inputs["dwi"]), load_volume(out.dwi)
    np.testing.assert_allclose(after.vox2ras, before.vox2ras)
    np.testing.assert_array_equal(after.data, before.data)
    told, given = (
        read_gradients(out.bval, bvec, vox2ras).bvecs for bvec in (out.bvec, inputs["bvec"])
    )
    np.testing.assert_allclose(told, given, atol=1e-6)
    row = Path(results["prepare"].in_acqp).read_text().strip()
    assert row == ("-1 0 0 0.06" if vox2ras is RAS else "1 0 0 0.06")
    affines = np.loadtxt(out.affines).reshape(-1, 3, 4)
    np.testing.assert_allclose(affines[1, :, 3], [-3.0, 0, 0], atol=1e-9)
    assert np.argwhere(read_outliers(out.outliers)).tolist() == [[2, 5]]
    assert program in fsl()
    assert ("--nthr=2" in fsl()) == (program == "eddy_cpu")
    assert "--repol" in fsl()
    assert "--data_is_shelled" in fsl()


def test_the_command_line_of_eddy_is_what_it_should_be(fsl, tmp_path):
    inputs = series(tmp_path, LAS)
    workflow = init_eddy_wf(OWN, "eddy_openmp")
    run(workflow, inputs, tmp_path / "work")
    options = set(re.findall(r'"--([a-z_]+=?[^"]*)"', fsl()))
    names = {option.split("=")[0]: option.split("=")[-1] for option in options}
    for name, file in {
        "imain": "eddy_in.nii.gz",
        "mask": "eddy_mask.nii.gz",
        "acqp": "acqparams.txt",
        "index": "index.txt",
        "bvals": "eddy_in.bval",
        "bvecs": "eddy_in.bvec",
    }.items():
        assert Path(names.pop(name)).name == file
    assert Path(names.pop("out")).name == "eddy_corrected"
    assert names == {
        "flm": "quadratic",
        "slm": "none",
        "ff": "10.0",
        "interp": "spline",
        "resamp": "jac",
        "niter": "5",
        "nvoxhp": "1000",
        "repol": "repol",
        "data_is_shelled": "data_is_shelled",
    }


@pytest.mark.parametrize(("vox2ras", "factor", "shape"), [(LAS, 1, SHAPE), (RAS, -1, (6, 8, 5))])
def test_topup_gives_a_displacement_and_what_eddy_reads(fsl, tmp_path, vox2ras, factor, shape):
    inputs = series(tmp_path, vox2ras, shape)
    opposed = save_volume(np.ones(shape, np.float32), vox2ras, tmp_path / "epi.nii.gz")
    pair = [OpposedImage(opposed, PhaseEncoding("j", 1, 0.05))]
    results = run(
        init_topup_wf(OWN, pair), {k: inputs[k] for k in ("dwi", "bval")}, tmp_path / "topup"
    )
    rows = Path(results["prepare"].encoding_file).read_text().splitlines()
    assert rows == ["0 -1 0 0.05", "0 -1 0 0.05", "0 1 0 0.05"]
    assert f"--config={topup_config(shape)}" in fsl()
    # The stand-in's field rises by 1 Hz a voxel along FSL's x: 0.05 voxels of 2 mm per Hz.
    found = load_volume(results["convert"].displacement)
    np.testing.assert_allclose(found.vox2ras, vox2ras)
    line = np.arange(6) if factor == 1 else np.arange(6)[::-1]
    np.testing.assert_allclose(found.data[:, 0, 0], -0.1 * line, atol=1e-6)
    topup = results["topup"]
    further = {
        "fieldcoef": topup.out_fieldcoef,
        "movpar": topup.out_movpar,
        "encoding_file": results["prepare"].encoding_file,
    }
    workflow = init_eddy_wf(OWN, "eddy_openmp", with_topup=True)
    run(workflow, {**inputs, **further}, tmp_path / "eddy")
    assert f"--topup={topup.out_fieldcoef.split('_fieldcoef')[0]}" in fsl()


def test_an_opposed_image_of_another_size_is_refused(fsl, tmp_path):  # noqa: ARG001
    inputs = series(tmp_path, LAS)
    image = save_volume(np.ones((6, 8, 6), np.float32), LAS, tmp_path / "epi.nii.gz")
    workflow = init_topup_wf(OWN, [OpposedImage(image, PhaseEncoding("j", 1, 0.05))])
    prepare = workflow.get_node("prepare").interface
    prepare.inputs.trait_set(dwi=inputs["dwi"], bval=inputs["bval"])
    with pytest.raises(InputError, match="topup needs the same"):
        prepare.run()


def test_an_opposed_image_with_other_axes_is_refused(fsl, tmp_path):  # noqa: ARG001
    inputs = series(tmp_path, LAS)
    turned = LAS @ np.diag([1.0, -1, 1, 1])
    image = save_volume(np.ones(SHAPE, np.float32), turned, tmp_path / "epi.nii.gz")
    workflow = init_topup_wf(OWN, [OpposedImage(image, PhaseEncoding("j", 1, 0.05))])
    prepare = workflow.get_node("prepare").interface
    prepare.inputs.trait_set(dwi=inputs["dwi"], bval=inputs["bval"])
    with pytest.raises(InputError, match="axes run other ways"):
        prepare.run()


def test_volumes_that_the_user_counts_as_b0_need_no_direction(fsl, tmp_path):  # noqa: ARG001
    inputs = series(tmp_path, LAS)
    Path(inputs["bval"]).write_text("0 80 " + "1000 " * 7)  # the second has no b-vector
    workflow = init_eddy_wf(OWN, "eddy_openmp", b0_threshold_s_mm2=100.0)
    out = run(workflow, inputs, tmp_path / "work")["collect"]
    assert np.loadtxt(out.bval).tolist() == [0, 80] + [1000] * 7


def test_odd_sizes_have_a_configuration_of_their_own():
    assert topup_config((96, 96, 63)) == "b02b0_1.cnf"
    assert topup_config((95, 96, 64)) == "b02b0_1.cnf"
    assert topup_config((96, 96, 64)) == "b02b0.cnf"


def test_storing_for_fsl_changes_no_voxel_s_place():
    vox2ras = RAS.copy()
    vox2ras[:3, 3] = 7.0
    volume = Volume(np.arange(24.0).reshape(2, 3, 4), vox2ras)
    stored = stored_for_fsl(volume)
    assert np.linalg.det(stored.vox2ras) < 0
    np.testing.assert_allclose(stored.vox2ras @ [0, 1, 2, 1], volume.vox2ras @ [1, 1, 2, 1])
    assert stored.data[0, 1, 2] == volume.data[1, 1, 2]
    back = restored(stored, volume.vox2ras)
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.vox2ras, volume.vox2ras)
    assert signed_direction("i", RAS) == "i-"
    assert signed_direction("i-", RAS) == "i"
    assert [signed_direction(way, LAS) for way in ("i", "j-")] == ["i", "j-"]
    assert signed_direction("j", RAS) == "j"


def test_eddy_turns_the_head_about_the_centre_of_the_image():
    movement = np.array([[0, 0, 0, 0, 0, 0.2]])
    (affine,) = eddy_affines(movement, SHAPE, LAS)
    centre = (LAS @ [2.5, 3.5, 1.5, 1.0])[:3]
    np.testing.assert_allclose(affine @ [*centre, 1.0], centre)
    assert np.trace(affine[:, :3]) == pytest.approx(1 + 2 * np.cos(0.2))


def test_the_graph_of_the_t1w_is_connected_and_cites():
    workflow = init_t1w_susceptibility_wf(OWN)
    node = workflow.get_node("estimate")
    assert node.interface.inputs.pe_direction == "j-"
    assert len(workflow._graph.edges) == 2
    assert "@studholme2000" in workflow.__desc__


@pytest.mark.parametrize("name", ["a b", "a;b", "a'b", "a$(b)", "a&b", "a\nb"])
def test_a_working_folder_that_a_shell_would_take_apart_is_refused(name):
    with pytest.raises(UsageError, match="signs of a shell"):
        check_path(Path("/work") / name)


def test_letters_of_any_alphabet_mean_nothing_to_a_shell():
    check_path(Path("/Müller/étude_1,2/difftract-0123"))
