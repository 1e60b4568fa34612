r"""One term of the discrete variational bound (Ho et al. 2020, https://arxiv.org/abs/2006.11239, equation 5).

    step from t to s   KL( q(x_s | x_t, x_0) || N(mu(x_t), v_t) ),   mu the posterior's mean for the predicted x_0
    into the data      -ln P(x_0 | x_t): the Gaussian N(mu, v_t) integrated over each grey level's bin, where the
                       first and last bins are open                                                       (section 3.3)

In a basis other than pixels the KL is taken in its coordinates, each with its own v_t.  The decoder uses the mean of
these v_t for every pixel; the sum is a bound with any decoder.

Terms are in bits/dim: means over dimensions, divided by ln 2.  The likelihood sums them over a grid; the
objectives L_vlb and L_hybrid draw one term for each image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import cast


def gaussian_kl(
    mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor
) -> Tensor:
    """KL(N(mean, variance) || N(other_mean, other_variance)) per element, in nats."""
    ratio = variance / other_variance
    return 0.5 * (ratio - 1 - ratio.log() + (mean - other_mean) ** 2 / other_variance)


def discretised_log_prob(
    x: Tensor, mean: Tensor, std: Tensor, spacing: float, low: float, high: float
) -> Tensor:
    """Log probability of grey levels x: N(mean, std^2) integrated over bins of width ``spacing``; nats, of x's shape.

    The bins of the lowest and highest level extend to -infinity and +infinity.
    """
    upper = torch.where(x > high - spacing / 2, math.inf, (x + spacing / 2 - mean) / std)
    lower = torch.where(x < low + spacing / 2, -math.inf, (x - spacing / 2 - mean) / std)
    # By symmetry, move both edges below the mean: the difference of two small tails keeps its digits.
    flip = lower > 0
    upper, lower = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    found: Tensor = log_upper + torch.log(-torch.expm1(log_lower - log_upper))
    return found


def bits(nats: Tensor) -> Tensor:
    """Mean over dimensions, converted from nats to bits: (B, C, H, W) -> (B,)."""
    return nats.flatten(1).mean(1) / math.log(2)


def bound_term(
    prediction: Prediction, x0: Tensor, s: Tensor, variance: Tensor, spacing: float
) -> Tensor:
    """The term of the step from the prediction's time t to s, in bits/dim (B,).

    Args:
        prediction: the model's, at an x_t made from images x0 (B, C, H, W).
        x0: images whose grey levels are ``spacing`` apart, in the process's range.
        s: the earlier time, of t's shape, () or (B, 1, 1, 1); the data's time selects the decoder.
        variance: the model's v_t, one number or one for each coordinate of the process's basis.
        spacing: the distance of neighbouring grey levels.
    """
    process, x_t, t = prediction.process, prediction.x_t, prediction.t
    basis, truth = process.basis, Prediction(process, x_t, t, "x0", x0)
    mean = prediction.mean_at(s)
    into_data = s == process.data_time
    # In the step into the data the posterior's variance is 0 and the KL undefined: the decoder replaces it.
    posterior = torch.where(into_data, 1.0, process.posterior_variance(t, s))
    wanted, got = (basis.coordinates(each) for each in (truth.mean_at(s), mean))
    terms = bits(gaussian_kl(wanted, cast(posterior, x0), got, variance))
    chosen = into_data.expand(len(x0), 1, 1, 1).flatten().nonzero().flatten().to(x0.device)
    if len(chosen) == 0:
        return terms
    low, high = process.spec.low, process.spec.high
    std = basis.pixel_variance(variance).sqrt()
    x, centre, std = (each.to(x0).expand_as(x0)[chosen] for each in (x0, mean, std))
    decoder = -bits(discretised_log_prob(x, centre, std, spacing, low, high))
    return terms.index_copy(0, chosen, decoder)
