"""A comparison: variants as rows, and in each column the number of one solver, likelihood or analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffbench.plan.jobs import Plan
from diffbench.reporting import context
from diffbench.reporting.cells import Cell, Record
from diffbench.reporting.comparability import kinds_of, planned
from diffbench.reporting.formats import Footnotes, Grid, Source, Table
from diffbench.reporting.layout import (
    BITS,
    CellSpec,
    ComparisonSpec,
    Metrics,
    MetricSpec,
    RowSpec,
)
from diffbench.reporting.published import PublishedValues
from diffbench.reporting.ranking import ranked
from diffbench.reporting.records import Records

NOT_ASKED = Cell("missing")


class Comparison:
    """A table of variants as rows and items as columns (see the module)."""

    def __init__(self, spec: ComparisonSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics, published: PublishedValues) -> Table:
        """Return the table; published values are not used."""
        plan = results.plan
        columns = {head: metrics[metric] for head, metric in self.spec.heads.items()}
        found = {
            i: {head: record(results, row, cell, metrics) for head, cell in row.cells.items()}
            for i, row in enumerate(self.spec.rows)
        }
        rows = list(zip(self.spec.rows, ranked(plan, found, columns).values(), strict=True))
        records = [each for _, numbers in rows for each in numbers.values()]
        footnotes = Footnotes()
        grid = self._grid(rows, columns, footnotes)
        return Table(
            f"{self.spec.title}: {plan.benchmark.name}",
            records,
            [grid],
            self._notes(plan, records, metrics),
            footnotes.lines,
        )

    def _grid(
        self,
        rows: Sequence[tuple[RowSpec, Mapping[str, Record]]],
        columns: Mapping[str, MetricSpec],
        footnotes: Footnotes,
    ) -> Grid:
        lines, sources = [], {}
        for i, (row, found) in enumerate(rows):
            cells = {head: each.cell for head, each in found.items()}
            shown: list[tuple[Cell, MetricSpec]] = [
                (cells.get(head, NOT_ASKED), metric) for head, metric in columns.items()
            ]
            lines.append([row.row, row.variants, *footnotes.shown(shown)])
            for j, head in enumerate(columns, start=2):
                if head in found:
                    sources[i, j] = Source([(found[head].variant, found[head].solver)])
        return Grid(["row", "variant", *columns], lines, labels=2, cells=sources)

    def _ranked(self, metrics: Metrics) -> list[str]:
        """Return which columns rank the rows, and by which metric: a head may not say which FID it is."""
        named: dict[str, list[str]] = {}
        for head, name in self.spec.heads.items():
            metric = metrics[name]
            if metric.ranks and metric.better and head != metric.head:
                named.setdefault(metric.head, []).append(head)
        return [f"Ranked by {metric}: {', '.join(heads)}." for metric, heads in named.items()]

    def _notes(self, plan: Plan, records: Sequence[Record], metrics: Metrics) -> list[str]:
        own = [self.spec.note, plan.benchmark.note]
        variants = {cell.variant for cell in self.spec.cells}
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
        """Return the sentences that say of which kind the bits per dimension of a column are."""
        bits = {
            h: planned(plan, each.cells)
            for h, each in self.spec.compared.items()
            if each.metric == BITS
        }
        found = {head: next(iter(kinds_of(plan, cells)), "") for head, cells in bits.items()}
        return [f"{head}: {kind}." for head, kind in found.items() if kind]


def record(results: Records, row: RowSpec, named: CellSpec, metrics: Metrics) -> Record:
    """Return the record of a row's number for the CSV."""
    plan = results.plan
    item, found = results.find(named)
    return Record(
        row=row.row,
        paper=plan.variants[named.variant].paper if named.variant in plan.variants else "",
        variant=named.variant,
        solver=item,
        metric=named.metric,
        unit=metrics[named.metric].unit,
        cell=found,
        protocol=context.protocol(named.metric, found.protocol),
        remark=row.note,
    )
