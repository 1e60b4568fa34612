r"""Reflected diffusion: Brownian motion between the walls of the cube [low, high]^D, by default [0, 1]^D.

    dx = g dw + dL,   sigma(t) = smin (smax/smin)^t,   x_t = fold(x_0 + sigma z),   prior U[low, high]^D

With w the width of the cube, y = (x - low)/w lies in [0, 1], where ``reflection`` has the kernel, of width sigma/w.  L
acts only at the walls, where it pushes back (Lou & Ermon 2023, "Reflected Diffusion Models",
https://arxiv.org/abs/2304.04740, sections 3-4).  The part of the score that is normal to a wall vanishes there, so that
nothing flows out.  The reverse SDE is reflected too; the probability-flow ODE needs no reflection (section 5).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffbench.diffusion.core.process import cast
from diffbench.diffusion.processes.continuous import Geometric
from diffbench.diffusion.processes.reflection import fold, scaled_score
from diffbench.specs.processes import ReflectedSpec


class Reflected(Geometric):
    """Reflected Brownian motion with geometric noise, t in [0, 1]."""

    def __init__(self, spec: ReflectedSpec) -> None:
        super().__init__(spec)
        self.low, self.high, self.width = spec.low, spec.high, spec.high - spec.low
        # The noise sqrt(2 eps) is as wide as the cube; near the prior the score goes to 0 and sets no limit.
        self.longest_langevin = self.width**2 / 2

    def to_cube(self, x: Tensor) -> Tensor:
        """The cube coordinates y = (x - low)/w, in [0, 1] between the walls."""
        return (x if self.low == 0 else x - self.low) / self.width

    def from_cube(self, y: Tensor) -> Tensor:
        """The state x = low + w y of cube coordinates y."""
        x = self.width * y
        return x if self.low == 0 else x + self.low

    def sigma_in_cube(self, t: Tensor) -> Tensor:
        """Noise scale in cube coordinates, sigma/w, of t's shape."""
        return self.sigma(t) / self.width

    def constrain(self, x: Tensor) -> Tensor:
        """The state x reflected at the walls."""
        return self.from_cube(fold(self.to_cube(x)))

    def project(self, x: Tensor) -> Tensor:
        """The state x clipped to the cube."""
        return x.clamp(self.low, self.high)

    def check(self, x0: Tensor) -> None:
        """Refuse data outside the cube.

        Raises:
            ValueError: when x0 has values outside; the message names the range.
        """
        low, high = x0.aminmax()
        if float(low) < self.low or float(high) > self.high:
            raise ValueError(
                f"images for {self.spec.name} must lie in {self.spec.range}, not in [{float(low):.4g}, "
                f"{float(high):.4g}]"
            )

    def diffuse(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """A draw of x_t: x0 + sigma_t eps, reflected at the walls; all of shape (B, C, H, W).

        Raises:
            ValueError: when x0 has values outside the cube.
        """
        self.check(x0)
        return self.constrain(x0 + cast(self.sigma(t), x0) * eps)

    def noise_in(self, x_t: Tensor, t: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """The noise target, -sigma_t times the kernel's score; far from the walls it is eps itself."""
        return -scaled_score(self.to_cube(x_t), self.to_cube(x0), cast(self.sigma_in_cube(t), x_t))

    def prior_sample(self, z: Tensor) -> Tensor:
        """A draw of the uniform prior, low + w Phi(z), with Phi the normal distribution function."""
        return self.from_cube(torch.special.ndtr(z))

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """Log density of the prior, in nats: -D ln w in the cube and -inf outside; (B, C, H, W) -> (B,).

        The official code has 0 everywhere, in a cube of width 1.
        """
        inside = x.new_full((len(x),), -x[0].numel() * math.log(self.width))
        return inside.masked_fill(self.outside(x).flatten(1).any(1), -torch.inf)
