"""A listing: a row for every solver of every variant, or for every task, variant and restorer.

A listing of samples has what was not trained last.  Bits per dimension have grids of their own below: a likelihood
belongs to a model, not to a sampler, and two kinds of it cannot be compared, so each kind has its grid.  Restorations
are in the order of the tasks, then of the variants; what is impossible comes last for a variant, with the reason in a
footnote.  The first row is the truth: the true images in the restorations' place, each as often, whatever the task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from diffbench.plan.jobs import Job, Plan, Refusal
from diffbench.reporting import context
from diffbench.reporting.cells import Cell, Record
from diffbench.reporting.formats import NOTHING, Footnotes, Grid, Source, Table
from diffbench.reporting.layout import BITS, ListingSpec, Metrics, MetricSpec
from diffbench.reporting.numbers import count
from diffbench.reporting.published import PublishedValues
from diffbench.reporting.ranking import ranked
from diffbench.reporting.records import TRUTH, Records
from diffbench.specs.jobs import LikelihoodStageSpec

RESTORE = "restore"
ABSENT = Cell("missing")
#: The heads of the words and counts at the beginning of a row, by stage.
HEADS = {"sample": ("variant", "solver", "NFE", "N"), RESTORE: ("task", "variant", "method", "NFE")}
#: What the error of a single seed of a restoration is taken over.
OVER_IMAGES = "the test images (FID: bootstrap)"
SECONDS = "_seconds"

#: Variant and item: a solver, or ``task/restorer``.
RowKey = tuple[str, str]
#: A row: metric -> number.
Numbers = Mapping[str, Record]


def planned_rows(plan: Plan, stage: str) -> dict[RowKey, str]:
    """Return all rows in their order, each with the reason why it is impossible; empty where it is possible."""
    found = {(job.variant, job.item): "" for job in plan.of(stage)}
    if stage != RESTORE:
        return {
            row_key: found[row_key]
            for row_key in sorted(found, key=lambda p: not plan.variants[p[0]].trained)
        }
    found |= {
        (each.variant, each.item): each.reason for each in plan.refusals if each.stage == stage
    }
    tasks, variants = list(plan.benchmark.restorations.tasks), list(plan.variants)

    def order(row_key: RowKey) -> tuple[int, int]:
        return tasks.index(_task(row_key)), variants.index(row_key[0])

    return {row_key: found[row_key] for row_key in sorted(found, key=order)}


def _task(row_key: RowKey) -> str:
    return row_key[1].partition("/")[0]


class Listing:
    """A table of all items of a stage (see the module)."""

    def __init__(self, spec: ListingSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics, published: PublishedValues) -> Table:
        """Return the table; published values are not used."""
        plan, spec = results.plan, self.spec
        found = {
            row_key: self._row(results, row_key, reason, metrics)
            for row_key, reason in {
                **self._truth(results),
                **planned_rows(plan, spec.stage),
            }.items()
        }
        there = {name for row in found.values() for name in row}
        names = [name for name in spec.columns if name not in spec.where_known or name in there]
        columns = {name: metrics[name] for name in names}
        rows = self._ranked(plan, found, columns)
        bits = _bits(results, metrics) if spec.likelihoods else {}
        records = [*(each for row in rows.values() for each in row.values()), *bits.values()]
        footnotes = Footnotes()
        grids = [self._grid(rows, columns, footnotes)]
        for title in dict.fromkeys(title for title, _ in _kinds(plan)) if spec.likelihoods else ():
            items = [kind for kind in _kinds(plan) if kind[0] == title]
            grids.append(_bits_grid(plan, items, bits, metrics[BITS], footnotes))
        return Table(
            f"{spec.title}: {plan.benchmark.name}",
            [*records, *self._refused(plan, metrics)],
            grids,
            self._notes(plan, records, metrics),
            footnotes.lines,
        )

    @property
    def _scores(self) -> list[str]:
        """The columns that every row has, without the times of jobs."""
        return [
            name
            for name in self.spec.columns
            if not name.endswith(SECONDS) and name not in self.spec.where_known
        ]

    def _truth(self, results: Records) -> dict[RowKey, str]:
        scored = any((TRUTH, self.spec.stage, "", name) in results.cells for name in self._scores)
        return {(TRUTH, ""): ""} if scored else {}

    def _row(
        self, results: Records, row_key: RowKey, reason: str, metrics: Metrics
    ) -> dict[str, Record]:
        """Return a row's numbers.

        The truth has the numbers that were measured of it; what is impossible has the reason.
        """
        variant, item = row_key
        if reason:
            cells = dict.fromkeys(self._scores, Cell("refused", reason))
        elif variant == TRUTH:
            keys = {name: (TRUTH, self.spec.stage, "", name) for name in self._scores}
            cells = {name: results.cells[key] for name, key in keys.items() if key in results.cells}
        else:
            cells = {
                name: results.cell(variant, self.spec.stage, item, name) for name in self._scores
            }
            for name in self.spec.columns:
                stage = name.removesuffix(SECONDS) if name.endswith(SECONDS) else self.spec.stage
                key = (variant, stage, item if stage == self.spec.stage else "", name)
                # An exact model has a job of the stage train too, which trains nothing.
                trained = stage != "train" or results.plan.variants[variant].trained
                if trained and key in results.cells:
                    cells[name] = results.cells[key]
        ordered = [name for name in self.spec.columns if name in cells]
        return {
            name: record_of(results.plan, row_key, name, metrics, cells[name]) for name in ordered
        }

    def _ranked(
        self, plan: Plan, rows: Mapping[RowKey, Numbers], columns: Mapping[str, MetricSpec]
    ) -> dict[RowKey, dict[str, Record]]:
        """Return the rows with the best of each column marked; restorations are ranked within each task."""
        if self.spec.stage != RESTORE:
            return ranked(plan, rows, columns)
        found: dict[RowKey, dict[str, Record]] = {}
        for task in dict.fromkeys(map(_task, rows)):
            found |= ranked(plan, {p: row for p, row in rows.items() if _task(p) == task}, columns)
        return found

    def _grid(
        self,
        rows: Mapping[RowKey, Numbers],
        columns: Mapping[str, MetricSpec],
        footnotes: Footnotes,
    ) -> Grid:
        lines = []
        for (variant, item), records in rows.items():
            cells = {name: record.cell for name, record in records.items()}
            nfe = next((each.nfe for each in cells.values() if each.nfe is not None), None)
            images = next((each.images for each in cells.values() if each.images is not None), None)
            task, _, method = item.partition("/")
            words = [variant, item, count(nfe), count(images)]
            if self.spec.stage == RESTORE:
                words = [task, variant, method, count(nfe)]
            shown = [(cells.get(name, ABSENT), metric) for name, metric in columns.items()]
            lines.append([*(each or NOTHING for each in words), *footnotes.shown(shown)])
        heads = HEADS[self.spec.stage]
        labels = sum(not head.startswith("N") for head in heads)
        shown_heads = [*heads, *(each.head for each in columns.values())]
        return Grid(shown_heads, lines, labels=labels, sources=list(rows))

    def _refused(self, plan: Plan, metrics: Metrics) -> Iterator[Record]:
        """Yield the samples and likelihoods that no job can make, for the CSV: the grid has no row for them."""
        for refusal in _refusals(plan) if self.spec.stage != RESTORE else ():
            for name in self._scores if refusal.stage == "sample" else [BITS]:
                row_key, found = (refusal.variant, refusal.item), Cell("refused", refusal.reason)
                yield record_of(plan, row_key, name, metrics, found)

    def _notes(self, plan: Plan, records: Sequence[Record], metrics: Metrics) -> list[str]:
        own = [line for line in (self.spec.note, plan.benchmark.note) if line]
        if self.spec.stage == RESTORE:
            return [*own, *_notes_of_restorations(plan, records, metrics)]
        return [*own, *_notes_of_samples(plan, records, metrics)]


def _notes_of_samples(plan: Plan, records: Sequence[Record], metrics: Metrics) -> list[str]:
    others = {job.variant for job in plan.jobs if job.stage != RESTORE}
    shown = {item for _, item in _kinds(plan)}
    return [
        *(f"Scores: {line}." for line in context.protocols(records)),
        context.data_line(plan),
        *context.budget_lines(plan),
        *context.spread_lines(records),
        *context.mark_lines(records, metrics),
        *_remarks(plan, [name for name in plan.variants if name in others]),
        *context.refusal_lines(each for each in _refusals(plan) if each.item not in shown),
    ]


def _notes_of_restorations(plan: Plan, records: Sequence[Record], metrics: Metrics) -> list[str]:
    named = dict.fromkeys(record.variant for record in records)
    variants = [name for name in named if name in plan.variants]
    tasks = plan.benchmark.restorations.tasks.items()
    return [
        *(
            f"{name}: {context.described(task.operator)}, noise {task.noise:g}."
            for name, task in tasks
        ),
        *(f"FID: {line}." for line in context.protocols(records)),
        *(
            f"{metrics[each.metric].head}: {each.described}."
            for each in plan.benchmark.restorations.measures
            if each.metric in metrics
        ),
        context.data_line(plan, ((each.variant, each.solver) for each in records)),
        *context.budget_lines(plan, variants),
        *context.spread_lines(records, OVER_IMAGES),
        *context.mark_lines(records, metrics, "its column and task"),
        *_remarks(plan, variants),
    ]


def _remarks(plan: Plan, variants: Sequence[str]) -> list[str]:
    return [f"{name}: {plan.variants[name].note}." for name in variants if plan.variants[name].note]


def _refusals(plan: Plan) -> list[Refusal]:
    """Return the refusals of solvers and likelihoods: restorations have a table of their own."""
    return [each for each in plan.refusals if each.stage != RESTORE]


def record_of(plan: Plan, row_key: RowKey, metric: str, metrics: Metrics, found: Cell) -> Record:
    """Return the line of a number in the table's CSV; ``row_key`` is the variant and the item."""
    variant, item = row_key
    words = f"{item} {variant}" if "/" in item else f"{variant} {item}".strip()
    return Record(
        row=words,
        paper=plan.variants[variant].paper if variant in plan.variants else "",
        variant=variant,
        solver=item,
        metric=metric,
        unit=metrics[metric].unit,
        cell=found,
        protocol=_protocol(metric, found),
    )


