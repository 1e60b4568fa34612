"""Exact denoisers against quadrature, the score identity and the direct softmax."""

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from toys import close, process_of

from diffbench.diffusion.core.process import Process, float64
from diffbench.diffusion.denoisers.exact import EmpiricalDenoiser, GaussianDenoiser, MixtureDenoiser
from diffbench.specs.denoisers import EmpiricalSpec, GaussianSpec, MixtureSpec

TIMES = {"vp": [0.02, 0.3, 1.0], "sub-vp": [0.1, 0.6], "ve": [0.3, 0.9], "edm": [0.1, 2.0]}
CASES = [(name, t) for name, times in TIMES.items() for t in times]
every_case = pytest.mark.parametrize(("name", "t"), CASES)

WEIGHTS = float64([0.2, 0.5, 0.3])
MEANS = float64([[0.5, -0.3, 0.1], [-0.6, 0.2, 0.4], [0.0, 0.7, -0.5]])
FACTORS = torch.linspace(-0.4, 0.5, 27, dtype=torch.float64).sin().reshape(3, 3, 3)
COVARIANCES = FACTORS @ FACTORS.mT + 0.02 * torch.eye(3, dtype=torch.float64)


def mixture(process: Process) -> MixtureDenoiser:
    tensors = {"weights": WEIGHTS, "means": MEANS, "covariances": COVARIANCES}
    return MixtureDenoiser(MixtureSpec(), process, tensors)


def points(process: Process, t: Tensor) -> Tensor:
    """Where x_t is likely, (6, 1, 1, 3)."""
    x0, noise = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(2)).double()
    return (process.alpha(t) * 0.6 * x0 + process.sigma(t) * noise).reshape(6, 1, 1, 3)


def score_by_autograd(process: Process, t: Tensor, x: Tensor, parts: tuple) -> Tensor:
    """The gradient of ln sum_k w_k N(x; alpha m_k, alpha^2 C_k + sigma^2 I)."""
    weights, means, covariances = parts
    alpha, sigma = process.alpha(t), process.sigma(t)
    eye = torch.eye(means.shape[1], dtype=torch.float64)
    marginals = MultivariateNormal(alpha * means, alpha**2 * covariances + sigma**2 * eye)
    flat = x.flatten(1).clone().requires_grad_()
    log_density = (weights.log() + marginals.log_prob(flat[:, None])).logsumexp(1)
    return torch.autograd.grad(log_density.sum(), flat)[0].reshape(x.shape)


@every_case
def test_the_mixture_score_is_the_density_gradient(name: str, t: float) -> None:
    process, time = process_of(name), float64(t)
    x = points(process, time)
    want = score_by_autograd(process, time, x, (WEIGHTS, MEANS, COVARIANCES))
    close(mixture(process)(x, time).score, want, rtol=1e-9, atol=1e-9 / float(process.sigma(time)))


@every_case
def test_the_gaussian_score_is_the_density_gradient(name: str, t: float) -> None:
    process, time = process_of(name), float64(t)
    x = points(process, time)
    tensors = {"mean": MEANS[0], "covariance": COVARIANCES[0]}
    denoiser = GaussianDenoiser(GaussianSpec(), process, tensors)
    want = score_by_autograd(process, time, x, (WEIGHTS[:1] * 5, MEANS[:1], COVARIANCES[:1]))
    close(denoiser(x, time).score, want, rtol=1e-9, atol=1e-9 / float(process.sigma(time)))


