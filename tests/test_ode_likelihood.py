r"""The ODE's likelihood against closed forms, score_sde's arrays, counts of passes and itself.

For data N(m, C), C and alpha diagonal in the same orthonormal coordinates, the ODE is affine in each of them: with
v = alpha^2 c + sigma^2, a = alpha(last), and r^2 = v(t_max)/v(last),

    z = r (x - a m) + alpha(t_max) m,          log p(x) = sum log N(z; 0, prior_std^2) + log r.

This is what is computed, the prior's mismatch and the noise at ``last`` included, and the truth here.
"""

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from toys import Toy, close, process_of, recorded, toy_eps

from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core import integrators
from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.core.streams import normal_like
from diffbench.diffusion.denoisers.denoiser import Counted, Denoiser
from diffbench.diffusion.denoisers.exact import GaussianDenoiser, MixtureDenoiser
from diffbench.diffusion.likelihoods.ode import PROBES, ODELikelihood
from diffbench.diffusion.processes.gaussian import GaussianProcess
from diffbench.diffusion.solvers.loop import solve
from diffbench.specs.denoisers import GaussianSpec, MixtureSpec
from diffbench.specs.likelihoods import LikelihoodSpec, ODELikelihoodSpec
from diffbench.specs.processes import DiscreteSpec, EDMSpec, ProcessSpec, VESpec, VPSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import AdaptiveODESpec

CELLS = GreyLevels(256)
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


class Rotation:
    """Coordinates of two pixels, turned by 0.7."""

    B = torch.tensor([[math.cos(0.7), math.sin(0.7)], [-math.sin(0.7), math.cos(0.7)]]).double()

    def scale(self, factor: Tensor | float, x: Tensor) -> Tensor:
        return (factor * (x @ self.B.T.to(x))) @ self.B.to(x)


class TwoRatesSpec(ProcessSpec):
    """No name by default, so it is not registered."""

    alpha: ClassVar = "vector"

    @property
    def t_min(self) -> float:
        return 1e-4


class TwoRates(GaussianProcess):
    """alpha = (exp(-t), exp(-3 t)) in turned coordinates, sigma^2 = 1 - exp(-2 t)."""

    basis = Rotation()
    rates = float64([1.0, 3.0]).reshape(1, 1, 1, 2)

    def alpha(self, t: Tensor) -> Tensor:
        return (-self.rates * t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-2 * t)).sqrt()

    def f(self, t: Tensor) -> Tensor:
        return -self.rates * torch.ones_like(t)

    def sigma2_rate(self, t: Tensor) -> Tensor:
        return 2 * (-2 * t).exp()


@dataclass
class Gaussian:
    """Gaussian data, their exact denoiser and the closed form; ``axes`` are columns (D, D), the rest (D,)."""

    denoiser: Denoiser
    axes: Tensor
    mean: Tensor
    variances: Tensor

    @property
    def process(self) -> GaussianProcess:
        return self.denoiser.process

    def ends(self) -> tuple[Tensor, Tensor, Tensor]:
        """alpha at the first and last time, and r; (1 or D,)."""
        first = float64(ODELikelihoodSpec().first_time(self.process.spec))
        times = (first, float64(self.process.t_max))
        a, b = (self.process.alpha(t).flatten() for t in times)
        v, w = (
            alpha**2 * self.variances + self.process.sigma(t) ** 2
            for alpha, t in zip((a, b), times, strict=True)
        )
        return a, b, (w / v).sqrt()

    def draw(self, count: int) -> Tensor:
        z = torch.randn(count, len(self.mean), generator=torch.Generator().manual_seed(5)).double()
        x = (self.mean + self.variances.sqrt() * z) @ self.axes.T
        return x.reshape(count, 1, 1, -1)

    def log_prob(self, x: Tensor) -> Tensor:
        a, b, r = self.ends()
        z = r * (x.flatten(1) @ self.axes - a * self.mean) + b * self.mean
        return self.process.prior_log_prob(z @ self.axes.T) + r.log().sum()

    def bits(self) -> float:
        """The mean of -log2 p/D over the data."""
        a, b, r = self.ends()
        mean, variance = (r * (1 - a) + b) * self.mean, r**2 * self.variances
        mean = mean - self.process.prior_mean * (self.axes.T @ torch.ones_like(self.mean))
        s2 = self.process.prior_std**2
        nats = ((variance + mean**2) / s2 + math.log(2 * math.pi * s2)) / 2 - r.log()
        return float(nats.mean()) / math.log(2)

    def entropy(self) -> float:
        """The data's own bits per dimension."""
        return float((2 * math.pi * math.e * self.variances).log().mean()) / 2 / math.log(2)

    def trace(self) -> Tensor:
        """The integral of the drift's derivative, (D, D): log r on the axes."""
        return self.axes * self.ends()[2].log() @ self.axes.T


