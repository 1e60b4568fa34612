r"""Distributions of training times.

    expectation over the paper's times = E[weight(t) loss(t)],     t drawn here

Each time is drawn with a weight, so that the expectation is that over the paper's distribution of times.  Times
are drawn on the CPU in float64 from a stream that is a function of the seed and the step.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from diffbench.diffusion.core.described import Described
from diffbench.diffusion.core.process import Process
from diffbench.specs.objectives import (
    ImportanceTimesSpec,
    LogNormalTimesSpec,
    LogSNRTimesSpec,
    MixedTimesSpec,
    TimesSpec,
)


def independent(count: int, generator: torch.Generator) -> Tensor:
    """Independent uniform numbers in [0, 1), float64 (count,)."""
    return torch.rand(count, generator=generator, dtype=torch.float64)


def stratified(count: int, generator: torch.Generator) -> Tensor:
    """One uniform number in each of ``count`` equal parts of [0, 1), in random order, float64 (count,)."""
    u = independent(count, generator)
    return (torch.randperm(count, generator=generator) + u) / count


def low_discrepancy(count: int, generator: torch.Generator) -> Tensor:
    """The numbers (u + i/n) mod 1 with one u for all, float64 (count,), n = ``count``.

    Source: Kingma et al. 2021, https://arxiv.org/abs/2107.00630, appendix I.1.
    """
    u = independent(1, generator)
    return (u + torch.arange(count, dtype=torch.float64) / count) % 1


QUANTILES = {
    "independent": independent,
    "stratified": stratified,
    "low-discrepancy": low_discrepancy,
}


class Times(Described):
    """Base of distributions of training times for one process.

    ``history`` is the number of past losses of each time that it needs; 0 for most distributions.
    """

    history: int = 0

    def __init__(self, spec: TimesSpec, process: Process) -> None:
        self.spec, self.process = spec, process

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random times and their weights, float64 of shape (count,) each."""
        return self.quantile(QUANTILES[self.spec.draw](count, generator))

    @abstractmethod
    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Times and weights at the quantiles u in [0, 1)."""

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Record the unweighted losses (B,) of times (B,); most distributions ignore them."""

    def state(self) -> dict[str, Tensor]:
        """The recorded losses, for the training state; empty for most distributions."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a ``state``."""


class UniformTimes(Times):
    """Uniform times: the integers of a discrete process, the interval [last, t_max], or levels in it."""

    def __init__(self, spec: TimesSpec, process: Process) -> None:
        super().__init__(spec, process)
        self.discrete = process.spec.time == "discrete"
        last: float = getattr(spec, "last", process.t_min)
        self.start = process.t_min if self.discrete else max(last, process.t_min)
        self.length = process.t_max - self.start - (not getattr(spec, "highest", True))
        #: The number of different times; None where every time between the ends is possible.
        self.count = round(self.length) + 1 if self.discrete else getattr(spec, "levels", None)

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform times at the quantiles u, with weight 1."""
        if self.count is not None:
            u = (u * self.count).floor() / (self.count - 1)
        t = self.start + u * self.length
        # Round: a floating-point level just below an integer would be truncated to the level below.
        return (t.round() if self.discrete else t), torch.ones_like(u)


class LogSNRTimes(UniformTimes):
    """Times uniform in ln(sigma/alpha), whose rate is g^2/(2 sigma^2); weighted back to uniform times."""

    def __init__(self, spec: LogSNRTimesSpec, process: Process) -> None:
        super().__init__(spec, process)
        ends = torch.tensor([self.start, process.t_max], dtype=torch.float64)
        self.low, self.high = process.ratio(ends).log().tolist()

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        t = self.process.time_of((self.low + u * (self.high - self.low)).exp())
        t = t.clamp(self.start, self.process.t_max)
        rate = self.process.g2(t) / (2 * self.process.sigma(t) ** 2)
        return t, (self.high - self.low) / (rate * self.length)


class LogNormalTimes(Times):
    """Times with normal ln(sigma/alpha), for data in [-1, 1]; the spec has the mean and the standard deviation.

    Times outside [t_min, t_max] are moved to its ends.  The weight is 1.
    """

    spec: LogNormalTimesSpec

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        log_ratio = self.spec.mean + self.spec.std * torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))
        t = self.process.time_of(self.process.spec.half_range * log_ratio.exp())
        return t.clamp(self.process.t_min, self.process.t_max), torch.ones_like(u)


class CellTimes(UniformTimes):
    """Base of times with unequal probabilities, weighted back to uniform times.

    [start, start + length] is cut into equal cells, one for each integer time, or ``CELLS``.  Inside a cell times are
    uniform, so the density is exact, and with it the weight 1/(cells * probability).
    """

    CELLS = 1000

    def __init__(self, spec: TimesSpec, process: Process) -> None:
        super().__init__(spec, process)
        self.cells = self.count or self.CELLS

    @property
    @abstractmethod
    def probability(self) -> Tensor:
        """The probabilities of the cells, float64 (cells,)."""

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Times and weights at the quantiles u, by the piecewise linear distribution function."""
        cumulative = self.probability.cumsum(0)
        cell = torch.searchsorted(cumulative, u, right=True).clamp(max=self.cells - 1)
        probability = self.probability[cell]
        inside = ((u - cumulative[cell]) / probability + 1).clamp(0, 1)
        # Convert to float64 first: an integer tensor and a number make float32.
        position = cell.double() + (0.5 if self.count else inside)
        t, _ = super().quantile(position / self.cells)
        return t, 1 / (self.cells * probability)


