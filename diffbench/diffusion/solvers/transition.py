"""Solvers that step by the transition rule: DDPM's ancestral sampler and DDIM (``transitions``)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffbench.diffusion import grids
from diffbench.diffusion.denoisers import Denoiser
from diffbench.diffusion.processes.gaussian import cast
from diffbench.diffusion.solvers.loop import Noise, Solver
from diffbench.diffusion.transitions import Scales, ancestral_scales, ddim_scales, step_mean
from diffbench.specs.solver import AncestralSpec, DDIMSpec, TransitionSolverSpec

#: Which of the levels 0 .. T-1 of a discrete process a grid takes.
LEVELS = {"respaced": grids.respaced, "strided": grids.strided}


class TransitionSolver(Solver):
    """x_s = alpha_s x0 + r e + n z on a grid that ends in the data."""

    def __init__(self, spec: TransitionSolverSpec, denoiser: Denoiser) -> None:
        super().__init__(spec, denoiser)
        self.spec = spec

    def times(self) -> Tensor:
        """Integer levels, or uniform times, and the data."""
        spec, process = self.spec, self.process
        if process.spec.time == "continuous":
            times = grids.in_time(process, spec.grid, spec.steps, spec.last, spec.rho)
        else:
            chosen = LEVELS[spec.grid](round(process.t_max) + 1, spec.steps)
            times = torch.tensor(chosen[::-1], dtype=torch.float64)
        return grids.to_data(process, times)

    def scales(self, t: Tensor, s: Tensor) -> Scales:
        """The residual's and the noise's scale."""
        raise TypeError(f"{type(self).__name__} has no scales")

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """Mean, and noise where there is any."""
        r, n = self.scales(t, s)
        mean = step_mean(self.denoiser(x_t, t, y), s, r)
        return mean + cast(n, x_t) * noise(x_t) if bool((n > 0).any()) else mean


class Ancestral(TransitionSolver):
    """DDPM's sampler (Ho, Jain & Abbeel 2020, https://arxiv.org/abs/2006.11239, algorithm 2)."""

    spec: AncestralSpec

    def scales(self, t: Tensor, s: Tensor) -> Scales:
        """The posterior's mean with the chosen variance."""
        return ancestral_scales(self.process, t, s, self.spec.variance)


class DDIM(TransitionSolver):
    """DDIM (Song, Meng & Ermon 2021, https://arxiv.org/abs/2010.02502, equation 12)."""

    spec: DDIMSpec

    def scales(self, t: Tensor, s: Tensor) -> Scales:
        """Noise eta times the posterior's."""
        return ddim_scales(self.process, t, s, self.spec.eta)
