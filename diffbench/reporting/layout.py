"""What ``config/tables.yaml`` may say: the metrics' heads, each table's layout, each figure's kind.

Layouts and figures are registered like everything else that configuration chooses by name.  The
class of a layout is built from its spec and has ``make(results, metrics, published) -> Table``;
the class of a figure has ``make(results, metrics) -> Drawing``, a ``Chart`` or a ``Gallery``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from diffbench.plan import reading
from diffbench.plan.jobs import Plan
from diffbench.plan.reading import Keys, Tree
from diffbench.plan.treatments import Facet
from diffbench.reporting.spelling import refuse_old
from diffbench.specs.base import Float, PositiveFloat, PositiveInt, Registered, Spec, nothing
from diffbench.specs.benchmark import names, own
from diffbench.specs.errors import PlanError
from diffbench.specs.weights import CellAt

TABLES = Path("config") / "tables.yaml"
PUBLISHED = Path("config") / "published.csv"
BITS = "bits_per_dim"
CLAIMS_TABLE = "claims"

C = TypeVar("C")


class MetricSpec(Spec):
    """How a metric is shown, and which of its values are better.

    head: the head of its column.
    unit: its unit; a dash for a pure number.
    scale: shown values are multiplied by it (CSV files hold the value itself).
    digits: significant digits of a value whose error is not shown.
    spread: whether the error is shown beside the value (CSV files always have it).
    better: ``lower`` or ``higher``; none where neither is.  Claims and marks of the best use it.
    ranks: whether the best of a column is marked.
    """

    head: str
    unit: str = "-"
    scale: PositiveFloat = 1.0
    digits: PositiveInt = 3
    spread: bool = False
    better: Annotated[Literal["lower", "higher"] | None, BeforeValidator(nothing)] = None
    ranks: bool = True

    @property
    def sign(self) -> int:
        """1 where lower values are better, -1 where higher values are better, else 0."""
        return {"lower": 1, "higher": -1, None: 0}[self.better]


#: A number of ours: variant, item, and the weights that it is made with; None for the last step's.
Named = tuple[str, str, CellAt]
#: Variants, and the weights that a cell names by ``at``; None for the last step's.
Steps = list[tuple[str, CellAt]]


def listed(value: object) -> object:
    """Return a list as it is, and any other value as a list of one."""
    return value if isinstance(value, list) else [value]


Items = Annotated[list[str], BeforeValidator(listed), Field(min_length=1)]


class CellSpec(Spec):
    """A number of ours in a table, a figure or a claim.

    variant: the variant's id.
    item: a solver, a likelihood, a restoration (``task/restorer``) or an analysis; of several, the first that the
        benchmark has.
    at: the step, or the fraction of the run, of the weights; one of the budget's ``snapshots``, else the last.
    metric: the metric's name.
    """

    variant: str
    item: Items
    at: CellAt = None
    metric: str

    @property
    def named(self) -> list[Named]:
        """Each item with the variant and the weights."""
        return [(self.variant, item, self.at) for item in self.item]

    @property
    def shown(self) -> str:
        """The cell in words."""
        return (
            f"{self.variant} {' or '.join(self.item)}{'' if self.at is None else f' at {self.at}'}"
        )

    def is_of(self, variant: str, item: str) -> bool:
        """Return whether the cell may mean a job of this item; the step that ``at`` means depends on the run."""
        if variant != self.variant:
            return False
        started = [f"{each}@" for each in self.item] if self.at is not None else []
        return item in self.item or any(item.startswith(each) for each in started)


class Column(NamedTuple):
    """Numbers that readers compare: cells of one metric, which may differ in the facets in ``about``."""

    metric: str
    cells: Sequence[Named] = ()
    about: Sequence[Facet] = ()


class Asking:
    """What tables and figures have in common: they ask for numbers."""

    @property
    def asked(self) -> dict[str, Column]:
        """The numbers that are asked for, by the head of their column or panel."""
        return {}

    @property
    def compared(self) -> dict[str, Column]:
        """The numbers that are compared: those in one column or on one axis."""
        return self.asked

    @property
    def named(self) -> set[str]:
        """The metrics of the numbers that are asked for."""
        return {column.metric for column in self.asked.values()}

    @property
    def steps(self) -> Steps:
        """The weights along training of the numbers that are asked for."""
        return [(variant, at) for each in self.asked.values() for variant, _, at in each.cells]


class TableSpec(Asking, Registered):
    """A table of any layout; ``note`` is printed below it."""

    kind: ClassVar[str] = "table"
    chosen_by: ClassVar[str] = "layout"

    layout: str
    title: str
    note: str = ""

    def shows(self, stage: str, variant: str, item: str) -> bool:
        """Return whether the table shows what a job of that stage makes."""
        return False


class ListingSpec(TableSpec):
    """A row for each item of a stage with each variant.

    stage: ``sample``, or ``restore``, whose rows begin with the task.
    columns: metrics, and the times of jobs: ``train_seconds``, ``sample_seconds``, ``restore_seconds``.
    where_known: the columns that are shown only if some row has them.
    likelihoods: whether bits per dimension follow, a grid for each kind of them.
    """

    layout: Literal["listing"] = "listing"
    implementation: ClassVar[str] = "diffbench.reporting.listing:Listing"

    stage: Literal["sample", "restore"]
    columns: Annotated[list[str], Field(min_length=1)]
    where_known: list[str] = []
    likelihoods: bool = False

    @property
    def asked(self) -> dict[str, Column]:
        """A column for each metric, of whatever is planned."""
        bits = [BITS] if self.stage == "sample" else []
        return {name: Column(name) for name in (*self.columns, *bits)}

    def shows(self, stage: str, variant: str, item: str) -> bool:
        """Return whether the stage is the listing's, or likelihood where bits per dimension follow."""
        return stage == self.stage or (self.likelihoods and stage == "likelihood")

    @model_validator(mode="after")
    def _known_are_columns(self) -> Self:
        if strange := [name for name in self.where_known if name not in self.columns]:
            near = reading.nearest(strange[0], self.columns)
            raise ValueError(f"where_known: {strange[0]!r} is not one of the columns{near}")
        return self


