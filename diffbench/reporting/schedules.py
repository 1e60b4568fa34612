"""A figure of schedules: the log SNR of each process over time, and where grids and training evaluate it.

A panel is a process; variants whose processes have the same noise share one.  Beside its curve is a column of marks for
each solver, at the log SNR at which its steps begin, and one for training, at quantiles of its times.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import TYPE_CHECKING, Any

from diffbench.reporting.charts import Chart, Line, Panel, Point, annotate, picture, to_csv, trace
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
PANEL_INCHES = (4.0, 2.8)
#: Inches for the title and the note.
AROUND_INCHES = 0.9
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
        count = max(len(self.schedules), 1)
        columns = min(count, ABREAST)
        size = PANEL_INCHES[0] * columns, PANEL_INCHES[1] * -(-count // columns) + AROUND_INCHES
        return picture(size, self.title, len(self.schedules), columns, self._draw)

    def plot(self) -> Plot:
        """Return the curves and the marks for a browser to draw."""
        return Plot("t / t_max", list(map(_plotted, self.schedules)), ABREAST)

    def _draw(self, figure: Figure, grid: Sequence[Axes]) -> None:
        for axes, schedule in zip(grid, self.schedules, strict=True):
            _draw(axes, schedule)
        annotate(figure, self.note)


def _draw(axes: Axes, schedule: Schedule) -> None:
    """Draw the curves over time, and to the right of them a column of marks for each grid."""
    drawn = [line.drawn for line in schedule.curves]
    axes.set_title(fill(schedule.name, 44), fontsize="small", loc="left")
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
    axes.set_ylabel("log SNR", fontsize="small")
    axes.tick_params(labelsize="x-small")
    axes.grid(alpha=0.3, linewidth=0.5, axis="y")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], _bottom(schedule)))
    axes.locator_params(axis="y", nbins=5)
    _marks(axes, schedule.grids)


def _marks(axes: Axes, grids: Mapping[str, Sequence[float | None]]) -> None:
    """Draw a column of marks for each grid to the right of time 1, that of training last."""
    shown, more = _ordered(grids)
    for place, name in enumerate(shown):
        colour = _mark(name)[1]
        levels = [each for each in grids[name] if each is not None]
        begin = FIRST_MARK + MARK * place
        axes.hlines(levels, begin, begin + 0.7 * MARK, color=colour, linewidth=0.8)
    names = [fill(each, 16) for each in shown] + ([f"and {len(more)} more"] if more else [])
    below: dict[str, Any] = {"rotation": 90, "fontsize": "xx-small", "ha": "center", "va": "top"}
    for place, name in enumerate(names):
        at = FIRST_MARK + MARK * (place + 0.35)
        axes.text(at, -0.03, name, transform=axes.get_xaxis_transform(), **below)
    axes.set_xticks([0, 0.5, 1], ["0", "t / t_max", "1"])


def _nothing(schedule: Schedule) -> str:
    (why,) = schedule.curves[0].points
    return fill(f"{why.status}: {why.note}".removesuffix(": "), 44)


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
        return PlotPanel("log SNR", title=fill(schedule.name, 44), nothing=_nothing(schedule))
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
        "log SNR", traces, fill(schedule.name, 44), "", bottom if lowest < bottom else None, ticks
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
    return content["solvers"] | training
