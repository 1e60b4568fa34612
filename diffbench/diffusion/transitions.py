r"""The one transition rule of the discrete papers.

    x_s = alpha_s x0 + r e + n z,     e = (x_t - alpha_t x0)/sigma_t,     z ~ N(0, I)

with the residual's scale r and the noise scale n given separately.  With the posterior's correlation

    rho_m = alpha_t sigma_s / (alpha_s sigma_t),     1 - rho_m^2 = sigma^2_{t|s}/sigma_t^2,

    DDPM posterior     r = rho_m sigma_s,   n^2 = posterior variance = (1 - rho_m^2) sigma_s^2 (Ho et al. 2020, eq. 6-7)
    fixed large        the same r,          n^2 = sigma^2_{t|s}   (beta_t where s = t - 1)
    DDIM(eta)          n^2 = eta^2 (1 - rho_m^2) sigma_s^2,   r^2 = sigma_s^2 - n^2   (Song et al. 2021, eq. 12, 16)

At the last step s is the data's time: alpha_s = 1, sigma_s = 0, and x_s = x0 without noise.  Where a
variance is wanted there all the same (the decoder of the variational bound), small and large both take
the small variance of the step before, as DDPM's official code does.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from diffbench.diffusion.predictions import Prediction
from diffbench.diffusion.processes.gaussian import GaussianProcess, cast

Variance = Literal["small", "large"]


class Scales(NamedTuple):
    """The residual's scale r and the noise scale n of one step, float64."""

    r: Tensor
    n: Tensor


def residual_correlation(process: GaussianProcess, t: Tensor, s: Tensor) -> Tensor:
    """rho_m = alpha_t sigma_s/(alpha_s sigma_t)."""
    return process.alpha(t) * process.sigma(s) / (process.alpha(s) * process.sigma(t))


def variance(process: GaussianProcess, t: Tensor, s: Tensor, kind: Variance) -> Tensor:
    """Variance of the step from t to s: the posterior's, or all the noise that the forward step added."""
    return process.posterior_variance(t, s) if kind == "small" else process.transition(t, s)[1]


def ancestral_scales(process: GaussianProcess, t: Tensor, s: Tensor, kind: Variance) -> Scales:
    """DDPM's mean with the variance of that kind; no noise into the data."""
    r = residual_correlation(process, t, s) * process.sigma(s)
    n = variance(process, t, s, kind).sqrt() * (process.sigma(s) > 0)
    return Scales(r, n)


def ddim_scales(process: GaussianProcess, t: Tensor, s: Tensor, eta: float) -> Scales:
    """DDIM's deterministic step at eta = 0, DDPM's posterior at eta = 1."""
    n2 = eta**2 * process.posterior_variance(t, s)
    return Scales((process.sigma(s) ** 2 - n2).sqrt(), n2.sqrt())


def step_mean(prediction: Prediction, s: Tensor, r: Tensor) -> Tensor:
    """alpha_s x0 + r e."""
    process, x_t = prediction.process, prediction.x_t
    return (
        process.basis.scale(cast(process.alpha(s), x_t), prediction.x0)
        + cast(r, x_t) * prediction.eps
    )
