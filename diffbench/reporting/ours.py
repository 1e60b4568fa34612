"""Our own numbers by name: a variant's solver or likelihood, whatever the benchmark has of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diffbench.plan.runs import Plan
from diffbench.reporting.cells import Cell, cell
from diffbench.reporting.layout import BITS
from diffbench.reporting.results import Outcome, Results


def stage_of(metric: str) -> str:
    """Return the stage whose items, solvers or likelihoods, have the metric."""
    return "likelihood" if metric == BITS else "sample"


def planned(plan: Plan, stage: str, variant: str, item: str) -> bool:
    """Say whether the benchmark has such a job."""
    return any((run.variant, run.item) == (variant, item) for run in plan.of(stage))


def outcomes(results: Results, variant: str, item: str, metric: str) -> dict[int, Outcome]:
    """Return what is there with each of the variant's seeds; nothing when none is planned."""
    plan = results.plan
    if not planned(plan, stage_of(metric), variant, item):
        return {}
    read: Callable[[str, int, str], Outcome]
    read = results.likelihood if metric == BITS else results.score
    return {seed: read(variant, seed, item) for seed in plan.seeds(variant)}


def number(results: Results, variant: str, item: str, metric: str) -> Cell:
    """Return a metric over seeds, or why there is none."""
    return first_of(results, variant, [item], metric)[1]


def first_of(results: Results, variant: str, items: Sequence[str], metric: str) -> tuple[str, Cell]:
    """Return the first of these items that the benchmark has, and its cell."""
    stage = stage_of(metric)
    item = next((each for each in items if planned(results.plan, stage, variant, each)), None)
    if item is None:
        return items[0] if items else "", absent(results.plan, stage, variant, items)
    return item, cell(outcomes(results, variant, item, metric), metric)


def absent(plan: Plan, stage: str, variant: str, items: Sequence[str]) -> Cell:
    """Return the cell of what no job makes, with the reason."""
    for each in plan.refusals:
        if (each.variant, each.stage) == (variant, stage) and each.item in items:
            return Cell("refused", each.reason)
    lacking = " or ".join(items) if variant in plan.variants else "variant"
    return Cell("missing", f"no such {lacking} in this benchmark")
