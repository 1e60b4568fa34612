r"""What every process offers, whatever its family: the view of an SDE.

    dx = f (x - m) dt + g dw,     g^2 = (sigma^2)' - 2 f sigma^2,     x_0 the data, x_T ~ prior

m is the middle of the data range: what shrinks, shrinks towards it.  The unit l is the length that the process's paper
calls 1, so that u = (x - m)/l is x as the paper has it, but for the place of its 0.  On the paper's own range l is 1,
and on [-1, 1] m is 0: neither costs anything there.

f acts in the process's basis.  Samplers of the reverse SDE, of the probability-flow ODE and the exact likelihood use
f, g^2, the basis, the prior, ``chain_step``, ``langevin_scale`` and ``constrain`` alone, so that a process of another
family than the Gaussian needs no more than these.

Times are float64 tensors that broadcast against images: shape () for all, or (B, 1, 1, 1).  Time runs
from ``data_time`` (nothing has happened to data) to ``t_max``; ``t_min`` is the smallest time at which a denoiser
may be asked.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from diffbench.diffusion.core.bases import Basis, Identity
from diffbench.diffusion.core.described import Described
from diffbench.specs.processes import ProcessSpec

#: By how much a pixel must be moved to count as outside, in units: twice its distance from the wall that reflects it.
#:
#: A step's sum rounds a pixel near the wall 1 by half of float32's spacing there, 2^-25, and the way that is left
#: stretches that by the density's ratio to the prior's: at noise sigma at most 2 N(0; 0, sigma^2) = 0.8/sigma.  Over n
#: steps even in ln sigma from 0.01 to 5 the stretched roundings are n 0.8/(0.01 * 6.2) = 13 n of those: 3.9e-5 where
#: all of 100 steps round to one side, of the 5e-5 that are granted; of either sign, those of 500 steps have a standard
#: deviation of 9e-6.  Where the field vanishes at a wall, a method's own error vanishes with the distance from it.
#: Space outside that is taken for the cube's adds 5e-5 at either end to a density's integral: at most 1.4e-4 bits/dim.
MOVED = 1e-4


def at(t: float | Sequence[float] | Tensor) -> Tensor:
    """A time, or times, as a float64 tensor."""
    return torch.as_tensor(t, dtype=torch.float64)


def cast(coefficient: Tensor, x: Tensor) -> Tensor:
    """A float64 coefficient in x's precision; a scalar one stays on the CPU, where it costs no copy.

    Any other is copied to a GPU without waiting for what the GPU still has to do.
    """
    if coefficient.ndim == 0:
        return coefficient.to(x.dtype)
    return coefficient.to(x, non_blocking=x.is_cuda)


class Process(Described):
    """Base of all processes; ``spec`` has the parameters."""

    data_time: float = 0.0
    #: The longest Langevin step eps that makes sense, however small the score, where no spec says another.
    longest_langevin: float = math.inf
    basis: Basis = Identity()

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.t_min, self.t_max = spec.t_min, spec.t_max
        self.middle, self.unit = spec.middle, spec.unit
        #: Of a Gaussian prior.
        self.prior_mean, self.prior_std = spec.centre_of_prior, spec.unit

    def centred(self, x: Tensor) -> Tensor:
        """X - m."""
        return x if self.middle == 0 else x - self.middle

    def placed(self, x: Tensor) -> Tensor:
        """The image of a centred one: x + m."""
        return x if self.middle == 0 else x + self.middle

    def to_units(self, x: Tensor) -> Tensor:
        """(x - m)/l."""
        return self.centred(x) if self.unit == 1 else self.centred(x) / self.unit

    def from_units(self, u: Tensor) -> Tensor:
        """M + l u."""
        return self.placed(u if self.unit == 1 else self.unit * u)

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale alpha_t: of t's shape, or with the coordinates of the basis, (..., H, W)."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale sigma_t, of t's shape."""

    def f(self, t: Tensor) -> Tensor:
        """Drift coefficient d ln(alpha)/dt, of alpha's shape."""
        raise TypeError(f"{self.spec.name} has no drift: its time is {self.spec.time}")

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """d(sigma^2)/dt."""
        raise TypeError(f"{self.spec.name} has no diffusion: its time is {self.spec.time}")

    def g2(self, t: Tensor) -> Tensor:
        """Squared diffusion coefficient, of alpha's shape."""
        return self.sigma2_rate(t) - 2 * self.f(t) * self.sigma(t) ** 2

    def ratio(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio sigma_t/alpha_t, EDM's sigma, of t's shape."""
        return self.sigma(t) / self.alpha(t)

    def time_of(self, ratio: Tensor) -> Tensor:
        """The time at which sigma/alpha equals ``ratio``; ``data_time`` where it is 0."""
        raise TypeError(f"{self.spec.name} cannot invert sigma/alpha")

    def noise_level(self, t: Tensor) -> Tensor:
        """What a network is told of t, a number of order 1: ln(sigma/alpha)/4 (Karras et al. 2022, table 1)."""
        return (self.ratio(t) / self.unit).log() / 4

    def euler_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(a, G^2) of Euler's forward step x_t - m = a (x_s - m) + G z, with the rates at t."""
        h = t - s
        return 1 + self.f(t) * h, self.g2(t) * h

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """F (x - m) of states x (B, C, H, W)."""
        return self.basis.scale(cast(self.f(t), x), self.centred(x))

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(a, G^2) of the forward chain's step that the paper discretises with; Euler's where it has none."""
        return self.euler_step(t, s)

    def langevin_scale(self, t: Tensor, levels: int) -> Tensor:
        """What multiplies the Langevin corrector's step, for a chain of that many levels."""
        return torch.ones_like(t)

    def constrain(self, x: Tensor) -> Tensor:
        """Bring x back to where the process lives, by the process's own rule: everywhere, here."""
        return x

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of where the process lives."""
        return x

    def outside(self, x: Tensor) -> Tensor:
        """Which pixels of x lie outside the support of the process, by more than rounding: bool, of x's shape."""
        return (self.constrain(x) - x).abs() > MOVED * self.unit

    def check(self, x0: Tensor) -> None:
        """Refuse data that are not where the process lives.

        Raises:
            ValueError: saying what is wrong.
        """

    @abstractmethod
    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw of x_t from standard normal noise, both (B, C, H, W)."""

    def noise_in(self, x_t: Tensor, t: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
        """-sigma_t times the gradient of log q(x_t | x_0) at x_t, which x0 and that noise became."""
        return noise

    def level_before(self, t: Tensor) -> Tensor:
        """The level before t of a discrete chain."""
        raise TypeError(f"{self.spec.name} has no levels: its time is {self.spec.time}")

    def transition(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_{t|s}, sigma^2_{t|s}) of a Gaussian step from s to the later time t."""
        raise TypeError(self._not_gaussian)

    def posterior_variance(self, t: Tensor, s: Tensor) -> Tensor:
        """Variance of x_s given x_t and x_0; 0 at the data time."""
        raise TypeError(self._not_gaussian)

    def posterior_mean(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of x_t and x_0 in the mean of x_s given both."""
        raise TypeError(self._not_gaussian)

    @property
    def _not_gaussian(self) -> str:
        return f"{self.spec.name} is {self.spec.family}: its transitions are not Gaussian"

    def start(self, t: Tensor, z: Tensor) -> Tensor:
        """What is taken for x_t where nothing is known of the data: the prior's mean and sigma_t z."""
        noise = cast(self.sigma(t), z) * z
        return noise if self.prior_mean == 0 else self.prior_mean + noise

    @abstractmethod
    def prior_sample(self, z: Tensor) -> Tensor:
        """A draw of the prior from standard normal z."""

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """Log density of the prior, in nats: (B, C, H, W) -> (B,); -inf for what is ``outside``."""
        raise TypeError(f"{self.spec.name} has a prior without a density")
