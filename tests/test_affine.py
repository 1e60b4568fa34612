r"""Solvers on Gaussian data, where a step is an affine map and everything is known in closed form.

With data N(m, C) and C = Q diag(lambda) Q^T, the marginal at t is N(alpha m, alpha^2 C + sigma^2
I), whose score in each eigen-coordinate, with mu = Q^T m, is

    S(x, t) = -(x - alpha mu)/(alpha^2 lambda + sigma^2).

So one step of any solver is x_s = A x_t + b + n z per coordinate, and means and covariances
propagate exactly. ``RULES`` writes A, b and n from the papers in terms of S, with none of the
package's own formulas but the processes' alpha and sigma (f and g come from those by automatic
differentiation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import Fractional, close, process_of

from diffbench.diffusion.analytic import GaussianDenoiser
from diffbench.diffusion.denoisers import Denoiser
from diffbench.diffusion.processes.gaussian import GaussianProcess, at
from diffbench.diffusion.solvers.loop import Solver, sample
from diffbench.plan.registry import build
from diffbench.specs.denoiser import GaussianSpec
from diffbench.specs.process import ProcessSpec
from diffbench.specs.solver import SolverSpec

MEAN = at([0.3, -0.2, 0.1])
AXES = torch.linalg.qr(at([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0], [1.0, 0.0, 3.0]]))[0]
VARIANCES = at([0.02, 0.25, 0.6])
COVARIANCE = AXES @ VARIANCES.diag() @ AXES.T
DIM = len(MEAN)
#: By which the learned variances of ``every_pair`` lie between small and large.
FRACTION = 0.3


class Affine(NamedTuple):
    """x -> A x + b + n z per eigen-coordinate."""

    A: Tensor
    b: Tensor
    n: Tensor

    def after(self, first: Affine) -> Affine:
        """The composition: this map of the first one's result; the noises are independent."""
        return Affine(
            self.A * first.A,
            self.A * first.b + self.b,
            ((self.A * first.n) ** 2 + self.n**2).sqrt(),
        )


ZERO = torch.zeros(DIM, dtype=torch.float64)
IDENTITY = Affine(ZERO + 1, ZERO, ZERO)


class Marginal:
    """What the rules may know of a time: alpha, sigma, f, g^2 and the score S = P x + R."""

    def __init__(self, process: GaussianProcess, t: Tensor) -> None:
        self.process, self.t = process, t
        self.alpha, self.sigma = process.alpha(t), process.sigma(t)
        self.mean = self.alpha * (AXES.T @ MEAN)
        self.variance = self.alpha**2 * VARIANCES + self.sigma**2
        self.P, self.R = -1 / self.variance, self.mean / self.variance
        self.x0 = Affine(
            (1 + self.sigma**2 * self.P) / self.alpha, self.sigma**2 * self.R / self.alpha, ZERO
        )

    def rates(self) -> tuple[Tensor, Tensor]:
        """f = d ln(alpha)/dt and g^2 = d(sigma^2)/dt - 2 f sigma^2, by automatic
        differentiation."""
        t = self.t.clone().requires_grad_()
        f = derivative(self.process.alpha(t).log(), t)
        return f, derivative(self.process.sigma(t) ** 2, t) - 2 * f * self.sigma**2

    def slope(self) -> tuple[Tensor, Tensor]:
        """dx/dt = f x - g^2/2 S of the probability-flow ODE as (slope, intercept)."""
        f, g2 = self.rates()
        return f - g2 / 2 * self.P, -g2 / 2 * self.R

    def slope_per_ratio(self) -> tuple[Tensor, Tensor]:
        """d(x/alpha)/d(sigma/alpha) = eps = -sigma S, of x/alpha."""
        return -self.sigma * self.P * self.alpha, -self.sigma * self.R


def derivative(y: Tensor, t: Tensor) -> Tensor:
    return torch.autograd.grad(y, t)[0] if y.requires_grad else torch.zeros_like(t)


