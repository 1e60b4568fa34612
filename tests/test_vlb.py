"""The variational bound against improved-diffusion's, and its terms in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from toys import Toy, close, process_of, recorded, toy_eps

from diffbench.diffusion.analytic import GaussianDenoiser
from diffbench.diffusion.denoisers import Denoiser
from diffbench.diffusion.likelihoods.vlb import (
    VLB,
    bits,
    discretised_log_prob,
    gaussian_kl,
    step_variance,
)
from diffbench.diffusion.processes.gaussian import at
from diffbench.specs.denoiser import GaussianSpec
from diffbench.specs.likelihood import VLBSpec

THRESHOLD = {0: "none", 1: "static"}
SPACING = 2 / 255


def toy_bound(schedule: str, steps: int, kind: str, clip: int) -> VLB:
    denoiser = Toy(process_of("discrete", schedule=schedule, steps=steps), "eps", toy_eps)
    return VLB(VLBSpec(variance=kind, threshold=THRESHOLD[clip]), denoiser, SPACING)


def official_decoder(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """improved-diffusion's: a tanh for the normal distribution function, floors of 1e-12;
    bits/dim."""

    def cdf(z: Tensor) -> Tensor:
        return 0.5 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (z + 0.044715 * z**3)))

    upper, lower = cdf((x - mean + 1 / 255) / std), cdf((x - mean - 1 / 255) / std)
    middle = (upper - lower).clamp(min=1e-12).log()
    below, above = upper.clamp(min=1e-12).log(), (1 - lower).clamp(min=1e-12).log()
    return -bits(torch.where(x < -0.999, below, torch.where(x > 0.999, above, middle)))


def terms_as_recorded(bound: VLB, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The bound's term; at t = 0 its mean and variance in the official decoder."""
    if t > 0:
        return bound.term(x0, t, noise)
    prediction = bound.denoiser(bound.process.diffuse(x0, t, noise), t)
    v = step_variance(bound.process, t, t - 1, bound.spec.variance)
    return official_decoder(x0, prediction.x0, v.sqrt())


@pytest.mark.parametrize("kind", ["small", "large"])
@pytest.mark.parametrize("clip", THRESHOLD)
def test_the_whole_bound(kind: str, clip: int) -> None:
    """Recorded terms run from t = T - 1 down."""
    arrays, bound = recorded("gd_bpd_loop"), toy_bound("linear", 50, kind, clip)
    x0, key = arrays["x0"], f"FIXED_{kind.upper()}_clip{clip}"
    levels = at(range(49, -1, -1))
    terms = [terms_as_recorded(bound, x0, arrays["noise"][int(t)], t) for t in levels]
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
    for i, t in enumerate(at(range(49, -1, -1))):
        noise = arrays["noise"][int(t)]
        prediction = bound.denoiser(bound.process.diffuse(x0, t, noise), t)
        close((prediction.eps - noise).square().mean((1, 2, 3)), arrays[f"{key}_mse"][:, i])
        close((prediction.x0 - x0).square().mean((1, 2, 3)), arrays[f"{key}_xstart_mse"][:, i])


@pytest.mark.parametrize(
    ("suffix", "chain"), [("", ("linear", 1000)), ("_cos4000", ("cosine", 4000))]
)
def test_single_terms(suffix: str, chain: tuple) -> None:
    """One level an image, edge pixels at -1 and 1 included."""
    arrays = recorded(f"gd_losses{suffix}")
    for kind in ("small", "large"):
        bound = toy_bound(*chain, kind, 0)
        terms = [
            terms_as_recorded(bound, arrays["x0"][[i]], arrays["noise"][[i]], t)
            for i, t in enumerate(arrays["t"])
        ]
        close(torch.cat(terms), arrays[f"KL_FIXED_{kind.upper()}_loss"])
    close(bound.prior(arrays["x0"]), arrays["prior_bpd"])


MEAN, DEVIATIONS = at([0.2, -0.1]), at([0.3, 0.6])


def exact_denoiser(steps: int) -> Denoiser:
    tensors = {"mean": MEAN, "covariance": (DEVIATIONS**2).diag()}
    process = process_of("discrete", schedule="linear", steps=steps)
    return GaussianDenoiser(GaussianSpec(), process, tensors)


