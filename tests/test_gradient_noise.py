"""The gradient-noise analysis: its estimators on draws with a known answer."""

import pytest
import torch
from commands import REPOSITORY

from diffbench.analyses.bench import Bench
from diffbench.analyses.gradient_noise import OBJECTIVES, GradientNoise, noise_of
from diffbench.jobs.train import denoiser_trainer
from diffbench.plan.loading import load_plan
from diffbench.specs.analyses import GradientNoiseSpec
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.specs.processes import DiscreteSpec, VPSpec
from diffbench.specs.registry import build
from diffbench.store.state import StateStore
from diffbench.training import models


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


@pytest.fixture(scope="module")
def analysed():
    """The analysis of the tiny hybrid variant, and the digits."""
    plan = load_plan([REPOSITORY / "examples" / "tiny.yaml"], {}, REPOSITORY)
    job = plan.job("analysis", "iddpm-hybrid", 0, "gradient-noise")
    return job.spec, build(job.spec.train.data).load()


def made(spec, dataset, draws):
    """The analysis, its trainer and its three objectives at step 0."""
    analysis = GradientNoise(GradientNoiseSpec(draws=draws), spec.train)
    trainer = denoiser_trainer(analysis.train, dataset, torch.device("cpu"))
    process = build(spec.train.process)
    denoiser = models.wrap(
        analysis.train, process, trainer.network, dataset, torch.device("cpu"), "fp32"
    )
    return (
        analysis,
        trainer,
        dict(zip(OBJECTIVES, analysis.objectives(trainer, denoiser), strict=True)),
    )


def test_importance_sampled_times_have_seen_the_losses(analysed):
    _, _, objectives = made(*analysed, draws=2)
    uniform, importance = (objectives[name].times for name in ("vlb", "vlb-importance"))
    assert importance.probability.std() > 0
    assert (importance.seen == importance.history).all()
    t, weight = uniform.draw(5, torch.Generator())
    assert (weight == 1).all() and ((t >= 0) & (t < 20)).all()


def test_uniform_and_importance_sampled_times_estimate_one_gradient(analysed):
    """With n draws each, the squared distance of the two means is their noises' n-th parts on average; a
    sum of squares over thousands of parameters exceeds 4 times its mean with less than the 5 % of
    Markov's inequality for 20 times: the limit."""
    analysis, trainer, objectives = made(*analysed, draws=30)
    means, noises = {}, {}
    for name in ("vlb", "vlb-importance"):
        draws = torch.stack(list(analysis.draws(trainer, objectives[name])))
        means[name], noises[name] = draws.mean(0), noise_of(iter(draws))[0]
    distance = float((means["vlb"] - means["vlb-importance"]).square().sum())
    assert distance < 20 * sum(noises.values()) / 30
    assert noises["vlb-importance"] < noises["vlb"]


def test_a_measurement_goes_on_from_its_state(analysed, tmp_path):
    spec, dataset = analysed
    place = torch.device("cpu")

    def measured(folder, checkpoints):
        analysis = GradientNoise(spec.analysis, spec.train)
        whole = analysis.checkpoints(4)
        analysis.checkpoints = lambda steps: whole[:checkpoints]
        content, picture = analysis.measure(
            Bench(dataset, place, StateStore(folder, spec), tmp_path)
        )
        assert picture is None
        return content

    whole = measured(tmp_path / "whole", 2)
    measured(tmp_path / "half", 1)
    assert measured(tmp_path / "half", 2) == whole
