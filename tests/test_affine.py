r"""Solvers on Gaussian data, where a step is an affine map and everything is known in closed form.

With data N(m, C) and C = Q diag(lambda) Q^T, the marginal at t is N(alpha m, alpha^2 C + sigma^2
I), whose score in each eigen-coordinate, with mu = Q^T m, is

    S(x, t) = -(x - alpha mu)/(alpha^2 lambda + sigma^2).

So one step of any solver is x_s = A x_t + b + n_1 z_1 + .. + n_k z_k per coordinate, with the
noises that it draws, and means and covariances propagate exactly. ``RULES`` writes A, b and n from
the papers in terms of S, with none of the package's own formulas but the processes' alpha and sigma
(f and g come from those by automatic differentiation). A corrector's updates are such maps too, and
so is the whole grid of a solver that remembers steps: all of them are compared as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import Fractional, close, no_noise, process_of

from diffbench.diffusion.core.condition import UNCONDITIONAL
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.denoisers.denoiser import Counted, Denoiser
from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.diffusion.solvers.loop import Solver, sample, solve
from diffbench.specs.denoisers import GaussianSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import OwnTimeSolverSpec, SolverSpec

MEAN = float64([0.3, -0.2, 0.1])
AXES = torch.linalg.qr(float64([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0], [1.0, 0.0, 3.0]]))[0]
VARIANCES = float64([0.02, 0.25, 0.6])
COVARIANCE = AXES @ VARIANCES.diag() @ AXES.T
DIM = len(MEAN)
#: By which the learned variances of ``every_pair`` lie between small and large.
FRACTION = 0.3


ZERO = torch.zeros(DIM, dtype=torch.float64)
SILENCE = torch.zeros(0, DIM, dtype=torch.float64)


class Affine(NamedTuple):
    """x -> A x + b + sum_k n_k z_k per eigen-coordinate; a row of n for each noise, in order of use."""

    A: Tensor
    b: Tensor
    n: Tensor = SILENCE

    def after(self, first: Affine) -> Affine:
        """The composition: this map of the first one's result, with noises of its own."""
        return Affine(
            self.A * first.A,
            self.A * first.b + self.b,
            torch.cat([self.A * first.n, self.n]),
        )

    def plus(self, earlier: Affine, share: Tensor | float) -> Affine:
        """The sum with a share of a map that has the first of the same noises."""
        missing = SILENCE.new_zeros(len(self.n) - len(earlier.n), DIM)
        n = torch.cat([earlier.n, missing])
        return Affine(self.A + share * earlier.A, self.b + share * earlier.b, self.n + share * n)

    def quiet(self) -> Affine:
        """Without the last noise."""
        return self._replace(n=self.n[:-1])


IDENTITY = Affine(ZERO + 1, ZERO)


def noise_of(scale: Tensor | float) -> Tensor:
    """One noise of the same scale in every coordinate; none where it is 0."""
    return (ZERO + scale)[None] if scale > 0 else SILENCE


class Data(NamedTuple):
    """A Gaussian N(mean, axes diag(variances) axes^T)."""

    mean: Tensor
    axes: Tensor
    variances: Tensor

    def rotated(self, scales: Tensor) -> Tensor:
        return self.axes @ scales.diag() @ self.axes.T


DATA = Data(MEAN, AXES, VARIANCES)


