"""Scores of restorations against draws whose errors are known."""

import numpy as np
import pytest
import torch

from diffbench.metrics.image import psnr, ssim
from diffbench.metrics.restoration import against_posterior, of_pictures, residual

IMAGES, DRAWS, SHAPE = 400, 5, (1, 8, 8)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(scores):
    return {name: score["value"] for name, score in scores.items()}


def test_pictures_are_clipped_and_scored_one_by_one():
    truth = normal(4, *SHAPE).mul(0.2).add(0.5).clamp(0, 1)
    drawn = truth[:, None] + 0.4 * normal(4, 3, *SHAPE, seed=1)
    clipped = drawn.clamp(0, 1)
    scores = of_pictures(truth, drawn)
    for name, of in (("psnr", psnr), ("ssim", ssim)):
        each = np.array(
            [
                [float(of(x[None], t[None])) for x in xs]
                for xs, t in zip(clipped, truth, strict=True)
            ]
        )
        assert scores[name]["value"] == pytest.approx(each.mean())
        assert scores[name]["se"] == pytest.approx(each.mean(1).std(ddof=1) / 2)
    assert scores["psnr_mean"]["value"] == pytest.approx(float(psnr(clipped.mean(1), truth).mean()))
    spread = np.sqrt(np.var(clipped.numpy(), axis=1, ddof=1).mean())
    assert scores["spread"]["value"] == pytest.approx(spread)


def test_spread_and_residual_are_the_deviations_of_known_noise():
    truth = torch.full((IMAGES, *SHAPE), 0.5)
    drawn = truth[:, None] + 0.03 * normal(IMAGES, DRAWS, *SHAPE)
    score = of_pictures(truth, drawn)["spread"]
    assert abs(score["value"] - 0.03) < 4 * score["se"] < 0.001
    y, again = truth[:, 0, :4], drawn[:, :, 0, :4]
    found = residual(y, again, 2.0)
    assert abs(found["value"] - 0.015) < 4 * found["se"] < 0.001


def test_draws_of_the_posterior_have_no_bias_and_its_spread():
    mean, sd = normal(IMAGES, *SHAPE).mul(0.1), torch.linspace(0.01, 0.2, 64).double()
    drawn = mean[:, None] + sd.reshape(SHAPE) * normal(IMAGES, DRAWS, *SHAPE, seed=1)
    scores = against_posterior(drawn, mean, sd**2)
    assert scores["sd_ratio"]["value"] == pytest.approx(1, abs=0.02)
    assert abs(scores["sd_ratio"]["value"] - 1) < 4 * scores["sd_ratio"]["se"]
    # Without what five draws miss by chance: that alone is 0.05.
    assert scores["bias"]["value"] < 0.01


@pytest.mark.parametrize(("shift", "factor"), [(0.05, 1.0), (0.0, 0.5), (0.1, 2.0)])
def test_a_known_bias_and_ratio_are_found(shift, factor):
    mean, sd = normal(IMAGES, *SHAPE).mul(0.1), 0.05
    drawn = mean[:, None] + shift + factor * sd * normal(IMAGES, DRAWS, *SHAPE, seed=1)
    scores = against_posterior(drawn, mean, torch.full((64,), sd**2))
    assert scores["sd_ratio"]["value"] == pytest.approx(factor, rel=0.02)
    assert scores["bias"]["value"] == pytest.approx(shift, abs=0.004)


def test_a_point_has_no_ratio_and_one_image_no_error():
    mean = normal(1, *SHAPE)
    scores = against_posterior(mean[:, None].repeat(1, 2, 1, 1, 1) + 0.5, mean, torch.zeros(64))
    assert values(scores) == pytest.approx({"bias": 0.5})
    assert scores["bias"]["se"] is None