def _protocol(metric: str, found: Cell) -> str:
    """Return how a number was made, in a few words."""
    made = found.protocol or {}
    counted = (
        f"{made['images']} test images, {made['draws']} draws each, " if "draws" in made else ""
    )
    return counted + context.protocol(metric, found.protocol)


def _kinds(plan: Plan) -> list[tuple[str, str]]:
    """Return (title of the kind, id) of all likelihoods: different kinds never share a column."""
    return list(dict.fromkeys(_kind(job) for job in plan.of("likelihood")))


def _kind(job: Job) -> tuple[str, str]:
    assert isinstance(job.spec, LikelihoodStageSpec)
    return job.spec.likelihood.title, job.item


def _bits(results: Records, metrics: Metrics) -> dict[tuple[str, tuple[str, str]], Record]:
    """Return the numbers of all likelihoods of the plan: (variant, kind) -> number."""
    plan = results.plan
    planned = {(job.variant, _kind(job)) for job in plan.of("likelihood")}
    return {
        (variant, kind): record_of(
            plan,
            (variant, kind[1]),
            BITS,
            metrics,
            results.cell(variant, "likelihood", kind[1], BITS),
        )
        for variant in plan.variants
        for kind in _kinds(plan)
        if (variant, kind) in planned
    }


def _bits_grid(
    plan: Plan,
    kinds: list[tuple[str, str]],
    bits: Mapping[tuple[str, tuple[str, str]], Record],
    metric: MetricSpec,
    footnotes: Footnotes,
) -> Grid:
    cells = {key: record.cell for key, record in bits.items() if key[1] in kinds}
    for refusal in plan.refusals:
        for kind in kinds:
            if (refusal.stage, refusal.item) == ("likelihood", kind[1]):
                cells[refusal.variant, kind] = Cell("refused", refusal.reason)
    named = {variant for variant, _ in cells}
    variants = [name for name in plan.variants if name in named]
    rows = [
        [name, *footnotes.shown([(cells.get((name, kind), ABSENT), metric) for kind in kinds])]
        for name in variants
    ]
    return Grid(
        ["variant", *(item for _, item in kinds)],
        rows,
        cells={
            (i, j): Source([(name, kind[1])])
            for i, name in enumerate(variants)
            for j, kind in enumerate(kinds, start=1)
        },
        caption=f"Bits per dimension, {kinds[0][0]}; of the test split but where the id says train",
    )