def ancestral(spec: SolverSpec, t: Marginal, s: Marginal) -> Affine:
    """x_s = (x_t + v S)/a + n z with a = alpha_t/alpha_s and v = sigma_t^2 - a^2 sigma_s^2: DDPM's
    algorithm 2 with v = beta; n^2 = v or v sigma_s^2/sigma_t^2 or what is learned in between, and
    nothing into the data."""
    a = t.alpha / s.alpha
    v = t.sigma**2 - a**2 * s.sigma**2
    share = {"small": 0.0, "large": 1.0, "learned": FRACTION}[spec.variance]
    n2 = v * (s.sigma / t.sigma) ** (2 * (1 - share)) * (s.sigma > 0)
    return Affine((1 + v * t.P) / a, v * t.R / a, ZERO + n2.sqrt())


def ddim(spec: SolverSpec, t: Marginal, s: Marginal) -> Affine:
    """Equation 12: alpha_s x0 + sqrt(sigma_s^2 - n^2) eps + n z; 16: n = eta sigma_s/sigma_t
    sqrt(v)."""
    v = t.sigma**2 - (t.alpha / s.alpha) ** 2 * s.sigma**2
    n = spec.eta * s.sigma / t.sigma * v.sqrt()
    eps = (s.sigma**2 - n**2).sqrt() * -t.sigma
    return Affine(s.alpha * t.x0.A + eps * t.P, s.alpha * t.x0.b + eps * t.R, ZERO + n)


def euler_maruyama(spec: SolverSpec, t: Marginal, s: Marginal) -> Affine:
    """x - h (f x - g^2 S) + g sqrt(h) z; E[x_0 | x_t] into the data."""
    if s.sigma == 0:
        return t.x0
    (f, g2), h = t.rates(), t.t - s.t
    return Affine(1 - h * (f - g2 * t.P), h * g2 * t.R, ZERO + (g2 * h).sqrt())


def runge_kutta(order: int, h: Tensor, here: tuple, there: tuple) -> Affine:
    """Euler's or Heun's step of dx/dt = P x + R, from its coefficients at both ends."""
    (P, R), (P_s, R_s) = here, there
    if order == 1:
        return Affine(1 + h * P, h * R, ZERO)
    return Affine(1 + h / 2 * (P + P_s * (1 + h * P)), h / 2 * (R + R_s + P_s * h * R), ZERO)


def probability_flow(spec: SolverSpec, t: Marginal, s: Marginal) -> Affine:
    if s.sigma == 0:
        return t.x0
    order = {"euler": 1, "heun": 2}[spec.method]
    return runge_kutta(order, s.t - t.t, t.slope(), s.slope())


def heun(spec: SolverSpec, t: Marginal, s: Marginal) -> Affine:
    """EDM's algorithm 1 on x/alpha as a function of sigma/alpha; Euler's step into the data."""
    if s.sigma == 0:
        return t.x0
    h = s.sigma / s.alpha - t.sigma / t.alpha
    step = runge_kutta(2, h, t.slope_per_ratio(), s.slope_per_ratio())
    return Affine(s.alpha * step.A / t.alpha, s.alpha * step.b, ZERO)


#: The affine map of one step, by solver name.
RULES: dict[str, Callable[[SolverSpec, Marginal, Marginal], Affine]] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "euler-maruyama": euler_maruyama,
    "ode": probability_flow,
    "heun": heun,
}
#: Settings under which each is tried, beside its defaults, with 9 steps.
SETTINGS: dict[str, list[dict[str, object]]] = {
    "ancestral": [
        {"variance": v, "grid": g}
        for v in ("small", "large", "learned")
        for g in ("respaced", "uniform")
    ],
    "ddim": [
        {"eta": e, "grid": g}
        for e in (0.0, 0.7, 1.0)
        for g in ("respaced", "strided", "quadratic", "uniform")
    ],
    "euler-maruyama": [{}, {"denoise": False, "last": 0.1}, {"grid": "karras"}],
    "ode": [
        {"method": m, **options}
        for m in ("euler", "heun")
        for options in ({}, {"denoise": False, "last": 0.1, "grid": "karras"})
    ],
}
CHAINS = {"discrete": [{"schedule": "linear", "steps": 45}, {"schedule": "cosine", "steps": 45}]}


