r"""Continuous processes: VP, sub-VP, VE (Song et al. 2021, https://arxiv.org/abs/2011.13456) and EDM.

VP      beta(t) = b0 + t (b1 - b0),  ln alpha = -t^2 (b1 - b0)/4 - t b0/2,  sigma^2 = 1 - alpha^2   (eq. 32-33)
chain   abar at the real level x = (N - 1) t is prod_{j <= x} (1 - beta_j) of DDPM's chain, beta_j = beta_0 + j d:
        abar = d^(x+1) Gamma(u)/Gamma(z),  u = (1 - beta_0)/d + 1,  z = u - x - 1, by Stirling's series
sub-VP  VP's alpha,  sigma = 1 - alpha^2                                                            (eq. 34)
VE      alpha = 1,  sigma = smin (smax/smin)^t                                                      (eq. 30-31,
        with sigma(t)^2 for the paper's sigma(t)^2 - sigma(0)^2, as in the official code)
cosine  alpha = cos a,  sigma = sin a,  a linear in t                  (the cosine schedule's noise levels; Nichol &
        Dhariwal 2021, https://arxiv.org/abs/2102.09672, equation 17, without offset, in a range of log SNR)
EDM     alpha = 1,  sigma = t                       (Karras et al. 2022, https://arxiv.org/abs/2206.00364, table 1)

The sigmas of VP, sub-VP and cosine are for data in [-1, 1]; on another range they are multiplied by the unit l
(``core.process``).  Those of VE and EDM are constants in the data's own range.  The specs have the formulas that a plan
needs too: ln alpha and sigma of VP, its chain and sub-VP, and the ends of the ranges of cosine and VE.
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
    """The variance-preserving SDE, t in [0, 1].

    Example:
        >>> import torch
        >>> vp, t = VP(beta_max=10), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
        >>> vp.alpha(t) ** 2 + vp.sigma(t) ** 2
        tensor([1., 1., 1.], dtype=torch.float64)
        >>> f"{vp.alpha(t[2]):.4f}"  # exp(-10/4 - 0.1/4)
        '0.0801'
    """

    spec: LinearBetaSpec

    def __init__(self, spec: LinearBetaSpec) -> None:
        super().__init__(spec)
        self.beta_min, self.beta_max = spec.beta_min, spec.beta_max

    def beta(self, t: Tensor) -> Tensor:
        """The rate, linear in time."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Tensor) -> Tensor:
        """The logarithm of alpha_t, by the spec's formula."""
        found: Tensor = self.spec.log_alpha(t, torch)
        return found

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale sigma_t, by the spec's formula."""
        found: Tensor = self.spec.sigma(t, torch)
        return found

    def f(self, t: Tensor) -> Tensor:
        """Drift coefficient f = -beta/2."""
        return -0.5 * self.beta(t)

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """Rate of the noise variance, l^2 beta alpha^2."""
        return self.unit**2 * self.beta(t) * self.alpha(t) ** 2

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients of DDPM's step, a^2 = 1 - beta and G^2 = l^2 beta with beta = beta(t) (t - s) (appendix E).

        Raises:
            ValueError: when this beta is 1 or more.
        """
        beta = self.beta(t) * (t - s)
        if bool((beta >= 1).any()):
            raise ValueError(
                f"steps: the step from time {float(t.max()):.4g} has 1 - beta = {1 - float(beta.max()):.3g}, which "
                "must be above 0; take more steps"
            )
        return (1 - beta).sqrt(), self.unit**2 * beta

    def langevin_scale(self, t: Tensor, levels: int) -> Tensor:
        """The factor 1 - beta(t)/N of the Langevin corrector's step, for N = ``levels``."""
        return 1 - self.beta(t) / levels

    def _time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The positive root t of -log_alpha = t^2 (b1 - b0)/4 + t b0/2, without cancellation near 0."""
        c = -log_alpha
        spread = self.beta_max - self.beta_min
        return 4 * c / (self.beta_min + (self.beta_min**2 + 4 * spread * c).sqrt())

    def time_of(self, ratio: Tensor) -> Tensor:
        """The time at which sigma/alpha equals ``ratio``, from alpha = (1 + (ratio/l)^2)^(-1/2)."""
        return self._time_of_log_alpha(-0.5 * torch.log1p((ratio / self.unit) ** 2))


class VPChain(VP):
    """DDPM's chain in continuous time: smooth, and at each level abar is the product of (1 - beta) up to that level."""

    spec: VPChainSpec

    def __init__(self, spec: VPChainSpec) -> None:
        super().__init__(spec)
        self.levels, self.data_time = spec.levels, spec.data_time

    def beta(self, t: Tensor) -> Tensor:
        """The rate -2 d(log_alpha)/dt = -(N - 1)(ln d + digamma(z))."""
        n, z = self.spec.factors(t)
        log = torch.log1p(-self.spec.first - (n - 1) * self.spec.rise)
        found: Tensor = -(self.levels - 1) * (log - 0.5 / z - z**-2 / 12 + z**-4 / 120)
        return found

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients of the transition; between neighbouring levels DDPM's a^2 = 1 - beta, G^2 = l^2 beta."""
        log_ratio = self.log_alpha(t) - self.log_alpha(s)
        return log_ratio.exp(), -(self.unit**2) * torch.expm1(2 * log_ratio)

    def langevin_scale(self, t: Tensor, levels: int) -> Tensor:
        """The factor alpha_{t|s}^2 = 1 - beta of one step of a chain of ``levels`` levels."""
        s = (t - 1 / (levels - 1)).clamp(min=self.data_time)
        return (2 * (self.log_alpha(t) - self.log_alpha(s))).exp()

    def _time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The time t at this log_alpha, by Newton's method; it starts from VP's time, counted in levels."""
        t = (self.levels * super()._time_of_log_alpha(log_alpha) - 1) / (self.levels - 1)
        for _ in range(6):
            t = t + 2 * (self.log_alpha(t) - log_alpha) / self.beta(t)
        return t


class SubVP(VP):
    """The sub-variance-preserving SDE: VP's alpha with less noise."""

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients (a, G^2) of Euler's step; the paper has no chain for sub-VP."""
        return self.euler_step(t, s)

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """Rate of the noise variance, 2 l sigma beta alpha^2."""
        return 2 * self.unit * self.sigma(t) * self.beta(t) * self.alpha(t) ** 2

    def time_of(self, ratio: Tensor) -> Tensor:
        """The time at which (1 - alpha^2)/alpha = ratio/l, that is alpha = exp(-asinh(ratio/(2 l)))."""
        return self._time_of_log_alpha(-torch.asinh(ratio / (2 * self.unit)))


