"""Grids of times, as specs know them: their names, and what those of a solver, likelihood or restorer need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from diffbench.specs.needs import (
    CONTINUOUS,
    GAUSSIAN,
    LEVELS,
    ONE_ALPHA,
    ONE_RATIO,
    Needs,
    Rule,
)
from diffbench.specs.processes import ProcessSpec

#: Even in time, in its square root, in (sigma/alpha)^(1/rho), in its logarithm; or on a chain alone: every c-th level,
#: squares up to 0.8 of its length.
Grid = Literal["uniform", "quadratic", "karras", "log-snr", "strided", "quadratic-0.8"]
#: How the levels of a chain are thinned out.
IntegerGrid = Literal["uniform", "strided", "quadratic", "quadratic-0.8"]
#: One noise level, or the two ends of a range.
NoiseLevels = Sequence[float]


def strided_levels(levels: int, steps: int) -> range | None:
    """Levels 0, c, 2c, .. with the first integer c that takes ``steps`` of them; None where none does."""
    # The smallest stride that takes no more than that: any other takes fewer or as many.
    chosen = range(0, levels, -(-levels // steps))
    return chosen if len(chosen) == steps else None


def _chain_has_the_steps(spec: Any, process: ProcessSpec) -> str | None:
    steps, levels = spec.steps, process.level_count
    if steps is None or levels is None:
        return None
    if steps == 1 and spec.grid in get_args(IntegerGrid):
        return "steps: 1 on a chain starts at its first level, almost without noise; take 2 or more"
    if steps > levels:
        return f"steps: {steps} on a chain of {levels}; at most {levels} can be taken"
    if spec.grid == "strided" and strided_levels(levels, steps) is None:
        return f"steps: no integer stride takes exactly {steps} of {levels} steps"
    return None


#: What a ``grid`` of ``steps`` needs.
GRID: Needs = (
    GAUSSIAN.where("grid", "karras"),
    ONE_ALPHA.where("grid", "karras"),
    ONE_RATIO.where("grid", "log-snr"),
    LEVELS.where("grid", "strided", "quadratic-0.8"),
    Rule(_chain_has_the_steps),
)


def _last_is_a_time(spec: Any, process: ProcessSpec) -> str | None:
    if spec.last is None or process.t_min <= spec.last < process.t_max:
        return None
    return (
        f"last: {spec.last:g} is outside the times of {process.name}, "
        f"{process.t_min:g} to {process.t_max:g}"
    )


#: What a grid that ends at the time ``last`` needs.
LAST: Needs = (
    CONTINUOUS.where("last").hinting("a chain's last level is its first"),
    Rule(_last_is_a_time),
)

#: Two noise levels that differ by less are one, converted.
ROUNDING = 1e-9


def level_refusal(process: ProcessSpec, levels: Mapping[str, float]) -> str | None:
    """Why one of these noise levels, by key and in units of [-1, 1], is none of the process's; None when all are.

    Of some processes the plan does not know the range.
    """
    if process.ratios is None:
        return None
    low, high = (process.in_units(end) for end in process.ratios)
    for key, level in levels.items():
        if not low * (1 - ROUNDING) <= level <= high * (1 + ROUNDING):
            return _outside(process, key, [level], [low, high])
    return None


def range_refusal(
    process: ProcessSpec, smallest: float, largest: float, low: float, high: float
) -> str | None:
    """Why a grid of sigma/alpha misses the process's, low to high, all in its units; None when it does not."""
    if smallest < high and largest > low:
        return None
    levels, ends = (
        [process.in_units(each) for each in group] for group in ([smallest, largest], [low, high])
    )
    return _outside(process, "sigma_min, sigma_max", levels, ends)


def _outside(process: ProcessSpec, keys: str, levels: NoiseLevels, ends: NoiseLevels) -> str:
    """That noise levels, in units of [-1, 1], are outside the process's; in its units too, where they differ."""

    def told(lengths: NoiseLevels) -> str:
        return " to ".join(f"{each:g}" for each in lengths)

    reason = f"{keys}: {told(levels)} is outside the sigma/alpha of {process.name}, {told(ends)}"
    if process.half_range == 1:
        return reason
    here, there = ([process.in_range(each) for each in group] for group in (levels, ends))
    return (
        f"{reason}, for data in [-1, 1]; those are the key's units, where older files had those of "
        f"{process.name}: for data in {process.range}, {told(here)} is outside {told(there)}"
    )
