r"""Grids: decreasing times from t_max, each a float64 tensor of shape (n,).

    respaced   K evenly spaced reals over 0 .. T-1, both ends, rounded half to even (Nichol & Dhariwal 2021, section 4;
               the sum of strides in floating point, then Python's round, is the official rule)
    strided    0, c, 2c, .. with the first integer c that gives exactly K levels       (official "ddimK")
    quadratic  floor(c i^2) with the c that ends in T-1, each at least one above the last
                                                                        (Song, Meng & Ermon 2021, appendix D.2)
    uniform    evenly spaced times t_max .. last                                       (Song et al. 2021, appendix D)
    karras     sigma_i = (smax^(1/rho) + i/(N-1) (smin^(1/rho) - smax^(1/rho)))^rho     (Karras et al. 2022, equation 5)

A grid that ends in the data does so at the process's ``data_time``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffbench.diffusion.processes.gaussian import GaussianProcess, at
from diffbench.specs.solver import strided_levels


def respaced(length: int, count: int) -> list[int]:
    """``count`` of the levels 0 .. length-1, increasing; the first alone where count is 1.

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


def respaced_sections(length: int, counts: list[int]) -> list[int]:
    """``respaced`` in each of len(counts) equal sections; the first (length mod sections) are one longer."""
    short, longer = divmod(length, len(counts))
    levels, start = [], 0
    for i, count in enumerate(counts):
        size = short + (i < longer)
        levels += [start + level for level in respaced(size, count)]
        start += size
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
    """``count`` levels of 0 .. length-1, increasing: evenly spaced in their square roots, both ends.

    Raises:
        ValueError: when count exceeds length.
    """
    if count > length:
        raise ValueError(f"cannot take {count} of {length} steps")
    scale = (length - 1) / max(count - 1, 1) ** 2
    # Rounded before the floor: (length - 1)/n^2 n^2 may fall below length - 1 by a rounding error.
    wanted = [math.floor(round(scale * i**2, 9)) for i in range(count)]
    levels = [0]
    for level in wanted[1:]:
        levels.append(max(level, levels[-1] + 1))
    return levels


#: Which of the levels 0 .. T-1 of a discrete process a grid takes.
LEVELS = {"respaced": respaced, "strided": strided, "quadratic": quadratic}


def levels(process: GaussianProcess, kind: str, count: int) -> Tensor:
    """``count`` levels of a discrete process, decreasing, and the data's time."""
    chosen = LEVELS[kind](round(process.t_max) + 1, count)
    return to_data(process, torch.tensor(chosen[::-1], dtype=torch.float64))


def uniform(process: GaussianProcess, count: int, last: float) -> Tensor:
    """``count`` times from t_max to last."""
    return torch.linspace(process.t_max, last, count, dtype=torch.float64)


def karras_sigmas(count: int, smallest: float, largest: float, rho: float) -> Tensor:
    """``count`` noise levels from largest to smallest, evenly spaced in sigma^(1/rho)."""
    position = torch.linspace(0, 1, count, dtype=torch.float64)
    if count == 1:
        return torch.tensor([largest], dtype=torch.float64)
    top, bottom = largest ** (1 / rho), smallest ** (1 / rho)
    return (top + position * (bottom - top)) ** rho


def karras(
    process: GaussianProcess, count: int, smallest: float, largest: float, rho: float
) -> Tensor:
    """Karras's noise levels as times; both ends are moved into the process's range of sigma/alpha.

    On a discrete process levels that round to the same time appear once.
    """
    lowest = float(process.ratio(at(process.t_min)))
    highest = float(process.ratio(at(process.t_max)))
    sigmas = karras_sigmas(count, max(smallest, lowest), min(largest, highest), rho)
    times = process.time_of(sigmas)
    return torch.unique_consecutive(times) if process.spec.time == "discrete" else times


def in_time(process: GaussianProcess, kind: str, count: int, last: float, rho: float) -> Tensor:
    """``count`` times of a continuous process from t_max to ``last`` (not below t_min).

    They are evenly spaced in time (``uniform``) or in (sigma/alpha)^(1/rho) (``karras``).
    """
    last = max(last, process.t_min)
    if kind == "uniform":
        return uniform(process, count, last)
    smallest, largest = (float(process.ratio(at(t))) for t in (last, process.t_max))
    return karras(process, count, smallest, largest, rho)


def to_data(process: GaussianProcess, times: Tensor) -> Tensor:
    """The grid with the data's time appended."""
    return torch.cat([times, at(process.data_time)[None]])
