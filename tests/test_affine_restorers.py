r"""Restorers on Gaussian data, where what they return is Gaussian and known in closed form.

With the data and the exact denoiser of ``test_affine``, every update is an affine map of the state, the measurement y
is a constant, and so mean and covariance pass through the recursion (scalars, one for each eigenvector of the data's
covariance, where every pixel is measured)

    mean <- A mean + b,      covariance <- A covariance A^T + Q

``RECURSIONS`` writes A, b and Q from the papers with dense matrices: H is applied to unit images, and its
decomposition and pseudo-inverse are LAPACK's.  The implementation's mean is what it returns without noise, and its
covariance the sum of what single noises do to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from test_affine import (
    COVARIANCE,
    DATA,
    DIM,
    MEAN,
    RULES,
    Affine,
    Data,
    Marginal,
    start_mean,
    start_std,
    update,
)
from torch import Tensor
from toys import close, process_of

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.diffusion.inverse.operators.operator import Degradation, Operator
from diffbench.diffusion.inverse.restorers import ddrm as ddrm_module
from diffbench.diffusion.inverse.restorers import snips as snips_module
from diffbench.diffusion.inverse.restorers import steering as steering_module
from diffbench.diffusion.inverse.restorers.restorer import Measurement, Restorer
from diffbench.diffusion.inverse.restorers.tuned import InpaintTuned
from diffbench.diffusion.solvers import loop as loop_module
from diffbench.diffusion.solvers.loop import Solver
from diffbench.specs.denoisers import GaussianSpec
from diffbench.specs.operators import OperatorSpec
from diffbench.specs.registry import build
from diffbench.specs.restorers import RestorerSpec

EYE = torch.eye(DIM, dtype=torch.float64)
#: One image, from which measurements are made.
TRUTH = float64([0.5, -0.6, 0.2])
#: A training set, for what is fitted to one.
IMAGES = torch.rand(20, DIM, generator=torch.Generator().manual_seed(0)).double()

#: Operators of three pixels: in a row, in a column, or in three channels.
SHAPES = {"mri": (1, 3, 1), "colourisation": (3, 1, 1)}
DENOISING = {"name": "identity"}
MASK = {"name": "mask", "rows": [".#."]}
BLUR = {"name": "gaussian-blur", "size": 3, "std": 0.6}
COLOUR = {"name": "colourisation"}
MRI = {"name": "mri", "acceleration": 1.5, "centre": 0.3}
CT = {"name": "ct", "angles": 2, "full": 4}


class Problem(NamedTuple):
    """y = H x + noise, by dense matrices."""

    operator: Operator
    H: Tensor
    y: Tensor
    std: float

    @property
    def measurement(self) -> Measurement:
        return Measurement(self.operator, self.operator.apply(self.image(TRUTH[None])), self.std)

    def image(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.operator.image_shape)

    def pseudo_inverse(self) -> Tensor:
        return torch.linalg.pinv(self.H, rtol=1e-9)


def posed(operator: dict, std: float) -> Problem:
    shape = SHAPES.get(operator["name"], (1, 1, 3))
    H = build(OperatorSpec.choose(operator), shape)
    columns = H.apply(EYE.reshape(-1, *shape)).flatten(1).T
    return Problem(H, columns, columns @ TRUTH, std)


class Moments(NamedTuple):
    mean: Tensor
    covariance: Tensor

    def through(self, A: Tensor, b: Tensor, Q: Tensor) -> Moments:
        return Moments(A @ self.mean + b, A @ self.covariance @ A.T + Q)

    def after(self, step: Affine, data: Data = DATA) -> Moments:
        """A step whose maps are in the data's eigen-coordinates."""
        noise = data.rotated((step.n**2).sum(0))
        return self.through(data.rotated(step.A), data.axes @ step.b, noise)


NOWHERE = Moments(torch.zeros(DIM).double(), torch.zeros(DIM, DIM).double())


