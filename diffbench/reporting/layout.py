"""What ``config/tables.yaml`` may say: the metrics' heads, each table's layout, each figure's kind.

Layouts and figures are registered like everything else that configuration chooses by name.  The
class that a layout describes takes its spec and has ``make(results, metrics, published) -> Table``;
a figure's has ``make(results, metrics) -> Drawing``, a ``Chart`` or a ``Gallery``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from diffbench.plan import reading
from diffbench.plan.treatments import Facet
from diffbench.specs.base import Float, PositiveFloat, PositiveInt, Registered, Spec, nothing
from diffbench.specs.benchmark import BenchmarkSpec
from diffbench.specs.errors import PlanError
from diffbench.specs.weights import CellAt

TABLES = Path("config") / "tables.yaml"
PUBLISHED = Path("config") / "published.csv"
BITS = "bits_per_dim"
CLAIMS_TABLE = "claims"

C = TypeVar("C")


class MetricSpec(Spec):
    """How a metric is shown.

    head: its column's head.
    unit: its unit; a dash for a pure number.
    scale: shown values are multiplied by it (CSV files hold the value itself).
    digits: significant digits of a value whose error is not shown.
    spread: whether the error is shown beside the value (CSV files always have it).
    best: which values rank rows, so that the best of a column is marked; none where the metric ranks nothing.
    """

    head: str
    unit: str = "-"
    scale: PositiveFloat = 1.0
    digits: PositiveInt = 3
    spread: bool = False
    best: Annotated[Literal["lower", "higher"] | None, BeforeValidator(nothing)] = None


#: A number of ours: variant, item, and the weights that it is made with; None are the last step's.
Named = tuple[str, str, CellAt]
#: Variants, and the weights of theirs that a cell names by ``at``; None are the last step's.
Steps = list[tuple[str, CellAt]]


class ItemSpec(Spec):
    """A solver, likelihood or analysis, with the weights of a step; an id alone is that of the last."""

    item: str
    at: CellAt = None

    def is_of(self, item: str) -> bool:
        """Say whether a job of that id may be meant: which step of several an ``at`` names depends on the run."""
        return item == self.item or (self.at is not None and item.startswith(f"{self.item}@"))


def _item(value: object) -> object:
    return {"item": value} if isinstance(value, str) else value


AnItem = Annotated[ItemSpec, BeforeValidator(_item)]


class Column(NamedTuple):
    """Numbers that readers compare: cells of one metric, which differ in the facets that they are ``about``."""

    metric: str
    cells: list[Named]
    about: Sequence[Facet] = ()


class TableSpec(Registered):
    """A table of any layout; ``note`` is printed below it."""

    kind: ClassVar[str] = "table"

    name: str
    title: str
    note: str = ""

    @property
    def named(self) -> set[str]:
        """The metrics that the table names."""
        return set()

    @property
    def steps(self) -> Steps:
        """The weights along training that its cells name."""
        return []

    @property
    def compared(self) -> dict[str, Column]:
        """What stands under one another, by the head."""
        return {}

    def shows(self, stage: str, variant: str, item: str) -> bool:
        """Whether the table shows what a job of that stage makes."""
        return stage in ("sample", "likelihood")


class OverviewSpec(TableSpec):
    """One row a variant and solver, ``metrics`` as columns; bits per dimension in a grid below."""

    name: Literal["overview"] = "overview"
    implementation: ClassVar[str] = "diffbench.reporting.overview:Overview"

    metrics: Annotated[list[str], Field(min_length=1)]

    @property
    def named(self) -> set[str]:
        """The metrics that the table names."""
        return {*self.metrics, BITS}


class ProtocolSpec(Spec):
    """How published numbers were made: what must agree before a difference is taken.

    data, samples, extractor: the data set's name, generated images and extractor of FID or IS.
    images: of the data set, of a likelihood or an analysis: test images, or a bound's of the training split.
    steps, batch: the training budget.
    neighbours: images of the data set that precision and recall compare with.

    ``none`` where the source does not say: nothing agrees then.  What differs from number to number, the data set's
    version and the precisions, stands in ``published.csv``.
    """

    data: str
    samples: Annotated[PositiveInt | None, BeforeValidator(nothing)]
    images: Annotated[PositiveInt | None, BeforeValidator(nothing)]
    extractor: str
    steps: Annotated[PositiveInt | None, BeforeValidator(nothing)]
    batch: Annotated[PositiveInt | None, BeforeValidator(nothing)]
    neighbours: Annotated[PositiveInt | None, BeforeValidator(nothing)] = None


class RowSpec(Spec):
    """One row of a paper's table.

    row: the paper's words for it.
    variant: ours; solvers, likelihoods: ids, of which the first that the benchmark has is taken.
    published: columns of ``published.csv`` and their values; ``cells`` has one more selection for
        each metric, laid over it.  Both together choose exactly one published value.
    at: the step, or the fraction of the run, of its weights.
    protocol: where it differs from the table's.
    """

    row: str
    variant: str
    solvers: list[str] = []
    likelihoods: list[str] = []
    published: dict[str, str] = {}
    cells: Annotated[dict[str, dict[str, str]], Field(min_length=1)]
    at: CellAt = None
    protocol: ProtocolSpec | None = None
    note: str = ""

    def items(self, metric: str) -> list[str]:
        """Return the ids of what may make a metric: likelihoods of bits per dimension, else solvers or analyses."""
        return self.likelihoods if metric == BITS else self.solvers

    def selection(self, metric: str) -> dict[str, str]:
        """Return the columns of ``published.csv`` that choose the published value of a metric."""
        return self.published | self.cells[metric]


class PaperTableSpec(TableSpec):
    """A paper's rows: our cells, and beside them, as context, what the paper published.

    context: the head of the published column, which says data set and samples.
    each: keys of a row that lie under every row's own.
    """

    name: Literal["paper"] = "paper"
    implementation: ClassVar[str] = "diffbench.reporting.paper:PaperTable"

    context: str
    protocol: ProtocolSpec
    each: dict[str, Any] = {}
    rows: Annotated[list[RowSpec], Field(min_length=1)]

    @property
    def named(self) -> set[str]:
        """The metrics that the table names."""
        return {metric for row in self.rows for metric in row.cells}

    def shows(self, stage: str, variant: str, item: str) -> bool:
        """Whether a row names it."""
        return any(
            ItemSpec(item=each, at=row.at).is_of(item)
            for row in self.rows
            if row.variant == variant
            for each in (*row.solvers, *row.likelihoods)
        )

    @property
    def steps(self) -> Steps:
        """Those of its rows."""
        return [(row.variant, row.at) for row in self.rows]

    @model_validator(mode="before")
    @classmethod
    def _rows_are_whole(cls, value: Any) -> Any:
        each, rows = value.get("each"), value.get("rows")
        if not isinstance(each, dict) or not isinstance(rows, list):
            return value
        return value | {"rows": [_laid_over(row, each) for row in rows]}


def _laid_over(row: Any, each: dict[str, Any]) -> Any:
    """Return a row over the keys that all share; what is published is merged column by column."""
    if not isinstance(row, dict):
        return row
    published = [part.get("published", {}) for part in (each, row)]
    if all(isinstance(part, dict) for part in published):
        row = row | {"published": published[0] | published[1]}
    return each | row


class ComparisonRowSpec(Spec):
    """One row of a comparison.

    row: its words.
    variant: whose numbers it has.
    item: the solver, or the analysis, of every column that ``cells`` does not name and that is not bits per dimension.
    at: the step, or the fraction of the run, of the weights of every cell that names none.
    cells: column head -> id of the solver, likelihood or analysis that has its metric, or ``{item, at}``.
    """

    row: str
    variant: str
    item: str = ""
    at: CellAt = None
    cells: dict[str, AnItem] = {}
    note: str = ""

    def chosen(self, head: str, metric: str) -> ItemSpec | None:
        """Return the solver, likelihood or analysis of a column; None where the row has none."""
        item = "" if metric == BITS else self.item
        found = self.cells.get(head) or (ItemSpec(item=item) if item else None)
        return found and found.model_copy(update={} if found.at is not None else {"at": self.at})


def listed(value: object) -> object:
    """Take one thing for a list of one."""
    return value if isinstance(value, list) else [value]


#: In what a comparison's sides differ (``plan.treatments``).
Facets = Annotated[list[Facet], BeforeValidator(listed)]


class ComparisonSpec(TableSpec):
    """Variants side by side; each row picks its own solver, likelihood or analysis for each column.

    columns: head -> metric.
    about: in which facets the rows' models differ, and in no other; anything when not given.
    """

    name: Literal["comparison"] = "comparison"
    implementation: ClassVar[str] = "diffbench.reporting.comparison:Comparison"

    columns: Annotated[dict[str, str], Field(min_length=1)]
    rows: Annotated[list[ComparisonRowSpec], Field(min_length=1)]
    about: Facets = []

    @property
    def compared(self) -> dict[str, Column]:
        """Each column."""
        return {
            head: Column(
                metric,
                [
                    (row.variant, found.item, found.at)
                    for row in self.rows
                    for found in [row.chosen(head, metric)]
                    if found is not None
                ],
                self.about,
            )
            for head, metric in self.columns.items()
        }

    @property
    def named(self) -> set[str]:
        """The metrics that the table names."""
        return set(self.columns.values())

    def shows(self, stage: str, variant: str, item: str) -> bool:
        """Whether a cell names it."""
        return any(each.is_of(item) for name, each in self._cells() if name == variant)

    @property
    def steps(self) -> Steps:
        """Those of its cells."""
        return [(name, each.at) for name, each in self._cells()]

    def _cells(self) -> list[tuple[str, ItemSpec]]:
        return [
            (row.variant, chosen)
            for row in self.rows
            for head, metric in self.columns.items()
            if (chosen := row.chosen(head, metric))
        ]

    @model_validator(mode="after")
    def _cells_have_columns(self) -> Self:
        for row in self.rows:
            if unknown := [head for head in row.cells if head not in self.columns]:
                near = reading.nearest(unknown[0], self.columns)
                raise ValueError(f"the row {row.row!r} names the column {unknown[0]!r}{near}")
            if not any(row.chosen(head, metric) for head, metric in self.columns.items()):
                raise ValueError(f"the row {row.row!r} names no solver, likelihood or analysis")
        return self


class RestorationsTableSpec(TableSpec):
    """One row a task, variant and restorer, ``metrics`` as columns.

    truth: further columns, there where some row has them: they compare with a posterior that is rarely known.
    """

    name: Literal["restorations"] = "restorations"
    implementation: ClassVar[str] = "diffbench.reporting.restorations:Restorations"

    metrics: Annotated[list[str], Field(min_length=1)]
    truth: list[str] = []

    @property
    def named(self) -> set[str]:
        """The metrics that the table names."""
        return {*self.metrics, *self.truth}

    def shows(self, stage: str, variant: str, item: str) -> bool:
        """Restorations alone."""
        return stage == "restore"


AnyTable = Annotated[SerializeAsAny[TableSpec], BeforeValidator(TableSpec.choose)]
Metrics = dict[str, MetricSpec]


class FigureSpec(Registered):
    """A figure of any kind; ``note`` is printed below it."""

    kind: ClassVar[str] = "figure"

    name: str
    title: str
    note: str = ""

    @property
    def named(self) -> set[str]:
        """The metrics that the figure names."""
        return set()

    @property
    def steps(self) -> Steps:
        """The weights along training that it names."""
        return []

    @property
    def compared(self) -> dict[str, Column]:
        """What has one axis, by its name."""
        return {}


class CurvePointSpec(Spec):
    """A point of a curve: the scores of one solver, or its bits per dimension, at ``x``."""

    x: Float
    variant: str
    item: str
    at: CellAt = None


class CurveSeriesSpec(Spec):
    """A curve and its name in the legend."""

    label: str
    points: Annotated[list[CurvePointSpec], Field(min_length=1)]


class CurveFigureSpec(FigureSpec):
    """Metrics, one panel each, against a number ``x`` that the solvers' ids stand for."""

    name: Literal["curve"] = "curve"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Curves"

    x: str
    metrics: Annotated[list[str], Field(min_length=1)]
    series: Annotated[list[CurveSeriesSpec], Field(min_length=1)]

    @property
    def compared(self) -> dict[str, Column]:
        """Each panel."""
        points = [
            (point.variant, point.item, point.at) for each in self.series for point in each.points
        ]
        return {metric: Column(metric, points) for metric in self.metrics}

    @property
    def named(self) -> set[str]:
        """The metrics that the figure names."""
        return set(self.metrics)

    @property
    def steps(self) -> Steps:
        """Those of its points."""
        return [(each.variant, each.at) for series in self.series for each in series.points]


