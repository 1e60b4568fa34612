"""Charts: stick breaking against torch's Dirichlet and Beta, autograd, quadrature and scipy's tests of uniformity."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torch.distributions import Beta, Dirichlet

from diffbench.diffusion.processes.simplex import StickBreaking

SIZES = [2, 3, 10, 1000, 3000]
TYPES = [torch.float32, torch.float64]


def dirichlet(concentrations: Tensor, count: int, seed: int = 0) -> Tensor:
    """Points (count, K) in float64."""
    torch.manual_seed(seed)
    return Dirichlet(concentrations.double()).sample((count,))


def uneven(categories: int) -> Tensor:
    """Concentrations from 0.5 to 3, in no order."""
    return 0.5 + 2.5 * ((torch.arange(categories, dtype=torch.float64) * 0.618) % 1)


def cube(categories: int, count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, categories - 1, generator=generator, dtype=dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("categories", SIZES)
def test_points_come_back(categories: int, dtype: torch.dtype) -> None:
    """A rounding of c costs x_i one of its own size and one of what is left divided among the rest; those of the
    sums, in float64, add up like a random walk."""
    chart = StickBreaking(categories)
    bound = 4 * torch.finfo(dtype).eps + categories**0.5 * torch.finfo(torch.float64).eps
    for concentrations in (torch.ones(categories), uneven(categories)):
        x = dirichlet(concentrations, 50).to(dtype)
        back = chart.to_simplex(chart.to_cube(x))
        assert back.dtype == dtype
        assert ((back - x).abs() <= bound * (x + 1 / categories)).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("categories", SIZES)
def test_coordinates_come_back(categories: int, dtype: torch.dtype) -> None:
    chart, c = StickBreaking(categories), cube(categories, 50, dtype)
    back = chart.to_cube(chart.to_simplex(c))
    assert back.dtype == dtype
    assert (back - c).abs().max() <= 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("categories", SIZES)
def test_points_are_on_the_simplex(categories: int, dtype: torch.dtype) -> None:
    chart, c = StickBreaking(categories), cube(categories, 50, dtype)
    x = chart.to_simplex(c)
    assert x.shape == (50, categories) and (x >= 0).all()
    assert (x.double().sum(1) - 1).abs().max() <= categories**0.5 * torch.finfo(dtype).eps
    chart.check(x)


@pytest.mark.parametrize("categories", [2, 3, 6, 40])
def test_the_determinant_is_autograds(categories: int) -> None:
    chart = StickBreaking(categories)
    for c in cube(categories, 5):
        jacobian = torch.autograd.functional.jacobian(
            lambda each: chart.to_simplex(each[None])[0, :-1], c
        )
        sign, size = torch.linalg.slogdet(jacobian)
        assert float(sign) == (-1) ** (categories - 1)
        assert float(size) == pytest.approx(float(chart.log_det(c[None])), rel=1e-10)


@pytest.mark.parametrize("categories", [2, 10, 1000, 3000])
def test_densities_are_products_of_betas(categories: int) -> None:
    """Of Dirichlet(a) the fractions are independent Betas, and those of the uniform distribution's make c uniform."""
    chart, a = StickBreaking(categories), uneven(categories)
    x = dirichlet(a, 20)
    c = chart.to_cube(x)
    later = a.flip(0).cumsum(0).flip(0)[1:]
    v = x[:, :-1] / x.flip(1).cumsum(1).flip(1)[:, :-1]
    powers = torch.arange(categories - 1, 0, -1, dtype=torch.float64)
    want = Beta(a[:-1], later).log_prob(v) - Beta(torch.ones_like(later), powers).log_prob(v)
    got = Dirichlet(a).log_prob(x) + chart.log_det(c)
    torch.testing.assert_close(got, want.sum(1), rtol=1e-9, atol=1e-8)


def test_the_determinant_of_a_thousand_categories_is_stirlings() -> None:
    """log Gamma(K) = (K - 1/2) log K - K + log(2 pi)/2 + 1/(12 K) + O(K^-3)."""
    K = 1000
    series = (K - 0.5) * math.log(K) - K + 0.5 * math.log(2 * math.pi) + 1 / (12 * K)
    found = StickBreaking(K).log_det(cube(K, 3))
    assert found.tolist() == pytest.approx([-series] * 3, rel=1e-11)


@pytest.mark.parametrize("a", [(2.0, 3.0, 4.0), (1.0, 1.0, 1.0), (1.5, 1.0, 2.5)])
def test_a_density_in_the_cube_integrates_to_one(a: tuple[float, float, float]) -> None:
    """And gives the means a_i / sum a; midpoints of 400 x 400 squares."""
    chart, n = StickBreaking(3), 400
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    c = torch.cartesian_prod(middle, middle)
    x = chart.to_simplex(c)
    a_ = torch.tensor(a, dtype=torch.float64)
    density = (Dirichlet(a_).log_prob(x) + chart.log_det(c)).exp()
    assert float(density.mean()) == pytest.approx(1, abs=2e-4)
    torch.testing.assert_close((density[:, None] * x).mean(0), a_ / a_.sum(), rtol=0, atol=2e-4)


