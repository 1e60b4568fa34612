r"""The transition rule that the papers on discrete chains share.

    x_s = alpha_s x0 + r e + n z,     e = (x_t - alpha_t x0)/sigma_t,     z ~ N(0, I)

for images minus the middle of the data range.  The residual's scale r and the noise scale n are given separately.
With the posterior's correlation

    rho_m = alpha_t sigma_s / (alpha_s sigma_t),     1 - rho_m^2 = sigma^2_{t|s}/sigma_t^2,

    DDPM posterior     r = rho_m sigma_s,   n^2 = posterior variance = (1 - rho_m^2) sigma_s^2 (Ho et al. 2020, eq. 6-7)
    fixed large        the same r,          n^2 = sigma^2_{t|s}   (beta_t where s = t - 1)
    learned            the same r,          ln n^2 = v ln sigma^2_{t|s} + (1 - v) ln(posterior variance)
                                                                     (Nichol & Dhariwal 2021, equation 15)
    DDIM(eta)          n^2 = eta^2 (1 - rho_m^2) sigma_s^2,   r^2 = sigma_s^2 - n^2   (Song et al. 2021, eq. 12, 16)

Both bounds of the learned variance depend on the pair (t, s), so the rule holds on every sub-grid.  v is not clipped to
[0, 1], as in the official code.  A variance that is learned without these bounds is n^2 itself, and only for the step
to the level below (Ho et al. 2020, section 3.2).

At the last step s is the data's time: alpha_s = 1, sigma_s = 0, and x_s = x0 without noise.  The decoder of the
variational bound and the shift of a classifier's guidance need a variance there too, but the posterior's is 0.  So
``model_variance`` uses the posterior's variance of the step before, also for ``large``, as DDPM's official code does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffbench.diffusion.core.path import tabled
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, cast, number
from diffbench.specs.processes import Variance


class Scales(NamedTuple):
    """The residual's scale r and the noise scale n of one step, float64."""

    r: Tensor
    n: Tensor


@tabled
def residual_correlation(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """The posterior's correlation rho_m = alpha_t sigma_s/(alpha_s sigma_t)."""
    return process.alpha(t) * process.sigma(s) / (process.alpha(s) * process.sigma(t))


@tabled
def posterior_residual(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """The residual's scale r of the posterior's mean, rho_m sigma_s."""
    return residual_correlation(process, t, s) * process.sigma(s)


@tabled
def ddim_scales(process: Process, t: Tensor, s: Tensor, eta: float) -> Scales:
    """The scales of DDIM's step: deterministic at eta = 0, DDPM's posterior at eta = 1."""
    n2 = eta**2 * process.posterior_variance(t, s)
    return Scales((process.sigma(s) ** 2 - n2).sqrt(), n2.sqrt())


def noisy(n: Tensor) -> bool:
    """Whether a noise scale is above 0 in any coordinate."""
    return number(n) > 0 if n.ndim == 0 else bool((n > 0).any())


def step_mean(prediction: Prediction, s: Tensor, r: Tensor) -> Tensor:
    """The mean m + alpha_s (x0 - m) + r e of the step to s, a new tensor."""
    process = prediction.process
    return process.placed(prediction.combined(process.alpha(s), r))


def with_noise(process: Process, mean: Tensor, scale: Tensor, z: Tensor) -> Tensor:
    """The state mean + B^-1[scale * B z]; where the scale is one number, it is written over the mean."""
    if scale.ndim == 0 and scale.is_cpu:
        return mean.add_(z, alpha=number(scale))
    return process.basis.scale(scale, z).add_(mean)


def step_variances(
    process: Process, t: Tensor, s: Tensor, before: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The fixed variances, small and large, of the step to s; ``model_variance`` has the arguments."""
    if s.ndim == 0 and float(s) != process.data_time:
        return process.posterior_variance(t, s), process.transition(t, s)[1]
    into_data = s == process.data_time
    # Where s is not the data's time, this time is not used.
    earlier = (t + 1).clamp(max=process.t_max) if before is None else before
    first = process.posterior_variance(
        torch.where(into_data, earlier, t), torch.where(into_data, t, s)
    )
    return first, torch.where(into_data, first, process.transition(t, s)[1])


def model_variance(
    prediction: Prediction, s: Tensor, kind: Variance, before: Tensor | None = None
) -> Tensor:
    """The variance of the model's step p(x_s | x_t), in x_t's precision.

    Args:
        prediction: the model's, at (x_t, t).
        s: the earlier time, of t's shape.
        kind: small, large, or learned by the denoiser.
        before: the grid's time before t, which is the noisier one, of t's shape; used where s is the data's time; the
            level t + 1 by default.

    Returns:
        The variance, of t's shape; of x_t's shape when learned.

    Raises:
        ValueError: when a learned variance is asked of a denoiser that learns none.
    """
    process, t, x_t = prediction.process, prediction.t, prediction.x_t
    first, own = step_variances(process, t, s, before)
    match kind:
        case "small":
            return cast(first, x_t)
        case "large":
            return cast(own, x_t)
    if prediction.log_variance is not None:
        return prediction.log_variance.exp()
    if prediction.fraction is None:
        raise ValueError(
            "variance: learned needs a denoiser with a learned variance, and this one's is fixed"
        )
    v, (_, large) = prediction.fraction, process.transition(t, s)
    return (v * cast(large.log(), x_t) + (1 - v) * cast(first.log(), x_t)).exp()