class ProtocolSpec(Spec):
    """How published numbers were made: what must agree before a difference is taken.

    data, samples, extractor: the data set's name, the number of generated images, and the extractor of FID or IS.
    images: the number of images of a likelihood or an analysis: of the test split, or of a bound's training split.
    steps, batch: the training budget.
    neighbours: the number of the data set's images that precision and recall compare with.

    ``none`` where the source does not say: then nothing agrees.  What differs from number to number, the data set's
    version and the precisions, is in ``published.csv``.
    """

    data: str
    samples: Annotated[PositiveInt | None, BeforeValidator(nothing)]
    images: Annotated[PositiveInt | None, BeforeValidator(nothing)]
    extractor: str
    steps: Annotated[PositiveInt | None, BeforeValidator(nothing)]
    batch: Annotated[PositiveInt | None, BeforeValidator(nothing)]
    neighbours: Annotated[PositiveInt | None, BeforeValidator(nothing)] = None


#: The facets in which the sides of a comparison differ (``plan.treatments``).
Facets = Annotated[list[Facet], BeforeValidator(listed)]
#: The keys of a cell that a row gives to all of its cells.
OF_ROW = ("variant", "item", "at")


class RowSpec(Spec):
    """A row of a comparison.

    row: the words at its beginning.
    variant, item, at: what its cells have in common.
    cells: column -> cell.
    """

    row: str
    variant: str = ""
    item: Annotated[list[str], BeforeValidator(listed)] = []
    at: CellAt = None
    cells: dict[str, CellSpec]
    note: str = ""

    @property
    def variants(self) -> str:
        """The variants of the row's cells, in words."""
        return ", ".join(dict.fromkeys(cell.variant for cell in self.cells.values()))


