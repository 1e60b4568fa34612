"""Grey levels and model scale: a bijection on grey levels that rounds as the papers' code does."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from diffbench.data.grey_levels import RANGES, GreyLevels

SCALES = [GreyLevels(count, low, high) for count in (2, 17, 256) for low, high in RANGES]
every_scale = pytest.mark.parametrize("grey", SCALES, ids=str)


def all_levels(grey: GreyLevels) -> np.ndarray:
    return np.arange(grey.count, dtype=np.uint8).reshape(-1, 1, 1, 1)


@every_scale
def test_every_level_comes_back(grey: GreyLevels) -> None:
    k = all_levels(grey)
    assert np.array_equal(grey.from_model(grey.to_model(k)), k)


@every_scale
def test_the_ends_of_the_scale_are_exact(grey: GreyLevels) -> None:
    x = grey.to_model(all_levels(grey)).flatten()
    assert x[0].item() == grey.low and x[-1].item() == grey.high
    assert torch.allclose(x.double().diff(), torch.tensor(grey.spacing).double(), atol=1e-7)


@every_scale
def test_rounding_inverts_dequantisation_exactly(grey: GreyLevels) -> None:
    k = np.random.RandomState(0).randint(0, grey.count, (50, 4, 4, 3)).astype(np.uint8)
    x = grey.to_model(k).double()
    for u in (1e-4, 0.5, 1 - 1e-4):
        assert np.array_equal(grey.from_model(grey.dequantise(x, torch.full_like(x, u))), k)
    assert torch.equal(grey.dequantise(x, torch.full_like(x, 0.5)), x)


def test_layout_is_channels_last_for_levels_and_first_for_models() -> None:
    k = np.random.RandomState(0).randint(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    x = GreyLevels(256).to_model(k)
    assert x.shape == (2, 3, 5, 4) and x.dtype == torch.float32 and x.is_contiguous()
    assert x[1, 2, 3, 0].item() == pytest.approx(2 * int(k[1, 3, 0, 2]) / 255 - 1, abs=1e-7)
    assert torch.equal(GreyLevels(256).to_model(torch.from_numpy(k)), x)


def test_digits_are_eighths() -> None:
    x = GreyLevels(17).to_model(all_levels(GreyLevels(17))).flatten()
    assert torch.equal(x, torch.arange(17) / 8 - 1)


def test_at_256_levels_the_rule_is_that_of_edm() -> None:
    x = torch.rand(1, 1, 200, 200, dtype=torch.float64) * 2.4 - 1.2
    edm = (x * 127.5 + 128).clip(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(GreyLevels(256).from_model(x), edm)


def test_halves_round_upwards_and_the_outside_is_clipped() -> None:
    x = torch.tensor([-torch.inf, -7.0, -1 + 1 / 16, 1 - 1 / 16, 7.0, torch.inf]).view(1, 1, 1, -1)
    assert GreyLevels(17).from_model(x).flatten().tolist() == [0, 0, 1, 16, 16, 16]


@every_scale
def test_log_jacobian_is_that_of_the_map(grey: GreyLevels) -> None:
    expected = math.log((grey.high - grey.low) / (grey.count - 1))
    assert grey.log_jacobian == pytest.approx(expected)


def test_density_times_jacobian_is_the_probability_of_a_level() -> None:
    grey, density = GreyLevels(17), stats.norm(0.1, 0.7)
    x = -1 + 5 * grey.spacing
    edges = grey.dequantise(
        torch.tensor([x, x]).double(), torch.tensor([0.0, 1.0]).double()
    ).tolist()
    probability = density.cdf(edges[1]) - density.cdf(edges[0])
    mean, _ = integrate.quad(lambda u: density.pdf(x + (u - 0.5) * grey.spacing), 0, 1)
    assert math.log(mean) + grey.log_jacobian == pytest.approx(math.log(probability), abs=1e-10)


def test_nan_is_refused() -> None:
    x = torch.zeros(3, 1, 2, 2)
    x[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="1 of 3 images have NaN"):
        GreyLevels(17).from_model(x)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4, 4, 1)), "uint8"),
        (np.zeros((2, 4, 4), np.uint8), "uint8"),
        (np.full((2, 4, 4, 1), 17, np.uint8), "level 17"),
    ],
)
def test_what_is_no_levels_is_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GreyLevels(17).to_model(array)


@pytest.mark.parametrize("arguments", [(1, -1, 1), (257, -1, 1), (17, 0, 2)])
def test_impossible_scales_are_refused(arguments: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="levels must|model scale"):
        GreyLevels(*arguments)
