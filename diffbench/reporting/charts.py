"""A figure as data, and what it is written to: a picture, the numbers in it, and a plot for browsers.

A chart is panels, a panel is lines, a line is points; a point may have a range (error bar or band)
and, where there is nothing to plot, the reason.  The CSV has one row a point and holds exactly what
is plotted; the picture (in a ``frame``) and the plot (``plots``) show it alike.  The same chart gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any, Protocol

from diffbench.reporting.cells import text
from diffbench.reporting.formats import csv_of
from diffbench.reporting.frames import LINE_INCHES, Frame
from diffbench.reporting.plots import COLOURS, UNJOINED, Plot, PlotPanel, Style, Trace, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLUMNS = ("figure", "panel", "series", "x", "y", "low", "high", "seeds", "status", "note")
PANEL_INCHES = (3.8, 2.9)
ALONE_INCHES = (5.6, 3.9)
#: Height in inches added to panels that have more lines than there are colours.
CROWDED_INCHES = 0.9
#: Height in inches of each row of the legend; width of a letter of it, and of what stands before a label.
ROW_INCHES, LETTER_INCHES, HANDLE_INCHES = 0.18, 0.075, 0.8
#: Letters of a note that fit into an inch.
NOTE_LETTERS = 15
#: Length in letters of a line in the legend: enough to show its dashes on both sides of a marker.
HANDLE_LENGTH = 3.2
#: A logarithmic axis that spans fewer decades has plain numbers at its ticks, no powers of ten.
PLAIN_DECADES = 2.5


class Drawing(Protocol):
    """A figure of any kind, as data."""

    @property
    def title(self) -> str:
        """What it shows."""
        ...

    @property
    def note(self) -> str:
        """What one must know to read it; empty where nothing."""
        ...

    def png(self) -> bytes:
        """Return the picture as the bytes of a PNG file."""
        ...

    def csv(self, name: str) -> str:
        """Return the content as CSV: one row a point, or a picture."""
        ...

    def plot(self) -> Plot | None:
        """Return it for a browser to draw; None of pictures."""
        ...


@dataclass(frozen=True)
class Point:
    """A point of a line, or why there is none.

    Attributes:
        x, y: its place; y is None where there is no number, x too where its place is not known.
        low, high: the ends of its error bar or band.
        seeds: the number of seeds that it is over.
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
    """Points, and their name in the legend.

    ``fitted``: points of a straight line that was fitted to them; where there are any, the points are not joined.
    """

    label: str
    points: Sequence[Point]
    fitted: Sequence[Point] = ()

    @property
    def drawn(self) -> list[Point]:
        """The points that have a place and a number."""
        return [point for point in self.points if point.x is not None and point.y is not None]


@dataclass(frozen=True)
class Panel:
    """One pair of axes; ``name`` is the value of ``panel`` in the CSV and says what the y axis has."""

    name: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Chart:
    """A whole figure.

    Attributes:
        title: the text above the panels.
        x: the label of the x axes.
        panels: the panels, side by side.
        log: which axes are logarithmic, ``""``, ``"y"`` or ``"xy"``.
        band: whether ranges are drawn as a band rather than as error bars.
        floor: the bottom of the y axis as a fraction of the largest value drawn, where values lie below.
        note: the text below the panels.
    """

    title: str
    x: str
    panels: Sequence[Panel]
    log: str = ""
    band: bool = False
    floor: float = 0.0
    note: str = ""

    def png(self) -> bytes:
        """Return the picture as the bytes of a PNG file."""
        return to_png(self)

    def csv(self, name: str) -> str:
        """Return the plotted numbers as CSV."""
        return to_csv(name, self)

    def plot(self) -> Plot:
        """Return the chart for a browser to draw."""
        return to_plot(self)


def to_csv(name: str, chart: Chart) -> str:
    """Return the plotted numbers as CSV: one row a point, a dash for what does not exist."""
    return csv_of(
        [
            row(name, panel.name, label, point)
            for panel in chart.panels
            for line in panel.lines
            for label, points in ((line.label, line.points), (f"{line.label}, fitted", line.fitted))
            for point in points
        ],
        COLUMNS,
    )


def row(name: str, panel: str, series: str, point: Point) -> dict[str, str]:
    """Return a row of a figure's CSV."""
    return dict(zip(COLUMNS, map(text, _values(name, panel, series, point)), strict=True))


def _values(name: str, panel: str, series: str, point: Point) -> tuple[object, ...]:
    return (
        name,
        panel,
        series,
        point.x,
        point.y,
        point.low,
        point.high,
        point.seeds,
        point.status,
        point.note,
    )


def to_png(chart: Chart) -> bytes:
    """Return the picture as the bytes of a PNG file."""
    return frame_of(chart).png(partial(draw, chart))