class RowsSpec(TableSpec):
    """A table whose rows are chosen one by one.

    A cell is made of three parts, each of which overrides the one before: what its row says (``variant``, ``item``,
    ``at``), what its column says, and what the row's ``cells`` say of the column.  An id alone is the metric in a
    column, and the item in the row's ``cells``.  The item of a row is not used for bits per dimension, which solvers do
    not make.  A row has a cell where it has an item.

    columns: head -> metric, or a part of a cell, whose metric is the head unless it says which.
    each: keys for every row, which a row's own keys override.
    """

    columns: dict[str, Any] = {}
    each: dict[str, Any] = {}
    rows: Sequence[RowSpec]

    @property
    def cells(self) -> list[CellSpec]:
        """The cells of all rows."""
        return [cell for row in self.rows for cell in row.cells.values()]

    @property
    def heads(self) -> dict[str, str]:
        """The metric of each column."""
        return {head: _column(head, part)["metric"] for head, part in self.columns.items()}

    def shows(self, stage: str, variant: str, item: str) -> bool:
        """Return whether a cell names the item."""
        return any(cell.is_of(variant, item) for cell in self.cells)

    @model_validator(mode="before")
    @classmethod
    def _cells_are_whole(cls, value: Any) -> Any:
        """Return the table with whole cells: each is laid over its column and its row."""
        parts = [value.get("each", {}), value.get("columns", {})]
        if not isinstance(value.get("rows"), list) or not all(isinstance(p, dict) for p in parts):
            return value
        each, columns = parts
        return value | {"rows": [_whole(_over(row, each), columns) for row in value["rows"]]}


def _over(row: Any, each: Mapping[str, Any]) -> Any:
    """Return a row over the keys that all rows share; ``published`` is merged key by key."""
    if not isinstance(row, dict):
        return row
    return {**each, **row} | _published(each, row)