def processes() -> Iterator[ProcessSpec]:
    """Every Gaussian process with one alpha for all coordinates."""
    for name, known in sorted(ProcessSpec.known.items()):
        if known.family == "gaussian" and known.alpha == "scalar":
            for parameters in CHAINS.get(name, [{}]):
                yield ProcessSpec.choose({"name": name, **parameters})


def pairs() -> Iterator[object]:
    """Every registered solver on every process that it can serve."""
    for name in sorted(SolverSpec.known):
        for settings in SETTINGS.get(name, [{}]):
            spec = SolverSpec.choose({"name": name, "steps": 9, "threshold": "none", **settings})
            for process in processes():
                if spec.refusal(process) is None:
                    label = [name, *map(str, settings.values()), process.name]
                    label.append(getattr(process, "schedule", ""))
                    yield pytest.param(spec, process, id="-".join(filter(None, label)))


every_pair = pytest.mark.parametrize(("spec", "process"), list(pairs()))


def exact_denoiser(process: ProcessSpec) -> Denoiser:
    tensors = {"mean": MEAN, "covariance": COVARIANCE}
    denoiser = GaussianDenoiser(GaussianSpec(), build(process), tensors)
    return Fractional(denoiser, lambda t: torch.full_like(t, FRACTION))


class Probed(NamedTuple):
    """A map recovered from an implementation: x -> A x + b + N z, matrices over the pixels."""

    A: Tensor
    b: Tensor
    N: Tensor


def probe(step: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]) -> Probed:
    """Apply a step (x, noise) to 0 and to unit vectors without noise, and to 0 with unit noises."""
    eye, zero = torch.eye(DIM, dtype=torch.float64), torch.zeros(1, DIM, dtype=torch.float64)
    x = torch.cat([zero, eye, 0 * eye]).reshape(-1, 1, 1, DIM)
    z = torch.cat([zero, 0 * eye, eye]).reshape(-1, 1, 1, DIM)
    rows = step(x, lambda _: z).reshape(-1, DIM)
    b = rows[0]
    return Probed((rows[1 : DIM + 1] - b).T, b, (rows[DIM + 1 :] - b).T)


def probed_steps(solver: Solver, times: Tensor) -> Iterator[tuple[Tensor, Tensor, Probed]]:
    """The map of each step of a grid."""
    for t, s in pairwise(times):
        yield t, s, probe(lambda x, noise, t=t, s=s: solver.step(x, t, s, None, noise))