class MixedTimes(CellTimes):
    """A mixture of uniform and log-normal times."""

    def __init__(self, spec: MixedTimesSpec, process: Process) -> None:
        super().__init__(spec, process)
        centre = spec.mean + math.log(process.spec.half_range)
        mass = torch.special.ndtr((self._edges().log() - centre) / spec.std).diff()
        self._probability = spec.share / self.cells + (1 - spec.share) * mass / mass.sum()

    @property
    def probability(self) -> Tensor:
        found: Tensor = self._probability
        return found

    def _edges(self) -> Tensor:
        """The edges of the cells as sigma/alpha; for integer times, half-way between levels in the logarithm."""
        count = self.count or self.CELLS + 1
        times = self.start + torch.linspace(0, 1, count, dtype=torch.float64) * self.length
        if self.count is None:
            found: Tensor = self.process.ratio(times)
            return found
        ratio = self.process.ratio(times.round() if self.discrete else times)
        middle = (ratio[1:] * ratio[:-1]).sqrt()
        return torch.cat([ratio[:1] ** 2 / middle[:1], middle, ratio[-1:] ** 2 / middle[-1:]])


class ImportanceTimes(CellTimes):
    """Integer times with probabilities in proportion to the root mean square of their last losses.

    Source: Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672, equation 18.
    """

    def __init__(self, spec: ImportanceTimesSpec, process: Process) -> None:
        super().__init__(spec, process)
        self.share, self.history = spec.share, spec.history
        #: The last losses of each time, in no particular order, and how many losses were recorded.
        self.losses = torch.zeros(self.cells, spec.history, dtype=torch.float64)
        self.seen = torch.zeros(self.cells, dtype=torch.int64)

    @property
    def probability(self) -> Tensor:
        """The probabilities of the cells, uniform until every time has ``history`` losses."""
        uniform = torch.full((self.cells,), 1 / self.cells, dtype=torch.float64)
        if bool((self.seen < self.history).any()):
            return uniform
        size = self.losses.square().mean(1).sqrt()
        return (1 - self.share) * size / size.sum() + self.share * uniform

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Record the losses (B,) of times (B,), in their order."""
        cells = (t - self.start).round().long()
        for cell, loss in zip(cells.tolist(), losses.cpu().double().tolist(), strict=True):
            self.losses[cell, self.seen[cell] % self.history] = loss
            self.seen[cell] += 1

    def state(self) -> dict[str, Tensor]:
        return {"losses": self.losses, "seen": self.seen}

    def load(self, state: dict[str, Tensor]) -> None:
        self.losses, self.seen = state["losses"].clone(), state["seen"].clone()
