"""Processes against score_sde's definitions, and laws that every process obeys."""

import math
from itertools import pairwise

import pytest
import torch
from toys import Toy, chain_times, close, column, made, process_of, recorded, toy_score

from diffbench.conform import processes, solvers  # noqa: F401, their laws
from diffbench.conform.law import judged
from diffbench.diffusion.core.condition import UNCONDITIONAL
from diffbench.diffusion.core.process import REMEMBERED, Process, float64
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import EulerMaruyamaSpec, ODESpec, ReverseDiffusionSpec

NAMES = {"VP": "vp", "subVP": "sub-vp", "VE": "ve"}
#: The official prior of VE is about 0, not about the middle of [0, 1].
PARAMETERS = {
    "sde_definitions": {"VE": {"centre": 0}},
    "sde_definitions_b": {"VE": {"sigma_max": 90, "centre": 0}},
}
STEPS = {
    "sde_definitions": {"VP": 1000, "subVP": 1000, "VE": 1000},
    "sde_definitions_b": {"VP": 100, "subVP": 100, "VE": 200},
}

both_files = pytest.mark.parametrize("file", PARAMETERS)
every_sde = pytest.mark.parametrize("sde", NAMES)


def process_in(file: str, sde: str) -> Process:
    return process_of(NAMES[sde], **PARAMETERS[file].get(sde, {}))


@both_files
@every_sde
def test_drift_diffusion_and_marginals(file: str, sde: str) -> None:
    arrays, process = recorded(file), process_in(file, sde)
    x, t = arrays["x"], arrays["t"]
    close(column(process.f(t)) * x, arrays[f"{sde}_drift"])
    close(process.g2(t).sqrt(), arrays[f"{sde}_diffusion"])
    close(process.diffuse(x, column(t), torch.zeros_like(x)), arrays[f"{sde}_mean"])
    close(process.sigma(t), arrays[f"{sde}_std"])


@both_files
@every_sde
def test_prior_density(file: str, sde: str) -> None:
    """For VE the arrays hold the density at 30 x."""
    arrays, process = recorded(file), process_in(file, sde)
    x = arrays["x"] * (30 if sde == "VE" else 1)
    close(process.prior_log_prob(x), arrays[f"{sde}_prior_logp"])


@both_files
@every_sde
def test_reverse_drift_and_diffusion(file: str, sde: str) -> None:
    """A reverse step of length 1 is x - drift, and its noise is g."""
    arrays, process = recorded(file), process_in(file, sde)
    x, t = arrays["x"], column(arrays["t"])
    denoiser = Toy(process, "score", toy_score)
    close(toy_score(x, t), arrays["score"])
    sde_step = build(EulerMaruyamaSpec(steps=1), denoiser).advance
    ode_step = build(ODESpec(steps=1, method="euler"), denoiser).advance
    mean = sde_step(x, t, t - 1, UNCONDITIONAL, torch.zeros_like)
    close(x - mean, arrays[f"{sde}_rev0_drift"])
    noise = sde_step(x, t, t - 1, UNCONDITIONAL, torch.ones_like) - mean
    close(noise[:, 0, 0, 0], arrays[f"{sde}_rev0_diffusion"])
    close(x - ode_step(x, t, t - 1, UNCONDITIONAL, torch.zeros_like), arrays[f"{sde}_rev1_drift"])


