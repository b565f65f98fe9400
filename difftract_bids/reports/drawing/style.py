"""How every figure looks and is saved: no display, no global state, the same bytes each time."""

from __future__ import annotations

import io
import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.text import Text

from difftract_bids.io.atomic import write_text_atomic
from difftract_bids.reports.drawing.compress import compress_svg

#: Pictures of the brain stand on black, charts on white; both keep their background in dark pages.
DARK, LIGHT = "#000000", "#ffffff"
TEXT_ON_DARK, TEXT_ON_LIGHT = "#d8d8d8", "#222222"
#: One outline on a grey picture; distinct from grey for every kind of colour vision.
OUTLINE = "#ff9e1b"
#: Okabe and Ito's colour-blind-safe palette without its yellow and black, and Tol's wine.
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#882255")

_SETTINGS = {
    "font.family": "DejaVu Sans",  # it comes with matplotlib, so the layout is the same anywhere
    "svg.fonttype": "path",
    "svg.hashsalt": "difftract-bids",
    "svg.image_inline": True,
    "path.simplify": True,
}


def new_figure(width_in: float, height_in: float, *, dark: bool = False) -> Figure:
    """Make a figure without a display or a window manager behind it.

    Parameters
    ----------
    width_in, height_in
        Size in inches; text of 8 points is readable when a figure 14 inches wide fills a page.
    dark
        Black background, for pictures of the brain.
    """
    return Figure(figsize=(width_in, height_in), facecolor=DARK if dark else LIGHT)


def save_svg(figure: Figure, path: str | os.PathLike[str], *, dpi: float = 150.0) -> Path:
    """Save a figure as SVG; what was drawn with ``rasterized=True`` is embedded at ``dpi``.

    The drawing is as large as the page makes it, and its pictures are compressed.

    Returns
    -------
    Path
        The absolute path written.
    """
    target = Path(path).absolute()
    drawing = io.StringIO()
    _take_literally(figure)
    with mpl.rc_context(_SETTINGS):
        figure.savefig(
            drawing,
            format="svg",
            dpi=dpi,
            facecolor=figure.get_facecolor(),
            metadata={"Date": None, "Creator": None},
        )
    write_text_atomic(target, compress_svg(drawing.getvalue()))
    return target


def _take_literally(figure: Figure) -> None:
    """Draw the dollars of names as they are: between two of them Matplotlib reads formulas.

    Powers of ten beside logarithmic scales are formulas of Matplotlib's own, and stay so.
    """
    for text in figure.findobj(Text):
        if "$" in text.get_text() and r"\mathdefault" not in text.get_text():
            text.set_parse_math(False)


def direction_colors(directions: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
    """Colour directions in scanner axes: red left-right, green front-back, blue up-down.

    Parameters
    ----------
    directions
        Vectors of any length, RAS+ axes; zero vectors become black.

    References
    ----------
    Pajevic and Pierpaoli 1999, doi:10.1002/(SICI)1522-2594(199909)42:3<526::AID-MRM15>3.0.CO;2-J.
    """
    length = np.linalg.norm(directions, axis=-1, keepdims=True)
    return np.abs(directions) / np.where(length > 0, length, 1.0)


def label_colors(n_labels: int) -> Float[np.ndarray, "label 3"]:
    """Give every label a bright colour, unlike that of its neighbours in number.

    Hues advance by the golden ratio, lightness alternates: consecutive labels, which often touch,
    differ by more than a third of the circle.
    """
    hue = (np.arange(n_labels) * 0.618034) % 1.0
    value = np.where(np.arange(n_labels) % 2, 1.0, 0.85)
    saturation = np.where(np.arange(n_labels) // 2 % 2, 0.55, 0.9)
    return mpl.colors.hsv_to_rgb(np.stack([hue, saturation, value], axis=-1))


def shell_colors(n_shells: int) -> list[str]:
    """Give each shell its colour, the lowest b-value first: no two have the same.

    More shells than :data:`CATEGORIES` get darker to lighter colours, as of a scale.
    """
    if n_shells <= len(CATEGORIES):
        return list(CATEGORIES[:n_shells])
    # The lightest of the map cannot be seen on white.
    scale = mpl.colormaps["viridis"](np.linspace(0.0, 0.88, n_shells))
    return [mpl.colors.to_hex(color) for color in scale]


def sequential_map(name: str = "viridis", *, blank: str = "#eeeeee") -> Colormap:
    """Copy a colour-blind-safe map, with one neutral colour for what has no value."""
    return mpl.colormaps[name].with_extremes(bad=blank)
