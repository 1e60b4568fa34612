r"""The exact likelihood of the probability-flow ODE (Song et al. 2021, https://arxiv.org/abs/2011.13456, D.2).

Along dx/dt = F(x, t) = f (x - m) - g^2/2 score(x, t) from an image at time ``last`` to t_max,

    log p(x) = log prior(x(t_max)) + int tr dF/dx dt,

integrated as u = (x - m)/l (``core.process``): an affine map leaves the trace as it is.
The trace of J = dF/dx is exact, by one backward pass a coordinate, or Hutchinson's estimate, the mean of e . J^T e
over probes e with E[e e^T] = 1 that stay the same all along the path (Grathwohl et al. 2019,
https://arxiv.org/abs/1810.01367).  f is probed with the score although its trace is known: near the prior they
cancel in J, and alone either has more noise than both.  Drift and trace share one forward pass; a step that is
refused, and a stage that the integral does not use, cost no backward pass (``integrators``).

The prior may be 0 somewhere: outside the cube of a reflected process.  The map from x to the latent is one to one,
so that exp(log p) integrates to the prior's mass on the latents of all x, at most 1.  Were the prior's density in the
cube taken for that outside too, it would integrate to the volume of all latents, which may be anything where the score
does not vanish at the walls.  An image whose latent lies outside has log p = -inf, and is counted.

Levels are dequantised uniformly, so that by Jensen's inequality the bits are an upper bound on the levels' own;
bits/dim = -(log p/D + log|dx/dk|)/ln 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.described import Described
from diffbench.diffusion.core.integrators import METHODS, Adaptive, Field, Rate, State, fixed
from diffbench.diffusion.core.process import at
from diffbench.diffusion.core.streams import normal_like
from diffbench.diffusion.denoisers.boundary import confined
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.likelihoods.cells import Cells
from diffbench.diffusion.solvers.ode import flow
from diffbench.specs.likelihoods import ODELikelihoodSpec


def rademacher_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """-1 or 1, evenly, of x's shape, dtype and device; drawn on the CPU."""
    bits = torch.randint(2, x.shape, generator=generator)
    return (2 * bits - 1).to(x)


PROBES = {"rademacher": rademacher_like, "gaussian": normal_like}


class ODELikelihood(Described):
    """The likelihood of one denoiser, of grey levels in ``cells``.

    Attributes:
        backward: how many backward passes were made.
    """

    def __init__(self, spec: ODELikelihoodSpec, denoiser: Denoiser, cells: Cells) -> None:
        self.spec, self.denoiser, self.cells = spec, confined(denoiser, spec), cells
        self.process = denoiser.process
        self.last = spec.first_time(self.process.spec)
        self.backward = 0

    def probes(self, x: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Those of one path; none for the exact trace."""
        if self.spec.trace == "exact":
            return []
        draw = PROBES[self.spec.probe]
        return [draw(x, generator) for _ in range(self.spec.probes)]

    def rates(self, condition: Condition, probes: list[Tensor]) -> Field:
        """F of u, from one forward pass, and its trace (B,), from backward passes on the same one."""

        def rate(t: Tensor, u: Tensor) -> Rate:
            with torch.enable_grad():
                u = u.detach().requires_grad_()
                drift = flow(self.denoiser, t, u, condition)
            return Rate(drift.detach(), lambda: self.trace(drift, u, probes))

        return rate

    def trace(self, drift: Tensor, x: Tensor, probes: list[Tensor]) -> Tensor:
        """The trace (B,) of d drift/dx."""
        vectors = probes or list(unit_vectors(x))
        total = torch.zeros(len(x)).to(x)
        for i, e in enumerate(vectors, start=1):
            (product,) = torch.autograd.grad(drift, x, e, retain_graph=i < len(vectors))
            total = total + (product * e).flatten(1).sum(1)
            self.backward += 1
        return total / max(len(probes), 1)

    def integrated(self, rates: Field, start: State) -> State:
        """The state at t_max."""
        spec = self.spec
        if spec.method == "adaptive":
            return Adaptive(*spec.tolerances).integrate(rates, start, at(self.process.t_max))
        assert spec.steps is not None
        times = grids.descending(self.process, spec.grid, spec.steps + 1, self.last, spec.rho)
        return fixed(METHODS[spec.method], rates, start, times.flip(0))

    def latent(
        self, x: Tensor, generator: torch.Generator, condition: Condition = UNCONDITIONAL
    ) -> tuple[Tensor, Tensor]:
        """The latent of x (B, C, H, W) at time ``last``, of its shape, and the map's log determinant, in nats (B,).

        Raises:
            ValueError: for x that are not where the process lives; when the state is not finite, with the time,
                or the tolerances cannot be met.
        """
        self.process.check(x)
        rates = self.rates(condition, self.probes(x, generator))
        start = State(at(self.last), self.process.to_units(x), torch.zeros(len(x)).to(x))
        end = self.integrated(rates, start)
        assert end.integral is not None
        return self.process.from_units(end.x), end.integral

    def log_prob(
        self, x: Tensor, generator: torch.Generator, condition: Condition = UNCONDITIONAL
    ) -> tuple[Tensor, Tensor]:
        """Log density of x (B, C, H, W) at time ``last``, in nats (B,), and the latent (B, C, H, W); as ``latent``."""
        z, log_det = self.latent(x, generator, condition)
        return self.process.prior_log_prob(z) + log_det, z

    @torch.no_grad()
    def __call__(
        self, x0: Tensor, generator: torch.Generator, condition: Condition = UNCONDITIONAL
    ) -> dict[str, Tensor]:
        """The bits of images x0 (B, C, H, W), on their levels, under a condition.

        Returns:
            total (B,): bits/dim, the mean over ``passes`` draws of dequantisation noise and probes; infinite where the
            latent of one lies outside the prior's support.  outside (B,): the share of such pixels.  unbounded (B,):
            total, with the prior's density at the nearest point of its support for that outside.
        """
        passes = [self.once(x0, generator, condition) for _ in range(self.spec.passes)]
        return {name: torch.stack([each[name] for each in passes]).mean(0) for name in passes[0]}

    def once(
        self, x0: Tensor, generator: torch.Generator, condition: Condition = UNCONDITIONAL
    ) -> dict[str, Tensor]:
        """The same of one draw."""
        uniform = torch.rand(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        z, log_det = self.latent(self.cells.dequantise(x0, uniform), generator, condition)
        prior = self.process.prior_log_prob
        return {
            "total": self.bits(prior(z) + log_det, x0),
            "outside": self.process.outside(z).flatten(1).to(x0.dtype).mean(1),
            "unbounded": self.bits(prior(self.process.project(z)) + log_det, x0),
        }

    def bits(self, log_prob: Tensor, x0: Tensor) -> Tensor:
        """Bits/dim of grey levels from the log density (B,) of dequantised images."""
        return (-log_prob / x0[0].numel() - self.cells.log_jacobian) / math.log(2)


def unit_vectors(x: Tensor) -> Iterator[Tensor]:
    """One of x's shape for each coordinate of an image."""
    for row in torch.eye(x[0].numel()).to(x):
        yield row.reshape(x.shape[1:]).expand(x.shape)
