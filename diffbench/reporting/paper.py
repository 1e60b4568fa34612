"""A paper's rows: our cells, and beside them, as context, what the paper published.

A difference, ours minus published, is taken only when everything that determines the number agrees:

    data set and its version                always
    training steps, batch and precision     of what is trained here
    precision of the network when sampling  of what has one
    samples, extractor, NFE                 of FID, IS and the like
    reference images                        of precision and recall
    images of the data set                  of bits per dimension, and of an analysis

Otherwise the column holds a dash and the note says what differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from diffbench.plan.jobs import Plan
from diffbench.reporting import context
from diffbench.reporting.cells import Cell, Record
from diffbench.reporting.comparability import kind_of
from diffbench.reporting.comparison import record
from diffbench.reporting.formats import NOTHING, Footnotes, Grid, Source, Table
from diffbench.reporting.layout import (
    BITS,
    Metrics,
    MetricSpec,
    PaperRowSpec,
    PaperTableSpec,
    ProtocolSpec,
    PublishedCellSpec,
)
from diffbench.reporting.numbers import count, plain
from diffbench.reporting.published import PublishedValue, PublishedValues
from diffbench.reporting.records import Records
from diffbench.specs.benchmark import VariantSpec
from diffbench.specs.weights import CellAt, step_of

UNKNOWN = "unknown"
#: Metrics that compare each sample with its nearest reference images: the number of these changes them.
OF_NEIGHBOURS = ("precision", "recall")
HEADS = ("row", "variant", "solver", "metric", "NFE", "N", "ours")
#: The column of our number; the published one and the difference follow.
OURS = HEADS.index("ours")


class PaperTable:
    """A table of our numbers beside published ones (see the module)."""

    def __init__(self, spec: PaperTableSpec) -> None:
        self.spec = spec

    def make(self, results: Records, metrics: Metrics, published: PublishedValues) -> Table:
        """Return the table; a row whose variant the benchmark lacks has only the published values.

        Raises:
            PlanError: when a row does not choose exactly one published value.
        """
        plan = results.plan
        asked = [(row, cell) for row in self.spec.rows for cell in row.cells.values()]
        theirs = [published.choose(cell.published) for _, cell in asked]
        records = [
            self._record(results, row, cell, metrics, value)
            for (row, cell), value in zip(asked, theirs, strict=True)
        ]
        footnotes = Footnotes()
        rows = [_shown(plan, record, metrics[record.metric], footnotes) for record in records]
        heads = [*HEADS, self.spec.context, "difference"]
        return Table(
            f"{self.spec.title}: {plan.benchmark.name}",
            records,
            [Grid(heads, rows, labels=4, cells=_sources(records, theirs))],
            self._notes(plan, records, metrics),
            footnotes.lines,
        )

    def _record(
        self,
        results: Records,
        row: PaperRowSpec,
        named: PublishedCellSpec,
        metrics: Metrics,
        theirs: PublishedValue,
    ) -> Record:
        number = record(results, row, named, metrics)
        found, protocol = number.cell, row.protocol or self.spec.protocol
        differing = disagreements(
            results.plan, named.variant, named.metric, found, protocol, theirs, named.at
        )
        ours = found.mean if found.status == "ok" and not differing else None
        return replace(
            number,
            paper=named.published.get("paper", ""),
            published=theirs.value,
            published_source=theirs.source,
            difference=None if ours is None else ours - float(theirs.value),
            remark="; ".join(filter(None, [row.note, _incomparable(differing)])),
        )

    def _notes(self, plan: Plan, records: Sequence[Record], metrics: Metrics) -> list[str]:
        own = [self.spec.note, plan.benchmark.note]
        rows = [f"{row.row}: {row.note}." for row in self.spec.rows if row.note]
        protocol = self.spec.protocol
        trained = f", {protocol.steps} steps of {protocol.batch} images" if protocol.steps else ""
        differing = any(record.difference is None for record in records)
        return [
            *(line for line in own if line),
            f"Published: {protocol.data}, {protocol.samples} samples, {protocol.extractor}{trained}"
            f". Context, not a target"
            f"{': no difference is taken across protocols' if differing else ''}.",
            *(f"Our scores: {line}." for line in context.protocols(records)),
            context.data_line(plan, ((each.variant, each.solver) for each in records)),
            *context.budget_lines(plan),
            *context.spread_lines(records),
            *context.mark_lines(records, metrics),
            *rows,
        ]


def disagreements(
    plan: Plan,
    variant: str,
    metric: str,
    ours: Cell,
    protocol: ProtocolSpec,
    theirs: PublishedValue,
    at: CellAt = None,
) -> list[str]:
    """Return why our number cannot be compared, ``"data set digits, not cifar10"`` and so on.

    Empty also when there is no number of ours.
    """
    if ours.mean is None:
        return []
    facts = [
        *_of_data(plan, protocol, theirs),
        *_of_training(plan.variants[variant], at, protocol, theirs),
        *_of_evaluation(metric, ours, protocol, theirs),
    ]
    return [
        f"{what} {UNKNOWN if a is None else a}, not {UNKNOWN if b is None else b}"
        for what, a, b in facts
        if a is None or b is None or a != b
    ]


#: The name of what is compared, our value, and theirs; None where it is not known.
Fact = tuple[str, object, object]


def _of_data(plan: Plan, protocol: ProtocolSpec, theirs: PublishedValue) -> Iterator[Fact]:
    """Yield the data set and its version: two versions are two data sets; one without versions has no such fact."""
    data = plan.benchmark.data
    yield "data set", data.known_as, protocol.data
    if data.known_as == protocol.data and (data.edition or theirs.version):
        yield "version of the data set", data.edition or None, theirs.version or None


def _of_training(
    chosen: VariantSpec, at: CellAt, protocol: ProtocolSpec, theirs: PublishedValue
) -> Iterator[Fact]:
    """Yield the training budget and precision; an imported model had its paper's budget."""
    if chosen.pretrained is not None:
        return
    training = chosen.training
    yield "training steps", training and step_of(at, training.steps), protocol.steps
    yield "batch", training and training.batch, protocol.batch
    if training is not None:
        yield "training precision", training.precision, theirs.trained_in or None


