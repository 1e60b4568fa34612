"""The overview: every variant with every solver, and bits per dimension, one row a variant.

A likelihood belongs to a model, not to a sampler, so it has a grid of its own: one for each kind of bits, which do not
compare, in which each id has its column.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from diffbench.plan.jobs import Plan, Refusal, Run
from diffbench.reporting import context
from diffbench.reporting.cells import Cell, Record
from diffbench.reporting.formats import NOTHING, Footnotes, Grid, Table
from diffbench.reporting.layout import BITS, Metrics, MetricSpec, OverviewSpec
from diffbench.reporting.numbers import count
from diffbench.reporting.published import PublishedValues
from diffbench.reporting.ranking import ranked
from diffbench.reporting.records import Records
from diffbench.specs.jobs import LikelihoodStageSpec

COSTS = {"train": "train_seconds", "sample": "sample_seconds"}
COSTS_SHOWN = {name: MetricSpec(head=stage, unit="s") for stage, name in COSTS.items()}
ABSENT = Cell("missing")
RESTORE = "restore"


class Overview:
    """See the module."""

    def __init__(self, spec: OverviewSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics, published: PublishedValues) -> Table:
        """Make the table; nothing in it is compared with what was published."""
        plan, kinds = results.plan, _kinds(results.plan)
        ranks = {name: metrics[name] for name in self.spec.metrics}
        found = {pair: self._row(results, metrics, *pair) for pair in _pairs(plan)}
        rows = ranked(plan, found, ranks)
        whole = {
            (name, kind): _bits(results, name, kind, metrics[BITS].unit)
            for name in plan.variants
            for kind in kinds
        }
        bits = {key: record for key, record in whole.items() if record is not None}
        records = [record for row in rows.values() for record in row.values()] + [*bits.values()]
        footnotes = Footnotes()
        grids = [self._grid(rows, metrics, footnotes)]
        for title in dict.fromkeys(title for title, _ in kinds):
            items = [kind for kind in kinds if kind[0] == title]
            grids.append(_bits_grid(plan, items, bits, metrics[BITS], footnotes))
        return Table(
            f"{self.spec.title}: {plan.benchmark.name}",
            [*records, *_refused(plan, self.spec.metrics, metrics)],
            grids,
            self._notes(plan, records, metrics),
            footnotes.lines,
        )

    def _row(
        self, results: Records, metrics: Metrics, variant: str, solver: str
    ) -> dict[str, Record]:
        """Return metric -> number of one variant's solver."""
        plan = results.plan
        record = partial(_record, plan, variant, solver)
        scores = [
            record(name, metrics[name].unit, results.cell(variant, "sample", solver, name))
            for name in self.spec.metrics
        ]
        costs = [
            record(
                name, "s", results.cells[variant, stage, solver if stage == "sample" else "", name]
            )
            for stage, name in COSTS.items()
            if stage == "sample" or plan.variants[variant].trained
        ]
        return {each.metric: each for each in scores + costs}

    def _grid(
        self,
        rows: dict[tuple[str, str], dict[str, Record]],
        metrics: Metrics,
        footnotes: Footnotes,
    ) -> Grid:
        columns = {name: metrics[name] for name in self.spec.metrics} | COSTS_SHOWN
        lines = []
        for pair, records in rows.items():
            cells = {name: record.cell for name, record in records.items()}
            first = next((each for each in cells.values() if each.images is not None), ABSENT)
            counts = [count(each) or NOTHING for each in (first.nfe, first.images)]
            shown = [(cells.get(name, ABSENT), metric) for name, metric in columns.items()]
            lines.append([*pair, *counts, *footnotes.shown(shown)])
        heads = [metric.head for metric in columns.values()]
        return Grid(["variant", "solver", "NFE", "N", *heads], lines, labels=2)

    def _notes(self, plan: Plan, records: list[Record], metrics: Metrics) -> list[str]:
        own = [self.spec.note, plan.benchmark.note]
        others = {run.variant for run in plan.runs if run.stage != RESTORE}
        remarks = [
            f"{name}: {each.note}."
            for name, each in plan.variants.items()
            if each.note and name in others
        ]
        shown = {item for _, item in _kinds(plan)}
        unseen = (each for each in _refusals(plan) if each.item not in shown)
        return [
            *(line for line in own if line),
            *(f"Scores: {line}." for line in context.protocols(records)),
            context.data_line(plan),
            *context.budget_lines(plan),
            *context.spread_lines(records),
            *context.mark_lines(records, metrics),
            *remarks,
            *context.refusal_lines(unseen),
        ]


def _refusals(plan: Plan) -> list[Refusal]:
    """Return those of solvers and likelihoods: restorations have a table of their own."""
    return [each for each in plan.refusals if each.stage != RESTORE]


def _pairs(plan: Plan) -> list[tuple[str, str]]:
    """Return (variant, solver) in the benchmark's order, what was not trained at the end."""
    pairs = dict.fromkeys((run.variant, run.item) for run in plan.of("sample"))
    return sorted(pairs, key=lambda pair: not plan.variants[pair[0]].trained)


def _kinds(plan: Plan) -> list[tuple[str, str]]:
    """Return (title of the kind, id) of all likelihoods: different kinds never share a column."""
    return list(dict.fromkeys(_kind(run) for run in plan.of("likelihood")))


def _kind(run: Run) -> tuple[str, str]:
    assert isinstance(run.spec, LikelihoodStageSpec)
    return run.spec.likelihood.title, run.item


def _record(
    plan: Plan, variant: str, item: str, metric: str, unit: str, found: Cell, protocol: str = ""
) -> Record:
    return Record(
        row=f"{variant} {item}",
        paper=plan.variants[variant].paper,
        variant=variant,
        solver=item,
        metric=metric,
        unit=unit,
        cell=found,
        protocol=protocol or context.sample_protocol(found.protocol),
    )


def _bits(results: Records, variant: str, kind: tuple[str, str], unit: str) -> Record | None:
    """Return a variant's likelihood; None where the variant has no such one."""
    plan = results.plan
    if not any(run.variant == variant and _kind(run) == kind for run in plan.of("likelihood")):
        return None
    found = results.cell(variant, "likelihood", kind[1], BITS)
    protocol = context.likelihood_protocol(found.protocol)
    return _record(plan, variant, kind[1], BITS, unit, found, protocol)


def _bits_grid(
    plan: Plan,
    kinds: list[tuple[str, str]],
    bits: dict[tuple[str, tuple[str, str]], Record],
    metric: MetricSpec,
    footnotes: Footnotes,
) -> Grid:
    cells = {key: record.cell for key, record in bits.items() if key[1] in kinds}
    for refusal in plan.refusals:
        for kind in kinds:
            if (refusal.stage, refusal.item) == ("likelihood", kind[1]):
                cells[refusal.variant, kind] = Cell("refused", refusal.reason)
    named = {variant for variant, _ in cells}
    rows = [
        [name, *footnotes.shown([(cells.get((name, kind), ABSENT), metric) for kind in kinds])]
        for name in plan.variants
        if name in named
    ]
    return Grid(
        ["variant", *(item for _, item in kinds)],
        rows,
        caption=f"Bits per dimension, {kinds[0][0]}; of the test split but where the id says train",
    )


def _refused(plan: Plan, metrics: list[str], known: Metrics) -> Iterator[Record]:
    """Yield the cells that no job can fill, for the CSV."""
    for refusal in _refusals(plan):
        names = metrics if refusal.stage == "sample" else [BITS]
        found = Cell("refused", refusal.reason)
        for name in names:
            yield _record(plan, refusal.variant, refusal.item, name, known[name].unit, found)
