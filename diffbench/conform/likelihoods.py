r"""Laws of likelihoods: bits per dimension of grey levels are of probabilities.

Of an image of one pixel with L grey levels

    sum_k 2^(-bits(k)) <= 1,

and near 1 where the likelihood is exact, the model good, and its density smooth over a level.  A forgotten factor of
the data range is a whole bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffbench.conform.law import demand, law, unless
from diffbench.conform.trial import (
    PIXEL,
    GaussianData,
    apart,
    column,
    generator,
    made,
    other_range,
    processes,
    refuse_randomness,
    served,
)
from diffbench.data.grey_levels import GreyLevels
from diffbench.specs.likelihoods import LEVELS as OF_LEVELS
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build

LEVELS = 33
#: Draws of the noise of a bound, and of its times, over which bits are averaged.
DRAWS = 8
#: The exact Gaussian loses 1 % of its mass beyond the range.  A bound may be loose by a bit or two where it has few
#: steps, and the noise of its draws may leave it a little above 1.
LEAST, OF_A_BOUND, MOST = 0.7, 0.2, 1.1


def bits(spec: LikelihoodSpec, process: ProcessSpec, seed: int = 5) -> Tensor:
    """Bits (33,) of every grey level of an image of one pixel, under the exact denoiser of the data."""
    cells = GreyLevels(LEVELS, process.low, process.high, process.bounded)
    x = cells.first + cells.spacing * torch.arange(LEVELS, dtype=torch.float64)
    likelihood = build(spec, GaussianData(made(process, PIXEL)), cells)
    found: Tensor = likelihood(column(x.repeat(DRAWS)), generator(seed))["total"]
    demand(tuple(found.shape) == (DRAWS * LEVELS,), f"total has the shape {tuple(found.shape)}")
    return found.reshape(DRAWS, LEVELS).mean(0)


def process_of(spec: LikelihoodSpec) -> ProcessSpec:
    """The first process with one alpha that it serves."""
    gaussian = [each for each in processes() if each.family == "gaussian"]
    process = served(spec, gaussian)
    unless(process.noise == "constant", "its process has noise that does not grow")
    return process


@law(LikelihoodSpec, "probabilities sum to 1", "sum over grey levels of 2^-bits = 1")
def sums(spec: LikelihoodSpec) -> None:
    """The data range and the width of a grey level enter once."""
    process = process_of(spec)
    for each in (process, other_range(process)) if process.written_for == 1 else (process,):
        found = bits(spec, each)
        least = OF_A_BOUND if spec.title == OF_LEVELS else LEAST
        total = float((-found * math.log(2)).exp().sum())
        demand(
            least < total < MOST,
            f"for data in {each.range} the sum is {total:.3g}: off by {math.log2(total):.2f} bits; log|dx/dk|?",
        )


@law(
    LikelihoodSpec,
    "a change of the data range leaves bits as they are",
    "bits' = bits on [low', high']",
)
def ranged(spec: LikelihoodSpec) -> None:
    """Bits are of grey levels, whatever numbers stand for them."""
    here = process_of(spec)
    unless(here.written_for != 1, f"{here.name} has constants in units of its range")
    there = other_range(here)
    error = apart(bits(spec, there), bits(spec, here))
    demand(
        error < 1e-3,
        f"bits for data in {there.range} differ from those in {here.range} by {error:.3g}",
    )


@law(LikelihoodSpec, "a seed gives the same bits", "bits(seed) = bits(seed)")
def repeats(spec: LikelihoodSpec) -> None:
    """All noise comes from the generator."""
    process = process_of(spec)
    refuse_randomness(lambda: bits(spec, process), "bits of one seed differ by {}")