def noised(scale: Tensor | float, x: Tensor = NOWHERE.mean) -> Moments:
    return Moments(x, float(scale) ** 2 * EYE)


# The papers' recursions.


def imposed(state: Moments, problem: Problem, t: Marginal, R: Tensor, mix: float = 1.0) -> Moments:
    """Eq. 10 of the medical paper with R the inverse of the measured part of the transform: x + mix R (y_t - H x) with
    y_t = alpha y + sigma H z; Score SDE's imputation and ILVR's refinement have mix 1 and R = H^+."""
    spread = mix * t.sigma * R @ problem.H
    return state.through(
        EYE - mix * R @ problem.H, mix * R @ (t.alpha * problem.y), spread @ spread.T
    )


def down(
    state: Moments,
    restorer: RestorerSpec,
    solver: Solver,
    times: Tensor,
    impose: Callable[[Moments, Marginal], Moments],
) -> Moments:
    """Predictor, imposition, and as often as is asked corrector, imposition; data are not corrected."""
    spec = restorer.inner
    marginals = [Marginal(solver.process, t) for t in times]
    corrector = getattr(spec, "corrector", None)
    for t, s in pairwise(marginals):
        state = impose(state.after(RULES[spec.name](spec, t, s)), s)
        if corrector is not None and s.sigma > 0:
            for _ in range(corrector.updates):
                state = impose(state.after(update(spec, s)), s)
    return state


def steered(restorer: RestorerSpec, solver: Solver, problem: Problem) -> Moments:
    times = solver.times()
    state = noised(start_std(restorer.inner, solver.process, times), start_mean(solver.process))
    return down(state, restorer, solver, times, rule_of(restorer, times, problem))


def rule_of(
    restorer: RestorerSpec, times: Tensor, problem: Problem
) -> Callable[[Moments, Marginal], Moments]:
    """What is done after an update."""
    R = problem.pseudo_inverse()
    if restorer.name == "medical":
        unit = torch.eye(len(problem.y), dtype=torch.float64)
        y = unit.reshape(-1, *problem.operator.measurement_shape)
        R = problem.operator.zero_filled(y).flatten(1).T
    mix = getattr(restorer, "mix", 1.0)
    conditioned = round(getattr(restorer, "until", 1.0) * (len(times) - 1))

    def rule(state: Moments, t: Marginal) -> Moments:
        steps = int((times > t.t).sum())
        return imposed(state, problem, t, R, mix) if steps <= conditioned else state

    return rule


def ccdf(restorer: RestorerSpec, solver: Solver, problem: Problem) -> Moments:
    """Start at the time from which ``start`` of the steps are left, from alpha estimate + sigma z."""
    times, R = solver.times(), problem.pseudo_inverse()
    kept = times[-round(restorer.start * (len(times) - 1)) - 1 :]
    middle = torch.full((DIM,), solver.process.middle, dtype=torch.float64)
    estimate = middle + R @ (problem.y - problem.H @ middle)
    if restorer.estimate.name == "posterior-mean":
        centred = IMAGES - IMAGES.mean(0)
        estimate = gaussian_posterior(
            problem, IMAGES.mean(0), centred.T @ centred / len(IMAGES)
        ).mean
    t = Marginal(solver.process, kept[0])
    state = noised(t.sigma, t.alpha * estimate)
    rule = rule_of(restorer.around, times, problem)
    return down(state, restorer.around, solver, kept, rule)


def gaussian_posterior(problem: Problem, mean: Tensor, covariance: Tensor) -> Moments:
    """Of x ~ N(mean, covariance) given y, by completing the square."""
    H, noise = problem.H, problem.std**2 * torch.eye(len(problem.y), dtype=torch.float64)
    gain = covariance @ H.T @ torch.linalg.pinv(H @ covariance @ H.T + noise, rtol=1e-12)
    return Moments(mean + gain @ (problem.y - H @ mean), covariance - gain @ H @ covariance)


