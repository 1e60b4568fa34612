r"""The base of all processes, of any family: its view as an SDE.

    dx = f (x - m) dt + g dw,     g^2 = (sigma^2)' - 2 f sigma^2,     x_0 the data, x_T ~ prior

m is the middle of the data range; images that shrink, shrink towards m.  The unit l is the length that the process's
paper calls 1, so that u = (x - m)/l is the paper's x, up to a shift.  On the paper's range l is 1, and on [-1, 1] m is
0; the code then skips the operation.

f acts in the process's basis.  Samplers of the reverse SDE and of the probability-flow ODE, and the exact likelihood,
use only f, g^2, the basis, the prior, ``chain_step``, ``langevin_scale`` and ``constrain``.  A process outside the
Gaussian family needs only these.

Times are float64 tensors that broadcast against images: shape () for one time, or (B, 1, 1, 1).  Time runs from
``data_time`` (clean data) to ``t_max``; ``t_min`` is the smallest time at which a denoiser may be called.
"""

from __future__ import annotations

import math
import typing
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffbench.diffusion.core.bases import Basis, Identity
from diffbench.diffusion.core.described import Described
from diffbench.diffusion.core.path import Coefficient, Path, followed, tabled
from diffbench.specs.processes import ProcessSpec

#: The least move by ``constrain``, in units, of a pixel that counts as outside: twice its distance from the wall.
#:
#: A step rounds a pixel near the wall 1 by up to half of float32's spacing there, 2^-25.  The steps that follow magnify
#: this error by the density over the prior's density: at noise sigma at most 2 N(0; 0, sigma^2) = 0.8/sigma.  Over n
#: steps evenly spaced in ln sigma from 0.01 to 5 the magnified errors sum to n 0.8/(0.01 * 6.2) = 13 n times 2^-25:
#: 3.9e-5 if all of 100 steps round in one direction, below the 5e-5 allowed.  With random signs, the sum over 500 steps
#: has a standard deviation of 9e-6.  Where the field vanishes at a wall, the solver's own error vanishes there too.
#: The space outside that counts as inside adds 5e-5 at each end to the integral of a density: at most 1.4e-4 bits/dim.
MOVED = 1e-4


def float64(t: float | Sequence[float] | Tensor) -> Tensor:
    """One or several times as a float64 tensor."""
    return torch.as_tensor(t, dtype=torch.float64)


def times_of(process: Process, t: float | Sequence[float] | Tensor, x: Tensor) -> Tensor:
    """One time, or one for each image of x (B, C, H, W), as float64 of shape () or (B, 1, 1, 1).

    Tensors of these shapes, which solvers have, are returned as they are; numbers and (B,) are checked.

    Raises:
        ValueError: for another shape, or a time at which no denoiser may be called.
    """
    if isinstance(t, Tensor) and t.ndim in (0, x.ndim):
        return t
    found = float64(t).to(x.device)
    if found.shape not in ((), (len(x),)):
        raise ValueError(
            f"t has the shape {tuple(found.shape)}, but must be one time or {len(x)}, one for each image"
        )
    outside = found[~((found >= process.t_min) & (found <= process.t_max))].flatten()
    if len(outside):
        raise ValueError(
            f"t: {float(outside[0]):g} is not a time of {process.spec.name}, from {process.t_min:g} to "
            f"{process.t_max:g}"
        )
    return found.reshape(found.shape + (1,) * (x.ndim - 1)) if found.ndim else found


def cast(coefficient: Tensor, x: Tensor) -> Tensor:
    """The coefficient in x's precision; a scalar stays on the CPU, which saves a copy.

    Any other is copied to a GPU without waiting for the work that the GPU still has to do.
    """
    single: Tensor | None = coefficient.__dict__.get("single")
    if single is not None and x.dtype == torch.float32:
        return single
    if coefficient.ndim == 0:
        return coefficient.to(x.dtype)
    return coefficient.to(x, non_blocking=x.is_cuda)


def number(coefficient: Tensor) -> float:
    """The coefficient of shape () on the CPU as a number."""
    found: float | None = coefficient.__dict__.get("number")
    return coefficient.item() if found is None else found


def is_one(factor: Tensor) -> bool:
    """Whether a factor is the number 1, known without waiting for a GPU: 1 x is x to the bit."""
    return factor.ndim == 0 and factor.is_cpu and number(factor) == 1


