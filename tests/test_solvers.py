"""Steps and loops against the official samplers of improved-diffusion, score_sde and EDM."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from toys import (
    Toy,
    chain_times,
    close,
    column,
    no_noise,
    process_of,
    recorded,
    toy_denoised,
    toy_eps,
    toy_score,
)

from diffbench.diffusion.core.condition import UNCONDITIONAL
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.denoisers.denoiser import Counted, Denoiser
from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.diffusion.processes.continuous import EDM
from diffbench.diffusion.solvers.corrector import Noise
from diffbench.diffusion.solvers.encoding import encode
from diffbench.diffusion.solvers.loop import Solver, sample, solve
from diffbench.specs.denoisers import GaussianSpec, NetworkDenoiserSpec
from diffbench.specs.likelihoods import VLBSpec
from diffbench.specs.processes import DiscreteSpec, EDMSpec, IHDMSpec, SubVPSpec, VESpec, VPSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import (
    AdaptiveODESpec,
    AncestralSpec,
    CorrectorOnlySpec,
    DDIMSpec,
    DPMSolverSpec,
    EulerMaruyamaSpec,
    HeunSpec,
    LangevinOnlySpec,
    LangevinSpec,
    ODESpec,
    ReverseDiffusionSpec,
)

CHAINS = {"": ("linear", 1000), "_cos4000": ("cosine", 4000)}
THRESHOLD = {0: "none", 1: "static"}
both_chains = pytest.mark.parametrize("suffix", CHAINS)
clipped_or_not = pytest.mark.parametrize("clip", THRESHOLD)


def toy_chain(suffix: str) -> Denoiser:
    schedule, steps = CHAINS[suffix]
    return Toy(process_of("discrete", schedule=schedule, steps=steps), "eps", toy_eps)


def steps_down(solver: Solver, arrays: dict[str, torch.Tensor], noisy: bool) -> torch.Tensor:
    """One step from each recorded level to the one below."""
    noise = arrays["noise"] if noisy else torch.zeros_like(arrays["noise"])
    rows = [
        solver.step(x[None], t, t - 1, UNCONDITIONAL, lambda _, z=z: z[None])
        for x, t, z in zip(arrays["x_t"], arrays["t"], noise, strict=True)
    ]
    return torch.cat(rows)


@both_chains
@clipped_or_not
def test_ancestral_steps(suffix: str, clip: int) -> None:
    arrays, denoiser = recorded(f"gd_steps{suffix}"), toy_chain(suffix)
    spec = AncestralSpec(steps=10, variance="large", threshold=THRESHOLD[clip])
    close(steps_down(build(spec, denoiser), arrays, True), arrays[f"ddpm_clip{clip}_sample"])


@both_chains
@clipped_or_not
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_means(suffix: str, clip: int, eta: float) -> None:
    arrays, denoiser = recorded(f"gd_steps{suffix}"), toy_chain(suffix)
    solver = build(DDIMSpec(steps=10, eta=eta, threshold=THRESHOLD[clip]), denoiser)
    close(steps_down(solver, arrays, False), arrays[f"ddim_eta{eta}_clip{clip}_mean"])


@both_chains
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_noise(suffix: str, eta: float) -> None:
    arrays, denoiser = recorded(f"gd_steps{suffix}"), toy_chain(suffix)
    solver = build(DDIMSpec(steps=10, eta=eta), denoiser)
    close(solver.scales(arrays["t"], arrays["t"] - 1).n, arrays[f"ddim_eta{eta}_sigma"])
    if eta:
        close(steps_down(solver, arrays, True), arrays[f"ddim_eta{eta}_sample"])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(("t", "s"), [(49, 48), (49, 20), (30, 7), (9, 0)])
def test_large_is_sigma_hat_on_every_pair(schedule: str, t: int, s: int) -> None:
    """The row of DDIM's table 1: the mean of eta = 1, and noise sqrt(1 - abar_t/abar_s)."""
    process = process_of("discrete", schedule=schedule, steps=50)
    abar = np.cumprod(1 - process.betas.numpy())
    a, b = abar[t], abar[s]
    x, z = np.random.default_rng(0).standard_normal((2, 2, 1, 3, 3))
    eps = toy_eps(torch.from_numpy(x), float64(t)).numpy()
    x0 = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
    of_eta_one = (1 - b) / (1 - a) * (1 - a / b)
    mean = np.sqrt(b) * x0 + np.sqrt(1 - b - of_eta_one) * eps
    spec = AncestralSpec(steps=50, variance="large", threshold="none")
    solver = build(spec, Toy(process, "eps", toy_eps))
    got = solver.step(
        torch.from_numpy(x), float64(t), float64(s), UNCONDITIONAL, lambda _: torch.from_numpy(z)
    )
    close(got, torch.from_numpy(mean + np.sqrt(1 - a / b) * z))


CHAIN_OF_50 = {"schedule": "cosine", "steps": 50}
ENCODED = [
    ("discrete", {"schedule": "linear"}, {"grid": "uniform"}),
    ("discrete", {"schedule": "linear"}, {"grid": "quadratic"}),
    ("discrete", {"schedule": "cosine"}, {"grid": "uniform"}),
    ("vp", {}, {"grid": "uniform"}),
    ("edm", {}, {"grid": "karras", "last": 0.002}),
]


