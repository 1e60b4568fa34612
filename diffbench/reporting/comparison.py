"""A comparison: variants as rows, and in each column the number of one solver, likelihood or analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffbench.plan.jobs import Plan
from diffbench.reporting import context
from diffbench.reporting.cells import Cell, Record
from diffbench.reporting.comparability import kinds_of, planned
from diffbench.reporting.formats import Footnotes, Grid, Table
from diffbench.reporting.layout import (
    BITS,
    ComparisonRowSpec,
    ComparisonSpec,
    ItemSpec,
    Metrics,
    MetricSpec,
)
from diffbench.reporting.ours import number
from diffbench.reporting.published import PublishedValues
from diffbench.reporting.ranking import ranked
from diffbench.reporting.results import Results

NOT_ASKED = Cell("missing")


class Comparison:
    """See the module."""

    def __init__(self, spec: ComparisonSpec) -> None:
        self.spec = spec

    def make(self, results: Results, metrics: Metrics, published: PublishedValues) -> Table:
        """Make the table; nothing in it is compared with what was published."""
        plan = results.plan
        columns = {head: metrics[metric] for head, metric in self.spec.columns.items()}
        found = {i: self._row(results, row, metrics) for i, row in enumerate(self.spec.rows)}
        rows = list(zip(self.spec.rows, ranked(plan, found, columns).values(), strict=True))
        records = [record for _, numbers in rows for record in numbers.values()]
        footnotes = Footnotes()
        grid = self._grid(rows, columns, footnotes)
        return Table(
            f"{self.spec.title}: {plan.benchmark.name}",
            records,
            [grid],
            self._notes(plan, records, metrics),
            footnotes.lines,
        )

    def _row(self, results: Results, row: ComparisonRowSpec, metrics: Metrics) -> dict[str, Record]:
        """Return head -> number, of the columns that the row has one for."""
        items = {head: row.chosen(head, metric) for head, metric in self.spec.columns.items()}
        return {
            head: _record(results, row, item, self.spec.columns[head], metrics)
            for head, item in items.items()
            if item is not None
        }

    def _grid(
        self,
        rows: Sequence[tuple[ComparisonRowSpec, Mapping[str, Record]]],
        columns: Mapping[str, MetricSpec],
        footnotes: Footnotes,
    ) -> Grid:
        lines = []
        for row, found in rows:
            cells = {head: record.cell for head, record in found.items()}
            shown: list[tuple[Cell, MetricSpec]] = [
                (cells.get(head, NOT_ASKED), metric) for head, metric in columns.items()
            ]
            lines.append([row.row, row.variant, *footnotes.shown(shown)])
        return Grid(["row", "variant", *columns], lines, labels=2)

    def _ranked(self, metrics: Metrics) -> list[str]:
        """Say which columns rank rows, by which metric: their heads may not say which FID it is."""
        named: dict[str, list[str]] = {}
        for head, name in self.spec.columns.items():
            if metrics[name].best:
                named.setdefault(metrics[name].head, []).append(head)
        return [f"Ranked by {metric}: {', '.join(heads)}." for metric, heads in named.items()]

    def _notes(self, plan: Plan, records: Sequence[Record], metrics: Metrics) -> list[str]:
        own = [self.spec.note, plan.benchmark.note]
        variants = {row.variant for row in self.spec.rows}
        remarks = {row.row: row.note for row in self.spec.rows}
        remarks |= {name: plan.variants[name].note for name in plan.variants if name in variants}
        return [
            *(line for line in own if line),
            *self._kinds(plan),
            *self._ranked(metrics),
            *(f"Scores: {line}." for line in context.protocols(records)),
            context.data_line(plan, ((each.variant, each.solver) for each in records)),
            *context.budget_lines(plan, variants),
            *context.spread_lines(records),
            *context.mark_lines(records, metrics),
            *(f"{name}: {remark}." for name, remark in remarks.items() if remark),
        ]

    def _kinds(self, plan: Plan) -> list[str]:
        """Say of which kind the bits per dimension of a column are."""
        bits = {
            h: planned(plan, each.cells)
            for h, each in self.spec.compared.items()
            if each.metric == BITS
        }
        found = {head: next(iter(kinds_of(plan, cells)), "") for head, cells in bits.items()}
        return [f"{head}: {kind}." for head, kind in found.items() if kind]


def _record(
    results: Results, row: ComparisonRowSpec, chosen: ItemSpec, name: str, metrics: Metrics
) -> Record:
    plan = results.plan
    item = plan.item_at(row.variant, chosen.item, chosen.at)
    found = number(results, row.variant, item, name)
    return Record(
        row=row.row,
        paper=plan.variants[row.variant].paper if row.variant in plan.variants else "",
        variant=row.variant,
        solver=item,
        metric=name,
        unit=metrics[name].unit,
        cell=found,
        protocol=context.protocol(name, found.protocol),
        remark=row.note,
    )
