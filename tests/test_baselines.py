"""Restorers without a model, against dense matrices, and against draws from the Gaussian."""

from typing import Literal

import pytest
import torch

from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.inverse.operators.operator import Degradation, Operator
from diffbench.diffusion.inverse.restorers.baselines import PosteriorMean, PseudoInverse
from diffbench.diffusion.inverse.restorers.restorer import Measurement
from diffbench.specs.operators import OperatorSpec
from diffbench.specs.restorers import PosteriorMeanSpec, PseudoInverseSpec

SHAPE = (1, 3, 4)
PIXELS = 12


class DenseSpec(OperatorSpec):
    name: Literal["dense"] = "dense"


@pytest.fixture(autouse=True, scope="module")
def forgotten():
    yield
    OperatorSpec.known.pop("dense", None)


class Dense(Operator):
    """A matrix (M, D), by its own decomposition."""

    def __init__(self, matrix):
        super().__init__(DenseSpec(), SHAPE)
        self.matrix, self.measurement_shape = matrix, (len(matrix),)
        self.u, s, vh = torch.linalg.svd(matrix)
        self.v = vh.T
        self.s = torch.zeros(PIXELS, dtype=torch.float64)
        self.s[: len(s)] = torch.where(s > 1e-9, s, 0.0)

    def coordinates(self, x):
        return x.flatten(1) @ self.v.to(x)

    def pixels(self, u):
        return (u @ self.v.T.to(u)).reshape(-1, *SHAPE)

    def spectral(self, y):
        u = torch.zeros(len(y), PIXELS, dtype=y.dtype)
        u[:, : y.shape[1]] = y @ self.u.to(y)
        return torch.where(self.s > 0, u, 0.0)

    def measurement(self, u):
        return u[:, : len(self.u)] @ self.u.T.to(u)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(measured, rank):
    return random(measured, rank) @ random(rank, PIXELS, seed=1) / rank**0.5


def images(count=40, rank=PIXELS):
    """Correlated images in a space of some dimensions about a mean that is not 0."""
    return (random(count, rank) @ random(rank, PIXELS, seed=2) + 0.3).reshape(-1, *SHAPE)


def restored(restorer, operator, y, std=0.0):
    return restorer.restore(Measurement(operator, y, std), stream("restore", 0))


#: (measurements, rank of H): all pixels, fewer, and singular matrices.
MATRICES = [(12, 12), (5, 5), (7, 4), (12, 6)]


@pytest.mark.parametrize(("measured", "rank"), MATRICES)
def test_the_dense_operator_is_its_matrix(measured, rank):
    operator, x = Dense(matrix(measured, rank)), images(3)
    torch.testing.assert_close(operator.apply(x), x.flatten(1) @ operator.matrix.T)


@pytest.mark.parametrize(("measured", "rank"), MATRICES)
def test_the_pseudo_inverse_is_the_matrixs(measured, rank):
    operator = Dense(matrix(measured, rank))
    y = random(4, measured)
    x = restored(PseudoInverse(PseudoInverseSpec()), operator, y)
    torch.testing.assert_close(x.flatten(1), y @ torch.linalg.pinv(operator.matrix).T)


@pytest.mark.parametrize("std", [0.0, 1e-6, 0.3])
@pytest.mark.parametrize("dimensions", [PIXELS, 4])
@pytest.mark.parametrize(("measured", "rank"), MATRICES)
def test_the_posterior_is_the_one_of_dense_matrices(measured, rank, dimensions, std):
    """Also of data that vary in a few dimensions alone, where without noise H C H^T has no inverse."""
    operator, train = Dense(matrix(measured, rank)), images(rank=dimensions)
    h, x = operator.matrix, train.flatten(1)
    mean, covariance = x.mean(0), x.T.cov(correction=0)
    inner = h @ covariance @ h.T + std**2 * torch.eye(measured)
    gain = covariance @ h.T @ torch.linalg.pinv(inner, hermitian=True, rtol=1e-12 if std else 1e-10)
    y = operator.apply(train[:5]) + std * random(5, measured, seed=7)
    restorer = PosteriorMean(PosteriorMeanSpec(), train)
    wanted = mean + (y - h @ mean) @ gain.T
    got = restored(restorer, operator, y, std).flatten(1)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        restorer.covariance(operator, std), covariance - gain @ h @ covariance, rtol=1e-6, atol=1e-6
    )


def test_without_noise_what_is_measured_is_kept_and_all_measured_is_known():
    train = images()
    restorer = PosteriorMean(PosteriorMeanSpec(), train)
    few, every = Dense(matrix(5, 5)), Dense(matrix(12, 12))
    y = few.apply(train[:3])
    torch.testing.assert_close(few.apply(restored(restorer, few, y)), y, rtol=1e-7, atol=1e-7)
    x = restored(restorer, every, every.apply(train[:3]))
    torch.testing.assert_close(x, train[:3], rtol=1e-7, atol=1e-7)
    assert restorer.covariance(every, 0.0).abs().max() < 1e-7


def test_posterior_mean_and_covariance_are_those_of_the_error_of_draws():
    """Over draws of x and y the error x - E[x | y] has mean 0 and the posterior covariance, and no part of y."""
    operator, train, std = Dense(matrix(5, 5)), images(), 0.5
    restorer = PosteriorMean(PosteriorMeanSpec(), train)
    count = 200_000
    x = restorer.mean + random(count, PIXELS, seed=3) @ torch.linalg.cholesky(restorer.prior).T
    y = operator.apply(x.reshape(-1, *SHAPE)) + std * random(count, 5, seed=4)
    error = x - restored(restorer, operator, y, std).flatten(1)
    scale = restorer.prior.diagonal().mean()
    assert error.mean(0).abs().max() < 0.02 * scale**0.5
    assert (error.T.cov() - restorer.covariance(operator, std)).abs().max() < 0.02 * scale
    assert (error.T @ y / count).abs().max() < 0.02 * scale


def test_measurements_in_single_precision_are_restored_in_it():
    operator, train = Dense(matrix(5, 5)), images()
    y = operator.apply(train[:3])
    restorer = PosteriorMean(PosteriorMeanSpec(), train.float())
    x = restored(restorer, operator, y.float())
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), restored(restorer, operator, y), rtol=1e-4, atol=1e-4)


class Bent(Degradation):
    """No matrix."""

    def apply(self, x):
        return x**3

    def pseudo_inverse(self, y):
        return y ** (1 / 3)


def test_a_posterior_mean_needs_a_matrix():
    bent = Bent(DenseSpec(), SHAPE)
    with pytest.raises(TypeError, match="needs a linear operator, not dense"):
        restored(PosteriorMean(PosteriorMeanSpec(), images()), bent, random(1, 3))