@pytest.mark.parametrize("grid", ["uniform", "strided", "quadratic"])
def test_encoding_is_eulers_method_upwards(grid: str) -> None:
    """xbar = x/alpha as a function of sigma/alpha, whose slope is eps (DDIM's equation 14); the image is
    taken for x at the lowest level, and the last evaluation is at the level below the highest."""
    process = process_of("discrete", **CHAIN_OF_50)
    x = torch.linspace(-1, 1, 8).double().reshape(2, 1, 2, 2)
    denoiser = Counted(Toy(process, "eps", toy_eps))
    solver = build(DDIMSpec(steps=10, grid=grid), denoiser)
    xbar, levels = x / process.alpha(float64(0)), solver.times()[:-1].flip(0)
    for t, s in pairwise(levels):
        slope = toy_eps(process.alpha(t) * xbar, t)
        xbar = xbar + (process.ratio(s) - process.ratio(t)) * slope
    close(encode(solver, x), process.alpha(levels[-1]) * xbar)
    assert denoiser.calls == 9


@pytest.mark.parametrize(("name", "parameters", "options"), ENCODED)
def test_decoding_returns_the_encoded_image(name: str, parameters: dict, options: dict) -> None:
    """Gaussian data and their exact denoiser: the error of both ways is of first order in the step.

    It is c/n + d/n^2 with a ratio of 10 between 10 and 100 steps but for d, and at least 8 where d/n is
    not below -0.22 c at 10 steps.  What the lowest level's noise costs, 1e-4 of the image, is
    beside an error of 1e-2.
    """
    process = process_of(name, **parameters)
    mean, variances = float64([0.3, -0.2, 0.1]), float64([0.02, 0.25, 0.6])
    tensors = {"mean": mean, "covariance": variances.diag()}
    denoiser = GaussianDenoiser(GaussianSpec(), process, tensors)
    z = torch.randn(8, 1, 1, 3, generator=torch.Generator().manual_seed(0)).double()
    x, errors = mean + variances.sqrt() * z, []
    for steps in (10, 100):
        solver = build(DDIMSpec(steps=steps, **options), denoiser)
        back = solve(solver, encode(solver, x), UNCONDITIONAL, no_noise)
        errors.append(float((back - x).square().mean().sqrt()))
    assert errors[1] < errors[0] / 8


STEP_SIZE = LangevinSpec(step_size=0.01)
DRAWS_OR_REMEMBERS = [
    DDIMSpec(steps=10, eta=0.1),
    DDIMSpec(steps=10, eta=1.0),
    DDIMSpec(steps=10, corrector=STEP_SIZE),
    HeunSpec(steps=10, churn=1),
    HeunSpec(steps=10, corrector=STEP_SIZE),
    ODESpec(steps=10, corrector=STEP_SIZE),
    DPMSolverSpec(steps=10),
    EulerMaruyamaSpec(steps=10, noise=0),
    AncestralSpec(steps=10),
]


