"""Time tracking side by side with tckgen and DIPY: JSON and Markdown tables.

Everything on the same fODF, in alternation, each run a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import measure
import table

from data import prepare

#: The slow ones get a share of the seeds and a single run; rates are compared, not times.
SHARE = {"reference": 0.1, "dipy": 0.02}
RATIOS = (
    ("vertices/s: forward / tckgen", "forward", "tckgen", ">= 5"),
    ("vertices/s: forward + gradient / tckgen", "gradient", "tckgen", ">= 1, aim 2"),
    ("vertices/s: to file / tckgen", "to_file", "tckgen", ""),
    ("vertices/s: forward / DIPY", "forward", "dipy", ""),
    ("vertices/s: forward / reference", "forward", "reference", ""),
)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and write ``benchmark.json`` and ``benchmark.md``."""
    options = parse(words)
    start = time.perf_counter()
    options.output.mkdir(parents=True, exist_ok=True)
    scene = options.cache or options.output / "scene"
    report: dict[str, Any] = {
        "machine": measure.machine(),
        "scene": prepare(scene, options.data, phantom=options.phantom),
        "repeats": options.repeats,
    }
    prepared = time.perf_counter()
    report["contenders"] = side_by_side(options, scene)
    report["ratios"] = ratios(report["contenders"])
    if "growth" not in options.skip:
        threads = max(options.threads)
        report["growth"] = [
            measure.contender("growth", scene, threads, n_streamlines=n) for n in options.growth
        ]
    if "lmax" not in options.skip:
        n = max(options.seeds // 5, 100)
        report["lmax"] = [
            measure.contender("lmax", scene, 1, n_seeds=n, lmax=degree) for degree in options.lmax
        ]
    if "first-call" not in options.skip:
        report["first_calls"] = [first_call(name, scene) for name in ("forward", "gradient")]
    report["seconds"] = {
        "preparing": prepared - start,
        "measuring": time.perf_counter() - prepared,
    }
    (options.output / "benchmark.json").write_text(json.dumps(report, indent=2) + "\n")
    text = table.markdown(report)
    (options.output / "benchmark.md").write_text(text)
    print(text)  # noqa: T201 - a program that is run by hand


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; ``--quick`` is what is not said otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the results")
    add("--cache", type=Path, help="folder of the fODF, kept between runs; default OUTPUT/scene")
    add("--data", type=Path, help="folder of the real data; default ../shared/data")
    add("--phantom", action="store_true", help="track a phantom, also where there are real data")
    add("--quick", action="store_true", help="two minutes instead of twelve")
    add("--seeds", type=int, help="seeds in a run")
    add("--repeats", type=int, default=3, help="runs of each contender; medians are told")
    add("--threads", type=int, nargs="+", default=[1, 2], help="core counts")
    add("--contenders", nargs="+", choices=list(table.LABELS), default=list(table.LABELS))
    add("--skip", nargs="*", choices=["growth", "lmax", "first-call"], default=[])
    options = parser.parse_args(words)
    options.seeds = options.seeds or (4_000 if options.quick else 30_000)
    options.growth = [1_000, 10_000] if options.quick else [1_000, 10_000, 100_000, 1_000_000]
    options.lmax = [4, 8] if options.quick else [2, 4, 6, 8, 10, 12]
    if shutil.which("tckgen") is None and "tckgen" in options.contenders:
        print("tckgen is not installed: no comparison with it.")  # noqa: T201
        options.contenders.remove("tckgen")
    return options


def side_by_side(options: argparse.Namespace, scene: Path) -> list[dict[str, Any]]:
    """Run every contender in turn, over and over: what slows the machine slows all of them."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for repeat in range(options.repeats):
        for threads in options.threads:
            for name in options.contenders:
                if repeat and name in SHARE:
                    continue
                n = max(int(options.seeds * SHARE.get(name, 1)), 100)
                if name == "tckgen":
                    found = measure.tckgen(scene, threads, n)
                else:
                    found = measure.contender(name, scene, threads, n_seeds=n)
                runs.setdefault((name, threads), []).append(found)
                print(f"{name}, {threads} cores: {found['seconds']:.3g} s", file=sys.stderr)  # noqa: T201
    return [summary(name, threads, found) for (name, threads), found in runs.items()]


def summary(name: str, threads: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Take medians of what was measured over and over, and add rates."""
    row: dict[str, Any] = {"name": name, "threads": threads}
    row |= {key: median(run[key] for run in runs) for key in runs[0]}
    row["all_seconds"] = [run["seconds"] for run in runs]
    row["streamlines_per_second"] = row["streamlines"] / row["seconds"]
    row["vertices_per_second"] = row["vertices"] / row["seconds"]
    return row


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare rates of work, core count by core count, and each core count with one core."""
    rate = {(row["name"], row["threads"]): row["vertices_per_second"] for row in rows}
    found = [
        {"what": what, "threads": threads, "value": rate[one, threads] / rate[other, threads]}
        | {"bar": bar}
        for what, one, other, bar in RATIOS
        for threads in sorted({row["threads"] for row in rows})
        if (one, threads) in rate and (other, threads) in rate
    ]
    return found + [
        {"what": f"{table.LABELS[name]}: more cores / one", "threads": threads}
        | {"value": value / rate[name, 1], "bar": ">= 1.8" if threads == 2 else ""}
        for (name, threads), value in rate.items()
        if threads > 1 and (name, 1) in rate
    ]


def first_call(name: str, scene: Path) -> dict[str, Any]:
    """Time the first call in a new process without, then with, the cache on disk."""
    with tempfile.TemporaryDirectory() as folder:
        empty, filled = (
            measure.contender(name, scene, 1, cache=Path(folder), n_seeds=100) for _ in range(2)
        )
    return {
        "name": name,
        "empty_cache": empty["first_call_seconds"],
        "filled_cache": filled["first_call_seconds"],
    }


if __name__ == "__main__":
    main()
