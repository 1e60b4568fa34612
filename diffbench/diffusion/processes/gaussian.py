r"""The Gaussian family: q(x_t | x_0) = N(B^-1[alpha_t * B x_0], sigma_t^2 I), for images minus the middle.

A subclass gives alpha_t, sigma_t, f = alpha'/alpha and (sigma^2)'.  Everything else follows.  Here x stands for x - m,
with m the middle of the data range:

    SDE             dx = f x dt + g dw,      g^2 = (sigma^2)' - 2 f sigma^2
    transition      q(x_t | x_s) = N(alpha_{t|s} x_s, sigma^2_{t|s}),   s before t,
                    alpha_{t|s} = alpha_t/alpha_s,   sigma^2_{t|s} = sigma_t^2 - alpha_{t|s}^2 sigma_s^2
    posterior       Var[x_s | x_t, x_0] = sigma^2_{t|s} sigma_s^2 / sigma_t^2
                    E[x_s | x_t, x_0] = (alpha_{t|s} sigma_s^2 x_t + alpha_s sigma^2_{t|s} x_0)/sigma_t^2

(Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 5 and appendix B; Kingma et al. 2021,
https://arxiv.org/abs/2107.00630, appendix A.)  alpha is one number for all coordinates of the basis B or one
for each; so are f, g^2 and all else except sigma.  The prior is N(prior_mean, prior_std^2 I), by default with mean m
and standard deviation 1 unit.
"""

from __future__ import annotations

import math

from torch import Tensor

from diffbench.diffusion.core.process import Process, cast


class GaussianProcess(Process):
    """Base of all Gaussian processes."""

    def transition(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alpha(t) / self.alpha(s)
        return alpha, self.sigma(t) ** 2 - alpha**2 * self.sigma(s) ** 2

    def posterior_variance(self, t: Tensor, s: Tensor) -> Tensor:
        _, sigma2 = self.transition(t, s)
        return sigma2 * self.sigma(s) ** 2 / self.sigma(t) ** 2

    def posterior_mean(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma2 = self.transition(t, s)
        sigma2_t = self.sigma(t) ** 2
        return alpha * self.sigma(s) ** 2 / sigma2_t, self.alpha(s) * sigma2 / sigma2_t

    def diffuse(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """A draw of x_t: m + B^-1[alpha_t * B (x0 - m)] + sigma_t eps; all of shape (B, C, H, W)."""
        signal = self.basis.scale(cast(self.alpha(t), x0), self.centred(x0))
        return self.placed(signal + cast(self.sigma(t), x0) * eps)

    def prior_sample(self, z: Tensor) -> Tensor:
        """A draw of the prior, prior_mean + prior_std z, from standard normal z."""
        return self.prior_mean + self.prior_std * z

    def prior_log_prob(self, x: Tensor) -> Tensor:
        z = (x.flatten(1) - self.prior_mean) / self.prior_std
        return -0.5 * (z**2).sum(1) - z.shape[1] * (
            math.log(self.prior_std) + 0.5 * math.log(2 * math.pi)
        )