@pytest.mark.parametrize("spec", DRAWS_OR_REMEMBERS, ids=lambda spec: spec.name)
def test_only_deterministic_steps_can_be_encoded(spec) -> None:
    solver = build(spec, Toy(process_of("vp"), "eps", toy_eps))
    with pytest.raises(ValueError, match=f"^{re.escape(spec.name)} cannot encode"):
        encode(solver, torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_eta_lies_between_zero_and_one(eta: float) -> None:
    with pytest.raises(ValidationError, match="eta"):
        DDIMSpec(steps=10, eta=eta)


CHAIN = DiscreteSpec(schedule="cosine", steps=50)
PLAIN, LEARNED, UNBOUNDED, CONDITIONAL = (
    NetworkDenoiserSpec(predict="eps", **options)
    for options in (
        {},
        {"variance": "learned"},
        {"variance": "unbounded"},
        {"conditional": True},
    )
)
REFUSALS = [
    (AncestralSpec(steps=51), CHAIN, PLAIN, "steps: 51, but a chain of 50 levels has at most 50"),
    (
        DDIMSpec(steps=51, grid="quadratic"),
        CHAIN,
        PLAIN,
        "steps: 51, but a chain of 50 levels has at most 50",
    ),
    (HeunSpec(steps=51), CHAIN, PLAIN, "steps: 51, but a chain of 50 levels has at most 50"),
    (
        DDIMSpec(steps=51, grid="strided"),
        CHAIN,
        PLAIN,
        "steps: 51, but a chain of 50 levels has at most 50",
    ),
    (DDIMSpec(steps=11, grid="strided"), CHAIN, PLAIN, "steps: no integer stride takes exactly 11"),
    (DDIMSpec(steps=51), CHAIN, PLAIN, "steps: 51, but a chain of 50 levels has at most 50"),
    (
        DDIMSpec(steps=8, last=0.1),
        CHAIN,
        PLAIN,
        "last: 0.1 needs continuous time, and discrete has",
    ),
    (
        DDIMSpec(steps=8, grid="strided"),
        VPSpec(),
        PLAIN,
        "grid: strided needs integer times, and vp is",
    ),
    (
        ODESpec(steps=8, grid="strided"),
        EDMSpec(),
        PLAIN,
        "grid: strided needs integer times, and edm",
    ),
    (
        DDIMSpec(steps=8, grid="quadratic-0.8"),
        VPSpec(),
        PLAIN,
        "grid: quadratic-0.8 needs integer times, and vp is",
    ),
    (
        DDIMSpec(steps=51, grid="quadratic-0.8"),
        CHAIN,
        PLAIN,
        "steps: 51, but a chain of 50 levels has at most 50",
    ),
    (DDIMSpec(steps=8, last=1), VPSpec(), PLAIN, "last: 1 is outside the times of vp, 1e-05 to 1"),
    (ODESpec(steps=8, last=1e-6), VPSpec(), PLAIN, "last: 1e-06 is outside the times of vp"),
    (AdaptiveODESpec(last=1e-3), EDMSpec(), PLAIN, "last: 0.001 is outside the times of edm"),
    (AdaptiveODESpec(last=80), EDMSpec(), PLAIN, "last: 80 is outside the times of edm, 0.002 to"),
    (
        ReverseDiffusionSpec(steps=20),
        VPSpec(),
        PLAIN,
        "steps: 20: a step of 0.0526 is too long: 1 - 0.0526 beta",
    ),
    (ReverseDiffusionSpec(steps=21), VPSpec(beta_max=20.9), PLAIN, "steps: 21: a step of 0.05 is"),
    (ReverseDiffusionSpec(steps=39, grid="quadratic"), VPSpec(), PLAIN, "steps: 39: a step of 0.0"),
    (DDIMSpec(steps=1), CHAIN, PLAIN, "steps: 1 on a chain starts at its first level"),
    (
        HeunSpec(steps=8, sigma_min=200, sigma_max=300),
        EDMSpec(),
        PLAIN,
        "sigma_min, sigma_max: 200 to 300 is outside the sigma/alpha of edm, 0.002 to 80",
    ),
    (
        DPMSolverSpec(steps=8, sigma_min=1e-4, sigma_max=1e-3),
        VESpec(),
        PLAIN,
        "sigma_min, sigma_max: 0.0001 to 0.001 is outside the sigma/alpha of ve, 0.02 to 100, for data in [-1, 1]",
    ),
    *[
        (HeunSpec(steps=8, churn=5, **{key: value}), VESpec(), PLAIN, refusal)
        for key, value, refusal in [
            (
                "sigma_min",
                0.01,
                "sigma_min: 0.01 is outside the sigma/alpha of ve, 0.02 to 100, for",
            ),
            ("sigma_min", 0.01, "of ve: for data in [0, 1], 0.005 is outside 0.01 to 50"),
            ("sigma_max", 101, "sigma_max: 101 is outside the sigma/alpha of ve, 0.02 to 100"),
            ("churn_min", 0.01, "churn_min: 0.01 is outside the sigma/alpha of ve"),
            ("churn_max", 150, "churn_max: 150 is outside the sigma/alpha of ve"),
            ("sigma_min", 0.02, None),
            ("sigma_max", 100, None),
            ("churn_min", 0, None),
        ]
    ],
    (HeunSpec(steps=8), VESpec(sigma_min=0.1, sigma_max=5), PLAIN, None),
    (HeunSpec(steps=8, sigma_max=90), EDMSpec(), PLAIN, "sigma_max: 90 is outside the sigma/alpha"),
    (HeunSpec(steps=8, sigma_min=1e-3), EDMSpec(), PLAIN, "sigma_min: 0.001 is outside the sigma"),
    (
        EulerMaruyamaSpec(steps=20, corrector=LangevinSpec(snr=0.16, levels=20)),
        VPSpec(),
        PLAIN,
        "corrector.levels: 20 is too small: 1 - beta/N must be above 0, and vp has beta up to 20; take at least 21",
    ),
    (
        CorrectorOnlySpec(steps=20, corrector=LangevinOnlySpec(snr=0.16, levels=20)),
        SubVPSpec(),
        PLAIN,
        "corrector.levels: 20 is too small: 1 - beta/N must be above 0, and sub-vp has",
    ),
    (
        CorrectorOnlySpec(steps=8),
        IHDMSpec(),
        PLAIN,
        "ihdm has no score: its network predicts the level before",
    ),
    (
        DDIMSpec(steps=8, w=0.5),
        CHAIN,
        PLAIN,
        "w: 0.5 needs denoiser.conditional: true, and this model is unconditional",
    ),
    (
        DDIMSpec(steps=8, w=0),
        CHAIN,
        LEARNED,
        "w: 0 needs denoiser.conditional: true, and this model is unconditional",
    ),
    (
        HeunSpec(steps=8, labels=[3, 1]),
        CHAIN,
        PLAIN,
        "labels: [3, 1] need a conditional",
    ),
    (
        AncestralSpec(steps=8, variance="learned"),
        CHAIN,
        PLAIN,
        "variance: learned needs denoiser.variance: learned; use small or large",
    ),
    (
        VLBSpec(variance="learned"),
        CHAIN,
        PLAIN,
        "variance: learned needs denoiser.variance: learned; use",
    ),
    (VLBSpec(steps=51), CHAIN, PLAIN, "steps: 51, but a chain of 50 levels has at most 50"),
    (VLBSpec(steps=11, grid="strided"), CHAIN, PLAIN, "steps: no integer stride takes exactly 11"),
    (
        AncestralSpec(steps=8, variance="learned"),
        CHAIN,
        UNBOUNDED,
        "steps: 8, but this model's variance, unbounded, is that of the steps between all 50 levels",
    ),
    (VLBSpec(variance="learned", steps=8), CHAIN, UNBOUNDED, "steps: 8, but this model's variance"),
    (AncestralSpec(steps=50, variance="learned"), CHAIN, UNBOUNDED, None),
    (AncestralSpec(steps=8, variance="large"), CHAIN, UNBOUNDED, None),
    (VLBSpec(variance="learned"), CHAIN, UNBOUNDED, None),
    (AncestralSpec(steps=50), CHAIN, PLAIN, None),
    (DDIMSpec(steps=8, corrector=STEP_SIZE), CHAIN, PLAIN, None),
    (ReverseDiffusionSpec(steps=50), CHAIN, PLAIN, None),
    (ReverseDiffusionSpec(steps=8, last=1), CHAIN, PLAIN, "last: 1 needs continuous time"),
    (
        ReverseDiffusionSpec(steps=8, denoise="none"),
        CHAIN,
        PLAIN,
        "denoise: none needs continuous time",
    ),
    (ReverseDiffusionSpec(steps=8), IHDMSpec(), PLAIN, "ihdm has no score"),
    (EulerMaruyamaSpec(steps=8), CHAIN, PLAIN, "integer times have no SDE or ODE"),
    (AncestralSpec(steps=8, variance="learned"), CHAIN, LEARNED, None),
    (VLBSpec(variance="learned", steps=8), CHAIN, LEARNED, None),
    (DDIMSpec(steps=8, w=0.5, labels=[3]), CHAIN, CONDITIONAL, None),
    (DDIMSpec(steps=8, labels=[3], classifier_scale=1), CHAIN, PLAIN, None),
    (DDIMSpec(steps=8, w=2, grid="uniform"), VPSpec(), CONDITIONAL, None),
    (DDIMSpec(steps=8, grid="quadratic"), VPSpec(), PLAIN, None),
    (DDIMSpec(steps=8, grid="karras"), CHAIN, PLAIN, None),
    (DDIMSpec(steps=8, last=1e-5), VPSpec(), PLAIN, None),
    (ReverseDiffusionSpec(steps=21), VPSpec(), PLAIN, None),
    (ReverseDiffusionSpec(steps=40, grid="quadratic"), VPSpec(), PLAIN, None),
    (ReverseDiffusionSpec(steps=2), SubVPSpec(), PLAIN, None),
    (
        EulerMaruyamaSpec(steps=20, corrector=LangevinSpec(snr=0.16, levels=21)),
        VPSpec(),
        PLAIN,
        None,
    ),
    (
        EulerMaruyamaSpec(steps=20, corrector=LangevinSpec(snr=0.16, levels=2)),
        VESpec(),
        PLAIN,
        None,
    ),
    (
        EulerMaruyamaSpec(steps=20, corrector=LangevinSpec(step_size=0.1, levels=2)),
        VPSpec(),
        PLAIN,
        None,
    ),
]


@pytest.mark.parametrize(("spec", "process", "denoiser", "reason"), REFUSALS)
def test_what_cannot_be_served_is_refused_by_its_key(spec, process, denoiser, reason) -> None:
    refusal = spec.refusal(process, denoiser)
    assert refusal is None if reason is None else reason in refusal
    assert refusal is None or "\n" not in refusal


UNSOUND = [
    (LangevinSpec, {}, "exactly one of snr .* and step_size"),
    (LangevinSpec, {"snr": 0.1, "step_size": 0.1}, "exactly one of snr .* and step_size"),
    (LangevinSpec, {"snr": 0}, "snr"),
    (LangevinSpec, {"snr": 0.1, "levels": 1}, "levels"),
    (LangevinSpec, {"snr": 0.1, "updates": 0}, "updates"),
    (AdaptiveODESpec, {"rtol": 0}, "rtol"),
    (AdaptiveODESpec, {"atol": -1e-5}, "atol"),
    (AdaptiveODESpec, {"last": 0}, "last"),
    (AdaptiveODESpec, {"denoise": True}, "denoise"),
    (EulerMaruyamaSpec, {"steps": 9, "noise": 1.5}, "noise"),
    (HeunSpec, {"steps": 9, "grid": "strided"}, "grid"),
    (HeunSpec, {"steps": 9, "order": 1, "alpha": 0.5}, "alpha: 0.5 belongs to order 2"),
    (HeunSpec, {"steps": 9, "alpha": 0}, "alpha"),
    (HeunSpec, {"steps": 9, "churn_ceiling": -1}, "churn_ceiling"),
    (
        ODESpec,
        {"steps": 9, "method": "rk4", "alpha": 0.5},
        "alpha: 0.5 belongs to method heun, not",
    ),
    (ODESpec, {"steps": 9, "alpha": 1.1}, "alpha"),
    (DPMSolverSpec, {"steps": 9, "sigma_min": 3, "sigma_max": 2}, "sigma_min 3.0 must be below"),
]


@pytest.mark.parametrize(("kind", "settings", "message"), UNSOUND)
def test_unsound_settings_are_refused_by_their_key(kind, settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        kind(**settings)


@pytest.mark.parametrize(
    ("kind", "key"), [(DDIMSpec, "last"), (EulerMaruyamaSpec, "corrector"), (DDIMSpec, "w")]
)
def test_none_is_the_processs_own_or_nothing(kind, key: str) -> None:
    """``none`` in a configuration is what a spec without the key has."""
    assert kind(**{"steps": 9, key: "none"}) == kind(steps=9)


@pytest.mark.parametrize("grid", ["uniform", "quadratic"])
@pytest.mark.parametrize("denoise", ["tweedie", "noiseless"])
def test_plans_refuse_the_steps_that_reverse_diffusion_cannot_take(grid: str, denoise: str) -> None:
    toy = Toy(process_of("vp"), "eps", toy_eps)
    known = []
    for steps in range(2, 45):
        spec = ReverseDiffusionSpec(steps=steps, grid=grid, denoise=denoise)
        refusal = spec.refusal(VPSpec(), PLAIN)
        known.append(refusal is None)
        if refusal is None:
            build(spec, toy)
        else:
            with pytest.raises(ValueError, match="steps: the step from time 1 has 1 - beta"):
                build(spec, toy)
    assert len(set(known)) == 2


@pytest.mark.parametrize("steps", [21, 60])
def test_reverse_diffusion_refuses_steps_that_are_too_long_before_any_call(steps: int) -> None:
    """A quadratic grid's first step is nearly 2/(steps - 1): beta, 20 times that, is below 1 from 42 steps."""
    denoiser = Counted(Toy(process_of("vp"), "eps", toy_eps))
    spec = ReverseDiffusionSpec(steps=steps, grid="quadratic")
    if steps > 41:
        build(spec, denoiser)
    else:
        with pytest.raises(ValueError, match="steps: the step from time 1 has 1 - beta = -0"):
            build(spec, denoiser)
    assert denoiser.calls == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EulerMaruyamaSpec(steps=5), "step 3 of 5, from time 0.5005 to 0.25075: the state is not"),
        # Before the last steps every fourth is looked at: step 25 starts at 0.593627.
        (
            EulerMaruyamaSpec(steps=60),
            "steps 25 to 28 of 60, from time 0.593627 to 0.525898: the state is not",
        ),
        (DPMSolverSpec(steps=5), "steps 1 to 2 of 5, from time .*: the state is not finite"),
        (AdaptiveODESpec(), "step [0-9]+, to time 0.[0-9]+: the state is not finite"),
        (CorrectorOnlySpec(steps=5), "step 3 of 5, from time 0.5005 to 0.25075: the state is not"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_state_that_is_not_finite_stops_with_its_step(spec, message: str) -> None:
    """The score is not a number from t = 0.6 on: grid 1, 0.75025, 0.5005, 0.25075, 0.001 and the data."""

    def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return -x if t > 0.6 else x * torch.nan

    solver = build(spec, Toy(process_of("vp"), "score", score))
    with pytest.raises(ValueError, match=f"^{message}") as stopped:
        sample(solver, (2, 1, 2, 2), torch.Generator().manual_seed(0))
    assert "\n" not in str(stopped.value)


def test_a_state_that_is_not_finite_is_named_before_the_error_of_a_later_step() -> None:
    def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if x.isnan().any():
            raise RuntimeError("cannot go on from this state")
        return x * torch.nan

    solver = build(EulerMaruyamaSpec(steps=5), Toy(process_of("vp"), "score", score))
    with pytest.raises(ValueError, match="^step 1 of 5, from time 1 to .*: the state is not"):
        sample(solver, (2, 1, 2, 2), torch.Generator().manual_seed(0))


def test_a_step_upwards_that_is_not_finite_stops() -> None:
    solver = build(ODESpec(steps=5), Toy(process_of("vp"), "score", lambda x, t: x * torch.nan))
    with pytest.raises(ValueError, match="^the step up from time 0.001 to 0.25075: the state is"):
        encode(solver, torch.ones(1, 1, 2, 2))


SDES = {
    "sde_steps": {"VP": ("vp", {}, 1000), "subVP": ("sub-vp", {}, 1000), "VE": ("ve", {}, 1000)},
    "sde_steps_b": {
        "VP": ("vp", {}, 100),
        "subVP": ("sub-vp", {}, 100),
        "VE": ("ve", {"sigma_max": 90}, 200),
    },
}


@pytest.mark.parametrize("file", SDES)
@pytest.mark.parametrize("sde", ["VP", "subVP", "VE"])
def test_euler_maruyama_steps(file: str, sde: str) -> None:
    """The official step has length 1/N at every time; for VE its input is 20 x."""
    arrays, (name, parameters, steps) = recorded(file), SDES[file][sde]
    x, t = arrays["x"] * (20 if sde == "VE" else 1), column(arrays["t"])
    denoiser = Toy(process_of(name, **parameters), "score", toy_score)
    advance = build(EulerMaruyamaSpec(steps=steps), denoiser).advance
    mean = advance(x, t, t - 1 / steps, UNCONDITIONAL, torch.zeros_like)
    close(mean, arrays[f"euler_maruyama_{sde}_mean"])
    noisy = advance(x, t, t - 1 / steps, UNCONDITIONAL, lambda _: arrays["noise"])
    close(noisy, arrays[f"euler_maruyama_{sde}_x"])


@pytest.mark.parametrize("file", SDES)
def test_ancestral_vp_steps(file: str) -> None:
    """score_sde's ancestral predictor is fixed large on the chain, at index floor(t (N - 1)), with
    the score of the continuous time.  Its first step, index 0, adds noise where DDPM's goes into
    the data without: only the mean is compared there."""
    arrays, steps = recorded(file), SDES[file]["VP"][2]
    chain = process_of("discrete", schedule="linear", steps=steps)
    for i, time in enumerate(arrays["t"]):
        level, x, z = (time * (steps - 1)).floor(), arrays["x"][[i]], arrays["noise"][[i]]
        denoiser = Toy(chain, "score", lambda x, t, time=time: toy_score(x, time))
        spec = AncestralSpec(steps=steps, variance="large", threshold="none")
        step = build(spec, denoiser).step
        mean = step(x, level, level - 1, UNCONDITIONAL, torch.zeros_like)
        close(mean, arrays["ancestral_sampling_VP_mean"][[i]])
        if level > 0:
            noisy = step(x, level, level - 1, UNCONDITIONAL, lambda _, z=z: z)
            close(noisy, arrays["ancestral_sampling_VP_x"][[i]])


@pytest.mark.parametrize("file", SDES)
@pytest.mark.parametrize("sde", ["VP", "VE"])
def test_reverse_diffusion_steps(file: str, sde: str) -> None:
    """At level floor(t (N - 1)) of the chain; the score is asked at t itself."""
    arrays, (name, parameters, steps) = recorded(file), SDES[file][sde]
    x, process = arrays["x"] * (20 if sde == "VE" else 1), process_of(name, **parameters)
    denoiser = Toy(process, "score", lambda x, _: toy_score(x, column(arrays["t"])))
    t, s = (column(each) for each in chain_times(process, arrays["t"], steps))
    advance, flow = (
        build(ReverseDiffusionSpec(steps=steps, noise=n), denoiser).advance for n in (1, 0)
    )
    mean = advance(x, t, s, UNCONDITIONAL, torch.zeros_like)
    close(mean, arrays[f"reverse_diffusion_{sde}_mean"])
    noisy = advance(x, t, s, UNCONDITIONAL, lambda _: arrays["noise"])
    close(noisy, arrays[f"reverse_diffusion_{sde}_x"])
    close(flow(x, t, s, UNCONDITIONAL, no_noise), arrays[f"reverse_diffusion_pf_{sde}_mean"])


@pytest.mark.parametrize("file", SDES)
def test_reverse_diffusion_steps_of_a_chain(file: str) -> None:
    """score_sde's discrete runs: the chain's own step from level floor(t (N - 1)), as of VP, whose chain it is."""
    arrays, steps = recorded(file), SDES[file]["VP"][2]
    chain = process_of("discrete", schedule="linear", steps=steps)
    level = column((arrays["t"] * (steps - 1)).floor())
    denoiser = Toy(chain, "score", lambda x, _: toy_score(x, column(arrays["t"])))
    advance, flow = (
        build(ReverseDiffusionSpec(steps=steps, noise=n), denoiser).advance for n in (1, 0)
    )
    x, s = arrays["x"], level - 1
    close(
        advance(x, level, s, UNCONDITIONAL, torch.zeros_like), arrays["reverse_diffusion_VP_mean"]
    )
    close(
        advance(x, level, s, UNCONDITIONAL, lambda _: arrays["noise"]),
        arrays["reverse_diffusion_VP_x"],
    )
    close(flow(x, level, s, UNCONDITIONAL, no_noise), arrays["reverse_diffusion_pf_VP_mean"])


@pytest.mark.parametrize("file", SDES)
def test_reverse_diffusion_on_sub_vp_is_an_euler_step(file: str) -> None:
    arrays, steps = recorded(file), SDES[file]["subVP"][2]
    denoiser, t = Toy(process_of("sub-vp"), "score", toy_score), column(arrays["t"])
    advance = build(ReverseDiffusionSpec(steps=steps, noise=0), denoiser).advance
    mean = advance(arrays["x"], t, t - 1 / steps, UNCONDITIONAL, no_noise)
    close(mean, arrays["reverse_diffusion_pf_subVP_mean"])


#: SDE, predictor and corrector of each loop of 40 steps, and its process.
LOOPS = {
    "VP_reverse_diffusion_langevin": ("sde_pc_sampler", "vp", {}),
    "VE_reverse_diffusion_langevin": ("sde_pc_sampler", "ve", {"centre": 0}),
    "VP_euler_maruyama_langevin": ("sde_pc_sampler_b", "vp", {}),
    "VE_reverse_diffusion_none": ("sde_pc_sampler_b", "ve", {"sigma_max": 90, "centre": 0}),
}


def official_score(process: Process, t: torch.Tensor):
    """The networks of ``sde_pc_sampler`` as a score at t: VP's is told 999 t, VE's sigma."""

    def score(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        sigma = process.sigma(t)
        if process.spec.name == "vp":
            return -(0.3 * x * torch.cos(0.01 * 999 * t) + 0.1 * torch.sin(x)) / sigma
        return -x / (1 + sigma**2) + 0.1 * torch.sin(x) / (1 + sigma)

    return score


@pytest.mark.parametrize("run", LOOPS)
def test_the_predictor_corrector_loop(run: str) -> None:
    """Corrector first; N steps from the times linspace(1, eps, N); the last predictor's mean.

    Reverse diffusion and the corrector take the chain's level floor(t (N - 1)), Euler-Maruyama a step of
    1/N from t.  The runs of VP reach 1e3, since their network is no denoiser.
    """
    file, name, parameters = LOOPS[run]
    arrays, process = recorded(file), process_of(name, **parameters)
    corrector = LangevinSpec(snr=0.16, levels=40, order="corrector-first")
    kind = EulerMaruyamaSpec if "euler" in run else ReverseDiffusionSpec
    spec = kind(steps=40, corrector=corrector if "langevin" in run else "none")
    last = process.spec.last
    x = process.prior_sample(arrays["init"])
    for i, t in enumerate(torch.linspace(1, last, 40, dtype=torch.float64)):
        solver = build(spec, Toy(process, "score", official_score(process, t)))
        level, before = chain_times(process, t, 40)
        noises = iter(arrays["noises"][i][0 if "langevin" in run else 1 :])

        def noise(_: torch.Tensor, noises=noises) -> torch.Tensor:
            return next(noises)

        if kind is ReverseDiffusionSpec:
            x = solver.move(x, level, before, UNCONDITIONAL, noise, quiet=i == 39)
        else:
            x = solver.corrector.correct(x, level, UNCONDITIONAL, noise)
            x = solver.step(x, t, t - 1 / 40, UNCONDITIONAL, torch.zeros_like if i == 39 else noise)
    close(x, arrays[f"{run}_cont1"])


def test_the_predictor_corrector_loop_of_a_chain() -> None:
    """The same 40 times, floor(t (N - 1)) of which are all levels of the chain, one after the other: the solver's own
    grid.  Its last step goes to E[x_0 | x_t]; the official code takes the chain's step once more."""
    arrays, chain = (
        recorded("sde_pc_sampler"),
        process_of("discrete", schedule="linear", steps=40),
    )
    given = torch.linspace(1, 1e-3, 40, dtype=torch.float64)
    vp, told = process_of("vp"), []

    def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        told.append(int(t))
        return official_score(vp, given[39 - int(t)])(x, t)

    corrector = LangevinSpec(snr=0.16, order="corrector-first")
    solver = build(ReverseDiffusionSpec(steps=40, corrector=corrector), Toy(chain, "score", score))
    *pairs, (last, _) = pairwise(solver.times())
    x, noises = arrays["init"], iter(arrays["noises"].double().flatten(0, 1))
    for t, s in pairs:
        x = solver.move(x, t, s, UNCONDITIONAL, lambda _: next(noises))
    x = solver.corrector.correct(x, last, UNCONDITIONAL, lambda _: next(noises))
    x = solver.advance(x, last, last - 1, UNCONDITIONAL, torch.zeros_like)
    assert told == [level for level in range(39, -1, -1) for _ in range(2)]
    close(x, arrays["VP_reverse_diffusion_langevin_cont1"])


class Recorder(Denoiser):
    """EDM's toy denoiser, of x/alpha and sigma/alpha; keeps every input and time."""

    def __init__(self, process: Process | None = None) -> None:
        super().__init__(process_of("edm") if process is None else process)
        self.inputs: list[torch.Tensor] = []
        self.times: list[torch.Tensor] = []

    def predict(self, x_t, t, condition):
        xbar, sigma = x_t / self.process.alpha(t), self.process.ratio(t)
        self.inputs.append(xbar)
        self.times.append(t)
        return Prediction(self.process, x_t, t, "x0", toy_denoised(xbar, sigma))


@pytest.mark.parametrize("steps", [18, 5])
def test_the_edm_sampler(steps: int) -> None:
    arrays, denoiser = recorded("edm_sampler"), Recorder()
    solver = build(HeunSpec(steps=steps), denoiser)
    final = solve(solver, solver.start(arrays["latents"]), UNCONDITIONAL, no_noise)
    close(final, arrays[f"N{steps}_x_final"])
    close(torch.stack(denoiser.times), arrays[f"N{steps}_sigma_calls"])
    calls = arrays[f"N{steps}_x_calls"]
    close(torch.stack(denoiser.inputs)[:, : calls.shape[1]], calls)
    assert len(denoiser.times) == 2 * steps - 1


def test_the_stochastic_edm_sampler() -> None:
    """The official code draws noise at every step, and uses it where gamma > 0."""
    arrays, denoiser = recorded("edm_sampler_stochastic"), Recorder()
    spec = HeunSpec(steps=18, churn=40, churn_min=0.05, churn_max=50, churn_noise=1.003)
    solver = build(spec, denoiser)
    used = iter(arrays["noises"][arrays["gamma"] > 0].double())
    final = solve(solver, solver.start(arrays["latents"]), UNCONDITIONAL, lambda x: next(used))
    close(final, arrays["x_final"])
    close(torch.stack(denoiser.times), arrays["sigma_calls"])
    close(torch.stack(denoiser.times)[::2], arrays["t_hat"])
    close(torch.stack(denoiser.inputs)[:, :1], arrays["x_calls"])
    assert next(used, None) is None
    grid = solver.times()[:-1]
    close(grid, arrays["t_cur"])
    gamma = torch.stack([solver.churned(t) for t in grid]) / grid - 1
    close(gamma, arrays["gamma"])


class SquareRoot(EDM):
    """Time is sigma^2: VE as EDM's paper writes it (table 1)."""

    def __init__(self, spec: EDMSpec) -> None:
        super().__init__(spec)
        self.t_min, self.t_max = spec.sigma_min**2, spec.sigma_max**2

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        return t.sqrt()

    def sigma2_rate(self, t: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(t)

    def time_of(self, ratio: torch.Tensor) -> torch.Tensor:
        return ratio**2


VE_ROW = EDMSpec(sigma_min=0.02, sigma_max=100)
#: Solver, process and grid of each run; the grids have 18 times with noise.
ABLATIONS = {
    "euler_edm": (DDIMSpec(steps=18, grid="karras", last=0.002), EDM(EDMSpec())),
    "heun_vp": (ODESpec(steps=18, last=1e-3), process_of("vp")),
    "euler_vp": (ODESpec(steps=18, last=1e-3, method="euler"), process_of("vp")),
    "heun_ve": (ODESpec(steps=18, last=0.02**2, grid="log-snr"), SquareRoot(VE_ROW)),
}


@pytest.mark.parametrize("run", ABLATIONS)
def test_the_ablation_sampler(run: str) -> None:
    """Noise level and first image of every network call, and the sample.

    The last step is Euler's to time 0: for DDIM the step into the data, for the others one in their own time.
    VP's official beta is derived from its ends, ln(1 + sigma^2) with sigma^2 = 1e-4 at 1e-3: rounding of 1e-12.
    """
    arrays, (spec, process) = recorded("edm_ablation_sampler"), ABLATIONS[run]
    denoiser = Recorder(process)
    solver = build(spec, denoiser)
    times = solver.times()
    x = process.alpha(times[0]) * process.ratio(times[0]) * arrays["latents"]
    for t, s in pairwise(times[:-1]):
        x = solver.step(x, t, s, UNCONDITIONAL, no_noise)
    if spec.name == "ddim":
        x = solver.step(x, *times[-2:], UNCONDITIONAL, no_noise)
    else:
        euler = build(ODESpec(steps=1, method="euler"), denoiser)
        x = euler.advance(x, times[-2], float64(0.0), UNCONDITIONAL, no_noise)
    close(process.ratio(torch.stack(denoiser.times)), arrays[f"{run}_sigma_calls"])
    close(torch.stack(denoiser.inputs)[:, 0, 0], arrays[f"{run}_x_calls"])
    close(x, arrays[f"{run}_x_final"])


@pytest.mark.parametrize("name", ["discrete", "vp", "vp-chain", "sub-vp", "ve", "edm", "vp-cosine"])
def test_churn_raises_noise_but_never_above_the_largest(name: str) -> None:
    options = {"schedule": "linear"} if name == "discrete" else {}
    denoiser = Toy(process_of(name, **options), "eps", toy_eps)
    solver = build(HeunSpec(steps=9, sigma_max=1e9, churn=1000), denoiser)
    times = solver.times()[:-1]
    raised = torch.stack([solver.churned(t) for t in times])
    assert raised[0] == pytest.approx(denoiser.process.t_max)
    assert raised.max() <= denoiser.process.t_max * (1 + 1e-12)
    assert (raised[1:] > times[1:]).all()


@pytest.mark.parametrize("ceiling", [None, 3.0, 200.0])
def test_churn_raises_noise_up_to_its_ceiling(ceiling: float | None) -> None:
    """1 + min(1000/9, sqrt 2 - 1) = sqrt 2 times sigma, cut at the ceiling, never below sigma; 80 on EDM by default."""
    solver = build(HeunSpec(steps=9, churn=1000, churn_ceiling=ceiling), Recorder())
    times = solver.times()[:-1]
    raised = torch.stack([solver.churned(t) for t in times])
    highest = torch.full_like(times, 80.0 if ceiling is None else ceiling)
    close(raised, (2**0.5 * times).minimum(highest).maximum(times), rtol=1e-14)
    assert (raised > 80).any() == (ceiling == 200)


def test_eighteen_heun_steps_cost_35_evaluations() -> None:
    """Of the inner denoiser too, when a threshold wraps it."""
    for threshold in ("none", "static"):
        recorder = Recorder()
        denoiser = Counted(recorder)
        solver = build(HeunSpec(steps=18, threshold=threshold), denoiser)
        solve(solver, solver.start(torch.ones(1, 1, 2, 2)), UNCONDITIONAL, no_noise)
        assert denoiser.calls == len(recorder.times) == 35


class Countdown(Solver):
    """Records the pairs of times that it is given; x counts the steps and adds its noise."""

    def __init__(self) -> None:
        self.process, self.pairs, self.corrector = process_of("edm"), [], None

    def times(self) -> torch.Tensor:
        return float64([4.0, 2.0, 1.0, 0.0])

    def step(self, x_t, t, s, condition, noise: Noise):
        self.pairs.append((float(t), float(s)))
        return x_t + noise(x_t)


def test_the_loop_takes_consecutive_times_and_noise_in_order() -> None:
    """x = 4 z_0 + z_1 + z_2 + z_3 from one stream; three additions in float64."""
    solver, shape = Countdown(), (2, 1, 3, 3)
    x = sample(solver, shape, torch.Generator().manual_seed(3), dtype=torch.float64)
    assert solver.pairs == [(4, 2), (2, 1), (1, 0)]
    generator = torch.Generator().manual_seed(3)
    z = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]
    close(x, 4 * z[0] + z[1] + z[2] + z[3], rtol=1e-14, atol=1e-14)
