r"""The discrete variational bound (Ho et al. 2020, https://arxiv.org/abs/2006.11239, equation 5).

In bits/dim it is the sum of

    prior     KL( q(x_T | x_0) || N(0, prior_std^2 I) )
    step t    KL( q(x_s | x_t, x_0) || N(mu(x_t), v_t I) ),   s = t - 1 >= 0, mu from the transition rule
    decoder   -ln P(x_0 | x_t at t = 0): the Gaussian N(mu, v_0) integrated over each grey level's bin, the first
              and last bins open                                                      (section 3.3)

One noise draw per image and step.  v_t is the posterior variance (small) or sigma^2_{t|s} (large); v_0 is the small
variance of the step before (``transitions``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffbench.diffusion.denoisers import THRESHOLDS, Denoiser
from diffbench.diffusion.predictions import Prediction
from diffbench.diffusion.processes.gaussian import GaussianProcess, at, cast
from diffbench.diffusion.streams import normal_like
from diffbench.diffusion.transitions import Variance, residual_correlation, step_mean, variance
from diffbench.specs.likelihood import VLBSpec


def gaussian_kl(
    mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor
) -> Tensor:
    """KL(N(mean, variance) || N(other_mean, other_variance)) per element, in nats."""
    ratio = variance / other_variance
    return 0.5 * (ratio - 1 - ratio.log() + (mean - other_mean) ** 2 / other_variance)


def discretised_log_prob(
    x: Tensor, mean: Tensor, std: Tensor, spacing: float, low: float, high: float
) -> Tensor:
    """Ln P of grey levels x under N(mean, std^2) integrated over bins of that spacing; nats, x's shape.

    The bins of the lowest and highest level reach to -infinity and +infinity.
    """
    upper = torch.where(x > high - spacing / 2, math.inf, (x + spacing / 2 - mean) / std)
    lower = torch.where(x < low + spacing / 2, -math.inf, (x - spacing / 2 - mean) / std)
    # Both edges on the lower side of the mean, by symmetry: differences of small tails keep their digits.
    flip = lower > 0
    upper, lower = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    return log_upper + torch.log(-torch.expm1(log_lower - log_upper))


def bits(nats: Tensor) -> Tensor:
    """Mean over dimensions, in bits: (B, C, H, W) -> (B,)."""
    return nats.flatten(1).mean(1) / math.log(2)


def step_variance(process: GaussianProcess, t: Tensor, s: Tensor, kind: Variance) -> Tensor:
    """v_t; into the data, the small variance of the step before."""
    if float(s) == process.data_time:
        return variance(process, t + (t - s), t, "small")
    return variance(process, t, s, kind)


class VLB:
    """The bound of one denoiser, of grey levels spaced by ``spacing`` in model units."""

    def __init__(self, spec: VLBSpec, denoiser: Denoiser, spacing: float) -> None:
        self.spec, self.spacing = spec, spacing
        self.denoiser = THRESHOLDS[spec.threshold](denoiser)
        self.process = denoiser.process

    def prior(self, x0: Tensor) -> Tensor:
        """The prior's term, bits/dim (B,)."""
        t, x = at(self.process.t_max), x0.double()
        other = at(self.process.prior_std) ** 2
        mean = self.process.basis.scale(self.process.alpha(t), x)
        return bits(
            gaussian_kl(mean, self.process.sigma(t).to(x) ** 2, torch.zeros_like(x), other.to(x))
        )

    def term(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The term of integer time t (shape ()), bits/dim (B,); noise makes x_t."""
        s, process = t - 1, self.process
        prediction = self.denoiser(process.diffuse(x0, t, noise), t)
        r = residual_correlation(process, t, s) * process.sigma(s)
        v = cast(step_variance(process, t, s, self.spec.variance), x0)
        mean = step_mean(prediction, s, r)
        if float(s) == process.data_time:
            low, high = process.spec.low, process.spec.high
            return -bits(discretised_log_prob(x0, mean, v.sqrt(), self.spacing, low, high))
        truth = Prediction(process, prediction.x_t, t, "x0", x0)
        posterior = cast(process.posterior_variance(t, s), x0)
        return bits(gaussian_kl(step_mean(truth, s, r), posterior, mean, v))

    @torch.no_grad()
    def __call__(self, x0: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Bits/dim of images (B, C, H, W): total (B,), prior (B,), and terms (T,), the images' mean by t."""
        prior = self.prior(x0)
        terms = [
            self.term(x0, at(t), normal_like(x0, generator))
            for t in range(round(self.process.t_max) + 1)
        ]
        stacked = torch.stack(terms)
        return {"total": prior + stacked.sum(0), "prior": prior, "terms": stacked.mean(1)}
