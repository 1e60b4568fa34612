r"""The discrete chain of DDPM: integer times 0 .. T-1 (0 is the first noising step) and the data at -1.

    alpha_t = sqrt(abar_t),   sigma_t = l sqrt(1 - abar_t),   abar_{-1} = 1,   l the unit (``core.process``)

Respacing needs no code here: the transition (t, s) takes any pair of times, and a denoiser still gets
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
        #: abar at times -1, 0, .., T-1: entry t + 1 belongs to time t.
        self.alpha_bar = torch.cat(
            [torch.ones(1, dtype=torch.float64), (1 - self.betas).cumprod(0)]
        )

    def _level(self, t: Tensor) -> Tensor:
        return self.alpha_bar.to(t.device)[t.long() + 1]

    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale sqrt(abar_t)."""
        return self._level(t).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale l sqrt(1 - abar_t)."""
        return self.unit * (1 - self._level(t)).sqrt()

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients of the transition; between neighbouring levels a^2 = 1 - beta and G^2 = l^2 beta."""
        return self.transition(t, s)

    def langevin_scale(self, t: Tensor, levels: int) -> Tensor:
        """The factor 1 - beta_t of the chain's own levels; ``levels`` is not used."""
        return self._level(t) / self._level(t - 1)

    def time_of(self, ratio: Tensor) -> Tensor:
        """The level whose sigma/alpha is nearest to ``ratio``; the data's time where the ratio is 0."""
        ratios = ((1 - self.alpha_bar) / self.alpha_bar).sqrt()
        return (ratio[..., None] / self.unit - ratios).abs().argmin(-1).to(torch.float64) - 1
