"""The classifier stage: train a classifier of noisy images, which guides samplers."""

from __future__ import annotations

from pathlib import Path

import torch

from diffbench.data.datasets import Dataset
from diffbench.diffusion.objectives.classifier import CrossEntropy
from diffbench.estimate.costs import Cost
from diffbench.estimate.timings import Timings
from diffbench.jobs import data
from diffbench.jobs.train import called_in, train_network, training_cost
from diffbench.specs.jobs import ClassifierSpec
from diffbench.specs.registry import build
from diffbench.training import machine, models
from diffbench.training.team import Team
from diffbench.training.trainer import Trainer


def run(spec: ClassifierSpec, root: Path, device_name: str) -> None:
    """Write model.safetensors: averaged weights."""
    device = machine.prepare(device_name, spec.training)
    dataset = data.load(root, spec.data)
    train_network(spec, root, device, lambda team: classifier_trainer(spec, dataset, device, team))


def cost(spec: ClassifierSpec, timings: Timings) -> Cost:
    """Return the cost of training."""
    return training_cost(spec, timings, classifier_trainer)


def classifier_trainer(
    spec: ClassifierSpec, dataset: Dataset, device: torch.device, team: Team | None = None
) -> Trainer:
    """Return the trainer of a classifier by cross-entropy on noisy images."""
    network = models.placed(models.build_classifier(spec, dataset), spec.training, device).train()
    called = called_in(team, network, spec.training)
    precision = spec.training.precision
    classifier = models.wrap_classifier(spec, called, dataset, device, precision)
    objective = CrossEntropy(classifier, build(spec.times, classifier.process))
    return Trainer(spec, network, objective, dataset, device, labelled=True, team=team)
