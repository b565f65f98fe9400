"""BIDS' inheritance principle: which gradient tables and sidecars apply to a diffusion image."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from difftract_bids.bids.listing import names_in
from difftract_bids.bids.templates import entities_of
from difftract_bids.errors import InputError


def companion(root: Path, image: Path, extension: str) -> Path:
    """Find the closest file that goes with an image.

    Parameters
    ----------
    root
        Folder of the dataset.
    image
        The diffusion image.
    extension
        Of the file, without the dot.

    Raises
    ------
    InputError
        If there is none.
    """
    found = companions(root, image, extension)
    if not found:
        raise InputError(
            f"The diffusion image has no .{extension} file.",
            where=image,
            remedy=f"Put {image.name.split('.', maxsplit=1)[0]}.{extension} beside it.",
        )
    return found[0]


def companions(root: Path, image: Path, extension: str, suffix: str = "dwi") -> list[Path]:
    """List the files that apply to an image by the inheritance principle, the closest first.

    They lie beside the image or in a folder above it, and their names hold no entity that the
    image's does not (https://bids-specification.readthedocs.io, common principles).
    """
    own = entities_of(image).items()
    last = f"{suffix}.{extension}"
    found = []
    for folder in itertools.takewhile(lambda f: f.is_relative_to(root), image.parents):
        names = names_in(folder)
        named = [folder / name for name in names if name == last or name.endswith(f"_{last}")]
        here = [path for path in named if entities_of(path).items() <= own]
        found += sorted(here, key=lambda path: -len(entities_of(path)))
    return found


def read_sidecars(root: Path, image: Path, suffix: str = "dwi") -> dict[str, Any]:
    """Merge the JSON sidecars of an image of that suffix; empty if it has none.

    Raises
    ------
    InputError
        If one cannot be read, or holds something else than an object.
    """
    merged: dict[str, Any] = {}
    # From the most general to the closest file: the closest has the last word.
    for path in reversed(companions(root, image, "json", suffix)):
        try:
            merged.update(read_json_object(path))
        except (OSError, ValueError) as error:
            raise InputError(
                f"The sidecar is not valid JSON: {error}.", where=path, remedy="Mend the file."
            ) from error
    return merged


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object, with or without the mark that some editors add.

    Raises
    ------
    OSError, ValueError
        If it cannot be read or holds something else.
    """
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not an object")  # noqa: TRY004
    return content