def _published(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``published`` merged from all parts, the later over the earlier; empty where no part has it."""
    found: dict[str, Any] = {}
    for part in parts:
        told = part.get("published")
        found |= told if isinstance(told, dict) else {}
    return {"published": found} if found else {}


def _column(head: str, part: Any) -> dict[str, Any]:
    """Return the part of a cell that its column gives."""
    return {"metric": head} | (part if isinstance(part, dict) else {"metric": part})


def _whole(row: Any, columns: Mapping[str, Any]) -> Any:
    """Return a row whose cells have all their parts."""
    if not isinstance(row, dict):
        return row
    if not all(isinstance(row.get(key, {}), dict) for key in ("cells", "columns")):
        return row
    columns, own = row.get("columns", columns), row.get("cells", {})
    if unknown := [head for head in own if head not in columns]:
        near = reading.nearest(unknown[0], columns)
        raise ValueError(f"the row {row.get('row')!r} names the column {unknown[0]!r}{near}")
    cells = {}
    for head, part in columns.items():
        column, cell = _column(head, part), own.get(head, {})
        cell = cell if isinstance(cell, dict) else {"item": cell}
        if "metric" in cell:
            raise ValueError(
                f"the row {row.get('row')!r}: a cell has the metric of its column; leave metric out"
            )
        shared = {key: row[key] for key in OF_ROW if key in row}
        if column["metric"] == BITS:
            shared.pop("item", None)
        found = shared | column | cell
        if "item" in found:
            cells[head] = found | _published(row, column, cell)
    if not cells and "variant" in row:
        raise ValueError(f"the row {row.get('row')!r} names no solver, likelihood or analysis")
    return row | {"cells": cells}


def _with_protocol(row: Any, shared: Mapping[str, Any]) -> Any:
    """Return a row whose protocol, if it has one, is laid over the table's."""
    own = row.get("protocol") if isinstance(row, dict) else None
    return row | {"protocol": {**shared, **own}} if isinstance(own, dict) else row


class ComparisonSpec(RowsSpec):
    """Variants side by side: a row for each of ``rows``, a column for each of ``columns``.

    about: the facets in which the rows' models may differ, and no other; any facet when not given.
    """

    layout: Literal["comparison"] = "comparison"
    implementation: ClassVar[str] = "diffbench.reporting.comparison:Comparison"

    columns: Annotated[dict[str, Any], Field(min_length=1)]
    rows: Annotated[list[RowSpec], Field(min_length=1)]
    about: Facets = []

    @property
    def asked(self) -> dict[str, Column]:
        """The cells of each column."""
        found = {
            head: [row.cells[head] for row in self.rows if head in row.cells]
            for head in self.columns
        }
        return {
            head: Column(metric, [name for cell in found[head] for name in cell.named], self.about)
            for head, metric in self.heads.items()
        }


class PublishedCellSpec(CellSpec):
    """A number of ours, and the values of columns of ``published.csv`` that choose one published number."""

    published: dict[str, str]


class PaperRowSpec(RowSpec):
    """A row of a paper's table.

    columns: used in place of the table's.
    published: the values of columns of ``published.csv`` that all its cells share.
    protocol: what differs from the table's.
    """

    columns: dict[str, Any] = {}
    published: dict[str, str] = {}
    cells: dict[str, PublishedCellSpec]  # type: ignore[assignment]
    protocol: ProtocolSpec | None = None


class PaperTableSpec(RowsSpec):
    """Rows beside published numbers, one line for each number; each cell also chooses its published number.

    context: the head of the published column, which says data set and samples.
    protocol: how the published numbers were made.
    """

    layout: Literal["paper"] = "paper"
    implementation: ClassVar[str] = "diffbench.reporting.paper:PaperTable"

    context: str
    protocol: ProtocolSpec
    rows: Annotated[list[PaperRowSpec], Field(min_length=1)]

    @property
    def asked(self) -> dict[str, Column]:
        """The cell of each line: a row may have columns of its own."""
        return {
            f"{row.row}, {head}": Column(cell.metric, cell.named)
            for row in self.rows
            for head, cell in row.cells.items()
        }

    @property
    def compared(self) -> dict[str, Column]:
        """No columns: each line is compared with the published number beside it."""
        return {}

    @model_validator(mode="before")
    @classmethod
    def _protocols_are_whole(cls, value: Any) -> Any:
        """Return the table with whole protocols: what a row says is laid over the table's."""
        shared, rows = value.get("protocol"), value.get("rows")
        if not isinstance(shared, dict) or not isinstance(rows, list):
            return value
        return value | {"rows": [_with_protocol(row, shared) for row in rows]}


AnyTable = Annotated[SerializeAsAny[TableSpec], BeforeValidator(TableSpec.choose)]
Metrics = dict[str, MetricSpec]


class FigureSpec(Asking, Registered):
    """A figure of any layout; ``note`` is printed below it."""

    kind: ClassVar[str] = "figure"
    chosen_by: ClassVar[str] = "layout"

    layout: str
    title: str
    note: str = ""


class CurvePointSpec(Spec):
    """A point of a curve: the scores or the bits per dimension of one item, at ``x``."""

    x: Float
    variant: str
    item: str
    at: CellAt = None


class CurveSeriesSpec(Spec):
    """A curve and its name in the legend."""

    label: str
    points: Annotated[list[CurvePointSpec], Field(min_length=1)]


class CurveFigureSpec(FigureSpec):
    """Metrics, one panel each, against a number ``x`` of the solvers."""

    layout: Literal["curve"] = "curve"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Curves"

    x: str
    metrics: Annotated[list[str], Field(min_length=1)]
    series: Annotated[list[CurveSeriesSpec], Field(min_length=1)]

    @property
    def asked(self) -> dict[str, Column]:
        """The cells of each panel."""
        points = [
            (each.variant, each.item, each.at) for series in self.series for each in series.points
        ]
        return {metric: Column(metric, points) for metric in self.metrics}


class SeriesSpec(Spec):
    """A variant's solver, likelihood or analysis, and its name in the legend."""

    label: str
    variant: str
    item: str


class LearningFigureSpec(FigureSpec):
    """Metrics, one panel each, against the training step: a point for each step whose weights have the item.

    log: which axes are logarithmic.
    """

    layout: Literal["learning"] = "learning"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Learning"

    metrics: Annotated[list[str], Field(min_length=1)]
    series: Annotated[list[SeriesSpec], Field(min_length=1)]
    log: Literal["none", "x", "y", "xy"] = "none"

    @property
    def asked(self) -> dict[str, Column]:
        """A panel for each metric, of whatever steps are planned."""
        return {metric: Column(metric) for metric in self.metrics}


class NFEFigureSpec(FigureSpec):
    """A metric against the function evaluations that the solvers took.

    variants: one panel each, in this order.
    series: a curve's name in the legend -> ids of its solvers; a variant may lack some or all of them.
    """

    layout: Literal["nfe"] = "nfe"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Evaluations"

    metric: str = "fid_test"
    variants: Annotated[list[str], Field(min_length=1)]
    series: Annotated[dict[str, Items], Field(min_length=1)]

    @property
    def asked(self) -> dict[str, Column]:
        """The one metric, of whatever is planned."""
        return {self.metric: Column(self.metric)}


class TermsFigureSpec(FigureSpec):
    """The terms of the variational bound, one for each step."""

    layout: Literal["terms"] = "terms"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Terms"

    series: Annotated[list[SeriesSpec], Field(min_length=1)]


class GradientNoiseFigureSpec(FigureSpec):
    """The noise of the gradient of each estimator of the bound, from a run's ``analysis``."""

    layout: Literal["gradient-noise"] = "gradient-noise"
    implementation: ClassVar[str] = "diffbench.reporting.figures:GradientNoise"

    variant: str
    item: str


class ReconstructionFigureSpec(FigureSpec):
    """The error of test images that were encoded and decoded again, against the number of steps."""

    layout: Literal["reconstruction"] = "reconstruction"
    implementation: ClassVar[str] = "diffbench.reporting.figures:Reconstruction"

    series: Annotated[list[SeriesSpec], Field(min_length=1)]


class RestorationsFigureSpec(FigureSpec):
    """The first ``images`` test images, their measurements, and a restoration by each method, task by task."""

    layout: Literal["restorations"] = "restorations"
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
            raise ValueError(
                f"a table cannot be called {CLAIMS_TABLE!r}: this is the table of the claims"
            )
        parts = {f"table {name}": table.named for name, table in self.tables.items()}
        parts |= {f"figure {name}": figure.named for name, figure in self.figures.items()}
        for part, named in parts.items():
            if unknown := sorted(named - set(self.metrics)):
                near = reading.nearest(unknown[0], self.metrics)
                raise ValueError(f"{part} names the metric {unknown[0]!r}{near}")
        return self


def read_tables(repository: Path) -> TablesSpec:
    """Return the content of ``config/tables.yaml`` beside the Snakefile.

    Raises:
        PlanError: for the first mistake, with file, line and key.
    """
    tree = reading.read(repository / TABLES)
    refuse_old(tree, TABLES)
    return reading.validated(TablesSpec.model_validate, TablesSpec, tree)


def of_plan(plan: Plan, known: TablesSpec | None = None) -> TablesSpec:
    """Return the tables and figures that a benchmark wants, in its order, and all metrics, with those that it defines.

    Args:
        plan: the benchmark.
        known: the result of ``read_tables``, where it has been read already.

    Raises:
        PlanError: for the first mistake in what the benchmark defines, or when there is no such table or figure.
    """
    known, benchmark = known or read_tables(plan.repository), plan.benchmark
    parts: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "metrics": (known.metrics, benchmark.metrics),
        "tables": (known.tables, own(benchmark.tables)),
        "figures": (known.figures, own(benchmark.figures)),
    }
    for part, (shared, mine) in parts.items():
        refuse_known(plan, part, mine, shared, TABLES)
    origins = written(plan)
    refuse_old(Tree({part: mine for part, (_, mine) in parts.items()}, origins), plan.config)
    merged = {part: {**shared, **mine} for part, (shared, mine) in parts.items()}
    whole = reading.validated(TablesSpec.model_validate, TablesSpec, Tree(merged, origins))
    return whole.model_copy(
        update={
            "tables": _chosen(whole.tables, names(benchmark.tables), "table"),
            "figures": _chosen(whole.figures, names(benchmark.figures), "figure"),
        }
    )


