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
    posterior_residual,
    step_mean,
)
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.diffusion.solvers.loop import Solver
from diffbench.specs.solvers import AncestralSpec, DDIMSpec, TransitionSolverSpec


class TransitionSolver(Solver):
    """Base: a grid that ends in the data."""

    spec: TransitionSolverSpec

    def times(self) -> Tensor:
        """Levels of a chain, or times from t_max to ``last``, and the data."""
        spec = self.spec
        times = grids.descending(self.process, spec.grid, spec.steps, spec.last, spec.rho)
        return grids.to_data(self.process, times)


class Ancestral(TransitionSolver):
    """DDPM's sampler (Ho, Jain & Abbeel 2020, https://arxiv.org/abs/2006.11239, algorithm 2).

    A classifier's gradient is added to the mean, times the variance (Dhariwal & Nichol 2021,
    https://arxiv.org/abs/2105.05233, algorithm 1; at x_t, as in the official code).
    """

    spec: AncestralSpec

    @cached_property
    def last_before(self) -> Tensor | None:
        """The grid's time before its last, if any: what the last's variance into the data is taken from."""
        times = self.times()
        return times[-3] if len(times) > 2 else None

    def variance(self, prediction: Prediction, s: Tensor) -> Tensor:
        """The step's variance; the posterior's own, 0, where ``small`` goes into the data."""
        if self.spec.variance == "small":
            return cast(self.process.posterior_variance(prediction.t, s), prediction.x_t)
        return model_variance(prediction, s, self.spec.variance, self.last_before)

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """The posterior's mean, the guide's shift, and noise but into the data."""
        prediction = self.denoiser(x_t, t, condition)
        variance = self.variance(prediction, s)
        mean = step_mean(prediction.unguided, s, posterior_residual(self.process, t, s))
        if prediction.guide is not None:
            mean = mean + self.process.basis.scale(variance, prediction.guide)
        if float(s) == self.process.data_time:
            return mean
        return mean + self.process.basis.scale(variance.sqrt(), noise(x_t))


class DDIM(TransitionSolver):
    """DDIM (Song, Meng & Ermon 2021, https://arxiv.org/abs/2010.02502, equation 12)."""

    spec: DDIMSpec

    def scales(self, t: Tensor, s: Tensor) -> Scales:
        """The residual's scale, and the noise's: eta times the posterior's."""
        return ddim_scales(self.process, t, s, self.spec.eta)

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """alpha_s x0 + r e, and n z where there is noise; without, s may also lie after t."""
        r, n = self.scales(t, s)
        mean = step_mean(self.denoiser(x_t, t, condition), s, r)
        if not bool((n > 0).any()):
            return mean
        return mean + self.process.basis.scale(cast(n, x_t), noise(x_t))