@both_files
def test_the_discretised_sub_vp_is_an_euler_step(file: str) -> None:
    """score_sde's default rule: f/N and g/sqrt(N), forwards and backwards."""
    arrays, process = recorded(file), process_in(file, "subVP")
    x, t, h = arrays["x"], column(arrays["t"]), 1 / STEPS[file]["subVP"]
    close(column(process.f(arrays["t"])) * x * h, arrays["subVP_disc_f"])
    close((process.g2(arrays["t"]) * h).sqrt(), arrays["subVP_disc_G"])
    denoiser = Toy(process, "score", toy_score)
    sde_step = build(EulerMaruyamaSpec(steps=1), denoiser).advance
    ode_step = build(ODESpec(steps=1, method="euler"), denoiser).advance
    mean = sde_step(x, t, t - h, UNCONDITIONAL, torch.zeros_like)
    close(x - mean, arrays["subVP_rev0_disc_f"])
    noise = sde_step(x, t, t - h, UNCONDITIONAL, torch.ones_like) - mean
    close(noise[:, 0, 0, 0], arrays["subVP_rev0_disc_G"])
    close(x - ode_step(x, t, t - h, UNCONDITIONAL, torch.ones_like), arrays["subVP_rev1_disc_f"])
    assert (arrays["subVP_rev1_disc_G"] == 0).all()


@both_files
def test_the_discretised_vp_is_the_linear_chain(file: str) -> None:
    """score_sde's forward step x + f + G z at index floor(t (N - 1)) is the chain's transition."""
    arrays, steps = recorded(file), STEPS[file]["VP"]
    chain = process_of("discrete", schedule="linear", steps=steps)
    level = (arrays["t"] * (steps - 1)).floor()
    alpha, sigma2 = chain.transition(level, level - 1)
    close(column(alpha - 1) * arrays["x"], arrays["VP_disc_f"])
    close(sigma2.sqrt(), arrays["VP_disc_G"])
    close(chain.betas, arrays["VP_discrete_betas"])
    close(chain.alpha_bar[1:], arrays["VP_alphas_cumprod"])


@both_files
def test_the_discretised_ve_is_its_transition_between_levels(file: str) -> None:
    """Level i has time i/(N - 1); the step before level 0 starts at the data."""
    arrays, steps = recorded(file), STEPS[file]["VE"]
    process = process_in(file, "VE")
    times = torch.linspace(0, 1, steps, dtype=torch.float64)
    close(process.sigma(times), arrays["VE_discrete_sigmas"])
    level = (arrays["t"] * (steps - 1)).floor().long()
    before = torch.cat([float64([process.data_time]), times])[level]
    alpha, sigma2 = process.transition(times[level], before)
    close(column(alpha - 1) * arrays["x"], arrays["VE_disc_f"])
    close(sigma2.sqrt(), arrays["VE_disc_G"])


@both_files
@pytest.mark.parametrize(("name", "sde"), [("vp", "VP"), ("vp-chain", "VP"), ("ve", "VE")])
@pytest.mark.parametrize("flow", [0, 1])
def test_the_discretised_reverse_is_reverse_diffusions_step(
    file: str, name: str, sde: str, flow: int
) -> None:
    """x - mean is rev_f, and what unit noise adds is rev_G: none where the flow is followed.

    Level j's time is j/(N - 1); the score is asked at t itself.
    """
    arrays, steps = recorded(file), STEPS[file][sde]
    chain = process_of("vp-chain", levels=STEPS[file]["VP"])
    process = chain if name == "vp-chain" else process_in(file, sde)
    denoiser = Toy(process, "score", lambda x, _: toy_score(x, column(arrays["t"])))
    t, s = (column(each) for each in chain_times(denoiser.process, arrays["t"], steps))
    spec = ReverseDiffusionSpec(steps=steps, noise=1 - flow)
    advance = build(spec, denoiser).advance
    mean = advance(arrays["x"], t, s, UNCONDITIONAL, torch.zeros_like)
    close(arrays["x"] - mean, arrays[f"{sde}_rev{flow}_disc_f"])
    noise = advance(arrays["x"], t, s, UNCONDITIONAL, torch.ones_like) - mean
    close(noise[:, 0, 0, 0], arrays[f"{sde}_rev{flow}_disc_G"])


