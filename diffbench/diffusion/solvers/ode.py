r"""Solvers of the probability-flow ODE.

In the process's own time (Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 13)

    dx/dt = f x - g^2/2 score(x, t).

For one scalar alpha, xbar = x/alpha and s = sigma/alpha make every process the same equation,

    dxbar/ds = eps(x, t) = (xbar - x0)/s,

on which Euler's method is DDIM and Heun's is EDM's algorithm 1; algorithm 2 adds noise before each step, "churn"
(Karras et al. 2022, https://arxiv.org/abs/2206.00364).  A step to s = 0 is
Euler's, since eps is not defined there; it returns x0.
"""

from __future__ import annotations

import math

from torch import Tensor

from diffbench.diffusion import grids
from diffbench.diffusion.processes.gaussian import at, cast
from diffbench.diffusion.solvers.loop import Noise, Solver
from diffbench.diffusion.solvers.sde import TimeSolver
from diffbench.specs.solver import HeunSpec, ODESpec


class ProbabilityFlow(TimeSolver):
    """Euler's or Heun's method in the process's own time."""

    spec: ODESpec

    def slope(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """dx/dt."""
        scale, half_g2 = self.process.basis.scale, self.process.g2(t) / 2
        return scale(cast(self.process.f(t), x), x) - scale(
            cast(half_g2, x), self.denoiser(x, t, y).score
        )

    def advance(self, x_t: Tensor, t: Tensor, s: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """One step; Heun's averages the slopes at both ends."""
        h, slope = cast(s - t, x_t), self.slope(x_t, t, y)
        x_s = x_t + h * slope
        if self.spec.method == "euler":
            return x_s
        return x_t + h / 2 * (slope + self.slope(x_s, s, y))


class Heun(Solver):
    """EDM's sampler on every process with a scalar alpha."""

    spec: HeunSpec

    def times(self) -> Tensor:
        """Karras's grid and the data."""
        spec = self.spec
        sigmas = grids.karras(self.process, spec.steps, spec.sigma_min, spec.sigma_max, spec.rho)
        return grids.to_data(self.process, sigmas)

    def churned(self, t: Tensor) -> Tensor:
        """The time to which churn raises the noise before a step from t; t itself without churn."""
        spec, ratio = self.spec, self.process.ratio(t)
        if spec.churn == 0 or not spec.churn_min <= float(ratio) <= spec.churn_max:
            return t
        factor = 1 + min(spec.churn / spec.steps, math.sqrt(2) - 1)
        highest = self.process.ratio(at(self.process.t_max))
        return self.process.time_of((factor * ratio).minimum(highest))

    def raised(self, xbar: Tensor, t: Tensor, t_hat: Tensor, noise: Noise) -> Tensor:
        """x/alpha with the noise that is missing at the later time t_hat."""
        added = self.process.ratio(t_hat) ** 2 - self.process.ratio(t) ** 2
        if float(added) <= 0:
            return xbar
        return xbar + cast(self.spec.churn_noise * added.sqrt(), xbar) * noise(xbar)

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """Churn, then Heun's step in (x/alpha, sigma/alpha); Euler's into the data."""
        process, t_hat = self.process, self.churned(t)
        xbar = self.raised(x_t / cast(process.alpha(t), x_t), t, t_hat, noise)
        prediction = self.denoiser(cast(process.alpha(t_hat), x_t) * xbar, t_hat, y)
        if float(s) == process.data_time:
            return prediction.x0
        alpha_s = cast(process.alpha(s), x_t)
        h = cast(process.ratio(s) - process.ratio(t_hat), x_t)
        x_s = alpha_s * (xbar + h * prediction.eps)
        return alpha_s * (xbar + h / 2 * (prediction.eps + self.denoiser(x_s, s, y).eps))
