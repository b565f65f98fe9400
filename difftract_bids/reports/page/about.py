"""What the report says of itself: what was run, with what settings, and whether it failed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from difftract_bids.config import Config
from difftract_bids.reports.templates import render, save_text


@dataclass(frozen=True)
class About:
    """What was run and with what.

    Attributes
    ----------
    version
        Version of this program.
    command_line
        As it was typed.
    run_uuid
        Identifier of the run, also the name of its folder of logs.
    config
        All settings.
    inputs
        Files that were used, as BIDS URIs or paths.
    software
        Name and version of each library that matters.
    started
        Date and time, ISO 8601.
    """

    version: str
    command_line: str
    run_uuid: str
    config: Config
    inputs: Sequence[str] = ()
    software: Mapping[str, str] = field(default_factory=dict)
    started: str = ""


def write_failure_html(reason: str, path: str | os.PathLike[str]) -> Path:
    """Write that a run failed as an HTML snippet: what is shown below may be of an earlier run.

    Returns
    -------
    Path
        The absolute path written.
    """
    return save_text(render("failure.html.jinja", reason=reason), path)


def write_about_html(about: About, path: str | os.PathLike[str]) -> Path:
    """Write program, command line, inputs and settings as an HTML snippet.

    Returns
    -------
    Path
        The absolute path written.
    """
    return save_text(
        render("about.html.jinja", about=about, settings=about.config.to_toml()), path
    )
