"""The methods text of a report, ready to be copied into a paper.

Each workflow writes its own paragraph in its ``__desc__``, citing ``data/boilerplate.bib`` by
``[@key]``: the text says what the graph does, whoever composed it.
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

from markupsafe import Markup

from difftract_bids.reports.page.references import Reference, cited, spelled_out
from difftract_bids.reports.templates import render, save_text


def methods_markdown(text: str) -> str:
    """Write the methods text as Markdown, with its references: the content of ``CITATION.md``.

    Parameters
    ----------
    text
        Paragraphs of a workflow (``workflow.visit_desc()``), ``###`` headings and ``[@key]``
        citations included. What several diffusion runs have in common is said once.

    Raises
    ------
    KeyError
        If a citation is not in the bibliography.
    """
    source = _paragraphs(text)
    entries = [
        f"{i}. {entry.authors} ({entry.year}). {entry.title}. *{entry.journal}*. {entry.url}"
        for i, entry in enumerate(cited(source), start=1)
    ]
    entries = [entry.rstrip() for entry in entries]  # some have no address
    body = spelled_out(source, lambda reference: reference.short)
    return "\n".join([body, "", "### References", "", *entries, ""])


def write_methods(text: str, path: str | os.PathLike[str]) -> Path:
    """Write the methods text as an HTML snippet, with linked references and its own Markdown.

    Parameters
    ----------
    text
        As for :func:`methods_markdown`.
    path
        HTML to write.

    Returns
    -------
    Path
        The absolute path written.
    """
    source = _paragraphs(text)
    snippet = render(
        "methods.html.jinja",
        body=Markup(_html(source)),  # noqa: S704 - _html escapes every paragraph
        references=cited(source),
        markdown=methods_markdown(text),
    )
    return save_text(snippet, path)


def _paragraphs(text: str) -> str:
    """Gather what belongs under each heading, in order of appearance, and say each thing once.

    Workflows are visited in the order of their edges, which may put one stage between two parts
    of another.
    """
    sections: dict[str, dict[str, None]] = {}
    section = sections.setdefault("", {})
    for line in text.splitlines():
        block = " ".join(line.split())
        if block.startswith("### "):
            section = sections.setdefault(block, {})
        elif block:
            section[block] = None
    blocks = [block for heading, section in sections.items() for block in (heading, *section)]
    return "\n\n".join(block for block in blocks if block)


def _html(source: str) -> str:
    """Turn headings, emphasis and citations into HTML; everything else is escaped."""

    def link(reference: Reference) -> str:
        return f'<a href="#ref-{reference.key}">{html.escape(reference.short)}</a>'

    lines = []
    for block in html.escape(source, quote=False).split("\n\n"):
        text = spelled_out(re.sub(r"\*(\w+)\*", r"<em>\1</em>", block), link)
        heading = re.fullmatch(r"### (.*)", text)
        lines.append(f"<h4>{heading[1]}</h4>" if heading else f"<p>{text}</p>")
    return "\n".join(lines)
