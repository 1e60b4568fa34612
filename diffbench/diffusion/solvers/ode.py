r"""Solvers of the probability-flow ODE.

In the process's own time (Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 13)

    dx/dt = f x - g^2/2 score(x, t).

For one scalar alpha, xbar = x/alpha and s = sigma/alpha make every process the same equation,

    dxbar/ds = eps(x, t) = (xbar - x0)/s,

on which Euler's method is DDIM and Heun's is EDM's algorithm 1 (Karras et al. 2022,
https://arxiv.org/abs/2206.00364).  A step to s = 0 is Euler's, since eps is not defined there; it returns x0.
"""

from __future__ import annotations

from torch import Tensor

from diffbench.diffusion import grids
from diffbench.diffusion.denoisers import Denoiser
from diffbench.diffusion.processes.gaussian import cast
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
    """EDM's deterministic sampler on every process with a scalar alpha."""

    def __init__(self, spec: HeunSpec, denoiser: Denoiser) -> None:
        super().__init__(spec, denoiser)
        self.spec = spec

    def times(self) -> Tensor:
        """Karras's grid and the data."""
        spec = self.spec
        sigmas = grids.karras(self.process, spec.steps, spec.sigma_min, spec.sigma_max, spec.rho)
        return grids.to_data(self.process, sigmas)

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """Heun's step in (x/alpha, sigma/alpha); Euler's into the data."""
        prediction = self.denoiser(x_t, t, y)
        if float(s) == self.process.data_time:
            return prediction.x0
        alpha_s = cast(self.process.alpha(s), x_t)
        h = cast(self.process.ratio(s) - self.process.ratio(t), x_t)
        xbar = x_t / cast(self.process.alpha(t), x_t)
        x_s = alpha_s * (xbar + h * prediction.eps)
        return alpha_s * (xbar + h / 2 * (prediction.eps + self.denoiser(x_s, s, y).eps))
