"""Solvers that step by the transition rule: DDPM's ancestral sampler and DDIM (``transitions``)."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import cast
from diffbench.diffusion.core.transitions import (
    Scales,
    ddim_scales,
    model_variance,
    noisy,
    posterior_residual,
    step_mean,
    with_noise,
)
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.diffusion.solvers.loop import Solver
from diffbench.specs.solvers import AncestralSpec, DDIMSpec, TransitionSolverSpec


class TransitionSolver(Solver):
    """Base: a solver on a grid that ends in the data."""

    spec: TransitionSolverSpec

    def times(self) -> Tensor:
        """The levels of a chain, or times from t_max to ``last``, then the data's time."""
        spec = self.spec
        times = grids.descending(self.process, spec.grid, spec.steps, spec.last, spec.rho)
        return grids.to_data(self.process, times)


class Ancestral(TransitionSolver):
    """DDPM's sampler (Ho, Jain & Abbeel 2020, https://arxiv.org/abs/2006.11239, algorithm 2).

    A classifier's gradient times the variance is added to the mean (Dhariwal & Nichol 2021,
    https://arxiv.org/abs/2105.05233, algorithm 1; the gradient is at x_t, as in the official code).
    """

    spec: AncestralSpec

    @cached_property
    def last_before(self) -> Tensor | None:
        """The time before the grid's last noisy time, if any: it gives the variance of the step to the data."""
        times = self.times()
        return times[-3] if len(times) > 2 else None

    def variance(self, prediction: Prediction, s: Tensor) -> Tensor:
        """The variance of the step to s; with ``small`` the step to the data has the posterior's, which is 0."""
        if self.spec.variance == "small":
            return cast(self.process.posterior_variance(prediction.t, s), prediction.x_t)
        return model_variance(prediction, s, self.spec.variance, self.last_before)

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """The posterior's mean plus the guide's shift, plus noise except in the step to the data."""
        prediction = self.denoiser(x_t, t, condition)
        variance = self.variance(prediction, s)
        mean = step_mean(prediction.unguided, s, posterior_residual(self.process, t, s))
        if prediction.guide is not None:
            mean = mean + self.process.basis.scale(variance, prediction.guide)
        if float(s) == self.process.data_time:
            return mean
        return with_noise(self.process, mean, variance.sqrt(), noise(x_t))


class DDIM(TransitionSolver):
    """DDIM (Song, Meng & Ermon 2021, https://arxiv.org/abs/2010.02502, equation 12)."""

    spec: DDIMSpec

    def scales(self, t: Tensor, s: Tensor) -> Scales:
        """The scale r of the residual and the scale n of the noise, which is eta times the posterior's."""
        return ddim_scales(self.process, t, s, self.spec.eta)

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """The state alpha_s x0 + r e + n z; without noise (n = 0), s may also be later than t."""
        r, n = self.scales(t, s)
        mean = step_mean(self.denoiser(x_t, t, condition), s, r)
        if not noisy(n):
            return mean
        return with_noise(self.process, mean, cast(n, x_t), noise(x_t))
