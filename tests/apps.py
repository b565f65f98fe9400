"""Running the command line as a user would, and looking at what it left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil


def run_app(*arguments, **environment) -> subprocess.CompletedProcess[str]:
    """Run ``difftract-bids`` in a process of its own."""
    return _python("-m", "difftract_bids", *arguments, environment=environment)


def cores_used(*arguments) -> float:
    """Run ``difftract-bids``, and tell how many CPUs it used on average: seconds over seconds."""
    seconds: dict[int, float] = {}
    begun = time.monotonic()
    command = [sys.executable, "-m", "difftract_bids", *map(str, arguments)]
    with psutil.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with suppress(psutil.Error):
                for one in (process, *process.children(recursive=True)):
                    times = one.cpu_times()
                    seconds[one.pid] = times.user + times.system
            time.sleep(0.1)
    assert process.returncode == 0
    return sum(seconds.values()) / (time.monotonic() - begun)


def make_phantom(folder: Path, *arguments) -> Path:
    """Write a phantom dataset, coarse enough for a test."""
    options = ("--voxel-size", "4.5", "--t1w-voxel-size", "3", "--directions", "30", "--n-b0", "2")
    done = _python("-m", "difftract_bids.cli.phantom", folder, *options, *arguments)
    assert done.returncode == 0, done.stderr
    return folder


def validator_errors(dataset: Path) -> list[dict]:
    """What bids-validator-deno counts as an error in a dataset."""
    validator = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [validator, dataset, "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [issue for issue in issues if issue["severity"] == "error"]


def _python(*arguments, environment=None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (environment or {}),
    )


def copy_participant(dataset: Path, source: str, target: str) -> None:
    """Give a phantom dataset another participant, like one it has: simulating takes longer."""
    for folder in (dataset, dataset / "derivatives" / "truth"):
        for path in sorted((folder / f"sub-{source}").rglob("*")):
            relative = str(path.relative_to(folder)).replace(f"sub-{source}", f"sub-{target}")
            if path.is_file():
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / relative)
    table = dataset / "participants.tsv"
    header, *rows = table.read_text().splitlines()
    (own,) = [row for row in rows if row.split("\t")[0] == f"sub-{source}"]
    rows.append(own.replace(f"sub-{source}", f"sub-{target}"))
    table.write_text("\n".join([header, *rows]) + "\n")
