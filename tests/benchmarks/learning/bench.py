"""What is measured of learning, and how it is shown."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import measure
import table
from compare import Contender, Ratio, Row, alternate, ratios

from learning.scene import prepare

RATES = {"steps_per_second": "steps"}
_LABELS = {
    "fodf_step": "fODF loss alone",
    "kernel_step": "streamlines and connectome, kernels",
    "reference_step": "streamlines and connectome, reference",
}
_BOTH = ("kernel_step", "reference_step")


def measure_all(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure what the command line asks for."""
    n_seeds = options.seeds or (300 if options.quick else 1000)
    scene = prepare(folder, options.phantom_voxel_size_mm)
    rows = alternate(
        _contenders(Path(scene["folder"]), options.contenders),
        n_seeds,
        repeats=options.repeats,
        threads=options.threads,
        rates=RATES,
    )
    report: dict[str, Any] = {"scene": scene, "seconds": {}, "contenders": rows}
    return report | {"ratios": _ratios(rows)}


def _contenders(folder: Path, wanted: list[str]) -> list[Contender]:
    def run(name: str, threads: int, n_seeds: int) -> Row:
        return measure.contender("learning", name, folder, threads, n_seeds=n_seeds)

    return [
        Contender(name, label, partial(run, name))
        for name, label in _LABELS.items()
        if name in wanted
    ]


def _ratios(rows: list[Row]) -> list[Row]:
    """Compare the times of a step, and the memory that it takes."""
    wanted = [
        Ratio("step: reference / kernels", *_BOTH, ">= 1"),
        Ratio("step: with streamlines / fODF alone", "fodf_step", "kernel_step"),
    ]
    # Training is no sum over streamlines: more cores have nothing to live up to.
    found = [
        row | ({"aim": ""} if row["what"].endswith("one") else {})
        for row in ratios(rows, wanted, "steps_per_second")
    ]
    peaks = {(row["name"], row["threads"]): row["peak_mib"] for row in rows}
    kernels, reference = _BOTH
    return found + [
        {"what": "peak memory: reference / kernels", "threads": threads, "aim": ""}
        | {"value": peaks[reference, threads] / peaks[kernels, threads]}
        for name, threads in peaks
        if name == kernels and peaks.get((reference, threads)) and peaks[kernels, threads]
    ]


def markdown(report: dict[str, Any]) -> str:
    """Lay a report out in tables."""
    scene = report["scene"]
    about = (
        f"One step of training. {table.machine(report['machine'])} Medians of "
        f"{report['repeats']}, without loading programs and without compilation; the default "
        "network and two patches in each step. The reference propagator is plain PyTorch. Memory "
        "is what a step needs beyond the loaded scan, the network's included. "
        f"{scene['voxels_in_mask']:,} voxels, {scene['nodes']} nodes ({scene['name']})."
    )
    return table.page([about, _side_by_side(report["contenders"]), table.ratios(report["ratios"])])


def _side_by_side(rows: list[Row]) -> str:
    heads = ("", "cores", "seeds", "streamlines", "vertices", "seconds", "of these backward")
    return table.grid(
        (*heads, "peak MiB"),
        (
            (
                row["label"],
                row["threads"],
                *(f"{row['n_seeds']:,.0f}" if row["vertices"] else "",),
                *(f"{row[name]:,.0f}" for name in ("streamlines", "vertices")),
                *(f"{row[name]:.3g}" for name in ("seconds", "backward_seconds")),
                f"{row['peak_mib']:,.0f}",
            )
            for row in rows
        ),
    )
