"""The tables and figures that a benchmark wants: the repository's, and those that it defines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import model_validator

from diffbench.plan import reading
from diffbench.plan.document import Keys
from diffbench.plan.jobs import Plan
from diffbench.plan.reading import Tree
from diffbench.reporting.layout.cell import Asking, Metrics, MetricSpec
from diffbench.reporting.layout.figure import AnyFigure
from diffbench.reporting.layout.table import AnyTable, ListingSpec
from diffbench.reporting.spelling import refuse_old
from diffbench.specs.base import Spec
from diffbench.specs.benchmark import names, own
from diffbench.specs.errors import PlanError
from diffbench.specs.measures import Better

TABLES = Path("config") / "tables.yaml"
PUBLISHED = Path("config") / "published.csv"
CLAIMS_TABLE = "claims"
EXPORT = "records"
#: The names of files beside the tables, with what they are.
RESERVED = {CLAIMS_TABLE: "the table of the claims", EXPORT: "the export of all numbers"}
#: How many cells a message names.
SHOWN = 3
C = TypeVar("C")


class TablesSpec(Spec):
    """The whole of ``tables.yaml``."""

    metrics: Metrics
    tables: dict[str, AnyTable]
    figures: dict[str, AnyFigure] = {}

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for name in self.tables:
            if name in RESERVED:
                raise ValueError(f"a table cannot be called {name!r}: this is {RESERVED[name]}")
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
    new = {
        stage: {name: each for name, each in found.items() if name not in merged["metrics"]}
        for stage, found in stated(plan).items()
    }
    for found in new.values():
        merged["metrics"] |= found
    whole = reading.validated(TablesSpec.model_validate, TablesSpec, Tree(merged, origins))
    tables = _chosen(plan, whole.tables, names(benchmark.tables), "table")
    return whole.model_copy(
        update={
            "tables": _with_new(tables, new),
            "figures": _chosen(plan, whole.figures, names(benchmark.figures), "figure"),
        }
    )


def stated(plan: Plan) -> dict[str, Metrics]:
    """Return stage -> the metrics of the benchmark's measures, as these state them."""
    benchmark = plan.benchmark
    directions: dict[str, dict[str, Better]] = {
        "sample": {name: way for each in benchmark.measures for name, way in each.better.items()},
        "restore": {each.metric: each.better for each in benchmark.restorations.measures},
    }
    return {
        stage: {
            name: MetricSpec(head=name.replace("_", " "), better=way, spread=True)
            for name, way in found.items()
        }
        for stage, found in directions.items()
    }


def _with_new(tables: Mapping[str, AnyTable], new: Mapping[str, Metrics]) -> dict[str, AnyTable]:
    """Return the tables, with new metrics in the listings of their stage where no table names them."""
    named = {name for table in tables.values() for name in table.named}
    return {
        name: table.with_columns([each for each in new.get(table.stage, {}) if each not in named])
        if isinstance(table, ListingSpec)
        else table
        for name, table in tables.items()
    }


def written(plan: Plan) -> dict[Keys, str]:
    """Return keys of a benchmark file -> place in the file; what it defines in lists is found as if in mappings."""
    origins = reading.read(plan.config).origins if own_parts(plan) else {}
    return {
        tuple(key for key in keys if not (key in keys[1:2] and isinstance(key, int))): origin
        for keys, origin in origins.items()
    } | {(): str(plan.config)}


def place(plan: Plan, *keys: str | int) -> str:
    """Return where a benchmark file, or its base, has a key; the file where the command line has it."""
    tree = reading.read(plan.config)
    if keys[0] not in tree.value and "base" in tree.value:
        tree = reading.read(plan.config.parent / tree.value["base"])
    return tree.where(keys)


def check_planned(plan: Plan, known: TablesSpec) -> None:
    """Refuse a table or a figure that the benchmark file names and that has nothing of the plan to show.

    Raises:
        PlanError: naming it and what it shows.
    """
    parts: dict[str, Mapping[str, Asking]] = {"tables": known.tables, "figures": known.figures}
    for part, shown in parts.items():
        for index, (name, each) in enumerate(shown.items()):
            # A benchmark that does not say its tables gets the overview.
            if part in plan.benchmark.model_fields_set:
                check_shown(plan, (part, index), name, [each])


def check_shown(plan: Plan, keys: Keys, name: str, asking: Sequence[Asking]) -> None:
    """Refuse what is called ``name`` in a benchmark file where the plan has nothing of what it asks for.

    Raises:
        PlanError: naming it and what it asks for.
    """
    if any(each.in_plan(plan) for each in asking):
        return
    cells = [f"{variant} {item}" for each in asking for variant, item, _ in each.cells_named]
    stages = [f"any job of the stage {stage}" for each in asking for stage in each.whole]
    wanted = list(dict.fromkeys([*cells, *stages]))
    shown = ", ".join(wanted[:SHOWN]) + (", .." if len(wanted) > SHOWN else "")
    raise PlanError(
        f"{place(plan, *keys)}: {keys[0]}: {name!r} has nothing to show: it is of {shown}, and the benchmark has none "
        f"of these; add one, or leave {name!r} out"
    )


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


def _chosen(plan: Plan, known: Mapping[str, C], names: list[str], what: str) -> dict[str, C]:
    for name in names:
        if name not in known:
            near = reading.nearest(name, known)
            raise PlanError(
                f"{place(plan, what + 's')}: {what}s: no {what} {name!r} in {TABLES}{near}"
            )
    return {name: known[name] for name in names}
