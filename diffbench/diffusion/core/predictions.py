r"""Predictions: what a denoiser says about x_t, in any of several forms, the views.

Let x_t = alpha x0 + sigma eps, for images minus the middle m of the data range, and rho = sigma/l^2, with l the
process's unit (1 on the range of its paper).  One native quantity determines all others:

    eps      = (x_t - alpha x0)/sigma               score    = -eps/sigma
    velocity = (alpha eps - rho x0)/k,  k^2 = alpha^2 + sigma rho,  the velocity of the variance-preserving x_t/k
                                (Salimans & Ho 2022, https://arxiv.org/abs/2202.00512, appendix D, where k = 1)
    x0       = (alpha x_t/k - sigma v)/k,            eps = (rho x_t/k + alpha v)/k
    mean     = E[x_s | x_t, x0], s the level below t    (Ho et al. 2020, https://arxiv.org/abs/2006.11239, equation 7)

The views x0 and mean are images and include m; eps, score and velocity (v) do not.  alpha acts in the process's basis.
A process may have fewer views (``ProcessSpec.views``).  All are linear in x_t and the native quantity.  So at one time
for all images, what a solver asks for, c (x0 - m) + d eps, is one sum of these two (``Form``).  A denoiser that learns
its variance also gives either the fraction v, the place of a step's log variance between its two bounds
(``transitions``), or the log variance itself.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Self, overload

import torch
from torch import Tensor

from diffbench.diffusion.core.path import tabled
from diffbench.diffusion.core.process import Process, cast, minus, number

Native = Literal["eps", "x0", "v", "score", "mean"]

#: The unit of each native quantity, as a power of length; eps and v have no unit.
LENGTHS: dict[Native, int] = {"eps": 0, "x0": 1, "v": 0, "score": -1, "mean": 1}


def linear_form(process: Process, native: Native, t: Tensor) -> tuple[Tensor, Tensor]:
    """The coefficients (a, b) of native = a x_t + b x0, images minus m; float64, of t's shape."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    match native:
        case "eps":
            return 1 / sigma, -alpha / sigma
        case "v":
            k = (alpha**2 + (sigma / process.unit) ** 2).sqrt()
            return alpha / (sigma * k), -k / sigma
        case "score":
            return -1 / sigma**2, alpha / sigma**2
        case "mean":
            return process.posterior_mean(t, process.level_before(t))
    return torch.zeros_like(sigma), torch.ones_like(sigma)


class Form(NamedTuple):
    """The coefficients of x0 and eps as sums of x_t and the native quantity n, images minus m; float64.

    x0 = state x_t + value n,     eps = noise_state x_t + noise_value n.     ``state`` has alpha's shape.
    """

    state: Tensor
    value: Tensor
    noise_state: Tensor
    noise_value: Tensor


