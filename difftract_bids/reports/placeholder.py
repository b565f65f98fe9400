"""What stands where a figure could not be drawn: a picture or snippet that says so, and why."""

from __future__ import annotations

import html
import os
import re
import textwrap
from pathlib import Path

from difftract_bids.reports.templates import save_text

#: By this, with the reason, a placeholder is told from a figure.
_MARK = "difftract-not-drawn"
_REASON = re.compile(rf'data-{_MARK}="(?P<reason>[^"]*)"')
#: So much is read of a file to find its mark, bytes, and so long are reasons, letters: the mark of
#: the longest one fits, whatever alphabet it is in and however much of it is escaped.
_BEGINNING, _LONGEST = 4096, 500
_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 {height}" data-{mark}="{reason}">\n'
    '<rect width="1000" height="{height}" fill="#f5f0e6"/>\n'
    '<rect width="8" height="{height}" fill="#b45309"/>\n'
    '<text x="30" y="44" font-family="sans-serif" font-size="22" font-weight="bold" '
    'fill="#7c3a06">This figure could not be drawn</text>\n{lines}</svg>\n'
)
_LINE = (
    '<text x="30" y="{y}" font-family="sans-serif" font-size="17" fill="#1d2329">{text}</text>\n'
)
_HTML = (
    '<p class="not-drawn" data-{mark}="{reason}"><strong>This part could not be made.</strong> '
    "{reason} {advice}</p>\n"
)
_ADVICE = (
    "The results themselves are not touched by it. --reports-only draws the figures again; if it "
    "fails again, the log of the step tells where."
)


def write_placeholder(path: str | os.PathLike[str], error: BaseException) -> Path:
    """Write what stands in for a figure or snippet that could not be made.

    Parameters
    ----------
    path
        SVG or HTML file to write.
    error
        What went wrong.

    Returns
    -------
    Path
        The absolute path written.
    """
    reason = reason_of(error)
    quoted = html.escape(reason, quote=True)
    if Path(path).suffix == ".html":
        return save_text(_HTML.format(mark=_MARK, reason=quoted, advice=_ADVICE), path)
    rows = [*textwrap.wrap(reason, 110), "", *textwrap.wrap(_ADVICE, 110)]
    lines = "".join(
        _LINE.format(y=84 + 26 * number, text=html.escape(row)) for number, row in enumerate(rows)
    )
    height = 84 + 26 * len(rows)
    return save_text(_SVG.format(mark=_MARK, reason=quoted, height=height, lines=lines), path)


def reason_of(error: BaseException) -> str:
    """Say in one line what went wrong, of letters that every kind of file may hold."""
    # Errors quote files: bytes that are no letters, and signs that XML has none for.
    letters = "".join(letter if letter.isprintable() else " " for letter in str(error))
    said = textwrap.shorten(letters, _LONGEST, placeholder=" ...", break_on_hyphens=False)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def reason_not_drawn(path: Path) -> str | None:
    """Say why a figure could not be drawn; ``None`` for one that was, or is not there."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING).decode("utf-8", errors="replace")
    except OSError:
        return None
    found = _REASON.search(beginning)
    return html.unescape(found["reason"]) if found else None
