"""Training times that are unbiased, and losses against the official code and by hand."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from toys import (
    Toy,
    close,
    column,
    official_log_prob,
    process_of,
    recorded,
    toy_denoised,
    toy_eps,
    toy_fraction,
)

from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core import bound as terms_of_the_bound
from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.core.streams import normal_like
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.diffusion.denoisers.network import NetworkDenoiser, noise_input
from diffbench.diffusion.likelihoods.vlb import VLB
from diffbench.diffusion.objectives.classifier import CrossEntropy
from diffbench.diffusion.objectives.losses import (
    EDMObjective,
    Hybrid,
    ScoreMatching,
    Simple,
    VLBObjective,
)
from diffbench.diffusion.objectives.times import QUANTILES as QUANTILE_DRAWS
from diffbench.diffusion.objectives.times import (
    ImportanceTimes,
    LogNormalTimes,
    LogSNRTimes,
    MixedTimes,
    Times,
    UniformTimes,
)
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.specs.likelihoods import VLBSpec
from diffbench.specs.objectives import (
    EDMObjectiveSpec,
    HybridSpec,
    ImportanceTimesSpec,
    LogNormalTimesSpec,
    LogSNRTimesSpec,
    MixedTimesSpec,
    ScoreMatchingSpec,
    SimpleSpec,
    TimesSpec,
    UniformTimesSpec,
    VLBObjectiveSpec,
)
from diffbench.specs.processes import DiscreteSpec, EDMSpec, SubVPSpec, VPSpec
from diffbench.specs.registry import build

PROCESSES = {
    "vp": {},
    "sub-vp": {},
    "ve": {},
    "edm": {},
    "discrete": {"schedule": "cosine", "steps": 49},  # of which n/49*49 is not n for every n
}
every_process = pytest.mark.parametrize("name", PROCESSES)


def some_process(name: str) -> Process:
    return process_of(name, **PROCESSES[name])


def half_range(process: Process) -> float:
    """The unit of noise levels: 1 on [-1, 1], a half on [0, 1]."""
    return (process.spec.high - process.spec.low) / 2


def midpoints(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def smooth(t: Tensor, process: Process) -> Tensor:
    """A function of time that its mean does not determine."""
    return torch.cos(3 * t / process.t_max) + (t / process.t_max) ** 2


def variation(values: Tensor) -> float:
    """Total variation of a function's values in order of its argument."""
    return float(values.diff().abs().sum())


QUANTILES = 100_000


@every_process
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_mixed_times_have_the_expectation_of_uniform_ones(name: str, share: float) -> None:
    """By the midpoint rule over quantiles, which errs by at most total variation/(2 n) (Koksma)."""
    process, u = some_process(name), midpoints(QUANTILES)
    t, weight = MixedTimes(MixedTimesSpec(share=share), process).quantile(u)
    mixed = weight * smooth(t, process)
    uniform = smooth(UniformTimes(UniformTimesSpec(), process).quantile(u)[0], process)
    assert abs(weight.mean() - 1) <= variation(weight) / (2 * QUANTILES) + 1e-12
    bound = (variation(mixed) + variation(uniform)) / (2 * QUANTILES)
    assert abs(mixed.mean() - uniform.mean()) <= bound


@every_process
def test_mixed_times_are_mixed(name: str) -> None:
    """Below the log-normal's median, in units of half the data range, lie half of its share and the
    uniform times that are there.

    Times are uniform inside a cell, so the cell of the median may be off by its probability; and the
    part of the log-normal that the process's range cuts off is spread over the rest.
    """
    process, spec, u = some_process(name), MixedTimesSpec(share=0.3), midpoints(QUANTILES)
    times = MixedTimes(spec, process)
    uniform, _ = UniformTimes(UniformTimesSpec(), process).quantile(u)
    median = math.exp(spec.mean) * half_range(process)
    want = 0.3 * (process.ratio(uniform) < median).double().mean() + 0.7 * 0.5
    got = (process.ratio(times.quantile(u)[0]) < median).double().mean()
    ends = process.ratio(uniform[[0, -1]]).log() - math.log(half_range(process))
    kept = float(np.diff(stats.norm(spec.mean, spec.std).cdf(ends.numpy()))[0])
    assert abs(got - want) <= float(times.probability.max()) + 0.7 * (1 - kept)


@every_process
def test_uniform_times_cover_their_range(name: str) -> None:
    process = some_process(name)
    times = UniformTimes(UniformTimesSpec(last=1e-3), process)
    t, weight = times.quantile(midpoints(4900))
    assert (weight == 1).all()
    if process.spec.time == "discrete":
        assert torch.equal(torch.bincount(t.long()), torch.full((49,), 100))
    else:
        first = max(1e-3, process.t_min)
        close(t, first + (process.t_max - first) * midpoints(4900), rtol=1e-12)


@every_process
def test_lognormal_times_have_lognormal_ratios(name: str) -> None:
    """Where the process has them: at the nearest level of a chain, at the ends of the range
    beyond."""
    process, spec, u = some_process(name), LogNormalTimesSpec(mean=-0.5, std=0.9), midpoints(500)
    t, weight = LogNormalTimes(spec, process).quantile(u)
    want = half_range(process) * torch.from_numpy(stats.norm(spec.mean, spec.std).ppf(u)).exp()
    if process.spec.time == "discrete":
        levels = process.ratio(float64(range(49)))
        want = levels[(want[:, None] - levels).abs().argmin(1)]
    close(process.ratio(t), want, rtol=1e-9)
    assert (weight == 1).all()


@every_process
def test_lognormal_times_are_times_a_denoiser_may_be_asked(name: str) -> None:
    """Even the tails: on a chain a tiny ratio is nearest to the data's, where there is no noise."""
    process = some_process(name)
    t, _ = LogNormalTimes(LogNormalTimesSpec(), process).quantile(
        float64([0.0, 1e-7, 1 - 1e-7, 1.0])
    )
    assert (t >= process.t_min).all() and (t <= process.t_max).all()


KINDS = [
    (UniformTimes, UniformTimesSpec),
    (LogSNRTimes, LogSNRTimesSpec),
    (LogNormalTimes, LogNormalTimesSpec),
    (MixedTimes, MixedTimesSpec),
]


