r"""Prediction: what a denoiser says about x_t, in whichever of its forms is asked for.

With x_t = alpha x0 + sigma eps, one native quantity determines the others:

    eps      = (x_t - alpha x0)/sigma               score    = -eps/sigma
    velocity = alpha eps - sigma x0                  (Salimans & Ho 2022, https://arxiv.org/abs/2202.00512, appendix D)
    x0       = (alpha x_t - sigma v)/(alpha^2 + sigma^2),   eps = (sigma x_t + alpha v)/(alpha^2 + sigma^2)

alpha acts in the process's basis.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from torch import Tensor

from diffbench.diffusion.processes.gaussian import GaussianProcess, cast

Native = Literal["eps", "x0", "v", "score"]


class Prediction:
    """``value`` is the ``native`` quantity at (x_t, t); every view has x_t's shape."""

    def __init__(
        self, process: GaussianProcess, x_t: Tensor, t: Tensor, native: Native, value: Tensor
    ) -> None:
        self.process, self.x_t, self.t = process, x_t, t
        self.native, self.value = native, value
        self.alpha, self.sigma = cast(process.alpha(t), x_t), cast(process.sigma(t), x_t)

    @cached_property
    def eps(self) -> Tensor:
        """The noise in x_t."""
        scale = self.process.basis.scale
        match self.native:
            case "eps":
                return self.value
            case "score":
                return -self.sigma * self.value
            case "v":
                total = self.alpha**2 + self.sigma**2
                return scale(1 / total, self.sigma * self.x_t + scale(self.alpha, self.value))
        return (self.x_t - scale(self.alpha, self.value)) / self.sigma

    @cached_property
    def x0(self) -> Tensor:
        """The posterior mean E[x_0 | x_t]."""
        scale = self.process.basis.scale
        match self.native:
            case "x0":
                return self.value
            case "v":
                total = self.alpha**2 + self.sigma**2
                return scale(1 / total, scale(self.alpha, self.x_t) - self.sigma * self.value)
        return scale(1 / self.alpha, self.x_t - self.sigma * self.eps)

    @property
    def score(self) -> Tensor:
        """The gradient of log p_t at x_t."""
        return self.value if self.native == "score" else -self.eps / self.sigma

    @property
    def velocity(self) -> Tensor:
        """Alpha eps - sigma x0."""
        return (
            self.value
            if self.native == "v"
            else self.process.basis.scale(self.alpha, self.eps) - self.sigma * self.x0
        )

    def view(self, name: Native) -> Tensor:
        """The view of that name."""
        match name:
            case "x0":
                return self.x0
            case "v":
                return self.velocity
            case "score":
                return self.score
        return self.eps

    def with_x0(self, x0: Tensor) -> Prediction:
        """The prediction with another x0, from which eps and the others follow."""
        return Prediction(self.process, self.x_t, self.t, "x0", x0)


class Truth(Prediction):
    """What x_t was made of: x0 and eps as they are, with nothing divided by alpha or sigma."""

    def __init__(
        self, process: GaussianProcess, x_t: Tensor, t: Tensor, x0: Tensor, eps: Tensor
    ) -> None:
        super().__init__(process, x_t, t, "eps", eps)
        self.x0 = x0
