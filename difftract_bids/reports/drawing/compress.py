"""Pictures within a drawing, stored as small as what they show allows."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

#: Opaque pictures of at least so many pixels may lose what nobody sees; smaller ones are magnified
#: on the page, so that their pixels are what is looked at, and stay as they are.
LARGE_PIXELS = 200_000
_QUALITY = 87
#: A quantised picture may differ from the original by so much in each channel, of 255.
_INVISIBLE = 4
_EMBEDDED = re.compile(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)")
_IMAGE = re.compile(r"<image\b[^>]*>")
_PATH = re.compile(r' d="[^"]*"')
#: A hundredth of a point is enough.
_DIGITS = re.compile(r"(\.\d\d)\d+")
_SIZE = re.compile(r' (?:width|height)="[^"]*"')
#: Matplotlib asks the browser for hard pixels; a picture that is shown smaller would lose lines.
_HARD_PIXELS = re.compile(r' style="image-rendering:[^"]*"')
#: Matplotlib names a picture by the bytes of a file that is not kept, and nothing refers to it.
_NAME = re.compile(r' id="image[^"]*"')


def compress_svg(text: str) -> str:
    """Store the pictures of an SVG smaller, and leave its size to the page.

    Large opaque pictures become JPEG, if that is smaller; all others stay PNG without loss, of
    the fewest channels or of a palette, but for transparent pictures of more colours than a
    palette has: those take one if no colour changes visibly. Lines are rounded to hundredths of a
    point. Width and height of the drawing are
    left out, and what stands before it, as NiReports does with the figures of a report: it then
    finds nothing to change.

    Parameters
    ----------
    text
        SVG as Matplotlib writes it, its pictures embedded as PNG.

    Returns
    -------
    str
        The same drawing; the same each time.
    """
    start = text.index("<svg")
    end = text.index(">", start)
    drawing = _IMAGE.sub(_compressed, text[end:].rstrip())
    drawing = _PATH.sub(lambda path: _DIGITS.sub(r"\1", path[0]), drawing)
    return _SIZE.sub("", text[start:end]) + drawing


def encode(picture: Image.Image) -> tuple[str, bytes]:
    """Encode a picture in the smaller of the formats that show it unchanged.

    Returns
    -------
    str
        ``png`` or ``jpeg``.
    bytes
        The file.
    """
    pixels = np.asarray(picture.convert("RGBA"))
    opaque = bool((pixels[..., 3] == 255).all())
    png = _as_png(_reduced(pixels, opaque=opaque))
    if opaque and pixels[..., 0].size >= LARGE_PIXELS:
        jpeg = _as_jpeg(pixels)
        if len(jpeg) < len(png):
            return "jpeg", jpeg
    return "png", png


def with_palette(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce an RGB picture to 256 colours, which stores sharp lines in a third of the bytes."""
    fewer = Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE)
    return np.asarray(fewer.convert("RGB"))


def _compressed(match: re.Match[str]) -> str:
    element = _NAME.sub("", match[0])
    found = _EMBEDDED.search(element)
    if found is None:
        return element
    original = base64.b64decode(found[1])
    picture = Image.open(io.BytesIO(original))
    kind, content = encode(picture)
    if picture.width * picture.height >= LARGE_PIXELS:
        element = _HARD_PIXELS.sub("", element)
    if len(content) >= len(original):
        return element
    code = base64.b64encode(content).decode("ascii")
    return _EMBEDDED.sub(f"data:image/{kind};base64,{code}", element)


def _reduced(pixels: NDArray[np.uint8], *, opaque: bool) -> Image.Image:
    """Leave out channels that say nothing, and number the colours where there are few."""
    if opaque and (np.ptp(pixels[..., :3], axis=-1) == 0).all():
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
    # What is transparent has no colour: whatever is written there would only cost bytes.
    shown = np.where(pixels[..., 3:] > 0, pixels, np.uint8(0))
    codes = np.ascontiguousarray(shown).view(np.uint32)[..., 0]
    values, numbers = np.unique(codes, return_inverse=True)
    if len(values) <= 256:
        return _numbered(numbers.reshape(codes.shape), values.view(np.uint8).reshape(-1, 4))
    if opaque:
        return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    full = Image.fromarray(shown)
    fewer = full.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    change = np.asarray(fewer.convert("RGBA")).astype(int) - shown
    return fewer if np.abs(change).max() <= _INVISIBLE else full


def _numbered(numbers: NDArray[np.intp], colors: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(numbers.astype(np.uint8), mode="P")
    picture.putpalette(np.ascontiguousarray(colors[:, :3]).tobytes())
    if (colors[:, 3] < 255).any():
        picture.info["transparency"] = np.ascontiguousarray(colors[:, 3]).tobytes()
    return picture


def _as_png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="png", optimize=True)
    return stream.getvalue()


def _as_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    room = ImageFile.MAXBLOCK
    # Pillow keeps room for a byte a pixel, and noise takes more. The room is also that of the
    # blocks of every PNG: left enlarged, it would change all that is drawn afterwards.
    ImageFile.MAXBLOCK = max(room, pixels.size)
    try:
        # Colours at full resolution: thin coloured lines would bleed otherwise.
        Image.fromarray(np.ascontiguousarray(pixels[..., :3])).save(
            stream, format="jpeg", quality=_QUALITY, subsampling=0, optimize=True, progressive=True
        )
    finally:
        ImageFile.MAXBLOCK = room
    return stream.getvalue()
