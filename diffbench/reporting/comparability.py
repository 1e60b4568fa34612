"""Whether the numbers of a column, a panel or a claim can be compared: decided from the plan, before any job runs.

Two numbers can be compared when they are of one kind, and differ in what the comparison is about (``plan.treatments``).
Bits per dimension are of several kinds, each with a title (``specs.likelihoods``): a bound on the probability of grey
levels is no density of dequantised ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from diffbench.plan import treatments
from diffbench.plan.jobs import Plan
from diffbench.plan.treatments import Cell
from diffbench.reporting.claims import Claims
from diffbench.reporting.layout import BITS, Named, TablesSpec
from diffbench.specs.errors import PlanError
from diffbench.specs.jobs import LikelihoodStageSpec


def check_layouts(plan: Plan, layouts: TablesSpec) -> None:
    """Refuse a column or a panel of tables and figures whose numbers cannot be compared.

    Raises:
        PlanError: naming the table, the column and two of its cells.
    """
    for name, table in layouts.tables.items():
        for head, column in table.compared.items():
            cells = planned(plan, column.cells)
            check_kinds(plan, f"tables.{name}.columns.{head}", column.metric, cells)
            treatments.check_rows(plan, f"tables.{name}", cells, column.about)
    for name, figure in layouts.figures.items():
        for head, column in figure.compared.items():
            cells = planned(plan, column.cells)
            check_kinds(plan, f"figures.{name}.metrics.{head}", column.metric, cells)


def check_claims(plan: Plan, claims: Claims) -> None:
    """Refuse a claim whose sides cannot be compared.

    Raises:
        PlanError: naming the claim and two of its cells.
    """
    for name, claim in claims.items():
        where = f"claims.{name}"
        better, worse = (
            planned(plan, [name for cell in side for name in cell.named])
            for side in (claim.better, claim.worse)
        )
        check_kinds(plan, where, claim.metric, [*better, *worse])
        for one, other in product(better, worse):
            treatments.check(plan, where, one, other, claim.about)


def planned(plan: Plan, cells: Iterable[Named]) -> list[Cell]:
    """Return the (variant, item) of the jobs that cells name; a cell may name the weights of a step of training."""
    return [(variant, plan.item_at(variant, item, at)) for variant, item, at in cells]


def check_kinds(plan: Plan, where: str, metric: str, cells: Iterable[Cell]) -> None:
    """Refuse bits per dimension of two kinds.

    Raises:
        PlanError: naming one cell of each kind.
    """
    kinds = kinds_of(plan, cells) if metric == BITS else {}
    if len(kinds) > 1:
        shown = " and ".join(f"{' '.join(cell)} ({kind})" for kind, cell in kinds.items())
        raise PlanError(
            f"{where}: two kinds of {BITS} cannot be compared: {shown}; give each kind its own column"
        )


def kinds_of(plan: Plan, cells: Iterable[Cell]) -> dict[str, Cell]:
    """Return the kinds of likelihood among cells: kind -> the last cell of that kind."""
    return {kind: cell for cell in cells if (kind := kind_of(plan, *cell))}


def kind_of(plan: Plan, variant: str, item: str) -> str:
    """Return the title of the kind of a likelihood; empty where the plan has no such likelihood."""
    job = plan.find(variant, item, ["likelihood"])
    if job is None:
        return ""
    assert isinstance(job.spec, LikelihoodStageSpec)
    return job.spec.likelihood.title
