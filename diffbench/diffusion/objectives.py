r"""Objectives: times x target x weight -> one loss per example.

    loss_i = w(t_i) * mean over pixels of |view(prediction) - target|^2,     x_t = alpha x_0 + sigma eps

    simple           the denoiser's native quantity, weight 1                 (Ho et al. 2020, equation 14)
    score matching   sigma^2 |score - target|^2 = |eps - target|^2    (Song et al. 2021, equation 7, lambda = sigma^2)
    edm              (s^2 + s_d^2)/(s s_d)^2 |x0 - target|^2,  s = sigma/alpha   (Karras et al. 2022, table 1)

Times are drawn on the CPU in float64 from a stream that is a function of the seed and the step.  A
distribution of times returns, with each time, the weight that makes the expectation that of the paper's
distribution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffbench.diffusion.denoisers import Denoiser
from diffbench.diffusion.predictions import Native, Prediction, Truth
from diffbench.diffusion.processes.gaussian import GaussianProcess, cast
from diffbench.specs.objective import (
    EDMObjectiveSpec,
    LogNormalTimesSpec,
    MixedTimesSpec,
    ObjectiveSpec,
    TimesSpec,
    UniformTimesSpec,
)


class Times:
    """Base: a distribution of training times for one process."""

    def __init__(self, spec: TimesSpec, process: GaussianProcess) -> None:
        self.spec, self.process = spec, process

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Times and weights, float64 of shape (count,) each."""
        u = torch.rand(count, generator=generator, dtype=torch.float64)
        if self.spec.stratified:
            u = (torch.randperm(count, generator=generator) + u) / count
        return self.quantile(u)

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Times and weights at the quantiles u in [0, 1)."""
        raise TypeError(f"{type(self).__name__} has no quantiles")


class UniformTimes(Times):
    """Uniform over the integers of a discrete process, or over [last, t_max]."""

    def __init__(self, spec: UniformTimesSpec | MixedTimesSpec, process: GaussianProcess) -> None:
        super().__init__(spec, process)
        self.discrete = process.spec.time == "discrete"
        self.start = process.t_min if self.discrete else max(spec.last, process.t_min)
        self.length = process.t_max - self.start + self.discrete

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Weight 1."""
        t = self.start + u * self.length
        return (t.floor() if self.discrete else t), torch.ones_like(u)


class LogNormalTimes(Times):
    """ln(sigma/alpha) normal with the spec's mean and standard deviation, in [t_min, t_max]; weight 1."""

    spec: LogNormalTimesSpec

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Through the normal quantile function."""
        log_ratio = self.spec.mean + self.spec.std * torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))
        t = self.process.time_of(self.process.spec.half_range * log_ratio.exp())
        return t.clamp(self.process.t_min, self.process.t_max), torch.ones_like(u)


class MixedTimes(UniformTimes):
    """Uniform and log-normal times mixed, weighted back to uniform.

    [start, start + length] is cut into equal cells (one an integer time, or ``CELLS``); inside a cell
    times are uniform, so the density, hence the weight 1/(cells * probability), is exact.
    """

    CELLS = 1000

    def __init__(self, spec: MixedTimesSpec, process: GaussianProcess) -> None:
        super().__init__(spec, process)
        cells = round(self.length) if self.discrete else self.CELLS
        edges = self.start + torch.linspace(0, 1, cells + 1, dtype=torch.float64) * self.length
        if self.discrete:
            log_ratio = process.ratio(edges[:-1]).log()
            middle = (log_ratio[1:] + log_ratio[:-1]) / 2
            log_ratio = torch.cat(
                [2 * log_ratio[:1] - middle[:1], middle, 2 * log_ratio[-1:] - middle[-1:]]
            )
        else:
            log_ratio = process.ratio(edges).log()
        centre = spec.mean + math.log(process.spec.half_range)
        mass = torch.special.ndtr((log_ratio - centre) / spec.std).diff()
        self.probability = spec.share / cells + (1 - spec.share) * mass / mass.sum()
        self.cumulative = self.probability.cumsum(0)

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Through the piecewise linear distribution function."""
        cells = len(self.probability)
        cell = torch.searchsorted(self.cumulative, u, right=True).clamp(max=cells - 1)
        probability = self.probability[cell]
        inside = ((u - self.cumulative[cell]) / probability + 1).clamp(0, 1)
        t, _ = super().quantile(
            (cell if self.discrete else cell + inside) / cells + 0.5 / cells * self.discrete
        )
        return t, 1 / (cells * probability)


class Objective:
    """Base: squared error of one view of the prediction, weighted."""

    def __init__(self, spec: ObjectiveSpec, denoiser: Denoiser, times: Times) -> None:
        self.spec, self.denoiser, self.times = spec, denoiser, times

    def __call__(
        self, x0: Tensor, noise: Tensor, generator: torch.Generator, y: Tensor | None = None
    ) -> Tensor:
        """Losses (B,) of images x0 and their noise, both (B, C, H, W); times come from the generator."""
        process = self.denoiser.process
        t, importance = self.times.draw(len(x0), generator)
        t = t[:, None, None, None]
        x_t = process.diffuse(x0, t, noise)
        prediction = self.denoiser(x_t, t, y)
        truth = Truth(process, x_t, t, x0, noise)
        view = self.view(prediction)
        error = (prediction.view(view) - truth.view(view)).square().flatten(1).mean(1)
        return error * cast(importance * self.weight(t).flatten(), x0)

    def view(self, prediction: Prediction) -> Native:
        """The view whose error is taken."""
        return prediction.native

    def weight(self, t: Tensor) -> Tensor:
        """The weight of each time, of t's shape."""
        return torch.ones_like(t)


class Simple(Objective):
    """L_simple."""


class ScoreMatching(Objective):
    """Denoising score matching with weight sigma^2: the squared error of eps."""

    def view(self, prediction: Prediction) -> Native:
        """sigma^2 |score error|^2 is |eps error|^2, without dividing by a small sigma."""
        return "eps"


class EDMObjective(Objective):
    """EDM's loss."""

    spec: EDMObjectiveSpec

    def view(self, prediction: Prediction) -> Native:
        """The denoised image."""
        return "x0"

    def weight(self, t: Tensor) -> Tensor:
        """lambda(s) = (s^2 + s_d^2)/(s s_d)^2."""
        process = self.denoiser.process
        data_std = self.spec.data_std * process.spec.half_range
        s = process.ratio(t)
        return (s**2 + data_std**2) / (s * data_std) ** 2