class Spectrum(NamedTuple):
    """Singular coordinates u = V^T x, y/s and w = std/s; w is infinite and y/s is 0 where nothing is measured."""

    V: Tensor
    given: Tensor
    w: Tensor


def spectrum(problem: Problem) -> Spectrum:
    U, s, Vh = torch.linalg.svd(problem.H)
    rank = int((s > 1e-9).sum())
    given, w = torch.zeros(DIM).double(), torch.full((DIM,), math.inf).double()
    given[:rank] = (U.T @ problem.y)[:rank] / s[:rank]
    w[:rank] = problem.std / s[:rank]
    return Spectrum(Vh.T, given, w)


def ddrm(restorer: RestorerSpec, restored: Restorer, problem: Problem) -> Moments:
    """Equations 7 and 8 for x/alpha: u, v and y/s are weighted, and noise added, coordinate by coordinate."""
    V, given, w = spectrum(problem)
    etas = restorer.eta, restorer.eta if restorer.eta_a is None else restorer.eta_a, restorer.eta_b
    marginals = [Marginal(restored.process, t) for t in restored.times()]
    r = [float(t.sigma / t.alpha) for t in marginals]
    known = w < r[0]
    n = torch.where(known, r[0] ** 2 - torch.where(known, w, 0.0) ** 2, r[0] ** 2)
    middle = V.T @ start_mean(restored.process)
    state = Moments(V @ torch.where(known, given, middle), V @ n.diag() @ V.T)
    for i, (t, _) in enumerate(pairwise(marginals)):
        weights = [weigh(float(each), r[i], r[i + 1], *etas) for each in w]
        of_u, of_v, of_y, n = (float64(list(each)) for each in zip(*weights, strict=True))
        A0, b0 = DATA.rotated(t.x0.A) * t.alpha, DATA.axes @ t.x0.b
        state = state.through(
            V @ (of_u.diag() @ V.T + of_v.diag() @ V.T @ A0),
            V @ (of_v * (V.T @ b0) + of_y * given),
            V @ (n**2).diag() @ V.T,
        )
    return state


def weigh(
    w: float, r_t: float, r_s: float, eta_c: float, eta_a: float, eta_b: float
) -> tuple[float, float, float, float]:
    """The weights of u, of the prediction v and of y/s, and the noise, of one coordinate."""
    if w == math.inf:
        kept = (1 - eta_c**2) ** 0.5 * r_s
        return kept / r_t, 1 - kept / r_t, 0.0, eta_c * r_s
    if r_s < w:
        kept = (1 - eta_a**2) ** 0.5 * r_s
        return 0.0, 1 - kept / w, kept / w, eta_a * r_s
    return 0.0, 1 - eta_b, eta_b, (r_s**2 - (eta_b * w) ** 2) ** 0.5


def ddrm_for_jpeg(restorer: RestorerSpec, restored: Restorer, problem: Problem) -> Moments:
    """x0 - H^+ H x0 + H^+ y in place of x0, and DDIM's step with eta."""
    marginals = [Marginal(restored.process, t) for t in restored.times()]
    projector = restorer.eta_b * problem.pseudo_inverse()
    t = marginals[0]
    state = noised(t.sigma / t.alpha, start_mean(restored.process))
    for t, s in pairwise(marginals):
        A0, b0 = DATA.rotated(t.x0.A) * t.alpha, DATA.axes @ t.x0.b
        r_t, r_s = t.sigma / t.alpha, s.sigma / s.alpha
        kept = (1 - restorer.eta**2) ** 0.5 * r_s / r_t
        A = (EYE - projector @ problem.H) @ A0 + kept * (EYE - A0)
        b = (EYE - projector @ problem.H) @ b0 + projector @ problem.y - kept * b0
        state = state.through(A, b, (restorer.eta * r_s) ** 2 * EYE)
    return state