@pytest.mark.parametrize(("kind", "spec"), KINDS)
def test_stratified_draws_take_one_of_each_stratum(kind: type, spec: type) -> None:
    """The sorted times lie one in each of 64 equal slices of the distribution."""
    times = kind(spec(draw="stratified"), process_of("vp"))
    t, _ = times.draw(64, torch.Generator().manual_seed(0))
    edges, _ = times.quantile(torch.linspace(0, 1, 65, dtype=torch.float64))
    order = t.sort()[0]
    assert ((edges[:-1] <= order) & (order <= edges[1:])).all()
    assert not torch.equal(t, order)


@pytest.mark.parametrize(("kind", "spec"), KINDS)
@pytest.mark.parametrize("draw", sorted(QUANTILE_DRAWS))
def test_draws_are_a_function_of_the_generator(kind: type, spec: type, draw: str) -> None:
    times = kind(spec(draw=draw), process_of("vp"))
    draws = [times.draw(8, torch.Generator().manual_seed(n)) for n in (1, 1, 2)]
    assert torch.equal(draws[0][0], draws[1][0]) and torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[2][0])


def test_low_discrepancy_draws_are_evenly_spaced_from_a_random_start() -> None:
    """The quantiles (u + i/n) mod 1 of the stream's one number u; the times are those of the quantiles."""
    u = torch.rand(1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    want = (u + float64(range(10)) / 10) % 1
    got = QUANTILE_DRAWS["low-discrepancy"](10, torch.Generator().manual_seed(3))
    close(got, want, rtol=1e-15, atol=1e-16)
    close(got.sort()[0].diff(), 0.1 * torch.ones(9).double(), rtol=1e-14)
    times = MixedTimes(MixedTimesSpec(draw="low-discrepancy"), process_of("vp"))
    assert torch.equal(times.draw(10, torch.Generator().manual_seed(3))[0], times.quantile(got)[0])


@pytest.mark.parametrize("count", [1, 4, 10])
def test_the_mean_of_a_low_discrepancy_draw_has_the_variance_of_one_nth_part(count: int) -> None:
    """The n quantiles are v/n + i/n, v uniform: their mean is (n - 1)/2n + v/n, of variance 1/12n^2.

    The variance of m uniform numbers is estimated to a standard error of sqrt((1/80 - 1/144)/m) (their fourth
    central moment is 1/80), 3 % of 1/12 at m = 1000; their mean to sqrt(1/12m).  Limits are 4 of each.
    """
    m, generator = 1000, torch.Generator().manual_seed(0)
    means = torch.stack(
        [QUANTILE_DRAWS["low-discrepancy"](count, generator).mean() for _ in range(m)]
    )
    v = count * means - (count - 1) / 2
    assert (v > -1e-12).all() and (v < 1 + 1e-12).all()
    assert abs(float(v.var()) - 1 / 12) <= 4 * math.sqrt((1 / 80 - 1 / 144) / m)
    assert abs(float(v.mean()) - 0.5) <= 4 * math.sqrt(1 / 12 / m)


CONTINUOUS = ["vp", "sub-vp", "ve", "edm", "vp-cosine"]
every_sde = pytest.mark.parametrize("name", CONTINUOUS)


def log_snr_times(name: str) -> LogSNRTimes:
    return LogSNRTimes(LogSNRTimesSpec(), process_of(name))


def g2_over_sigma2(name: str, t: float) -> float:
    """By hand, for the default parameters: beta/sigma^2 for VP, beta (1 - exp(-2B))/sigma^2 for sub-VP with B the
    integral of beta and sigma = 1 - exp(-B), 2 ln(smax/smin), 2/t, and 2 rate/tan for the cosine."""
    beta, total = 0.1 + 19.9 * t, 0.1 * t + 19.9 * t**2 / 2
    if name == "vp":
        return beta / -math.expm1(-total)
    if name == "sub-vp":
        return beta * -math.expm1(-2 * total) / math.expm1(-total) ** 2
    if name == "ve":
        return 2 * math.log(50 / 0.01)
    if name == "edm":
        return 2 / t
    first, last = math.atan(math.exp(-5)), math.atan(math.exp(5))
    rate = last - first
    angle = first + rate * t
    # (sigma^2)' - 2 f sigma^2 = rate sin 2a + 2 rate tan a sin^2 a = 2 rate tan a
    return 2 * rate * math.tan(angle) / math.sin(angle) ** 2


@every_sde
def test_log_snr_quantiles_are_those_of_g2_over_sigma2(name: str) -> None:
    """The integral of g^2/sigma^2 up to the u-quantile is u of the whole, by adaptive quadrature in ln t, whose
    own estimate of its error is below 1e-10 of the whole."""
    times = log_snr_times(name)

    def integral(upper: float) -> float:
        ends = math.log(times.start), math.log(upper)
        found = integrate.quad(
            lambda w: g2_over_sigma2(name, math.exp(w)) * math.exp(w), *ends, epsrel=1e-11
        )
        assert found[1] < 1e-8
        return found[0]

    u = float64([0.01, 0.2, 0.5, 0.8, 0.99])
    t, _ = times.quantile(u)
    whole = integral(times.process.t_max)
    close(float64([integral(float(each)) for each in t]) / whole, u, rtol=1e-9)
    assert whole == pytest.approx(2 * (times.high - times.low), rel=1e-9)
    ends, _ = times.quantile(float64([0.0, 1.0]))
    close(ends, float64([times.start, times.process.t_max]), rtol=1e-9)


@every_sde
def test_log_snr_weights_are_the_uniform_density_over_theirs(name: str) -> None:
    """The density is du/dt, so the weight dt/du over the length of the times.

    By central differences with h = 1e-5: where the time changes fastest it is as exp(c u) with c = 22 (VP's small
    times, 2 (high - low)), so that the third derivative adds (c h)^2/6 = 1e-8 of the first; where slowest, 1/20 of
    its mean, rounding adds 1e-16/(h/20).
    """
    times, u, h = log_snr_times(name), torch.linspace(0.01, 0.99, 99).double(), 1e-5
    _, weight = times.quantile(u)
    slope = (times.quantile(u + h)[0] - times.quantile(u - h)[0]) / (2 * h)
    close(weight, slope / times.length, rtol=1e-7)


@every_sde
def test_log_snr_times_have_the_expectation_of_uniform_ones(name: str) -> None:
    """Against the midpoint rule over uniform times: to at most total variation/(2 n) over quantiles (Koksma), and
    within 4 standard errors of a draw, the draw's own."""
    times, uniform = log_snr_times(name), UniformTimes(UniformTimesSpec(), process_of(name))
    even = smooth(uniform.quantile(midpoints(QUANTILES))[0], times.process)
    t, weight = times.quantile(midpoints(QUANTILES))
    weighted = weight * smooth(t, times.process)
    bound = (variation(weighted) + variation(even)) / (2 * QUANTILES)
    assert abs(weighted.mean() - even.mean()) <= bound
    t, weight = times.draw(20_000, torch.Generator().manual_seed(1))
    drawn = weight * smooth(t, times.process)
    assert abs(drawn.mean() - even.mean()) <= 4 * float(drawn.std()) / math.sqrt(20_000)


LEVELS = 40


@every_sde
@pytest.mark.parametrize("kind", [UniformTimes, MixedTimes])
def test_levels_are_all_the_times_that_are_drawn(name: str, kind: type) -> None:
    """Evenly spaced, the ends among them, by every way to draw; in equal shares where times are uniform."""
    process = process_of(name)
    spec = {UniformTimes: UniformTimesSpec, MixedTimes: MixedTimesSpec}[kind](levels=LEVELS)
    start = max(1e-5, process.t_min)
    want = start + (process.t_max - start) * float64(range(LEVELS)) / (LEVELS - 1)
    times = kind(spec, process)
    t, _ = times.quantile(midpoints(100 * LEVELS if kind is UniformTimes else QUANTILES))
    found, counts = t.unique(return_counts=True)
    close(found, want, rtol=1e-12, atol=0)
    if kind is UniformTimes:
        assert (counts == 100).all()
    ends, _ = times.quantile(float64([0.0, 1 - 2.0**-53]))
    assert ends.tolist() == found[[0, -1]].tolist()
    for draw in QUANTILE_DRAWS:
        times = kind(spec.model_copy(update={"draw": draw}), process)
        t, _ = times.draw(200, torch.Generator().manual_seed(0))
        assert torch.isin(t, found).all()


@pytest.mark.parametrize("kind", [UniformTimes, MixedTimes])
def test_from_time_0_on_the_levels_are_the_chains(kind: type) -> None:
    """DDPM's 1,000, each told to a network as its number."""
    spec = {UniformTimes: UniformTimesSpec, MixedTimes: MixedTimesSpec}[kind](levels=1000, last=0)
    t, _ = kind(spec, process_of("vp-chain")).quantile(midpoints(100_000))
    told = noise_input(
        process_of("vp-chain"), torch.zeros(len(t), 1), t[:, None, None, None], "time"
    )
    close(told.double().unique(), float64(range(1000)), rtol=0, atol=1e-4)


@every_sde
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_mixed_levels_have_their_mass_and_its_weight(name: str, share: float) -> None:
    """That of ln(sigma/alpha) normal up to the middle, in the logarithm, between two levels, scaled to a whole;
    the outermost middles are mirrored.  The share of a level among evenly spaced quantiles is its probability, to
    one quantile an end; the weights make the expectation that of equal shares."""
    process, spec = process_of(name), MixedTimesSpec(share=share, levels=LEVELS)
    times = MixedTimes(spec, process)
    found, _ = UniformTimes(UniformTimesSpec(levels=LEVELS), process).quantile(midpoints(LEVELS))
    log_ratio = (process.sigma(found) / process.alpha(found)).log().numpy()
    middle = (log_ratio[1:] + log_ratio[:-1]) / 2
    first, last = 2 * log_ratio[0] - middle[0], 2 * log_ratio[-1] - middle[-1]
    centre = spec.mean + math.log(half_range(process))
    mass = np.diff(stats.norm(centre, spec.std).cdf([first, *middle, last]))
    want = torch.from_numpy(share / LEVELS + (1 - share) * mass / mass.sum())
    t, weight = times.quantile(midpoints(QUANTILES))
    level = torch.searchsorted(found, t - 1e-9 * process.t_max)
    counts = torch.bincount(level, minlength=LEVELS) / QUANTILES
    assert ((counts - want).abs() <= 1.0001 / QUANTILES).all()
    close(weight, 1 / (LEVELS * want[level]), rtol=1e-9)
    if share == 1.0:
        close(weight, torch.ones_like(weight), rtol=1e-12)


class GivenTimes(Times):
    """The times of a recorded batch, with weights."""

    def __init__(self, process: Process, t: Tensor, weight: float = 1.0) -> None:
        super().__init__(TimesSpec(name="given"), process)
        self.t, self.weight = t, weight

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.t, torch.full_like(self.t, self.weight)

    def quantile(self, u: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("the times are given")


NO_DRAWS = torch.Generator()


CHAINS = {"": ("linear", 1000), "_cos4000": ("cosine", 4000)}
both_chains = pytest.mark.parametrize("suffix", CHAINS)


def toy_chain(suffix: str) -> Denoiser:
    schedule, steps = CHAINS[suffix]
    process = process_of("discrete", schedule=schedule, steps=steps)
    return Toy(process, "eps", toy_eps, toy_fraction)


@both_chains
def test_simple_is_improved_diffusions_mse(suffix: str) -> None:
    arrays, denoiser = recorded(f"gd_losses{suffix}"), toy_chain(suffix)
    process = denoiser.process
    objective = Simple(SimpleSpec(), denoiser, GivenTimes(process, arrays["t"]))
    loss = objective(arrays["x0"], arrays["noise"], NO_DRAWS)
    close(loss, arrays["MSE_FIXED_SMALL_mse"])
    close(loss, arrays["MSE_FIXED_SMALL_loss"])


@both_chains
def test_hybrid_and_vlb_are_improved_diffusions(
    suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its approximation of the normal distribution function.  Its RESCALED_MSE adds T/1000 times the
    term in bits/dim to the squared error, MSE the term itself, and RESCALED_KL is T times the term."""
    monkeypatch.setattr(terms_of_the_bound, "discretised_log_prob", official_log_prob)
    arrays, denoiser = recorded(f"gd_losses{suffix}"), toy_chain(suffix)
    steps = CHAINS[suffix][1]
    times = GivenTimes(denoiser.process, arrays["t"])

    def losses(kind: type, spec) -> Tensor:
        objective = kind(spec, denoiser, times, 2 / 255)
        return objective.losses(arrays["x0"], column(arrays["t"]), arrays["noise"], UNCONDITIONAL)

    vlb, simple = losses(VLBObjective, VLBObjectiveSpec()), losses(Simple, SimpleSpec())
    close(vlb, arrays["RESCALED_KL_LEARNED_RANGE_loss"])
    for key, weight in (("RESCALED_MSE", 0.001), ("MSE", 1 / steps)):
        key = f"{key}_LEARNED_RANGE"
        close(losses(Hybrid, HybridSpec(weight=weight)), arrays[f"{key}_loss"])
        close(weight * vlb, arrays[f"{key}_vb"])
        close(simple, arrays[f"{key}_mse"])


def vp_network(x: Tensor, t: Tensor) -> Tensor:
    """eps of ``sde_losses``: its network, told t * 999."""
    return 0.3 * x * torch.cos(0.01 * t * 999) + 0.1 * torch.sin(x)


def ve_network(x: Tensor, label: Tensor) -> Tensor:
    """The score of ``sde_losses``, told sigma or the number of a level."""
    return -x / (1 + label**2) + 0.1 * torch.sin(x) / (1 + label)


def ve_score(process: Process):
    """In continuous time it is told sigma."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        return ve_network(x, process.sigma(t))

    return score


#: Of each file: VE's largest sigma, and the numbers of levels of VP's and VE's chains.
SDE_FILES = {"sde_losses": (50, 1000, 1000), "sde_losses_b": (90, 100, 200)}
every_sde_file = pytest.mark.parametrize("file", SDE_FILES)


def sde_toy(file: str, sde: str) -> Denoiser:
    """Its networks as denoisers, in continuous time."""
    if sde == "VE":
        process = process_of("ve", sigma_max=SDE_FILES[file][0])
        return Toy(process, "score", ve_score(process))
    return Toy(process_of({"VP": "vp", "subVP": "sub-vp"}[sde]), "eps", vp_network)


def losses_are_score_sdes(file: str, sde: str, spec: ScoreMatchingSpec, key: str) -> None:
    """In its two reductions: the mean over pixels, and half their sum; one by one and averaged."""
    arrays, denoiser = recorded(file), sde_toy(file, sde)
    x0, z = arrays["x0"], arrays["z"]
    t, _ = UniformTimes(UniformTimesSpec(), process_of("vp")).quantile(arrays["u"])
    close(t, arrays["t"])
    loss = ScoreMatching(spec, denoiser, GivenTimes(denoiser.process, t))(x0, z, NO_DRAWS)
    close(loss, arrays[f"{sde}_{key}_rm1"])
    close(loss.mean(), arrays[f"{sde}_{key}_rm1_batch"])
    close(loss * x0[0].numel() / 2, arrays[f"{sde}_{key}_rm0"])
    close(loss.mean() * x0[0].numel() / 2, arrays[f"{sde}_{key}_rm0_batch"])


@every_sde_file
@pytest.mark.parametrize("sde", ["VP", "subVP", "VE"])
def test_score_matching_is_score_sdes(file: str, sde: str) -> None:
    losses_are_score_sdes(file, sde, ScoreMatchingSpec(), "lw0")


@every_sde_file
@pytest.mark.parametrize("sde", ["VP", "VE"])
def test_likelihood_weighting_is_score_sdes(file: str, sde: str) -> None:
    losses_are_score_sdes(file, sde, ScoreMatchingSpec(weight="likelihood"), "lw1")


def ve_levels(file: str) -> Tensor:
    """The times of VE's discrete training: j/(N - 1).  The first cannot be 0, where sigma is sigma_min, but may be
    as near."""
    levels, process = SDE_FILES[file][2], process_of("ve", sigma_max=SDE_FILES[file][0])
    times = UniformTimes(UniformTimesSpec(last=1e-14, levels=levels), process)
    return times.quantile(midpoints(levels))[0]


@every_sde_file
def test_discrete_training_is_score_sdes(file: str) -> None:
    """VP's is DDPM's loss on the linear chain, VE's is score matching at its levels, which its labels count from
    the largest sigma; the network is told the label."""
    arrays, levels = recorded(file), SDE_FILES[file][1]
    half_pixels = arrays["x0"][0].numel() / 2
    chain, lab = process_of("discrete", schedule="linear", steps=levels), arrays["lab"]
    denoiser = Toy(chain, "eps", toy_eps)
    loss = Simple(SimpleSpec(), denoiser, GivenTimes(chain, lab))(
        arrays["x0"], arrays["z"], NO_DRAWS
    )
    close(loss, arrays["VP_discrete_rm1"])
    close(loss * half_pixels, arrays["VP_discrete_rm0"])

    t = ve_levels(file).flip(0)[arrays["labVE"].long()]
    process = process_of("ve", sigma_max=SDE_FILES[file][0])
    denoiser = Toy(process, "score", lambda x, _: ve_network(x, column(arrays["labVE"])))
    loss = ScoreMatching(ScoreMatchingSpec(), denoiser, GivenTimes(process, t))(
        arrays["x0"], arrays["z"], NO_DRAWS
    )
    close(loss, arrays["VE_discrete_rm1"])
    close(loss * half_pixels, arrays["VE_discrete_rm0"])


@every_sde_file
def test_ves_labels_count_the_levels_from_the_largest(file: str) -> None:
    """round((1 - t)(N - 1)): of the levels that training draws the nearest in time.  The score is the network's
    answer at that label, at the input that ``sde_definitions`` has."""
    arrays, levels = recorded(file), ve_levels(file)
    labels = (arrays["t"][:, None] - levels.flip(0)).abs().argmin(1)
    close(labels.double(), arrays["VE_labels_discrete"], rtol=0, atol=0)
    x = recorded(file.replace("losses", "definitions"))["x"]
    denoiser = Toy(process_of("ve"), "score", lambda x, t: ve_network(x, column(labels)))
    close(denoiser(x, column(arrays["t"])).score, arrays["VE_score_discrete"], atol=1e-14)


@every_sde
def test_the_weights_of_score_matching_differ_by_g2_and_sigma2(name: str) -> None:
    """sigma^2, g^2 and 1 times the score's squared error, which comes from the scores themselves."""
    process = process_of(name)
    t = process.t_min + (process.t_max - process.t_min) * float64([0.1, 0.5, 0.9])
    x0, noise = images_and_noise(3)
    denoiser = Toy(process, "x0", lambda x, t: x.sin())
    x_t = process.diffuse(x0, column(t), noise)
    score, true = denoiser(x_t, column(t)).score, -noise / column(process.sigma(t))
    squared = (score - true).square().flatten(1).mean(1)
    g2 = float64([g2_over_sigma2(name, float(each)) for each in t]) * process.sigma(t) ** 2
    factors = {"sigma2": process.sigma(t) ** 2, "likelihood": g2, "unit": torch.ones_like(t)}
    for weight, factor in factors.items():
        spec = ScoreMatchingSpec(weight=weight)
        loss = ScoreMatching(spec, denoiser, GivenTimes(process, t))(x0, noise, NO_DRAWS)
        close(loss, factor * squared, rtol=1e-9, atol=0)


@every_sde
def test_likelihood_weighted_losses_at_log_snr_times_are_errors_of_eps(name: str) -> None:
    """g^2/sigma^2 times the times' weight is 2 (high - low)/length, high and low the ends of ln(sigma/alpha)."""
    times = log_snr_times(name)
    process, ends = times.process, float64([times.start, times.process.t_max])
    denoiser, (x0, noise) = Toy(process, "eps", toy_eps), images_and_noise(64)
    spec = ScoreMatchingSpec(weight="likelihood")
    loss = ScoreMatching(spec, denoiser, times)(x0, noise, torch.Generator().manual_seed(2))
    t, _ = times.draw(64, torch.Generator().manual_seed(2))
    error = Simple(SimpleSpec(), denoiser, GivenTimes(process, t))(x0, noise, NO_DRAWS)
    low, high = (process.sigma(ends) / process.alpha(ends)).log()
    close(loss, 2 * (high - low) / (ends[1] - ends[0]) * error, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["vp", "sub-vp", "edm", "vp-cosine"])
def test_log_snr_times_make_the_likelihood_weighted_loss_less_noisy(name: str) -> None:
    """Of one denoiser and one set of images: means agree within 4 standard errors of their difference, and the
    variance is less than half.  (VE's log SNR is uniform in time: there the two are the same.)"""
    process = process_of(name)
    denoiser, (x0, noise) = Toy(process, "eps", toy_eps), images_and_noise(4000)
    losses = []
    for times in (
        LogSNRTimes(LogSNRTimesSpec(), process),
        UniformTimes(UniformTimesSpec(), process),
    ):
        objective = ScoreMatching(ScoreMatchingSpec(weight="likelihood"), denoiser, times)
        losses.append(objective(x0, noise, torch.Generator().manual_seed(5)))
    scaled, plain = losses
    se = math.sqrt(float(scaled.var() + plain.var()) / 4000)
    assert abs(float(scaled.mean() - plain.mean())) <= 4 * se
    assert scaled.var() < 0.5 * plain.var()


def test_the_edm_loss_is_edms() -> None:
    """Of the mean over pixels; the official value is a pixel's.  The noise level is its normal
    draw's."""
    arrays, process = recorded("edm_loss"), process_of("edm")
    u = torch.special.ndtr(arrays["ns"].flatten())
    sigma, _ = LogNormalTimes(LogNormalTimesSpec(), process).quantile(u)
    close(sigma, arrays["EDM_sigma"])
    denoiser = Toy(process, "x0", toy_denoised)
    objective = EDMObjective(EDMObjectiveSpec(), denoiser, GivenTimes(process, sigma))
    close(objective.weight(sigma), arrays["EDM_weight"])
    close(objective(arrays["y"], arrays["n"], NO_DRAWS), arrays["EDM_loss"].mean((1, 2, 3)))


@pytest.mark.parametrize("row", ["VP", "VE"])
def test_score_matching_is_edms_vp_and_ve_losses(row: str) -> None:
    """Weight 1/sigma^2 on the denoised image: the squared error of eps."""
    arrays, process = recorded("edm_loss"), process_of("edm", sigma_max=100)
    u = arrays["u"].flatten()
    if row == "VP":
        vp = process_of("vp")
        sigma = vp.ratio(UniformTimes(UniformTimesSpec(), vp).quantile(1 - u)[0])
    else:
        ve = process_of("ve", sigma_min=0.02, sigma_max=100)
        sigma = ve.sigma(u)
    close(sigma, arrays[f"{row}_sigma"])
    close(1 / sigma**2, arrays[f"{row}_weight"])
    denoiser = Toy(process, "x0", toy_denoised)
    objective = ScoreMatching(ScoreMatchingSpec(), denoiser, GivenTimes(process, sigma))
    close(objective(arrays["y"], arrays["n"], NO_DRAWS), arrays[f"{row}_loss"].mean((1, 2, 3)))


CONSTANT = 0.25
OBJECTIVES = [SimpleSpec(), ScoreMatchingSpec(), EDMObjectiveSpec(data_std=0.4)]


@every_process
@pytest.mark.parametrize("spec", OBJECTIVES, ids=lambda spec: spec.name)
def test_losses_of_a_constant_by_hand(name: str, spec) -> None:
    """A denoiser whose x0 is 0.25 everywhere, on x0 = 0.75 and noise 0.5, with importance weight 3.

    Its error in x0 is 1/2, in eps alpha/sigma times that; EDM's weight has the data's deviation in
    the units of the process, half of 0.4 on [0, 1].
    """
    process = some_process(name)
    t = float64([20.0, 40.0]) if name == "discrete" else float64([0.4, 0.9])
    ratio = process.sigma(t) / process.alpha(t)
    data_std = 0.4 * (process.spec.high - process.spec.low) / 2
    want = {
        "simple": torch.full_like(t, 0.25),
        "score-matching": 0.25 / ratio**2,
        "edm": 0.25 * (ratio**2 + data_std**2) / (ratio * data_std) ** 2,
    }[spec.name]
    denoiser = Toy(process, "x0", lambda x, _: torch.full_like(x, CONSTANT))
    objective = build(spec, denoiser, GivenTimes(process, t, weight=3.0))
    shape = (2, 1, 2, 2)
    x0, noise = torch.full(shape, 0.75).double(), torch.full(shape, 0.5).double()
    close(objective(x0, noise, NO_DRAWS), 3 * want, rtol=1e-11)


@pytest.mark.parametrize("native", ["eps", "x0", "v", "score"])
def test_simple_is_the_error_of_the_native_quantity(native: str) -> None:
    """The targets by hand: eps, x0, (alpha eps - sigma x0)/sqrt(alpha^2 + sigma^2) and -eps/sigma, against an
    answer of 0.25."""
    process, t = process_of("sub-vp"), float64([0.5])
    alpha, sigma = process.alpha(t), process.sigma(t)
    target = {
        "eps": 0.5 + 0 * t,
        "x0": 0.75 + 0 * t,
        "v": (alpha * 0.5 - sigma * 0.75) / (alpha**2 + sigma**2).sqrt(),
        "score": -0.5 / sigma,
    }[native]
    denoiser = Toy(process, native, lambda x, _: torch.full_like(x, CONSTANT))
    objective = Simple(SimpleSpec(), denoiser, GivenTimes(process, t))
    x0, noise = torch.full((1, 1, 2, 2), 0.75).double(), torch.full((1, 1, 2, 2), 0.5).double()
    close(objective(x0, noise, NO_DRAWS), (target - CONSTANT) ** 2, rtol=1e-12)


@pytest.mark.parametrize(("schedule", "t"), [("linear", 1), ("linear", 30), ("cosine", 48)])
def test_the_mean_is_the_posteriors(schedule: str, t: int) -> None:
    """DDPM's equation 7, in betas: a coefficient each of x_0 = 0.75 and of x_t, against 0.25."""
    process = process_of("discrete", schedule=schedule, steps=49)
    betas = process.betas.numpy()
    abar = np.cumprod(1 - betas)
    x_t = np.sqrt(abar[t]) * 0.75 + np.sqrt(1 - abar[t]) * 0.5
    target = (
        np.sqrt(abar[t - 1]) * betas[t] * 0.75 + np.sqrt(1 - betas[t]) * (1 - abar[t - 1]) * x_t
    ) / (1 - abar[t])
    denoiser = Toy(process, "mean", lambda x, _: torch.full_like(x, CONSTANT))
    objective = Simple(SimpleSpec(), denoiser, GivenTimes(process, float64([t])))
    x0, noise = torch.full((1, 1, 2, 2), 0.75).double(), torch.full((1, 1, 2, 2), 0.5).double()
    close(objective(x0, noise, NO_DRAWS), float64([(target - CONSTANT) ** 2]), rtol=1e-11)


def levels(process: Process) -> Tensor:
    return torch.arange(process.t_min, process.t_max + 1, dtype=torch.float64)


def images_and_noise(count: int) -> tuple[Tensor, Tensor]:
    """On 17 grey levels, both ends among them, (count, 1, 2, 2)."""
    generator = torch.Generator().manual_seed(8)
    x0 = torch.randint(0, 17, (count, 1, 2, 2), generator=generator).double() / 8 - 1
    return x0, torch.randn(count, 1, 2, 2, generator=generator, dtype=torch.float64)


HEADS = [
    (predict, skip) for predict in ("eps", "x0", "v", "score", "mean") for skip in ("none", "edm")
]


class TwoHeads:
    """A network whose answer and whose variance's outputs are given tensors."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(9)
        self.mean, self.variance = (
            torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
            for _ in range(2)
        )

    def __call__(self, x: Tensor, c_noise: Tensor, y: Tensor | None, raw: Tensor) -> Tensor:
        return torch.cat([self.mean, self.variance], dim=1)

    def gradients(self, losses: Tensor) -> tuple[Tensor, ...]:
        """Of the losses' sum, to the mean's output and to the variance's."""
        return torch.autograd.grad(losses.sum(), [self.mean, self.variance])


@pytest.mark.parametrize(("predict", "skip"), HEADS)
def test_hybrid_trains_the_mean_by_simple_and_the_variance_by_the_bound(
    predict: str, skip: str
) -> None:
    """At every level, the decoder's among them.  The variance's gradient is a sum of terms that cancel
    where the variance is right: it rounds by some 1e-16 of its largest."""
    process = process_of("discrete", schedule="cosine", steps=49)
    t = levels(process)
    x0, noise = images_and_noise(len(t))
    network = TwoHeads(x0.shape)
    spec = NetworkDenoiserSpec(predict=predict, skip=skip, variance="learned")
    denoiser, times = NetworkDenoiser(spec, process, network), GivenTimes(process, t)

    def gradients(kind: type, spec) -> tuple[Tensor, ...]:
        losses = kind(spec, denoiser, times, 2 / 16).losses(x0, column(t), noise, UNCONDITIONAL)
        return network.gradients(losses)

    hybrid = gradients(Hybrid, HybridSpec())
    simple = gradients(Simple, SimpleSpec())
    vlb = gradients(VLBObjective, VLBObjectiveSpec())
    assert torch.equal(hybrid[0], simple[0]) and not simple[1].any()
    close(hybrid[1], 0.001 * vlb[1], rtol=1e-12, atol=1e-14 * float(hybrid[1].abs().max()))
    # At level 0 an eps, score or mean head still moves the decoder's mean: no head is left out.
    assert (vlb[0].flatten(1).abs().amax(1) > 0).all()
    assert (vlb[1].flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_vlbs_mean_over_times_is_the_bound_without_its_prior(schedule: str, variance: str) -> None:
    """For the noise that the bound draws, from its highest level down; and term by term."""
    process = process_of("discrete", schedule=schedule, steps=49)
    denoiser = Toy(process, "eps", toy_eps, toy_fraction)
    bound = VLB(VLBSpec(variance=variance, threshold="none"), denoiser, GreyLevels(17))
    x0, t = images_and_noise(1)[0], levels(process)
    total = bound(x0, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    noise = torch.cat([normal_like(x0, generator) for _ in t]).flip(0)
    objective = VLBObjective(
        VLBObjectiveSpec(variance=variance), denoiser, GivenTimes(process, t), 2 / 16
    )
    losses = objective.losses(x0.expand(49, -1, -1, -1), column(t), noise, UNCONDITIONAL)
    close(losses / 49, total["terms"], rtol=1e-11)
    close(losses.mean()[None], total["total"] - total["prior"], rtol=1e-11)


def importance(steps: int = 8, **options: object) -> ImportanceTimes:
    process = process_of("discrete", schedule="cosine", steps=steps)
    return ImportanceTimes(ImportanceTimesSpec(**options), process)


def test_importance_is_improved_diffusions() -> None:
    """Its weights are all 1 until every time has 10 losses, and are normalised from then on."""
    arrays, times = recorded("gd_resampler"), importance()
    for t, losses, weights in zip(arrays["ts"], arrays["losses"], arrays["weights"], strict=True):
        times.update(t, losses)
        close(times.probability, weights / weights.sum())
    assert not torch.equal(arrays["weights"][-1], torch.ones(8).double())
    t, weight = times.quantile(midpoints(QUANTILES))
    assert t.unique().tolist() == list(range(8))
    first = torch.searchsorted(t, float64(range(8)))
    close(weight[first], arrays["importance_weight"])


def after(losses: Callable[[Tensor], Tensor], times: ImportanceTimes, rounds: int) -> None:
    """Every time of a chain, that often."""
    t = float64(range(times.cells))
    for i in range(rounds):
        times.update(t, losses(t + i))


def uneven(t: Tensor) -> Tensor:
    return 0.1 + (t % 5) ** 2


@pytest.mark.parametrize("rounds", [0, 2, 3, 7])
@pytest.mark.parametrize("share", [0.001, 0.5])
def test_importance_has_the_expectation_of_uniform_times(rounds: int, share: float) -> None:
    """sum_t p_t w_t L_t = mean_t L_t for any L; sums of 30 numbers of size 1."""
    times = importance(30, history=3, share=share)
    after(uneven, times, rounds)
    p, t = times.probability, float64(range(30))
    drawn, weight = times.quantile(midpoints(QUANTILES))
    # The share of each time among evenly spaced quantiles is its probability, to one quantile an end.
    counts = torch.bincount(drawn.long(), minlength=30) / QUANTILES
    assert ((counts - p).abs() <= 1.0001 / QUANTILES).all()
    weights = torch.zeros(30).double().index_put((drawn.long(),), weight)
    losses = smooth(t, times.process)
    assert float((p * weights * losses).sum()) == pytest.approx(float(losses.mean()), rel=1e-13)
    assert float(p.sum()) == pytest.approx(1, rel=1e-14)


def test_importance_is_uniform_until_every_time_has_its_history() -> None:
    times = importance(30, history=3)
    uniform = torch.full((30,), 1 / 30, dtype=torch.float64)
    after(uneven, times, 2)
    times.update(float64(range(29)), uneven(float64(range(29))))
    assert torch.equal(times.probability, uniform)
    times.update(float64([29]), float64([2.0]))
    assert not torch.equal(times.probability, uniform)


def test_importance_is_the_root_mean_square_of_the_last_losses() -> None:
    times = importance(30, history=3, share=0.01)
    t = float64(range(30))
    for size in (100.0, 1.0, 2.0, 2.0):
        times.update(t, size * (t + 1))
    want = (t + 1) / (t + 1).sum()
    close(times.probability, 0.99 * want + 0.01 / 30, rtol=1e-13)


def test_importance_goes_on_from_its_state_bit_for_bit() -> None:
    first, second = importance(30, history=2), importance(30, history=2)
    after(uneven, first, 3)
    second.load(copy.deepcopy(first.state()))
    for step in range(5):
        draws = []
        for times in (first, second):
            t, weight = times.draw(16, torch.Generator().manual_seed(step))
            times.update(t, uneven(t + step))
            draws.append(torch.stack([t, weight]))
        assert torch.equal(*draws)
    assert torch.equal(first.probability, second.probability)


def test_other_times_have_no_state() -> None:
    times = UniformTimes(UniformTimesSpec(), some_process("vp"))
    assert times.state() == {}
    times.load({})


def test_an_objective_teaches_its_times_the_losses_before_their_weights() -> None:
    times = importance(30, history=1)
    after(uneven, times, 1)
    denoiser = Toy(times.process, "eps", toy_eps, toy_fraction)
    x0, noise = images_and_noise(6)
    losses = Simple(SimpleSpec(), denoiser, times)(x0, noise, torch.Generator().manual_seed(1))
    untaught = importance(30, history=1)
    after(uneven, untaught, 1)
    t, weight = untaught.draw(6, torch.Generator().manual_seed(1))
    alone = Simple(SimpleSpec(), denoiser, untaught).losses(x0, column(t), noise, UNCONDITIONAL)
    close(losses, alone * weight, rtol=1e-15)
    assert (weight != 1).all()
    for time, loss in dict(zip(t.tolist(), alone.tolist(), strict=True)).items():
        assert times.losses[int(time), 0] == loss


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_integer_times_take_the_mass_up_to_the_geometric_midpoints(
    schedule: str, share: float
) -> None:
    """Of ln(sigma/alpha) normal, scaled to a whole; the outermost midpoints are mirrored."""
    process = process_of("discrete", schedule=schedule, steps=50)
    spec = MixedTimesSpec(share=share)
    abar = np.cumprod(1 - process.betas.numpy())
    log_ratio = 0.5 * np.log((1 - abar) / abar)
    middle = (log_ratio[1:] + log_ratio[:-1]) / 2
    first, last = 2 * log_ratio[0] - middle[0], 2 * log_ratio[-1] - middle[-1]
    mass = np.diff(stats.norm(spec.mean, spec.std).cdf([first, *middle, last]))
    want = torch.from_numpy(share / 50 + (1 - share) * mass / mass.sum())
    times = MixedTimes(spec, process)
    close(times.probability, want, rtol=1e-11, atol=0)
    t, weight = times.quantile(midpoints(QUANTILES))
    counts = torch.bincount(t.long(), minlength=50) / QUANTILES
    assert ((counts - want).abs() <= 1.0001 / QUANTILES).all()
    close(weight, 1 / (50 * want[t.long()]), rtol=1e-11)


class Labels(Denoiser):
    """Keeps the labels that it is told."""

    classes = 10

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        self.given = condition.label
        return Prediction(self.process, x_t, t, "eps", x_t)


def told(rate: float, y: Tensor | None, seed: int = 4) -> tuple[Tensor | None, Tensor]:
    """The labels that reach the denoiser, and the stream's state afterwards."""
    denoiser, generator = Labels(some_process("vp")), torch.Generator().manual_seed(seed)
    count = 20_000
    times = UniformTimes(UniformTimesSpec(), denoiser.process)
    objective = Simple(SimpleSpec(label_dropout=rate), denoiser, times)
    x0 = torch.zeros(count, 1, 1, 1)
    objective(x0, x0, generator, y)
    return denoiser.given, generator.get_state()


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_labels_are_dropped_at_their_rate(rate: float) -> None:
    """By one number a label, after the times: exactly the stream's, and within 4 standard deviations of
    the binomial."""
    y = torch.arange(20_000) % 10
    given, _ = told(rate, y)
    generator = torch.Generator().manual_seed(4)
    torch.rand(20_000, generator=generator, dtype=torch.float64)
    drop = torch.rand(20_000, generator=generator) < rate
    assert torch.equal(given, torch.where(drop, 10, y))
    assert abs(float(drop.sum()) - 20_000 * rate) <= 4 * math.sqrt(20_000 * rate * (1 - rate))


@pytest.mark.parametrize(("rate", "labelled"), [(0.0, True), (0.1, False), (0.0, False)])
def test_nothing_is_drawn_where_nothing_can_be_dropped(rate: float, labelled: bool) -> None:
    y = torch.arange(20_000) % 10 if labelled else None
    given, state = told(rate, y)
    assert given is y
    generator = torch.Generator().manual_seed(4)
    torch.rand(20_000, generator=generator, dtype=torch.float64)
    assert torch.equal(state, generator.get_state())


def test_all_labels_are_dropped_at_rate_one() -> None:
    given, _ = told(1.0, torch.zeros(20_000, dtype=torch.long))
    assert (given == 10).all()


@every_process
def test_cross_entropy_by_hand(name: str) -> None:
    """Of two classes whose network sums the scaled image and its negative, with importance weight 3:
    ln(1 + exp(-2 z)) for the first label, z = alpha h sum(x_t - alpha m)/(alpha^2 h^2 + sigma^2)."""
    process = some_process(name)
    t = float64([20.0, 40.0]) if name == "discrete" else float64([0.4, 0.9])
    alpha, sigma, half = process.alpha(t), process.sigma(t), half_range(process)
    x0, noise = torch.full((2, 1, 1, 2), 0.75).double(), torch.full((2, 1, 1, 2), 0.5).double()
    z = 2 * (alpha * 0.75 + sigma * 0.5 - alpha * process.spec.middle)
    z = z * alpha * half / (alpha**2 * half**2 + sigma**2)

    def network(x: Tensor, c_noise: Tensor) -> Tensor:
        close(c_noise, (sigma / alpha).log() / 4, rtol=1e-12)
        total = x.flatten(1).sum(1)
        return torch.stack([total, -total], dim=1)

    objective = CrossEntropy(Classifier(process, network, 2), GivenTimes(process, t, weight=3.0))
    got = objective(x0, noise, NO_DRAWS, torch.tensor([0, 1]))
    close(got, 3 * torch.stack([(-2 * z[0]).exp().log1p(), (2 * z[1]).exp().log1p()]), rtol=1e-11)


FIXED, LEARNED, UNBOUNDED = (
    NetworkDenoiserSpec(predict="eps", variance=variance)
    for variance in ("fixed", "learned", "unbounded")
)
CHAIN = DiscreteSpec(schedule="cosine", steps=49)
REFUSALS = [
    (SimpleSpec(), CHAIN, LEARNED, "denoiser.variance: learned gets no gradient from this simple"),
    (VLBObjectiveSpec(variance="large"), CHAIN, LEARNED, "gets no gradient from this vlb; use"),
    (VLBObjectiveSpec(), CHAIN, UNBOUNDED, None),
    (SimpleSpec(), CHAIN, UNBOUNDED, "gets no gradient from this simple"),
    (VLBObjectiveSpec(), CHAIN, FIXED, "vlb with variance: learned needs denoiser.variance"),
    (HybridSpec(), CHAIN, FIXED, "hybrid with variance: learned needs denoiser.variance"),
    (HybridSpec(), VPSpec(), LEARNED, "hybrid needs integer times"),
    (VLBObjectiveSpec(variance="small"), VPSpec(), FIXED, "vlb needs integer times"),
    (SimpleSpec(times={"name": "importance"}), VPSpec(), FIXED, "importance needs integer"),
    (
        ScoreMatchingSpec(weight="likelihood"),
        CHAIN,
        FIXED,
        "weight: likelihood needs continuous time, and discrete has integer times; the weight g^2 is",
    ),
    (SimpleSpec(times="log-snr"), CHAIN, FIXED, "times.name: log-snr needs continuous time"),
    (
        SimpleSpec(times={"name": "uniform", "levels": 10}),
        CHAIN,
        FIXED,
        "times.levels: 10 needs continuous time, and discrete has integer times; leave it out, a chain has its own",
    ),
    (SimpleSpec(times={"name": "mixed", "levels": 10}), CHAIN, FIXED, "times.levels: 10"),
    (
        SimpleSpec(times={"name": "uniform", "last": 1.0}),
        VPSpec(),
        FIXED,
        "times.last: 1 must be below vp's largest time, 1",
    ),
    (SimpleSpec(times={"name": "log-snr", "last": 2}), VPSpec(), FIXED, "times.last: 2"),
    (SimpleSpec(times={"name": "mixed", "last": 90}), EDMSpec(), FIXED, "edm's largest time, 80"),
    (SimpleSpec(times={"name": "mixed", "last": 70}), EDMSpec(), FIXED, None),
    (ScoreMatchingSpec(weight="likelihood", times="log-snr"), SubVPSpec(), FIXED, None),
    (ScoreMatchingSpec(weight="unit"), CHAIN, FIXED, None),
    (SimpleSpec(times={"name": "uniform", "levels": 10}), VPSpec(), FIXED, None),
    (SimpleSpec(times={"name": "importance"}), CHAIN, FIXED, None),
    (VLBObjectiveSpec(variance="small"), CHAIN, FIXED, None),
    (VLBObjectiveSpec(), CHAIN, LEARNED, None),
    (HybridSpec(), CHAIN, LEARNED, None),
    (SimpleSpec(), CHAIN, FIXED, None),
]


@pytest.mark.parametrize(("objective", "process", "denoiser", "reason"), REFUSALS)
def test_an_objective_that_cannot_train_says_why(objective, process, denoiser, reason) -> None:
    refusal = objective.refusal(process, denoiser)
    assert refusal is None if reason is None else reason in refusal


@pytest.mark.parametrize(
    ("times", "named"),
    [
        ({"name": "uniform", "levels": 1}, "levels"),
        ({"name": "log-snr", "levels": 10}, "levels"),
        ({"name": "lognormal", "levels": 10}, "levels"),
        ({"name": "uniform", "last": -1e-3}, "last"),
        ({"name": "uniform", "draw": "sobol"}, "draw"),
        ({"name": "uniform", "stratified": True}, "stratified"),
    ],
)
def test_times_that_cannot_be_are_refused_by_key(times: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SimpleSpec(times=times)