def propagate(
    solver: Solver, times: Tensor, mean: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean and covariance that the implementation makes of a Gaussian."""
    for _, _, (A, b, N) in probed_steps(solver, times):
        mean, covariance = A @ mean + b, A @ covariance @ A.T + N @ N.T
    return mean, covariance


def rule_of(spec: SolverSpec, process: GaussianProcess, t: Tensor, s: Tensor) -> Affine:
    return RULES[spec.name](spec, Marginal(process, t), Marginal(process, s))


def rotated(scales: Tensor) -> Tensor:
    return AXES @ scales.diag() @ AXES.T


def test_every_registered_solver_has_a_rule() -> None:
    """A solver of the package that is missing here has no independent formula; write one above."""
    own = {
        name
        for name, spec in SolverSpec.known.items()
        if spec.__module__.startswith("diffbench.specs")
    }
    assert own <= set(RULES)


@every_pair
def test_steps_are_the_papers_formulas(spec: SolverSpec, process: ProcessSpec) -> None:
    """Each step's map, to 1e-9 of its largest entry.

    The maps are sums of terms up to 1/alpha_{t|s} times their value: 30 on the cosine chain's last
    beta of 0.999 and 5e3 over a whole VP grid, so rounding stays below 1e-11.  b passes through x -
    alpha m.
    """
    solver = build(spec, exact_denoiser(process))
    times = solver.times()
    assert len(times) >= 3
    for t, s, got in probed_steps(solver, times):
        want = rule_of(spec, solver.process, t, s)
        scale = float(want.A.abs().max())
        close(got.A, rotated(want.A), atol=1e-9 * scale)
        close(got.b, AXES @ want.b, atol=1e-9 * max(scale, 1.0))
        close(got.N, rotated(want.n), atol=1e-9 * max(1.0, float(want.n.max())))


@every_pair
def test_propagated_moments(spec: SolverSpec, process: ProcessSpec) -> None:
    """From the solver's own start N(0, sigma^2 I) down the whole grid: closed form against
    probes."""
    solver = build(spec, exact_denoiser(process))
    times = solver.times()
    start = solver.process.sigma(times[0])
    whole = Affine(IDENTITY.A, IDENTITY.b, ZERO)
    for t, s in pairwise(times):
        whole = rule_of(spec, solver.process, t, s).after(whole)
    eye = torch.eye(DIM, dtype=torch.float64)
    mean, covariance = propagate(solver, times, AXES @ ZERO, start**2 * eye)
    close(mean, AXES @ whole.b, atol=1e-9)
    close(covariance, rotated((whole.A * start) ** 2 + whole.n**2), atol=1e-9)


IMAGES = 20_000


@every_pair
def test_samples_have_the_predicted_moments(spec: SolverSpec, process: ProcessSpec) -> None:
    """Mean and variance of 20,000 draws within 4 standard errors, v/n and 2 v^2/n squared, per
    pixel.

    There are some 80 pairs with 6 comparisons each; at 6.3e-5 a comparison the chance that any
    fails for correct solvers is below 4 % over the choice of the seed, which is fixed.
    """
    solver = build(spec, exact_denoiser(process))
    generator = torch.Generator().manual_seed(0)
    x = sample(solver, (IMAGES, 1, 1, DIM), generator, dtype=torch.float64).reshape(IMAGES, DIM)
    times = solver.times()
    start = solver.process.sigma(times[0]) ** 2 * torch.eye(DIM, dtype=torch.float64)
    mean, covariance = propagate(solver, times, ZERO, start)
    variance = covariance.diag()
    assert ((x.mean(0) - mean).abs() <= 4 * (variance / IMAGES).sqrt()).all()
    assert ((x.var(0) - variance).abs() <= 4 * variance * (2 / IMAGES) ** 0.5).all()


#: Processes, and grids that stop where the noise is comparable with the data's deviations, 0.14 to
#: 0.8: on stiffer ones the leading term of the error takes over only at thousands of steps.
RANGES: dict[str, tuple[dict, dict]] = {
    "vp": ({}, {"last": 0.4}),
    "sub-vp": ({}, {"last": 0.4}),
    "ve": ({"sigma_min": 0.1, "sigma_max": 5.0}, {"last": 0.4}),
    "edm": ({}, {"last": 0.4, "grid": "karras"}),
}
FLOW = {"denoise": False}
ORDERS = [
    *[("ode", {"method": "euler", **FLOW, **end}, 1, p) for p, (_, end) in RANGES.items()],
    *[("ode", {"method": "heun", **FLOW, **end}, 2, p) for p, (_, end) in RANGES.items()],
    *[("heun", {"sigma_min": 0.4}, 2, p) for p in RANGES],
    ("euler-maruyama", {"denoise": False, "last": 0.4}, 1, "vp"),
    ("ddim", {"grid": "uniform", "last": 0.4}, 1, "vp"),
    ("ancestral", {"grid": "uniform", "last": 0.4}, 1, "vp"),
]


@pytest.mark.parametrize(
    ("solver", "options", "order", "process"),
    ORDERS,
    ids=[f"{solver}-{order}-{process}" for solver, _, order, process in ORDERS],
)
def test_order_of_convergence(solver: str, options: dict, order: int, process: str) -> None:
    """Covariance error between the exact marginals at the first time and at the last with noise.

    The slope of ln(error) against ln(steps), fitted over two doublings, is within 0.15 of minus the
    order: where the next order's share of the error is q, the slope is off by q/(2 ln 2), and q <
    0.2.
    """
    denoiser = exact_denoiser(ProcessSpec.choose({"name": process, **RANGES[process][0]}))
    counts, errors = [32, 64, 128], []
    for steps in counts:
        spec = SolverSpec.choose({"name": solver, "steps": steps, "threshold": "none", **options})
        built = build(spec, denoiser)
        times = built.times()
        times = times[built.process.sigma(times) > 0]
        first, last = (Marginal(built.process, times[i]) for i in (0, -1))
        _, got = propagate(built, times, AXES @ first.mean, rotated(first.variance))
        errors.append(float(torch.linalg.norm(got - rotated(last.variance))))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope + order) <= 0.15


@pytest.mark.parametrize(
    ("steps", "ratio", "unit"), [(10, 0.42, 0.01), (100, 0.88, 0.01), (1000, 0.985, 0.001)]
)
def test_variance_that_few_ancestral_steps_lose(steps: int, ratio: float, unit: float) -> None:
    """DDPM's linear chain and posterior variance, data of standard deviation 0.5 (EDM's
    sigma_data): the samples' variance over the data's, to the digits given."""
    process = ProcessSpec.choose({"name": "discrete", "schedule": "linear"})
    tensors = {"mean": ZERO[:1], "covariance": at([[0.25]])}
    denoiser = GaussianDenoiser(GaussianSpec(), build(process), tensors)
    spec = SolverSpec.choose({"name": "ancestral", "steps": steps, "threshold": "none"})
    solver = build(spec, denoiser)
    probes = at([0.0, 1.0, 0.0]).reshape(3, 1, 1, 1)
    noise = at([0.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    times = solver.times()
    variance = float(solver.process.sigma(times[0])) ** 2
    for t, s in pairwise(times):
        b, one, noisy = solver.step(probes, t, s, None, lambda _: noise).flatten().tolist()
        variance = (one - b) ** 2 * variance + (noisy - b) ** 2
    assert abs(variance / 0.25 - ratio) <= 0.5 * unit


#: Independent pixels, so that one fraction a pixel is one an eigen-direction: of less variance than
#: the noise's at the end, and of more.
SPREADS = at([0.02, 0.25, 2.0])
CHAIN_GRIDS = [
    {"steps": 45},
    {"steps": 9},
    {"steps": 9, "grid": "strided"},
    {"steps": 7, "grid": "quadratic"},
    {"steps": 2},
]


def marginal_variance(process: GaussianProcess, t: Tensor) -> Tensor:
    return process.alpha(t) ** 2 * SPREADS + process.sigma(t) ** 2


def exact_step_variance(process: GaussianProcess, t: Tensor, s: Tensor) -> Tensor:
    """Var[x_s | x_t] per pixel: with x_t = a x_s + sqrt(v) z, v V_s/(a^2 V_s + v) = v V_s/V_t."""
    a = process.alpha(t) / process.alpha(s)
    v = process.sigma(t) ** 2 - a**2 * process.sigma(s) ** 2
    return v * marginal_variance(process, s) / marginal_variance(process, t)


def chain_solver(schedule: str, variance: str, options: dict) -> Solver:
    """The ancestral sampler of that data on a chain of 45 steps; its denoiser, wherever it is asked,
    gives the fraction that makes the next step's variance exact."""
    process = process_of("discrete", schedule=schedule, steps=45)
    tensors = {"mean": MEAN, "covariance": SPREADS.diag()}
    gaussian = GaussianDenoiser(GaussianSpec(), process, tensors)
    below: dict[float, Tensor] = {}

    def fraction(t: Tensor) -> Tensor:
        s = below[float(t)]
        if s == process.data_time:
            return ZERO
        large = (
            process.sigma(t) ** 2 - (process.alpha(t) / process.alpha(s) * process.sigma(s)) ** 2
        )
        small = large * (process.sigma(s) / process.sigma(t)) ** 2
        return (exact_step_variance(process, t, s) / small).log() / (large / small).log()

    settings = {"name": "ancestral", "threshold": "none", "variance": variance, **options}
    solver = build(SolverSpec.choose(settings), Fractional(gaussian, fraction))
    below.update((float(t), s) for t, s in pairwise(solver.times()))
    return solver