def snips(restorer: RestorerSpec, restored: Restorer, problem: Problem) -> Moments:
    """Algorithm 1 for x/alpha: u + h G + sqrt(2 h) z, G and h by the coordinate's noise w beside the level's r."""
    V, given, w = spectrum(problem)
    marginals = [Marginal(restored.process, t) for t in restored.times()]
    state = noised(marginals[0].sigma / marginals[0].alpha, start_mean(restored.process))
    for t in marginals:
        r = float(t.sigma / t.alpha)
        # d ln p/d(x/alpha) is alpha times the score of x.
        P, R = V.T @ DATA.rotated(t.P * t.alpha**2) @ V, V.T @ DATA.axes @ (t.R * t.alpha)
        well = w <= r
        pull = torch.where(w.isinf(), 0.0, 1 / (w**2 - r**2).abs())
        h = restorer.step * torch.where(well, r**2 - w**2, r**2 * (1 - r**2 / w**2))
        slope = torch.where(well, 0.0, 1.0)[:, None] * P - pull.diag()
        b = torch.where(well, 0.0, R) + pull * given
        A = V @ (EYE + h[:, None] * slope) @ V.T
        for _ in range(restorer.updates):
            state = state.through(A, V @ (h * b), V @ (2 * h).diag() @ V.T)
    return state


# The implementation's moments.