class Marginal:
    """What the rules may know of a time: alpha, sigma, f, g^2 and the score S = P x + R."""

    def __init__(self, process: Process, t: Tensor, data: Data = DATA) -> None:
        self.process, self.t = process, t
        self.alpha, self.sigma = process.alpha(t), process.sigma(t)
        self.mean = self.alpha * (data.axes.T @ data.mean)
        self.variance = self.alpha**2 * data.variances + self.sigma**2
        self.P, self.R = -1 / self.variance, self.mean / self.variance
        self.x0 = Affine(
            (1 + self.sigma**2 * self.P) / self.alpha, self.sigma**2 * self.R / self.alpha
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
    return Affine((1 + v * t.P) / a, v * t.R / a, noise_of(n2.sqrt()))


def ddim(spec: SolverSpec, t: Marginal, s: Marginal) -> Affine:
    """Equation 12: alpha_s x0 + sqrt(sigma_s^2 - n^2) eps + n z; 16: n = eta sigma_s/sigma_t
    sqrt(v)."""
    v = t.sigma**2 - (t.alpha / s.alpha) ** 2 * s.sigma**2
    n = spec.eta * s.sigma / t.sigma * v.sqrt()
    eps = (s.sigma**2 - n**2).sqrt() * -t.sigma
    return Affine(s.alpha * t.x0.A + eps * t.P, s.alpha * t.x0.b + eps * t.R, noise_of(n))


def reversal(spec: SolverSpec, t: Marginal, f: Tensor, G2: Tensor) -> Affine:
    """Appendix E's x - f(x) + G^2 S + G z with f(x) = f x; of the family with the same marginals,
    (1 + noise^2)/2 of the score (the flow's half where noise is 0, appendix D.1) and ``noise`` of z."""
    score = (1 + spec.noise**2) / 2 * G2
    return Affine(1 - f + score * t.P, score * t.R, noise_of(spec.noise * G2.sqrt()))


def euler_maruyama(spec: SolverSpec, t: Marginal, s: Marginal) -> Affine:
    """Section 4.1's x - h (f x - g^2 S) + g sqrt(h) z; E[x_0 | x_t] into the data."""
    if s.sigma == 0:
        return t.x0
    (f, g2), h = t.rates(), t.t - s.t
    return reversal(spec, t, f * h, g2 * h)


def reverse_diffusion(spec: SolverSpec, t: Marginal, s: Marginal) -> Affine:
    """VP: f = sqrt(1 - beta) - 1, G^2 = beta (DDPM's chain, whose beta is that of the SDE, -2 f, times the
    step). VE, and EDM in its time: f = 0, G^2 = sigma_t^2 - sigma_s^2. A chain, of levels or in continuous time:
    f = a - 1, G^2 = sigma_t^2 - a^2 sigma_s^2 with a = alpha_t/alpha_s. Others: Euler's."""
    name = t.process.spec.name
    if s.sigma == 0:
        return t.x0
    if name == "vp":
        beta = -2 * t.rates()[0] * (t.t - s.t)
        return reversal(spec, t, (1 - beta).sqrt() - 1, beta)
    if name in ("discrete", "vp-chain"):
        a = t.alpha / s.alpha
        return reversal(spec, t, a - 1, t.sigma**2 - a**2 * s.sigma**2)
    if name in ("ve", "edm"):
        return reversal(spec, t, float64(0.0), t.sigma**2 - s.sigma**2)
    return euler_maruyama(spec, t, s)


def langevin(spec: SolverSpec, t: Marginal, s: Marginal) -> Affine:
    """No predictor."""
    return t.x0 if s.sigma == 0 else IDENTITY


def runge_kutta(h: Tensor, here: tuple, middle: tuple, there: tuple, order: int) -> Affine:
    """A step of dx/dt = P x + R, from (P, R) at both ends and in the middle: each stage's slope k is
    the affine map P (x + c h k before) + R."""

    def slope(rate: tuple, share: float, before: Affine) -> Affine:
        P, R = rate
        return Affine(P, R).after(IDENTITY.plus(before, share * h))

    k1 = Affine(*here)
    if order == 1:
        return IDENTITY.plus(k1, h)
    k2 = slope(middle, 0.5, k1)
    k3 = slope(middle, 0.5, k2)
    k4 = slope(there, 1.0, k3)
    return IDENTITY.plus(k1.plus(k2, 2.0).plus(k3, 2.0).plus(k4, 1.0), h / 6)


def second_order(h: Tensor, here: tuple, there: tuple, alpha: float) -> Affine:
    """EDM's algorithm 3: x + h [(1 - 1/(2 alpha)) k1 + 1/(2 alpha) k2], k2 at x + alpha h k1, a share alpha on."""
    k1 = Affine(*here)
    P, R = there
    k2 = Affine(P, R).after(IDENTITY.plus(k1, alpha * h))
    return IDENTITY.plus(k1, h * (1 - 1 / (2 * alpha))).plus(k2, h / (2 * alpha))


def probability_flow(spec: SolverSpec, t: Marginal, s: Marginal) -> Affine:
    if s.sigma == 0:
        return t.x0
    if spec.method == "heun":
        there = Marginal(t.process, t.t + spec.alpha * (s.t - t.t))
        return second_order(s.t - t.t, t.slope(), there.slope(), spec.alpha)
    order = {"euler": 1, "rk4": 4}[spec.method]
    middle = Marginal(t.process, (t.t + s.t) / 2)
    return runge_kutta(s.t - t.t, t.slope(), middle.slope(), s.slope(), order)


def heun(spec: SolverSpec, t: Marginal, s: Marginal) -> Affine:
    """EDM's algorithms 1 and 3 on x/alpha as a function of sigma/alpha; Euler's step into the data.

    Never below the smallest noise; on a chain the second stage is at the nearest level, and is as far on as that is."""
    if s.sigma == 0:
        return t.x0
    process, start = t.process, t.sigma / t.alpha
    h = s.sigma / s.alpha - start
    smallest = process.sigma(float64(process.t_min)) / process.alpha(float64(process.t_min))
    middle = Marginal(process, process.time_of((start + spec.alpha * h).maximum(smallest)))
    alpha = float((middle.sigma / middle.alpha - start) / h)
    if spec.order == 1 or alpha == 0:
        step = IDENTITY.plus(Affine(*t.slope_per_ratio()), h)
    else:
        step = second_order(h, t.slope_per_ratio(), middle.slope_per_ratio(), alpha)
    return Affine(s.alpha * step.A / t.alpha, s.alpha * step.b)


#: The affine map of one step, by the name of the solver.
RULES: dict[str, Callable[[SolverSpec, Marginal, Marginal], Affine]] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "euler-maruyama": euler_maruyama,
    "reverse-diffusion": reverse_diffusion,
    "langevin": langevin,
    "ode": probability_flow,
    "heun": heun,
}
#: A map to x_t, the time t, and the map to the x0 that was predicted there.
Earlier = tuple[Marginal, Affine]


