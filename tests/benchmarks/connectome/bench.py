"""What is measured of the connectome, and how it is shown."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import measure
import numpy as np
import table
from compare import Contender, Ratio, Row, alternate, ratios

from connectome import RULES
from connectome.scene import prepare
from connectome.tck2connectome import matrix, tck2connectome

RATES = {"streamlines_per_second": "streamlines"}
#: Whose rates are compared.
RATES_OF = ("connectome", "tck2connectome")
WORDS = {"radial": "radial search, 4 mm", "all_voxels": "all voxels"}


def measure_all(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure what the command line asks for; streamlines are kept in a folder."""
    if shutil.which("tck2connectome") is None and "tck2connectome" in options.contenders:
        print("tck2connectome is not installed: no comparison with it.", file=sys.stderr)  # noqa: T201
        options.contenders.remove("tck2connectome")
    n_seeds = options.seeds or (15_000 if options.quick else 150_000)
    scene = prepare(folder, options.data, n_seeds, phantom=options.phantom)
    report: dict[str, Any] = {"scene": scene, "rules": [], "seconds": {}}
    for rule in RULES:
        rows = alternate(
            _contenders(scene, rule, options.contenders),
            scene["streamlines"],
            repeats=options.repeats,
            threads=options.threads,
            rates=RATES,
        )
        wanted = [Ratio("streamlines/s: ours / tck2connectome", *RATES_OF, ">= 1")]
        found = {"name": rule, "contenders": rows}
        found["ratios"] = ratios(rows, wanted, "streamlines_per_second")
        if "agreement" not in options.skip and set(RATES_OF) <= set(options.contenders):
            found["differing_edges"] = _differing_edges(scene, rule)
        report["rules"].append(found)
    return report


def _contenders(scene: dict[str, Any], rule: str, wanted: list[str]) -> list[Contender]:
    folder, n = Path(scene["folder"]), scene["streamlines"]

    def theirs(threads: int, _: int) -> Row:
        return tck2connectome(folder, n, rule, threads)

    def ours(threads: int, _: int) -> Row:
        return measure.contender("connectome", "connectome", folder, threads, rule=rule)

    everyone = [
        Contender("tck2connectome", "tck2connectome", theirs),
        Contender("connectome", "read, assign and count", ours),
    ]
    return [one for one in everyone if one.name in wanted]


def _differing_edges(scene: dict[str, Any], rule: str) -> int:
    """Count entries of the matrix that are not tck2connectome's."""
    folder = Path(scene["folder"])
    with tempfile.TemporaryDirectory() as aside:
        to = Path(aside) / "ours.npy"
        run = partial(measure.contender, "connectome", "connectome", folder, 1)
        run(rule=rule, to=str(to))
        return int((np.load(to) != matrix(folder, rule)).sum())


def markdown(report: dict[str, Any]) -> str:
    """Lay a report out in tables, rule by rule."""
    scene = report["scene"]
    about = (
        f"Connectomes. {table.machine(report['machine'])} Medians of {report['repeats']}, from a "
        f"file to a matrix; loading programs, images and compilation are left out. "
        f"{scene['streamlines']:,} streamlines, {scene['vertices']:,} vertices, "
        f"{scene['mib']:g} MiB of TCK in the page cache ({scene['name']})."
    )
    parts = [about]
    for rule in report["rules"]:
        parts += [f"**{WORDS[rule['name']]}**", _side_by_side(rule["contenders"])]
        parts += [table.ratios(rule["ratios"])]
        if "differing_edges" in rule:
            parts += [f"Entries that differ from tck2connectome's: {rule['differing_edges']}."]
    return table.page(parts)


def _side_by_side(rows: list[Row]) -> str:
    return table.grid(
        ("", "cores", "streamlines", "seconds", "streamlines/s", "peak MiB"),
        (
            (
                row["label"],
                row["threads"],
                f"{row['streamlines']:,.0f}",
                f"{row['seconds']:.3g}",
                f"{row['streamlines_per_second']:,.0f}",
                f"{row['peak_mib']:,.0f}",
            )
            for row in rows
        ),
    )
