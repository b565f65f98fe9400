"""What the interactive figures of a page share, put into the page once."""

from __future__ import annotations

import re

from difftract_bids.reports.templates import packaged_text

#: Class of a figure, and the script that draws it.
_SCRIPTS = {"view3d": "report/view3d.js", "matrix-view": "report/matrix.js"}
_SHARED, _STYLE = "report/interactive.js", "report/interactive.css"
#: Every figure that Plotly draws has this class.
_MARK = "needs-plotly"


def page_scripts(html: str) -> str:
    """Give what a page with interactive figures needs: Plotly's script, ours, and their style.

    All of it is in the page, nothing is fetched. It belongs before the figures, best in the head;
    several figures share it.

    Parameters
    ----------
    html
        The page, or its figures one after the other.

    Returns
    -------
    str
        ``<style>`` and ``<script>`` elements; nothing if no figure of the page needs them.
    """
    classes = {name for found in re.findall(r'\bclass="([^"]*)"', html) for name in found.split()}
    if _MARK not in classes:
        return ""
    from plotly.offline import get_plotlyjs  # slow to import, and most pages do without

    ours = [packaged_text(path) for name, path in _SCRIPTS.items() if name in classes]
    scripts = [get_plotlyjs(), packaged_text(_SHARED), *ours]
    style = f"<style>\n{packaged_text(_STYLE)}</style>\n"
    return style + "".join(f"<script>{_inside_script(text)}</script>\n" for text in scripts)


def _inside_script(text: str) -> str:
    """Keep text from ending its script element: these can only stand in strings or comments."""
    text = re.sub(r"</(?=script)", r"<\\/", text, flags=re.IGNORECASE)
    return text.replace("<!--", r"<\!--")
