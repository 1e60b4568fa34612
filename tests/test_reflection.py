import math
from collections.abc import Callable
from typing import NamedTuple

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor
from toys import close, column, recorded

from diffbench.diffusion.processes import reflection
from diffbench.diffusion.processes.reflection import (
    EIGENFUNCTIONS,
    PAIRS,
    centre,
    fold,
    log_density,
    log_distribution,
    orientation,
    root,
    scaled_score,
    transport,
)

#: Sigmas of either series with each number of terms, and on both sides of the crossover.
SIGMAS = [0.01, 0.1, 0.3, 0.3599, 0.3601, 0.5, 0.8, 1.5]
#: The largest truncation error of the score and of the log density, in the larger of 1 and their size.
TRUNCATED = 1e-8
WALLS = [0, 1e-9, 1e-6, 1e-4, 0.02, 0.3, 0.4999, 0.5003, 0.74, 0.76, 0.97, 1 - 1e-4, 1 - 1e-7, 1]


def distribution(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """P(X <= x | x0), in [0, 1]; computed in float64."""
    return log_distribution(x.double(), x0.double(), sigma).exp().clamp(max=1).to(x.dtype)


def quantile(u: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """The x in [0, 1] with P(X <= x | x0) = u, computed in float64; u has x's shape."""
    x0 = x0.double()
    return root(lambda x: log_distribution(x, x0, sigma), u.double().log(), u.dtype)


def theta(u: mpmath.mpf, sigma: mpmath.mpf) -> list[mpmath.mpf]:
    """The 2-periodic heat kernel sum_m N(u; 2m, sigma^2) and two derivatives, to 40 digits."""
    pi = mpmath.pi
    if sigma > 0.7:
        total = [mpmath.mpf(1) / 2, mpmath.mpf(0), mpmath.mpf(0)]
        for k in range(1, 9):
            weight, angle = mpmath.exp(-((k * pi * sigma) ** 2) / 2), k * pi
            total[0] += weight * mpmath.cos(angle * u)
            total[1] -= weight * angle * mpmath.sin(angle * u)
            total[2] -= weight * angle**2 * mpmath.cos(angle * u)
        return total
    total = [mpmath.mpf(0)] * 3
    far = 2 + int(7 * sigma)
    for m in range(-far, far + 1):
        z = (u - 2 * m) / sigma
        density = mpmath.exp(-(z**2) / 2) / (sigma * mpmath.sqrt(2 * pi))
        factors = (1, -z / sigma, (z**2 - 1) / sigma**2)
        total = [t + density * f for t, f in zip(total, factors, strict=True)]
    return total


class Exact(NamedTuple):
    """Points, and at them the log density, sigma times the score, and its derivatives by x and x0."""

    x: Tensor
    x0: Tensor
    sigma: Tensor
    log_density: Tensor
    scaled_score: Tensor
    by_x: Tensor
    by_x0: Tensor


def exact(x: Tensor, x0: Tensor, sigma: Tensor) -> Exact:
    """p(x | x0) = theta(x - x0) + theta(x + x0) at those points, all of one shape (N,)."""
    rows = []
    with mpmath.workdps(40):
        for point in zip(x.tolist(), x0.tolist(), sigma.tolist(), strict=True):
            a, a0, s = map(mpmath.mpf, point)
            one, two = theta(a - a0, s), theta(a + a0, s)
            p, p_x, p_xx = (left + right for left, right in zip(one, two, strict=True))
            p_0, p_x0 = two[1] - one[1], two[2] - one[2]
            score = p_x / p
            rows.append(
                (mpmath.log(p), s * score, s * (p_xx / p - score**2), s * (p_x0 - score * p_0) / p)
            )
    columns = np.array(rows, dtype=np.float64).T
    return Exact(x, x0, sigma, *map(torch.from_numpy, columns))


@pytest.fixture(scope="module")
def grid() -> Exact:
    """1500 points that float32 holds: at and near the walls, near x0, far from it, about the crossover."""
    rng = np.random.default_rng(0)
    n = 1500
    at_walls = np.array(WALLS)
    sigma = np.where(rng.random(n) < 0.5, 10 ** rng.uniform(-3, 1, n), rng.uniform(0.25, 0.5, n))
    sigma[::5] = rng.choice([1e-3, 0.3599, 0.3601, 10], n // 5)
    x0 = np.where(rng.random(n) < 0.5, rng.choice(at_walls, n), rng.random(n))
    x = np.where(rng.random(n) < 0.5, rng.choice(at_walls, n), rng.random(n))
    near = np.clip(x0 + sigma * rng.normal(size=n), 0, 1)
    x = np.where(rng.random(n) < 0.25, near, x)
    return exact(*(torch.from_numpy(a).float().double() for a in (x, x0, sigma)))


def largest_error(got: Tensor, want: Tensor, scale: Tensor | float = 1.0) -> float:
    """The largest error over max(scale, |want|)."""
    unit = torch.maximum(torch.as_tensor(scale, dtype=torch.float64), want.abs())
    return float(((got.double() - want).abs() / unit).max())


@pytest.mark.parametrize("split", [0, 2**15])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 2e-5), (torch.float64, 1e-7)])
def test_score_and_density_to_40_digits(
    grid: Exact, dtype: torch.dtype, allowed: float, split: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflection, "SPLIT", split)
    points = [a.to(dtype) for a in grid[:3]]
    assert largest_error(scaled_score(*points), grid.scaled_score) <= allowed
    assert largest_error(log_density(*points), grid.log_density) <= allowed
    assert scaled_score(*points).dtype == log_density(*points).dtype == dtype


