"""The variational bound against improved-diffusion's, and sums over grids."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import Toy, close, official_log_prob, process_of, recorded, toy_eps, toy_fraction

from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core import bound as terms_of_the_bound
from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.diffusion.likelihoods.vlb import VLB, runs_of
from diffbench.specs.denoisers import GaussianSpec
from diffbench.specs.likelihoods import VLBSpec

THRESHOLD = {0: "none", 1: "static"}
KINDS = {"small": "FIXED_SMALL", "large": "FIXED_LARGE", "learned": "LEARNED_RANGE"}
CELLS = GreyLevels(256)


@pytest.fixture
def official_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """improved-diffusion's approximation in place of the normal distribution function."""
    monkeypatch.setattr(terms_of_the_bound, "discretised_log_prob", official_log_prob)


def toy_bound(schedule: str, steps: int, kind: str, clip: int) -> VLB:
    process = process_of("discrete", schedule=schedule, steps=steps)
    denoiser = Toy(process, "eps", toy_eps, toy_fraction)
    return VLB(VLBSpec(variance=kind, threshold=THRESHOLD[clip]), denoiser, CELLS)


@pytest.mark.usefixtures("official_decoder")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", THRESHOLD)
def test_the_whole_bound(kind: str, clip: int) -> None:
    """Recorded terms run from t = T - 1 down."""
    arrays, bound = recorded("gd_bpd_loop"), toy_bound("linear", 50, kind, clip)
    x0, key = arrays["x0"], f"{KINDS[kind]}_clip{clip}"
    levels = float64(range(49, -1, -1))
    terms = [bound.term(x0, t, t - 1, arrays["noise"][int(t)]) for t in levels]
    stacked = torch.stack(terms, 1)
    close(stacked, arrays[f"{key}_vb"])
    close(bound.prior(x0) + stacked.sum(1), arrays[f"{key}_total_bpd"])


@pytest.mark.parametrize("clip", THRESHOLD)
def test_prior_and_errors_along_the_chain(clip: int) -> None:
    """The prior's 2e-6 bits are a difference of terms near 1: 1e-10 absolute is what float64
    gives."""
    arrays, bound = recorded("gd_bpd_loop"), toy_bound("linear", 50, "small", clip)
    x0, key = arrays["x0"], f"FIXED_SMALL_clip{clip}"
    close(bound.prior(x0), arrays[f"{key}_prior_bpd"], atol=1e-14)
    for i, t in enumerate(float64(range(49, -1, -1))):
        noise = arrays["noise"][int(t)]
        prediction = bound.denoiser(bound.process.diffuse(x0, t, noise), t)
        close((prediction.eps - noise).square().mean((1, 2, 3)), arrays[f"{key}_mse"][:, i])
        close((prediction.x0 - x0).square().mean((1, 2, 3)), arrays[f"{key}_xstart_mse"][:, i])


CHAINS = {"": ("linear", 1000), "_cos4000": ("cosine", 4000)}
both_chains = pytest.mark.parametrize("suffix", CHAINS)


def single_terms(bound: VLB, arrays: dict[str, Tensor]) -> Tensor:
    """One level an image, edge pixels at -1 and 1 included, 0 among the levels."""
    terms = [
        bound.term(arrays["x0"][[i]], t, t - 1, arrays["noise"][[i]])
        for i, t in enumerate(arrays["t"])
    ]
    return torch.cat(terms)


@pytest.mark.usefixtures("official_decoder")
@both_chains
@pytest.mark.parametrize("kind", KINDS)
def test_single_terms(suffix: str, kind: str) -> None:
    arrays, bound = recorded(f"gd_losses{suffix}"), toy_bound(*CHAINS[suffix], kind, 0)
    close(single_terms(bound, arrays), arrays[f"KL_{KINDS[kind]}_loss"])
    close(bound.prior(arrays["x0"]), arrays["prior_bpd"])


@pytest.mark.usefixtures("official_decoder")
@both_chains
@pytest.mark.parametrize("clip", THRESHOLD)
def test_single_terms_with_a_threshold(suffix: str, clip: int) -> None:
    arrays, bound = recorded(f"gd_losses{suffix}"), toy_bound(*CHAINS[suffix], "learned", clip)
    close(single_terms(bound, arrays), arrays[f"vb_LEARNED_RANGE_clip{clip}"])


MEAN, DEVIATIONS = float64([0.2, -0.1]), float64([0.3, 0.6])


def exact_denoiser(steps: int) -> Denoiser:
    tensors = {"mean": MEAN, "covariance": (DEVIATIONS**2).diag()}
    process = process_of("discrete", schedule="linear", steps=steps)
    return GaussianDenoiser(GaussianSpec(), process, tensors)


def pixels(seed: int) -> Tensor:
    return torch.randn(5, 1, 1, 2, generator=torch.Generator().manual_seed(seed)).double()


def test_prior_of_gaussian_data() -> None:
    bound = VLB(VLBSpec(), exact_denoiser(50), GreyLevels(17))
    abar = np.prod(1 - np.linspace(20 * 1e-4, 20 * 0.02, 50))
    x0 = pixels(3)
    want = 0.5 * (abar * x0**2 + (1 - abar) - 1 - math.log(1 - abar)) / math.log(2)
    close(bound.prior(x0), want.mean((1, 2, 3)), rtol=1e-9, atol=1e-14)


GRIDS = [
    ({}, list(range(49, -2, -1))),
    ({"steps": 7}, [49, 41, 33, 24, 16, 8, 0, -1]),
    ({"steps": 5, "grid": "strided"}, [40, 30, 20, 10, 0, -1]),
    ({"steps": 2}, [49, 0, -1]),
    ({"steps": 1}, [0, -1]),
]


