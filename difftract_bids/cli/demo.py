"""``make demo``: the app as a user would run it, on a phantom whose connectome is known."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

_ATLAS = "Phantom"
#: Enough for the figures of the README, in seconds.
_STREAMLINES = 50_000


def main(argv: list[str] | None = None) -> int:
    """Write a phantom (unless given a dataset), run the app on it, and say how well it did.

    Returns
    -------
    int
        The exit code of the command that failed, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m difftract_bids.cli.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder to write")
    parser.add_argument("--bids-dir", type=Path, help="run this dataset instead of a phantom")
    options, passed_on = parser.parse_known_args(argv)
    derivatives = options.output / "derivatives"
    number = ("--n-streamlines", str(_STREAMLINES))
    app = ("participant", "-w", options.output / "work", *number, *passed_on)
    if options.bids_dir is not None:
        return _run("difftract_bids", options.bids_dir, derivatives, *app)

    dataset = options.output / "bids"
    truth = dataset / "derivatives" / "truth"
    if not truth.is_dir() and (code := _run("difftract_bids.cli.phantom", dataset)):
        return code
    atlas = f"{_ATLAS}={truth}"
    if code := _run("difftract_bids", dataset, derivatives, *app, "--atlases", atlas):
        return code
    name = f"sub-01/dwi/sub-01_atlas-{_ATLAS}_meas-count_relmat.dense.tsv"
    print("\nThe measured connectome against the true one:")
    code = _run("difftract_bids.phantom.agreement", derivatives / name, truth / name)
    print(f"\nReport: {(derivatives / 'sub-01.html').resolve()}")
    return code


def _run(module: str, *arguments: str | Path) -> int:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print("$", " ".join(command[1:]), flush=True)
    # A list of arguments and no shell: nothing in a path is interpreted.
    return subprocess.run(command, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    raise SystemExit(main())