def minus(x: Tensor, y: Tensor) -> Tensor:
    """The difference x - y, written over y, which must be a new tensor; in a new one where gradients are recorded."""
    if torch.is_grad_enabled() or x.dtype != y.dtype or x.shape != y.shape:
        return x - y
    return torch.sub(x, y, out=y)


#: How many results of each coefficient a process remembers: enough for one step of any solver.
REMEMBERED = 16


def remembered(coefficient: Coefficient) -> Coefficient:
    """The method of a process with a memory of its latest results at single times, tensors of shape () on the CPU.

    In one step a solver, its denoiser and its prediction ask for the same coefficients about ten times.  Most are at
    times of a path (``path``); the others are of steps that a restorer or a churn adds.
    """

    @wraps(coefficient)
    def asked(process: Process, *times: Tensor) -> Any:
        for t in times:
            if t.ndim or t.requires_grad or not t.is_cpu:
                return coefficient(process, *times)
        known = process.memory.setdefault(coefficient, {})
        key = tuple([t.item() for t in times])
        if key not in known:
            if len(known) == REMEMBERED:
                del known[next(iter(known))]
            known[key] = coefficient(process, *times)
        return known[key]

    return typing.cast(Coefficient, asked)


def timed(coefficient: Coefficient) -> Coefficient:
    """The method of a process with a table for the path that is walked, and a memory for other times."""
    return tabled(remembered(coefficient))


