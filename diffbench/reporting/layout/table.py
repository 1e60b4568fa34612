"""The tables' layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from diffbench.plan import reading
from diffbench.plan.treatments import Facet
from diffbench.reporting.layout.cell import BITS, Asking, CellSpec, Column, listed
from diffbench.specs.base import PositiveInt, Registered, Spec, nothing
from diffbench.specs.weights import CellAt

#: Where numbers of finished benchmarks are kept in a repository, and which files of each have those of samples.
RECORDS, RECORDED = Path("docs") / "records", ("cells", "budgets")


class TableSpec(Asking, Registered):
    """A table of any layout; ``note`` is printed below it."""

    kind: ClassVar[str] = "table"
    chosen_by: ClassVar[str] = "layout"

    layout: str
    title: str
    note: str = ""

    @property
    def files(self) -> list[Path]:
        """The files of the repository that the table is made of, besides results."""
        return []

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

    @property
    def whole(self) -> Sequence[str]:
        """The listing's stage, and likelihood where bits per dimension follow."""
        return (self.stage, "likelihood") if self.likelihoods else (self.stage,)

    def shows(self, stage: str, variant: str, item: str) -> bool:
        """Return whether all jobs of the stage are shown."""
        return stage in self.whole

    def with_columns(self, more: list[str]) -> Self:
        """Return the listing with further columns, shown only if some row has them."""
        added = {"columns": [*self.columns, *more], "where_known": [*self.where_known, *more]}
        return self.model_copy(update=added) if more else self

    @model_validator(mode="after")
    def _known_are_columns(self) -> Self:
        if strange := [name for name in self.where_known if name not in self.columns]:
            near = reading.nearest(strange[0], self.columns)
            raise ValueError(f"where_known: {strange[0]!r} is not one of the columns{near}")
        return self


class IntervalsSpec(TableSpec):
    """The samples that have several seeds: the mean of each metric and its 95 % interval, by Student's t over seeds.

    columns: metrics.
    seeds: the fewest seeds that a row has.
    """

    layout: Literal["intervals"] = "intervals"
    implementation: ClassVar[str] = "diffbench.reporting.intervals:Intervals"

    columns: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[PositiveInt, Field(ge=2)] = 3

    @property
    def asked(self) -> dict[str, Column]:
        """A column for each metric, of whatever is planned."""
        return {name: Column(name) for name in self.columns}

    @property
    def whole(self) -> Sequence[str]:
        """Samples."""
        return ("sample",)

    def shows(self, stage: str, variant: str, item: str) -> bool:
        """Return whether the stage draws samples."""
        return stage in self.whole


class RecordedSpec(TableSpec):
    """Samples of several seeds of other benchmarks, which are recorded: means and intervals as ``IntervalsSpec`` has.

    Only variants and solvers that the benchmark has too are shown, and for each the run that it is of.

    runs: the benchmarks.
    columns: metrics.
    seeds: the fewest seeds that a row has.
    """

    layout: Literal["recorded"] = "recorded"
    implementation: ClassVar[str] = "diffbench.reporting.recorded_intervals:RecordedIntervals"

    runs: Annotated[list[str], Field(min_length=1)]
    columns: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[PositiveInt, Field(ge=2)] = 3

    @property
    def whole(self) -> Sequence[str]:
        """Samples: those of the plan that are recorded."""
        return ("sample",)

    @property
    def files(self) -> list[Path]:
        """The records of the benchmarks."""
        return [RECORDS / run / f"{name}.csv" for run in self.runs for name in RECORDED]


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