@pytest.mark.parametrize(("options", "times"), GRIDS)
@pytest.mark.parametrize("kind", ["small", "large"])
def test_the_total_is_prior_and_terms(options: dict, times: list, kind: str) -> None:
    """Noise in the order of the steps; into the data, the variance of the grid's own step before."""
    bound = VLB(VLBSpec(variance=kind, **options), exact_denoiser(50), GreyLevels(17))
    assert bound.times().tolist() == times
    x0 = (pixels(4).clamp(-1, 1) * 8).round() / 8
    got = bound(x0, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    before = float64(times[-3] if len(times) > 2 else 1)
    terms = []
    for t, s in pairwise(float64(times)):
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
        terms.append(bound.term(x0, t, s, noise, before))
    stacked = torch.stack(terms)
    close(got["times"], float64(times[-2::-1]))
    close(got["terms"], stacked.mean(1).flip(0), rtol=1e-12)
    close(got["total"], bound.prior(x0) + stacked.sum(0), rtol=1e-12)
    close(got["prior"], bound.prior(x0), rtol=1e-12)


@pytest.mark.parametrize("steps", [2, 3, 10, 97, 1000])
def test_runs_hold_each_step_once(steps: int) -> None:
    for count in range(1, steps, max(1, steps // 50)):
        ends = runs_of(steps, count)
        lengths = ends.diff()
        assert (int(ends[0]), int(ends[-1]), len(lengths)) == (0, steps, count)
        assert int(lengths.min()) >= 1
        assert int(lengths[0]) == int(lengths.min()), "the shortest runs lie next to the data"


class Told(VLB):
    """Each term is known: 100/(k + 1) at the k-th step from the data."""

    def term(self, x0: Tensor, t: Tensor, *_: object) -> Tensor:
        return (100 / (t.flatten() + 1)).expand(len(x0))

    def prior(self, x0: Tensor) -> Tensor:
        return torch.zeros(len(x0)).double()


def test_the_mean_of_estimates_is_the_bound() -> None:
    """And a tenth of the terms gives each estimate with an error of less than a thousandth."""
    x0 = pixels(5)
    whole = Told(VLBSpec(), exact_denoiser(1000), CELLS)(x0, torch.Generator())["total"][0]
    bound = Told(VLBSpec(terms=100), exact_denoiser(1000), CELLS)
    assert bound.calls() == 100
    generator = torch.Generator().manual_seed(1)
    found = [bound(x0, generator) for _ in range(400)]
    assert all(len(each["terms"]) == len(each["times"]) == 100 for each in found)
    assert all(bool((each["times"].diff() > 0).all()) for each in found)
    estimates = torch.stack([each["total"] for each in found])
    # A run of k/K steps, drawn evenly and counted k/K times, adds the variance (100/K^2)^2/12. With K = 20.6 there are
    # 80 runs of more than a step: a standard deviation of 0.6 of 748, known from 400 estimates of 5 images to 2 %.
    assert float(estimates.std() / whole) < 0.001
    assert abs(float(estimates.mean() - whole)) < 5 * float(estimates.std()) / 2000**0.5
    # Steps are drawn for each image: 400 pairs of independent numbers have a correlation of 0 +- 0.05.
    assert float((torch.corrcoef(estimates.T) - torch.eye(5)).abs().max()) < 0.25


@pytest.mark.parametrize("kind", ["small", "large", "learned"])
def test_a_drawn_step_has_the_term_of_that_step_alone(kind: str) -> None:
    """For each image, whatever steps the others have."""
    kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    class Kept(VLB):
        def term(self, x0, t, s, eps, before=None, condition=UNCONDITIONAL):
            found = super().term(x0, t, s, eps, before, condition)
            kept.append((t, s, eps, found))
            return found

    spec = VLBSpec(variance=kind, terms=12)
    process = process_of("discrete", schedule="cosine", steps=50)
    denoiser = Toy(process, "eps", toy_eps, toy_fraction)
    x0 = (pixels(6).clamp(-1, 1) * 8).round() / 8
    Kept(spec, denoiser, GreyLevels(17))(x0, torch.Generator().manual_seed(3))
    drawn = [each for each in kept if each[0].ndim]
    assert len(drawn) > 5 and any(len(t.unique()) > 2 for t, *_ in drawn)
    bound = VLB(spec, denoiser, GreyLevels(17))
    for t, s, eps, found in drawn:
        assert torch.equal(s, t - 1)
        for i in range(len(x0)):
            alone = bound.term(x0[[i]], t[i].squeeze(), s[i].squeeze(), eps[[i]])
            close(found[[i]], alone, rtol=1e-12)


class Labelled(Denoiser):
    """x0 is the label."""

    classes = 2

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition):
        y = condition.label
        return Toy(self.process, "x0", lambda x, _: y[:, None, None, None] + 0 * x)(x_t, t)


def test_labels_reach_the_denoiser() -> None:
    """With x0 and its prediction the label, and variance small, every KL is 0."""
    process = process_of("discrete", schedule="linear", steps=50)
    bound = VLB(VLBSpec(threshold="none"), Labelled(process), GreyLevels(3))
    y = torch.tensor([0, 1, 1])
    x0 = y[:, None, None, None].double().expand(3, 1, 2, 2).contiguous()
    got = bound(x0, torch.Generator().manual_seed(0), Condition(y))
    close(got["terms"][1:], torch.zeros(49).double(), atol=1e-12)
