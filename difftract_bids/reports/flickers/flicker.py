"""Two pictures of one thing that take turns where they stand: the eye sees what changed."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy import asarray, ndarray
from PIL import Image

from difftract_bids.reports.templates import render, save_text

_WIDTH_PX = 1400
#: Both pictures and what is about them weigh less than 450 kB, written as text.
_MAX_CHARACTERS = 440_000
_QUALITIES = (80, 74, 66, 58, 50)
#: Where even the lowest quality is too heavy, as for pictures of noise, there are fewer pixels.
_SCALES = (1.0, 0.75, 0.5, 0.3)


class _Shown(NamedTuple):
    name: str
    alt: str
    uri: str


def write_flicker(
    before: Figure,
    after: Figure,
    path: str | os.PathLike[str],
    *,
    title: str,
    alts: tuple[str, str],
    names: tuple[str, str] = ("before", "after"),
) -> Path:
    """Write two figures of one size as a part of a page that shows them in turn.

    At rest the second is shown; they take turns while the reader points at them, and three radio
    buttons hold on to either. It works without a script; how it looks is said by ``flicker.css``
    among the report's templates, once per page. Where pixels of the figures are the same, those of
    the page are: JPEG keeps what changes within blocks of eight.

    Parameters
    ----------
    before, after
        Figures of equal size.
    path
        Part of a page (HTML) to write; its pictures are in it.
    title
        What the two show, for those who do not see them.
    alts
        What the first and what the second shows, likewise.
    names
        Of the two, in their corners and on the buttons.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If the figures differ in size.
    """
    pixels = [_rasterised(figure) for figure in (before, after)]
    if pixels[0].shape != pixels[1].shape:
        raise ValueError(f"Pictures of {pixels[0].shape} and {pixels[1].shape} pixels.")
    encoded, size = _encoded(pixels)
    shown = [
        _Shown(name, alt, "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii"))
        for name, alt, picture in zip(names, alts, encoded, strict=True)
    ]
    said = (title, *(field for one in shown for field in one))
    digest = hashlib.sha256("\0".join(said).encode("utf-8"))
    text = render(
        "flicker.html.jinja",
        id=f"flicker-{digest.hexdigest()[:12]}",
        title=title,
        pictures=shown,
        size=size,
    )
    return save_text(text, path)


def _rasterised(figure: Figure) -> UInt8[ndarray, "y x 3"]:
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_WIDTH_PX / figure.get_figwidth())
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        canvas.draw()
    return asarray(canvas.buffer_rgba())[..., :3].copy()


def _encoded(pixels: Sequence[UInt8[ndarray, "y x 3"]]) -> tuple[list[bytes], tuple[int, int]]:
    """Compress pictures alike, as well as their weight allows; also gives width and height."""
    pictures = [Image.fromarray(one) for one in pixels]
    for smaller, quality in _ways():
        size = (round(smaller * pictures[0].width), round(smaller * pictures[0].height))
        encoded = [_jpeg(one if smaller == 1 else one.resize(size), quality) for one in pictures]
        if sum(map(len, encoded)) * 4 / 3 < _MAX_CHARACTERS:
            break
    return encoded, size


def _ways() -> Iterator[tuple[float, int]]:
    for scale in _SCALES:
        yield from ((scale, quality) for quality in _QUALITIES)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    # Colours at full resolution: thin coloured lines would bleed otherwise.
    picture.save(
        stream, format="jpeg", quality=quality, subsampling=0, optimize=True, progressive=True
    )
    return stream.getvalue()
