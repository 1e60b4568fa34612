"""A figure as data, and the two files it is written to: a picture, and the numbers in it.

A chart is panels, a panel is lines, a line is points; a point may have a range (error bar or band)
and, where there is nothing to plot, the reason.  The CSV has one row a point and holds exactly what
is plotted.  The same chart gives the same bytes: no date, no version, no user's matplotlib style.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

from diffbench.reporting.cells import text
from diffbench.reporting.formats import csv_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLUMNS = ("figure", "panel", "series", "x", "y", "low", "high", "seeds", "status", "note")
#: Okabe and Ito's colours, told apart by the colour-blind too; their yellow is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vPX"
DPI = 200
PANEL_INCHES = (3.8, 2.9)
ALONE_INCHES = (5.6, 3.9)
#: Of the legend's letters, and of what stands before a label.
LETTER_INCHES, HANDLE_INCHES = 0.075, 0.7
MOST_MARKED = 40


@dataclass(frozen=True)
class Point:
    """A point of a line, or why there is none.

    Attributes:
        x, y: where it is; y None where there is nothing, x too where that holds for a whole line.
        low, high: the ends of its error bar or band.
        seeds: how many it is over.
        status, note: as a cell's.
    """

    x: float | None
    y: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    status: str = "ok"
    note: str = ""


@dataclass(frozen=True)
class Line:
    """Points and their name in the legend."""

    label: str
    points: Sequence[Point]

    @property
    def drawn(self) -> list[Point]:
        """The points that there are."""
        return [point for point in self.points if point.x is not None and point.y is not None]


@dataclass(frozen=True)
class Panel:
    """One pair of axes; ``name`` is its panel in the CSV and the label of its y axis."""

    name: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Chart:
    """A whole figure.

    Attributes:
        title: above it.
        x: the label of the x axes.
        panels: side by side.
        log: which axes are logarithmic, ``""``, ``"y"`` or ``"xy"``.
        band: whether ranges are drawn as a band rather than as error bars.
        floor: the bottom of the y axis as a fraction of the largest value drawn, where values lie below.
        note: below it.
    """

    title: str
    x: str
    panels: Sequence[Panel]
    log: str = ""
    band: bool = False
    floor: float = 0.0
    note: str = ""


def to_csv(name: str, chart: Chart) -> str:
    """Return the plotted numbers: one row a point, a dash for what does not exist."""
    return csv_of(
        [
            dict(zip(COLUMNS, map(text, _values(name, panel, line, point)), strict=True))
            for panel in chart.panels
            for line in panel.lines
            for point in line.points
        ],
        COLUMNS,
    )


def _values(name: str, panel: Panel, line: Line, point: Point) -> tuple[object, ...]:
    return (
        name,
        panel.name,
        line.label,
        point.x,
        point.y,
        point.low,
        point.high,
        point.seeds,
        point.status,
        point.note,
    )


def to_png(chart: Chart) -> bytes:
    """Return the picture."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    content = io.BytesIO()
    # A figure of its own, without pyplot, is always drawn by Agg, whatever backend is set.
    with mpl.rc_context():
        mpl.rcdefaults()
        rows, columns = _shape(len(chart.panels))
        width, height = PANEL_INCHES if columns > 1 else ALONE_INCHES
        figure = Figure((width * columns, height * rows + 1), dpi=DPI, layout="constrained")
        _draw(figure, chart, rows, columns)
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _shape(panels: int) -> tuple[int, int]:
    """Return rows and columns: up to three panels side by side, four as a square."""
    columns = panels if panels <= 3 else 2 if panels == 4 else 3
    return -(-panels // columns), columns


def _draw(figure: Figure, chart: Chart, rows: int, columns: int) -> None:
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    labels = list(dict.fromkeys(line.label for panel in chart.panels for line in panel.lines))
    for axes, panel in zip(grid, chart.panels, strict=False):
        _panel(axes, chart, panel, labels)
    for axes in grid[len(chart.panels) :]:
        axes.set_axis_off()
    figure.suptitle(chart.title, fontsize="medium")
    figure.legend(
        handles=[_handle(chart, i, label) for i, label in enumerate(labels)],
        loc="outside lower center",
        ncols=_fitting([_legend(chart, label) for label in labels], figure.get_figwidth()),
        fontsize="small",
        frameon=False,
        title=fill(chart.note, int(figure.get_figwidth() * 15)) or None,
        title_fontsize="x-small",
    )


def _fitting(labels: Sequence[str], inches: float) -> int:
    """Return how many columns of these labels fit into a width."""
    widest = max(map(len, labels), default=0) * LETTER_INCHES + HANDLE_INCHES
    return max(1, min(len(labels), int(inches / widest)))


def _panel(axes: Axes, chart: Chart, panel: Panel, labels: Sequence[str]) -> None:
    drawn = False
    for line in panel.lines:
        if line.drawn:
            _line(axes, line, labels.index(line.label), chart.band)
            drawn = True
    axes.set_xlabel(chart.x)
    axes.set_ylabel(panel.name)
    if not drawn:
        # Reasons quote errors: a dollar in them is no formula.
        words: dict[str, Any] = {"ha": "center", "va": "center", "size": 8, "parse_math": False}
        axes.text(0.5, 0.5, _nothing(panel), transform=axes.transAxes, **words)
        axes.set(xticks=[], yticks=[])
        return
    for axis, set_scale in (("x", axes.set_xscale), ("y", axes.set_yscale)):
        if axis in chart.log:
            set_scale("log")
    heights = [point.y or 0.0 for line in panel.lines for point in line.drawn]
    if min(heights) < chart.floor * max(heights):
        axes.set_ylim(bottom=chart.floor * max(heights))
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _line(axes: Axes, line: Line, index: int, band: bool) -> None:
    points = line.drawn
    x, y = [point.x or 0.0 for point in points], [point.y or 0.0 for point in points]
    low = [
        value if point.low is None else point.low for point, value in zip(points, y, strict=True)
    ]
    high = [
        value if point.high is None else point.high for point, value in zip(points, y, strict=True)
    ]
    style = _style(index, len(points))
    if band:
        axes.plot(x, y, **style)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
        return
    below = [value - end for value, end in zip(y, low, strict=True)]
    above = [end - value for value, end in zip(y, high, strict=True)]
    ranged = any(point.low is not None for point in points)
    axes.errorbar(x, y, yerr=[below, above] if ranged else None, capsize=2, **style)


def _style(index: int, points: int) -> dict[str, Any]:
    """Return a line's style; colours that repeat come with another dash."""
    turn = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)] if points <= MOST_MARKED else "",
        "markersize": 4,
        "linewidth": 1.2,
        "linestyle": ("-", "--", ":")[turn % 3],
    }


def _handle(chart: Chart, index: int, label: str) -> Line2D:
    from matplotlib.lines import Line2D

    points = max(len(line.points) for line in _lines(chart, label))
    return Line2D([], [], label=_legend(chart, label), **_style(index, points))


def _lines(chart: Chart, label: str) -> list[Line]:
    return [line for panel in chart.panels for line in panel.lines if line.label == label]


def _legend(chart: Chart, label: str) -> str:
    """Return a line's words in the legend, and how much of it is missing."""
    wanted = [point for line in _lines(chart, label) for point in line.points]
    lacking = [point for point in wanted if point.y is None]
    if not lacking:
        return label
    if len(lacking) == len(wanted):
        return f"{label} ({lacking[0].status})"
    return f"{label} ({len(lacking)} of {len(wanted)} values missing)"


def _nothing(panel: Panel) -> str:
    """Say why a panel is empty."""
    lacking = [point for line in panel.lines for point in line.points]
    reasons = dict.fromkeys(f"{each.status}: {each.note}".removesuffix(": ") for each in lacking)
    shown = [fill(reason, 44) for reason in list(reasons)[:3]]
    return "\n".join(["nothing to plot", *shown])