every_chain_grid = pytest.mark.parametrize("options", CHAIN_GRIDS, ids=str)
both_schedules = pytest.mark.parametrize("schedule", ["linear", "cosine"])


@both_schedules
@every_chain_grid
def test_the_optimal_learned_variance_keeps_every_marginal(schedule: str, options: dict) -> None:
    """From the exact marginal at the grid's first time, mean and covariance are the exact ones at every
    time with noise, on every grid.  The last step returns E[x_0 | x_t], whose covariance is
    (alpha lambda)^2/(alpha^2 lambda + sigma^2).

    Entries of size 1 take up to 45 steps, each within 1e-12: the cosine chain's last beta, 0.999,
    magnifies rounding 30 times.
    """
    solver = chain_solver(schedule, "learned", options)
    process, times = solver.process, solver.times()
    mean, covariance = process.alpha(times[0]) * MEAN, marginal_variance(process, times[0]).diag()
    for t, s in pairwise(times):
        mean, covariance = propagate(solver, torch.stack([t, s]), mean, covariance)
        close(mean, process.alpha(s) * MEAN, atol=1e-9)
        if s != process.data_time:
            close(covariance, marginal_variance(process, s).diag(), atol=1e-9)
    signal = (process.alpha(times[-2]) * SPREADS) ** 2
    close(covariance, (signal / marginal_variance(process, times[-2])).diag(), atol=1e-9)


