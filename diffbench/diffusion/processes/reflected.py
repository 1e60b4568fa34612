r"""Reflected diffusion: Brownian motion between the walls of the cube [low, high]^D, [0, 1]^D unless moved.

    dx = g dw + dL,   sigma(t) = smin (smax/smin)^t,   x_t = fold(x_0 + sigma z),   prior U[low, high]^D

With w the width of the cube, y = (x - low)/w lies in [0, 1], where ``reflection`` has the kernel, of width sigma/w.  L
pushes back at the walls alone (Lou & Ermon 2023, "Reflected Diffusion Models", https://arxiv.org/abs/2304.04740,
sections 3-4).  The part of the score that is normal
to a wall vanishes there, so that nothing flows out.  The reverse SDE is reflected too; the probability-flow ODE needs
no reflection (section 5).
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
        # Noise sqrt(2 eps) as wide as the cube: near the prior the score, and with it the step's rule, has no scale.
        self.longest_langevin = self.width**2 / 2

    def to_cube(self, x: Tensor) -> Tensor:
        """Y of x: in [0, 1] between the walls."""
        return (x if self.low == 0 else x - self.low) / self.width

    def from_cube(self, y: Tensor) -> Tensor:
        """X of y."""
        x = self.width * y
        return x if self.low == 0 else x + self.low

    def sigma_in_cube(self, t: Tensor) -> Tensor:
        """sigma/w, of t's shape."""
        return self.sigma(t) / self.width

    def constrain(self, x: Tensor) -> Tensor:
        """Reflect."""
        return self.from_cube(fold(self.to_cube(x)))

    def project(self, x: Tensor) -> Tensor:
        """Clip."""
        return x.clamp(self.low, self.high)

    def check(self, x0: Tensor) -> None:
        """Refuse what is outside the cube.

        Raises:
            ValueError: naming the range.
        """
        low, high = x0.aminmax()
        if float(low) < self.low or float(high) > self.high:
            raise ValueError(
                f"images for {self.spec.name} lie in {self.spec.range}, not in [{float(low):.4g}, {float(high):.4g}]"
            )

    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw of x_t, all of shape (B, C, H, W).

        Raises:
            ValueError: for x0 outside the cube.
        """
        self.check(x0)
        return self.constrain(x0 + cast(self.sigma(t), x0) * noise)

    def noise_in(self, x_t: Tensor, t: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
        """-sigma_t times the kernel's score: where no wall is near, the noise itself."""
        return -scaled_score(self.to_cube(x_t), self.to_cube(x0), cast(self.sigma_in_cube(t), x_t))

    def prior_sample(self, z: Tensor) -> Tensor:
        """Uniform: the normal distribution function of z."""
        return self.from_cube(torch.special.ndtr(z))

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """-D ln w in the cube and -inf outside: (B, C, H, W) -> (B,).

        The official code has 0 everywhere, in a cube of width 1.
        """
        inside = x.new_full((len(x),), -x[0].numel() * math.log(self.width))
        return inside.masked_fill(self.outside(x).flatten(1).any(1), -torch.inf)
