"""The README keeps its word."""

import re
import subprocess
from pathlib import Path

import numpy as np
import problems
import pytest
import torch
from groups import write_connectome
from matplotlib import pyplot as plt

from difftract_bids.bids.outputs import OUTPUTS
from difftract_bids.cli.group import run_group
from difftract_bids.config import GroupConfig
from difftract_bids.core.deconvolution.convolution import convolution_matrix
from difftract_bids.io.gradients import write_gradients
from difftract_bids.io.images import save_volume
from difftract_bids.io.matrices import read_matrix, write_matrix
from difftract_bids.modelling.response import write_response
from difftract_bids.modelling.zonal import Response
from difftract_bids.phantom.schemes import make_scheme

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def write_signal(fodf, affine, folder):
    """Write what a scanner would measure of the fODFs, and the response it would have."""
    table = make_scheme([2000.0], 64, 2)
    rows = np.array([[3.5, 0, 0, 0, 0], [1.3, -0.9, 0.4, -0.12, 0.03]])
    response = Response((0.0, 2000.0), 1000 * rows)
    matrix = convolution_matrix(
        torch.from_numpy(table.bvecs),
        torch.from_numpy(response.coefficients)[(table.bvals_s_mm2 > 0).astype(int)],
        8,
    )
    save_volume((fodf.double() @ matrix.T).float().numpy(), affine.numpy(), folder / "dwi.nii.gz")
    write_gradients(table, affine.numpy(), folder / "dwi")
    write_response(response, folder / "response.txt")


def check_learning(names):
    """Find that the loss fell, that the chain has gradients, and that refining refined."""
    assert names["losses"][-1]["fodf"] < names["losses"][0]["fodf"]
    names["optimiser"].zero_grad()
    names["learned"].sum().backward()
    slopes = [weight.grad for weight in names["network"].parameters() if weight.grad is not None]
    assert all(slope.isfinite().all() for slope in slopes)
    assert any(slope.any() for slope in slopes)
    assert names["refined"].target_after <= names["refined"].target_before


def write_group(folder, counts):
    """Write what the group level makes of two participants."""
    for label in ("01", "02"):
        nodes = {"names": ["L_a", "R_b", "R_c"], "atlas": "ICBM100"}
        write_connectome(folder / "out", label, counts, **nodes)
    run_group(folder / "out", GroupConfig(), None, None, work_dir=folder / "work")


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_every_python_block_runs(block, tmp_path, monkeypatch):
    affine = problems.scaling(2.0)
    fodf = problems.crossing_bundles(affine, shape=(16, 16, 8)).float()
    save_volume(fodf.numpy(), affine.numpy(), tmp_path / "fodf.nii.gz")
    save_volume((fodf[..., 0] != 0).numpy(), affine.numpy(), tmp_path / "mask.nii.gz")
    write_signal(fodf, affine, tmp_path)
    labels = np.zeros((16, 16, 8), np.int16)
    labels[:6], labels[10:] = 1, 2
    save_volume(labels, affine.numpy(), tmp_path / "labels.nii.gz")
    (tmp_path / "labels.tsv").write_text("index\tname\n1\tleft\n2\tright\n")
    counts = np.array([[1.0, 5, 0], [5, 0, 2], [0, 2, 0]])
    relmat = "sub-01_atlas-ICBM100_meas-count_relmat.dense.tsv"
    write_matrix(counts, ["L_a", "R_b", "R_c"], tmp_path / relmat)
    if "out/group" in BLOCKS[block]:
        write_group(tmp_path, counts)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(BLOCKS[block], "README.md", "exec"), names)  # noqa: S102
    if "streamlines" in names:
        assert len(names["streamlines"]) > 50
        gradient = names.get("dwi", names["fodf"]).grad.numpy()
        assert np.isfinite(gradient).all()
        assert gradient.any()
    if "matrix" in names:
        assert float(names["matrix"][0, 1].detach()) > 1
        assert names["dwi"].grad.abs().max() > 0
        assert names["fit"].response.grad.abs().max() > 0
    if "learned" in names:
        check_learning(names)
    if "graph" in names:
        assert names["graph"]["L_a"]["R_b"]["weight"] == 5
        np.testing.assert_array_equal(names["strengths"], [6, 7, 2])
        np.testing.assert_array_equal(names["features"], [5, 0, 2])
        plt.close("all")
    if "edges" in names:
        assert len(names["edges"]) == 12
        assert names["mean"].loc["L_a", "R_b"] == 5
    if "result" in names:
        assert names["result"].outputs.metadata["Counts"]["Streamlines"] > 50
        assert read_matrix(names["built"].outputs.count)[0][0, 1] > 5


def test_the_make_targets_it_names_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_the_options_it_names_exist():
    from difftract_bids.cli import parser, train

    parsers = (parser.build_parser(), train.build_parser())
    options = {option for one in parsers for option in one._option_string_actions}
    commands = re.sub(r"docker run.*?\n(?=```)", "", README, flags=re.DOTALL)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", commands)) - {"--containall"}
    assert named <= options


def test_every_link_to_a_file_leads_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_every_output_stands_in_its_table():
    for output in OUTPUTS.values():
        assert output.entities["suffix"] in README


def test_nothing_tracked_is_large_or_a_copy_of_test_data():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        assert not path.is_file() or path.stat().st_size < 1_500_000, name