def test_gradients_to_40_digits(grid: Exact) -> None:
    """Derivatives of sigma times the score are of order 1/sigma; by x0 the density's is the score at x0."""
    x, x0 = (a.clone().requires_grad_() for a in grid[:2])
    by_x, by_x0 = torch.autograd.grad(scaled_score(x, x0, grid.sigma).sum(), (x, x0))
    assert largest_error(by_x, grid.by_x, 1 / grid.sigma) <= 1e-6
    assert largest_error(by_x0, grid.by_x0, 1 / grid.sigma) <= 1e-6
    by_x, by_x0 = torch.autograd.grad(log_density(x, x0, grid.sigma).sum(), (x, x0))
    assert largest_error(grid.sigma * by_x, grid.scaled_score) <= 1e-7
    other = scaled_score(grid.x0, grid.x, grid.sigma)
    assert largest_error(grid.sigma * by_x0, other) <= 1e-7


@pytest.mark.parametrize(("split", "cut"), [(0, TRUNCATED), (2**15, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [scaled_score, log_density])
def test_the_compiled_form_is_the_same(
    grid: Exact,
    function: Callable,
    dtype: torch.dtype,
    split: int,
    cut: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where neither series is left out, values agree and gradients stay finite; with all terms, to rounding."""

    def results() -> tuple[Tensor, ...]:
        x, x0 = (a.to(dtype).requires_grad_() for a in grid[:2])
        value = function(x, x0, grid.sigma)
        return value.detach(), *torch.autograd.grad(value.sum(), (x, x0))

    monkeypatch.setattr(reflection, "SPLIT", split)
    eager = results()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for got, want in zip(results(), eager, strict=True):
        assert torch.isfinite(got).all()
        assert largest_error(got, want.double()) <= 10 * torch.finfo(dtype).eps + cut


@pytest.mark.parametrize("limit", [*PAIRS, *EIGENFUNCTIONS][:-1])
def test_a_series_is_cut_where_its_next_term_is_small(limit: float) -> None:
    """On both sides of each limit the error is at most the one at the crossover, where the two series meet."""
    line = torch.cat([torch.linspace(0, 1, 201).double(), torch.tensor(WALLS, dtype=torch.float64)])
    x, x0 = (a.flatten() for a in torch.meshgrid(line, line, indexing="ij"))
    below, above = (
        (scaled_score(x, x0, s), log_density(x, x0, s))
        for s in sigmas(math.nextafter(limit, 0), limit)
    )
    for one, other in zip(below, above, strict=True):
        assert largest_error(one, other) <= 2 * TRUNCATED


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_score_vanishes_at_the_walls(dtype: torch.dtype) -> None:
    x0 = torch.cat([torch.linspace(0, 1, 101), torch.tensor(WALLS)]).to(dtype)
    for sigma in (1e-3, *SIGMAS, 10):
        for wall in (0, 1):
            assert (scaled_score(torch.full_like(x0, wall), x0, torch.tensor(sigma)) == 0).all()


def test_each_image_has_the_series_of_its_own_sigma(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "SPLIT", 0)
    generator = torch.Generator().manual_seed(0)
    # 16 pixels: what is left over of the processor's vectors is rounded in another way.
    x, x0 = torch.rand(2, len(SIGMAS), 1, 4, 4, generator=generator)
    sigma = column(torch.tensor(SIGMAS, dtype=torch.float64))
    for function in (log_density, scaled_score, distribution):
        together = function(x, x0, sigma)
        alone = [function(*row) for row in zip(x, x0, sigma.flatten(), strict=True)]
        assert torch.equal(together, torch.stack(alone))


@pytest.mark.parametrize("split", [0, 2**15])
def test_a_sigma_that_is_no_number_gives_none(split: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "SPLIT", split)
    half = torch.full((2, 1, 1, 1), 0.5)
    sigma = column(torch.tensor([math.nan, math.inf]))
    for each in (sigma, *sigma.flatten()):
        assert scaled_score(half / 2, half, each).isnan().all()


def gauss_legendre(panels: int = 200, order: int = 8) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1].

    Order 8 on a panel of h = 1/200 = sigma/2 leaves h^17 (8!)^4/(17 (16!)^3) |f^(16)|, with |f^(16)| at most
    2e6/sigma^17: 1e-18 a panel.
    """
    nodes, weights = np.polynomial.legendre.leggauss(order)
    x = (np.arange(panels)[:, None] + (nodes + 1) / 2) / panels
    w = np.broadcast_to(weights / (2 * panels), x.shape)
    return torch.from_numpy(x.ravel()), torch.from_numpy(w.ravel().copy())


def density(x: Tensor, x0: Tensor, sigma: float) -> Tensor:
    """p_sigma at every pair of x (N,) and x0 (M,): (N, M)."""
    pairs = torch.broadcast_tensors(x[:, None], x0[None])
    return log_density(*pairs, torch.tensor(sigma, dtype=torch.float64)).exp()


CENTRES = torch.tensor([0, 0.003, 0.1, 0.5, 0.77, 1], dtype=torch.float64)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_density_integrates_to_one(sigma: float) -> None:
    x, w = gauss_legendre()
    close(w @ density(x, CENTRES, sigma), torch.ones(6, dtype=torch.float64), rtol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0.05, 0.2), (0.3, 0.25), (0.34, 0.4), (0.9, 0.1)])
def test_steps_compose(a: float, b: float) -> None:
    """Chapman and Kolmogorov: the variances of two steps add."""
    y, w = gauss_legendre()
    x = torch.linspace(0, 1, 31, dtype=torch.float64)
    two = density(x, y, a) * w @ density(y, CENTRES, b)
    close(two, density(x, CENTRES, math.hypot(a, b)), rtol=1e-7, atol=1e-8)


def test_official_scores_and_exact_densities() -> None:
    """The official series, where it is long enough and its own 1e-12 in the denominator, taken out here, is small."""
    file = recorded("reflected_kernel")
    shape = file["score_hk"].shape
    x, x0, sigma = (
        a.flatten() for a in torch.meshgrid(*(file[k] for k in ("x", "x0", "sigma")), indexing="ij")
    )
    arrays = {key: array.flatten() for key, array in file.items() if array.shape == shape}
    scaled, p, images = (
        scaled_score(x, x0, sigma),
        arrays["density_exact"],
        arrays["exp_denominator"],
    )

    # The first image left out, 2 (refls + 1) - x0, is at least 2 refls away; the first eigenfunction is the 21st, and
    # 1 + 2 sum is rounded to some 1e-14.
    def by_images(refls: int) -> Tensor:
        away = 2 * refls / sigma
        missing = 4 * away * torch.exp(-(away**2) / 2) / images
        return (missing < 1e-8) & (images > 1e-6)

    missing = 42 * math.pi * sigma * torch.exp(-((21 * math.pi * sigma) ** 2) / 2)
    by_eigenfunctions = (missing + 1e-14) / p < 1e-8
    long = sigma**2 / 2 > 0.01
    cases = [
        ("score_ef20", by_eigenfunctions, p),
        ("score_refl2", by_images(2), images),
        ("score_refl10", by_images(10), images),
        ("score_hk", torch.where(long, by_eigenfunctions, by_images(10)), p.where(long, images)),
        ("score_exact", torch.ones_like(long), torch.full_like(p, math.inf)),
    ]
    for key, accurate, denominator in cases:
        assert accurate.float().mean() > 0.5, key
        official = sigma * arrays[key] * (1 + 1e-12 / denominator)
        assert largest_error(scaled[accurate], official[accurate]) <= 1e-7, key
    close(log_density(x, x0, sigma).exp(), p, rtol=1e-7)


def test_the_fold_is_the_official_one() -> None:
    file = recorded("reflected_reflect")
    close(fold(file["v"]), file["reflected"])


def test_the_fold_is_even_and_periodic_and_its_slope_is_the_orientation() -> None:
    x = torch.linspace(-5.95, 5.95, 120, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(fold(x).sum(), x)
    assert torch.equal(orientation(x), slope)
    close(fold(-x.detach()), fold(x.detach()))
    close(fold(x.detach() + 2), fold(x.detach()))
    inside = torch.linspace(0, 1, 11)
    assert torch.equal(fold(inside), inside)
    assert (orientation(inside) == 1).all()


def spread(sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """x and x0 over [0, 1], walls included, within 6 sigma: beyond, float64 holds no distribution near 1."""
    line = torch.linspace(0, 1, 41, dtype=torch.float64)
    x, x0 = (a.flatten() for a in torch.meshgrid(line, CENTRES, indexing="ij"))
    near = (x - x0).abs() < 6 * sigma
    return x[near], x0[near], torch.tensor(sigma, dtype=torch.float64)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_distribution_is_the_integral_of_the_density(sigma: float) -> None:
    x, x0, s = spread(sigma)
    nodes, weights = gauss_legendre()
    along = (x[:, None] * nodes).flatten()
    p = log_density(along, x0.repeat_interleave(len(nodes)), s).exp()
    close(distribution(x, x0, s), x * (p.reshape(len(x), -1) @ weights), rtol=1e-7)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_quantile_inverts_the_distribution(sigma: float) -> None:
    x, x0, s = spread(sigma)
    u = distribution(x, x0, s)
    error = (quantile(u, x0, s) - x).abs() * log_density(x, x0, s).exp()
    assert error.max() <= 1e-14
    ends = torch.tensor([0.0, 1.0])
    close(distribution(ends, torch.tensor([0.3, 0.8]), s), ends, atol=1e-7)
    close(quantile(ends, torch.tensor([0.3, 0.8]), torch.tensor(0.5)), ends, atol=1e-7)


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.3, 0.3599, 0.3601, 0.5])
def test_the_centre_inverts_the_score(sigma: float) -> None:
    """Off the walls, to the rounding of the score over its slope in x0."""
    line = torch.linspace(0.02, 0.98, 33, dtype=torch.float64)
    x, x0 = (a.flatten() for a in torch.meshgrid(line, line, indexing="ij"))
    s = torch.tensor(sigma, dtype=torch.float64)
    scaled = scaled_score(x, x0.requires_grad_(), s)
    (slope,) = torch.autograd.grad(scaled.sum(), x0)
    assert (slope > 0).all()
    error = (centre(x, scaled.detach(), s) - x0.detach()).abs() * slope
    assert (error / scaled.detach().abs().clamp(min=1)).max() <= 1e-13


def test_the_centre_of_an_impossible_score_is_at_a_wall() -> None:
    x = torch.tensor([0.2, 0.2, 0.7, 0.7], dtype=torch.float64)
    wild = torch.tensor([-1e4, 1e4, -1e4, 1e4], dtype=torch.float64)
    for sigma in (0.1, 0.5):
        close(centre(x, wild, torch.tensor(sigma)), torch.tensor([0.0, 1, 0, 1]).double())


def sigmas(*values: float) -> list[Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


@pytest.mark.parametrize(("t", "s"), [(0.1, 0.02), (0.5, 0.3), (2, 0.05), (0.2, 0.8)])
def test_transport_maps_the_interval_onto_itself(t: float, s: float) -> None:
    line = torch.linspace(0, 1, 201, dtype=torch.float64)
    for x0 in CENTRES:
        moved = transport(line, x0.expand_as(line), *sigmas(t, s))
        assert (moved.diff() >= -1e-14).all()
        close(moved[[0, -1]], line[[0, -1]], atol=1e-12)


@pytest.mark.parametrize(("t", "s", "r"), [(0.3, 0.1, 0.02), (1, 0.35, 0.1)])
def test_transports_compose(t: float, s: float, r: float) -> None:
    """To the truncation error of either series.  Downwards: upwards, whole intervals of the tails at small sigma
    become narrower than float64's spacing of probabilities."""
    x, x0, _ = spread(1)
    half = transport(x, x0, *sigmas(t, s))
    close(transport(half, x0, *sigmas(s, r)), transport(x, x0, *sigmas(t, r)), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("t", "s"), [(0.05, 0.02), (0.8, 0.2), (0.2, 0.5)])
def test_transport_solves_the_probability_flow(t: float, s: float) -> None:
    """dx/dsigma = -sigma score, by 200 steps of Runge and Kutta's in log sigma, from up to 20 sigma away."""
    x, x0, _ = spread(1)

    def rate(x: Tensor, log_sigma: float) -> Tensor:
        (sigma,) = sigmas(math.exp(log_sigma))
        return -sigma * scaled_score(x, x0, sigma)

    flow, steps = x, 200
    h = math.log(s / t) / steps
    for i in range(steps):
        at = math.log(t) + i * h
        k1 = rate(flow, at)
        k2 = rate(flow + h / 2 * k1, at + h / 2)
        k3 = rate(flow + h / 2 * k2, at + h / 2)
        k4 = rate(flow + h * k3, at + h)
        flow = flow + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    close(transport(x, x0, *sigmas(t, s)), flow, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("t", "s"), [(0.03, 0.1), (0.2, 0.7), (0.4, 0.5)])
def test_transport_pushes_the_density_forward(t: float, s: float) -> None:
    """Means of e^x: of transported points under p_t, and of points under p_s.

    Towards more noise, where the map is smooth; the other way its slope is the inverse of a tail.
    """
    x, w = gauss_legendre()
    for x0 in CENTRES:
        moved = transport(x, x0.expand_as(x), *sigmas(t, s))
        pushed = w * moved.exp() @ density(x, x0[None], t)
        close(pushed, w * x.exp() @ density(x, x0[None], s), rtol=1e-8)


def test_transport_to_no_noise_is_the_centre() -> None:
    generator = torch.Generator().manual_seed(0)
    x, x0 = torch.rand(2, 3, 1, 4, 4, generator=generator)
    sigma_t, sigma_s = column(torch.tensor([0.2, 0.5, 0.9])), column(torch.tensor([0, 0.1, 0]))
    moved = transport(x, x0, sigma_t, sigma_s)
    assert moved.dtype == x.dtype
    assert torch.equal(moved[::2], x0[::2])
    assert torch.equal(moved[1], transport(x[1], x0[1], sigma_t[1, 0, 0, 0], sigma_s[1, 0, 0, 0]))
    (nothing,) = sigmas(0)
    assert torch.equal(transport(x, x0, sigma_t, nothing), x0)
