r"""The Gaussian family: q(x_t | x_0) = N(B^-1[alpha_t * B x_0], sigma_t^2 I).

A subclass states alpha_t, sigma_t, f = alpha'/alpha and (sigma^2)'.  Everything else follows:

    SDE             dx = f x dt + g dw,      g^2 = (sigma^2)' - 2 f sigma^2
    transition      q(x_t | x_s) = N(alpha_{t|s} x_s, sigma^2_{t|s}),   s before t,
                    alpha_{t|s} = alpha_t/alpha_s,   sigma^2_{t|s} = sigma_t^2 - alpha_{t|s}^2 sigma_s^2
    posterior       Var[x_s | x_t, x_0] = sigma^2_{t|s} sigma_s^2 / sigma_t^2
                    E[x_s | x_t, x_0] = (alpha_{t|s} sigma_s^2 x_t + alpha_s sigma^2_{t|s} x_0)/sigma_t^2

(Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 5 and appendix B; Kingma et al. 2021,
https://arxiv.org/abs/2107.00630, appendix A.)

Times are float64 tensors that broadcast against images: shape () for all, or (B, 1, 1, 1).  Time runs
from ``data_time`` (alpha = 1, sigma = 0) to ``t_max``; ``t_min`` is the smallest time at which a denoiser
may be asked.  The prior is N(0, prior_std^2 I).

The SDE's solvers and the likelihood use f, g^2, the basis, the prior, ``chain_step``, ``langevin_scale`` and
``constrain`` alone, so that a process of another family need have no more than these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffbench.diffusion.bases import Basis, Identity
from diffbench.specs.process import ProcessSpec


def at(t: float | Sequence[float] | Tensor) -> Tensor:
    """A time, or times, as a float64 tensor."""
    return torch.as_tensor(t, dtype=torch.float64)


def cast(coefficient: Tensor, x: Tensor) -> Tensor:
    """A float64 coefficient in x's precision; a scalar one stays on the CPU, where it costs no copy."""
    return coefficient.to(x.dtype) if coefficient.ndim == 0 else coefficient.to(x)


class GaussianProcess:
    """Base of all Gaussian processes; ``spec`` has the parameters."""

    data_time: float = 0.0
    prior_std: float = 1.0
    basis: Basis = Identity()

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.t_min, self.t_max = spec.t_min, spec.t_max

    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale alpha_t, of t's shape."""
        raise TypeError(f"{type(self).__name__} does not state alpha")

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale sigma_t, of t's shape."""
        raise TypeError(f"{type(self).__name__} does not state sigma")

    def f(self, t: Tensor) -> Tensor:
        """Drift coefficient d ln(alpha)/dt."""
        raise TypeError(f"{self.spec.name} has no drift: its time is {self.spec.time}")

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """d(sigma^2)/dt."""
        raise TypeError(f"{self.spec.name} has no diffusion: its time is {self.spec.time}")

    def time_of(self, ratio: Tensor) -> Tensor:
        """The time at which sigma/alpha equals ``ratio``; ``data_time`` where it is 0."""
        raise TypeError(f"{self.spec.name} cannot invert sigma/alpha")

    def g2(self, t: Tensor) -> Tensor:
        """Squared diffusion coefficient."""
        return self.sigma2_rate(t) - 2 * self.f(t) * self.sigma(t) ** 2

    def euler_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(a, G^2) of Euler's forward step x_t = a x_s + G z, with the rates at t."""
        h = t - s
        return 1 + self.f(t) * h, self.g2(t) * h

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(a, G^2) of the forward chain's step that the paper discretises with; Euler's where it has none."""
        return self.euler_step(t, s)

    def langevin_scale(self, t: Tensor, levels: int) -> Tensor:
        """What multiplies the Langevin corrector's step, for a chain of that many levels."""
        return torch.ones_like(t)

    def constrain(self, x: Tensor) -> Tensor:
        """Bring x back to where the process lives: everywhere, here."""
        return x

    def ratio(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio sigma_t/alpha_t: EDM's sigma."""
        return self.sigma(t) / self.alpha(t)

    def transition(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_{t|s}, sigma^2_{t|s}) of the forward step from s to the later time t."""
        alpha = self.alpha(t) / self.alpha(s)
        return alpha, self.sigma(t) ** 2 - alpha**2 * self.sigma(s) ** 2

    def posterior_variance(self, t: Tensor, s: Tensor) -> Tensor:
        """Variance of x_s given x_t and x_0; 0 at the data time."""
        _, sigma2 = self.transition(t, s)
        return sigma2 * self.sigma(s) ** 2 / self.sigma(t) ** 2

    def posterior_mean(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of x_t and x_0 in the mean of x_s given both."""
        alpha, sigma2 = self.transition(t, s)
        sigma2_t = self.sigma(t) ** 2
        return alpha * self.sigma(s) ** 2 / sigma2_t, self.alpha(s) * sigma2 / sigma2_t

    def level_before(self, t: Tensor) -> Tensor:
        """The level before t of a discrete chain."""
        raise TypeError(f"{self.spec.name} has no levels: its time is {self.spec.time}")

    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw of x_t: B^-1[alpha_t * B x0] + sigma_t noise.  All of shape (B, C, H, W)."""
        return self.basis.scale(cast(self.alpha(t), x0), x0) + cast(self.sigma(t), x0) * noise

    def prior_sample(self, z: Tensor) -> Tensor:
        """A draw of the prior from standard normal z."""
        return self.prior_std * z

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """Log density of the prior, in nats: (B, C, H, W) -> (B,)."""
        z = x.flatten(1) / self.prior_std
        return -0.5 * (z**2).sum(1) - z.shape[1] * (
            math.log(self.prior_std) + 0.5 * math.log(2 * math.pi)
        )
