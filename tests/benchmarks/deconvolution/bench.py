"""What is measured of deconvolution."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure
import numpy as np
from compare import Contender, Ratio, Row, alternate, ratios

from deconvolution import dwi2fod
from deconvolution.scene import prepare_shells, prepare_single_shell
from deconvolution.tables import markdown

__all__ = ["markdown", "measure_all"]

RATES = {"voxels_per_second": "voxels"}
LABELS = {
    "forward": "forward",
    "gradient": "forward + gradient",
    "reference": "reference (PyTorch)",
}


@dataclass(frozen=True)
class Problem:
    """One way of deconvolving, and its voxels.

    Attributes
    ----------
    name
        What dwi2fod calls it.
    folder, scene
        Where its voxels are, and what they are.
    share
        Of the voxels of a run.
    shares
        Of those, what slow contenders are given.
    grown
        Who is given more and more voxels.
    ratios
        What is compared.
    """

    name: str
    folder: Path
    scene: dict[str, Any]
    share: float
    shares: dict[str, float]
    grown: tuple[str, ...]
    ratios: tuple[Ratio, ...]

    def ours(self, name: str, threads: int, n_voxels: int, **more: object) -> Row:
        """Run one of our jobs."""
        return measure.contender(
            "deconvolution", name, self.folder, threads, **self.asked(n_voxels), **more
        )

    def asked(self, n_voxels: int) -> dict[str, Any]:
        """Say what every job must know."""
        return {"tissues": self.scene["tissues"], "n_voxels": n_voxels}

    def theirs(self) -> tuple[str, list[str], Path]:
        """Give the first arguments of the functions of `dwi2fod`."""
        return self.name, self.scene["tissues"], self.folder

    def contenders(self, wanted: list[str]) -> list[Contender]:
        """List those asked for."""

        def ours(name: str, label: str) -> Contender:
            run = partial(self.ours, name)
            return Contender(name, label, run, self.shares.get(name, 1), name == "reference")

        share = self.shares.get("dwi2fod", 1)
        everyone = [
            Contender("dwi2fod", "dwi2fod", partial(dwi2fod.dwi2fod, *self.theirs()), share),
            *(ours(name, label) for name, label in LABELS.items()),
        ]
        return [one for one in everyone if one.name in wanted]


def _problems(options: argparse.Namespace, folder: Path) -> Iterator[Problem]:
    size = options.phantom_voxel_size_mm
    yield Problem(
        "csd",
        folder / "csd",
        prepare_single_shell(
            folder / "csd", options.data, phantom=options.phantom, voxel_size_mm=size
        ),
        share=1.0,
        shares={"reference": 0.1},
        grown=("forward", "gradient"),
        ratios=(
            Ratio("voxels/s: forward / dwi2fod csd", "forward", "dwi2fod", ">= 1, aim 3"),
            Ratio("voxels/s: forward + gradient / dwi2fod csd", "gradient", "dwi2fod"),
            Ratio("voxels/s: forward / reference", "forward", "reference"),
        ),
    )
    yield Problem(
        "msmt_csd",
        folder / "msmt_csd",
        prepare_shells(folder / "msmt_csd", voxel_size_mm=size),
        share=1 / 6,
        shares={"dwi2fod": 0.2, "reference": 0.03},
        grown=("forward",),
        ratios=(
            Ratio("voxels/s: forward / dwi2fod msmt_csd", "forward", "dwi2fod", ">= 1"),
            Ratio("voxels/s: forward + gradient / dwi2fod msmt_csd", "gradient", "dwi2fod"),
            Ratio("voxels/s: forward / reference", "forward", "reference"),
        ),
    )


def measure_all(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure what the command line asks for; voxels are kept in a folder."""
    if shutil.which("dwi2fod") is None and "dwi2fod" in options.contenders:
        print("dwi2fod is not installed: no comparison with it.", file=sys.stderr)  # noqa: T201
        options.contenders.remove("dwi2fod")
    return {
        "problems": [_measure(problem, options) for problem in _problems(options, folder)],
        "seconds": {},
    }


def _measure(problem: Problem, options: argparse.Namespace) -> dict[str, Any]:
    n_voxels = int((options.voxels or (3_000 if options.quick else 30_000)) * problem.share)
    contenders = problem.contenders(options.contenders)
    rows = alternate(
        contenders, n_voxels, repeats=options.repeats, threads=options.threads, rates=RATES
    )
    for row in rows:
        row["ms_per_voxel_and_core"] = 1e3 * row["threads"] / row["voxels_per_second"]
    report = {"name": problem.name, "scene": problem.scene, "contenders": rows}
    report["ratios"] = ratios(rows, problem.ratios, "voxels_per_second")
    tables: dict[str, Callable[[], Any]] = {
        "growth": lambda: _growth(problem, options),
        "lmax": lambda: _lmax(problem, options, n_voxels),
        "first-calls": lambda: _first_calls(problem),
    }
    if "dwi2fod" in options.contenders:
        tables["agreement"] = lambda: _agreement(problem, max(n_voxels // 10, 100))
    wanted = {name: table for name, table in tables.items() if name not in options.skip}
    return report | {name.replace("-", "_"): table() for name, table in wanted.items()}


def _growth(problem: Problem, options: argparse.Namespace) -> list[Row]:
    """Measure more and more voxels, with every core."""
    threads = max(options.threads)
    numbers = (500, 5_000) if options.quick else (1_000, 10_000, 100_000)
    return [
        {"name": name, "label": LABELS[name]} | problem.ours(name, threads, n)
        for name in problem.grown
        for n in numbers
    ]


def _lmax(problem: Problem, options: argparse.Namespace, n_voxels: int) -> list[Row]:
    degrees = (4, 8) if options.quick else (4, 6, 8, 10, 12)
    return problem.ours("lmax", 1, max(n_voxels // 10, 100), degrees=degrees)["rows"]


def _first_calls(problem: Problem) -> list[Row]:
    """Compile what goes forward and what goes back."""
    asked = problem.asked(100)
    return [
        measure.first_call(
            "deconvolution", "gradient", "forward + gradient", problem.folder, **asked
        )
    ]


def _agreement(problem: Problem, n_voxels: int) -> Row:
    """Compare coefficients with dwi2fod's: relative differences over voxels."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "ours.npy"
        problem.ours("coefficients", 1, n_voxels, to=str(to))
        ours = np.load(to)
    theirs = dwi2fod.coefficients(*problem.theirs(), n_voxels)
    size = np.linalg.norm(theirs, axis=1)
    there = size > 1e-6 * np.median(size)
    apart = np.linalg.norm(ours - theirs, axis=1)[there] / size[there]
    median, most = np.percentile(apart, [50, 99])
    return {"voxels": int(there.sum()), "median": float(median), "percentile_99": float(most)}
