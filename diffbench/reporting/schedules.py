"""A figure of schedules: the log SNR of each process over time, and where grids and training evaluate it.

A panel is a process; variants whose processes have the same noise share one.  Beside its curve is a column of marks for
each solver, at the log SNR at which its steps begin, and one for training, at quantiles of its times.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any

from diffbench.reporting.charts import Chart, Line, Panel, Point, to_csv, trace
from diffbench.reporting.frames import LINE_INCHES, Frame, annotate
from diffbench.reporting.layout import Metrics, SchedulesFigureSpec
from diffbench.reporting.plots import COLOURS, STROKE, UNJOINED, Plot, PlotPanel, Style
from diffbench.reporting.records import Records
from diffbench.store import paths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTE = (
    "log SNR = ln(alpha^2/sigma^2), for data in [-1, 1], over time as a fraction of the largest; of the lowest and of "
    "the highest frequency where blur makes them differ, and of the noise before it is reflected at walls. Marks: "
    "where the steps of each solver begin, and 20 quantiles of the training times, at the lowest frequency (at the "
    "highest where only blur changes)."
)
NONE = "This benchmark keeps no schedules: its file has no key `schedules`, which must be true for this figure."
TRAINING = "training"
SLOPES = ("log SNR", "log SNR, highest frequency")
FREQUENCIES = ("lowest frequency", "highest frequency")
#: In inches: width and height of a panel without its words, width of a letter below it, height of a line above it.
PANEL_INCHES, LETTER_INCHES, HEAD_INCHES = (4.0, 1.85), 0.046, 0.14
#: Letters of a line above a panel, of a name below it, and of the note in an inch.
HEAD_LETTERS, NAME_LETTERS, NOTE_LETTERS = 44, 16, 14
ABREAST = 3
#: Columns of marks that are drawn; the CSV has all.
MOST_GRIDS = 10
#: Where the first of these columns begins, and from one to the next, in units of the time axis.
FIRST_MARK, MARK = 1.08, 0.11
#: How far below the curve of the lowest frequency a panel reaches.
BELOW = 15.0


@dataclass
class Schedule:
    """The curves of a process, the marks beside it by name, and the variants that it is of; or why there is none."""

    variants: list[str]
    curves: Sequence[Line]
    grids: dict[str, Sequence[float | None]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The variants' names."""
        return ", ".join(self.variants)

    @property
    def lines(self) -> list[Line]:
        """The curves, and the marks numbered from 0 on."""
        marks = {
            name: [Point(float(i), y, seeds=1) for i, y in enumerate(levels)]
            for name, levels in self.grids.items()
        }
        return [*self.curves, *(Line(name, points) for name, points in marks.items())]

    def add(self, variant: str, grids: Mapping[str, Sequence[float | None]]) -> None:
        """Add another variant of the same noise; its marks have its name where others have theirs already."""
        self.variants.append(variant)
        for name, levels in grids.items():
            own = name if self.grids.get(name, levels) == levels else f"{name}, {variant}"
            self.grids[own] = levels


