"""PSNR and SSIM, against loops over pixels and windows, and against values known by hand."""

import math

import numpy as np
import pytest
import torch

from diffbench.metrics.image import gaussian_window, psnr, ssim


def pair(*shape, noise=0.1):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    return x, (x + noise * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def test_psnr_is_that_of_each_images_mean_square():
    x, y = pair(3, 2, 5, 4)
    squares = [sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) / 40 for p, q in rows(x, y)]
    wanted = [10 * math.log10(1 / each) for each in squares]
    np.testing.assert_allclose(psnr(x, y), wanted, rtol=1e-12)


def rows(x, y):
    return zip(x.flatten(1).tolist(), y.flatten(1).tolist(), strict=True)


def test_psnr_of_known_errors():
    x = torch.full((2, 1, 4, 4), 0.5)
    assert psnr(x, x).tolist() == [100, 100]
    np.testing.assert_allclose(psnr(x, x + 0.1), [20, 20], rtol=1e-6)
    assert psnr(x.float(), x).dtype == torch.float64


@pytest.mark.parametrize(
    ("shape", "side"), [((2, 1, 13, 16), 11), ((2, 3, 8, 8), 7), ((1, 2, 3, 9), 3)]
)
def test_ssim_is_a_mean_over_windows(shape, side):
    """By a loop over places, with each window's weighted moments about its own mean."""
    x, y = pair(*shape)
    places = range(side)
    line = [math.exp(-((i - side // 2) ** 2) / (2 * 1.5**2)) for i in places]
    weights = np.outer(line, line) / sum(line) ** 2
    wanted = []
    for a, b in zip(x.numpy(), y.numpy(), strict=True):
        values = []
        for channel in range(shape[1]):
            for top in range(shape[2] - side + 1):
                for left in range(shape[3] - side + 1):
                    box = channel, slice(top, top + side), slice(left, left + side)
                    values.append(of_window(a[box], b[box], weights))
        wanted.append(np.mean(values))
    np.testing.assert_allclose(ssim(x, y), wanted, rtol=1e-10)


def of_window(a, b, weights):
    p, q = (weights * a).sum(), (weights * b).sum()
    v, w, c = (
        (weights * (a - p) ** 2).sum(),
        (weights * (b - q) ** 2).sum(),
        (weights * (a - p) * (b - q)).sum(),
    )
    return (2 * p * q + 1e-4) * (2 * c + 9e-4) / ((p * p + q * q + 1e-4) * (v + w + 9e-4))


def test_ssim_of_equal_and_of_flat_images():
    x, _ = pair(2, 1, 12, 12)
    np.testing.assert_allclose(ssim(x, x), [1, 1], rtol=1e-12)
    dark, light = torch.full((1, 1, 12, 12), 0.2), torch.full((1, 1, 12, 12), 0.8)
    np.testing.assert_allclose(ssim(dark, light), (2 * 0.16 + 1e-4) / (0.68 + 1e-4), rtol=1e-6)


def test_ssim_falls_with_noise():
    values = [float(ssim(*pair(1, 1, 32, 32, noise=noise))) for noise in (0.01, 0.1, 0.3)]
    assert values == sorted(values, reverse=True)


def test_the_window_has_the_moments_of_its_gaussian():
    window = gaussian_window(64, 64)
    assert window.shape == (11, 11)
    steps = torch.arange(-5, 6).double()
    line = window.sum(0)
    assert float(line.sum()) == pytest.approx(1)
    assert float((line * steps**2).sum()) == pytest.approx(1.5**2, rel=0.01)
