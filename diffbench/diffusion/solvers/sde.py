r"""Solvers of the reverse SDE (Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 6) and of its family.

    dx = [f x - (g^2 + gbar^2)/2 score(x, t)] dt + gbar dw,     t decreasing,     gbar = noise * g

of x less the middle of the data range, has the same marginals for every noise in [0, 1]: the reverse SDE at 1, the
probability-flow ODE at 0.  A forward step x_t = a x_s + G z is reversed by

    x_s = x_t - (a - 1) x_t + (1 + noise^2)/2 G^2 score(x_t, t) + noise G z.

Euler-Maruyama takes a = 1 + f h, G^2 = g^2 h; reverse diffusion the process's own chain (appendix E).
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise

from torch import Tensor

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.process import at, cast
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.diffusion.solvers.loop import Solver
from diffbench.specs.solvers import ReverseSDESpec, TimeSolverSpec, TimeSpec


class TimeSolver(Solver):
    """A solver in the process's own continuous time, from the prior, with ``denoise`` at the end."""

    spec: TimeSpec

    def __init__(
        self, spec: TimeSpec, denoiser: Denoiser, classifier: Classifier | None = None
    ) -> None:
        super().__init__(spec, denoiser, classifier)
        self.ending = spec.ending(self.process.spec)
        self.quiet_end = self.ending == "noiseless"

    def noisy_times(self) -> Tensor:
        """The grid's times with noise."""
        last = self.process.spec.last if self.spec.last is None else self.spec.last
        return at([self.process.t_max, last])

    def times(self) -> Tensor:
        """They, and the data's where the last step goes there."""
        times = self.noisy_times()
        return grids.to_data(self.process, times) if self.ending == "tweedie" else times

    def start(self, z: Tensor) -> Tensor:
        """A draw of the prior."""
        return self.process.prior_sample(z)

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """The posterior mean into the data, ``advance`` elsewhere."""
        if float(s) == self.process.data_time:
            return self.denoiser(x_t, t, condition).x0
        return self.confine(self.advance(x_t, t, s, condition, noise))

    def confine(self, x: Tensor) -> Tensor:
        """Bring a step's result back to where the process lives."""
        return self.process.constrain(x)

    @abstractmethod
    def advance(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise
    ) -> Tensor:
        """One step between two times at which the process has noise."""


class GridTimeSolver(TimeSolver):
    """One on a grid of ``steps`` steps."""

    spec: TimeSolverSpec

    def noisy_times(self) -> Tensor:
        """``steps`` steps from t_max to ``last``, one of which may be to the data."""
        spec = self.spec
        count = spec.steps + (self.ending != "tweedie")
        return grids.descending(self.process, spec.grid, count, spec.last, spec.rho)


class ReverseSDE(GridTimeSolver):
    """Base: the reversal of a forward step."""

    spec: ReverseSDESpec

    @abstractmethod
    def forward(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(a, G^2) of the forward step from s to t."""

    def confine(self, x: Tensor) -> Tensor:
        """By reflection or projection."""
        return self.process.project(x) if self.spec.walls == "project" else super().confine(x)

    def advance(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise
    ) -> Tensor:
        """See the module."""
        (a, G2), scale, gbar = self.forward(t, s), self.process.basis.scale, self.spec.noise
        score = self.denoiser(x_t, t, condition).score
        shrunk = scale(cast(a - 1, x_t), self.process.centred(x_t))
        mean = x_t - shrunk + scale(cast((1 + gbar**2) / 2 * G2, x_t), score)
        return mean + scale(cast(gbar * G2.sqrt(), x_t), noise(x_t)) if gbar > 0 else mean


class EulerMaruyama(ReverseSDE):
    """x_s = x_t - [f x_t - (1 + noise^2)/2 g^2 score] h + noise g sqrt(h) z,  h = t - s."""

    def forward(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Euler's."""
        return self.process.euler_step(t, s)


class ReverseDiffusion(ReverseSDE):
    """The reversal of the process's own chain."""

    def __init__(
        self, spec: ReverseSDESpec, denoiser: Denoiser, classifier: Classifier | None = None
    ) -> None:
        super().__init__(spec, denoiser, classifier)
        # A step too long for the chain raises here, before any network call.
        for t, s in pairwise(self.noisy_times()):
            self.forward(t, s)

    def forward(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The chain's."""
        return self.process.chain_step(t, s)


class CorrectorOnly(GridTimeSolver):
    """No predictor: x stays as it is from one level to the next, and the corrector moves it."""

    def advance(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise
    ) -> Tensor:
        """Nothing."""
        return x_t