@dataclass(frozen=True)
class Schedules:
    """The whole figure."""

    title: str
    schedules: Sequence[Schedule]
    note: str = ""

    def csv(self, name: str) -> str:
        """Return the curves and the marks as CSV."""
        panels = [Panel(each.name, each.lines) for each in self.schedules]
        return to_csv(name, Chart(self.title, "t / t_max", panels))

    def png(self) -> bytes:
        """Return the picture as the bytes of a PNG file."""
        return self._frame().png(self._draw)

    def _frame(self) -> Frame:
        columns = max(1, min(len(self.schedules), ABREAST))
        heads = [len(wrap(each.name, HEAD_LETTERS)) for each in self.schedules]
        names = [
            len(line)
            for each in self.schedules
            for name in _columns(each.grids)
            for line in wrap(name, NAME_LETTERS)
        ]
        top = 0.08 + max(heads, default=0) * HEAD_INCHES
        bottom = 0.15 + max(names, default=0) * LETTER_INCHES
        panel = PANEL_INCHES[0], PANEL_INCHES[1] + top + bottom
        foot = 0.1 + LINE_INCHES * len(self._note(PANEL_INCHES[0] * columns))
        return Frame(self.title, len(self.schedules), columns, panel, 0.6, 0.1, bottom, top, foot)

    def _note(self, inches: float) -> list[str]:
        return wrap(self.note, int(inches * NOTE_LETTERS))

    def plot(self) -> Plot:
        """Return the curves and the marks for a browser to draw."""
        return Plot("t / t_max", list(map(_plotted, self.schedules)), ABREAST)

    def _draw(self, figure: Figure, grid: Sequence[Axes]) -> None:
        for axes, schedule in zip(grid, self.schedules, strict=True):
            _draw(axes, schedule)
        annotate(figure, self._note(figure.get_figwidth()))


def _draw(axes: Axes, schedule: Schedule) -> None:
    """Draw the curves over time, and to the right of them a column of marks for each grid."""
    drawn = [line.drawn for line in schedule.curves]
    axes.set_title(fill(schedule.name, HEAD_LETTERS))
    if not any(drawn):
        words: dict[str, Any] = {"ha": "center", "va": "center", "size": 8, "parse_math": False}
        axes.text(0.5, 0.5, _nothing(schedule), transform=axes.transAxes, **words)
        axes.set(xticks=[], yticks=[])
        return
    for points, colour, name in zip(drawn, COLOURS, FREQUENCIES, strict=False):
        x, y = [point.x or 0.0 for point in points], [point.y or 0.0 for point in points]
        axes.plot(x, y, color=colour, linewidth=1.2, label=name)
    if len(drawn) > 1:
        axes.legend(fontsize="xx-small", frameon=False, loc="lower left")
    axes.set_ylabel("log SNR")
    axes.grid(axis="y")
    axes.set_ylim(bottom=max(axes.get_ylim()[0], _bottom(schedule)))
    axes.locator_params(axis="y", nbins=5)
    _marks(axes, schedule.grids)


def _marks(axes: Axes, grids: Mapping[str, Sequence[float | None]]) -> None:
    """Draw a column of marks for each grid to the right of time 1, that of training last."""
    marks: dict[str, tuple[list[float], list[float]]] = {}
    for place, name in enumerate(_ordered(grids)[0]):
        x, y = marks.setdefault(_mark(name)[1], ([], []))
        begin = FIRST_MARK + MARK * place
        for level in grids[name]:
            if level is not None:
                x += [begin, begin + 0.7 * MARK, math.nan]
                y += [level, level, math.nan]
    for colour, (x, y) in marks.items():
        # One line with gaps: a line for each mark takes much longer to draw.
        axes.plot(x, y, color=colour, linewidth=0.8, solid_capstyle="butt")
    below: dict[str, Any] = {"rotation": 90, "fontsize": "xx-small", "ha": "center", "va": "top"}
    for place, name in enumerate(_columns(grids)):
        at = FIRST_MARK + MARK * (place + 0.35)
        words = fill(name, NAME_LETTERS)
        axes.text(at, -0.03, words, transform=axes.get_xaxis_transform(), **below)
    axes.set_xticks([0, 0.5, 1], ["0", "t / t_max", "1"])


def _columns(grids: Mapping[str, Any]) -> list[str]:
    """Return what stands below the columns of marks: their names, and how many are not drawn."""
    shown, more = _ordered(grids)
    return shown + ([f"and {len(more)} more"] if more else [])


def _nothing(schedule: Schedule) -> str:
    (why,) = schedule.curves[0].points
    return fill(f"{why.status}: {why.note}".removesuffix(": "), HEAD_LETTERS)


def _bottom(schedule: Schedule) -> float:
    """Return the log SNR below which nothing is shown."""
    return min(point.y or 0.0 for point in schedule.curves[0].drawn) - BELOW


