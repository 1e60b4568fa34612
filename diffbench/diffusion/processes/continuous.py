r"""Continuous processes: VP, sub-VP, VE (Song et al. 2021, https://arxiv.org/abs/2011.13456) and EDM.

VP      beta(t) = b0 + t (b1 - b0),  ln alpha = -t^2 (b1 - b0)/4 - t b0/2,  sigma^2 = 1 - alpha^2   (eq. 32-33)
chain   abar at the real level x = (N - 1) t is prod_{j <= x} (1 - beta_j) of DDPM's chain, beta_j = beta_0 + j d:
        abar = d^(x+1) Gamma(u)/Gamma(z),  u = (1 - beta_0)/d + 1,  z = u - x - 1, by Stirling's series
sub-VP  VP's alpha,  sigma = 1 - alpha^2                                                            (eq. 34)
VE      alpha = 1,  sigma = smin (smax/smin)^t                                                      (eq. 30-31,
        with sigma(t)^2 for the paper's sigma(t)^2 - sigma(0)^2, as the official code)
cosine  alpha = cos a,  sigma = sin a,  a linear in t                  (the cosine schedule's noise levels; Nichol &
        Dhariwal 2021, https://arxiv.org/abs/2102.09672, equation 17, without offset, in a range of log SNR)
EDM     alpha = 1,  sigma = t                       (Karras et al. 2022, https://arxiv.org/abs/2206.00364, table 1)

The sigmas of VP, sub-VP and cosine are for data in [-1, 1]; on another range they are times the unit l (``base``).
VE's and EDM's are constants of their own, in units of the range as it is.  What a plan must know too is stated by the
specs: ln alpha and sigma of VP, its chain and sub-VP, the ends of cosine's and VE's ranges.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffbench.diffusion.core.process import Process
from diffbench.diffusion.processes.gaussian import GaussianProcess
from diffbench.specs.processes import (
    EDMSpec,
    GeometricSpec,
    LinearBetaSpec,
    VESpec,
    VPChainSpec,
    VPCosineSpec,
)


class VP(GaussianProcess):
    """The variance-preserving SDE, t in [0, 1]."""

    spec: LinearBetaSpec

    def __init__(self, spec: LinearBetaSpec) -> None:
        super().__init__(spec)
        self.beta_min, self.beta_max = spec.beta_min, spec.beta_max

    def beta(self, t: Tensor) -> Tensor:
        """The rate, linear in time."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Tensor) -> Tensor:
        """As the spec states it."""
        return self.spec.log_alpha(t, torch)

    def alpha(self, t: Tensor) -> Tensor:
        """exp(log_alpha)."""
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """As the spec states it."""
        return self.spec.sigma(t, torch)

    def f(self, t: Tensor) -> Tensor:
        """-beta/2."""
        return -0.5 * self.beta(t)

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """L^2 beta alpha^2."""
        return self.unit**2 * self.beta(t) * self.alpha(t) ** 2

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """DDPM's step, a^2 = 1 - beta and G^2 = l^2 beta with beta = beta(t) (t - s)   (appendix E).

        Raises:
            ValueError: where beta is 1 or more.
        """
        beta = self.beta(t) * (t - s)
        if bool((beta >= 1).any()):
            raise ValueError(
                f"steps: the one from time {float(t.max()):.4g} has 1 - beta = {1 - float(beta.max()):.3g}; take more"
            )
        return (1 - beta).sqrt(), self.unit**2 * beta

    def langevin_scale(self, t: Tensor, levels: int) -> Tensor:
        """1 - beta(t)/N."""
        return 1 - self.beta(t) / levels

    def _time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The positive root of -log_alpha = t^2 (b1 - b0)/4 + t b0/2, without cancellation near 0."""
        c = -log_alpha
        spread = self.beta_max - self.beta_min
        return 4 * c / (self.beta_min + (self.beta_min**2 + 4 * spread * c).sqrt())

    def time_of(self, ratio: Tensor) -> Tensor:
        """Alpha = (1 + (ratio/l)^2)^(-1/2)."""
        return self._time_of_log_alpha(-0.5 * torch.log1p((ratio / self.unit) ** 2))


class VPChain(VP):
    """DDPM's chain between its levels too: smooth in time, and at a level the product of (1 - beta) up to it."""

    spec: VPChainSpec

    def __init__(self, spec: VPChainSpec) -> None:
        super().__init__(spec)
        self.levels, self.data_time = spec.levels, spec.data_time

    def beta(self, t: Tensor) -> Tensor:
        """-2 times the derivative of log_alpha: -(N - 1)(ln d + digamma(z))."""
        n, z = self.spec.factors(t)
        log = torch.log1p(-self.spec.first - (n - 1) * self.spec.rise)
        return -(self.levels - 1) * (log - 0.5 / z - z**-2 / 12 + z**-4 / 120)

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The transition: between neighbouring levels DDPM's step, a^2 = 1 - beta and G^2 = beta."""
        log_ratio = self.log_alpha(t) - self.log_alpha(s)
        return log_ratio.exp(), -(self.unit**2) * torch.expm1(2 * log_ratio)

    def langevin_scale(self, t: Tensor, levels: int) -> Tensor:
        """alpha_{t|s}^2 of a step of a chain of so many levels: 1 - beta."""
        s = (t - 1 / (levels - 1)).clamp(min=self.data_time)
        return (2 * (self.log_alpha(t) - self.log_alpha(s))).exp()

    def _time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """Newton's method from VP's time of it, at which a step of the chain has begun."""
        t = (self.levels * super()._time_of_log_alpha(log_alpha) - 1) / (self.levels - 1)
        for _ in range(6):
            t = t + 2 * (self.log_alpha(t) - log_alpha) / self.beta(t)
        return t


