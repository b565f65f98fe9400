"""Writing so that a final name always holds a whole file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difftract_bids.io.aside import AsideFile


def write_text_atomic(path: Path, text: str) -> None:
    """Write a text file aside and rename it: readers see the old content or the new, never half.

    Parameters
    ----------
    path
        Final name; its folder is made if need be.
    text
        Content, written as UTF-8.
    """
    aside = AsideFile(path)
    try:
        aside.stream.write(text.encode("utf-8"))
        aside.commit()
    finally:
        aside.discard()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole, indented, non-ASCII kept."""
    write_text_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