def _ordered(grids: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the names of the columns that are drawn, that of training last, and those that are not."""
    ordered = sorted(grids, key=lambda name: name.startswith(TRAINING))
    return ordered[:MOST_GRIDS], ordered[MOST_GRIDS:]


def _mark(name: str) -> tuple[str, str]:
    """Return what the marks of a column are, and their colour."""
    if name.startswith(TRAINING):
        return "training times", COLOURS[-1]
    return "where the steps of a solver begin", COLOURS[2]


def _plotted(schedule: Schedule) -> PlotPanel:
    """Return a process's curves and marks for a browser to draw, as the picture has them."""
    if not any(line.drawn for line in schedule.curves):
        return PlotPanel(
            "log SNR", title=fill(schedule.name, HEAD_LETTERS), nothing=_nothing(schedule)
        )
    traces = [
        trace(name, Style(colour), line.drawn, _said(name, line))
        for line, colour, name in zip(schedule.curves, COLOURS, FREQUENCIES, strict=False)
    ]
    for place, name in enumerate(_ordered(schedule.grids)[0]):
        (legend, colour), x = _mark(name), FIRST_MARK + MARK * (place + 0.35)
        points = [Point(x, y) for y in schedule.grids[name] if y is not None]
        words = [f"{name}\nlog SNR: {point.y:.4g}" for point in points]
        traces.append(trace(legend, Style(colour, STROKE, UNJOINED), points, words))
    lowest = min(y for each in traces for y in each.y)
    bottom = _bottom(schedule)
    ticks = [(0.0, "0"), (0.5, "0.5"), (1.0, "1")]
    return PlotPanel(
        "log SNR",
        traces,
        fill(schedule.name, HEAD_LETTERS),
        "",
        bottom if lowest < bottom else None,
        ticks,
    )


def _said(name: str, line: Line) -> list[str]:
    return [f"{name}\nt / t_max: {each.x:.4g}\nlog SNR: {each.y:.4g}" for each in line.drawn]


class SchedulesFigure:
    """The figure of a benchmark (see the module)."""

    def __init__(self, spec: SchedulesFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Schedules:
        """Return the figure: a panel for each process."""
        title = f"{self.spec.title}: {results.plan.benchmark.name}"
        found = list(_schedules(results))
        if found:
            return Schedules(title, found, f"{NOTE} {self.spec.note}".strip())
        lacking = Line(SLOPES[0], [Point(None, status="missing", note=NONE)])
        return Schedules(title, [Schedule(["none"], [lacking])], self.spec.note)


def _schedules(results: Records) -> Iterator[Schedule]:
    """Yield the processes in the plan's order, each with its variants."""
    same: dict[str, Schedule] = {}
    lacking = []
    for job in results.plan.of("schedule"):
        outcome = results.files.whole(job)
        if outcome.status != "ok":
            why = Point(None, status=outcome.status, note=outcome.reason)
            lacking.append(Schedule([job.variant], [Line(SLOPES[0], [why])]))
            continue
        # The checksum has just been verified.
        content = json.loads(paths.product(results.root, job.spec).read_bytes())
        curves = [
            Line(name, _curve(content["times"], content[key]))
            for name, key in zip(SLOPES, ("log_snr", "highest"), strict=True)
            if key in content
        ]
        one = same.setdefault(repr(curves), Schedule([], curves))
        one.add(job.variant, _grids(content))
    yield from same.values()
    yield from lacking


def _curve(times: Sequence[float], levels: Sequence[float | None]) -> list[Point]:
    return [Point(t, y, seeds=1) for t, y in zip(times, levels, strict=True)]


def _grids(content: Mapping[str, Any]) -> dict[str, Sequence[float | None]]:
    """Return the marks by name: of each solver's grid, and of training."""
    training = {TRAINING: content["training"]} if "training" in content else {}
    return {**content["solvers"], **training}
