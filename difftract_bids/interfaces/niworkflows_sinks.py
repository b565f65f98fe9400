"""niworkflows' module of sinks, loaded without indexing TemplateFlow.

As it is loaded it lists the templates that there are, to know names of spaces by. TemplateFlow has
pybids index all of its files for that: seconds of every start of the app, and more where the
folder lies across a network. What the list holds are the names of folders.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from templateflow import api, conf

if TYPE_CHECKING:
    from collections.abc import Callable


def templates_on_disk() -> list[str]:
    """List the templates of TemplateFlow's folder, as its own ``templates`` does."""
    folders = conf.TF_HOME.glob("tpl-*")
    return sorted(path.name.removeprefix("tpl-") for path in folders)


def load_sinks() -> Any:
    """Load ``niworkflows.interfaces.bids``, with the same list of templates."""
    own: Callable[..., list[str]] = api.templates
    api.templates = lambda: templates_on_disk() or own()
    try:
        return importlib.import_module("niworkflows.interfaces.bids")
    finally:
        del api.templates  # the module finds its own again
