"""A metric, and a cell: a number of a benchmark, as tables, figures and claims name it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from diffbench.plan.jobs import Plan
from diffbench.plan.treatments import Facet
from diffbench.specs.base import PositiveFloat, PositiveInt, Spec, nothing
from diffbench.specs.weights import CellAt

BITS = "bits_per_dim"


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


def is_planned(plan: Plan, named: Named) -> bool:
    """Return whether a benchmark has the item of a number, or says why it has none."""
    variant, item, at = named
    item = plan.item_at(variant, item, at)
    if variant in plan.left_out or plan.find(variant, item) is not None:
        return True
    return any((each.variant, each.item) == (variant, item) for each in plan.refusals)


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
    def cells_named(self) -> list[Named]:
        """The numbers that are asked for one by one."""
        return [cell for each in self.asked.values() for cell in each.cells]

    @property
    def whole(self) -> Sequence[str]:
        """The stages whose jobs are all shown, whatever they are."""
        return ()

    def in_plan(self, plan: Plan) -> bool:
        """Return whether a benchmark has any of the numbers, or says why it has none."""
        if self.whole and plan.left_out:
            return True
        stages = {each.stage for each in plan.jobs} | {each.stage for each in plan.refusals}
        whole = not stages.isdisjoint(self.whole)
        return whole or any(is_planned(plan, each) for each in self.cells_named)

    @property
    def steps(self) -> Steps:
        """The weights along training of the numbers that are asked for."""
        return [(variant, at) for each in self.asked.values() for variant, _, at in each.cells]


Metrics = dict[str, MetricSpec]
