"""Time each part side by side with MRtrix3 and DIPY: JSON and Markdown tables.

Of each part everything on the same data, in alternation, each run a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import measure

#: Each is a package with a module ``bench``: its functions ``measure_all`` and ``markdown``.
PARTS = ("tracking", "deconvolution", "connectome", "sift2", "learning")
CONTENDERS = (
    *("tckgen", "dwi2fod", "tck2connectome", "tcksift2"),
    *("forward", "gradient", "to_file", "reference", "dipy", "connectome", "weights"),
    *("fodf_step", "kernel_step", "reference_step"),
)
SLOW = ("reference", "dipy")

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the helpers of the tests


def main(words: Sequence[str] | None = None) -> None:
    """Measure each part and write ``<part>.json`` and ``<part>.md``."""
    options = parse(words)
    options.output.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        bench = import_module(f"{part}.bench")
        start = time.perf_counter()
        report = {"machine": measure.machine(), "repeats": options.repeats}
        report |= bench.measure_all(options, (options.cache or options.output / "scene") / part)
        report["seconds"]["all"] = time.perf_counter() - start
        (options.output / f"{part}.json").write_text(json.dumps(report, indent=2) + "\n")
        text = bench.markdown(report)
        (options.output / f"{part}.md").write_text(text)
        print(text)  # noqa: T201 - a program that is run by hand


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default all")
    add("--output", type=Path, required=True, help="folder of the results")
    add("--cache", type=Path, help="folder of the data, kept between runs; default OUTPUT/scene")
    add("--data", type=Path, help="folder of the real data; default ../shared/data")
    add("--phantom", action="store_true", help="use phantoms, also where there are real data")
    add(
        "--phantom-voxel-size-mm",
        type=float,
        default=4.0,
        help="of those that are deconvolved or learnt",
    )
    add("--quick", action="store_true", help="two minutes instead of eighteen")
    add("--seeds", type=int, help="seeds of tracking, of tracks counted and weighed, of learning")
    add("--voxels", type=int, help="voxels in a run of csd; a sixth for msmt_csd")
    add("--repeats", type=int, help="runs of each contender, medians are told; default 3, quick 1")
    add("--threads", type=int, nargs="+", default=[1, 2], help="core counts")
    add("--contenders", nargs="+", choices=CONTENDERS, help="default all; quick: not the slow")
    skippable = ["agreement", "growth", "lmax", "memory", "first-calls"]
    add("--skip", nargs="*", choices=skippable, help="tables to leave out; quick: first-calls")
    options = parser.parse_args(words)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part called {', '.join(unknown)}: {', '.join(PARTS)}")
    options.parts = options.parts or list(PARTS)
    options.repeats = options.repeats or (1 if options.quick else 3)
    if options.contenders is None:
        options.contenders = [c for c in CONTENDERS if not (options.quick and c in SLOW)]
    if options.skip is None:
        options.skip = ["first-calls"] if options.quick else []
    return options


if __name__ == "__main__":
    main()