def dpm_solver(t: Marginal, s: Marginal, path: Affine, earlier: Earlier | None) -> Affine:
    """DPM-Solver++'s algorithm 2 of the map ``path`` to x_t: with lambda = ln(alpha/sigma), its steps h
    and r = h before/h, x_s = sigma_s/sigma_t x_t - alpha_s (exp(-h) - 1) D with
    D = (1 + 1/(2 r)) x0 - 1/(2 r) x0 before. The first and the last have D = x0 (section 4.1)."""
    x0 = t.x0.after(path)
    if s.sigma == 0:
        return x0
    D, h = x0, log_snr(s) - log_snr(t)
    if earlier is not None:
        before, x0_before = earlier
        r = (log_snr(t) - log_snr(before)) / h
        D = scaled(x0, 1 + 1 / (2 * r)).plus(x0_before, -1 / (2 * r))
    kept = scaled(path, s.sigma / t.sigma)
    return kept.plus(D, -s.alpha * torch.expm1(-h))


def log_snr(t: Marginal) -> Tensor:
    return (t.alpha / t.sigma).log()


def scaled(path: Affine, factor: Tensor) -> Affine:
    return Affine(factor * path.A, factor * path.b, factor * path.n)


#: Solvers whose step depends on those before it.
WITH_MEMORY = {"dpm-solver++": dpm_solver}
#: Those of processes that are not affine, or that have no prior of their own.
ELSEWHERE = {"transport": "test_reflected", "inverse-heat": "test_heat"}
#: The solver that chooses its steps.
ADAPTIVE = "ode-adaptive"


def corrected(spec: SolverSpec, t: Marginal, path: Affine) -> Affine:
    """The corrector's updates, as often as is asked."""
    for _ in range(spec.corrector.updates):
        path = update(spec, t).after(path)
    return path


def update(spec: SolverSpec, t: Marginal) -> Affine:
    """x + eps S + sqrt(2 eps) z (algorithms 4 and 5)."""
    eps = spec.corrector.step_size
    return Affine(1 + eps * t.P, eps * t.R, noise_of(float64((2 * eps) ** 0.5)))


def whole(spec: SolverSpec, process: Process, times: Tensor, quiet: bool) -> Affine:
    """The map down a grid: corrector, predictor; or predictor, corrector. Data are not corrected. ``quiet``
    leaves out the noise of the last that draws any: the predictor where the corrector goes first."""
    marginals = [Marginal(process, t) for t in times]
    corrector = getattr(spec, "corrector", None)
    first = corrector is not None and corrector.order == "corrector-first"
    path, earlier = IDENTITY, None
    for i, (t, s) in enumerate(pairwise(marginals), start=2):
        last = quiet and i == len(times)
        if first:
            path = corrected(spec, t, path)
        before = len(path.n)
        if spec.name in WITH_MEMORY:
            x0 = t.x0.after(path)
            path, earlier = WITH_MEMORY[spec.name](t, s, path, earlier), (t, x0)
        else:
            path = RULES[spec.name](spec, t, s).after(path)
        if corrector is not None and not first and s.sigma > 0:
            path = corrected(spec, s, path)
        if last and len(path.n) > before:
            path = path.quiet()
    return path


