"""The names of grids of times, and what a grid of a solver, likelihood or restorer needs."""

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

#: Evenly spaced in time, in its square root, in (sigma/alpha)^(1/rho), in ln(sigma/alpha); on a chain only: every c-th
#: level, and squares up to 0.8 of the chain's length.
Grid = Literal["uniform", "quadratic", "karras", "log-snr", "strided", "quadratic-0.8"]
#: How the levels of a chain are thinned out.
IntegerGrid = Literal["uniform", "strided", "quadratic", "quadratic-0.8"]
#: Grids whose times are even in a root of time -> which root.
ROOTS = {"uniform": 1, "quadratic": 2}
#: One noise level, or the two ends of a range.
NoiseLevels = Sequence[float]


def strided_levels(levels: int, steps: int) -> range | None:
    """Return the levels 0, c, 2c, .. with the smallest integer c that takes ``steps`` of them; None without one."""
    # The smallest stride that takes at most ``steps`` levels: a larger one takes as many or fewer.
    chosen = range(0, levels, -(-levels // steps))
    return chosen if len(chosen) == steps else None


def first_step(grid: Grid, count: int, first: float, last: float) -> float | None:
    """Return the first step of ``count`` times between two times, the longest one; None where noise levels are even.

    Of a single time it is the step to ``last``.
    """
    if grid not in ROOTS:
        return None
    root = ROOTS[grid]
    top, bottom = first ** (1 / root), last ** (1 / root)
    second: float = (top - (top - bottom) / max(count - 1, 1)) ** root
    return first - second


def _chain_has_the_steps(spec: Any, process: ProcessSpec) -> str | None:
    steps, levels = spec.steps, process.level_count
    if steps is None or levels is None:
        return None
    if steps == 1 and spec.grid in get_args(IntegerGrid):
        return "steps: 1 on a chain starts at its first level, almost without noise; take 2 or more"
    if steps > levels:
        return f"steps: {steps}, but a chain of {levels} levels has at most {levels} steps"
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
    CONTINUOUS.where("last").hinting("leave it out, a chain's last level is its first"),
    Rule(_last_is_a_time),
)

#: Noise levels whose relative difference is smaller are one level, in different units.
ROUNDING = 1e-9


def level_refusal(process: ProcessSpec, levels: Mapping[str, float]) -> str | None:
    """Return why a noise level is outside the process's range; None when none is, or the range is not known.

    Args:
        process: the process; the plan does not know the range of every process.
        levels: key -> noise level sigma/alpha, for data in [-1, 1].
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
    """Return why a grid of sigma/alpha lies outside the process's range; None when they overlap.

    Args:
        process: the process.
        smallest: the lower end of the grid, in units of the process's data range.
        largest: the upper end of the grid.
        low: the smallest sigma/alpha of the process, in the same units.
        high: the largest.
    """
    if smallest < high and largest > low:
        return None
    levels, ends = (
        [process.in_units(each) for each in group] for group in ([smallest, largest], [low, high])
    )
    return _outside(process, "sigma_min, sigma_max", levels, ends)


def _outside(process: ProcessSpec, keys: str, levels: NoiseLevels, ends: NoiseLevels) -> str:
    """Return the reason that noise levels, for data in [-1, 1], are outside the process's range; in both units."""

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
