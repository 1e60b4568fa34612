"""Solvers on a mixture of Gaussians, whose score is exact and whose flow is not linear.

All of them stop at the same noise level, where the mixture's components are still apart, and are compared
with a finer solution there: paths of the same start for solvers of the ODE, moments and marginals for
those of the SDE.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from toys import mixture_denoiser, no_noise, process_of

from diffbench.diffusion.core.condition import UNCONDITIONAL
from diffbench.diffusion.core.process import cast, float64
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.solvers.loop import Solver
from diffbench.diffusion.solvers.sde import EulerMaruyama
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import EulerMaruyamaSpec, ODESpec, SolverSpec

PIXELS = 2
#: The last time, where sigma/alpha is 0.25 to 0.5 and the components' deviations 0.14 to 0.32.
LAST = {"edm": 0.3, "sub-vp": 0.2, "ve": 0.25, "vp": 0.15, "vp-chain": 0.15, "vp-cosine": 0.2}
PARAMETERS = {"ve": {"sigma_min": 0.1, "sigma_max": 5.0}}
every_process = pytest.mark.parametrize("process", sorted(LAST))


@cache
def denoiser_of(process: str) -> Denoiser:
    return mixture_denoiser(process_of(process, **PARAMETERS.get(process, {})), PIXELS)


def solver_of(process: str, name: str, **settings: object) -> Solver:
    """One that runs from the process's largest noise to ``LAST``'s."""
    denoiser, known = denoiser_of(process), SolverSpec.known[name].model_fields
    given = {"name": name, "threshold": "none", **settings}
    if "sigma_min" in known:
        last = float(denoiser.process.ratio(float64(LAST[process])))
        given |= {"sigma_max": 1e9, "sigma_min": denoiser.process.spec.in_units(last)}
    else:
        given |= {"last": LAST[process]}
        if "grid" in known:
            given |= {"grid": "karras" if process == "edm" else "uniform"}
    if "denoise" in known:
        given |= {"denoise": "none"}
    return build(SolverSpec.choose(given), denoiser)


def noisy_times(solver: Solver) -> list[Tensor]:
    """The grid's times without the data's."""
    return [t for t in solver.times() if float(t) != solver.process.data_time]


def descend(solver: Solver, z: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
    """From standard normal z to the grid's last time with noise."""
    return descend_from(solver, solver.process.start(noisy_times(solver)[0], z), noise)