class LearningSeriesSpec(Spec):
    """A variant's solver or likelihood and its name in the legend."""

    label: str
    variant: str
    item: str


class LearningFigureSpec(FigureSpec):
    """Metrics, one panel each, against the training step: a point for each step whose weights have the item.

    log: which axes are logarithmic.
    """

    name: Literal["learning"] = "learning"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Learning"

    metrics: Annotated[list[str], Field(min_length=1)]
    series: Annotated[list[LearningSeriesSpec], Field(min_length=1)]
    log: Literal["none", "x", "y", "xy"] = "none"

    @property
    def named(self) -> set[str]:
        """The metrics that the figure names."""
        return set(self.metrics)


Items = Annotated[list[str], Field(min_length=1)]


class NFEFigureSpec(FigureSpec):
    """A metric against the function evaluations that the solvers took.

    variants: one panel each, in this order.
    series: a curve's name in the legend -> ids of its solvers, of which each variant has some or none.
    """

    name: Literal["nfe"] = "nfe"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Evaluations"

    metric: str = "fid_test"
    variants: Annotated[list[str], Field(min_length=1)]
    series: Annotated[dict[str, Items], Field(min_length=1)]

    @property
    def named(self) -> set[str]:
        """The metrics that the figure names."""
        return {self.metric}


