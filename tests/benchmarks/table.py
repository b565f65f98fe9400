"""The figures as Markdown."""

from __future__ import annotations

from typing import Any

#: What is shown of each contender, in this order.
LABELS = {
    "tckgen": "tckgen 3.0.3",
    "forward": "forward",
    "gradient": "forward + gradient",
    "to_file": "forward, thinned, to TRX",
    "reference": "reference (PyTorch)",
    "dipy": "DIPY deterministic",
}


def markdown(report: dict[str, Any]) -> str:
    """Lay a report out in tables."""
    parts = [
        _about(report),
        _side_by_side(report),
        _ratios(report),
        _memory(report),
        _growth(report),
        _lmax(report),
        _first_calls(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(report: dict[str, Any]) -> str:
    machine, scene = report["machine"], report["scene"]
    shape = " x ".join(map(str, scene["shape"]))
    return (
        f"{scene['name']}, {shape} voxels, {scene['coefficients']} coefficients. "
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"Python {machine['python']}, PyTorch {machine['torch']}, numba {machine['numba']}, "
        f"DIPY {machine['dipy']}, {machine['tckgen'] or 'no tckgen'}. "
        f"Medians of {report['repeats']} (reference and DIPY: one run); "
        "random seeds in the mask, random directions, defaults. "
        "Compilation and image loading are left out."
    )


def _side_by_side(report: dict[str, Any]) -> str:
    rows = []
    for row in report["contenders"]:
        vertices = f"{row['vertices_per_second'] / 1e6:.3g} M"
        rows.append(
            (
                LABELS[row["name"]],
                row["threads"],
                f"{row['n_seeds']:,}",
                f"{row['streamlines']:,}",
                f"{row['seconds']:.3g}",
                f"{row['streamlines_per_second']:,.0f}",
                vertices,
                f"{row['peak_mib']:,.0f}",
            )
        )
    heads = ("", "cores", "seeds", "kept", "seconds", "streamlines/s", "vertices/s", "peak MiB")
    return _table(heads, rows)


def _ratios(report: dict[str, Any]) -> str:
    rows = [
        (ratio["what"], ratio["threads"], f"{ratio['value']:.2f}", ratio["bar"])
        for ratio in report["ratios"]
    ]
    return _table(("ratio", "cores", "measured", "aim"), rows) if rows else ""


def _memory(report: dict[str, Any]) -> str:
    rows = [
        (
            row["threads"],
            f"{row['peak_less_cotangents_mib']:,.0f}",
            f"{row['memory_bar_mib']:,.0f}",
        )
        for row in report["contenders"]
        if row["name"] == "gradient"
    ]
    heads = ("gradient: cores", "peak MiB", "fODF x (cores + 2) + points x 4")
    return _table(heads, rows) if rows else ""


def _growth(report: dict[str, Any]) -> str:
    rows = [
        (f"{row['streamlines']:,}", f"{row['seconds']:.3g}", f"{row['peak_mib']:,.0f}")
        for row in report.get("growth", [])
    ]
    return _table(("streamlines", "seconds", "peak MiB"), rows) if rows else ""


def _lmax(report: dict[str, Any]) -> str:
    rows = [
        (
            row["lmax"],
            f"{row['forward_ns_per_vertex']:.0f}",
            f"{row['backward_ns_per_vertex']:.0f}",
        )
        for row in report.get("lmax", [])
    ]
    heads = ("lmax", "forward, ns a vertex and core", "backward, ns a vertex and core")
    return _table(heads, rows) if rows else ""


def _first_calls(report: dict[str, Any]) -> str:
    rows = [
        (LABELS[row["name"]], f"{row['empty_cache']:.1f}", f"{row['filled_cache']:.2f}")
        for row in report.get("first_calls", [])
    ]
    heads = ("first call, seconds", "compiling", "from the cache on disk")
    return _table(heads, rows) if rows else ""


def _table(heads: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [heads, ("---",) + ("---:",) * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