RATIO_GRIDS = ["karras", "log-snr"]
EVERY_GRID = ["uniform", "quadratic", *RATIO_GRIDS]
AFTER = {"corrector": {"step_size": 2e-3}}
TWICE = {"corrector": {"step_size": 2e-3, "updates": 2}}
BEFORE = {"corrector": {"step_size": 1e-3, "order": "corrector-first", "updates": 2}}
#: Settings under which each is tried, beside its defaults, with 9 steps.
SETTINGS: dict[str, list[dict[str, object]]] = {
    "ancestral": [
        *[{"variance": v, "grid": "uniform"} for v in ("small", "large", "learned")],
        *[{"variance": "large", "grid": g} for g in ("quadratic", *RATIO_GRIDS)],
        {"last": 0.1, **BEFORE},
        AFTER,
    ],
    "ddim": [
        *[
            {"eta": e, "grid": g}
            for e in (0.0, 0.7, 1.0)
            for g in ("uniform", "strided", "quadratic", "quadratic-0.8")
        ],
        *[{"eta": 0.7, "grid": g} for g in RATIO_GRIDS],
        {"last": 0.1, **AFTER},
        {"eta": 0.7, **BEFORE},
    ],
    "euler-maruyama": [
        *[{"noise": n} for n in (0, 0.5, 1)],
        *[{"noise": n, "denoise": d, "last": 0.1} for n, d in [(0, "none"), (1, "noiseless")]],
        *[{"denoise": "none", "grid": g} for g in ("quadratic", *RATIO_GRIDS)],
        {"noise": 0.5, "denoise": "noiseless", **AFTER},
        {"noise": 0.5, "denoise": "noiseless", **BEFORE},
        {"denoise": "noiseless", **TWICE},
        {"denoise": "none", **TWICE},
        {"noise": 0, **BEFORE},
    ],
    # VP's chain needs beta(t) (t - s) < 1: more than 20 even steps, and more of others.
    "reverse-diffusion": [
        *[{"steps": 24, "noise": n} for n in (0, 0.5, 1)],
        *[{"steps": 24, "denoise": d, "last": 0.1} for d in ("none", "noiseless")],
        *[{"steps": 60, "denoise": "none", "grid": g} for g in ("quadratic", *RATIO_GRIDS)],
        {"steps": 24, "denoise": "noiseless", **AFTER},
        {"steps": 24, "noise": 0.5, **BEFORE},
    ],
    "langevin": [
        AFTER,
        {"denoise": "none", **BEFORE},
        {"denoise": "noiseless", **AFTER},
        {"denoise": "noiseless", **BEFORE},
        *[{"grid": g, **BEFORE} for g in RATIO_GRIDS],
    ],
    "ode": [
        *[
            {"method": m, **options}
            for m in ("euler", "heun", "rk4")
            for options in ({}, {"denoise": "none", "last": 0.1, "grid": "karras"})
        ],
        *[{"grid": g, "denoise": "noiseless"} for g in ("quadratic", "log-snr")],
        {"alpha": 0.5, "denoise": "none"},
        {"method": "rk4", **BEFORE},
        {"method": "rk4", "denoise": "noiseless", **AFTER},
    ],
    "heun": [
        *[{"grid": g} for g in EVERY_GRID],
        {"order": 1},
        AFTER,
        BEFORE,
        *[{"alpha": a} for a in (0.5, 2 / 3, 1.1, 1.5)],
    ],
    "dpm-solver++": [*[{"grid": g} for g in EVERY_GRID], {"sigma_min": 0.1}, AFTER, BEFORE],
}
CHAINS = {"discrete": [{"schedule": "linear", "steps": 45}, {"schedule": "cosine", "steps": 45}]}


def processes() -> Iterator[ProcessSpec]:
    """Every Gaussian process with one alpha for all coordinates."""
    for name, known in sorted(ProcessSpec.known.items()):
        if known.family == "gaussian" and known.alpha == "scalar":
            for parameters in CHAINS.get(name, [{}]):
                yield ProcessSpec.choose({"name": name, **parameters})


