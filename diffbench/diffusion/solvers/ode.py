r"""Solvers of the probability-flow ODE.

In the process's own time the ODE is (Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 13)

    dx/dt = f (x - m) - g^2/2 score(x, t).

It is integrated in u = (x - m)/l, where m is the middle and l the unit of ``core.process``.  If alpha is one scalar,
xbar = (x - m)/alpha and s = sigma/alpha turn every process into the same equation,

    dxbar/ds = eps(x, t) = (xbar - (x0 - m))/s.

Euler's method on it is DDIM, and Heun's is algorithm 1 of EDM (Karras et al. 2022, https://arxiv.org/abs/2206.00364).
Algorithm 2 adds noise, "churn", before each step.  Algorithm 3 evaluates the denoiser again after a share a of the
step h:

    xbar <- xbar + h [(1 - 1/(2a)) eps + 1/(2a) eps'],     eps' at xbar + a h eps.

A step to s = 0 is Euler's, since eps is not defined there; it returns x0.  If x0 is constant over a step, the solution
is xbar <- (s'/s) xbar + (1 - s'/s) (x0 - m).  DPM-Solver++(2M) uses this with the x0 in the middle of the step,
extrapolated in ln s from the last two (Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2).
"""

from __future__ import annotations

import math

from torch import Tensor

from diffbench.diffusion.core import grids
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.integrators import (
    METHODS,
    Adaptive,
    Field,
    Rate,
    State,
    advance,
    second_order,
)
from diffbench.diffusion.core.path import tabled
from diffbench.diffusion.core.process import Process, cast, float64, is_one, number
from diffbench.diffusion.denoisers.boundary import Bumped, confined
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.diffusion.solvers.loop import Solver
from diffbench.diffusion.solvers.sde import OwnTimeGridSolver, OwnTimeSolver
from diffbench.specs.solvers import (
    AdaptiveODESpec,
    DPMSolverSpec,
    HeunSpec,
    ODESpec,
    RatioSolverSpec,
)


def flow(denoiser: Denoiser, t: Tensor, u: Tensor, condition: Condition) -> Tensor:
    """The rate du/dt of the probability-flow ODE at states u (B, C, H, W); tolerances are in the units of u."""
    process = denoiser.process
    x = process.from_units(u)
    pull = process.basis.scale(cast(process.g2(t) / 2, x), denoiser(x, t, condition).score)
    rate = process.drift(t, x) - pull
    return rate if process.unit == 1 else rate / process.unit


def flow_rates(denoiser: Denoiser, condition: Condition) -> Field:
    """The field (t, u) -> ``flow`` under the condition."""
    return lambda t, u: Rate(flow(denoiser, t, u, condition))