class VPCosine(GaussianProcess):
    """The cosine process: alpha = cos a, sigma = l sin a; data have the angle a = 0, at a time before t = 0."""

    def __init__(self, spec: VPCosineSpec) -> None:
        super().__init__(spec)
        smallest, largest = (math.atan(ratio / self.unit) for ratio in spec.ratios)
        self.rate = largest - smallest
        self.data_time = -smallest / self.rate

    def angle(self, t: Tensor) -> Tensor:
        """The angle a, linear in time."""
        return self.rate * (t - self.data_time)

    def signal(self, t: Tensor) -> Tensor:
        """The cosine of the angle, which is alpha without a blur."""
        return self.angle(t).cos()

    def alpha(self, t: Tensor) -> Tensor:
        return self.signal(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale l sin(a)."""
        return self.unit * self.angle(t).sin()

    def f(self, t: Tensor) -> Tensor:
        """Drift coefficient f = -rate tan(a)."""
        return -self.rate * self.angle(t).tan()

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """Rate of the noise variance, l^2 rate sin(2 a)."""
        return self.unit**2 * self.rate * (2 * self.angle(t)).sin()

    def langevin_scale(self, t: Tensor, levels: int) -> Tensor:
        """The factor alpha_{t|s}^2 of one of N = ``levels`` steps, without a blur."""
        s = (t - 1 / levels).clamp(min=self.data_time)
        return (self.signal(t) / self.signal(s)) ** 2

    def time_of(self, ratio: Tensor) -> Tensor:
        """The time at which tan(a) = ratio/l."""
        return (ratio / self.unit).atan() / self.rate + self.data_time


class Exploding(Process):
    """Base of processes with alpha = 1 and no drift: noise is added to data that keep their scale."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients a = 1 and G^2 = sigma_t^2 - sigma_s^2."""
        return torch.ones_like(t), self.sigma(t) ** 2 - self.sigma(s) ** 2


class Geometric(Exploding):
    """Base of processes with sigma geometric in t in [0, 1]; data have sigma = 0, at t = -infinity."""

    data_time = -math.inf

    def __init__(self, spec: GeometricSpec) -> None:
        super().__init__(spec)
        self.sigma_min = spec.sigma_min
        self.log_growth = spec.growth / 2

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale smin (smax/smin)^t."""
        return self.sigma_min * (t * self.log_growth).exp()

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """Rate of the noise variance, 2 ln(smax/smin) sigma^2."""
        return 2 * self.log_growth * self.sigma(t) ** 2

    def time_of(self, ratio: Tensor) -> Tensor:
        """The time ln(ratio/smin)/ln(smax/smin)."""
        return (ratio / self.sigma_min).log() / self.log_growth


class VE(Geometric, GaussianProcess):
    """The variance-exploding SDE."""

    def __init__(self, spec: VESpec) -> None:
        super().__init__(spec)
        self.prior_std = spec.sigma_max


class EDM(Exploding, GaussianProcess):
    """EDM's process, in which the time is the noise level: sigma = t."""

    def __init__(self, spec: EDMSpec) -> None:
        super().__init__(spec)
        self.prior_std = spec.sigma_max

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """Rate of the noise variance, 2 t."""
        return 2 * t

    def time_of(self, ratio: Tensor) -> Tensor:
        return ratio