def pairs(leave_out: set[str] = frozenset(), every: int = 1) -> Iterator[object]:
    """Every registered solver of a given grid on every process that it can serve; of its settings the first
    and every so many after."""
    for name in sorted(set(SolverSpec.known) - {ADAPTIVE} - leave_out):
        for settings in SETTINGS.get(name, [{}])[::every]:
            takes = "steps" in SolverSpec.known[name].model_fields
            given = {
                "name": name,
                "threshold": "none",
                **({"steps": 9} if takes else {}),
                **settings,
            }
            spec = SolverSpec.choose(given)
            for process in processes():
                if spec.refusal(process) is None:
                    words = [name, *map(word, settings.values()), process.name]
                    words.append(getattr(process, "schedule", ""))
                    yield pytest.param(spec, process, id="-".join(filter(None, words)))


def word(setting: object) -> str:
    return setting.get("order", "predictor-first") if isinstance(setting, dict) else str(setting)


every_pair = pytest.mark.parametrize(("spec", "process"), list(pairs()))
every_step = pytest.mark.parametrize(("spec", "process"), list(pairs(set(WITH_MEMORY))))
some_pairs = pytest.mark.parametrize(("spec", "process"), list(pairs(every=5)))


def exact_denoiser(process: ProcessSpec) -> Denoiser:
    tensors = {"mean": MEAN, "covariance": COVARIANCE}
    denoiser = GaussianDenoiser(GaussianSpec(), build(process), tensors)
    return Fractional(denoiser, lambda t: torch.full_like(t, FRACTION))


class Probed(NamedTuple):
    """A map recovered from an implementation: x -> A x + b + N z, matrices over the pixels; N has as many
    columns as all its noises have numbers."""

    A: Tensor
    b: Tensor
    N: Tensor

    @property
    def covariance(self) -> Tensor:
        return self.N @ self.N.T


def probe(step: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]) -> Probed:
    """Apply a step (x, noise) to 0 and to unit vectors without noise, and to 0 with one unit noise at a
    time, of all that it draws."""
    eye, calls = torch.eye(DIM, dtype=torch.float64), []
    x = torch.cat([ZERO[None], eye]).reshape(-1, 1, 1, DIM)
    answer = step(x, lambda x: calls.append(1) or torch.zeros_like(x)).reshape(-1, DIM)
    b = answer[0]
    A = (answer[1:] - b).T
    if not calls:
        return Probed(A, b, torch.zeros(DIM, 0, dtype=torch.float64))
    numbers = len(calls) * DIM
    z = torch.eye(numbers, dtype=torch.float64).reshape(numbers, len(calls), 1, 1, DIM)
    given = iter(z.unbind(1))
    answer = step(torch.zeros_like(z[:, 0]), lambda _: next(given)).reshape(numbers, DIM)
    assert next(given, None) is None
    return Probed(A, b, (answer - b).T)


def probed_steps(solver: Solver, times: Tensor) -> Iterator[tuple[Tensor, Tensor, Probed]]:
    """The map of each move of a grid, whose last is the solver's own end."""
    end = solver.times()[-1]
    for t, s in pairwise(times):
        quiet = solver.quiet_end and bool(s == end)
        yield (
            t,
            s,
            probe(
                lambda x, noise, t=t, s=s, quiet=quiet: solver.move(
                    x, t, s, UNCONDITIONAL, noise, quiet
                )
            ),
        )


