r"""Reflected diffusion: Brownian motion between the walls of the cube [0, 1]^D.

    dx = g dw + dL,   sigma(t) = smin (smax/smin)^t,   x_t = fold(x_0 + sigma z),   prior U[0, 1]^D

L pushes back at the walls alone (Lou & Ermon 2023, "Reflected Diffusion Models", https://arxiv.org/abs/2304.04740,
sections 3-4).  The density of x_t given x_0 and its score are in ``reflection``; the part of the score that is normal
to a wall vanishes there, so that nothing flows out.  The reverse SDE is reflected too; the probability-flow ODE needs
no reflection (section 5).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffbench.diffusion.processes.base import cast
from diffbench.diffusion.processes.continuous import Geometric
from diffbench.diffusion.reflection import fold, scaled_score


class Reflected(Geometric):
    """Reflected Brownian motion with geometric noise, t in [0, 1]."""

    #: Noise sqrt(2 eps) as wide as the cube: near the prior the score, and with it the step's rule, has no scale.
    longest_langevin = 0.5

    def constrain(self, x: Tensor) -> Tensor:
        """Reflect."""
        return fold(x)

    def project(self, x: Tensor) -> Tensor:
        """Clip."""
        return x.clamp(0, 1)

    def check(self, x0: Tensor) -> None:
        """Refuse what is outside the cube.

        Raises:
            ValueError: naming the range.
        """
        low, high = x0.aminmax()
        if float(low) < 0 or float(high) > 1:
            raise ValueError(
                f"images for {self.spec.name} lie in [0, 1], not in [{float(low):.4g}, {float(high):.4g}]"
            )

    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw of x_t, all of shape (B, C, H, W).

        Raises:
            ValueError: for x0 outside the cube.
        """
        self.check(x0)
        return fold(x0 + cast(self.sigma(t), x0) * noise)

    def noise_in(self, x_t: Tensor, t: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
        """-sigma_t times the kernel's score: where no wall is near, the noise itself."""
        return -scaled_score(x_t, x0, cast(self.sigma(t), x_t))

    def prior_sample(self, z: Tensor) -> Tensor:
        """Uniform: the normal distribution function of z."""
        return torch.special.ndtr(z)

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """0 in the cube and -inf outside: (B, C, H, W) -> (B,).

        The official code has 0 everywhere.
        """
        outside = self.outside(x).flatten(1).any(1)
        return torch.zeros(len(x)).to(x).masked_fill(outside, -torch.inf)
