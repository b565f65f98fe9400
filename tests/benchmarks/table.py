"""Figures as Markdown: what the parts of the benchmark have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def grid(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay rows out under heads; without rows there is no table."""
    rows = list(rows)
    if not rows:
        return ""
    lines = [heads, ("---",) + ("---:",) * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def page(parts: Iterable[str]) -> str:
    """Put parts one below the other; empty ones are left out."""
    return "\n\n".join(part for part in parts if part) + "\n"


def machine(found: dict[str, Any]) -> str:
    """Tell what was measured on, and with, in a sentence."""
    mrtrix = f"MRtrix3 {found['mrtrix']}" if found["mrtrix"] else "no MRtrix3"
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB; "
        f"Python {found['python']}, PyTorch {found['torch']}, numba {found['numba']}, "
        f"DIPY {found['dipy']}, {mrtrix}."
    )


def ratios(found: Iterable[dict[str, Any]]) -> str:
    """Show what was measured beside what was hoped for."""
    return grid(
        ("ratio", "cores", "measured", "aim"),
        ((row["what"], row["threads"], f"{row['value']:.2f}", row["aim"]) for row in found),
    )


def first_calls(found: Iterable[dict[str, Any]]) -> str:
    """Show how long the first call of a process takes."""
    return grid(
        ("first call, seconds", "compiling", "from the cache on disk"),
        ((r["label"], f"{r['empty_cache']:.1f}", f"{r['filled_cache']:.2f}") for r in found),
    )
