"""Our own numbers by name: an item of a variant, in whichever stage the benchmark has it.

An item is a solver, a likelihood, a restoration (``task/method``) or an analysis.  Where two stages have one of the
same name, it is the one whose results have the metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from diffbench.plan.jobs import Plan
from diffbench.reporting.cells import Cell, cell
from diffbench.reporting.layout import CellSpec
from diffbench.reporting.results import Outcome, Results

#: The stages that make numbers, and how those of an item are read.
STAGES: Mapping[str, Callable[[Results, str, int, str], Outcome]] = {
    "sample": lambda results, variant, seed, item: results.score(variant, seed, item),
    "likelihood": lambda results, variant, seed, item: results.likelihood(variant, seed, item),
    "restore": lambda results, variant, seed, item: results.restoration(variant, seed, item),
    "analysis": lambda results, variant, seed, item: results.analysis(variant, seed, item),
}


def planned(plan: Plan, stage: str, variant: str, item: str) -> bool:
    """Say whether the benchmark has such a job."""
    return any((run.variant, run.item) == (variant, item) for run in plan.of(stage))


def stages_of(plan: Plan, variant: str, item: str) -> list[str]:
    """Return the stages in which the benchmark has such a job."""
    return [stage for stage in STAGES if planned(plan, stage, variant, item)]


def outcomes(results: Results, variant: str, item: str, metric: str) -> dict[int, Outcome]:
    """Return what is there with each of the variant's seeds; nothing when none is planned."""
    plan = results.plan
    found = [
        {seed: STAGES[stage](results, variant, seed, item) for seed in plan.seeds(variant)}
        for stage in stages_of(plan, variant, item)
    ]
    return max(found, key=lambda each: _promise(each, metric), default={})


def _promise(outcomes: Mapping[int, Outcome], metric: str) -> int:
    """Rank a stage's outcomes: they have the metric, might have it once they are made, or have it not."""
    if any(metric in each.scores for each in outcomes.values()):
        return 2
    return int(any(each.status != "ok" for each in outcomes.values()))


def number(results: Results, variant: str, item: str, metric: str) -> Cell:
    """Return a metric over seeds, or why there is none."""
    return first_of(results, variant, [item], metric)[1]


def first_planned(plan: Plan, variant: str, items: Sequence[str]) -> str | None:
    """Return the first of these items that the benchmark has; None where it has none."""
    return next((each for each in items if stages_of(plan, variant, each)), None)


def first_of(results: Results, variant: str, items: Sequence[str], metric: str) -> tuple[str, Cell]:
    """Return the first of these items that the benchmark has, and its cell."""
    item = first_planned(results.plan, variant, items)
    if item is None:
        return items[0] if items else "", absent(results.plan, variant, items)
    return item, cell(outcomes(results, variant, item, metric), metric)


def found_of(results: Results, named: CellSpec) -> tuple[str, Cell]:
    """Return the job's item that a cell means, and its number over seeds."""
    items = items_of(results.plan, named)
    return first_of(results, named.variant, items, named.metric)


def items_of(plan: Plan, named: CellSpec) -> list[str]:
    """Return the jobs' items that a cell names, which may name the weights of a step of training."""
    return [plan.item_at(named.variant, item, named.at) for item in named.item]


def absent(plan: Plan, variant: str, items: Sequence[str]) -> Cell:
    """Return the cell of what no job makes, with the reason."""
    for each in plan.refusals:
        if each.variant == variant and each.item in items:
            return Cell("refused", each.reason)
    lacking = " or ".join(items) if variant in plan.variants else "variant"
    return Cell("missing", f"no such {lacking} in this benchmark")