class Process(Described):
    """Base of all processes; ``spec`` has the parameters, which do not change.

    The methods named in ``TIMED`` are functions of times alone.  Their results are known at all times of the path that
    a solver walks, and the latest at other times are remembered, so nothing may change a result in place.
    """

    TIMED: ClassVar[frozenset[str]] = frozenset(
        {"alpha", "sigma", "f", "sigma2_rate", "g2", "ratio", "time_of", "noise_level", "log_alpha"}
        | {"beta", "level_before", "transition", "posterior_variance", "posterior_mean"}
    )

    def __init_subclass__(cls) -> None:
        for name in cls.TIMED & vars(cls).keys():
            setattr(cls, name, timed(vars(cls)[name]))

    data_time: float = 0.0
    #: The largest Langevin step eps, however small the score, unless a solver's spec sets another.
    longest_langevin: float = math.inf
    basis: Basis = Identity()
    #: The path that a solver walks.
    path: Path | None = None

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.memory: dict[Callable[..., Any], dict[tuple[float, ...], Any]] = {}
        self.t_min, self.t_max = spec.t_min, spec.t_max
        self.middle, self.unit = spec.middle, spec.unit
        #: The mean and the standard deviation of a Gaussian prior.
        self.prior_mean, self.prior_std = spec.centre_of_prior, spec.unit

    def walk(self, times: Tensor) -> tuple[Tensor, ...]:
        """The points of the path through these times, from now on the path that is walked."""
        self.path, points = followed(self.path, times)
        return points

    def centred(self, x: Tensor) -> Tensor:
        """The image x minus the middle of the data range, x - m."""
        return x if self.middle == 0 else x - self.middle

    def placed(self, x: Tensor) -> Tensor:
        """The image x + m of a centred image x."""
        return x if self.middle == 0 else x + self.middle

    def scaled(self, factor: Tensor, x: Tensor) -> Tensor:
        """The scaled image B^-1 [factor * B x]; x itself, and not a new tensor, where the factor is 1."""
        return x if is_one(factor) else self.basis.scale(factor, x)

    def to_units(self, x: Tensor) -> Tensor:
        """The image in units, u = (x - m)/l."""
        return self.centred(x) if self.unit == 1 else self.centred(x) / self.unit

    def from_units(self, u: Tensor) -> Tensor:
        """The image m + l u of u in units."""
        return self.placed(u if self.unit == 1 else self.unit * u)

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale alpha_t: of t's shape, or (..., H, W) with one value for each coordinate of the basis."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale sigma_t, of t's shape."""

    def f(self, t: Tensor) -> Tensor:
        """Drift coefficient f = d ln(alpha)/dt, of alpha's shape."""
        raise TypeError(f"{self.spec.name} has no drift: its time is {self.spec.time}")

    def sigma2_rate(self, t: Tensor) -> Tensor:
        """Rate of the noise variance, d(sigma^2)/dt, of t's shape."""
        raise TypeError(f"{self.spec.name} has no diffusion: its time is {self.spec.time}")

    @timed
    def g2(self, t: Tensor) -> Tensor:
        """Squared diffusion coefficient g^2, of alpha's shape."""
        return self.sigma2_rate(t) - 2 * self.f(t) * self.sigma(t) ** 2

    @timed
    def ratio(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio sigma_t/alpha_t (EDM's sigma), of t's shape."""
        return self.sigma(t) / self.alpha(t)

    def time_of(self, ratio: Tensor) -> Tensor:
        """The time at which sigma/alpha equals ``ratio``; ``data_time`` where the ratio is 0."""
        raise TypeError(f"{self.spec.name} cannot invert sigma/alpha")

    @timed
    def noise_level(self, t: Tensor) -> Tensor:
        """The noise level that a network is told, of order 1: ln(sigma/(l alpha))/4 (Karras et al. 2022, table 1)."""
        return (self.ratio(t) / self.unit).log() / 4

    def euler_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients (a, G^2) of Euler's forward step x_t - m = a (x_s - m) + G z, with the rates at t."""
        h = t - s
        return 1 + self.f(t) * h, self.g2(t) * h

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """The drift f (x - m) at states x (B, C, H, W)."""
        return self.basis.scale(cast(self.f(t), x), self.centred(x))

    def chain_step(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients (a, G^2) of the forward step in the paper's discretisation; Euler's step if it has none."""
        return self.euler_step(t, s)

    def langevin_scale(self, t: Tensor, levels: int) -> Tensor:
        """The factor of the Langevin corrector's step, for a chain of ``levels`` levels."""
        return torch.ones_like(t)

    def constrain(self, x: Tensor) -> Tensor:
        """The state x moved into the support by the process's own rule; here every x is in the support."""
        return x

    def project(self, x: Tensor) -> Tensor:
        """The point of the support that is nearest to x."""
        return x

    def outside(self, x: Tensor) -> Tensor:
        """Which pixels of x lie outside the support by more than rounding: bool, of x's shape."""
        return (self.constrain(x) - x).abs() > MOVED * self.unit

    def check(self, x0: Tensor) -> None:
        """Refuse data outside the support of the process.

        Raises:
            ValueError: when x0 has values outside; the message says what is wrong.
        """

    @abstractmethod
    def diffuse(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """A draw of x_t given x0, from standard normal eps, both (B, C, H, W)."""

    def noise_in(self, x_t: Tensor, t: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """The noise target -sigma_t grad log q(x_t | x_0) at x_t, which was made from x0 and ``eps``."""
        return eps

    def level_before(self, t: Tensor) -> Tensor:
        """The level below t of a chain; the data's time -1 below level 0."""
        if self.spec.time != "discrete":
            raise TypeError(f"{self.spec.name} has no levels: its time is {self.spec.time}")
        return t - 1

    def transition(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The pair (alpha_{t|s}, sigma^2_{t|s}) of a Gaussian step from s to the later time t."""
        raise TypeError(self._not_gaussian)

    def posterior_variance(self, t: Tensor, s: Tensor) -> Tensor:
        """Variance of x_s given x_t and x_0; 0 where s is the data's time."""
        raise TypeError(self._not_gaussian)

    def posterior_mean(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of x_t - m and x_0 - m in the mean of x_s - m given both."""
        raise TypeError(self._not_gaussian)

    @property
    def _not_gaussian(self) -> str:
        return f"{self.spec.name} is {self.spec.family}: its transitions are not Gaussian"

    def start(self, t: Tensor, z: Tensor) -> Tensor:
        """The start x_t when nothing is known of the data: the prior's mean plus sigma_t z."""
        noise = cast(self.sigma(t), z) * z
        return noise if self.prior_mean == 0 else self.prior_mean + noise

    @abstractmethod
    def prior_sample(self, z: Tensor) -> Tensor:
        """A draw of the prior from standard normal z."""

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """Log density of the prior, in nats: (B, C, H, W) -> (B,); -inf where x is ``outside``."""
        raise TypeError(f"{self.spec.name} has a prior without a density")