class TermsSeriesSpec(Spec):
    """A variant's likelihood and its name in the legend."""

    label: str
    variant: str
    likelihood: str


class TermsFigureSpec(FigureSpec):
    """The terms of the variational bound, step by step."""

    name: Literal["terms"] = "terms"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Terms"

    series: Annotated[list[TermsSeriesSpec], Field(min_length=1)]


class GradientNoiseFigureSpec(FigureSpec):
    """How noisy the gradient of each estimator of the bound is, from a run's ``analysis``."""

    name: Literal["gradient-noise"] = "gradient-noise"
    implementation: ClassVar[str] = "diffbench.reporting.figures:GradientNoise"

    variant: str
    analysis: str


class ReconstructionSeriesSpec(Spec):
    """A variant's analysis and its name in the legend."""

    label: str
    variant: str
    analysis: str


class ReconstructionFigureSpec(FigureSpec):
    """How far decoding the encoded test images misses them, by the number of steps."""

    name: Literal["reconstruction"] = "reconstruction"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Reconstruction"

    series: Annotated[list[ReconstructionSeriesSpec], Field(min_length=1)]


class RestorationsFigureSpec(FigureSpec):
    """The first ``images`` test images, what was measured of them, and a restoration of each method, task by task."""

    name: Literal["restorations"] = "restorations"
    implementation: ClassVar[str] = "diffbench.reporting.restorations:RestoredImages"

    images: PositiveInt = 6


