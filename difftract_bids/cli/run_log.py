"""The folder of logs of a run of the app: what was asked for, on what, and how it went."""

from __future__ import annotations

import os
import platform
import sys
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftract_bids.bids.uris import input_uri
from difftract_bids.cli.outcomes import Outcome, write_table
from difftract_bids.cli.provenance import command_line, software_versions
from difftract_bids.io.atomic import write_json, write_text_atomic

if TYPE_CHECKING:
    from difftract_bids.bids.plan import Plan
    from difftract_bids.cli.resources import Resources


class RunLog:
    """A folder of this run's own, ``logs/<time>_<random>``, so that parallel runs do not mix.

    Parameters
    ----------
    plan
        What is done.
    resources
        What it may take.
    """

    def __init__(self, plan: Plan, resources: Resources) -> None:
        from difftract_bids import __version__
        from difftract_bids.bids.describe import container

        started = datetime.now(UTC)
        name = f"{started.strftime('%Y%m%dT%H%M%SZ')}_{uuid.uuid4().hex[:8]}"
        self.folder = plan.output_dir / "logs" / name
        self.folder.mkdir(parents=True)
        write_text_atomic(self.folder / "config.toml", plan.config.to_toml())
        write_text_atomic(self.folder / "command.txt", f"{command_line()}\n")
        self._provenance: dict[str, Any] = {
            "Version": __version__,
            "CommandLine": sys.argv,
            "WorkingDirectory": str(Path.cwd()),
            "RandomSeed": plan.config.seeding.random_seed,
            "Software": software_versions(),
            "Python": platform.python_version(),
            "Platform": platform.platform(),
            "Container": container(),
            "Host": platform.node(),
            "SlurmJob": os.environ.get("SLURM_JOB_ID"),
            "Resources": asdict(resources),
            "Inputs": {
                run.stem: [input_uri(path, plan.datasets) for path in run.files]
                for run in plan.runs
            },
            "Started": started.isoformat(timespec="seconds"),
        }
        write_json(self.folder / "provenance.json", self._provenance)

    def end(self, outcomes: Mapping[str, Outcome]) -> None:
        """Write how it went, ``participants.tsv``, and when it ended."""
        write_table(outcomes, self.folder / "participants.tsv")
        ended = {"Ended": datetime.now(UTC).isoformat(timespec="seconds")}
        write_json(self.folder / "provenance.json", self._provenance | ended)