@tabled
def ratio_step(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """The step from t to s in sigma/alpha."""
    return process.ratio(s) - process.ratio(t)


@tabled
def log_step(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """The length of the step from t to s in ln(sigma/alpha)."""
    return process.ratio(t).log() - process.ratio(s).log()


@tabled
def shares(process: Process, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of x_t and of x0, sigma_s/sigma_t and alpha_s - alpha_t sigma_s/sigma_t, where x0 is constant."""
    kept = process.sigma(s) / process.sigma(t)
    return kept, process.alpha(s) - process.alpha(t) * kept


class Unconfined(OwnTimeSolver):
    """Base: an ODE solver without projection between steps; only its last state is brought back into the support.

    The exact flow of a reflected process stays between the walls.  The flow of a plain network does so with a bump
    or a gate; with a bump the start is moved off the walls.
    """

    spec: ODESpec | AdaptiveODESpec

    def __init__(
        self,
        spec: ODESpec | AdaptiveODESpec,
        denoiser: Denoiser,
        classifier: Classifier | None = None,
    ) -> None:
        super().__init__(spec, denoiser, classifier)
        self.denoiser = confined(self.denoiser, spec)

    def start(self, z: Tensor) -> Tensor:
        """A draw from the prior; with a bump it is moved off the walls."""
        x, middle = super().start(z), self.process.middle
        return x if self.spec.bump is None else middle + (1 - 2 * Bumped.MARGIN) * (x - middle)

    def confine(self, x: Tensor) -> Tensor:
        """The state x itself: no projection between steps."""
        return x


class ProbabilityFlow(Unconfined, OwnTimeGridSolver):
    """The ODE solved by a method with fixed steps in the process's own time."""

    spec: ODESpec

    def __init__(
        self, spec: ODESpec, denoiser: Denoiser, classifier: Classifier | None = None
    ) -> None:
        super().__init__(spec, denoiser, classifier)
        self.method = METHODS[spec.method] if spec.alpha == 1 else second_order(spec.alpha)

    def advance(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise
    ) -> Tensor:
        rates = flow_rates(self.denoiser, condition)
        start = State(t, self.process.to_units(x_t))
        return self.process.from_units(advance(self.method, rates, start, s).x)


class AdaptiveProbabilityFlow(Unconfined):
    """The ODE solved by Dormand and Prince's pair with step size control, in the process's own time."""

    spec: AdaptiveODESpec

    def __init__(
        self, spec: AdaptiveODESpec, denoiser: Denoiser, classifier: Classifier | None = None
    ) -> None:
        super().__init__(spec, denoiser, classifier)
        self.integrator = Adaptive(spec.rtol, spec.atol)

    def advance(
        self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise
    ) -> Tensor:
        """The state at s, by as many inner steps as the tolerances need."""
        start = State(t, self.process.to_units(x_t))
        end = self.integrator.integrate(flow_rates(self.denoiser, condition), start, s)
        return self.process.from_units(end.x)


class RatioSolver(Solver):
    """Base: a solver on a grid from a large noise-to-signal ratio to a small one, then to the data."""

    spec: RatioSolverSpec

    def times(self) -> Tensor:
        """The times of the spec's ratios, decreasing, then the data's time."""
        spec, process = self.spec, self.process
        smallest, largest = (process.spec.in_range(each) for each in spec.sigmas)
        times = grids.by_ratio(process, spec.grid, spec.steps, largest, smallest, spec.rho)
        return grids.to_data(process, times)


class Heun(RatioSolver):
    """EDM's sampler, for every process with a scalar alpha.

    Example:
        >>> import torch
        >>> from diffbench.diffusion import EDM, GaussianDenoiser, sample, stream
        >>> from diffbench.specs.denoisers import GaussianSpec
        >>> data = {"mean": torch.tensor([0.5]), "covariance": torch.tensor([[0.01]])}
        >>> denoiser = GaussianDenoiser(GaussianSpec(), EDM(), data)
        >>> x = sample(Heun(denoiser, steps=18), (1000, 1, 1, 1), stream("example"))
        >>> f"{x.mean():.2f} {x.std():.1f}"
        '0.50 0.1'
    """

    spec: HeunSpec

    def churned(self, t: Tensor) -> Tensor:
        """The time to which churn raises the noise before a step from t; t itself without churn."""
        if self.spec.churn == 0:
            return t
        spec, ratio = self.spec, self.process.ratio(t)
        smallest, largest = (self.process.spec.in_range(each) for each in spec.churned)
        if not smallest <= float(ratio) <= largest:
            return t
        factor = 1 + min(spec.churn / spec.steps, math.sqrt(2) - 1)
        highest = self.process.ratio(float64(self.process.t_max))
        if spec.churn_ceiling is not None:
            highest = float64(self.process.spec.in_range(spec.churn_ceiling)).maximum(ratio)
        return self.process.time_of((factor * ratio).minimum(highest))

    def second(self, t: Tensor, s: Tensor) -> tuple[Tensor, float]:
        """The second evaluation in a step from t to s: its time, and its share of the step in sigma/alpha."""
        if self.spec.alpha == 1:
            return s, 1.0
        process = self.process
        start, end = process.ratio(t), process.ratio(s)
        ends = process.ratio(float64([process.t_min, process.t_max]))
        middle = process.time_of((start + self.spec.alpha * (end - start)).clamp(*ends))
        return middle, float((process.ratio(middle) - start) / (end - start))

    def raised(self, xbar: Tensor, t: Tensor, t_hat: Tensor, noise: Noise) -> Tensor:
        """The state x/alpha with noise added up to the level of the later time t_hat."""
        if t_hat is t:
            return xbar
        added = self.process.ratio(t_hat) ** 2 - self.process.ratio(t) ** 2
        if float(added) <= 0:
            return xbar
        return xbar + cast(self.spec.churn_noise * added.sqrt(), xbar) * noise(xbar)

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """The state at s: churn, then a step of the spec's order in (x/alpha, sigma/alpha), or Euler's to the data."""
        process, t_hat = self.process, self.churned(t)
        x, alpha_t = process.centred(x_t), cast(process.alpha(t), x_t)
        xbar = self.raised(x if is_one(alpha_t) else x / alpha_t, t, t_hat, noise)
        x_hat = process.placed(process.scaled(cast(process.alpha(t_hat), x_t), xbar))
        prediction = self.denoiser(x_hat, t_hat, condition)
        if float(s) == process.data_time:
            return prediction.x0
        alpha_s, eps = cast(process.alpha(s), x_t), prediction.eps
        h = number(ratio_step(process, t_hat, s))
        middle, share = self.second(t_hat, s)
        if self.spec.order == 1 or share == 0:
            return process.placed(process.scaled(alpha_s, xbar.add(eps, alpha=h)))
        ahead = xbar.add(eps, alpha=share * h)
        x = process.placed(process.scaled(cast(process.alpha(middle), x_t), ahead))
        eps_middle = self.denoiser(x, middle, condition).eps
        # Weights 1/2 where the second evaluation is at the step's end.
        last = 1 / (2 * share)
        end = xbar.add(eps, alpha=(1 - last) * h).add_(eps_middle, alpha=last * h)
        return process.placed(process.scaled(alpha_s, end))


class DPMSolver(RatioSolver):
    """DPM-Solver++(2M), for every process with a scalar alpha.

    ``before`` is the time and the x0 of the previous step.
    """

    spec: DPMSolverSpec
    before: tuple[Tensor, Tensor] | None = None

    def begin(self) -> None:
        """Forget the previous step."""
        self.before = None

    def denoised(self, x0: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The x0 in the middle of the step from t to s: x0 + (x0 - x0') h/(2 h').

        h and h' are the lengths of this step and the previous one in ln(sigma/alpha), x0' is the previous x0.
        """
        if self.before is None or float(s) == self.process.data_time:
            return x0
        earlier, x0_before = self.before
        h, h_before = (number(log_step(self.process, *each)) for each in ((t, s), (earlier, t)))
        share = h / (2 * h_before)
        return ((1 + share) * x0).add_(x0_before, alpha=-share)

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """The state at s: (sigma_s/sigma_t) x_t + (alpha_s - alpha_t sigma_s/sigma_t) x0, all minus m."""
        process = self.process
        x0 = self.denoiser(x_t, t, condition).x0
        middle = self.denoised(x0, t, s)
        self.before = t, x0
        kept, new = map(number, shares(process, t, s))
        return process.placed(
            (kept * process.centred(x_t)).add_(process.centred(middle), alpha=new)
        )