@tabled
def form_of(process: Process, t: Tensor, native: Native) -> Form:
    """The form of the predictions with this native quantity at time t."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    match native:
        case "eps":
            return Form(1 / alpha, -sigma / alpha, zero, one)
        case "score":
            return Form(1 / alpha, sigma**2 / alpha, zero, -sigma)
        case "v":
            rho = sigma / process.unit**2
            k2 = alpha**2 + sigma * rho
            return Form(alpha / k2, -sigma / k2.sqrt(), rho / k2, alpha / k2.sqrt())
        case "mean":
            a, b = linear_form(process, native, t)
            return Form(-a / b, 1 / b, (1 + alpha * a / b) / sigma, -alpha / (b * sigma))
    return Form(zero, one, 1 / sigma, -alpha / sigma)


class Once(cached_property[Tensor]):
    """A property that is computed when it is first asked for, without the lock that Python 3.11 takes to do so."""

    @overload
    def __get__(self, prediction: None, owner: type[Any] | None = None) -> Self: ...

    @overload
    def __get__(self, prediction: object, owner: type[Any] | None = None) -> Tensor: ...

    def __get__(self, prediction: object, owner: type[Any] | None = None) -> Self | Tensor:
        if prediction is None:
            return self
        assert self.attrname is not None
        value: Tensor
        value = prediction.__dict__[self.attrname] = self.func(prediction)
        return value


class Prediction:
    """What a denoiser says at (x_t, t): the ``value`` of the ``native`` quantity, and every view of it.

    Every view has x_t's shape.  So do ``fraction`` and ``log_variance``; a denoiser that learns its variance gives one.

    Example:
        >>> import torch
        >>> from diffbench.diffusion import EDM
        >>> t, x_t = torch.tensor([2.0]), torch.full((1, 1, 1, 1), 5.0)
        >>> told = Prediction(EDM(), x_t, t, "eps", torch.full((1, 1, 1, 1), 1.5))
        >>> float(told.x0), float(told.score)  # 5 - 2 * 1.5, and -1.5/2
        (2.0, -0.75)
    """

    #: Whether x0 and eps follow from x_t and the native quantity: not in a subclass with views of its own.
    linear: ClassVar[bool] = True
    #: The gradient that guidance has added to the score (``guidance``); None without guidance.
    guide: Tensor | None = None

    def __init_subclass__(cls) -> None:
        cls.linear = cls.linear and not {"x0", "eps", "signal"} & vars(cls).keys()

    def __init__(
        self,
        process: Process,
        x_t: Tensor,
        t: Tensor,
        native: Native,
        value: Tensor,
        fraction: Tensor | None = None,
        log_variance: Tensor | None = None,
    ) -> None:
        self.process, self.x_t, self.t = process, x_t, t
        self.native, self.value = native, value
        self.fraction, self.log_variance = fraction, log_variance

    @Once
    def alpha(self) -> Tensor:
        """The signal scale alpha_t, in x_t's precision."""
        return cast(self.process.alpha(self.t), self.x_t)

    @Once
    def sigma(self) -> Tensor:
        """The noise scale sigma_t, in x_t's precision."""
        return cast(self.process.sigma(self.t), self.x_t)

    @Once
    def rho(self) -> Tensor:
        """The ratio rho = sigma/l^2, with l the process's unit."""
        return self.sigma / self.process.unit**2

    @Once
    def offset(self) -> Tensor:
        """The state minus the middle of the data range, x_t - m."""
        return self.process.centred(self.x_t)

    def require(self, view: Native) -> None:
        """Refuse a view that the process does not have.

        Raises:
            TypeError: when the process does not have the view; the message gives the reason.
        """
        spec = self.process.spec
        if view not in spec.views:
            raise TypeError(f"{spec.name} has no {view}: {spec.viewless}")

    def form(self) -> Form | None:
        """The form, where t is one time for all images and alpha one number for all coordinates; otherwise None."""
        if not self.linear or self.t.ndim or not self.t.is_cpu:
            return None
        found = form_of(self.process, self.t, self.native)
        return None if found.state.ndim else found

    def mixed(self, state: float, value: float) -> Tensor:
        """The new tensor state x_t + value n, images minus m, with the native quantity n."""
        n = self.process.centred(self.value) if LENGTHS[self.native] == 1 else self.value
        return (self.offset * state).add_(n, alpha=value)

    def combined(self, signal: Tensor, noise: Tensor) -> Tensor:
        """The new tensor B^-1[signal * B (x0 - m)] + noise eps, for factors in float64, of shape () or like alpha's."""
        self.require("x0")
        form = self.form()
        if form is None or signal.ndim or noise.ndim:
            found = self.process.basis.scale(cast(noise, self.x_t), self.eps)
            return found.add_(self.signal(cast(signal, self.x_t)))
        c, d = number(signal), number(noise)
        state, value, noise_state, noise_value = map(number, form)
        return self.mixed(c * state + d * noise_state, c * value + d * noise_value)

    @Once
    def eps(self) -> Tensor:
        """The noise eps in x_t; in every family it is -sigma score."""
        scale = self.process.basis.scale
        if self.native == "eps":
            return self.value
        form = self.form()
        if form is not None:
            return self.mixed(number(form.noise_state), number(form.noise_value))
        match self.native:
            case "score":
                return -self.sigma * self.value
            case "v":
                return scale(self.norm**-2, self.rho * self.offset) + scale(
                    self.alpha / self.norm, self.value
                )
        x0 = self.process.centred(self.x0)
        return (self.offset - self.process.scaled(self.alpha, x0)).div_(self.sigma)

    @Once
    def x0(self) -> Tensor:
        """The posterior mean E[x_0 | x_t]."""
        if self.native == "x0":
            return self.value
        self.require("x0")
        form = self.form()
        if form is not None:
            return self.process.placed(self.mixed(number(form.state), number(form.value)))
        return self.process.placed(self.signal(torch.ones_like(self.sigma)))

    def signal(self, factor: Tensor) -> Tensor:
        """The scaled signal B^-1[factor * B (x0 - m)], for a factor in x_t's precision; not always a new tensor.

        Where alpha is nearly 0 in a coordinate, x0 is very large there, and its rounding error would hide the other
        coordinates.  So the factor is combined with 1/alpha before the result goes back to pixels.
        """
        scale = self.process.basis.scale
        if self.native == "x0":
            return self.process.scaled(factor, self.process.centred(self.value))
        self.require("x0")
        match self.native:
            case "v":
                return scale(factor * self.alpha / self.norm**2, self.offset) - scale(
                    factor * self.sigma / self.norm, self.value
                )
            case "mean":
                a, b = (cast(c, self.x_t) for c in linear_form(self.process, "mean", self.t))
                mean = self.process.centred(self.value)
                return scale(factor / b, mean - scale(a, self.offset))
        return scale(factor / self.alpha, minus(self.offset, self.sigma * self.eps))

    @property
    def score(self) -> Tensor:
        """The score, the gradient of log p_t at x_t."""
        return self.value if self.native == "score" else -self.eps / self.sigma

    @property
    def velocity(self) -> Tensor:
        """The velocity (alpha eps - rho x0)/k."""
        if self.native == "v":
            return self.value
        scale = self.process.basis.scale
        x0 = self.process.centred(self.x0)
        return scale(self.alpha / self.norm, self.eps) - scale(self.rho / self.norm, x0)

    @property
    def norm(self) -> Tensor:
        """The norm k = sqrt(alpha^2 + sigma rho)."""
        return (self.alpha**2 + self.sigma * self.rho).sqrt()

    @property
    def mean(self) -> Tensor:
        """The posterior mean E[x_s | x_t, x0] at the level s below t."""
        if self.native == "mean":
            return self.value
        return self.mean_at(self.process.level_before(self.t))

    def mean_at(self, s: Tensor) -> Tensor:
        """The posterior mean E[x_s | x_t, x0] at an earlier time s, of t's shape."""
        if self.native == "mean" and bool((s == self.process.level_before(self.t)).all()):
            return self.value
        a, b = (cast(c, self.x_t) for c in self.process.posterior_mean(self.t, s))
        return self.process.placed(self.process.basis.scale(a, self.offset).add_(self.signal(b)))

    def view(self, name: Native) -> Tensor:
        """The view with this name."""
        match name:
            case "x0":
                return self.x0
            case "v":
                return self.velocity
            case "score":
                return self.score
            case "mean":
                return self.mean
        return self.eps

    @property
    def unguided(self) -> Prediction:
        """The prediction without the gradient that guidance adds."""
        return self

    def with_x0(self, x0: Tensor) -> Prediction:
        """The prediction with another x0; all other views follow from the new x0."""
        return self._with("x0", x0)

    def with_value(self, value: Tensor) -> Prediction:
        """The prediction with another value of the native quantity."""
        return self._with(self.native, value)

    def _with(self, native: Native, value: Tensor) -> Prediction:
        return Prediction(
            self.process, self.x_t, self.t, native, value, self.fraction, self.log_variance
        )


class Truth(Prediction):
    """The true prediction: the x0 and eps that x_t was made of, without a division by alpha or sigma."""

    def __init__(self, process: Process, x_t: Tensor, t: Tensor, x0: Tensor, eps: Tensor) -> None:
        super().__init__(process, x_t, t, "eps", eps)
        self.x0 = x0

    def signal(self, factor: Tensor) -> Tensor:
        return self.process.basis.scale(factor, self.process.centred(self.x0))