@pytest.mark.parametrize("levels", [40, 100, 1000])
def test_the_chain_in_continuous_time_has_ddpms_levels(levels: int) -> None:
    """Level j at j/(N - 1), and its step.  ln abar is to 1e-12, or Stirling's next term, 1e-11 at N = 40."""
    chain = process_of("discrete", schedule="linear", steps=levels)
    process, level = process_of("vp-chain", levels=levels), torch.arange(levels).double()
    times = level / (levels - 1)
    close(process.alpha(times).log(), chain.alpha(level).log(), rtol=3e-11, atol=0)
    close(process.sigma(times), chain.sigma(level), rtol=3e-11, atol=0)
    before = torch.cat([float64([process.data_time]), times[:-1]])
    close(process.chain_step(times, before)[1], chain.betas, rtol=1e-9, atol=0)


def test_the_sdes_marginals_are_not_the_chains() -> None:
    """VP at i/1000 beside DDPM's level i - 1: 4.9 % more noise at the first, 3.4 % more signal at the last."""
    sde, chain = process_of("vp"), process_of("vp-chain")
    assert sde.sigma(float64(1e-3)) / chain.sigma(float64(0)) - 1 == pytest.approx(0.0485, abs=5e-5)
    assert sde.alpha(float64(1)) / chain.alpha(float64(1)) - 1 == pytest.approx(0.0344, abs=5e-5)


def test_a_chain_whose_betas_pass_half_is_refused() -> None:
    with pytest.raises(ValueError, match="levels 30 must be at least twice beta_max 20"):
        ProcessSpec.choose({"name": "vp-chain", "levels": 30})


def test_published_noise_levels_of_vp() -> None:
    """alpha(1) = exp(-5.025); sigma/alpha to the digits given, half a unit of the last."""
    process = process_of("vp")
    assert process.alpha(float64(1)) == pytest.approx(math.exp(-5.025), rel=1e-14)
    ratios = process.ratio(float64([1, 1e-3, 1e-5]))
    assert (
        (ratios - float64([152.167, 0.010486, 1.0005e-3]))
        .abs()
        .le(float64([5e-4, 5e-7, 5e-8]))
        .all()
    )


def test_edm_noise_levels_of_vp_and_their_inverse() -> None:
    """The official code takes ln(1 + sigma^2): at sigma = 0.002 that costs 1e-16/4e-6 of its
    digits."""
    arrays, process = recorded("edm_precond"), process_of("vp")
    times = torch.tensor([1e-5, 0.1, 0.5, 1]).double()  # recorded at float32 inputs
    close(process.ratio(times), arrays["VP_sigma_of_t"])
    close(process.time_of(arrays["sigma"]), arrays["VP_t_of_sigma"])
    close(process.ratio(float64([1e-5, 1])), arrays["VP_sigma_range"])


CHOICES = {
    "discrete": [{"schedule": "linear", "steps": 50}, {"schedule": "cosine", "steps": 30}],
    "blurring": [{"sigma_max": 0.5}, {"sigma_max": 2, "schedule": "sin"}],
}
GAUSSIAN = [
    ProcessSpec.choose({"name": name, **choice})
    for name, known in sorted(ProcessSpec.known.items())
    if known.family == "gaussian" and known.noise == "growing"
    for choice in CHOICES.get(name, [{}])
]
every_gaussian = pytest.mark.parametrize("spec", GAUSSIAN, ids=lambda spec: spec.canonical())
CONTINUOUS = [spec for spec in GAUSSIAN if spec.time == "continuous"]


def some_times(process: Process) -> torch.Tensor:
    """Decreasing; beside the coordinates, where alpha has some."""
    if process.spec.time == "discrete":
        return torch.arange(process.t_max, -1, -3, dtype=torch.float64)
    times = torch.linspace(process.t_max, process.t_min, 21, dtype=torch.float64)[:-1]
    return times if process.spec.alpha == "scalar" else column(times)


@every_gaussian
def test_every_choice_obeys_the_laws(spec: ProcessSpec) -> None:
    assert [each.line for each in judged(spec) if each.failed] == []


