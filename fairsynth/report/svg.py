"""Matplotlib figure -> inline SVG: text stays text, colours follow the page's theme, ids never clash.

In:  a drawing function.   Out: one `<svg>` element as a string.
Never: pyplot or its global state, a network address, a raster.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any, cast

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Sentinels: colours that the page's stylesheet decides. Any matplotlib colour works as long as nothing else uses it.
INK = "#010203"
FAINT = "#040506"
_THEME = {INK: "var(--ink)", FAINT: "var(--faint)"}

# Okabe and Ito's palette for colour-blind readers, without yellow (unreadable on white) and black (reserved for ink).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C6D31", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)), (0, (7, 2)))

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fairsynth",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


def colour(index: int) -> str:
    """The palette's colour for series `index`."""
    return PALETTE[index % len(PALETTE)]


def marker(index: int) -> str:
    """A marker that tells series `index` apart without colour."""
    return MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]


def dash(index: int) -> Any:
    """A line style that tells series `index` apart without colour."""
    return DASHES[(index + index // len(PALETTE)) % len(DASHES)]


def draw(drawing: Callable[[Figure], None], *, name: str, alt: str, size: tuple[float, float]) -> str:
    """Run `drawing` on a new figure of `size` inches, and return it as an `<svg>` with `alt` as its description."""
    with mpl.rc_context(cast(Any, _STYLE)):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        drawing(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(buffer.getvalue(), name=name, alt=alt)


def _inline(text: str, *, name: str, alt: str) -> str:
    """Keep the `<svg>` element alone; theme its colours; prefix its ids with `name`; describe it."""
    body = text[text.index("<svg") :].strip()
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\s(?:xmlns(?::xlink)?|version)="[^"]*"', "", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    for sentinel, variable in _THEME.items():
        body = body.replace(sentinel, variable)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # would apply to the whole page
    body = body.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")
    opening, _, rest = body.partition(">")
    opening = re.sub(r'\s(?:width|height)="[^"]*"', "", opening)
    described = f'{opening} role="img" aria-labelledby="{name}-alt">'
    return f'{described}<desc id="{name}-alt">{escape(alt)}</desc>{rest}'
