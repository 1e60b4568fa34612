r"""Noise schedules of the discrete chains, in float64.

A schedule gives beta_1 .. beta_T; abar_t = prod_{s <= t} (1 - beta_s) is the squared signal scale.

    linear:  beta evenly spaced from the first to the last: by default from 1e-4 to 0.02 at T = 1000, both ends
             scaled by 1000/T                                                      (Ho et al. 2020, section 4;
                                                    the scaling: Nichol & Dhariwal 2021, official code)
    cosine:  abar(t) = f(t)/f(0),  f(t) = cos^2( (t/T + s)/(1 + s) * pi/2 ),  s = 0.008
             beta_t = min(1 - abar(t)/abar(t-1), 0.999)                      (Nichol & Dhariwal 2021, eq. 17)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffbench.specs.processes import linear_ends


def linear_betas(
    steps: int, beta_first: float | None = None, beta_last: float | None = None
) -> Tensor:
    """The linear schedule's betas (steps,), from ``beta_first`` to ``beta_last``; see ``linear_ends``."""
    return torch.linspace(*linear_ends(steps, beta_first, beta_last), steps, dtype=torch.float64)


def cosine_betas(steps: int, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """The cosine schedule's betas (steps,)."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    signal = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return (1 - signal[1:] / signal[:-1]).clamp(max=largest)


SCHEDULES = {"linear": linear_betas, "cosine": cosine_betas}