def _of_evaluation(
    metric: str, ours: Cell, protocol: ProtocolSpec, theirs: PublishedValue
) -> Iterator[Fact]:
    """Yield how the number was measured on the model."""
    made = ours.protocol or {}
    if "precision" in made:
        yield "sampling precision", made["precision"], theirs.sampled_in or None
    if metric == BITS or "extractor" not in made:
        yield "images", ours.images, protocol.images
        return
    yield "samples", ours.images, protocol.samples
    yield "extractor", made["extractor"], protocol.extractor
    yield "NFE", count(ours.nfe) or None, theirs.nfe or None
    if metric in OF_NEIGHBOURS:
        yield "reference images", made.get("reference_neighbours"), protocol.neighbours


def _incomparable(differing: Sequence[str]) -> str:
    return f"not comparable: {', '.join(differing)}" if differing else ""


def _sources(
    records: Sequence[Record], theirs: Sequence[PublishedValue]
) -> dict[tuple[int, int], Source]:
    """Return where our numbers, the published ones and the differences are from."""
    found: dict[tuple[int, int], Source] = {}
    for i, (each, value) in enumerate(zip(records, theirs, strict=True)):
        ours = Source([(each.variant, each.solver)])
        found |= {(i, OURS): ours, (i, OURS + 1): Source(published=value.row)}
        found |= {} if each.difference is None else {(i, OURS + 2): ours}
    return found


def _shown(plan: Plan, record: Record, metric: MetricSpec, footnotes: Footnotes) -> list[str]:
    cell = record.cell
    difference = record.difference
    kind = kind_of(plan, record.variant, record.solver) if record.metric == BITS else ""
    return [
        record.row,
        record.variant,
        record.solver or NOTHING,
        f"{metric.head} ({kind})" if kind else metric.head,
        count(cell.nfe) or NOTHING,
        count(cell.images) or NOTHING,
        *footnotes.shown([(cell, metric)]),
        f"{float(record.published) * metric.scale:g}" if metric.scale != 1 else record.published,
        NOTHING if difference is None else plain(difference * metric.scale, metric.digits),
    ]