AnyFigure = Annotated[SerializeAsAny[FigureSpec], BeforeValidator(FigureSpec.choose)]


class TablesSpec(Spec):
    """The whole of ``tables.yaml``."""

    metrics: Metrics
    tables: dict[str, AnyTable]
    figures: dict[str, AnyFigure] = {}

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        if CLAIMS_TABLE in self.tables:
            raise ValueError(f"no table can be called {CLAIMS_TABLE!r}: the claims' table is")
        parts = {f"table {name}": table.named for name, table in self.tables.items()}
        parts |= {f"figure {name}": figure.named for name, figure in self.figures.items()}
        for part, named in parts.items():
            if unknown := sorted(named - set(self.metrics)):
                near = reading.nearest(unknown[0], self.metrics)
                raise ValueError(f"{part} names the metric {unknown[0]!r}{near}")
        return self


def read_tables(repository: Path) -> TablesSpec:
    """Read ``config/tables.yaml`` beside the Snakefile.

    Raises:
        PlanError: for the first mistake, with file, line and key.
    """
    tree = reading.read(repository / TABLES)
    return reading.validated(TablesSpec.model_validate, TablesSpec, tree)


def chosen(known: TablesSpec, benchmark: BenchmarkSpec) -> TablesSpec:
    """Return the tables and figures that a benchmark wants, in its order.

    Raises:
        PlanError: when there is no such table or figure.
    """
    return known.model_copy(
        update={
            "tables": _chosen(known.tables, benchmark.tables, "table"),
            "figures": _chosen(known.figures, benchmark.figures, "figure"),
        }
    )


def _chosen(known: Mapping[str, C], names: list[str], what: str) -> dict[str, C]:
    for name in names:
        if name not in known:
            near = reading.nearest(name, known)
            raise PlanError(f"{what}s: no {what} {name!r} in {TABLES}{near}")
    return {name: known[name] for name in names}
