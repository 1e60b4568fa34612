r"""Terms of the variational bound in closed form, for data that are Gaussian and their exact denoiser.

With data N(m, C), C = Q diag(lambda) Q^T, betas and abar of the chain, and for a pair of levels (t, s)

    a = abar_t/abar_s,   beta = 1 - a,   small = beta (1 - abar_s)/(1 - abar_t),
    E[x_0 | x_t] = m + Q diag(sqrt(abar_t) lambda/(abar_t lambda + 1 - abar_t)) Q^T (x_t - sqrt(abar_t) m)

(DDPM's equations 6, 7 and 11).  A KL's mean over data and noise follows from the trace of Cov[x_0 | x_t],
the sum of lambda (1 - abar_t)/(abar_t lambda + 1 - abar_t).
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from toys import Fractional, close, process_of

from diffbench.data.grey_levels import GreyLevels
from diffbench.diffusion.core.bound import bound_term, discretised_log_prob, gaussian_kl
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.core.transitions import model_variance
from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.diffusion.likelihoods.vlb import VLB
from diffbench.specs.denoisers import GaussianSpec
from diffbench.specs.likelihoods import VLBSpec

MEAN = np.array([0.3, -0.2, 0.1])
AXES = np.linalg.qr(np.array([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0], [1.0, 0.0, 3.0]]))[0]
VARIANCES = np.array([0.02, 0.25, 0.6])
DIM = 3
FRACTION = 0.3

STEPS = 50
SCHEDULES = ["linear", "cosine"]
#: Every step of the chain, and steps of thinned grids.
PAIRS = [(1, 0), (5, 4), (30, 29), (49, 48), (49, 0), (30, 7), (8, 1)]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=str)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
every_kind = pytest.mark.parametrize("kind", ["small", "large", "learned"])


def abar_of(schedule: str) -> np.ndarray:
    """abar_0 .. abar_(T-1), counted from 0 as in the code; DDPM's section 4, Improved DDPM's eq. 17."""
    if schedule == "linear":
        betas = np.linspace(1e-4, 0.02, STEPS) * 1000 / STEPS
    else:
        f = np.cos((np.arange(STEPS + 1) / STEPS + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
    return np.cumprod(1 - betas)


def exact_bound(schedule: str, kind: str) -> VLB:
    tensors = {"mean": float64(MEAN), "covariance": float64(AXES * VARIANCES @ AXES.T)}
    process = process_of("discrete", schedule=schedule, steps=STEPS)
    denoiser = GaussianDenoiser(GaussianSpec(), process, tensors)
    learning = Fractional(denoiser, lambda t: torch.full_like(t, FRACTION))
    return VLB(VLBSpec(variance=kind, threshold="none"), learning, GreyLevels(17))


def images(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows).reshape(-1, 1, 1, DIM)


def step_numbers(schedule: str, t: int, s: int, kind: str) -> tuple[float, ...]:
    """abar_t, abar_s, beta, the posterior's variance and the model's."""
    abar = abar_of(schedule)
    a, b = abar[t], abar[s]
    beta = 1 - a / b
    small = beta * (1 - b) / (1 - a)
    model = {"small": small, "large": beta, "learned": beta**FRACTION * small ** (1 - FRACTION)}
    return a, b, beta, small, model[kind]


@every_schedule
@every_pair
@every_kind
def test_kl_of_given_images_and_noise(schedule: str, pair: tuple[int, int], kind: str) -> None:
    """Dimensionless numbers of size 1 to 1e3, rounded by at most 1e-13 of themselves: beta, a
    difference of numbers near 1, is at least 1e-3."""
    rng = np.random.default_rng(0)
    x0, noise = 0.5 * rng.standard_normal((5, DIM)), rng.standard_normal((5, DIM))
    a, b, beta, small, model = step_numbers(schedule, *pair, kind)
    x_t = np.sqrt(a) * x0 + np.sqrt(1 - a) * noise
    shrink = np.sqrt(a) * VARIANCES / (a * VARIANCES + 1 - a)
    guess = MEAN + (x_t - np.sqrt(a) * MEAN) @ (AXES * shrink) @ AXES.T
    difference = np.sqrt(b) * beta / (1 - a) * (x0 - guess)
    ratio = small / model
    want = 0.5 * (ratio - 1 - np.log(ratio) + difference**2 / model).mean(1) / np.log(2)
    t, s = map(float64, pair)
    got = exact_bound(schedule, kind).term(images(x0), t, s, images(noise))
    close(got, torch.from_numpy(want), rtol=1e-9, atol=1e-12)


def cubature() -> tuple[Tensor, Tensor]:
    """Images and noise, +-sqrt(2 n) along each of their 2 n joint axes.

    Their mean is a polynomial's mean over data and noise up to the third degree (the spherical rule), and
    a KL between Gaussians with affine means is one of the second.
    """
    points = math.sqrt(2 * DIM) * np.concatenate([np.eye(2 * DIM), -np.eye(2 * DIM)])
    return images(MEAN + points[:, :DIM] * np.sqrt(VARIANCES) @ AXES.T), images(points[:, DIM:])


def expected_kl(schedule: str, t: int, s: int, kind: str) -> float:
    """The mean over data and noise, bits/dim."""
    a, b, beta, small, model = step_numbers(schedule, t, s, kind)
    error = np.sum(VARIANCES * (1 - a) / (a * VARIANCES + 1 - a)) / DIM
    ratio = small / model
    spread = b * (beta / (1 - a)) ** 2 * error / model
    return 0.5 * (ratio - 1 - np.log(ratio) + spread) / np.log(2)


@every_schedule
@every_pair
@every_kind
def test_kl_in_expectation(schedule: str, pair: tuple[int, int], kind: str) -> None:
    x0, noise = cubature()
    t, s = map(float64, pair)
    got = exact_bound(schedule, kind).term(x0, t, s, noise).mean()
    assert float(got) == pytest.approx(expected_kl(schedule, *pair, kind), rel=1e-9)


def expected_prior(schedule: str, t: int) -> float:
    """The mean of KL(N(sqrt(abar) x_0, 1 - abar) || N(0, 1)) over data, bits/dim."""
    abar = abar_of(schedule)[t]
    second = (MEAN @ MEAN + VARIANCES.sum()) / DIM
    return 0.5 * (abar * second - abar - math.log1p(-abar)) / math.log(2)


@every_schedule
def test_prior_in_expectation(schedule: str) -> None:
    """It is quadratic in x_0.  On the cosine chain it is 1e-7, a difference of numbers near 1."""
    got = exact_bound(schedule, "small").prior(cubature()[0]).mean()
    assert float(got) == pytest.approx(expected_prior(schedule, 49), rel=1e-9, abs=1e-15)


@every_schedule
@every_kind
@pytest.mark.parametrize(
    "options",
    [{}, {"steps": 7}, {"steps": 10, "grid": "strided"}, {"steps": 9, "grid": "quadratic"}],
)
def test_prior_and_transitions_of_a_whole_grid_in_expectation(
    schedule: str, kind: str, options: dict
) -> None:
    """A constant stride begins below the highest level, and so does its prior."""
    bound = exact_bound(schedule, kind)
    bound.spec = VLBSpec(variance=kind, threshold="none", **options)
    times = bound.times()
    assert len(times) == options.get("steps", STEPS) + 1
    x0, noise = cubature()
    pairs = list(pairwise(times))[:-1]
    got = bound.prior(x0).mean() + sum(bound.term(x0, t, s, noise).mean() for t, s in pairs)
    prior = expected_prior(schedule, int(times[0]))
    transitions = sum(expected_kl(schedule, int(t), int(s), kind) for t, s in pairs)
    assert float(got) == pytest.approx(prior + transitions, rel=1e-9)


@pytest.mark.parametrize("kind", ["small", "large"])
def test_decoder_of_gaussian_data(kind: str) -> None:
    """Mean E[x_0 | x_t at t = 0]; variance btilde_1 = beta_1 beta_0/(1 - abar_1), counted from 0."""
    levels = np.array([-1.0, 1.0, 0.0, 0.125, 0.5])[:, None].repeat(DIM, 1)
    noise = np.random.default_rng(2).standard_normal((5, DIM))
    betas = np.linspace(1e-4, 0.02, STEPS)[:2] * 1000 / STEPS
    a, std = 1 - betas[0], math.sqrt(betas[1] * betas[0] / (1 - (1 - betas[0]) * (1 - betas[1])))
    x_t = np.sqrt(a) * levels + np.sqrt(betas[0]) * noise
    shrink = np.sqrt(a) * VARIANCES / (a * VARIANCES + 1 - a)
    guess = MEAN + (x_t - np.sqrt(a) * MEAN) @ (AXES * shrink) @ AXES.T
    lower = np.where(levels == -1, -np.inf, (levels - 1 / 16 - guess) / std)
    upper = np.where(levels == 1, np.inf, (levels + 1 / 16 - guess) / std)
    want = -np.log(stats.norm.cdf(upper) - stats.norm.cdf(lower)).mean(1) / np.log(2)
    got = exact_bound("linear", kind).term(images(levels), float64(0), float64(-1), images(noise))
    close(got, torch.from_numpy(want), rtol=1e-9)


def test_a_learned_variance_of_the_decoder_lies_between_the_step_before_and_beta() -> None:
    """btilde_1^(1 - v) beta_0^v, as the official code has it; pixels at 0 and their means known."""
    betas = np.linspace(1e-4, 0.02, STEPS)[:2] * 1000 / STEPS
    small = betas[1] * betas[0] / (1 - (1 - betas[0]) * (1 - betas[1]))
    std = math.sqrt(betas[0] ** FRACTION * small ** (1 - FRACTION))
    bound, zero = exact_bound("linear", "learned"), torch.zeros(1, 1, 1, DIM).double()
    mean = bound.denoiser(zero, float64(0)).x0.flatten().numpy()
    normal = stats.norm(mean, std)
    want = -np.log(normal.cdf(1 / 16) - normal.cdf(-1 / 16)).mean() / np.log(2)
    assert float(bound.term(zero, float64(0), float64(-1), zero)) == pytest.approx(want, rel=1e-9)


def test_images_at_different_times_have_the_terms_of_each_alone() -> None:
    """The decoder's among them, wherever it stands in the batch."""
    bound, (x0, noise) = exact_bound("cosine", "learned"), cubature()
    x0, noise, t = x0[:4], noise[:4], float64([7, 0, 49, 0]).reshape(4, 1, 1, 1)
    prediction = bound.denoiser(bound.process.diffuse(x0, t, noise), t)
    variance = model_variance(prediction, t - 1, "learned")
    got = bound_term(prediction, x0, t - 1, variance, bound.spacing)
    alone = [bound.term(x0[[i]], each, each - 1, noise[[i]]) for i, each in enumerate(t.flatten())]
    close(got, torch.cat(alone), rtol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_are_finite_where_bins_are_open(dtype: torch.dtype) -> None:
    """At the lowest and highest level and between, with the mean near and far."""
    process = process_of("discrete", schedule="linear", steps=STEPS)
    x0 = torch.tensor([-1.0, 1.0, 0.0, -1.0, 1.0, 0.5], dtype=dtype).reshape(1, 1, 2, 3)
    guess = torch.tensor([-1.1, 0.9, 0.01, 2.0, -3.0, -9.0], dtype=dtype).reshape(1, 1, 2, 3)
    guess.requires_grad_()
    v = torch.full_like(x0, FRACTION, requires_grad=True)
    prediction = Prediction(process, 0 * x0, float64(0), "x0", guess, v)
    variance = model_variance(prediction, float64(-1), "learned")
    bound_term(prediction, x0, float64(-1), variance, 2 / 16).sum().backward()
    for leaf in (guess, v):
        assert leaf.grad is not None and leaf.grad.isfinite().all() and (leaf.grad != 0).any()


def test_gaussian_kl_is_the_textbooks() -> None:
    p, q = (
        torch.distributions.Normal(float64(0.3), float64(0.7)),
        torch.distributions.Normal(float64(-1.0), float64(1.9)),
    )
    got = gaussian_kl(float64(0.3), float64(0.49), float64(-1.0), float64(3.61))
    close(got, torch.distributions.kl_divergence(p, q), rtol=1e-14)


LEVELS = torch.linspace(-1, 1, 17, dtype=torch.float64)

#: 0, and levels and edges of bins inside the range, at its ends and outside.
MEANS = [-3.0, -1.0, -1 + 1 / 16, -0.3, 0.0, 1 / 255, 0.06, 0.99, 1.0, 2.0]
STDS = [1e-4, 1e-3, 0.01, 0.1, 0.5, 5.0, 1e3]


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("std", STDS)
def test_levels_sum_to_one(levels: int, std: float) -> None:
    """To levels times 1e-12.

    Neighbours place their common edge apart by a rounding error of 4e-16 at most, or 4e-12 deviations of
    1e-4; of all edges only the one or two within a few deviations of the mean lose a probability that
    counts, 0.4 times that.
    """
    x = torch.linspace(-1, 1, levels, dtype=torch.float64)
    for mean in MEANS:
        log_prob = discretised_log_prob(x, float64(mean), float64(std), 2 / (levels - 1), -1, 1)
        assert float(log_prob.exp().sum()) == pytest.approx(1, abs=levels * 1e-12)


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("std", [1e-12, 1e-8, 1e-5])
def test_the_bin_around_a_mean_without_spread_is_certain(levels: int, std: float) -> None:
    x = torch.linspace(-1, 1, levels, dtype=torch.float64)
    for i in (0, 1, levels // 2, levels - 1):
        log_prob = discretised_log_prob(x, x[i] + 1e-3, float64(std), 2 / (levels - 1), -1, 1)
        assert log_prob[i] == 0 and int((log_prob < -100).sum()) == levels - 1


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
    got = discretised_log_prob(LEVELS, float64(mean), float64(std), 0.125, -1, 1).numpy()
    np.testing.assert_allclose(got[kept], np.log(want[kept]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("distance", [50.0, 200.0, 1e4])
@pytest.mark.parametrize("side", [-1, 1])
def test_far_tails_keep_their_logarithm(distance: float, side: int) -> None:
    """ln P of a bin whose near edge is z deviations away: ln sf(z) - ln(1 - ratio), the far edge
    being negligible once (z + w)^2/2 - z^2/2 > 50; here z w is at least 50 * 1.25 and w = 1.25."""
    std = 0.1
    mean = side * (0.0625 + distance * std)
    got = discretised_log_prob(float64([0.0]), float64(mean), float64(std), 0.125, -1, 1)
    assert float(got) == pytest.approx(stats.norm.logsf(distance), rel=1e-12)