MEAN, VARIANCES = float64([0.3, -0.2, 0.1]), float64([0.04, 0.25, 0.6])
AXES = torch.linalg.qr(float64([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0], [1.0, 0.0, 3.0]]))[0]


def on_process(name: str) -> Gaussian:
    tensors = {"mean": AXES @ MEAN, "covariance": AXES * VARIANCES @ AXES.T}
    denoiser = GaussianDenoiser(GaussianSpec(), process_of(name), tensors)
    return Gaussian(denoiser, AXES, MEAN, VARIANCES)


def on_two_rates() -> Gaussian:
    process = TwoRates(TwoRatesSpec(name="two-rates"))
    B, mean, variances = Rotation.B, MEAN[:2], VARIANCES[:2]

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha = process.alpha(t).flatten()
        v = alpha**2 * variances + process.sigma(t) ** 2
        return -((x @ B.T - alpha * mean) / v) @ B

    return Gaussian(Toy(process, "score", score), B.T, mean, variances)


#: By how many bits/dim the truth exceeds the data's entropy, at most.  VE's data are at most .37 + .87 from the middle
#: of its range in three pixels: 1.24^2/(2 50^2 3 ln 2) = 1.5e-4.
EXCESS = {"vp": 2e-6, "sub-vp": 2e-6, "ve": 2e-4, "edm": 1e-5, "vp-cosine": 2e-6, "two-rates": 0.02}
CASES = {name: on_two_rates() if name == "two-rates" else on_process(name) for name in EXCESS}
every_case = pytest.mark.parametrize("name", CASES)


def likelihood_of(
    denoiser: Denoiser, cells: GreyLevels = CELLS, **options: object
) -> ODELikelihood:
    return ODELikelihood(ODELikelihoodSpec(**options), denoiser, cells)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(9)


def bits(log_prob: Tensor, x: Tensor) -> Tensor:
    return -log_prob / x[0].numel() / math.log(2)


@every_case
def test_the_truth_is_hardly_above_the_datas_entropy(name: str) -> None:
    assert 0 < CASES[name].bits() - CASES[name].entropy() < EXCESS[name]


@every_case
def test_bits_with_the_exact_trace(name: str) -> None:
    case, spec = CASES[name], CASES[name].process.spec
    cells = GreyLevels(256, spec.low, spec.high)
    x = case.draw(50)
    got = likelihood_of(case.denoiser, cells, trace="exact")(x, generator())["total"]
    x = x + (torch.rand(x.shape, generator=generator(), dtype=x.dtype) - 0.5) * cells.spacing
    close(got, bits(case.log_prob(x), x) - math.log2(cells.spacing), rtol=0, atol=1e-3)


@every_case
@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("probes", [1, 3])
def test_bits_with_probes(name: str, probe: str, probes: int) -> None:
    """The mean over data is within 4 standard errors, and each value is that of its probes."""
    case = CASES[name]
    x, n = case.draw(400), 400
    likelihood = likelihood_of(case.denoiser, probe=probe, probes=probes)
    with torch.no_grad():
        got = bits(likelihood.log_prob(x, generator())[0], x)
    assert abs(float(got.mean()) - case.bits()) < 4 * float(got.std()) / math.sqrt(n)
    exact = case.log_prob(x)
    noise = got - bits(exact, x)
    assert abs(float(noise.mean())) < 4 * float(noise.std()) / math.sqrt(n)
    vectors = torch.stack(likelihood.probes(x, generator())).flatten(2)
    forms = torch.einsum("kbi,ij,kbj->kb", vectors, case.trace(), vectors).mean(0)
    close(got, bits(exact - case.trace().trace() + forms, x), rtol=0, atol=1e-3)


