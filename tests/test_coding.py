"""Progressive coding: the bound's own terms, a Gaussian's closed form, and the analysis as a stage."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffbench.analyses.bench import Bench
from diffbench.analyses.coding import ProgressiveCoding
from diffbench.data.datasets import Digits
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.likelihoods.progressive import coded
from diffbench.diffusion.likelihoods.vlb import VLB
from diffbench.specs.analyses import ProgressiveCodingSpec
from diffbench.specs.data import DigitsSpec
from diffbench.specs.denoisers import GaussianSpec, NetworkDenoiserSpec
from diffbench.specs.jobs import TrainSpec
from diffbench.specs.likelihoods import VLBSpec
from diffbench.specs.processes import DiscreteSpec, VPSpec
from diffbench.specs.registry import build
from diffbench.training import models

STEPS = 50
TRAIN = TrainSpec(
    variant="gaussian",
    seed=0,
    data=DigitsSpec(),
    process=DiscreteSpec(schedule="linear", steps=STEPS),
    denoiser=GaussianSpec(),
)


@pytest.fixture(scope="module")
def dataset():
    """The digits; the test images are those that the Gaussian is fitted to."""
    digits = Digits(DigitsSpec()).load()
    return replace(digits, test=digits.train, test_labels=digits.train_labels)


@pytest.fixture(scope="module")
def denoiser(dataset):
    process = models.build_process(TRAIN.process, dataset)
    return build(TRAIN.denoiser, process, models.fit_exact(TRAIN, dataset))


def bound_of(dataset, denoiser) -> VLB:
    return VLB(VLBSpec(variance="large"), denoiser, models.grey_levels_of(dataset, TRAIN.process))


def images(dataset, count):
    return models.grey_levels_of(dataset, TRAIN.process).to_model(dataset.test[:count])


def test_all_levels_cost_the_whole_bound_but_the_decoder(dataset, denoiser) -> None:
    bound, x = bound_of(dataset, denoiser), images(dataset, 20)
    whole = bound(x, stream("test", 0))
    rate, _ = coded(bound, x, STEPS, stream("test", 0))
    # The same draws in the same order: sums of 50 float32 terms of order one.
    wanted = whole["prior"].mean() + whole["terms"][1:].sum()
    assert float(rate.mean()) == pytest.approx(float(wanted), abs=1e-5)


def test_one_level_costs_the_prior_and_tells_next_to_nothing(dataset, denoiser) -> None:
    bound, x = bound_of(dataset, denoiser), images(dataset, 20)
    rate, _ = coded(bound, x, 1, stream("test", 0))
    assert torch.equal(rate, bound.prior(x))


def test_rate_rises_and_distortion_falls(dataset, denoiser) -> None:
    bound, x = bound_of(dataset, denoiser), images(dataset, 200)
    found = [coded(bound, x, steps, stream("test", 1)) for steps in (1, 20, 35, 45, STEPS)]
    rates, errors = zip(*((float(r.mean()), float(e.mean())) for r, e in found), strict=True)
    assert list(rates) == sorted(rates) and list(errors) == sorted(errors, reverse=True)


@pytest.mark.parametrize("steps", [10, 40, STEPS])
def test_the_distortion_of_a_gaussian_is_its_posterior_variance(dataset, denoiser, steps) -> None:
    """Of a linear guess the squared error depends on the images' mean and covariance alone."""
    bound = VLB(
        VLBSpec(variance="large", threshold="none"),
        denoiser,
        models.grey_levels_of(dataset, TRAIN.process),
    )
    x = images(dataset, len(dataset.test))
    _, squared = coded(bound, x, steps, stream("test", 2))
    t = float64(STEPS - steps)
    alpha, sigma = float(denoiser.process.alpha(t)), float(denoiser.process.sigma(t))
    values = np.linalg.eigvalsh(np.cov(x.flatten(1).double().numpy().T, bias=True)).clip(0)
    wanted = np.mean(values * sigma**2 / (alpha**2 * values + sigma**2))
    se = float(squared.std()) / len(squared) ** 0.5
    # Five standard errors of the drawn noise; the fit's n or n - 1 is a part in 1,500.
    assert abs(float(squared.mean()) - wanted) < 5 * se + wanted / len(x)


def test_the_analysis_is_in_grey_levels(dataset, denoiser, monkeypatch) -> None:
    monkeypatch.setattr(models, "load_denoiser", lambda *_: denoiser)
    analysis = ProgressiveCoding(ProgressiveCodingSpec(steps=40, images=50), TRAIN)
    content, picture = analysis.measure(Bench(dataset, torch.device("cpu"), None, None, 0))
    _, squared = coded(
        bound_of(dataset, denoiser),
        images(dataset, 50),
        40,
        stream("progressive coding", 0, 0),
    )
    # Grey levels 0..16 are [-1, 1] in model scale: a unit is 8 of them.
    wanted = 8 * float(squared.mean()) ** 0.5
    assert content["metrics"]["distortion"]["value"] == pytest.approx(wanted, rel=1e-6)
    assert picture is None and content["images"] == 50 and content["nfe"] == 40


def test_other_processes_and_too_many_levels_are_refused() -> None:
    chain, network = DiscreteSpec(schedule="linear", steps=100), NetworkDenoiserSpec(predict="eps")
    spec = ProgressiveCodingSpec(steps=100)
    assert spec.refusal(chain, network) is None
    assert "steps: 101, but discrete has only 100 levels" in str(
        ProgressiveCodingSpec(steps=101).refusal(chain, network)
    )
    assert "vp is continuous" in str(spec.refusal(VPSpec(), network))
    learned = ProgressiveCodingSpec(steps=100, variance="learned")
    assert "learned" in str(learned.refusal(chain, network))
