"""The gradient-noise analysis: its estimators on draws with a known answer."""

import pytest
import torch

from diffbench.specs.analysis import GradientNoiseSpec
from diffbench.specs.denoiser import NetworkDenoiserSpec
from diffbench.specs.process import DiscreteSpec, VPSpec
from diffbench.stages.gradient_noise import noise_of


def test_noise_and_mean_square_are_those_of_the_sample():
    """Of n draws: the sum of the coordinates' sample variances, and |mean|^2 less the noise's n-th part."""
    draws = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    noise, mean_square = noise_of(iter(draws))
    variance = float(draws.var(0).sum())
    assert noise == pytest.approx(variance, rel=1e-12)
    assert mean_square == pytest.approx(
        float(draws.mean(0).square().sum()) - variance / 7, rel=1e-12
    )


def test_both_are_unbiased():
    """All pairs of two equally likely draws, a and b: the averages are the exact variance and |mean|^2."""
    a, b = torch.tensor([1.0, 3.0]).double(), torch.tensor([2.0, -1.0]).double()
    found = [noise_of(iter(pair)) for pair in ((a, a), (a, b), (b, a), (b, b))]
    mean = (a + b) / 2
    exact = float(((a - mean) ** 2).sum()), float(mean.square().sum())
    averages = [sum(each[i] for each in found) / 4 for i in range(2)]
    assert averages == pytest.approx(exact, rel=1e-12)


def test_what_cannot_be_measured_is_refused():
    learned = NetworkDenoiserSpec(predict="eps", variance="learned")
    fixed = NetworkDenoiserSpec(predict="eps")
    spec, chain = GradientNoiseSpec(), DiscreteSpec(schedule="cosine")
    assert spec.refusal(chain, learned) is None
    assert "denoiser.variance: learned" in spec.refusal(chain, fixed)
    assert "integer times" in spec.refusal(VPSpec(), learned)
    with pytest.raises(ValueError, match="draws"):
        GradientNoiseSpec(draws=1)
