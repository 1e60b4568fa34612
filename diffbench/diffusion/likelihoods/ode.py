r"""The exact likelihood of the probability-flow ODE (Song et al. 2021, https://arxiv.org/abs/2011.13456, D.2).

Along dx/dt = F(x, t) = f (x - m) - g^2/2 score(x, t) from an image at time ``last`` to t_max,

    log p(x) = log prior(x(t_max)) + int tr dF/dx dt,

integrated in u = (x - m)/l (``core.process``), an affine map that does not change the trace.

The trace of J = dF/dx is exact, by one backward pass per coordinate, or Hutchinson's estimate: the mean of e . J^T e
over probes e with E[e e^T] = 1, which stay the same along the whole path (Grathwohl et al. 2019,
https://arxiv.org/abs/1810.01367).  f and the score are probed together although the trace of f is known: near the
prior they cancel in J, and each alone has more noise than both.  Drift and trace share one forward pass.  A refused
step, and a stage that the integral does not use, cost no backward pass (``integrators``).

Outside the cube of a reflected process the prior is 0.  The map from x to the latent is one to one, so exp(log p)
integrates to the prior's mass on the latents of all x, at most 1.  If the prior's density in the cube were also used
outside, exp(log p) would integrate to the volume of all latents, which may have any value where the score does not
vanish at the walls.  An image whose latent lies outside has log p = -inf, and is counted.

Levels are dequantised uniformly, so by Jensen's inequality the bits are an upper bound on those of the levels;
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
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.core.streams import normal_like
from diffbench.diffusion.denoisers.boundary import confined
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.likelihoods.grey_cells import GreyCells
from diffbench.diffusion.solvers.ode import flow
from diffbench.specs.likelihoods import ODELikelihoodSpec


def rademacher_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers -1 or 1, equally likely, of x's shape, dtype and device; drawn on the CPU."""
    bits = torch.randint(2, x.shape, generator=generator)
    return (2 * bits - 1).to(x)


PROBES = {"rademacher": rademacher_like, "gaussian": normal_like}


class ODELikelihood(Described):
    """The likelihood of grey levels in ``cells`` under one denoiser.

    Attributes:
        backward: the number of backward passes made so far.
    """

    def __init__(self, spec: ODELikelihoodSpec, denoiser: Denoiser, cells: GreyCells) -> None:
        self.spec, self.denoiser, self.cells = spec, confined(denoiser, spec), cells
        self.process = denoiser.process
        self.first_time = spec.first_time(self.process.spec)
        self.backward = 0

    def probes(self, x: Tensor, generator: torch.Generator) -> list[Tensor]:
        """The probes of one path, each of x's shape; none for the exact trace."""
        if self.spec.trace == "exact":
            return []
        draw = PROBES[self.spec.probe]
        return [draw(x, generator) for _ in range(self.spec.probes)]

    def rates(self, condition: Condition, probes: list[Tensor]) -> Field:
        """The field of u: its drift F from one forward pass, and the trace (B,) from backward passes through it."""

        def rate(t: Tensor, u: Tensor) -> Rate:
            with torch.enable_grad():
                u = u.detach().requires_grad_()
                drift = flow(self.denoiser, t, u, condition)
            return Rate(drift.detach(), lambda: self.trace(drift, u, probes))

        return rate

    def trace(self, drift: Tensor, x: Tensor, probes: list[Tensor]) -> Tensor:
        """The trace (B,) of d drift/dx: exact without probes, otherwise Hutchinson's estimate."""
        vectors = probes or list(unit_vectors(x))
        total = torch.zeros(len(x)).to(x)
        for i, e in enumerate(vectors, start=1):
            (product,) = torch.autograd.grad(drift, x, e, retain_graph=i < len(vectors))
            total = total + (product * e).flatten(1).sum(1)
            self.backward += 1
        return total / max(len(probes), 1)

    def integrated(self, rates: Field, start: State) -> State:
        """The state at t_max, from the start."""
        spec = self.spec
        if spec.method == "adaptive":
            return Adaptive(*spec.tolerances).integrate(rates, start, float64(self.process.t_max))
        assert spec.steps is not None
        times = grids.descending(self.process, spec.grid, spec.steps + 1, self.first_time, spec.rho)
        return fixed(METHODS[spec.method], rates, start, times.flip(0))

    def latent(
        self, x: Tensor, generator: torch.Generator, condition: Condition = UNCONDITIONAL
    ) -> tuple[Tensor, Tensor]:
        """The latent (B, C, H, W) of images x at time ``last``, and the map's log determinant (B,) in nats.

        Raises:
            ValueError: when x is outside the process's support; when the state is not finite, with the time;
                when the tolerances cannot be met.
        """
        self.process.check(x)
        rates = self.rates(condition, self.probes(x, generator))
        start = State(float64(self.first_time), self.process.to_units(x), torch.zeros(len(x)).to(x))
        end = self.integrated(rates, start)
        assert end.integral is not None
        return self.process.from_units(end.x), end.integral

    def log_prob(
        self, x: Tensor, generator: torch.Generator, condition: Condition = UNCONDITIONAL
    ) -> tuple[Tensor, Tensor]:
        """The log density (B,) in nats of x (B, C, H, W) at time ``last``, and the latent; raises as ``latent``."""
        z, log_det = self.latent(x, generator, condition)
        return self.process.prior_log_prob(z) + log_det, z

    @torch.no_grad()
    def __call__(
        self, x0: Tensor, generator: torch.Generator, condition: Condition = UNCONDITIONAL
    ) -> dict[str, Tensor]:
        """The bits/dim of images x0 (B, C, H, W), whose pixels are grey levels, under a condition.

        Returns:
            total (B,): bits/dim, the mean over ``passes`` draws of dequantisation noise and probes; infinite where the
            latent of a draw lies outside the prior's support.  outside (B,): the share of such pixels.  unbounded (B,):
            as total, but a latent outside the support has the prior's density at the nearest point of the support.
        """
        passes = [self.once(x0, generator, condition) for _ in range(self.spec.passes)]
        return {name: torch.stack([each[name] for each in passes]).mean(0) for name in passes[0]}

    def once(
        self, x0: Tensor, generator: torch.Generator, condition: Condition = UNCONDITIONAL
    ) -> dict[str, Tensor]:
        """The numbers of ``__call__`` for one draw of dequantisation noise and probes."""
        uniform = torch.rand(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        z, log_det = self.latent(self.cells.dequantise(x0, uniform), generator, condition)
        prior = self.process.prior_log_prob
        return {
            "total": self.bits(prior(z) + log_det, x0),
            "outside": self.process.outside(z).flatten(1).to(x0.dtype).mean(1),
            "unbounded": self.bits(prior(self.process.project(z)) + log_det, x0),
        }

    def bits(self, log_prob: Tensor, x0: Tensor) -> Tensor:
        """The bits/dim (B,) of grey levels x0, from the log density (B,) of the dequantised images."""
        return (-log_prob / x0[0].numel() - self.cells.log_jacobian) / math.log(2)


def unit_vectors(x: Tensor) -> Iterator[Tensor]:
    """The unit vectors of an image's coordinates, each repeated over the batch to x's shape."""
    for row in torch.eye(x[0].numel()).to(x):
        yield row.reshape(x.shape[1:]).expand(x.shape)
