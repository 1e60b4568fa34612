r"""The discrete variational bound (Ho et al. 2020, https://arxiv.org/abs/2006.11239, equation 5).

In bits/dim it is the sum of

    prior     KL( q(x_t | x_0) || N(0, prior_std^2 I) ) at the grid's first level t
    one term for each step of the grid down to the data; the last is the decoder's         (``bound``)

The grid has all levels, or evenly spaced ones (Nichol & Dhariwal 2021, section 4), of which a constant
stride may leave out the highest.  One noise draw per image and step.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from diffbench.diffusion import grids
from diffbench.diffusion.bound import bits, bound_term, gaussian_kl
from diffbench.diffusion.denoisers import Denoiser, thresholded
from diffbench.diffusion.likelihoods.cells import Cells
from diffbench.diffusion.processes.gaussian import at
from diffbench.diffusion.streams import normal_like
from diffbench.specs.likelihood import VLBSpec


class VLB:
    """The bound of one denoiser, of grey levels in ``cells``."""

    def __init__(self, spec: VLBSpec, denoiser: Denoiser, cells: Cells) -> None:
        self.spec, self.spacing = spec, cells.spacing
        self.denoiser = thresholded(denoiser, spec.threshold)
        self.process = denoiser.process

    def times(self) -> Tensor:
        """The grid: decreasing levels and the data's time, float64 (n + 1,)."""
        levels = round(self.process.t_max) + 1
        times = grids.levels(self.process, self.spec.grid, self.spec.steps or levels)
        return grids.to_data(self.process, times)

    def prior(self, x0: Tensor) -> Tensor:
        """The prior's term, bits/dim (B,)."""
        t, x = self.times()[0], x0.double()
        other = at(self.process.prior_std) ** 2
        mean = self.process.basis.scale(self.process.alpha(t), x)
        return bits(
            gaussian_kl(mean, self.process.sigma(t).to(x) ** 2, torch.zeros_like(x), other.to(x))
        )

    def term(
        self,
        x0: Tensor,
        t: Tensor,
        s: Tensor,
        noise: Tensor,
        before: Tensor | None = None,
        y: Tensor | None = None,
    ) -> Tensor:
        """The term of the step from t to s (shape ()), bits/dim (B,); noise makes x_t."""
        prediction = self.denoiser(self.process.diffuse(x0, t, noise), t, y)
        return bound_term(prediction, x0, s, self.spec.variance, self.spacing, before)

    @torch.no_grad()
    def __call__(
        self, x0: Tensor, generator: torch.Generator, y: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The bound of images x0 (B, C, H, W) with labels y (B,), in bits/dim.

        Returns:
            total and prior (B,); times (n,), increasing, and terms (n,), the images' mean at each.
        """
        times = self.times()
        befores = [None, *times[:-2]]
        terms = [
            self.term(x0, t, s, normal_like(x0, generator), before, y)
            for before, (t, s) in zip(befores, pairwise(times), strict=True)
        ]
        stacked, prior = torch.stack(terms[::-1]), self.prior(x0)
        return {
            "total": prior + stacked.sum(0),
            "prior": prior,
            "terms": stacked.mean(1),
            "times": times[:-1].flip(0),
        }
