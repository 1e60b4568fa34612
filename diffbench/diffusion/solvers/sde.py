r"""Solvers of the reverse SDE (Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 6).

dx = [f x - g^2 score(x, t)] dt + g dw,     t decreasing.
"""

from __future__ import annotations

from torch import Tensor

from diffbench.diffusion import grids
from diffbench.diffusion.processes.gaussian import cast
from diffbench.diffusion.solvers.loop import Noise, Solver
from diffbench.specs.solver import EulerMaruyamaSpec, ODESpec


class TimeSolver(Solver):
    """A solver in the process's own continuous time, with the posterior mean as its last step."""

    spec: EulerMaruyamaSpec | ODESpec

    def times(self) -> Tensor:
        """``steps`` steps from t_max: to ``last``, or with ``denoise`` the final one to the data."""
        spec, process = self.spec, self.process
        count = spec.steps + (not spec.denoise)
        times = grids.in_time(process, spec.grid, count, spec.last, spec.rho)
        return grids.to_data(process, times) if spec.denoise else times

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """The posterior mean into the data, ``advance`` elsewhere."""
        if float(s) == self.process.data_time:
            return self.denoiser(x_t, t, y).x0
        return self.advance(x_t, t, s, y, noise)

    def advance(self, x_t: Tensor, t: Tensor, s: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """One step between two times at which the process has noise."""
        raise TypeError(f"{type(self).__name__} does not advance")


class EulerMaruyama(TimeSolver):
    """x_s = x_t - (f x_t - g^2 score) (t - s) + g sqrt(t - s) z."""

    def advance(self, x_t: Tensor, t: Tensor, s: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """One Euler-Maruyama step backwards in time."""
        f, g2 = self.process.f(t), self.process.g2(t)
        score, scale = self.denoiser(x_t, t, y).score, self.process.basis.scale
        drift = scale(cast(f, x_t), x_t) - scale(cast(g2, x_t), score)
        return x_t - cast(t - s, x_t) * drift + scale(cast((g2 * (t - s)).sqrt(), x_t), noise(x_t))