def frame_of(chart: Chart) -> Frame:
    """Return where a chart's panels are; its legend and note add height, so panels keep their size."""
    columns = _shape(len(chart.panels))[1]
    width, height = PANEL_INCHES if columns > 1 else ALONE_INCHES
    labels = _labels(chart)
    height += CROWDED_INCHES if len(labels) > len(COLOURS) else 0
    inches = width * columns
    legend = -(-len(labels) // _legend_columns(chart, inches)) * ROW_INCHES
    foot = 0.1 + legend + len(_note(chart, inches)) * LINE_INCHES
    return Frame(chart.title, len(chart.panels), columns, (width, height), foot=foot)


def _note(chart: Chart, inches: float) -> list[str]:
    return wrap(chart.note, int(inches * NOTE_LETTERS))


def _shape(panels: int) -> tuple[int, int]:
    """Return the number of rows and columns: up to three panels side by side, four as a square."""
    columns = panels if panels <= 3 else 2 if panels == 4 else 3
    return -(-panels // columns), columns


def _labels(chart: Chart) -> list[str]:
    return list(dict.fromkeys(line.label for panel in chart.panels for line in panel.lines))


def draw(chart: Chart, figure: Figure, grid: Sequence[Axes]) -> None:
    """Draw a chart's panels, and its legend with its note at the bottom of the figure."""
    labels, inches = _labels(chart), figure.get_figwidth()
    for axes, panel in zip(grid, chart.panels, strict=True):
        _panel(axes, chart, panel, labels)
    figure.legend(
        handles=[_handle(chart, i, label) for i, label in enumerate(labels)],
        loc="lower center",
        borderaxespad=0,
        ncols=_legend_columns(chart, inches),
        fontsize="small",
        handlelength=HANDLE_LENGTH,
        frameon=False,
        title="\n".join(_note(chart, inches)) or None,
        title_fontsize="x-small",
    )


def _legend_columns(chart: Chart, inches: float) -> int:
    """Return the number of columns of the legend that fit into a width in inches."""
    labels = [_legend(chart, label) for label in _labels(chart)]
    widest = max(map(len, labels), default=0) * LETTER_INCHES + HANDLE_INCHES
    return max(1, min(len(labels), int(inches / widest)))


def _panel(axes: Axes, chart: Chart, panel: Panel, labels: Sequence[str]) -> None:
    drawn = False
    for line in panel.lines:
        if line.drawn:
            _line(axes, line, labels.index(line.label), chart.band)
            drawn = True
    axes.set_xlabel(chart.x)
    axes.set_title(panel.name)
    if not drawn:
        # Reasons quote errors: a dollar sign in them starts no formula.
        words: dict[str, Any] = {"ha": "center", "va": "center", "size": 8, "parse_math": False}
        axes.text(0.5, 0.5, _nothing(panel), transform=axes.transAxes, **words)
        axes.set(xticks=[], yticks=[])
        return
    log, bottom = _scale(chart, panel)
    for name, set_scale in (("x", axes.set_xscale), ("y", axes.set_yscale)):
        if name in log:
            set_scale("log")
    if bottom is not None:
        axes.set_ylim(bottom=bottom)
    for name in log:
        _plain_ticks(axes.xaxis if name == "x" else axes.yaxis)
    axes.grid()


def _scale(chart: Chart, panel: Panel) -> tuple[str, float | None]:
    """Return which axes of a panel with points are logarithmic, and where its y axis begins: None for by itself."""
    heights = [point.y or 0.0 for line in panel.lines for point in line.drawn]
    # Where no value is above 0 (KID may be below), nothing can be drawn on a logarithmic axis.
    log = chart.log if max(heights) > 0 else chart.log.replace("y", "")
    bottom = chart.floor * max(heights)
    return log, bottom if chart.floor and min(heights) < bottom else None


def _plain_ticks(axis: Axis) -> None:
    """Write plain numbers beside the ticks of a logarithmic axis that spans few decades."""
    from matplotlib.ticker import AutoLocator, LogLocator, NullLocator, StrMethodFormatter

    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    if decades < PLAIN_DECADES:
        # Within half a decade, ticks at 1, 2 and 5 alone may leave one tick or none.
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if decades > 0.5 else AutoLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())


def _line(axes: Axes, line: Line, index: int, band: bool) -> None:
    points, own = line.drawn, style_of(index, len(line.drawn))
    if line.fitted:
        ends = [point for point in line.fitted if point.low is not None]
        for part in ([replace(point, low=None) for point in line.fitted], ends):
            _points(axes, part, False, replace(own, marker=""))
        own = replace(own, dash=UNJOINED)
    _points(axes, points, band, own)


def _points(axes: Axes, points: Sequence[Point], band: bool, style: Style) -> None:
    x, y = [point.x or 0.0 for point in points], [point.y or 0.0 for point in points]
    low = [
        value if point.low is None else point.low for point, value in zip(points, y, strict=True)
    ]
    high = [
        value if point.high is None else point.high for point, value in zip(points, y, strict=True)
    ]
    if band:
        axes.plot(x, y, **_keywords(style))
        axes.fill_between(x, low, high, color=style.colour, alpha=0.2, linewidth=0)
        return
    below = [value - end for value, end in zip(y, low, strict=True)]
    above = [end - value for value, end in zip(y, high, strict=True)]
    ranged = any(point.low is not None for point in points)
    bars: dict[str, Any] = {"capsize": 2, "elinewidth": 0.8}
    axes.errorbar(x, y, yerr=[below, above] if ranged else None, **bars, **_keywords(style))


def _keywords(style: Style) -> dict[str, Any]:
    """Return a style in matplotlib's keywords."""
    return {
        "color": style.colour,
        "marker": style.marker,
        "markersize": 4.5 if style.hollow else 4,
        "markerfacecolor": "white" if style.hollow else style.colour,
        "linewidth": 1.2,
        "linestyle": style.dash,
    }


def _handle(chart: Chart, index: int, label: str) -> Line2D:
    from matplotlib.lines import Line2D

    points = max(len(line.points) for line in _lines(chart, label))
    return Line2D([], [], label=_legend(chart, label), **_keywords(style_of(index, points)))


def _lines(chart: Chart, label: str) -> list[Line]:
    return [line for panel in chart.panels for line in panel.lines if line.label == label]


def _legend(chart: Chart, label: str) -> str:
    """Return a line's label in the legend, and how many of its points are missing."""
    wanted = [point for line in _lines(chart, label) for point in line.points]
    lacking = [point for point in wanted if point.y is None]
    if not lacking:
        return label
    if len(lacking) == len(wanted):
        return f"{label} ({lacking[0].status})"
    return f"{label} ({len(lacking)} of {len(wanted)} values missing)"


def _nothing(panel: Panel) -> str:
    """Return the reasons why a panel is empty."""
    lacking = [point for line in panel.lines for point in line.points]
    reasons = dict.fromkeys(f"{each.status}: {each.note}".removesuffix(": ") for each in lacking)
    shown = [fill(reason, 44) for reason in list(reasons)[:3]]
    return "\n".join(["nothing to plot", *shown])


def to_plot(chart: Chart) -> Plot:
    """Return a chart for a browser to draw."""
    panels = [_plotted(chart, panel) for panel in chart.panels]
    return Plot(chart.x, panels, _shape(len(chart.panels))[1], chart.band)


def _plotted(chart: Chart, panel: Panel) -> PlotPanel:
    labels = _labels(chart)
    traces = [
        each
        for line in panel.lines
        if line.drawn
        for each in _traces(chart, panel, line, labels.index(line.label))
    ]
    if not traces:
        return PlotPanel(panel.name, nothing=_nothing(panel))
    return PlotPanel(panel.name, traces, "", *_scale(chart, panel))


def _traces(chart: Chart, panel: Panel, line: Line, index: int) -> Iterator[Trace]:
    legend, own = _legend(chart, line.label), style_of(index, len(line.drawn))
    if line.fitted:
        words = [_said(chart, panel, f"{line.label}, fitted", point) for point in line.fitted]
        yield trace(legend, replace(own, marker=""), line.fitted, words)
        own = replace(own, dash=UNJOINED)
    words = [_said(chart, panel, line.label, point) for point in line.drawn]
    yield trace(legend, own, line.drawn, words)


def trace(legend: str, style: Style, points: Sequence[Point], words: Sequence[str]) -> Trace:
    """Return points that have a place and a number as a trace."""
    return Trace(
        legend,
        style,
        [_short(point.x or 0.0) for point in points],
        [_short(point.y or 0.0) for point in points],
        [None if point.low is None else _short(point.low) for point in points],
        [None if point.high is None else _short(point.high) for point in points],
        words,
    )


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _said(chart: Chart, panel: Panel, label: str, point: Point) -> str:
    """Return what is said of a point: a line each for label, places, range, seeds and note."""
    ends = "" if point.low is None or point.high is None else f"{point.low:.4g} to {point.high:.4g}"
    seeds = f"{point.seeds} seed{'s' if point.seeds > 1 else ''}" if point.seeds else ""
    value = f"{panel.name}: {point.y:.4g}" + (f" ({ends})" if ends else "")
    lines = [label, f"{chart.x}: {point.x:.4g}", value, seeds, fill(point.note, 60)]
    return "\n".join(filter(None, lines))