@contextmanager
def noises(given: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """All noise that restorers draw is ``given``."""
    modules = (steering_module, ddrm_module, snips_module, loop_module)
    before = [module.normal_like for module in modules]
    for module in modules:
        module.normal_like = lambda like, generator: given(like)
    try:
        yield
    finally:
        for module, function in zip(modules, before, strict=True):
            module.normal_like = function


def probed(restorer: Restorer, problem: Problem) -> Moments:
    """Without noise the mean; with one number of one noise at a time a column of a root of the covariance."""
    measurement, generator = problem.measurement, torch.Generator()
    calls: list[int] = []
    with noises(lambda like: calls.append(1) or torch.zeros_like(like)):
        mean = restorer.restore(measurement, generator).flatten()
    units = iter(torch.eye(len(calls) * DIM, dtype=torch.float64).split(DIM, dim=1))
    many = measurement.y.expand(len(calls) * DIM, *measurement.y.shape[1:])
    with noises(lambda like: next(units).reshape(like.shape)):
        x = restorer.restore(Measurement(measurement.operator, many, problem.std), generator)
    root = (x.flatten(1) - mean).T
    return Moments(mean, root @ root.T)


def exact(process: Process) -> Denoiser:
    tensors = {"mean": MEAN, "covariance": COVARIANCE}
    return GaussianDenoiser(GaussianSpec(), process, tensors)


def built(spec: RestorerSpec, denoiser: Denoiser, problem: Problem) -> Restorer:
    facts = {
        "denoiser": lambda: denoiser,
        "solver": lambda: build(spec.inner, denoiser),
        "around": lambda: built(spec.around, denoiser, problem),
        "estimate": lambda: built(spec.estimate, denoiser, problem),
        "images": lambda: problem.image(IMAGES),
        "middle": lambda: denoiser.process.middle,
    }
    return build(spec, **{name: facts[name]() for name in spec.facts})


def agree(got: Moments, want: Moments) -> None:
    """To 1e-9: entries of order 1, of recursions that lose no more than 1e-11 (``test_affine``)."""
    close(got.mean, want.mean, rtol=0, atol=1e-9)
    close(got.covariance, want.covariance, rtol=0, atol=1e-9)


# Each restorer, with its settings, on problems that show its every case.

CORRECTED = {"corrector": {"step_size": 2e-3, "updates": 2}}
ANCESTRAL = {"name": "ancestral", "steps": 9, "threshold": "none"}
LARGE = {**ANCESTRAL, "variance": "large"}
REVERSE = {"name": "reverse-diffusion", "steps": 24, **CORRECTED}
EULER = {"name": "euler-maruyama", "steps": 9}
DDIM = {"name": "ddim", "steps": 9, "threshold": "none"}
STEERED = [
    {"name": "impute", "solver": REVERSE},
    {"name": "impute", "solver": {**EULER, **CORRECTED}},
    {"name": "replace", "solver": ANCESTRAL},
    {"name": "replace", "solver": LARGE},
    {"name": "replace", "solver": DDIM},
    {"name": "ilvr", "solver": ANCESTRAL},
    {"name": "ilvr", "solver": ANCESTRAL, "until": 0.5},
    {"name": "ilvr", "solver": ANCESTRAL, "until": 0},
    {"name": "medical", "solver": EULER},
    {"name": "medical", "solver": REVERSE, "mix": 0.6},
]
IN_PART = [
    {"around": {"name": "replace", "solver": ANCESTRAL}, "start": 1 / 3},
    {"around": {"name": "impute", "solver": REVERSE}, "start": 0.5},
    {
        "around": {"name": "ilvr", "solver": LARGE, "until": 0.8},
        "start": 2 / 3,
        "estimate": {"name": "posterior-mean"},
    },
]
CASES = [
    (DENOISING, 0.0),
    (DENOISING, 0.3),
    (MASK, 0.0),
    (MASK, 0.2),
    (BLUR, 0.1),
    (COLOUR, 0.1),
    (MRI, 0.0),
    (CT, 0.05),
]
DDRMS = [{}, {"eta": 0.0}, {"eta": 1.0, "eta_b": 0.4}, {"steps": 5, "grid": "karras"}]
APART = [{"eta": 0.9, "eta_a": 0.3, "eta_b": 0.6}, {"eta": 0.2, "eta_a": 1.0}]
PROCESSES = ["vp", "ve", "edm"]


def word(given: object) -> str:
    if not isinstance(given, dict):
        return str(given)
    return "-".join(word(each) for each in given.values()) or "default"


on_processes = pytest.mark.parametrize("process", PROCESSES)
on_problems = pytest.mark.parametrize(("operator", "std"), CASES, ids=word)


@pytest.mark.slow
@on_problems
@pytest.mark.parametrize("given", STEERED, ids=word)
@on_processes
def test_steered_solvers(process: str, given: dict, operator: dict, std: float) -> None:
    problem, spec, denoiser = posed(operator, std), RestorerSpec.choose(given), at_work(process)
    restorer = built(spec, denoiser, problem)
    agree(probed(restorer, problem), steered(spec, restorer.solver, problem))


@on_problems
@pytest.mark.parametrize("given", IN_PART, ids=word)
@on_processes
def test_ccdf(process: str, given: dict, operator: dict, std: float) -> None:
    problem, spec = posed(operator, std), RestorerSpec.choose({"name": "ccdf", **given})
    restorer = built(spec, at_work(process), problem)
    agree(probed(restorer, problem), ccdf(spec, restorer.around.solver, problem))


@on_problems
@pytest.mark.parametrize("given", DDRMS + APART, ids=word)
@on_processes
def test_ddrm(process: str, given: dict, operator: dict, std: float) -> None:
    problem, spec = posed(operator, std), RestorerSpec.choose({"name": "ddrm", **given})
    restorer = built(spec, at_work(process), problem)
    agree(probed(restorer, problem), ddrm(spec, restorer, problem))


class Opaque(Degradation):
    """An operator whose matrix is not told: what DDRM does to JPEG, on an affine case."""

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator.spec, operator.image_shape)
        self.operator, self.measurement_shape = operator, operator.measurement_shape

    def apply(self, x: Tensor) -> Tensor:
        return self.operator.apply(x)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.operator.pseudo_inverse(y)


@on_problems
@pytest.mark.parametrize("given", DDRMS, ids=word)
def test_ddrm_of_what_is_no_matrix(given: dict, operator: dict, std: float) -> None:
    problem, spec = posed(operator, std), RestorerSpec.choose({"name": "ddrm", **given})
    restorer = built(spec, at_work("vp"), problem)
    opaque = problem._replace(operator=Opaque(problem.operator))
    agree(probed(restorer, opaque), ddrm_for_jpeg(spec, restorer, problem))


