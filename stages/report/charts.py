"""The charts of a report: curves, levels that they are held against, dots, bars, histograms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.report.drawing import COLOURS, INK, MUTED, axes_for, count, sparse, styled, svg
from stages.report.labelling import labels
from stages.report.markup import fill, plain, shown, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOLID: Final = "-"
DASHED, DOTTED = (0, (5, 2)), (0, (1, 1.6))
Style = Literal["-"] | tuple[int, tuple[float, ...]]
Values = NDArray[np.float64]
LARGEST = 1e100  # matplotlib computes distances of what it draws
SMALLEST = 1 / LARGEST
MOST_BESIDE = 20  # characters of a name beside its row
LEAST_RANGE = 1e-9  # of values, by the largest of them, that has bins


@dataclass(frozen=True)
class Line:
    """A curve: `y` over `x`, and where it is known a band about it."""

    label: str
    x: ArrayLike
    y: ArrayLike
    colour: int = 0
    style: Style = SOLID
    band: tuple[ArrayLike, ArrayLike] | None = None
    dots: bool = False  # mark the points
    faint: bool = False  # behind the others
    told: bool = True  # in the legend


@dataclass(frozen=True)
class Level:
    """A number that a curve is held against: a line from side to side."""

    label: str
    value: float
    style: Style = DASHED
    colour: int | None = None


@dataclass(frozen=True)
class Row:
    """A row of dots, and its mean with an interval."""

    label: str
    values: Sequence[float]
    mean: float
    low: float | None = None
    high: float | None = None
    colour: int = 0


def curves(
    lines: Sequence[Line],
    levels: Sequence[Level] = (),
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
) -> list[Element]:
    """A chart of curves and levels, and its legend."""
    with styled():
        figure, axes = axes_for(x, y)
        for line in lines:
            _draw(axes, line)
        for level in levels:
            colour = MUTED if level.colour is None else COLOURS[level.colour]
            axes.axhline(
                float(drawable(level.value)), color=colour, linestyle=level.style, linewidth=1.2
            )
        if log_x and all(np.min(line.x) > 0 for line in lines):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        elif all(_is_whole(line.x) for line in lines):
            count(axes.xaxis)
        if log_y and all(np.min(line.y) > 0 for line in lines):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(sparse)
        drawing = svg(figure, _told(lines, levels, x=x, y=y))
    return [drawing, legend(lines, levels)]


def histogram(
    rows: Sequence[tuple[str, ArrayLike]], *, x: str, y: str = "episodes", num_bins: int = 24
) -> list[Element]:
    """How often values lie where, one outline per row; in shares where rows differ in number."""
    every = np.concatenate([drawable(values) for _, values in rows])
    edges = _edges(every, num_bins)
    in_shares = len({np.size(values) for _, values in rows}) > 1
    with styled():
        figure, axes = axes_for(x, f"share of {y}" if in_shares else y)
        for number, (_, values) in enumerate(rows):
            counts, _ = np.histogram(drawable(values), bins=edges)
            heights = counts / max(1, np.size(values)) if in_shares else counts
            colour = COLOURS[number]
            axes.stairs(heights, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
            axes.stairs(heights, edges, color=colour, linewidth=1.2)
        axes.grid(visible=False, axis="x")
        if not in_shares:
            count(axes.yaxis)
        if _is_whole(every):
            count(axes.xaxis)
        words = "; ".join(
            f"{label}: {np.size(values)} values from {shown(float(np.min(values)))} to "
            f"{shown(float(np.max(values)))}, median {shown(float(np.median(np.asarray(values))))}"
            for label, values in rows
        )
        drawing = svg(figure, f"Histogram of {x}. {words}.")
    if len(rows) == 1:
        return [drawing]
    return [drawing, _legend([(label, number, SOLID) for number, (label, _) in enumerate(rows)])]


def _edges(values: Values, num_bins: int) -> Values:
    """Edges of bins; between whole numbers where these are few, one bin where all are alike."""
    low, high = float(values.min()), float(values.max())
    if _is_whole(values) and high - low < num_bins and low - 0.5 < low and high + 0.5 > high:
        return np.arange(low - 0.5, high + 1)
    largest = max(abs(low), abs(high))
    if high - low <= max(LEAST_RANGE * largest, SMALLEST):  # no bins could be told apart
        margin = max(LEAST_RANGE * largest, 0.5 * min(1.0, largest), SMALLEST)
        return np.array([low - margin, high + margin])
    return np.histogram_bin_edges(values, bins=min(num_bins, max(4, len(values) // 2)))


def _is_whole(values: ArrayLike) -> bool:
    """Whether all of these are whole numbers."""
    return bool(np.all(np.mod(np.asarray(values, dtype=np.float64), 1) == 0))


def dots(rows: Sequence[Row], *, x: str, each: str = "episodes") -> list[Element]:
    """Every value of every row as a dot; above them the row's mean and interval.

    `each` is what the dots are: episodes, workspaces.
    """
    with styled():
        height = 0.55 + 0.52 * len(rows)
        figure, axes = axes_for(x, "", height=height)
        for place, row in enumerate(reversed(rows)):
            colour = COLOURS[row.colour]
            axes.scatter(
                drawable(row.values),
                place - 0.12 + 0.2 * _spread(len(row.values)),
                s=9,
                color=colour,
                alpha=0.45,
                linewidths=0,
            )
            if row.low is not None and row.high is not None:
                axes.plot(
                    drawable([row.low, row.high]), [place + 0.2] * 2, color=INK, linewidth=2.2
                )
            axes.plot(drawable([row.mean]), [place + 0.2], "o", color=INK, markersize=5)
        names = labels([plain(row.label) for row in rows], MOST_BESIDE)
        axes.set_yticks(range(len(rows)), names[::-1])
        axes.set_ylim(-0.5, len(rows) - 0.5)
        axes.grid(visible=False, axis="y")
        words = ". ".join(_row_told(row, each) for row in rows)
        drawing = svg(figure, f"{each.capitalize()} by {x}. {words}.")
    return [drawing]


def bars(names: Sequence[str], values: Sequence[float], *, x: str) -> list[Element]:
    """A horizontal bar for every name."""
    with styled():
        figure, axes = axes_for(x, "", height=0.55 + 0.26 * len(names))
        axes.barh(range(len(names)), list(values)[::-1], color=COLOURS[0], alpha=0.75, height=0.6)
        axes.set_yticks(range(len(names)), list(names)[::-1])
        axes.grid(visible=False, axis="y")
        told = ", ".join(f"{a} {shown(float(b))}" for a, b in zip(names, values, strict=True))
        drawing = svg(figure, f"{x}: {told}.")
    return [drawing]


def under_frames(
    lines: Sequence[Line], *, num_steps: int, num_frames: int, y: str
) -> list[Element]:
    """Curves over steps 0 to `num_steps`, as wide as a strip of `num_frames` frames above them.

    The middle of frame i stands above its step.
    """
    half = num_steps / max(num_frames - 1, 1) / 2
    with styled():
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(5.4, 1.8))
        axes = figure.add_axes((0.0, 0.16, 1.0, 0.82))
        for line in lines:
            _draw(axes, line)
        axes.set_xlim(-half, num_steps + half)
        tops = [line.y if line.band is None else line.band[1] for line in lines]
        highest = max(float(drawable(top).max()) for top in tops)
        axes.set_ylim(0, 1.08 * highest or 1)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, prune="both"))
        axes.spines["left"].set_visible(False)
        axes.set_xticks(np.linspace(0, num_steps, num_frames).round().astype(int))
        axes.tick_params(axis="y", direction="in", pad=-3)
        for label in axes.get_yticklabels():
            label.set_horizontalalignment("left")
            label.set_verticalalignment("bottom")
        drawing = svg(figure, _told(lines, (), x="steps", y=y), crop=False)
    return [drawing, legend(lines, ())]


def legend(lines: Sequence[Line], levels: Sequence[Level]) -> Element:
    """What the curves are, with the last number of each."""
    entries = [
        (f"{line.label} {_last(line)}".strip(), line.colour, line.style)
        for line in lines
        if line.told
    ]
    marks: list[tuple[str, int | None, Style]] = [*entries]
    marks += [(f"{one.label} {shown(one.value)}", one.colour, one.style) for one in levels]
    return _legend(marks)


def _legend(marks: "Sequence[tuple[str, int | None, Style]]") -> Element:
    made = tag("ul", class_="legend")
    for label, colour, style in marks:
        stroke = "var(--muted)" if colour is None else f"var(--c{colour})"
        dashes = " ".join(f"{part * 1.4:g}" for part in style[1]) if style != "-" else None
        sample = tag(
            "svg",
            tag("path", d="M0 4H22", stroke=stroke, stroke_width="2.5", stroke_dasharray=dashes),
            width=22,
            height=8,
            viewBox="0 0 22 8",
            aria_hidden="true",
        )
        fill(made, [tag("li", sample, label)])
    return made


def _last(line: Line) -> str:
    values = np.asarray(line.y, dtype=np.float64)
    return shown(float(values[-1])) if len(values) and not line.faint else ""


def drawable(values: ArrayLike) -> Values:
    """The values, those beyond what an axis can hold put at its end."""
    return np.clip(np.asarray(values, dtype=np.float64), -LARGEST, LARGEST)


def _draw(axes: "Axes", line: Line) -> None:
    colour = COLOURS[line.colour]
    if line.band is not None:
        low, high = map(drawable, line.band)
        axes.fill_between(drawable(line.x), low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        drawable(line.x),
        drawable(line.y),
        color=colour,
        linestyle=line.style,
        linewidth=0.9 if line.faint else 1.6,
        alpha=0.45 if line.faint else 1.0,
        marker="o" if line.dots or np.size(line.x) == 1 else "",
        markersize=4,
    )


def _told(lines: Sequence[Line], levels: Sequence[Level], *, x: str, y: str) -> str:
    words = [
        f"{line.label} from {_end(line, 0)} to {_end(line, -1)}"
        for line in lines
        if line.told and np.size(line.y)
    ]
    words += [f"{level.label} at {shown(level.value)}" for level in levels]
    return f"Chart of {y} over {x}: {'; '.join(words)}."


def _end(line: Line, place: int) -> str:
    return shown(float(np.asarray(line.y, dtype=np.float64)[place]))


def _row_told(row: Row, each: str) -> str:
    between = "" if row.low is None else f", interval {shown(row.low)} to {shown(row.high)}"
    return f"{row.label}: {len(row.values)} {each}, mean {shown(row.mean)}{between}"


def _spread(number: int) -> Values:
    """Places from -1 to 1 that look random and are not: steps of the golden ratio."""
    places: Values = (np.arange(number, dtype=np.float64) * 0.6180339887498949 % 1.0) * 2 - 1
    return places
