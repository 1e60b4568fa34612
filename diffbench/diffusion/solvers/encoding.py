r"""Latents: images encoded by a deterministic solver, from data to noise, and interpolation between two latents.

    slerp(a, b, l) = sin((1 - l) w)/sin(w) a + sin(l w)/sin(w) b,     cos(w) = a . b/(|a| |b|)

(Shoemake 1985; for latents Song, Meng & Ermon 2021, https://arxiv.org/abs/2010.02502, appendix D.5).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.integrators import check_finite
from diffbench.diffusion.solvers.loop import Solver


@torch.no_grad()
def encode(solver: Solver, x: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
    """The latents of images x (B, C, H, W) at the grid's first time: the solver's steps from data to noise.

    An image is used as x_t at the grid's lowest level, where there is almost no noise (Song, Meng & Ermon 2021,
    section 4.3, and its official code).  Decoding is ``loop.solve``.

    Raises:
        ValueError: when the solver draws noise or remembers steps, and so cannot be reversed; when a state is
            not finite, with its time.
    """
    if not solver.spec.invertible:
        raise ValueError(
            f"{solver.spec.name} cannot encode with these settings; use ddim with eta 0, ode or heun"
        )
    times = [t for t in solver.times() if float(t) != solver.process.data_time]
    for t, s in pairwise(reversed(times)):
        x = solver.step(x, t, s, condition, torch.zeros_like)
        check_finite(x, f"the step up from time {float(t):.6g} to {float(s):.6g}")
    return x


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The latents at the fraction ``share`` of the way from a to b, image by image.

    a, b and the result are (B, C, H, W), minus the prior's mean.
    """
    left, right = a.flatten(1), b.flatten(1)
    cosine = torch.cosine_similarity(left, right, dim=1).clamp(-1, 1)
    angle = cosine.acos()[:, None, None, None]
    small = angle.sin() < 1e-6
    sine = angle.sin().where(~small, 1.0)
    first = (((1 - share) * angle).sin() / sine).where(~small, 1 - share)
    second = ((share * angle).sin() / sine).where(~small, share)
    return first * a + second * b
