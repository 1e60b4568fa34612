"""Figures as traces that a browser draws (``web/plots.js``), and the styles that their pictures share.

A plot is panels, a panel is traces; a trace is points, each with the words that stand beside it when it is pointed at.
Traces with the same words in the legend are shown and hidden together.  Everything here becomes JSON as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: Okabe and Ito's colours, which the colour-blind can tell apart too; their yellow is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
#: Markers and dashes in matplotlib's words; ``_`` is a short horizontal stroke, which marks a step of a grid.
MARKERS, STROKE = "osD^vPX", "_"
DASHES, UNJOINED = ("-", "--", ":"), ""
MOST_MARKED = 40


@dataclass(frozen=True)
class Style:
    """How a line looks: its colour, marker (empty for none), dash (empty where points are not joined)."""

    colour: str
    marker: str = ""
    dash: str = DASHES[0]
    hollow: bool = False


def style_of(index: int, points: int) -> Style:
    """Return the style of a chart's line by its number, and by its points: of many, none is marked.

    When a colour is used again, the dash differs and the marker is another, hollow one.
    """
    turn, colour = divmod(index, len(COLOURS))
    marker = MARKERS[(colour + 3 * turn) % len(MARKERS)] if points <= MOST_MARKED else ""
    return Style(COLOURS[colour], marker, DASHES[turn % len(DASHES)], bool(turn))


@dataclass(frozen=True)
class Trace:
    """Points in one style.

    Attributes:
        legend: the words in the legend.
        style: how they look.
        x, y: their places.
        low, high: the ends of their ranges, None for a point without one.
        words: what is said of each.
    """

    legend: str
    style: Style
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float | None]
    high: Sequence[float | None]
    words: Sequence[str]


@dataclass(frozen=True)
class PlotPanel:
    """One pair of axes.

    Attributes:
        y: the label of the y axis.
        traces: what is drawn.
        title: the words above it.
        log: which axes are logarithmic, ``""``, ``"x"``, ``"y"`` or ``"xy"``.
        bottom: where the y axis begins; None where its values say.
        ticks: places on the x axis and their words; none where its values say.
        nothing: why nothing is drawn.
    """

    y: str
    traces: Sequence[Trace] = ()
    title: str = ""
    log: str = ""
    bottom: float | None = None
    ticks: Sequence[tuple[float, str]] = field(default=())
    nothing: str = ""


@dataclass(frozen=True)
class Plot:
    """A figure for a browser.

    Attributes:
        x: the label of the x axes.
        panels: the panels.
        columns: the most of them side by side.
        band: whether ranges are a band rather than error bars.
    """

    x: str
    panels: Sequence[PlotPanel]
    columns: int = 1
    band: bool = False
