r"""Progressive coding (Ho et al. 2020, https://arxiv.org/abs/2006.11239, section 4.3 and table 4).

A chain sends an image level by level, and the receiver of x_t can already guess the image.  After k levels t is the
k-th level from the top, and

    rate        bits/dim sent so far: the bound's prior and the first k - 1 of its terms, which send x_t
    distortion  squared error of the predicted x_0 from x_t ~ q(x_t | x_0)
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.streams import normal_like
from diffbench.diffusion.likelihoods.vlb import VLB


@torch.no_grad()
def coded(
    bound: VLB,
    x0: Tensor,
    steps: int,
    generator: torch.Generator,
    condition: Condition = UNCONDITIONAL,
) -> tuple[Tensor, Tensor]:
    """The rate and the distortion of images after the first ``steps`` levels.

    Args:
        bound: the bound of a chain.
        x0: images in model scale (B, C, H, W).
        steps: k, from 1 to the number of levels.
        generator: draws one noise per image and level.
        condition: what the denoiser is given besides x_t and t.

    Returns:
        The rate (B,) in bits/dim, and the distortion (B,), a mean over an image's numbers in model scale.
    """
    levels = bound.times()[:steps]
    rate, before = bound.prior(x0), None
    for t, s in pairwise(levels):
        rate = rate + bound.term(x0, t, s, normal_like(x0, generator), before, condition)
        before = t
    x_t = bound.process.diffuse(x0, levels[-1], normal_like(x0, generator))
    guess = bound.denoiser(x_t, levels[-1], condition).x0
    return rate, (guess - x0).double().square().flatten(1).mean(1)
