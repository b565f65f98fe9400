"""Templates, and TemplateFlow's files: within reach or not, and how to say so."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from difftract_bids.errors import AtlasError

DEFAULT_TEMPLATE = "MNI152NLin2009cAsym"
#: The template of the built-in atlas; its brain T1w ships with nilearn.
NILEARN_TEMPLATE = "MNI152NLin2009aSym"
_NILEARN_T1W = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
_ENTITY = re.compile(r"(?:^|_)([a-zA-Z]+)-([a-zA-Z0-9+]+)(?=_)")
_OFFLINE = (
    "Set TEMPLATEFLOW_HOME to a folder that holds it, run once with a network, or use the "
    "built-in atlas ICBM100."
)


def from_templateflow(
    call: Literal["ls", "get"],
    template: str,
    *,
    offline: bool = False,
    **query: str | int | None,
) -> list[Path]:
    """List TemplateFlow's files, or get (download, if need be) those that fit a query.

    Parameters
    ----------
    call
        List, or get.
    template
        Name of the template.
    offline
        Never use the network: get what was downloaded before.
    query
        Entities of the files.

    Raises
    ------
    AtlasError
        If neither the local copy nor the network has them; the remedy says how to go on.
    """
    try:
        if offline:
            os.environ["TEMPLATEFLOW_AUTOUPDATE"] = "off"
        from templateflow import api  # reads TEMPLATEFLOW_HOME when imported

        # What was not downloaded lies there with no byte in it, or is a link to nothing.
        found = (api.ls if offline or call == "ls" else api.get)(template, **query)
    except (OSError, RuntimeError, ValueError) as error:
        raise AtlasError(
            f"TemplateFlow cannot be reached: {(str(error) or repr(error)).splitlines()[0]}",
            where=f"template {template}",
            remedy=_OFFLINE,
        ) from error
    paths = [Path(path) for path in (found if isinstance(found, list) else [found])]
    if call == "get" and any(not path.is_file() or not path.stat().st_size for path in paths):
        raise AtlasError(
            f"TemplateFlow's {paths[0].name} is not here, and the network may not be used."
            if offline
            else f"TemplateFlow could not download {paths[0].name}.",
            where=f"template {template}",
            remedy=_OFFLINE,
        )
    return paths


def template_t1w(template: str, dataset: Path, *, offline: bool = False) -> Path:
    """Find a template's T1w without skull: in the dataset, in nilearn, or in TemplateFlow.

    Parameters
    ----------
    template
        Name of the template.
    dataset
        Folder that the atlas was found in.
    offline
        Never use the network.

    Raises
    ------
    AtlasError
        If there is none within reach.
    """
    own = sorted((dataset / f"tpl-{template}").glob("*_desc-brain_T1w.nii*"))
    if own:
        return finest(own)
    if template == NILEARN_TEMPLATE:
        # Importing nilearn takes seconds, and only the path is needed here.
        nilearn = find_spec("nilearn")
        for location in (nilearn.submodule_search_locations or []) if nilearn else []:
            path = Path(location) / _NILEARN_T1W
            if path.is_file():
                return path
        raise AtlasError(
            "The T1w of the ICBM 152 2009a template is not where nilearn keeps it.",
            where=_NILEARN_T1W,
            remedy="Install the nilearn version of constraints.txt.",
        )
    for resolution in (1, 2, None):
        query = {"desc": "brain", "suffix": "T1w", "resolution": resolution}
        query |= {"extension": ".nii.gz"}
        if found := from_templateflow("get", template, offline=offline, **query):
            return found[0]
    raise AtlasError(
        f"There is no T1w without skull of the template {template}.",
        where=dataset / f"tpl-{template}",
        remedy=f"Add tpl-{template}_desc-brain_T1w.nii.gz there, or {_OFFLINE[0].lower()}"
        + _OFFLINE[1:],
    )


def finest(images: Sequence[Path]) -> Path:
    """Choose the image with the smallest voxels: nearest-neighbour resampling errs least there."""
    return min(images, key=lambda image: float(np.prod(nib.load(image).header.get_zooms()[:3])))


def entities_of(path: Path) -> dict[str, str]:
    """Read the entities of a BIDS file name."""
    return dict(_ENTITY.findall(path.name))
