"""The figures of deconvolution as Markdown."""

from __future__ import annotations

from typing import Any

import table


def markdown(report: dict[str, Any]) -> str:
    """Lay a report out in tables, problem by problem."""
    parts = [_about(report)]
    for problem in report["problems"]:
        parts += _of_problem(problem)
    return table.page(parts)


def _about(report: dict[str, Any]) -> str:
    return (
        f"Deconvolution. {table.machine(report['machine'])} "
        f"Medians of {report['repeats']} (reference: one run); lmax 8, the same responses and 300 "
        "constraint directions for all, voxels of the brain in random order. "
        "Compilation, loading and writing images are left out."
    )


def _of_problem(problem: dict[str, Any]) -> list[str]:
    return [
        _heading(problem),
        _side_by_side(problem["contenders"]),
        table.ratios(problem["ratios"]),
        _agreement(problem),
        _growth(problem.get("growth", [])),
        _lmax(problem.get("lmax", [])),
        table.first_calls(problem.get("first_calls", [])),
    ]


def _heading(problem: dict[str, Any]) -> str:
    scene = problem["scene"]
    shells = ", ".join(f"{n} at b={bval}" for bval, n in scene["shells"])
    return (
        f"**{problem['name']}** ({', '.join(scene['tissues'])}): {scene['name']}, "
        f"{scene['voxels_in_mask']:,} voxels in the mask; {shells} s/mm²."
    )


def _side_by_side(rows: list[dict[str, Any]]) -> str:
    heads = ("", "cores", "voxels", "seconds", "voxels/s", "ms a voxel and core", "peak MiB")
    return table.grid(
        heads,
        (
            (
                row["label"],
                row["threads"],
                f"{row['voxels']:,}",
                f"{row['seconds']:.3g}",
                f"{row['voxels_per_second']:,.0f}",
                f"{row['ms_per_voxel_and_core']:.3g}",
                f"{row['peak_mib']:,.0f}",
            )
            for row in rows
        ),
    )


def _agreement(problem: dict[str, Any]) -> str:
    found = problem.get("agreement")
    if found is None:
        return ""
    return (
        f"Coefficients beside dwi2fod's, relative difference in {found['voxels']:,} voxels: "
        f"median {found['median']:.1e}, 99th percentile {found['percentile_99']:.1e}."
    )


def _growth(rows: list[dict[str, Any]]) -> str:
    heads = ("", "voxels", "seconds", "image, MiB", "results, MiB", "peak above both, MiB")
    return table.grid(
        heads,
        (
            (
                row["label"],
                f"{row['voxels']:,}",
                f"{row['seconds']:.3g}",
                f"{row['image_mib']:,.1f}",
                f"{row['result_mib']:,.1f}",
                f"{row['peak_above_mib']:,.0f}",
            )
            for row in rows
        ),
    )


def _lmax(rows: list[dict[str, Any]]) -> str:
    ahead, back = "forward_us_per_voxel", "backward_us_per_voxel"
    return table.grid(
        ("lmax", "forward, µs a voxel and core", "backward, µs a voxel and core"),
        ((row["lmax"], f"{row[ahead]:.3g}", f"{row[back]:.3g}") for row in rows),
    )