class SubVP(VP):
    """The sub-variance-preserving SDE: VP's alpha with less noise."""

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Euler's: the paper has no chain for it."""
        return self.euler_step(t, s)

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """2 l sigma beta alpha^2."""
        return 2 * self.unit * self.sigma(t) * self.beta(t) * self.alpha(t) ** 2

    def time_of(self, ratio: Tensor) -> Tensor:
        """(1 - alpha^2)/alpha = ratio/l, so alpha = exp(-asinh(ratio/(2 l)))."""
        return self._time_of_log_alpha(-torch.asinh(ratio / (2 * self.unit)))


class VPCosine(GaussianProcess):
    """alpha = cos a, sigma = sin a; data are where the angle a is 0, before t = 0."""

    def __init__(self, spec: VPCosineSpec) -> None:
        super().__init__(spec)
        first, last = (math.atan(ratio / self.unit) for ratio in spec.ratios)
        self.rate = last - first
        self.data_time = -first / self.rate

    def angle(self, t: Tensor) -> Tensor:
        """Linear in time."""
        return self.rate * (t - self.data_time)

    def signal(self, t: Tensor) -> Tensor:
        """Cosine of the angle: alpha where nothing else happens to data."""
        return self.angle(t).cos()

    def alpha(self, t: Tensor) -> Tensor:
        """The signal."""
        return self.signal(t)

    def sigma(self, t: Tensor) -> Tensor:
        """L times the sine of the angle."""
        return self.unit * self.angle(t).sin()

    def f(self, t: Tensor) -> Tensor:
        """-rate tan(angle)."""
        return -self.rate * self.angle(t).tan()

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """L^2 rate sin(2 angle)."""
        return self.unit**2 * self.rate * (2 * self.angle(t)).sin()

    def langevin_scale(self, t: Tensor, levels: int) -> Tensor:
        """alpha_{t|s}^2 of one of N steps, of the signal alone."""
        s = (t - 1 / levels).clamp(min=self.data_time)
        return (self.signal(t) / self.signal(s)) ** 2

    def time_of(self, ratio: Tensor) -> Tensor:
        """tan(angle) = ratio/l."""
        return (ratio / self.unit).atan() / self.rate + self.data_time


class Exploding(Process):
    """alpha = 1 and no drift, whatever else may happen: data and noise are added."""

    def alpha(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)

    def f(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """A = 1, G^2 = sigma_t^2 - sigma_s^2."""
        return torch.ones_like(t), self.sigma(t) ** 2 - self.sigma(s) ** 2


class Geometric(Exploding):
    """sigma geometric in t in [0, 1]; data are where sigma = 0, at t = -infinity."""

    data_time = -math.inf

    def __init__(self, spec: GeometricSpec) -> None:
        super().__init__(spec)
        self.sigma_min = spec.sigma_min
        self.log_growth = spec.growth / 2

    def sigma(self, t: Tensor) -> Tensor:
        """Geometric from sigma_min to sigma_max."""
        return self.sigma_min * (t * self.log_growth).exp()

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """2 ln(smax/smin) sigma^2."""
        return 2 * self.log_growth * self.sigma(t) ** 2

    def time_of(self, ratio: Tensor) -> Tensor:
        """ln(ratio/smin)/ln(smax/smin)."""
        return (ratio / self.sigma_min).log() / self.log_growth


class VE(Geometric, GaussianProcess):
    """The variance-exploding SDE."""

    def __init__(self, spec: VESpec) -> None:
        super().__init__(spec)
        self.prior_std = spec.sigma_max


class EDM(Exploding, GaussianProcess):
    """Time is the noise level."""

    def __init__(self, spec: EDMSpec) -> None:
        super().__init__(spec)
        self.prior_std = spec.sigma_max

    def sigma(self, t: Tensor) -> Tensor:
        """The time itself."""
        return t

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """2 t."""
        return 2 * t

    def time_of(self, ratio: Tensor) -> Tensor:
        """The ratio itself."""
        return ratio
