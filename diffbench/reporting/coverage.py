"""Which published number is filled by which cell of ours, and why the others are not.

``config/coverage.yaml`` names data sets, the benchmarks on them, and reasons.  The cells are the rows of the paper
tables that those benchmarks name, as their plans can fill them.  No job is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from diffbench.plan import reading
from diffbench.plan.jobs import Plan
from diffbench.plan.loading import load_plan
from diffbench.reporting import layout
from diffbench.reporting.formats import Grid, Table
from diffbench.reporting.layout import PaperTableSpec, TablesSpec
from diffbench.reporting.published import PublishedValues
from diffbench.reporting.records import first_planned, items_of
from diffbench.specs.base import Spec
from diffbench.specs.errors import PlanError

COVERAGE = Path("config") / "coverage.yaml"
HEADS = ("paper", "table", "method", "solver", "NFE", "metric", "value", "ours, or why not")


class ReasonSpec(Spec):
    """Why some published values are not filled; the columns and their values say which."""

    published: Annotated[dict[str, list[str]], Field(min_length=1)]
    why: str

    def names(self, row: Mapping[str, str]) -> bool:
        """Return whether the reason is for this published value."""
        return all(row[column] in values for column, values in self.published.items())


class CoverageSpec(Spec):
    """The whole of ``coverage.yaml``.

    datasets: names in ``published.csv``; each of their values must be filled or have a reason.
    benchmarks: files in the same folder, whose plans are searched for cells.
    reasons: the first that names a value is printed.
    """

    datasets: Annotated[list[str], Field(min_length=1)]
    benchmarks: Annotated[list[str], Field(min_length=1)]
    reasons: list[ReasonSpec] = []


@dataclass(frozen=True)
class FillingCell:
    """A cell of ours that fills a published number; ``item`` is the solver, likelihood or analysis that makes it."""

    benchmark: str
    table: str
    variant: str
    item: str

    def text(self) -> str:
        """Return the cell in one line."""
        return f"`{self.variant}` {self.item} ({self.benchmark}.yaml, {self.table})"


def read_coverage(repository: Path) -> CoverageSpec:
    """Return the content of ``config/coverage.yaml``.

    Raises:
        PlanError: for the first mistake, with file, line and key.
    """
    tree = reading.read(repository / COVERAGE)
    return reading.validated(CoverageSpec.model_validate, CoverageSpec, tree)


def coverage(repository: Path) -> Table:
    """Return the table of all published values of the data sets.

    Raises:
        PlanError: when a value is neither filled nor has a reason, when a reason names no value or a filled one, or
            when a benchmark names a paper's row that its plan cannot fill.
    """
    spec = read_coverage(repository)
    published = PublishedValues(repository / layout.PUBLISHED)
    known = layout.read_tables(repository)
    filled: dict[int, list[FillingCell]] = {}
    for name in spec.benchmarks:
        plan = load_plan([repository / "config" / name], {}, repository, needs_files=False)
        for line, cell in filling_cells(plan, known, published):
            filled.setdefault(line, []).append(cell)
    lines = [i for i, row in enumerate(published.rows) if row["dataset"] in spec.datasets]
    if strange := sorted(set(filled) - set(lines)):
        row = published.rows[strange[0]]
        raise PlanError(
            f"{COVERAGE}: datasets lacks {row['dataset']!r}, but a cell of it is filled"
        )
    reasons = _reasons(spec, published, lines, filled)
    grids = []
    for dataset in spec.datasets:
        own = [line for line in lines if published.rows[line]["dataset"] == dataset]
        rows = [
            _shown(published.rows[line], filled.get(line, ()), reasons.get(line)) for line in own
        ]
        count = sum(line in filled for line in own)
        grids.append(
            Grid(HEADS, rows, labels=len(HEADS), caption=f"{dataset}: {count} of {len(own)}")
        )
    return Table("Coverage of the published numbers", [], grids, NOTES)


NOTES = (
    "`diffbench coverage` writes this page from `config/published.csv`, `config/tables.yaml`, the benchmarks' "
    "plans and the reasons in `config/coverage.yaml`; a test keeps it so.",
    "A cell is a variant and what makes the number: a solver, a likelihood or an analysis. This page does not say "
    "what a cell costs: `diffbench estimate` does.",
)


def filling_cells(
    plan: Plan, known: TablesSpec, published: PublishedValues
) -> list[tuple[int, FillingCell]]:
    """Return the published values in a benchmark's paper tables: (index in ``published.rows``, our cell).

    Raises:
        PlanError: when the plan has no job for one of them.
    """
    found = []
    for name, table in layout.of_plan(plan, known).tables.items():
        for row in table.rows if isinstance(table, PaperTableSpec) else ():
            for cell in row.cells.values():
                items = items_of(plan, cell)
                item = first_planned(plan, cell.variant, items)
                if item is None:
                    raise PlanError(
                        f"{plan.config}: tables: {name}, row {row.row!r}: the benchmark has no "
                        f"{' or '.join(items)} of {cell.variant}"
                    )
                line = published.line(cell.published)
                found.append((line, FillingCell(plan.benchmark.name, name, cell.variant, item)))
    return found


def _reasons(
    spec: CoverageSpec,
    published: PublishedValues,
    lines: Sequence[int],
    filled: Mapping[int, Sequence[FillingCell]],
) -> dict[int, str]:
    """Return the reason of each value that is not filled."""
    reasons: dict[int, str] = {}
    used = set()
    for line in lines:
        row = published.rows[line]
        index = next((i for i, each in enumerate(spec.reasons) if each.names(row)), None)
        if (index is None) == (line not in filled):
            said = "neither filled nor has a reason" if index is None else "filled and has a reason"
            value = ", ".join(filter(None, (row[column] for column in published.columns[:9])))
            raise PlanError(f"{COVERAGE}: the published value [{value}] is {said}")
        if index is not None:
            used.add(index)
            reasons[line] = spec.reasons[index].why
    if unused := sorted(set(range(len(spec.reasons))) - used):
        raise PlanError(
            f"{COVERAGE}: reasons.{unused[0]} names no value: {spec.reasons[unused[0]].why}"
        )
    return reasons


def _shown(row: Mapping[str, str], cells: Sequence[FillingCell], reason: str | None) -> list[str]:
    method = "; ".join(filter(None, (row["method"], row["setting"])))
    ours = "; ".join(dict.fromkeys(cell.text() for cell in cells)) or f"not filled: {reason}"
    return [
        row["paper"],
        row["table"],
        method,
        row["solver"],
        row["nfe"],
        row["metric"],
        row["value"],
        ours,
    ]
