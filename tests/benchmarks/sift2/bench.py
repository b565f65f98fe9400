"""What is measured of streamline weights, and how it is shown."""

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
from connectome.scene import brain_of, prepare

from sift2.tcksift2 import tcksift2, weights

RATES = {"streamlines_per_second": "streamlines"}
#: Whose rates are compared.
RATES_OF = ("weights", "tcksift2")
_PARTS = ("segmentation_seconds", "mapping_seconds", "fit_seconds")


def measure_all(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure what the command line asks for, on the streamlines of the part ``connectome``."""
    n_seeds = options.seeds or (15_000 if options.quick else 150_000)
    folder = folder.with_name("connectome")
    scene = prepare(folder, options.data, n_seeds, phantom=options.phantom)
    fod = brain_of(folder) / "fod.nii.gz"
    tracks = Path(scene["folder"])
    rows = alternate(
        _contenders(scene, fod, options.contenders),
        scene["streamlines"],
        repeats=options.repeats,
        threads=options.threads,
        rates=RATES,
    )
    wanted = [Ratio("streamlines/s: ours / tcksift2", *RATES_OF, ">= 1")]
    report: dict[str, Any] = {"scene": scene, "seconds": {}, "contenders": rows}
    report["ratios"] = ratios(rows, wanted, "streamlines_per_second")
    if "memory" not in options.skip:
        report["memory"] = measure.contender("sift2", "memory", tracks, 1, fod=str(fod))
    both = set(RATES_OF) <= {row["name"] for row in rows}
    if both and "agreement" not in options.skip:
        report["agreement"] = _agreement(tracks, fod)
    return report


def _contenders(scene: dict[str, Any], fod: Path, wanted: list[str]) -> list[Contender]:
    folder, n = Path(scene["folder"]), scene["streamlines"]

    def theirs(threads: int, _: int) -> Row:
        return tcksift2(folder, fod, n, threads)

    def ours(threads: int, _: int) -> Row:
        return measure.contender("sift2", "weights", folder, threads, fod=str(fod))

    everyone = [Contender("weights", "weights", ours)]
    if shutil.which("tcksift2") is None:
        print("tcksift2 is not installed: no comparison with it.", file=sys.stderr)  # noqa: T201
    else:
        everyone.append(Contender("tcksift2", "tcksift2", theirs))
    return [one for one in everyone if one.name in wanted]


def _agreement(folder: Path, fod: Path) -> float:
    """Correlate the logarithms of our weights and of tcksift2's."""
    with tempfile.TemporaryDirectory() as aside:
        to = Path(aside) / "ours.npy"
        run = partial(measure.contender, "sift2", "weights", folder, 1)
        run(fod=str(fod), to=str(to))
        ours, theirs = np.load(to), weights(folder, fod)
    both = (ours > 0) & (theirs > 0)
    return float(np.corrcoef(np.log(ours[both]), np.log(theirs[both]))[0, 1])


def markdown(report: dict[str, Any]) -> str:
    """Lay a report out in tables."""
    scene = report["scene"]
    about = (
        f"Streamline weights. {table.machine(report['machine'])} Medians of "
        f"{report['repeats']}, from a file to weights; ours without loading programs and the "
        "fODFs, and without compilation; tcksift2's one core is two threads on one core. "
        f"{scene['streamlines']:,} streamlines, {scene['vertices']:,} vertices "
        f"({scene['name']})."
    )
    if "memory" in report:
        about += f" Ours takes {report['memory']['peak_mib']:,.0f} MiB at most."
    agreement = ""
    if "agreement" in report:
        agreement = f"Correlation with tcksift2's weights, logarithms: {report['agreement']:.4f}."
    rows = report["contenders"]
    return table.page(
        [about, _side_by_side(rows), table.ratios(report["ratios"]), _steps(rows), agreement]
    )


def _side_by_side(rows: list[Row]) -> str:
    return table.grid(
        ("", "cores", "streamlines", "seconds", "streamlines/s"),
        (
            (
                row["label"],
                row["threads"],
                f"{row['streamlines']:,.0f}",
                f"{row['seconds']:.3g}",
                f"{row['streamlines_per_second']:,.0f}",
            )
            for row in rows
        ),
    )


def _steps(rows: list[Row]) -> str:
    return table.grid(
        ("ours: cores", "segmentation, s", "mapping, s", "fit, s", "iterations"),
        (
            (row["threads"], *(f"{row[part]:.2f}" for part in _PARTS), f"{row['iterations']:.0f}")
            for row in rows
            if row["name"] == "weights"
        ),
    )