@every_gaussian
def test_two_transitions_are_one(spec: ProcessSpec) -> None:
    """q(x_t|x_r) from q(x_t|x_s) and q(x_s|x_r).  The variances are differences of sigma^2: they
    round by 1e-16 of the largest sigma^2."""
    process = made(spec)
    t, s, r = some_times(process)[:-2], some_times(process)[1:-1], some_times(process)[2:]
    (alpha_ts, var_ts), (alpha_sr, var_sr) = process.transition(t, s), process.transition(s, r)
    alpha_tr, var_tr = process.transition(t, r)
    scale = float(process.sigma(t).max()) ** 2
    close(alpha_ts * alpha_sr, alpha_tr, rtol=1e-12)
    close(alpha_ts**2 * var_sr + var_ts, var_tr, rtol=1e-12, atol=1e-14 * scale)


@every_gaussian
def test_time_of_inverts_the_ratio(spec: ProcessSpec) -> None:
    """Tolerance: near t_min VP and sub-VP lose half the digits of ratio^2 against 1 (see above)."""
    process = made(spec)
    t = some_times(process)
    close(process.time_of(process.ratio(t)), t, rtol=1e-9)
    assert process.time_of(float64([0.0])).item() == process.data_time


@pytest.mark.parametrize("spec", CONTINUOUS, ids=lambda spec: spec.canonical())
def test_drift_and_diffusion_are_the_derivatives(spec: ProcessSpec) -> None:
    """f = d ln(alpha)/dt and g^2 = d(sigma^2)/dt - 2 f sigma^2 by automatic differentiation."""
    process = made(spec)
    t = some_times(process).requires_grad_()

    def rate(y: torch.Tensor) -> torch.Tensor:
        """Of each coordinate by itself."""
        if not y.requires_grad:
            return torch.zeros_like(t)
        parts = y.flatten(1).unbind(1) if y.ndim > 1 else [y]
        rates = [torch.autograd.grad(part.sum(), t, retain_graph=True)[0] for part in parts]
        return rates[0] if y.ndim == 1 else torch.cat(rates, 1).reshape(y.shape)

    f = rate(process.alpha(t).log())
    sigma2 = process.sigma(t) ** 2
    g2 = rate(sigma2) - 2 * f * sigma2.detach()
    close(process.f(t).detach(), f, rtol=1e-12)
    close(process.g2(t).detach(), g2, rtol=1e-10)


@pytest.mark.parametrize("name", ["f", "sigma2_rate"])
def test_integer_times_have_no_rates(name: str) -> None:
    process = process_of("discrete", schedule="cosine", steps=10)
    with pytest.raises(TypeError, match="its time is discrete"):
        getattr(process, name)(float64(3))


@pytest.mark.parametrize("name", ["vp", "vp-chain", "sub-vp", "ve", "edm", "vp-cosine"])
def test_the_range_of_ratios_that_a_spec_states_is_the_process_s(name: str) -> None:
    """A plan's float and the class's tensor: 1e-9 relative, though 1 - alpha^2 at t = 1e-5 keeps 10 digits."""
    process = process_of(name)
    ends = process.ratio(float64([process.t_min, process.t_max]))
    close(ends, float64(process.spec.ratios), rtol=1e-9, atol=0.0)


@every_gaussian
def test_coefficients_at_single_times_are_remembered_and_few_are_kept(spec: ProcessSpec) -> None:
    process, times = made(spec), some_times(made(spec)).flatten()
    for t, s in pairwise(times):
        variance = process.posterior_variance(t, s)
        assert process.posterior_variance(t.clone(), s.clone()) is variance
        # A tensor of several times is not remembered, so this one is computed.
        computed = process.posterior_variance(column(t[None]), column(s[None]))
        assert torch.equal(variance, computed.reshape(variance.shape))
    assert len(times) > REMEMBERED / 2
    assert process.memory
    assert all(len(kept) <= REMEMBERED for kept in process.memory.values())
