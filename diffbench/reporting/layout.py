"""What ``config/tables.yaml`` may say: the metrics' heads, and each table's layout.

A layout is registered like everything else that configuration chooses by name; the class that it
describes takes its spec and has ``make(results, metrics) -> Table``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from diffbench.plan import reading
from diffbench.plan.reading import PlanError
from diffbench.specs.base import PositiveFloat, PositiveInt, Registered, Spec, nothing

TABLES = Path("config") / "tables.yaml"
PUBLISHED = Path("config") / "published.csv"
BITS = "bits_per_dim"


class MetricSpec(Spec):
    """How a metric is shown.

    head: its column's head.
    unit: its unit; a dash for a pure number.
    scale: shown values are multiplied by it (CSV files hold the value itself).
    digits: significant digits of a value whose error is not shown.
    spread: whether the error is shown beside the value (CSV files always have it).
    """

    head: str
    unit: str = "-"
    scale: PositiveFloat = 1.0
    digits: PositiveInt = 3
    spread: bool = False


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
    images: test images of a likelihood.
    steps, batch: the training budget.  ``none`` where the source does not say: nothing agrees then.
    """

    data: str
    samples: Annotated[PositiveInt | None, BeforeValidator(nothing)]
    images: Annotated[PositiveInt | None, BeforeValidator(nothing)]
    extractor: str
    steps: Annotated[PositiveInt | None, BeforeValidator(nothing)]
    batch: Annotated[PositiveInt | None, BeforeValidator(nothing)]


class RowSpec(Spec):
    """One row of a paper's table.

    row: the paper's words for it.
    variant: ours; solvers, likelihoods: ids, of which the first that the benchmark has is taken.
    published: columns of ``published.csv`` and their values; ``cells`` has one more selection for
        each metric, laid over it.  Both together choose exactly one published value.
    protocol: where it differs from the table's.
    """

    row: str
    variant: str
    solvers: list[str] = []
    likelihoods: list[str] = []
    published: dict[str, str] = {}
    cells: Annotated[dict[str, dict[str, str]], Field(min_length=1)]
    protocol: ProtocolSpec | None = None
    note: str = ""


class PaperTableSpec(TableSpec):
    """A paper's rows: our cells, and beside them, as context, what the paper published.

    context: the head of the published column, which says data set and samples.
    """

    name: Literal["paper"] = "paper"
    implementation: ClassVar[str] = "diffbench.reporting.paper:PaperTable"

    context: str
    protocol: ProtocolSpec
    rows: Annotated[list[RowSpec], Field(min_length=1)]

    @property
    def named(self) -> set[str]:
        """The metrics that the table names."""
        return {metric for row in self.rows for metric in row.cells}


AnyTable = Annotated[SerializeAsAny[TableSpec], BeforeValidator(TableSpec.choose)]
Metrics = dict[str, MetricSpec]


class TablesSpec(Spec):
    """The whole of ``tables.yaml``."""

    metrics: Metrics
    tables: dict[str, AnyTable]

    @model_validator(mode="after")
    def _metrics_are_known(self) -> Self:
        for name, table in self.tables.items():
            if unknown := sorted(table.named - set(self.metrics)):
                near = reading.nearest(unknown[0], self.metrics)
                raise ValueError(f"table {name} names the metric {unknown[0]!r}{near}")
        return self


def read_tables(repository: Path) -> TablesSpec:
    """Read ``config/tables.yaml`` beside the Snakefile.

    Raises:
        PlanError: for the first mistake, with file, line and key.
    """
    tree = reading.read(repository / TABLES)
    return reading.validated(TablesSpec.model_validate, TablesSpec, tree)


def chosen(tables: TablesSpec, names: list[str]) -> dict[str, TableSpec]:
    """Return the tables that a benchmark wants.

    Raises:
        PlanError: when there is no such table.
    """
    for name in names:
        if name not in tables.tables:
            near = reading.nearest(name, tables.tables)
            raise PlanError(f"tables: no table {name!r} in {TABLES}{near}")
    return {name: tables.tables[name] for name in names}
