"""What is measured of tracking, and how it is shown."""

from __future__ import annotations

import argparse
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import measure
import table
from compare import Contender, Ratio, Row, alternate, ratios

from tracking.scene import prepare
from tracking.tckgen import tckgen

RATIOS = (
    Ratio("vertices/s: forward / tckgen", "forward", "tckgen", ">= 5"),
    Ratio("vertices/s: forward + gradient / tckgen", "gradient", "tckgen", ">= 1, aim 2"),
    Ratio("vertices/s: to file / tckgen", "to_file", "tckgen"),
    Ratio("vertices/s: forward / DIPY", "forward", "dipy"),
    Ratio("vertices/s: forward / reference", "forward", "reference"),
)
RATES = {"streamlines_per_second": "streamlines", "vertices_per_second": "vertices"}


def measure_all(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure what the command line asks for, on the scene in a folder."""
    n_seeds = options.seeds or (4_000 if options.quick else 30_000)
    report: dict[str, Any] = {"scene": prepare(folder, options.data, phantom=options.phantom)}
    rows = alternate(
        contenders(folder, options.contenders),
        n_seeds,
        repeats=options.repeats,
        threads=options.threads,
        rates=RATES,
    )
    report |= {"contenders": rows, "ratios": ratios(rows, RATIOS, "vertices_per_second")}
    if "growth" not in options.skip:
        lines = (1_000, 10_000) if options.quick else (1_000, 10_000, 100_000, 1_000_000)
        run = partial(measure.contender, "tracking", "growth", folder, max(options.threads))
        report["growth"] = [run(n_streamlines=n) for n in lines]
    if "lmax" not in options.skip:
        degrees = (4, 8) if options.quick else (2, 4, 6, 8, 10, 12)
        run = partial(measure.contender, "tracking", "lmax", folder, 1)
        report["lmax"] = [run(n_seeds=max(n_seeds // 5, 100), lmax=degree) for degree in degrees]
    if "first-calls" not in options.skip:
        report["first_calls"] = [
            measure.first_call("tracking", name, label, folder, n_seeds=100)
            for name, label in (("forward", "forward"), ("gradient", "forward + gradient"))
        ]
    report["seconds"] = {}
    return report


def contenders(scene: Path, wanted: list[str]) -> list[Contender]:
    """List those asked for that can run here."""

    def ours(name: str, label: str, *, share: float = 1, once: bool = False) -> Contender:
        def run(threads: int, n_seeds: int) -> Row:
            return measure.contender("tracking", name, scene, threads, n_seeds=n_seeds)

        return Contender(name, label, run, share, once)

    everyone = [
        Contender("tckgen", "tckgen", partial(tckgen, scene)),
        ours("forward", "forward"),
        ours("gradient", "forward + gradient"),
        ours("to_file", "forward, thinned, to TRX"),
        ours("reference", "reference (PyTorch)", share=0.1, once=True),
        ours("dipy", "DIPY deterministic", share=0.02, once=True),
    ]
    if shutil.which("tckgen") is None:
        print("tckgen is not installed: no comparison with it.", file=sys.stderr)  # noqa: T201
        del everyone[0]
    return [one for one in everyone if one.name in wanted]


def markdown(report: dict[str, Any]) -> str:
    """Lay a report out in tables."""
    return table.page(
        [
            _about(report),
            _side_by_side(report["contenders"]),
            table.ratios(report["ratios"]),
            _memory(report["contenders"]),
            _growth(report.get("growth", [])),
            _lmax(report.get("lmax", [])),
            table.first_calls(report.get("first_calls", [])),
        ]
    )


def _about(report: dict[str, Any]) -> str:
    scene = report["scene"]
    shape = " x ".join(map(str, scene["shape"]))
    return (
        f"Tracking: {scene['name']}, {shape} voxels, {scene['coefficients']} coefficients. "
        f"{table.machine(report['machine'])} "
        f"Medians of {report['repeats']} (reference and DIPY: one run); "
        "random seeds in the mask, random directions, defaults. "
        "Compilation and image loading are left out."
    )


def _side_by_side(rows: list[Row]) -> str:
    heads = ("", "cores", "seeds", "kept", "seconds", "streamlines/s", "vertices/s", "peak MiB")
    return table.grid(
        heads,
        (
            (
                row["label"],
                row["threads"],
                f"{row['n_seeds']:,}",
                f"{row['streamlines']:,}",
                f"{row['seconds']:.3g}",
                f"{row['streamlines_per_second']:,.0f}",
                f"{row['vertices_per_second'] / 1e6:.3g} M",
                f"{row['peak_mib']:,.0f}",
            )
            for row in rows
        ),
    )


def _memory(rows: list[Row]) -> str:
    heads = ("gradient: cores", "peak MiB", "fODF x (cores + 2) + points x 4")
    return table.grid(
        heads,
        (
            (r["threads"], f"{r['peak_less_cotangents_mib']:,.0f}", f"{r['memory_bar_mib']:,.0f}")
            for r in rows
            if r["name"] == "gradient"
        ),
    )


def _growth(rows: list[Row]) -> str:
    return table.grid(
        ("streamlines", "seconds", "peak MiB"),
        ((f"{r['streamlines']:,}", f"{r['seconds']:.3g}", f"{r['peak_mib']:,.0f}") for r in rows),
    )


def _lmax(rows: list[Row]) -> str:
    ahead, back = "forward_ns_per_vertex", "backward_ns_per_vertex"
    return table.grid(
        ("lmax", "forward, ns a vertex and core", "backward, ns a vertex and core"),
        ((row["lmax"], f"{row[ahead]:.0f}", f"{row[back]:.0f}") for row in rows),
    )
