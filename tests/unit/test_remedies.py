"""Remedies name options that exist."""

import re
from pathlib import Path

import pytest

import difftract_bids
from difftract_bids.cli import parser, train

PACKAGE = Path(difftract_bids.__file__).parent
LAYERS = ("config", "bids", "io", "core", "modelling", "preprocessing", "interfaces", "cli")
#: Programs of their own, which other tests call.
OTHERS = {"phantom.py", "demo.py"}
#: What speaks to SLURM, or shows the phantom's command line, in options of theirs.
OF_OTHERS = {
    *("sbatch_options.py", "batch_resources.py", "slurm.py", "slurm_jobs.py", "slurm_graph.py"),
    *("interfaces/__init__.py", "interfaces/fsl.py"),
}
#: Options of squeue, with which a remedy of ours stands in one file.
SQUEUE = {"--format", "--noheader", "--user"}
#: What is said while training is of either program: its model and its data are the other's.
OF_TRAINING = {"train.py", "training_progress.py", "held_out.py"}


def options_of(*parsers):
    return {option for one in parsers for option in one._option_string_actions}


def named_in(path):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]+", path.read_text()))


@pytest.mark.parametrize("layer", LAYERS)
def test_every_option_in_a_message_is_an_option(layer):
    known = options_of(parser.build_parser())
    for path in (PACKAGE / layer).rglob("*.py"):
        names = {path.name, f"{path.parent.name}/{path.name}"}
        if not names & (OTHERS | OF_TRAINING | OF_OTHERS):
            assert named_in(path) <= known | SQUEUE, path.name


def test_every_option_in_a_message_of_training_is_an_option_of_either_program():
    tensorboard = {"--logdir"}
    known = options_of(parser.build_parser(), train.build_parser()) | tensorboard
    paths = [*(PACKAGE / "learn").rglob("*.py"), *(PACKAGE / "cli" / name for name in OF_TRAINING)]
    assert len(paths) > 30
    for path in paths:
        assert named_in(path) <= known, path.name
