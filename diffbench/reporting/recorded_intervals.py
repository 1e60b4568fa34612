"""What is sure about a benchmark's numbers: samples of several seeds of other benchmarks, from what is recorded."""

from __future__ import annotations

from collections.abc import Iterator

from diffbench.reporting.cells import Record
from diffbench.reporting.formats import NOTHING, Grid, Source, Table, with_interval
from diffbench.reporting.layout import Metrics, RecordedSpec
from diffbench.reporting.published import PublishedValues
from diffbench.reporting.recorded import FOLDER, Recorded
from diffbench.reporting.records import Records

HEADS = ("variant", "solver", "run", "seeds")


class RecordedIntervals:
    """A table of recorded means with their 95 % intervals, by Student's t over seeds (``intervals``)."""

    def __init__(self, spec: RecordedSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics, published: PublishedValues) -> Table:
        """Return the table; neither results nor published values are used."""
        plan, records, told = results.plan, [], []
        lines: list[list[str]] = []
        sources: dict[tuple[int, int], Source] = {}
        planned = {(job.variant, job.item) for job in plan.of("sample")}
        for name in self.spec.runs:
            run = Recorded.read(plan.repository, name)
            if run is None:
                told.append(f"{name}: nothing is recorded in {FOLDER / name}.")
                continue
            named = [each for each in run.repeated(self.spec.seeds) if each in planned]
            for each in named:
                sources |= self._sources(run, *each, len(lines))
                lines.append(self._line(run, *each, metrics))
            records += [
                record
                for variant, item in named
                for record in self._records(results, run, variant, item, metrics)
            ]
            told += [f"Run {line}" for line in run.run_of(named)]
        heads = [*HEADS, *(metrics[name].head for name in self.spec.columns)]
        return Table(
            f"{self.spec.title}: {plan.benchmark.name}",
            records,
            [Grid(heads, lines, labels=3, cells=sources)],
            [
                *([self.spec.note] if self.spec.note else []),
                "a (b to c): mean and 95 % interval, by Student's t over seeds, of other runs than this one.",
                *told,
            ],
        )

    def _line(self, run: Recorded, variant: str, item: str, metrics: Metrics) -> list[str]:
        found = {name: run.find(variant, item, name) for name in self.spec.columns}
        seeds = max(each.cell.seeds for each in found.values() if each)
        numbers = [
            with_interval(each.cell, metrics[name]) if each else NOTHING
            for name, each in found.items()
        ]
        return [variant, item, run.benchmark, str(seeds), *numbers]

    def _sources(
        self, run: Recorded, variant: str, item: str, row: int
    ) -> dict[tuple[int, int], Source]:
        """Return where the numbers of a row are from, by row and column."""
        found = [run.find(variant, item, name) for name in self.spec.columns]
        return {
            (row, column): Source(recorded=entry.source(run.benchmark))
            for column, entry in enumerate(found, start=len(HEADS))
            if entry is not None
        }

    def _records(
        self, results: Records, run: Recorded, variant: str, item: str, metrics: Metrics
    ) -> Iterator[Record]:
        for name in self.spec.columns:
            entry = run.find(variant, item, name)
            if entry is not None:
                yield Record(
                    row=f"{variant} {item}, {run.benchmark}",
                    paper=results.plan.variants[variant].paper,
                    variant=variant,
                    solver=item,
                    metric=name,
                    unit=metrics[name].unit,
                    cell=entry.cell,
                    protocol=entry.protocol,
                    remark=f"run {run.benchmark}, commit {entry.commit}",
                )
