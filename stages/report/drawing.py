"""A matplotlib figure as a part of the page: text stays text, and colours are the page's own.

A figure is drawn in stand-in colours; each becomes a variable of the page's style sheet, so that
one drawing serves by day and by night.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, fromstring

from stages.report.markup import CHART, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.6, 2.7  # inches; a chart is as wide as half of a page, or a whole phone
SALT = "wm"  # equal charts have equal bytes
NUM_COLOURS = 8
INK, MUTED, GRID = "#010101", "#020202", "#030303"
COLOURS = tuple(f"#1000{number:02x}" for number in range(NUM_COLOURS))
_VARIABLES = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--rule)"} | {
    colour: f"var(--c{number})" for number, colour in enumerate(COLOURS)
}
_COLOUR = re.compile("|".join(_VARIABLES))
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT = re.compile(r"font-family: [^;]*;? ?|(?<=font: )[^;]*?([\d.]+px) [^;]*")
_REFERENCE = re.compile(r"(?:url\(|^)#([^)]+)")
_NAMESPACE = re.compile(r"\{[^}]*\}")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": SALT,
    "font.size": 10.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "lines.linewidth": 1.6,
    "path.simplify": True,
    "text.parse_math": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
}


def axes_for(x: str, y: str, *, height: float = HEIGHT) -> "tuple[Figure, Axes]":
    """A figure with one plot; its height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.locator_params(axis="x", nbins=6)  # labels that do not touch
    if y:
        axes.set_title(y, loc="left", fontsize=10, color=MUTED)  # above: no turned heads
    return figure, axes


@contextmanager
def styled() -> Iterator[None]:
    """A block in which figures look as those of a report do."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Letters that matplotlib has no font for: the reader's browser has.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def svg(figure: "Figure", told: str, *, crop: bool = True) -> Element:
    """The figure as an element of the page; `told` stands for it where it cannot be seen."""
    content = io.BytesIO()
    if crop:
        figure.tight_layout(pad=0.3)
    nobody: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(content, format="svg", metadata=nobody, transparent=True)
    drawing: Element = fromstring(content.getvalue())
    for part in list(drawing):
        if part.tag.endswith("metadata"):
            drawing.remove(part)
    for part in drawing.iter():
        _tidy(part)
    used = {name for part in drawing.iter() for v in part.attrib.values() for name in _names(v)}
    for part in drawing.iter():
        if part.get("id") not in used:
            part.attrib.pop("id", None)
    drawing.attrib.pop("version", None)
    drawing.attrib.pop("width", None)
    drawing.attrib.pop("height", None)
    drawing.set("role", "img")
    drawing.set("aria-label", plain(told))
    drawing.set("class", CHART)
    return drawing


def _tidy(part: Element) -> None:
    """Without namespaces, rules for the whole page and needless digits; in the page's colours."""
    part.tag = _NAMESPACE.sub("", part.tag)
    part.tail = None
    part.text = (part.text or "").strip() or None
    for child in list(part):
        if child.tag.endswith("}style"):
            part.remove(child)
    for name, value in list(part.items()):
        del part.attrib[name]
        kept = _NUMBER.sub(lambda number: f"{float(number[0]):.2f}", value)
        kept = _COLOUR.sub(lambda colour: _VARIABLES[colour[0]], kept)
        kept = _FONT.sub(lambda font: font[1] or "", kept)
        kept = kept.replace("font: ", "font-size: ").replace("rotate(-0 ", "rotate(0 ")
        part.set(_NAMESPACE.sub("", name), " ".join(kept.split()))


def _names(value: str) -> list[str]:
    """The ids that an attribute refers to."""
    return _REFERENCE.findall(value)


def count(axis: "Axis") -> None:
    """Let an axis name whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    axis.set_major_formatter(_counted)


def _counted(value: float, _: float) -> str:
    """`800`, `12k`, `3.5M`."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"


def sparse(value: float, _: float) -> str:
    """Labels between powers of ten, where they do not crowd."""
    return f"{value:g}" if f"{value:.0e}"[0] in "25" else ""
