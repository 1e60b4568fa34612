r"""The sampler of inverse heat dissipation (Rissanen, Heinonen & Solin 2023, https://arxiv.org/abs/2206.13397).

    u_K = blurred training image + delta z,     u_{k-1} = mean(u_k) + delta z,     u_0 = mean(u_1)

In the symbols of ``transitions``, r = 0 and n = delta: no part of the noise in u_k is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.processes.heat import IHDM
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.diffusion.solvers.loop import Solver
from diffbench.specs.solvers import InverseHeatSpec


class InverseHeat(Solver):
    """The sampler through all levels, from the most blurred to the data."""

    process: IHDM
    spec: InverseHeatSpec

    @property
    def delta(self) -> float:
        """The standard deviation of every step's noise."""
        return self.spec.ratio * self.process.noise_std

    def times(self) -> Tensor:
        """All levels, decreasing, then the data's time."""
        levels = grids.descending(self.process, "uniform", len(self.process.widths) - 1)
        return grids.to_data(self.process, levels)

    def draw(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """The start: training images at the last level, drawn with replacement, plus delta z."""
        means = self.process.prior_means(z)
        chosen = torch.randint(len(means), (len(z),), generator=generator)
        return means[chosen.to(z.device)] + self.delta * z

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """The predicted mean at s, plus noise except in the step to the data."""
        mean = self.denoiser(x_t, t, condition).mean
        return mean if float(s) == self.process.data_time else mean + self.delta * noise(x_t)
