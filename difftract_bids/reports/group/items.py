"""What a page is put together from: texts, filled templates and pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from markupsafe import Markup

from difftract_bids.reports.templates import render

#: What names a part of a drawing, or points to one.
_PART = re.compile(r'(\bid="|href="#|url\(#)')
#: One thing to show, as the template of pages wants it.
Item = dict[str, Any]


def item(
    name: str,
    content: Markup,
    *,
    title: str = "",
    subtitle: str = "",
    description: str = "",
    caption: str = "",
) -> Item:
    """Give one thing to show, below a title and beside what is to be said of it."""
    return {
        "name": name,
        "title": title,
        "subtitle": subtitle,
        "description": description,
        "components": [(content, caption)],
    }


def filled(name: str, **values: object) -> Markup:
    """Fill in a template."""
    return Markup(render(name, **values))  # noqa: S704 - escaped by the template


def picture(path: Path, alternative: str) -> Markup:
    """Show a figure that lies in ``group/figures``."""
    # Without a space after img, where the page puts an alternative text of its own.
    return Markup(
        '<div class="reportlet"><img\nsrc="./group/figures/{}" alt="{}" /></div>'
    ).format(path.name, alternative)


def inline(path: Path, alternative: str) -> Markup:
    """Take a drawing into the page, so that the links in it work.

    Its parts get names of its own: there may be several drawings on the page.
    """
    text = path.read_text(encoding="utf-8")
    svg = _PART.sub(rf"\g<1>{path.stem}-", text[text.index("<svg") :])
    label = Markup('<svg role="img" aria-label="{}" ').format(alternative)
    # Drawn by us; Matplotlib has escaped the names in it.
    drawing = label + Markup(svg.removeprefix("<svg "))  # noqa: S704
    return Markup('<div class="reportlet inline">{}</div>').format(drawing)


def in_words(units: str) -> str:
    """Write a unit as people do."""
    return units.replace("^2", "²").replace("^3", "³")