@pytest.mark.parametrize("categories", [2, 5, 1000])
def test_the_uniform_simplex_is_the_uniform_cube(categories: int) -> None:
    c = StickBreaking(categories).to_cube(dirichlet(torch.ones(categories), 4000))
    columns = sorted({0, (categories - 2) // 3, (categories - 2) // 2, categories - 2})
    for each in columns:
        assert kstest(c[:, each].numpy(), "uniform").pvalue > 1e-3
    assert (c.mean(0) - 0.5).abs().max() < 5 * (1 / 12 / 4000) ** 0.5
    chosen = c[:, columns]
    if len(columns) > 1:
        correlations = torch.corrcoef(chosen.T) - torch.eye(len(columns))
        assert correlations.abs().max() < 5 / 4000**0.5


@pytest.mark.parametrize("dtype", TYPES)
def test_faces_and_corners_give_no_nan(dtype: torch.dtype) -> None:
    chart = StickBreaking(4)
    x = torch.tensor(
        [
            [1, 0, 0, 0],
            [0, 1, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 0, 1],
            [0.5, 0, 0.5, 0],
            [0, 0.5, 0, 0.5],
        ],
        dtype=dtype,
    )
    c = chart.to_cube(x)
    assert ((c >= 0) & (c <= 1)).all()
    torch.testing.assert_close(chart.to_simplex(c), x)
    corners = torch.cartesian_prod(*3 * [torch.tensor([0, 1], dtype=dtype)])
    points = chart.to_simplex(corners)
    assert points.isfinite().all() and (points.max(1).values == 1).all()
    assert not (points.signbit()).any()


def test_a_large_category_comes_back() -> None:
    """4 % and 30 % of 1,000 categories: the distribution function would be 1 in float64."""
    x = torch.ones(2, 1000, dtype=torch.float64)
    x[0, 3], x[1, 3] = 0.04 / 0.96 * 999, 0.3 / 0.7 * 999
    x /= x.sum(1, keepdim=True)
    chart = StickBreaking(1000)
    torch.testing.assert_close(chart.to_simplex(chart.to_cube(x)), x, rtol=1e-12, atol=0)
    in_float32 = chart.to_simplex(chart.to_cube(x[:1].float()))
    torch.testing.assert_close(in_float32, x[:1].float(), rtol=1e-5, atol=1e-9)


NAN = math.nan
WRONG_POINTS = [
    ([[0.5, 0.5, 0.0], [0.6, 0.5, -0.1]], "coordinate 2 of point 1 is -0.1, and on the simplex it must be at least 0"),
    ([[0.5, 0.4, 0.2]], "the coordinates of point 0 sum to 1.1, not to 1 (within 6.7e-16): divide them"),
    ([[0.5, NAN, 0.5]], "coordinate 1 of point 0 is nan"),
    ([[0.5, math.inf, 0.5]], "the coordinates of point 0 sum to inf, not to 1"),
    ([[0.5, 0.5]], "an array has the shape (1, 2), but 3 categories need (B, 3)"),
]  # fmt: skip


@pytest.mark.parametrize(("points", "reason"), WRONG_POINTS)
def test_points_outside_the_simplex_are_one_line(points, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        StickBreaking(3).to_cube(torch.tensor(points, dtype=torch.float64))
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize(
    ("c", "reason"),
    [
        ([[0.5, 1.01]], "coordinate 1 of point 0 is 1.01, outside the cube [0, 1]"),
        ([[0.5, 0.5], [-1e-9, 0.5]], "coordinate 0 of point 1 is -1e-09, outside"),
        ([[NAN, 0.5]], "coordinate 0 of point 0 is nan, outside"),
        ([[0.5, 0.5, 0.5]], "an array has the shape (1, 3), but 3 categories need (B, 2)"),
    ],
)
def test_coordinates_outside_the_cube_are_one_line(c, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        StickBreaking(3).to_simplex(torch.tensor(c))
    assert str(error.value).startswith(reason)


def test_other_mistakes_are_one_line() -> None:
    with pytest.raises(ValueError, match="categories: 1; a simplex needs at least two"):
        StickBreaking(1)
    with pytest.raises(
        ValueError, match=r"numbers have the type torch.int64, but the chart needs floating"
    ):
        StickBreaking(2).to_cube(torch.tensor([[1, 0]]))
    x = torch.full((1, 1000), 0.8 / 999)
    x[0, 0] = 0.2
    with pytest.raises(
        ValueError, match=r"^fraction 0 of point 0 is 0.2 of the rest: with 1000 .* float32"
    ):
        StickBreaking(1000).to_cube(x / x.sum())


@pytest.mark.parametrize("categories", [2, 8, 1000, 3000])
def test_sums_that_rounding_explains_are_taken(categories: int) -> None:
    """Normalised in float32 by a sum taken one by one; ten times the tolerance is not."""
    x = dirichlet(uneven(categories), 20).float()
    sums = torch.zeros(20)
    for column in x.T:
        sums = sums + column
    chart = StickBreaking(categories)
    chart.check(x / sums[:, None])
    with pytest.raises(ValueError, match="divide them by their sum"):
        chart.check(x * (1 + 10 * categories * torch.finfo(torch.float32).eps))