@on_problems
@on_processes
def test_snips(process: str, operator: dict, std: float) -> None:
    """Where w = std/s meets a level exactly, nothing moves; no level here is .3, .2 or .1 but to rounding."""
    given = {"name": "snips", "levels": 12, "updates": 2, "step": 0.3, "sigma_max": 40}
    problem, spec = posed(operator, std), RestorerSpec.choose(given)
    restorer = built(spec, at_work(process), problem)
    agree(probed(restorer, problem), snips(spec, restorer, problem))


#: Where the last level's noise, at most .01 and left in what is returned, is less than half a percent of sqrt(v + r^2).
NOISY = [(operator, std) for operator, std in CASES if std >= 0.1]


@pytest.mark.slow
@pytest.mark.parametrize(("operator", "std"), NOISY, ids=word)
@on_processes
def test_snips_nears_the_posterior(process: str, operator: dict, std: float) -> None:
    """With its defaults within 5 % of each pixel's standard deviation, and of its mean in units of those.

    Levels half as far apart halve the gap: a level r moves the state by a share of order r^2/v per update, so that
    with n levels a factor of e it freezes where r^2/v is of order 1/n, and is as far from the posterior by then.  What
    is of order 1/n^2, and what the last level leaves, may each be a tenth.
    """
    problem = posed(operator, std)
    posterior = gaussian_posterior(problem, MEAN, COVARIANCE)
    scale, gaps = posterior.covariance.diag().sqrt(), []
    levels = RestorerSpec.choose("snips").levels
    for finer in (1, 2, 4):
        spec = RestorerSpec.choose({"name": "snips", "levels": finer * levels})
        got = snips(spec, built(spec, at_work(process), problem), problem)
        assert ((got.mean - posterior.mean).abs() <= 0.05 * scale).all()
        gaps.append(float((got.covariance.diag().sqrt() / scale - 1).abs().max()))
    assert gaps[0] <= 0.05
    assert all(0.4 <= after / before <= 0.6 for before, after in pairwise(gaps)), gaps


def at_work(process: str) -> Denoiser:
    return exact(process_of(process))


class Told(Denoiser):
    """The exact denoiser of the data given the pixels that it is told of."""

    takes_masks = True

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        known = condition.known
        assert known is not None
        places, image = known.mask[0].flatten() > 0, known.image[0].flatten()
        data = conditional(EYE[places], image[places])
        marginal = Marginal(self.process, t.flatten()[0], data)
        x0 = x_t.flatten(1) @ data.rotated(marginal.x0.A).T + data.axes @ marginal.x0.b
        return Prediction(self.process, x_t, t, "x0", x0.reshape(x_t.shape))


def conditional(H: Tensor, y: Tensor) -> Data:
    """The data given H x = y."""
    problem = Problem(build(OperatorSpec.choose(DENOISING), (1, 1, 3)), H, y, 0.0)
    mean, covariance = gaussian_posterior(problem, MEAN, COVARIANCE)
    variances, axes = torch.linalg.eigh(covariance)
    return Data(mean, axes, variances.clamp(min=0))


@pytest.mark.parametrize("solver", [ANCESTRAL, LARGE, EULER], ids=word)
@on_processes
def test_a_model_that_is_told(process: str, solver: dict) -> None:
    """The solver's own moments on the data given the pixels: nothing else is done to it."""
    problem = posed(MASK, 0.0)
    spec = RestorerSpec.choose({"name": "inpaint-tuned", "solver": solver})
    restorer = InpaintTuned(spec, build(spec.solver, Told(process_of(process))))
    times = restorer.solver.times()
    data = conditional(problem.H, problem.y)
    process = restorer.solver.process
    state = noised(start_std(spec.solver, process, times), start_mean(process))
    for t, s in pairwise(Marginal(process, each, data) for each in times):
        state = state.after(RULES[spec.solver.name](spec.solver, t, s), data)
    agree(probed(restorer, problem), state)
