"""Short ways to say what goes from one node to another."""

from __future__ import annotations

Fields = list[tuple[str, str]]


def same(*fields: str, source: str = "", target: str = "") -> Fields:
    """Connect fields of the same names.

    Parameters
    ----------
    *fields
        Their names.
    source, target
        What stands before them: ``outputnode.`` of a workflow that gives them, ``inputnode.`` of
        one that takes them.
    """
    return [(f"{source}{field}", f"{target}{field}") for field in fields]


def between(*fields: str, **renamed: str) -> Fields:
    """Connect outputs of a workflow to inputs of another, by the same or another name."""
    return same(*fields, source="outputnode.", target="inputnode.") + [
        (f"outputnode.{field}", f"inputnode.{other}") for field, other in renamed.items()
    ]