@every_case
def test_the_mixture_mean_by_quadrature(name: str, t: float) -> None:
    """One pixel: the integral of x0 p(x0) q(x_t|x0) by the trapezoid rule on 20,001 points in [-4,
    4].

    The rule converges faster than any power for these analytic integrands: the narrowest factor has
    a deviation of 0.05, 125 spacings, and the wide ones fall to exp(-30) at the ends.
    """
    process, time = process_of(name), float64(t)
    alpha, sigma = process.alpha(time), process.sigma(time)
    weights, means, deviations = float64([0.4, 0.6]), float64([-0.5, 0.7]), float64([0.3, 0.5])
    tensors = {
        "weights": weights,
        "means": means[:, None],
        "covariances": (deviations**2)[:, None, None],
    }
    x_t = float64([-1.0, 0.1, 0.9]) * (alpha + sigma)
    x0 = torch.linspace(-4, 4, 20_001, dtype=torch.float64)
    prior = torch.distributions.Normal(means, deviations).log_prob(x0[:, None])
    log_joint = (prior + weights.log()).logsumexp(1) - 0.5 * (
        (x_t[:, None] - alpha * x0) / sigma
    ) ** 2
    joint = (log_joint - log_joint.amax(1, keepdim=True)).exp()
    want = torch.trapezoid(joint * x0, x0) / torch.trapezoid(joint, x0)
    denoiser = MixtureDenoiser(MixtureSpec(), process, tensors)
    got = denoiser(x_t.reshape(-1, 1, 1, 1), time).x0.flatten()
    close(got, want, rtol=1e-9, atol=1e-10)


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_empirical_mean_is_a_softmax_average(name: str, t: float, dtype: torch.dtype) -> None:
    """Rounding x_t to float32, 6e-8 of its size, moves the logits, of slope alpha |x_i -
    x_j|/sigma^2, by up to 1e-4 at sigma = 0.05 and images 4 apart; the average moves by as much
    times the images' 1."""
    process, time = process_of(name), float64(t)
    images = torch.rand(9, 1, 2, 2, generator=torch.Generator().manual_seed(4)).double() * 2 - 1
    denoiser = EmpiricalDenoiser(EmpiricalSpec(), process, {"images": images})
    alpha, sigma = process.alpha(time), process.sigma(time)
    noise = torch.randn(9, 1, 2, 2, generator=torch.Generator().manual_seed(5)).double()
    x_t = alpha * images + sigma * noise
    distance = (x_t[:, None] - alpha * images).flatten(2).square().sum(2)
    weights = (-distance / (2 * sigma**2)).softmax(1)
    got = denoiser(x_t.to(dtype), time).x0
    assert got.dtype == dtype
    tolerance = 1e-9 if dtype == torch.float64 else 5e-4
    close(got.double(), torch.einsum("bn,nchw->bchw", weights, images), atol=tolerance)


def test_one_time_an_image() -> None:
    """Times of shape (B, 1, 1, 1) give what each would alone."""
    process = process_of("vp")
    denoiser, t = mixture(process), float64([0.1, 0.4, 0.9]).reshape(3, 1, 1, 1)
    x = points(process, float64(0.4))[:3]
    alone = torch.cat([denoiser(x[[i]], t[i].reshape(())).x0 for i in range(3)])
    close(denoiser(x, t).x0, alone, rtol=1e-13, atol=1e-14)


LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
IMAGES = torch.rand(8, 1, 1, 3, generator=torch.Generator().manual_seed(6))


def test_a_mixture_is_fitted_by_class() -> None:
    tensors = MixtureDenoiser.fit(IMAGES, LABELS)
    close(tensors["weights"], float64([3 / 8, 5 / 8]))
    for k in (0, 1):
        x = IMAGES.double().flatten(1)[k == LABELS]
        centred = x - x.mean(0)
        close(tensors["means"][k], x.mean(0))
        close(tensors["covariances"][k], centred.T @ centred / len(x))


def test_a_gaussian_is_fitted_to_all_images() -> None:
    tensors = GaussianDenoiser.fit(IMAGES, LABELS)
    x = IMAGES.double().flatten(1)
    close(tensors["mean"], x.mean(0))
    close(tensors["covariance"], (x - x.mean(0)).T @ (x - x.mean(0)) / 8)


def test_a_singular_covariance_keeps_its_null_space() -> None:
    """A pixel that never changes is predicted exactly, whatever is seen there."""
    process = process_of("edm")
    tensors = {"mean": float64([0.3, -1.0]), "covariance": torch.diag(float64([0.2, 0.0]))}
    denoiser = GaussianDenoiser(GaussianSpec(), process, tensors)
    x0 = denoiser(torch.full((1, 1, 1, 2), 5.0).double(), float64(0.01)).x0
    assert x0.flatten()[1] == -1.0
