"""Inverse problems: a table with a row for each task, variant and restorer, and a figure of what was restored.

Rows are in the order of the benchmark's tasks, then variants; what cannot be is the last of a variant's, with the
reason in a footnote.  The first row is the truth: the true images in the restorations' place, each as often,
whatever the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffbench.plan.jobs import Plan
from diffbench.reporting import context
from diffbench.reporting.cells import Cell, Record, state
from diffbench.reporting.formats import NOTHING, Footnotes, Grid, Table
from diffbench.reporting.galleries import Gallery, Pane, Row
from diffbench.reporting.layout import (
    Metrics,
    MetricSpec,
    RestorationsFigureSpec,
    RestorationsTableSpec,
)
from diffbench.reporting.numbers import count
from diffbench.reporting.published import PublishedValues
from diffbench.reporting.records import TRUTH, Records
from diffbench.store import paths

STAGE = "restore"
COST = "restore_seconds"
COST_SHOWN = MetricSpec(head="seconds", unit="s")
ABSENT = Cell("missing")
HEADS = ("task", "variant", "method", "NFE")
OVER = "the test images (FID: bootstrap)"
MEASUREMENT = "pseudo-inverse"

#: variant, ``task/method``
Place = tuple[str, str]


def places(plan: Plan) -> dict[Place, str]:
    """Return all rows in their order, each with the reason why it cannot be, or nothing."""
    found = {(run.variant, run.item): "" for run in plan.of(STAGE)}
    found |= {
        (each.variant, each.item): each.reason for each in plan.refusals if each.stage == STAGE
    }
    tasks, variants = list(plan.benchmark.restorations.tasks), list(plan.variants)

    def order(place: Place) -> tuple[int, int]:
        return tasks.index(place[1].partition("/")[0]), variants.index(place[0])

    return {place: found[place] for place in sorted(found, key=order)}


class Restorations:
    """See the module."""

    def __init__(self, spec: RestorationsTableSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics, published: PublishedValues) -> Table:
        """Make the table; nothing in it is compared with what was published."""
        plan, found = results.plan, places(results.plan)
        rows = {
            place: self._refused(plan, place, reason, metrics)
            if reason
            else self._row(results, place, metrics)
            for place, reason in found.items()
        }
        rows = self._truth(results, metrics) | rows
        records = [record for row in rows.values() for record in row]
        footnotes = Footnotes()
        return Table(
            f"{self.spec.title}: {plan.benchmark.name}",
            records,
            [self._grid(rows, metrics, footnotes)],
            self._notes(plan, records, metrics),
            footnotes.lines,
        )

    def _row(self, results: Records, place: Place, metrics: Metrics) -> list[Record]:
        variant, item = place
        known = [each for each in self.spec.truth if (variant, STAGE, item, each) in results.cells]
        scored = [*self.spec.metrics, *known]
        cells = {name: results.cell(variant, STAGE, item, name) for name in (*scored, COST)}
        units = {name: metrics[name].unit for name in scored} | {COST: COST_SHOWN.unit}
        return [
            _record(results.plan, place, name, units[name], each) for name, each in cells.items()
        ]

    def _truth(self, results: Records, metrics: Metrics) -> dict[Place, list[Record]]:
        """Return the row of the true images; none where no restoration scored them."""
        found = {
            name: results.cells[TRUTH, STAGE, "", name]
            for name in self.spec.metrics
            if (TRUTH, STAGE, "", name) in results.cells
        }
        rows = [_of_truth(name, metrics[name].unit, each) for name, each in found.items()]
        return {(TRUTH, ""): rows} if rows else {}

    def _refused(self, plan: Plan, place: Place, reason: str, metrics: Metrics) -> list[Record]:
        refused = Cell("refused", reason)
        return [
            _record(plan, place, name, metrics[name].unit, refused) for name in self.spec.metrics
        ]

    def _grid(
        self, rows: dict[Place, list[Record]], metrics: Metrics, footnotes: Footnotes
    ) -> Grid:
        there = {record.metric for row in rows.values() for record in row}
        names = [*self.spec.metrics, *(each for each in self.spec.truth if each in there)]
        columns = {name: metrics[name] for name in names} | {COST: COST_SHOWN}
        lines = []
        for (variant, item), records in rows.items():
            cells = {record.metric: record.cell for record in records}
            task, _, method = item.partition("/")
            evaluations = next((each.nfe for each in cells.values() if each.nfe is not None), None)
            shown = [(cells.get(name, ABSENT), metric) for name, metric in columns.items()]
            counted = count(evaluations) or NOTHING
            labels = [each or NOTHING for each in (task, variant, method)]
            lines.append([*labels, counted, *footnotes.shown(shown)])
        return Grid([*HEADS, *(each.head for each in columns.values())], lines, labels=3)

    def _notes(self, plan: Plan, records: Sequence[Record], metrics: Metrics) -> list[str]:
        named = dict.fromkeys(record.variant for record in records)
        variants = [name for name in named if name in plan.variants]
        tasks = [
            f"{name}: {context.described(task.operator)}, noise {task.noise:g}."
            for name, task in plan.benchmark.restorations.tasks.items()
        ]
        remarks = [
            f"{name}: {plan.variants[name].note}." for name in variants if plan.variants[name].note
        ]
        return [
            *(line for line in (self.spec.note, plan.benchmark.note) if line),
            *tasks,
            *(f"FID: {line}." for line in context.protocols(records)),
            context.data_line(plan, ((each.variant, each.solver) for each in records)),
            *context.budget_lines(plan, variants),
            *context.spread_lines(records, OVER),
            *context.mark_lines(records, metrics),
            *remarks,
        ]


def _record(plan: Plan, place: Place, metric: str, unit: str, found: Cell) -> Record:
    variant, item = place
    return Record(
        row=f"{item} {variant}",
        paper=plan.variants[variant].paper,
        variant=variant,
        solver=item,
        metric=metric,
        unit=unit,
        cell=found,
        protocol=_protocol(found),
    )


def _of_truth(metric: str, unit: str, found: Cell) -> Record:
    protocol = _protocol(found)
    return Record(TRUTH, "", TRUTH, "", metric, unit, found, protocol=protocol)


def _protocol(found: Cell) -> str:
    """Return how a number was made in a few words; empty without one."""
    if not found.protocol or "draws" not in found.protocol:
        return ""
    counted = f"{found.protocol['images']} test images, {found.protocol['draws']} draws each"
    return f"{counted}, {context.sample_protocol(found.protocol)}"


class RestoredImages:
    """See the module."""

    def __init__(self, spec: RestorationsFigureSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics) -> Gallery:
        """Make the gallery: a pane for each task, what cannot be left out."""
        plan = results.plan
        planned = [place for place, reason in places(plan).items() if not reason]
        panes = []
        for task in plan.benchmark.restorations.tasks:
            here = [place for place in planned if place[1].partition("/")[0] == task]
            if here:
                panes.append(Pane(task, self._rows(results, here)))
        title = f"{self.spec.title}: {plan.benchmark.name}"
        return Gallery(title, panes, plan.benchmark.data.levels, self.spec.note)

    def _rows(self, results: Records, here: Sequence[Place]) -> list[Row]:
        archives = {place: self._archive(results, place) for place in here}
        first = next((each for each in archives.values() if isinstance(each, dict)), None)
        known = [
            Row(label, first[key]) if first else Row(label, None, "missing")
            for label, key in ((TRUTH, "truth"), (MEASUREMENT, "measurement"))
        ]
        return [*known, *(_drawn(place, each) for place, each in archives.items())]

    def _archive(self, results: Records, place: Place) -> dict[str, Any] | Cell:
        """Return what the first seed that has any kept of its first images, or why there is nothing."""
        import numpy as np

        found = results.outcomes_of(STAGE, *place)
        seed = next((seed for seed, each in found.items() if each.status == "ok"), None)
        if seed is None:
            return Cell(*state(found))
        run = results.plan.run(STAGE, place[0], seed, place[1])
        # Its checksum has just been verified with the scores'.
        with np.load(paths.products(results.root, run.spec)[1]) as archive:
            return {name: archive[name][: self.spec.images] for name in archive.files}


def _drawn(place: Place, archive: dict[str, Any] | Cell) -> Row:
    variant, item = place
    label = f"{variant} {item.partition('/')[2]}"
    if isinstance(archive, Cell):
        return Row(label, None, archive.status, archive.note)
    return Row(label, archive["restorations"][:, 0])