def descend_from(solver: Solver, x: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
    """From x at the grid's first time to its last with noise."""
    times = noisy_times(solver)
    solver.begin()
    for t, s in pairwise(times):
        x = solver.move(x, t, s, UNCONDITIONAL, noise)
    return x


def normals(count: int, seed: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Normal z (count, 1, 1, pixels), and more of the same stream."""
    generator = torch.Generator().manual_seed(seed)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=torch.float64)

    return noise(torch.empty(count, 1, 1, PIXELS)), noise


def test_every_continuous_process_is_here() -> None:
    """Of the package, with one alpha."""
    own = [
        name
        for name, spec in ProcessSpec.known.items()
        if spec.__module__.startswith("diffbench.specs") and spec.time == "continuous"
    ]
    assert sorted(LAST) == sorted(
        name
        for name in own
        if ProcessSpec.known[name].family == "gaussian"
        and ProcessSpec.known[name].alpha == "scalar"
    )


@cache
def fine_path(process: str) -> Tensor:
    """64 paths of RK4 with 512 steps: an eighth of the finest step below, so 4096 times closer than RK4 itself."""
    solver = solver_of(process, "ode", method="rk4", steps=512)
    return descend(solver, normals(64, 0)[0], no_noise)


#: Solvers without noise, and their orders.
FLOWS = {
    "ode-euler": ("ode", {"method": "euler"}, 1),
    "ode-heun": ("ode", {"method": "heun"}, 2),
    "ode-rk4": ("ode", {"method": "rk4"}, 4),
    "euler-maruyama-0": ("euler-maruyama", {"noise": 0}, 1),
    "reverse-diffusion-0": ("reverse-diffusion", {"noise": 0}, 1),
    "ddim": ("ddim", {}, 1),
    "heun": ("heun", {}, 2),
    "dpm-solver++": ("dpm-solver++", {}, 2),
}


@pytest.mark.slow
@every_process
@pytest.mark.parametrize("flow", FLOWS)
def test_flows_approach_the_fine_path_with_their_order(process: str, flow: str) -> None:
    """Twice the steps divide the root mean square error by 2^order, within a fifth, from an error that is
    below the components' distance of 1.

    With an error C h^p (1 + q) where q of h^(p + 1) is below 0.3 at 64 steps, halving h leaves it C h^p 2^-p
    (1 + q/2): the ratio is off by q/(2 + q) < 0.14.
    """
    name, settings, order = FLOWS[flow]
    z, errors = normals(64, 0)[0], []
    for steps in (64, 128):
        x = descend(solver_of(process, name, steps=steps, **settings), z, no_noise)
        errors.append(float((x - fine_path(process)).square().mean().sqrt()))
    assert errors[0] < 0.3
    assert 0.8 <= errors[1] * 2**order / errors[0] <= 1.2


@pytest.mark.slow
@every_process
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_the_adaptive_solver_finds_the_fine_path(process: str, tolerance: float) -> None:
    """A step may add tol (1 + |x|) as a root mean square; where components part, the flow spreads paths by up to
    the ratio of deviations there, about 2, and there are fewer than 50 steps."""
    solver = solver_of(process, "ode-adaptive", rtol=tolerance, atol=tolerance)
    z = normals(64, 0)[0]
    error = (descend(solver, z, no_noise) - fine_path(process)).square().mean().sqrt()
    largest = float(solver.process.sigma(float64(solver.process.t_max)))
    assert float(error) <= 50 * 2 * tolerance * (1 + largest) + 1e-8


DRAWS = 4000


@cache
def fine_draws(process: str) -> Tensor:
    """Euler-Maruyama with 512 steps, (draws, pixels)."""
    solver = solver_of(process, "euler-maruyama", steps=512)
    return descend(solver, *normals(DRAWS, 0)).reshape(DRAWS, PIXELS)


def features(x: Tensor) -> Tensor:
    """What has the means, variances and covariance as its mean: (draws, 5)."""
    centred = x - x.mean(0)
    return torch.cat([x, centred**2, centred.prod(1, keepdim=True)], 1)


def deviations(a: Tensor, b: Tensor) -> Tensor:
    """Differences of those moments in standard errors, estimated from both samples."""
    of_a, of_b = features(a), features(b)
    error = (of_a.var(0) / len(a) + of_b.var(0) / len(b)).sqrt()
    return (of_a.mean(0) - of_b.mean(0)) / error


#: Solvers with noise, and correctors with each other predictor.
NOISY = {
    "euler-maruyama-0.5": ("euler-maruyama", {"noise": 0.5}),
    "reverse-diffusion": ("reverse-diffusion", {}),
    "ancestral": ("ancestral", {"variance": "large"}),
    "ddim-1": ("ddim", {"eta": 1}),
    "heun-churn": ("heun", {"churn": 20}),
    "euler-maruyama-corrected": ("euler-maruyama", {"corrector": {"snr": 0.1}}),
    "ode-corrected": ("ode", {"corrector": {"snr": 0.1, "order": "corrector-first"}}),
}


@pytest.mark.slow
@pytest.mark.parametrize("process", ["edm", "vp", "vp-cosine"])
@pytest.mark.parametrize("noisy", NOISY)
def test_noisy_solvers_have_the_fine_moments(process: str, noisy: str) -> None:
    """Means, variances and the covariance of 4,000 draws with 128 steps within 4.5 standard errors of those of
    4,000 fine ones: 0.1 of a deviation for means, 0.14 of the variance for a normal one.

    Biases of first order are 2.5 standard errors or less.  For unbiased solvers one of the 105 comparisons
    fails with a chance of 0.07 % over the choice of seeds, which are fixed.
    """
    name, settings = NOISY[noisy]
    x = descend(solver_of(process, name, steps=128, **settings), *normals(DRAWS, 1))
    assert deviations(x.reshape(DRAWS, PIXELS), fine_draws(process)).abs().max() <= 4.5


@pytest.mark.slow
def test_langevin_alone_approaches_the_fine_moments() -> None:
    """The corrector lags behind the levels: with four times as many its largest deviation, far outside 4.5
    standard errors at 32, comes inside."""
    worst = []
    for steps in (32, 128):
        corrector = {"snr": 0.15, "updates": 4, "order": "corrector-first"}
        solver = solver_of("ve", "langevin", steps=steps, corrector=corrector)
        x = descend(solver, *normals(DRAWS, 1)).reshape(DRAWS, PIXELS)
        worst.append(float(deviations(x, fine_draws("ve")).abs().max()))
    assert worst[0] > 9 and worst[1] <= 4.5


#: Of all eight directions together; each is tested at an eighth of it.
LEVEL, DIRECTIONS, MANY = 0.01, 8, 8000
#: In standard deviations: see ``test_the_test_detects_what_it_says``.
SHIFT = 0.11


def projections(x: np.ndarray) -> np.ndarray:
    """Onto eight directions of the half circle, (directions, draws)."""
    angles = np.arange(DIRECTIONS) * math.pi / DIRECTIONS
    return np.stack([np.cos(angles), np.sin(angles)]).T @ x.T


def critical(draws: int, level: float) -> float:
    """Smirnov's: P(D > sqrt(-ln(level/2)/draws)) is at most the level, to leading order, for equal numbers."""
    return math.sqrt(-math.log(level / 2) / draws)


def differ(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the Kolmogorov-Smirnov test of any projection rejects, at 1 % in all."""
    pairs = zip(projections(x), projections(y), strict=True)
    largest = max(ks_2samp(a, b, method="asymp").statistic for a, b in pairs)
    return largest > critical(len(x), LEVEL / DIRECTIONS)


class WrongDrift(EulerMaruyama):
    """The noise of the reverse SDE with the flow's drift."""

    def advance(self, x_t, t, s, condition, noise):
        flow = build(ODESpec(steps=1, method="euler"), self.denoiser).advance(
            x_t, t, s, condition, noise
        )
        g2 = self.process.g2(t) * (t - s)
        return flow + cast(g2.sqrt(), x_t) * noise(x_t)


def exact(process: str, t: Tensor, seed: int) -> Tensor:
    """Draws of the mixture's own marginal at t, (draws, 1, 1, pixels)."""
    denoiser, generator = denoiser_of(process), torch.Generator().manual_seed(seed)
    weights, means, covariances = denoiser.tensors.values()
    component = torch.multinomial(weights, MANY, True, generator=generator)
    z, noise = torch.randn(2, MANY, PIXELS, generator=generator, dtype=torch.float64)
    spread = torch.linalg.cholesky(covariances)[component] @ z[..., None]
    x0 = (means[component] + spread[..., 0]).reshape(MANY, 1, 1, PIXELS)
    return denoiser.process.diffuse(x0, t, noise.reshape(x0.shape))


def many(solver: Solver, seed: int) -> np.ndarray:
    """Draws from the exact marginal at the first time: the flow remembers what the prior lacks of it."""
    x = exact(solver.process.spec.name, noisy_times(solver)[0], seed)
    x = descend_from(solver, x, normals(1, seed + 1000)[1])
    return x.reshape(MANY, PIXELS).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("process", ["vp", "ve", "edm"])
def test_sde_and_ode_have_the_same_marginals(process: str) -> None:
    """Two-sample tests of 8,000 draws each on eight projections, at a level of 1 % in all, which would detect a
    shift of 0.11 standard deviations of a normal projection with 95 % power.

    They agree with each other and with the mixture's own marginal; the noise of the SDE with the flow's drift
    does not agree.
    """
    flow = many(solver_of(process, "ode", method="rk4", steps=64), 1)
    sde = many(solver_of(process, "euler-maruyama", steps=256), 2)
    truth = exact(process, float64(LAST[process]), 4).reshape(MANY, PIXELS).numpy()
    assert not differ(flow, sde) and not differ(flow, truth) and not differ(sde, truth)
    spec = solver_of(process, "euler-maruyama", steps=64).spec
    assert differ(flow, many(WrongDrift(spec, denoiser_of(process)), 3))


@pytest.mark.slow
def test_the_family_between_has_them_too_but_not_with_half_the_noise() -> None:
    """noise: 0.5 against the flow; and its noise with the drift of noise: 0."""
    flow = many(solver_of("vp", "heun", steps=64), 1)
    between = solver_of("vp", "euler-maruyama", steps=256, noise=0.5)
    assert not differ(flow, many(between, 2))

    class HalfWrong(EulerMaruyama):
        """gbar = g/2 without its share of the drift."""

        def advance(self, x_t, t, s, condition, noise):
            quiet = EulerMaruyama(EulerMaruyamaSpec(steps=1, noise=0), self.denoiser)
            g2 = self.process.g2(t) * (t - s) / 4
            return quiet.advance(x_t, t, s, condition, noise) + cast(g2.sqrt(), x_t) * noise(x_t)

    assert differ(flow, many(HalfWrong(between.spec, denoiser_of("vp")), 3))


@pytest.mark.slow
def test_the_test_keeps_its_level_and_detects_what_it_says() -> None:
    """The empirical distributions differ in the middle by at least 2 Phi(0.11/2) - 1 = 0.0439, give or take
    sqrt(1/2/8000) = 0.0079 (standard deviation), against a critical 0.0304: 0.0135 or 1.7 of them below, so
    that the power is 95 % or more.  Of 50 pairs without and with the shift at most 3 and at least 43 are rejected:
    4 at a level of 1 %, and 42 at a power of 95 %, have chances of 0.2 % and 0.4 %, over the choice of the seed."""
    assert critical(MANY, LEVEL / DIRECTIONS) == pytest.approx(0.0304, abs=5e-5)
    rng, same, shifted = np.random.default_rng(0), 0, 0
    for _ in range(50):
        x, y = rng.standard_normal((2, MANY, PIXELS))
        same += differ(x, y)
        shifted += differ(x, y + np.array([SHIFT, 0.0]))
    assert same <= 3 and shifted >= 43