def written(plan: Plan) -> dict[Keys, str]:
    """Return keys of a benchmark file -> place in the file; what it defines in lists is found as if in mappings."""
    origins = reading.read(plan.config).origins if own_parts(plan) else {}
    return {
        tuple(key for key in keys if not (key in keys[1:2] and isinstance(key, int))): place
        for keys, place in origins.items()
    } | {(): str(plan.config)}


def own_parts(plan: Plan) -> bool:
    """Return whether a benchmark defines metrics, tables, figures or claims of its own."""
    benchmark = plan.benchmark
    listed = (benchmark.tables, benchmark.figures, benchmark.claims)
    return bool(benchmark.metrics) or any(own(each) for each in listed)


def refuse_known(
    plan: Plan, part: str, mine: Mapping[str, Any], shared: Mapping[str, Any], file: Path
) -> None:
    """Refuse a definition in a benchmark file that the repository has too.

    Raises:
        PlanError: naming it.
    """
    if both := [name for name in mine if name in shared]:
        raise PlanError(
            f"{plan.config}: {part}: {both[0]!r} is defined in {file} too: choose another name"
        )


def _chosen(known: Mapping[str, C], names: list[str], what: str) -> dict[str, C]:
    for name in names:
        if name not in known:
            near = reading.nearest(name, known)
            raise PlanError(f"{what}s: no {what} {name!r} in {TABLES}{near}")
    return {name: known[name] for name in names}
