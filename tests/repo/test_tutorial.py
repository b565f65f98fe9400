"""The tutorial on learning does what it says, block after block."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial-learning.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|toml|python)\n(.*?)```", TUTORIAL, re.DOTALL)
#: For a machine with much else to do; two free cores take a fraction of it.
LIMIT_S = 900
#: What shows the same in less time: fewer heads to fit, to track and to learn from, and a fifth
#: of the steps. Every command, option and setting is still the tutorial's own.
SHORTER = {
    "--n-subjects 4": "--n-subjects 3",
    "--n-subjects 2": "--n-subjects 1",
    'validation_participants = ["04"]': 'validation_participants = ["03"]',
    "from_step = 150": "from_step = 30",
    "n_steps = 200": "n_steps = 40",
    "validate_every = 100": "validate_every = 20",
    "--n-streamlines 10000": "--n-streamlines 2000",
    "n_seeds=20_000": "n_seeds=5_000",
    "--refine-steps 10": "--refine-steps 3",
}


def shortened(text):
    """Put the smaller numbers into a block of the tutorial."""
    for number, smaller in SHORTER.items():
        text = text.replace(number, smaller)
    return text


def follow(folder, blocks):
    """Run the blocks in a folder, as a reader who copies one after the other."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for kind, text in blocks:
        if kind == "toml":
            (folder / "train.toml").write_text(text, encoding="utf-8")
            continue
        shell = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(
            shell if kind == "bash" else [sys.executable, "-c", text],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            env=os.environ | {"PATH": path},
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.fixture(
    scope="module", params=["shortened", pytest.param("as written", marks=pytest.mark.slow)]
)
def folder(request, tmp_path_factory):
    """The folder of a reader who has followed the tutorial to its end.

    The long training is slow; all that the text claims, but for the figures of its table, is
    asserted of the short one as well.
    """
    folder = tmp_path_factory.mktemp("tutorial")
    short = request.param == "shortened"
    follow(folder, [(kind, shortened(text) if short else text) for kind, text in BLOCKS])
    return folder


@pytest.fixture(scope="module")
def mean_r(folder):
    """Mean over the participants, by method and cutoff."""
    with (folder / "comparison.tsv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    by_key = {}
    for row in rows:
        by_key.setdefault((row["method"], row["cutoff"]), []).append(float(row["r"]))
    assert len({len(of_participants) for of_participants in by_key.values()}) == 1
    return {key: sum(values) / len(values) for key, values in by_key.items()}


@pytest.mark.integration
def test_at_the_same_settings_the_held_out_connectome_is_closer_to_the_truth(mean_r):
    assert mean_r["learned", "0.1"] > mean_r["csd", "0.1"]


@pytest.mark.integration
def test_at_a_higher_cutoff_both_are_equal_as_the_tutorial_admits(mean_r):
    assert mean_r["learned", "0.2"] == pytest.approx(mean_r["csd", "0.2"], abs=0.03)
    assert mean_r["csd", "0.2"] > mean_r["learned", "0.1"]


@pytest.mark.integration
def test_the_fodfs_that_were_learned_and_refined_are_where_it_says(folder):
    for name in re.findall(r"`(sub-01_model-\S+?)`", TUTORIAL):
        assert list(folder.glob(f"*/sub-01/dwi/{name}")), name


def test_every_number_that_is_made_smaller_is_one_of_the_tutorial():
    for number in SHORTER:
        assert number in TUTORIAL, number


def test_the_table_is_read_by_the_settings_of_training(tmp_path):
    from difftract_bids.config import TrainingConfig

    (toml,) = [text for kind, text in BLOCKS if kind == "toml"]
    (tmp_path / "train.toml").write_text(toml, encoding="utf-8")
    config = TrainingConfig.from_toml(tmp_path / "train.toml")
    assert config.losses.needs_propagation
    assert 0 < config.propagation.from_step < config.optimisation.n_steps
