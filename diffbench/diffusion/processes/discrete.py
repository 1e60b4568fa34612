r"""The discrete chain of DDPM: integer times 0 .. T-1 (0 is the first noising step) and the data at -1.

    alpha_t = sqrt(abar_t),   sigma_t = l sqrt(1 - abar_t),   abar_{-1} = 1,   l the unit (``base``)

Respacing needs no code here: the transition (t, s) takes any pair of times, and a denoiser still sees
the original t (Ho et al. 2020, https://arxiv.org/abs/2006.11239; Nichol & Dhariwal 2021,
https://arxiv.org/abs/2102.09672, section 4).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffbench.diffusion.processes.gaussian import GaussianProcess
from diffbench.diffusion.processes.schedules import SCHEDULES
from diffbench.specs.processes import DiscreteSpec


class Discrete(GaussianProcess):
    """DDPM's chain with the linear or the cosine schedule."""

    data_time = -1.0

    def __init__(self, spec: DiscreteSpec) -> None:
        super().__init__(spec)
        self.steps = spec.steps
        self.betas = SCHEDULES[spec.schedule](spec.steps, **spec.ends)
        #: abar at times -1, 0, .., T-1: entry t + 1 is time t's.
        self.alpha_bar = torch.cat(
            [torch.ones(1, dtype=torch.float64), (1 - self.betas).cumprod(0)]
        )

    def _level(self, t: Tensor) -> Tensor:
        return self.alpha_bar.to(t.device)[t.long() + 1]

    def alpha(self, t: Tensor) -> Tensor:
        """sqrt(abar_t)."""
        return self._level(t).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """L sqrt(1 - abar_t)."""
        return self.unit * (1 - self._level(t)).sqrt()

    def level_before(self, t: Tensor) -> Tensor:
        """T - 1; -1, the data, before the first."""
        return t - 1

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The transition: a = sqrt(1 - beta), G^2 = beta from one level to the next."""
        return self.transition(t, s)

    def langevin_scale(self, t: Tensor, levels: int) -> Tensor:
        """1 - beta_t of the chain, whose levels are its own."""
        return self._level(t) / self._level(t - 1)

    def time_of(self, ratio: Tensor) -> Tensor:
        """The level whose sigma/alpha is nearest; the data's where ratio is 0."""
        ratios = ((1 - self.alpha_bar) / self.alpha_bar).sqrt()
        return (ratio[..., None] / self.unit - ratios).abs().argmin(-1).to(torch.float64) - 1
