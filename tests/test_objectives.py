"""Training times that are unbiased, and losses against the official code and by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from toys import Toy, close, process_of, recorded, toy_denoised, toy_eps

from diffbench.diffusion.objectives import (
    EDMObjective,
    LogNormalTimes,
    MixedTimes,
    ScoreMatching,
    Simple,
    Times,
    UniformTimes,
)
from diffbench.diffusion.processes.gaussian import GaussianProcess, at
from diffbench.plan.registry import build
from diffbench.specs.objective import (
    EDMObjectiveSpec,
    LogNormalTimesSpec,
    MixedTimesSpec,
    ScoreMatchingSpec,
    SimpleSpec,
    TimesSpec,
    UniformTimesSpec,
)

PROCESSES = {
    "vp": {},
    "sub-vp": {},
    "ve": {},
    "edm": {},
    "discrete": {"schedule": "cosine", "steps": 49},  # of which n/49*49 is not n for every n
}
every_process = pytest.mark.parametrize("name", PROCESSES)


def some_process(name: str) -> GaussianProcess:
    return process_of(name, **PROCESSES[name])


def half_range(process: GaussianProcess) -> float:
    """The unit of noise levels: 1 on [-1, 1], a half on [0, 1]."""
    return (process.spec.high - process.spec.low) / 2


def midpoints(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def smooth(t: Tensor, process: GaussianProcess) -> Tensor:
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
        levels = process.ratio(at(range(49)))
        want = levels[(want[:, None] - levels).abs().argmin(1)]
    close(process.ratio(t), want, rtol=1e-9)
    assert (weight == 1).all()


@every_process
def test_lognormal_times_are_times_a_denoiser_may_be_asked(name: str) -> None:
    """Even the tails: on a chain a tiny ratio is nearest to the data's, where there is no noise."""
    process = some_process(name)
    t, _ = LogNormalTimes(LogNormalTimesSpec(), process).quantile(at([0.0, 1e-7, 1 - 1e-7, 1.0]))
    assert (t >= process.t_min).all() and (t <= process.t_max).all()


KINDS = [
    (UniformTimes, UniformTimesSpec),
    (LogNormalTimes, LogNormalTimesSpec),
    (MixedTimes, MixedTimesSpec),
]


@pytest.mark.parametrize(("kind", "spec"), KINDS)
def test_stratified_draws_take_one_of_each_stratum(kind: type, spec: type) -> None:
    """The sorted times lie one in each of 64 equal slices of the distribution."""
    times = kind(spec(stratified=True), process_of("vp"))
    t, _ = times.draw(64, torch.Generator().manual_seed(0))
    edges, _ = times.quantile(torch.linspace(0, 1, 65, dtype=torch.float64))
    order = t.sort()[0]
    assert ((edges[:-1] <= order) & (order <= edges[1:])).all()
    assert not torch.equal(t, order)


@pytest.mark.parametrize(("kind", "spec"), KINDS)
@pytest.mark.parametrize("stratified", [False, True])
def test_draws_are_a_function_of_the_generator(kind: type, spec: type, stratified: bool) -> None:
    times = kind(spec(stratified=stratified), process_of("vp"))
    draws = [times.draw(8, torch.Generator().manual_seed(n)) for n in (1, 1, 2)]
    assert torch.equal(draws[0][0], draws[1][0]) and torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[2][0])


class GivenTimes(Times):
    """The times of a recorded batch, with weights."""

    def __init__(self, process: GaussianProcess, t: Tensor, weight: float = 1.0) -> None:
        super().__init__(TimesSpec(name="given"), process)
        self.t, self.weight = t, weight

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.t, torch.full_like(self.t, self.weight)


NO_DRAWS = torch.Generator()


@pytest.mark.parametrize(
    ("suffix", "chain"), [("", ("linear", 1000)), ("_cos4000", ("cosine", 4000))]
)
def test_simple_is_improved_diffusions_mse(suffix: str, chain: tuple) -> None:
    arrays = recorded(f"gd_losses{suffix}")
    process = process_of("discrete", schedule=chain[0], steps=chain[1])
    denoiser = Toy(process, "eps", toy_eps)
    objective = Simple(SimpleSpec(), denoiser, GivenTimes(process, arrays["t"]))
    loss = objective(arrays["x0"], arrays["noise"], NO_DRAWS)
    close(loss, arrays["MSE_FIXED_SMALL_mse"])
    close(loss, arrays["MSE_FIXED_SMALL_loss"])


def vp_network(x: Tensor, t: Tensor) -> Tensor:
    """eps of ``sde_losses``: its network, told t * 999."""
    return 0.3 * x * torch.cos(0.01 * t * 999) + 0.1 * torch.sin(x)


def ve_score(process: GaussianProcess):
    """The score of ``sde_losses``: its network, told sigma."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        sigma = process.sigma(t)
        return -x / (1 + sigma**2) + 0.1 * torch.sin(x) / (1 + sigma)

    return score


@pytest.mark.parametrize(("file", "sigma_max"), [("sde_losses", 50), ("sde_losses_b", 90)])
@pytest.mark.parametrize("sde", ["VP", "subVP", "VE"])
def test_score_matching_is_score_sdes(file: str, sigma_max: float, sde: str) -> None:
    """Its two reductions: the mean over pixels, and half their sum."""
    arrays = recorded(file)
    if sde == "VE":
        process = process_of("ve", sigma_max=sigma_max)
        denoiser = Toy(process, "score", ve_score(process))
    else:
        process = process_of({"VP": "vp", "subVP": "sub-vp"}[sde])
        denoiser = Toy(process, "eps", vp_network)
    x0, z = arrays["x0"], arrays["z"]
    t, _ = UniformTimes(UniformTimesSpec(), process_of("vp")).quantile(arrays["u"])
    close(t, arrays["t"])
    objective = ScoreMatching(ScoreMatchingSpec(), denoiser, GivenTimes(process, t))
    loss = objective(x0, z, NO_DRAWS)
    close(loss, arrays[f"{sde}_lw0_rm1"])
    close(loss.mean(), arrays[f"{sde}_lw0_rm1_batch"])
    close(loss * x0[0].numel() / 2, arrays[f"{sde}_lw0_rm0"])
    close(loss.mean() * x0[0].numel() / 2, arrays[f"{sde}_lw0_rm0_batch"])


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
    t = at([20.0, 40.0]) if name == "discrete" else at([0.4, 0.9])
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
    """The targets by hand: eps, x0, alpha eps - sigma x0 and -eps/sigma, against an answer of
    0.25."""
    process, t = process_of("sub-vp"), at([0.5])
    alpha, sigma = process.alpha(t), process.sigma(t)
    target = {
        "eps": 0.5 + 0 * t,
        "x0": 0.75 + 0 * t,
        "v": alpha * 0.5 - sigma * 0.75,
        "score": -0.5 / sigma,
    }[native]
    denoiser = Toy(process, native, lambda x, _: torch.full_like(x, CONSTANT))
    objective = Simple(SimpleSpec(), denoiser, GivenTimes(process, t))
    x0, noise = torch.full((1, 1, 2, 2), 0.75).double(), torch.full((1, 1, 2, 2), 0.5).double()
    close(objective(x0, noise, NO_DRAWS), (target - CONSTANT) ** 2, rtol=1e-12)