def propagate(
    solver: Solver, times: Tensor, mean: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean and covariance that the implementation makes of a Gaussian; it is a whole grid's map where
    the solver remembers steps."""

    def descend(x: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
        solver.begin()
        for i, (t, s) in enumerate(pairwise(times), start=2):
            quiet = solver.quiet_end and i == len(times)
            x = solver.move(x, t, s, UNCONDITIONAL, noise, quiet)
        return x

    got = probe(descend)
    return got.A @ mean + got.b, got.A @ covariance @ got.A.T + got.covariance


def agrees(got: Probed, want: Affine) -> None:
    """To 1e-9 of A's largest entry, but not below 1e-11, what a grid on which x is 1e2 at first and A shrinks
    to nothing rounds by; b passes through x - alpha m, and noises of scale 0 count as none."""
    scale = max(float(want.A.abs().max()), 1e-2)
    close(got.A, DATA.rotated(want.A), atol=1e-9 * scale)
    close(got.b, AXES @ want.b, atol=1e-9 * max(scale, 1.0))
    heard = want.n[(want.n != 0).any(1)]
    columns = got.N.reshape(DIM, -1, DIM)
    columns = columns[:, (columns != 0).any(2).any(0)]
    loudest = max(1.0, float(heard.abs().max())) if len(heard) else 1.0
    assert columns.shape[1] == len(heard)
    for i, each in enumerate(heard):
        close(columns[:, i], DATA.rotated(each), atol=1e-9 * loudest)


def test_every_registered_solver_has_a_rule() -> None:
    """A solver of the package that is missing here has no independent formula; write one above."""
    own = {
        name
        for name, spec in SolverSpec.known.items()
        if spec.__module__.startswith("diffbench.specs") and name not in ELSEWHERE
    }
    assert own <= set(RULES) | set(WITH_MEMORY) | {ADAPTIVE}
    assert set(RULES) | set(WITH_MEMORY) <= {each.values[0].name for each in pairs()}


@every_step
def test_steps_are_the_papers_formulas(spec: SolverSpec, process: ProcessSpec) -> None:
    """Each move's map, to 1e-9 of its largest entry.

    The maps are sums of terms up to 1/alpha_{t|s} times their value: 30 on the cosine chain's last
    beta of 0.999 and 5e3 over a whole VP grid, so rounding stays below 1e-11.  b passes through x -
    alpha m.
    """
    solver = build(spec, exact_denoiser(process))
    times = solver.times()
    assert len(times) >= 3
    for t, s, got in probed_steps(solver, times):
        quiet = spec_is_quiet(spec) and bool(s == times[-1])
        agrees(got, whole(spec, solver.process, torch.stack([t, s]), quiet))


def spec_is_quiet(spec: SolverSpec) -> bool:
    return getattr(spec, "denoise", "") == "noiseless"


def start_std(spec: SolverSpec, process: Process, times: Tensor) -> float:
    """What solvers in time take is the prior; the others start from the grid's first noise level."""
    if not isinstance(spec, OwnTimeSolverSpec):
        return float(process.sigma(times[0]))
    return {"ve": 50.0, "edm": 80.0}.get(process.spec.name, 1.0)


def start_mean(process: Process) -> Tensor:
    """Per pixel: the middle of the data range, [0, 1] for VE."""
    return ZERO + {"ve": 0.5}.get(process.spec.name, 0.0)


@every_pair
def test_whole_grids_are_the_papers_formulas(spec: SolverSpec, process: ProcessSpec) -> None:
    """The map of all moves together, and the moments that it makes of the solver's own start.

    Errors of single moves, 1e-11 or less, pass through at most 61 of them, which shrink what is
    random and magnify nothing by more than 10 where the steps are stable.
    """
    solver = build(spec, exact_denoiser(process))
    times = solver.times()
    want = whole(spec, solver.process, times, spec_is_quiet(spec))
    got = probe(lambda x, noise: solve(solver, x, UNCONDITIONAL, noise))
    agrees(got, want)
    std, mean = start_std(spec, solver.process, times), start_mean(solver.process)
    close(solver.start(torch.ones(1, 1, 1, DIM).double()).flatten(), mean + std)
    close(got.b, AXES @ want.b, atol=1e-9)
    covariance = std**2 * got.A @ got.A.T + got.covariance
    close(covariance, DATA.rotated((want.A * std) ** 2 + (want.n**2).sum(0)), atol=1e-9)


IMAGES = 10_000


@pytest.mark.slow
@some_pairs
def test_samples_have_the_predicted_moments(spec: SolverSpec, process: ProcessSpec) -> None:
    """Mean and variance of 10,000 draws within 4 standard errors, v/n and 2 v^2/n squared, per
    pixel.

    There are some 105 pairs with 6 comparisons each; at 6.3e-5 a comparison the chance that any
    fails for correct solvers is below 5 % over the choice of the seed, which is fixed.
    """
    solver = build(spec, exact_denoiser(process))
    generator = torch.Generator().manual_seed(0)
    x = sample(solver, (IMAGES, 1, 1, DIM), generator, dtype=torch.float64).reshape(IMAGES, DIM)
    times = solver.times()
    start = start_std(spec, solver.process, times) ** 2 * torch.eye(DIM, dtype=torch.float64)
    mean, covariance = propagate(solver, times, start_mean(solver.process), start)
    variance = covariance.diag()
    assert ((x.mean(0) - mean).abs() <= 4 * (variance / IMAGES).sqrt()).all()
    assert ((x.var(0) - variance).abs() <= 4 * variance * (2 / IMAGES) ** 0.5).all()


def exact_flow(process: Process, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The probability flow of a Gaussian keeps the number of standard deviations from the mean:
    x_s = alpha_s mu + sqrt(V_s/V_t) (x_t - alpha_t mu) per eigen-coordinate."""
    here, there = Marginal(process, t), Marginal(process, s)
    along = x.reshape(-1, DIM) @ AXES - here.mean
    moved = there.mean + (there.variance / here.variance).sqrt() * along
    return (moved @ AXES.T).reshape(x.shape)


FLOWING = [spec for spec in processes() if spec.time == "continuous"]


@pytest.mark.parametrize("process", FLOWING, ids=lambda spec: spec.name)
def test_the_adaptive_solver_follows_the_flow(process: ProcessSpec) -> None:
    """At the last noise level, to its tolerance: a step may add atol + rtol max|x| as a root mean square, and
    the flow of data with variances below 1 never spreads, so that n steps add up to n times that at most.

    A thousandth of the tolerance divides the error by 1000, or where all of a step's allowance is of order 4
    by 1000^(4/5) = 250: 100 is asked, and 2 of each tenth, since single errors' signs may cancel.
    """
    denoiser = Counted(exact_denoiser(process))
    x = torch.linspace(-2, 2, 8 * DIM).double().reshape(8, 1, 1, DIM)
    errors = []
    for tolerance in (1e-5, 1e-6, 1e-7, 1e-8):
        given = {"name": ADAPTIVE, "denoise": "none", "rtol": tolerance, "atol": tolerance}
        solver = build(SolverSpec.choose(given), denoiser)
        start, before = solver.start(x), denoiser.calls
        got = solve(solver, start, UNCONDITIONAL, no_noise)
        want = exact_flow(solver.process, start, *solver.times())
        errors.append(float((got - want).square().mean().sqrt()))
        steps = (denoiser.calls - before) / 6
        assert errors[-1] <= steps * tolerance * (1 + float(start.abs().max()))
    assert all(after < before / 2 for before, after in pairwise(errors))
    assert errors[-1] < errors[0] / 100


def test_the_adaptive_solver_ends_in_the_posterior_mean() -> None:
    denoiser = exact_denoiser(ProcessSpec.choose("vp"))
    given = [{"name": ADAPTIVE, "denoise": denoise} for denoise in ("tweedie", "none")]
    ended, stopped = (build(SolverSpec.choose(each), denoiser) for each in given)
    x = ended.start(torch.linspace(-2, 2, DIM).double().reshape(1, 1, 1, DIM))
    last = stopped.times()[-1]
    assert ended.times().tolist() == [1.0, 1e-3, 0.0]
    want = denoiser(solve(stopped, x, UNCONDITIONAL, no_noise), last).x0
    close(solve(ended, x, UNCONDITIONAL, no_noise), want)


#: Processes, and grids that stop where the noise is comparable with the data's deviations, 0.14 to
#: 0.8: on stiffer ones the leading term of the error takes over only at thousands of steps.
RANGES: dict[str, tuple[dict, dict]] = {
    "vp": ({}, {"last": 0.4}),
    "vp-chain": ({}, {"last": 0.4}),
    "sub-vp": ({}, {"last": 0.4}),
    "ve": ({"sigma_min": 0.1, "sigma_max": 5.0}, {"last": 0.4}),
    "edm": ({}, {"last": 0.4, "grid": "karras"}),
    "vp-cosine": ({}, {"last": 0.4}),
}
FLOW = {"denoise": "none"}
#: Steps: RK4's leading term takes over early and would drown in rounding; that of DPM-Solver++, whose first
#: step is of order 1, late.
COUNTS = {"rk4": (16, 32, 64), "dpm-solver++": (128, 256, 512)}
ORDERS = [
    *[("ode", {"method": "euler", **FLOW, **end}, 1, p) for p, (_, end) in RANGES.items()],
    *[("ode", {"method": "heun", **FLOW, **end}, 2, p) for p, (_, end) in RANGES.items()],
    *[("ode", {"method": "rk4", **FLOW, **end}, 4, p) for p, (_, end) in RANGES.items()],
    *[("heun", {"sigma_min": 0.4}, 2, p) for p in RANGES],
    *[("heun", {"sigma_min": 0.4, "order": 1}, 1, p) for p in RANGES],
    # Of a Gaussian in sigma/alpha the midpoint rule happens to be of order 3.
    *[("heun", {"sigma_min": 0.4, "alpha": a}, 2, p) for a in (2 / 3, 1.1) for p in RANGES],
    *[("ode", {"method": "heun", "alpha": 2 / 3, **FLOW, **RANGES[p][1]}, 2, p) for p in RANGES],
    *[("dpm-solver++", {"sigma_min": 0.4}, 2, p) for p in RANGES],
    ("euler-maruyama", {**FLOW, "last": 0.4}, 1, "vp"),
    ("euler-maruyama", {**FLOW, "last": 0.4, "noise": 0.5}, 1, "vp"),
    ("reverse-diffusion", {**FLOW, "last": 0.4}, 1, "vp"),
    ("ddim", {"last": 0.4}, 1, "vp"),
    ("ancestral", {"last": 0.4}, 1, "vp"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "options", "order", "process"),
    ORDERS,
    ids=[
        f"{solver}-{options.get('method', '')}-{order}-{options.get('alpha', '')}-{process}"
        for solver, options, order, process in ORDERS
    ],
)
def test_order_of_convergence(solver: str, options: dict, order: int, process: str) -> None:
    """Covariance error between the exact marginals at the first time and at the last with noise.

    The slope of ln(error) against ln(steps), fitted over two doublings, is within 0.15 of minus the
    order: where the next order's share of the error is q, the slope is off by q/(2 ln 2), and q <
    0.2.
    """
    denoiser = exact_denoiser(ProcessSpec.choose({"name": process, **RANGES[process][0]}))
    counts, errors = COUNTS.get(options.get("method", solver), (32, 64, 128)), []
    for steps in counts:
        spec = SolverSpec.choose({"name": solver, "steps": steps, "threshold": "none", **options})
        built = build(spec, denoiser)
        times = built.times()
        times = times[built.process.sigma(times) > 0]
        first, last = (Marginal(built.process, times[i]) for i in (0, -1))
        _, got = propagate(built, times, AXES @ first.mean, DATA.rotated(first.variance))
        errors.append(float(torch.linalg.norm(got - DATA.rotated(last.variance))))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope + order) <= 0.15, (slope, errors)


@pytest.mark.parametrize(
    ("steps", "ratio", "unit"), [(10, 0.42, 0.01), (100, 0.88, 0.01), (1000, 0.985, 0.001)]
)
def test_variance_that_few_ancestral_steps_lose(steps: int, ratio: float, unit: float) -> None:
    """DDPM's linear chain and posterior variance, data of standard deviation 0.5 (EDM's
    sigma_data): the samples' variance over the data's, to the digits given."""
    process = ProcessSpec.choose({"name": "discrete", "schedule": "linear"})
    tensors = {"mean": ZERO[:1], "covariance": float64([[0.25]])}
    denoiser = GaussianDenoiser(GaussianSpec(), build(process), tensors)
    spec = SolverSpec.choose({"name": "ancestral", "steps": steps, "threshold": "none"})
    solver = build(spec, denoiser)
    probes = float64([0.0, 1.0, 0.0]).reshape(3, 1, 1, 1)
    noise = float64([0.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    times = solver.times()
    variance = float(solver.process.sigma(times[0])) ** 2
    for t, s in pairwise(times):
        b, one, noisy = solver.step(probes, t, s, UNCONDITIONAL, lambda _: noise).flatten().tolist()
        variance = (one - b) ** 2 * variance + (noisy - b) ** 2
    assert abs(variance / 0.25 - ratio) <= 0.5 * unit


#: Independent pixels, so that one fraction a pixel is one an eigen-direction: of less variance than
#: the noise's at the end, and of more.
SPREADS = float64([0.02, 0.25, 2.0])
CHAIN_GRIDS = [
    {"steps": 45},
    {"steps": 9},
    {"steps": 9, "grid": "strided"},
    {"steps": 7, "grid": "quadratic"},
    {"steps": 2},
]


def marginal_variance(process: Process, t: Tensor) -> Tensor:
    return process.alpha(t) ** 2 * SPREADS + process.sigma(t) ** 2


def exact_step_variance(process: Process, t: Tensor, s: Tensor) -> Tensor:
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
