"""Remedies name options that exist."""

import re
from pathlib import Path

import difftract_bids
from difftract_bids.cli.parser import build_parser


def test_every_option_in_a_message_is_an_option():
    options = set(build_parser()._option_string_actions)
    package = Path(difftract_bids.__file__).parent
    for layer in ("bids", "io", "core", "modelling", "preprocessing", "interfaces", "cli"):
        for path in (package / layer).glob("*.py"):
            if path.name in {"phantom.py", "demo.py"}:
                continue
            named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]+", path.read_text()))
            assert named <= options, path.name
