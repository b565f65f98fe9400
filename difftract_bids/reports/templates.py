"""The templates of the report's text, packaged as data."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined

from difftract_bids.io.atomic import write_text_atomic

PAGE, SPEC, BIBLIOGRAPHY = "report/page.html.jinja", "reports-spec.yml", "boilerplate.bib"


def packaged_text(name: str) -> str:
    """Read a packaged text file, named relative to the package's ``data`` folder."""
    return files("difftract_bids.data").joinpath(name).read_text(encoding="utf-8")


def render(name: str, **values: object) -> str:
    """Fill in a template of ``data/report``; everything is escaped if it makes HTML."""
    environment = Environment(
        loader=FunctionLoader(lambda path: packaged_text(f"report/{path}")),
        undefined=StrictUndefined,
        autoescape=".html." in name,  # noqa: S701 - the other templates make Markdown
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)


def save_text(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a text file and return its absolute path."""
    target = Path(path).absolute()
    write_text_atomic(target, text)
    return target
