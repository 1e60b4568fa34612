"""How often a solver or a likelihood calls the network, counted in a real run.

The network is tanh(x_t) of the first channel, which takes no time, and there is one small image: a solver with fixed
steps makes the same number of calls whatever the network returns.  One with step size control does not, and its number
is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.guidance import Classifier
from diffbench.diffusion.solvers.loop import sample
from diffbench.specs.jobs import TrainSpec
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import SolverSpec
from diffbench.training import models

#: The assumed number of evaluations of a solver with step size control.
ADAPTIVE_CALLS = 150

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Calls:
    """Evaluations of the network, and gradients of the classifier, for each batch of images."""

    network: int
    classifier: int = 0


class Cheap(nn.Module):
    """A network with that number of outputs that takes no time and counts its calls."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs, self.calls = outputs, 0

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        """Return tanh of the first channel, as (B, outputs, H, W)."""
        self.calls += 1
        return x[:, :1].tanh().expand(-1, self.outputs, -1, -1)


class CheapClassifier(Cheap):
    """A classifier that takes no time and counts its calls: logits (B, outputs)."""

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        """Return logits (B, outputs) that depend on the first pixel."""
        self.calls += 1
        return x.flatten(1)[:, :1].tanh() * torch.arange(self.outputs).to(x)


def cheap_denoiser(spec: TrainSpec, dataset: Dataset) -> tuple[Denoiser, Cheap]:
    """Return the denoiser of a run around a cheap network, and that network."""
    network = Cheap(models.image_shape(dataset)[0] * spec.denoiser.outputs)
    process = models.build_process(spec.process, dataset)
    return models.wrap(spec, process, network, dataset, CPU, "fp32"), network


def of_solver(train: TrainSpec, solver: SolverSpec, dataset: Dataset) -> Calls:
    """Return the calls for one batch of samples."""
    denoiser, network = cheap_denoiser(train, dataset)
    classes = len(dataset.classes)
    guide = CheapClassifier(classes)
    classifier = Classifier(denoiser.process, guide, classes)
    labels = train.denoiser.takes_labels or solver.uses_labels
    y = torch.zeros(1, dtype=torch.long) if labels else None
    shape = (1, *models.image_shape(dataset))
    sample(build(solver, denoiser, classifier), shape, stream("estimate"), Condition(y))
    return Calls(network.calls, guide.calls)


def of_likelihood(train: TrainSpec, likelihood: LikelihoodSpec, dataset: Dataset) -> Calls:
    """Return the calls for one batch of test images."""
    denoiser, network = cheap_denoiser(train, dataset)
    grey = models.grey_levels_of(dataset, train.process)
    built = build(likelihood, denoiser, grey)
    if known := getattr(built, "calls", None):
        # A bound knows them: its thousand terms take seconds even without a network.
        return Calls(known())
    image = grey.to_model(dataset.test[:1])
    y = torch.zeros(1, dtype=torch.long) if denoiser.classes else None
    built(image, stream("estimate"), Condition(y))
    return Calls(network.calls)