def pixels(seed: int) -> Tensor:
    return torch.randn(5, 1, 1, 2, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("t", [1, 5, 30, 49])
@pytest.mark.parametrize("kind", ["small", "large"])
def test_kl_of_gaussian_data(t: int, kind: str) -> None:
    """DDPM's equations 6, 7 and 11 in betas, with E[x_0 | x_t] of independent pixels."""
    denoiser = exact_denoiser(50)
    bound = VLB(VLBSpec(variance=kind, threshold="none"), denoiser, 2 / 16)
    betas = np.linspace(20 * 1e-4, 20 * 0.02, 50)
    abar = np.cumprod(1 - betas)
    x0, noise = 0.5 * pixels(0), pixels(1)
    a, b, beta = abar[t], abar[t - 1], betas[t]
    x_t = np.sqrt(a) * x0.numpy() + np.sqrt(1 - a) * noise.numpy()
    m, v = MEAN.numpy(), DEVIATIONS.numpy() ** 2
    guess = m + np.sqrt(a) * v / (a * v + 1 - a) * (x_t - np.sqrt(a) * m)
    difference = np.sqrt(b) * beta / (1 - a) * (x0.numpy() - guess)
    posterior = beta * (1 - b) / (1 - a)
    model = posterior if kind == "small" else beta
    kl = 0.5 * (posterior / model - 1 - np.log(posterior / model) + difference**2 / model)
    close(
        bound.term(x0, at(t), noise), torch.from_numpy(kl.mean((1, 2, 3)) / np.log(2)), rtol=1e-10
    )


@pytest.mark.parametrize("kind", ["small", "large"])
def test_decoder_of_gaussian_data(kind: str) -> None:
    """Mean E[x_0 | x_t at t = 0]; variance btilde_1 = beta_1 beta_0/(1 - abar_1), counted from
    0."""
    denoiser = exact_denoiser(50)
    bound = VLB(VLBSpec(variance=kind, threshold="none"), denoiser, 2 / 16)
    levels = at([-1.0, 1.0, 0.0, 0.125, 0.5]).reshape(5, 1, 1, 1).expand(5, 1, 1, 2)
    noise = pixels(2)
    betas = np.linspace(20 * 1e-4, 20 * 0.02, 50)[:2]
    a, std = 1 - betas[0], math.sqrt(betas[1] * betas[0] / (1 - (1 - betas[0]) * (1 - betas[1])))
    x_t = np.sqrt(a) * levels.numpy() + np.sqrt(betas[0]) * noise.numpy()
    m, v = MEAN.numpy(), DEVIATIONS.numpy() ** 2
    guess = m + np.sqrt(a) * v / (a * v + 1 - a) * (x_t - np.sqrt(a) * m)
    lower = np.where(levels == -1, -np.inf, (levels.numpy() - 1 / 16 - guess) / std)
    upper = np.where(levels == 1, np.inf, (levels.numpy() + 1 / 16 - guess) / std)
    want = -np.log(stats.norm.cdf(upper) - stats.norm.cdf(lower)).mean((1, 2, 3)) / np.log(2)
    close(bound.term(levels, at(0), noise), torch.from_numpy(want), rtol=1e-9)


def test_prior_of_gaussian_data() -> None:
    bound = VLB(VLBSpec(), exact_denoiser(50), 2 / 16)
    abar = np.prod(1 - np.linspace(20 * 1e-4, 20 * 0.02, 50))
    x0 = pixels(3)
    want = 0.5 * (abar * x0**2 + (1 - abar) - 1 - math.log(1 - abar)) / math.log(2)
    close(bound.prior(x0), want.mean((1, 2, 3)), rtol=1e-9, atol=1e-14)


def test_the_total_is_prior_and_terms() -> None:
    bound = VLB(VLBSpec(), exact_denoiser(50), 2 / 16)
    x0 = (pixels(4).clamp(-1, 1) * 8).round() / 8
    got = bound(x0, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    noises = [torch.randn(x0.shape, generator=generator, dtype=x0.dtype) for _ in range(50)]
    terms = torch.stack([bound.term(x0, at(t), z) for t, z in enumerate(noises)])
    close(got["terms"], terms.mean(1), rtol=1e-12)
    close(got["total"], bound.prior(x0) + terms.sum(0), rtol=1e-12)
    close(got["prior"], bound.prior(x0), rtol=1e-12)


def test_gaussian_kl_is_the_textbooks() -> None:
    p, q = (
        torch.distributions.Normal(at(0.3), at(0.7)),
        torch.distributions.Normal(at(-1.0), at(1.9)),
    )
    got = gaussian_kl(at(0.3), at(0.49), at(-1.0), at(3.61))
    close(got, torch.distributions.kl_divergence(p, q), rtol=1e-14)


LEVELS = torch.linspace(-1, 1, 17, dtype=torch.float64)


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.06, 0.99, 2.0])
@pytest.mark.parametrize("std", [0.01, 0.1, 0.5, 5.0])
def test_levels_sum_to_one(mean: float, std: float) -> None:
    log_prob = discretised_log_prob(LEVELS, at(mean), at(std), 0.125, -1, 1)
    assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("mean", [-1.0, -0.3, 0.06, 1.0])
@pytest.mark.parametrize("std", [0.03, 0.1, 0.5])
def test_bins_are_differences_of_the_normal_distribution(mean: float, std: float) -> None:
    """From the nearer tail, where the difference keeps its digits: both edges below the mean use
    the distribution function, both above the survival function.  Compared down to the smallest
    doubles."""
    normal = stats.norm(mean, std)
    lower = np.where(np.arange(17) == 0, -np.inf, LEVELS.numpy() - 1 / 16)
    upper = np.where(np.arange(17) == 16, np.inf, LEVELS.numpy() + 1 / 16)
    below = normal.cdf(upper) - normal.cdf(lower)
    above = normal.sf(lower) - normal.sf(upper)
    want = np.where(lower > mean, above, below)
    kept = want > 1e-300
    got = discretised_log_prob(LEVELS, at(mean), at(std), 0.125, -1, 1).numpy()
    np.testing.assert_allclose(got[kept], np.log(want[kept]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("distance", [50.0, 200.0, 1e4])
@pytest.mark.parametrize("side", [-1, 1])
def test_far_tails_keep_their_logarithm(distance: float, side: int) -> None:
    """ln P of a bin whose near edge is z deviations away: ln sf(z) - ln(1 - ratio), the far edge
    being negligible once (z + w)^2/2 - z^2/2 > 50; here z w is at least 50 * 1.25 and w = 1.25."""
    std = 0.1
    mean = side * (0.0625 + distance * std)
    got = discretised_log_prob(at([0.0]), at(mean), at(std), 0.125, -1, 1)
    assert float(got) == pytest.approx(stats.norm.logsf(distance), rel=1e-12)