@both_schedules
@every_chain_grid
@pytest.mark.parametrize("variance", ["small", "large"])
def test_fixed_variances_miss_the_marginals(schedule: str, options: dict, variance: str) -> None:
    """The deviation of the covariance from the exact one obeys d_s = A^2 d_t + n^2 - v V_s/V_t with
    A = a V_s/V_t: its first terms are v (sigma_s^2/sigma_t^2 - V_s/V_t) <= 0 for small and v (1 -
    V_s/V_t), positive where the data's variance is below 1, for large.  At the grid's last level it is
    still 1e5 times the tolerance."""
    solver = chain_solver(schedule, variance, options)
    process, times = solver.process, solver.times()
    mean, covariance = process.alpha(times[0]) * MEAN, marginal_variance(process, times[0]).diag()
    deviation = ZERO
    for t, s in pairwise(times[:-1]):
        a = process.alpha(t) / process.alpha(s)
        v = process.sigma(t) ** 2 - a**2 * process.sigma(s) ** 2
        shrink = marginal_variance(process, s) / marginal_variance(process, t)
        n2 = v * (process.sigma(s) / process.sigma(t)) ** 2 if variance == "small" else v
        deviation = (a * shrink) ** 2 * deviation + n2 - v * shrink
        mean, covariance = propagate(solver, torch.stack([t, s]), mean, covariance)
        close(covariance - marginal_variance(process, s).diag(), deviation.diag(), atol=1e-9)
    below_one = SPREADS < 1
    assert (deviation < -1e-4).all() if variance == "small" else (deviation[below_one] > 1e-4).all()
    assert variance == "small" or (deviation[~below_one] < -1e-4).all()