#: The order of each method, and a number of steps.
ORDERS = {"euler": (1, 200), "heun": (2, 100), "rk4": (4, 20), "dormand-prince": (5, 40)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp", "edm"])
@pytest.mark.parametrize("method", ORDERS)
def test_fixed_steps_have_their_order(name: str, method: str) -> None:
    """Twice as many divide the error of the bits by 2^order."""
    case, (order, steps) = CASES[name], ORDERS[method]
    x, errors = case.draw(20), []
    for count in (steps, 2 * steps):
        likelihood = likelihood_of(case.denoiser, trace="exact", method=method, steps=count)
        error = bits(likelihood.log_prob(x, generator())[0] - case.log_prob(x), x)
        errors.append(float(error.abs().max()))
    assert order - 0.1 < math.log2(errors[0] / errors[1]) < order + 0.6


class Given(ODELikelihood):
    """With a stored probe."""

    probe: Tensor

    def probes(self, x: Tensor, generator: torch.Generator) -> list[Tensor]:
        return [self.probe]


FILES = pytest.mark.parametrize("file", ["sde_likelihood", "sde_likelihood_b"])


def gaussian_score(process: GaussianProcess) -> Toy:
    """Of N(0.2, 0.6^2 I)."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha = process.alpha(t)
        return -(x - 0.2 * alpha) / (0.36 * alpha**2 + process.sigma(t) ** 2)

    return Toy(process, "score", score)


def official(
    arrays: dict[str, Tensor], denoiser: Denoiser, probe: Tensor, tolerance: float = 1e-5
) -> tuple[Tensor, Tensor, ODELikelihood]:
    """(-log2 p/D, the latent, the likelihood) from time 1e-5; score_sde's tolerances are 1e-5 each."""
    spec = ODELikelihoodSpec(rtol=tolerance, atol=tolerance)
    likelihood = Given(spec, Counted(denoiser), CELLS)
    likelihood.probe = probe
    log_prob, latent = likelihood.log_prob(arrays["x"], generator())
    return bits(log_prob, latent), latent, likelihood


@FILES
def test_bits_and_latents_are_score_sdes(file: str) -> None:
    """Its offset is 8 for levels in [0, 1] and 7 in [-1, 1], a cell being 1/256 of the range.  Ours, of 1/255, is
    the data layer's; here the density alone is compared.

    It needs no more evaluations than the official RK45 at the same tolerances.
    """
    arrays = recorded(file)
    got, latent, likelihood = official(
        arrays, gaussian_score(process_of("vp")), 2 * arrays["probe01"] - 1
    )
    for key, offset in (("bpd8", 8), ("bpd7", 7), ("bpd_exact", 8)):
        close(got + offset, arrays[f"VP_{key}"], rtol=1e-3)
    close(latent, arrays["VP_latent"], rtol=1e-3, atol=3e-5)
    assert likelihood.denoiser.calls <= int(arrays["VP_nfe"])


@FILES
def test_bits_with_a_gaussian_probe_are_score_sdes(file: str) -> None:
    """Latents are as small as 0.02 here, so that its tolerances would be seen in ours; they are 1e-7."""
    arrays = recorded(file)
    denoiser = Toy(process_of("vp"), "eps", lambda x, t: toy_eps(x, 999 * t))
    got, latent, _ = official(arrays, denoiser, arrays["probe_gauss"], 1e-7)
    for key in ("bpd7", "bpd7_exact"):
        close(got + 7, arrays[f"VP_toynet_gaussprobe_{key}"], rtol=1e-3)
    close(latent, arrays["VP_toynet_gaussprobe_latent"], rtol=1e-3, atol=1e-5)


@FILES
def test_samples_of_the_ode_are_score_sdes(file: str) -> None:
    """From time 1 to 1e-3, without denoising."""
    arrays = recorded(file)
    solver = build(AdaptiveODESpec(denoise="none"), gaussian_score(process_of("vp")))
    got = solve(solver, solver.start(arrays["z"]), UNCONDITIONAL, torch.zeros_like)
    close(got, arrays["VP_ode_sample"], rtol=1e-3)


#: Forward and backward passes of a step; Dormand and Prince's first stage is the last one's last.
STEP = {"euler": (1, 1), "heun": (2, 2), "rk4": (4, 4), "dormand-prince": (6, 5)}


@pytest.mark.parametrize("method", STEP)
@pytest.mark.parametrize(
    ("options", "vectors"), [({}, 1), ({"probes": 3}, 3), ({"trace": "exact"}, 4)]
)
def test_passes_of_fixed_steps(method: str, options: dict, vectors: int) -> None:
    """One forward pass a stage; a backward pass a vector where the integral uses the stage."""
    denoiser = Counted(Toy(process_of("vp"), "eps", toy_eps))
    likelihood = likelihood_of(denoiser, method=method, steps=7, **options)
    likelihood(torch.zeros(2, 1, 2, 2).double(), generator())
    forward, backward = STEP[method]
    assert denoiser.calls == 7 * forward + (method == "dormand-prince")
    assert likelihood.backward == 7 * backward * vectors


def test_refused_steps_cost_no_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """And six forward passes, as those that are taken; two choose the first step."""
    outcomes = []
    next_step = integrators.Adaptive.next_step

    def spy(self, h: float, norm: float, refused: bool) -> float:
        outcomes.append(norm <= 1)
        return next_step(self, h, norm, refused)

    monkeypatch.setattr(integrators.Adaptive, "next_step", spy)
    toy = Toy(process_of("vp"), "score", lambda x, t: -x - (20 * x).tanh() * (30 * t).sin())
    denoiser = Counted(toy)
    likelihood = likelihood_of(denoiser)
    likelihood(torch.linspace(-1, 1, 8).double().reshape(2, 1, 2, 2), generator())
    assert 0 < outcomes.count(False) < len(outcomes)
    assert denoiser.calls == 2 + 6 * len(outcomes)
    assert likelihood.backward == 5 * outcomes.count(True)


def test_passes_are_averaged() -> None:
    """Each has noise and probes of its own."""
    case = CASES["vp"]
    x, noise = case.draw(5), generator()
    got = likelihood_of(case.denoiser, passes=3)(x, generator())["total"]
    single = likelihood_of(case.denoiser)
    each = torch.stack([single(x, noise)["total"] for _ in range(3)])
    assert bool((each.std(0) > 1e-3).all())
    close(got, each.mean(0), rtol=1e-12)


class Uniform(ODELikelihood):
    """The density that is uniform over all cells."""

    def latent(
        self, x: Tensor, generator: torch.Generator, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        low, width = self.cells.low - self.cells.spacing / 2, self.cells.count * self.cells.spacing
        assert bool(((x >= low) & (x < low + width)).all())
        return x, -x[0].numel() * math.log(width) - self.process.prior_log_prob(x)


@pytest.mark.parametrize("count", [2, 17, 256])
@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_a_uniform_density_has_as_many_bits_as_levels_have(count: int, low: float) -> None:
    """So the data layer's log|dx/dk| is the only constant."""
    cells = GreyLevels(count, low, 1.0)
    x = (low + cells.spacing * torch.arange(count)).double().reshape(1, 1, 1, -1)
    got = Uniform(ODELikelihoodSpec(), CASES["vp"].denoiser, cells)(x, generator())["total"]
    close(got, float64([math.log2(count)]), rtol=1e-12)


@pytest.mark.parametrize(("tolerance", "atol"), [(1e-5, 5e-3), (1e-8, 1e-5)])
def test_bits_do_not_depend_on_the_scale(tolerance: float, atol: float) -> None:
    """Levels in [0, 1] on VE, and twice as far apart on EDM with twice the noise, both priors about 0."""
    ve = process_of("ve", sigma_min=0.01, sigma_max=50, centre=0)
    edm = process_of("edm", sigma_min=0.02, sigma_max=100)
    means = float64([[0.2, 0.3, 0.8, 0.6], [0.7, 0.5, 0.1, 0.9]])
    x = means.repeat(3, 1).reshape(6, 1, 2, 2) + 0.1 * normal_like(
        means.new_zeros(6, 1, 2, 2), generator()
    )

    def total(process: GaussianProcess, scale: int, cells: GreyLevels, last: float) -> Tensor:
        covariances = (0.1 * scale) ** 2 * torch.eye(4).double().expand(2, 4, 4)
        tensors = {
            "weights": float64([0.5, 0.5]),
            "means": scale * means,
            "covariances": covariances,
        }
        denoiser = MixtureDenoiser(MixtureSpec(), process, tensors)
        options = {"last": last, "rtol": tolerance, "atol": tolerance}
        return likelihood_of(denoiser, cells, **options)(scale * x, generator())["total"]

    want = total(edm, 2, GreyLevels(256), 2 * float(ve.sigma(float64(1e-5))))
    close(total(ve, 1, GreyLevels(256, 0.0, 1.0), 1e-5), want, rtol=0, atol=atol)


def test_labels_reach_the_denoiser() -> None:
    """Data are N(y, 0.3^2 I)."""

    class Labelled(Denoiser):
        classes = 3

        def predict(self, x_t: Tensor, t: Tensor, condition: Condition):
            mean = condition.label.double().reshape(-1, 1, 1, 1)
            a, v = (
                self.process.alpha(t),
                0.09 * self.process.alpha(t) ** 2 + self.process.sigma(t) ** 2,
            )
            return Toy(self.process, "score", lambda x, _: -(x - a * mean) / v)(x_t, t)

    y = torch.tensor([0, 1, 2])
    x = y.double().reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    likelihood = likelihood_of(Labelled(process_of("vp")))
    got = bits(likelihood.log_prob(x, generator(), Condition(y))[0], x)
    want = math.log2(math.sqrt(2 * math.pi) * 0.3)
    close(got, float64([want] * 3), rtol=0, atol=2e-3)


NAN = math.nan
BREAKS = {
    "at once": (lambda x, t: NAN * x, "1e-05"),
    "infinite at once": (lambda x, t: math.inf * x, "1e-05"),
    "near the start": (lambda x, t: -x * (NAN if t > 1.0001e-5 else 1), "1.1e-05"),
    "later": (lambda x, t: -x * (NAN if t > 0.5 else 1), r"(0\.[5-9]\d*|1)"),
    "in the trace": (lambda x, t: (0 * x).abs().sqrt() - x, r"\d"),
}


@pytest.mark.parametrize("where", BREAKS)
@pytest.mark.parametrize("options", [{}, {"method": "rk4", "steps": 10}], ids=["adaptive", "fixed"])
def test_what_is_not_finite_is_refused_with_the_time(where: str, options: dict) -> None:
    score, time = BREAKS[where]
    likelihood = likelihood_of(Toy(process_of("vp"), "score", score), **options)
    time = time if not options or where in ("later", "in the trace") else "0.00010"
    with pytest.raises(ValueError, match=f"time {time}.* not finite"):
        likelihood(torch.full((2, 1, 2, 2), 0.3).double(), generator())


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"rtol": 0}, "rtol"),
        ({"rtol": -1e-5}, "rtol"),
        ({"atol": 0}, "atol"),
        ({"atol": -1e-5}, "atol"),
        ({"probes": 0}, "probes"),
        ({"passes": 0}, "passes"),
        ({"steps": 10}, "steps: 10, but method adaptive chooses its own"),
        ({"method": "rk4"}, "steps: method rk4 needs a number of steps"),
        ({"method": "rk4", "steps": 0}, "steps"),
        ({"last": 0}, "last"),
    ],
    ids=str,
)
def test_options_that_are_refused(options: dict, key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        LikelihoodSpec.choose({"name": "ode", **options})


TWO_RATES, CHAIN = TwoRatesSpec(name="two-rates"), DiscreteSpec(schedule="linear", steps=50)
FIXED = {"method": "rk4", "steps": 10}


@pytest.mark.parametrize(
    ("process", "options", "reason"),
    [
        (CHAIN, {}, "integer times have no SDE or ODE"),
        (CHAIN, FIXED, "integer times have no SDE or ODE"),
        (VPSpec(), {"last": 1.0}, "last: 1 is outside the times of vp"),
        (VPSpec(), {"last": 1e-6}, "last: 1e-06 is outside the times of vp"),
        (EDMSpec(), {"last": 0.001}, "last: 0.001 is outside the times of edm"),
        (VESpec(), {**FIXED, "grid": "strided"}, "grid: strided needs integer times"),
        (
            TWO_RATES,
            FIXED,
            "grid: log-snr divides by alpha, and two-rates has one alpha per coordinate",
        ),
        (TWO_RATES, {**FIXED, "grid": "karras"}, "grid: karras divides by alpha"),
    ],
    ids=str,
)
def test_processes_that_are_refused(process: ProcessSpec, options: dict, reason: str) -> None:
    assert reason in (ODELikelihoodSpec(**options).refusal(process) or "")


@pytest.mark.parametrize(
    "options", [{}, {**FIXED, "grid": "uniform"}, {**FIXED, "grid": "quadratic"}], ids=str
)
def test_what_serves_one_alpha_a_coordinate(options: dict) -> None:
    assert ODELikelihoodSpec(**options).refusal(TWO_RATES) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [("vp", (1, 8, 8), 10, 0.3), ("ve", (1, 16, 16), 4, 0.1, 0.1, 0.9)], ids=str
)
def test_fewer_passes_than_a_solver_that_calls_the_network_twice(
    case: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At errors of 2e-4 bits/dim, with the default settings; medians of three draws."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = importlib.import_module("likelihood")
    mine, sweep = benchmark.compare(benchmark.Problem(*case), range(3))
    assert mine.error <= benchmark.ACCURACY
    assert benchmark.cheapest(sweep)[1].passes >= 1.5 * mine.passes
