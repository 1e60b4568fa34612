"""The samples of several seeds: the mean of each metric with its 95 % interval, and which run they are of.

Of n seeds with mean m and standard deviation s the interval is m +- t s/sqrt(n), with Student's t of n - 1 degrees of
freedom (``inference``).  It is over trainings and their samples, so it says how far the mean of other seeds may lie.
"""

from __future__ import annotations

from collections.abc import Iterable

from diffbench.reporting import context
from diffbench.reporting.cells import Cell, Record
from diffbench.reporting.formats import Footnotes, Grid, Table, with_interval
from diffbench.reporting.layout import IntervalsSpec, Metrics
from diffbench.reporting.listing import record_of
from diffbench.reporting.numbers import count
from diffbench.reporting.published import PublishedValues
from diffbench.reporting.records import Records
from diffbench.store import paths, run_record

HEADS = ("variant", "solver", "seeds", "NFE")


class Intervals:
    """A table of means with their intervals over seeds (see the module)."""

    def __init__(self, spec: IntervalsSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics, published: PublishedValues) -> Table:
        """Return the table; published values are not used."""
        plan, footnotes = results.plan, Footnotes()
        rows, lines = self._rows(results), []
        for (variant, item), cells in rows.items():
            first = next(iter(cells.values()))
            numbers = [
                f"{with_interval(cell, metrics[name])}{footnotes.mark(cell.note)}"
                for name, cell in cells.items()
            ]
            lines.append([variant, item, str(first.seeds), count(first.nfe), *numbers])
        records = [
            record_of(plan, named, name, metrics, cell)
            for named, cells in rows.items()
            for name, cell in cells.items()
        ]
        heads = [*HEADS, *(metrics[name].head for name in self.spec.columns)]
        return Table(
            f"{self.spec.title}: {plan.benchmark.name}",
            records,
            [Grid(heads, lines, labels=2, sources=list(rows))],
            self._notes(results, records),
            footnotes.lines,
        )

    def _rows(self, results: Records) -> dict[tuple[str, str], dict[str, Cell]]:
        """Return the cells by metric of each variant and solver that has enough seeds."""
        rows = {}
        jobs = ((job.variant, job.item) for job in results.plan.of("sample"))
        for variant, item in dict.fromkeys(jobs):
            if len(results.plan.seeds(variant)) >= self.spec.seeds:
                rows[variant, item] = {
                    name: results.cell(variant, "sample", item, name) for name in self.spec.columns
                }
        return {
            named: cells
            for named, cells in rows.items()
            if any(cell.seeds >= self.spec.seeds for cell in cells.values())
        }

    def _notes(self, results: Records, records: list[Record]) -> list[str]:
        plan = results.plan
        named = {(each.variant, each.solver) for each in records}
        own = [self.spec.note, plan.benchmark.note]
        return [
            *(line for line in own if line),
            "a (b to c): mean and 95 % interval, by Student's t over seeds, "
            f"of what has at least {self.spec.seeds} seeds.",
            f"Run: {plan.benchmark.name}, commit {_commits(results, named)}.",
            *(f"Scores: {line}." for line in context.protocols(records)),
            context.data_line(plan, named),
            *context.budget_lines(plan, {variant for variant, _ in named}),
        ]


def _commits(results: Records, named: Iterable[tuple[str, str]]) -> str:
    """Return the commits of the code that drew these samples."""
    wanted = set(named)
    jobs = [job for job in results.plan.of("sample") if (job.variant, job.item) in wanted]
    found = {
        str(run_record.known(paths.product(results.root, job.spec)).get("commit") or "unknown")
        for job in jobs
    }
    return ", ".join(sorted(each[:12] for each in found)) or "unknown"
