"""Which images a likelihood is of."""

from pathlib import Path

import pytest
import torch

from diffbench.data.datasets import Digits
from diffbench.jobs import data, likelihood
from diffbench.specs.data import DigitsSpec
from diffbench.specs.denoisers import GaussianSpec
from diffbench.specs.jobs import LikelihoodStageSpec, TrainSpec
from diffbench.specs.likelihoods import VLBSpec
from diffbench.specs.processes import DiscreteSpec
from diffbench.specs.registry import build
from diffbench.training import models


@pytest.mark.parametrize(("split", "count"), [("test", 297), ("train", 1500)])
def test_the_bound_is_of_the_split_that_is_named(split, count, monkeypatch) -> None:
    train = TrainSpec(
        variant="gaussian",
        seed=0,
        data=DigitsSpec(),
        process=DiscreteSpec(schedule="linear", steps=25),
        denoiser=GaussianSpec(),
    )
    dataset = Digits(DigitsSpec()).load()
    process = models.build_process(train.process, dataset)
    denoiser = build(train.denoiser, process, models.fit_exact(train, dataset))
    monkeypatch.setattr(data, "load", lambda *_: dataset)
    monkeypatch.setattr(models, "load_denoiser", lambda *_: denoiser)
    spec = LikelihoodStageSpec(
        variant="gaussian", seed=0, kind_id="vlb", likelihood=VLBSpec(split=split), train=train
    )
    found = likelihood.evaluate(spec, Path(), torch.device("cpu"))
    assert found["images"] == count and found["protocol"]["split"] == split
