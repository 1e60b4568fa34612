r"""Grids: decreasing times, each a float64 tensor of shape (n,).

    uniform    evenly spaced times                                                     (Song et al. 2021, appendix D)
    quadratic  times evenly spaced in their square roots                  (Song, Meng & Ermon 2021, appendix D.2)
    karras     sigma/alpha = (smax^(1/rho) + i/(N-1) (smin^(1/rho) - smax^(1/rho)))^rho    (Karras et al. 2022, eq. 5)
    log-snr    sigma/alpha evenly spaced in its logarithm                            (Lu et al. 2022, DPM-Solver, 3.3)

On the integer times 0 .. T-1 of a chain

    uniform    K evenly spaced reals with both ends, rounded half to even: "respacing" (Nichol & Dhariwal 2021, section
               4; the official rule is the sum of strides in floating point, then Python's round)
    strided    0, c, 2c, .. with the smallest integer c that gives exactly K levels       (official "ddimK")
    quadratic  floor(c i^2) with the c that ends at T-1, each at least one above the level before
    quadratic-0.8  floor of the squares of K evenly spaced numbers from 0 to sqrt(0.8 T), each level once: the grid of
               the code for CIFAR-10 (Song, Meng & Ermon 2021), which begins at 800 of 1,000 levels and, at many steps,
               has fewer levels than steps; steps between equal levels do nothing
    karras, log-snr   the levels nearest to those sigma/alpha, each once

A grid that ends at the data has the process's ``data_time`` as its last time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffbench.diffusion.core.process import Process, float64
from diffbench.specs.solvers.grids import ROOTS, Grid, range_refusal, strided_levels


def respaced(length: int, count: int) -> list[int]:
    """``count`` evenly spaced levels of 0 .. length-1, increasing; level 0 alone where count is 1.

    Raises:
        ValueError: when count exceeds length.
    """
    if count > length:
        raise ValueError(f"cannot take {count} of {length} steps")
    stride = 1.0 if count == 1 else (length - 1) / (count - 1)
    levels, position = [], 0.0
    for _ in range(count):
        levels.append(round(position))
        position += stride
    return levels


def strided(length: int, count: int) -> list[int]:
    """``count`` levels 0, c, 2c, .. of 0 .. length-1, increasing.

    Raises:
        ValueError: when no integer stride gives exactly count levels.
    """
    chosen = strided_levels(length, count)
    if chosen is None:
        raise ValueError(f"no integer stride takes exactly {count} of {length} steps")
    return list(chosen)


def quadratic(length: int, count: int) -> list[int]:
    """``count`` levels of 0 .. length-1, increasing: evenly spaced in their square roots, with both ends.

    Raises:
        ValueError: when count exceeds length.
    """
    if count > length:
        raise ValueError(f"cannot take {count} of {length} steps")
    scale = (length - 1) / max(count - 1, 1) ** 2
    # Round before the floor: (length - 1)/n^2 n^2 may fall below length - 1 by a rounding error.
    wanted = [math.floor(round(scale * i**2, 9)) for i in range(count)]
    levels = [0]
    for level in wanted[1:]:
        levels.append(max(level, levels[-1] + 1))
    return levels


def quadratic_to(length: int, count: int, share: float = 0.8) -> list[int]:
    """The floors of the squares of ``count`` numbers, even from 0 to sqrt(share T): increasing, each level once.

    The floating-point numbers are those of the official code, where an integer square may fall to the level below.

    Raises:
        ValueError: when count exceeds length.
    """
    if count > length:
        raise ValueError(f"cannot take {count} of {length} steps")
    end = math.sqrt(length * share)
    roots = [end / max(count - 1, 1) * i for i in range(count - 1)]
    return list(dict.fromkeys(int(root**2) for root in [*roots, end]))


#: The function of each grid that chooses among the levels 0 .. T-1 of a chain.
LEVELS = {
    "uniform": respaced,
    "strided": strided,
    "quadratic": quadratic,
    "quadratic-0.8": quadratic_to,
}


def levels(process: Process, kind: str, count: int) -> Tensor:
    """``count`` levels of a chain, decreasing, float64."""
    chosen = LEVELS[kind](round(process.t_max) + 1, count)
    return torch.tensor(chosen[::-1], dtype=torch.float64)


def karras_sigmas(count: int, largest: float, smallest: float, rho: float) -> Tensor:
    """``count`` noise levels from ``largest`` to ``smallest``, evenly spaced in sigma^(1/rho)."""
    top, bottom = largest ** (1 / rho), smallest ** (1 / rho)
    return torch.linspace(top, bottom, count, dtype=torch.float64) ** rho


def log_sigmas(count: int, largest: float, smallest: float, rho: float) -> Tensor:
    """``count`` noise levels from ``largest`` to ``smallest``, evenly spaced in their logarithms."""
    return torch.linspace(math.log(largest), math.log(smallest), count, dtype=torch.float64).exp()


#: The noise levels of grids that are evenly spaced in a function of sigma/alpha.
SIGMAS = {"karras": karras_sigmas, "log-snr": log_sigmas}


def by_ratio(
    process: Process, kind: Grid, count: int, largest: float, smallest: float, rho: float
) -> Tensor:
    """``count`` times between two noise-to-signal ratios, which are moved into the process's range.

    On a chain each ratio becomes the nearest level, and a level that several ratios share appears once.

    Raises:
        ValueError: when both ratios lie outside the process's range, on the same side.
    """
    bounds = [float(process.ratio(float64(t))) for t in (process.t_min, process.t_max)]
    if reason := range_refusal(process.spec, smallest, largest, *bounds):
        raise ValueError(reason)
    largest, smallest = min(largest, bounds[1]), max(smallest, bounds[0])
    if kind not in SIGMAS:
        ends = process.time_of(float64([largest, smallest])).clamp(process.t_min, process.t_max)
        return by_time(process, kind, count, *ends.tolist())
    times = process.time_of(SIGMAS[kind](count, largest, smallest, rho))
    return torch.unique_consecutive(times) if process.spec.time == "discrete" else times


def by_time(process: Process, kind: Grid, count: int, start: float, end: float) -> Tensor:
    """``count`` times of a continuous process, or levels of a chain, between two times."""
    root = ROOTS[kind]
    roots = torch.linspace(start ** (1 / root), end ** (1 / root), count, dtype=torch.float64)
    times = roots**root
    return torch.unique_consecutive(times.round()) if process.spec.time == "discrete" else times


def descending(
    process: Process, kind: Grid, count: int, last: float | None = None, rho: float = 7.0
) -> Tensor:
    """``count`` times from t_max to ``last`` (the process's own by default), or to level 0 of a chain."""
    if process.spec.time == "discrete" and kind in LEVELS:
        return levels(process, kind, count)
    last = process.spec.last if last is None else last
    if kind in SIGMAS:
        largest, smallest = (float(process.ratio(float64(t))) for t in (process.t_max, last))
        return by_ratio(process, kind, count, largest, smallest, rho)
    return by_time(process, kind, count, process.t_max, last)


def to_data(process: Process, times: Tensor) -> Tensor:
    """The grid ``times`` with the data's time appended."""
    return torch.cat([times, float64(process.data_time)[None]])
