r"""Solvers of the reverse SDE (Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 6) and of its family.

    dx = [f x - (g^2 + gbar^2)/2 score(x, t)] dt + gbar dw,     t decreasing,     gbar = noise * g

where x is minus the middle of the data range.  The marginals are the same for every noise in [0, 1]: 1 is the reverse
SDE, 0 the probability-flow ODE.  A forward step x_t = a x_s + G z is reversed by

    x_s = x_t - (a - 1) x_t + (1 + noise^2)/2 G^2 score(x_t, t) + noise G z.

Euler-Maruyama uses a = 1 + f h and G^2 = g^2 h; reverse diffusion uses the process's own chain (appendix E).
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise

from torch import Tensor

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.process import cast, float64
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.diffusion.solvers.loop import Solver
from diffbench.specs.solvers import OwnTimeGridSolverSpec, OwnTimeSolverSpec, ReverseSDESpec


class OwnTimeSolver(Solver):
    """Base: a solver in the process's own continuous time, from the prior, that ends as ``denoise`` says."""

    spec: OwnTimeSolverSpec

    def __init__(
        self, spec: OwnTimeSolverSpec, denoiser: Denoiser, classifier: Classifier | None = None
    ) -> None:
        super().__init__(spec, denoiser, classifier)
        self.ending = spec.ending(self.process.spec)
        self.quiet_end = self.ending == "noiseless"

    def noisy_times(self) -> Tensor:
        """The grid's times at which the process has noise, decreasing."""
        last = self.process.spec.last if self.spec.last is None else self.spec.last
        return float64([self.process.t_max, last])

    def times(self) -> Tensor:
        """The noisy times, then the data's where the last step goes to the data."""
        times = self.noisy_times()
        return grids.to_data(self.process, times) if self.ending == "tweedie" else times

    def start(self, z: Tensor) -> Tensor:
        """A draw from the prior, made of standard normal z."""
        return self.process.prior_sample(z)

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """The posterior mean in a step to the data, the result of ``advance`` in any other."""
        if float(s) == self.process.data_time:
            return self.denoiser(x_t, t, condition).x0
        return self.confine(self.advance(x_t, t, s, condition, noise))

    def confine(self, x: Tensor) -> Tensor:
        """A step's result x, brought back into the process's support."""
        return self.process.constrain(x)

    @abstractmethod
    def advance(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise
    ) -> Tensor:
        """The state at s from x_t (B, C, H, W), where the process has noise at both times."""


class OwnTimeGridSolver(OwnTimeSolver):
    """Base: a solver in continuous time on a grid of ``steps`` steps."""

    spec: OwnTimeGridSolverSpec

    def noisy_times(self) -> Tensor:
        """The times from t_max to ``last``; ``steps`` counts the step to the data, if there is one."""
        spec, count = self.spec, self.spec.noisy_count(self.process.spec)
        return grids.descending(self.process, spec.grid, count, spec.last, spec.rho)


class ReverseSDE(OwnTimeGridSolver):
    """Base: the reversal of a forward step."""

    spec: ReverseSDESpec

    @abstractmethod
    def forward(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients (a, G^2) of the forward step from s to t."""

    def confine(self, x: Tensor) -> Tensor:
        """A step's result x, projected onto the support if ``walls`` is ``project``, else by the process's own rule."""
        return self.process.project(x) if self.spec.walls == "project" else super().confine(x)

    def advance(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise
    ) -> Tensor:
        """The state x_t - (a - 1) x_t + (1 + noise^2)/2 G^2 score(x_t, t) + noise G z at s."""
        (a, G2), scale, gbar = self.forward(t, s), self.process.basis.scale, self.spec.noise
        score = self.denoiser(x_t, t, condition).score
        shrunk = scale(cast(a - 1, x_t), self.process.centred(x_t))
        mean = x_t - shrunk + scale(cast((1 + gbar**2) / 2 * G2, x_t), score)
        return mean + scale(cast(gbar * G2.sqrt(), x_t), noise(x_t)) if gbar > 0 else mean


class EulerMaruyama(ReverseSDE):
    """The solver x_s = x_t - [f x_t - (1 + noise^2)/2 g^2 score] h + noise g sqrt(h) z,  h = t - s."""

    def forward(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
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
        return self.process.chain_step(t, s)


class CorrectorOnly(OwnTimeGridSolver):
    """A solver without a predictor: only the corrector changes the state."""

    def advance(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise
    ) -> Tensor:
        """The state x_t itself."""
        return x_t
