"""The sizes of a page's pictures, so that nothing moves while they are loaded."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

_IMAGE = re.compile(r'<img [^>]*\bsrc="\./(?P<path>[^"]+\.svg)"')
_VIEW_BOX = re.compile(r'\bviewBox="\s*\S+\s+\S+\s+(?P<width>[\d.]+)\s+(?P<height>[\d.]+)\s*"')
#: The root element of a vector picture is in here.
_HEAD = 4096


def with_picture_sizes(html: str, folder: Path) -> str:
    """Give each vector picture of a page the width and height that it will have.

    Pictures are loaded late. A link to what is below some would lead beside it if their room were
    not kept.

    Parameters
    ----------
    html
        The page, whose pictures are linked relative to it.
    folder
        Folder of the page, or one with the same pictures.

    Returns
    -------
    str
        The page; a picture that is not there, or does not say its size, is left as it is.
    """
    return _IMAGE.sub(partial(_sized, folder), html)


def _sized(folder: Path, image: re.Match[str]) -> str:
    try:
        with (folder / image["path"]).open(encoding="utf-8", errors="replace") as file:
            box = _VIEW_BOX.search(file.read(_HEAD))
    except OSError:
        return image[0]
    if box is None:
        return image[0]
    width, height = (round(float(box[name])) for name in ("width", "height"))
    return f'{image[0]} width="{width}" height="{height}"'
