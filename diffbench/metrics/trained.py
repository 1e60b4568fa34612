"""A feature extractor for small images: a seeded classifier, trained on the data set itself.

Inception-v3 was not trained on images like 8x8 digits.  FID, KID, precision and recall are computed instead on the
features z in R^d of a small classifier, the Inception score on its class probabilities p(y|x):

    z_0 = linear(mean over pixels of convolutions(x)),   p(y|x) = softmax(linear(relu(z_0)))
    z   = c z_0,   c such that the total variance of z over the training images is ``variance``

A classifier's features have no scale of their own and FID is quadratic in it; c fixes the unit, so
that values can be compared across seeds.  KID's cubic kernel is not homogeneous: it uses z.z'/``variance``
in place of z.z'/d, which expects features of unit size.  Gaussian noise is added to the training
images.  Labels are not smoothed: that would keep all probabilities away from 0 and 1 and limit the
Inception score.

Where a data set has one class there is nothing to classify.  The task is then to tell by which
quarter turn an image was rotated (half turn, where images are not square), after Gidaris, Singh,
Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", 2018,
https://arxiv.org/abs/1803.07728.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.data.grey_levels import GreyLevels
from diffbench.data.resident import TrainingImages
from diffbench.metrics.extractor import (
    Extractor,
    ExtractorTraining,
    Features,
    features_in_parts,
    spatial_features,
)
from diffbench.metrics.validation import validate_extractor
from diffbench.specs.extractors import TrainedExtractorSpec
from diffbench.store.products import reading
from diffbench.store.progress import Step
from diffbench.store.state import by_part


class FeatureNetwork(nn.Module):
    """3x3 convolutions with batch norm, the second of stride 2; pixel mean; two linear maps.

    Args:
        spec: widths and the number of features.
        channels: colour channels C of the images, which may have any size.
        classes: number of logits.
        grey_levels: the number L of grey levels of the images.
        name: the extractor's name in scores.
    """

    def __init__(
        self,
        spec: TrainedExtractorSpec,
        *,
        channels: int,
        classes: int,
        grey_levels: int,
        name: str = "",
    ) -> None:
        super().__init__()
        self.name = name or spec.name
        self.grey = GreyLevels(grey_levels)
        self.kid_gamma = 1 / spec.variance
        widths = (channels, *spec.channels)
        blocks = [
            _block(before, after, stride=2 if i == 1 else 1)
            for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False))
        ]
        self.body = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.features = nn.Linear(widths[-1], spec.features)
        self.head = nn.Linear(spec.features, classes)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, d) and logits (B, classes) of images, uint8 (B, C, H, W)."""
        return self.embed(self.grey.to_model(images.permute(0, 2, 3, 1)))

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, d) and logits (B, classes) of images x (B, C, H, W) in [-1, 1]."""
        z = self.features(self.body(x))
        return self.scale * z, self.head(z.relu())


class SpatialNetwork(nn.Module):
    """The features of sFID by a classifier: of its last convolution, after batch norm and ReLU; there are no logits.

    They have no common scale: sFID can be compared within one data set and extractor only.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, d) and logits (B, 0) of images, uint8 (B, C, H, W)."""
        x = self.network.grey.to_model(images.permute(0, 2, 3, 1))
        z = spatial_features(self.network.body[:-2](x))
        return z, z[:, :0]


class Trained(Extractor):
    """The classifier of a data set, trained once and stored."""

    def __init__(self, spec: TrainedExtractorSpec) -> None:
        self.spec = spec

    def training(self, dataset: Dataset, device: torch.device) -> ClassifierTraining:
        """The classifier's training."""
        return ClassifierTraining(self.spec, dataset, device)

    def make(self, dataset: Dataset) -> FeatureNetwork:
        """Train the classifier."""
        return train_extractor(self.spec, dataset)

    def untrained(self, dataset: Dataset) -> FeatureNetwork:
        """Build the classifier with random weights."""
        return build_extractor(self.spec, dataset)

    def load(self, dataset: Dataset, weights: Path | None) -> FeatureNetwork:
        """Build the classifier with its stored weights."""
        assert weights is not None
        module = build_extractor(self.spec, dataset)
        with reading(weights):
            module.load_state_dict(load_file(weights))
        return module.eval().requires_grad_(False)

    def opinions(self, module: nn.Module) -> Mapping[str, nn.Module]:
        """The extractor of sFID: the same network, before the mean over pixels."""
        assert isinstance(module, FeatureNetwork)
        return {name: SpatialNetwork(module) for name in self.spec.opinions}

    def validate(self, module: nn.Module, dataset: Dataset) -> dict[str, float]:
        """Measure the classifier on the data set's damaged images."""
        return validate_extractor(module, dataset)


def build_extractor(spec: TrainedExtractorSpec, dataset: Dataset) -> FeatureNetwork:
    """Build the untrained extractor for a data set; stored weights can be loaded into it."""
    return FeatureNetwork(
        spec,
        channels=dataset.shape[2],
        classes=len(dataset.classes) if len(dataset.classes) > 1 else _turns(dataset.shape),
        grey_levels=dataset.levels,
        name=f"{dataset.name}-{spec.name}" + ("" if len(dataset.classes) > 1 else "-turns"),
    )


def train_extractor(spec: TrainedExtractorSpec, dataset: Dataset) -> FeatureNetwork:
    """Train the extractor on the training split, on the CPU, where the result depends only on spec and data set.

    Returns the module in evaluation mode, without gradients.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(spec.threads)
    try:
        training = ClassifierTraining(spec, dataset, torch.device("cpu"))
        with Step(training.title, training.steps, "step") as step:
            for _ in step.over(range(training.steps)):
                training.advance()
        return training.finished()
    finally:
        torch.set_num_threads(before)


class Task:
    """Images to be classified, by rows: with the data set's classes, else turned, with by how much.

    The rows of a set of N images with K turns are K N: row k N + i is image i after k turns.  Images stay as they are
    stored, uint8, and are put on [-1, 1] and turned a batch at a time.
    """

    def __init__(self, dataset: Dataset, grey: GreyLevels, device: torch.device) -> None:
        self.images = TrainingImages(grey, dataset.train, device)
        named = len(dataset.classes) > 1
        self.labels = torch.from_numpy(dataset.train_labels) if named else None
        self.turns = 1 if named else _turns(dataset.shape)

    def __len__(self) -> int:
        return self.turns * len(self.images)

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The images (B, C, H, W) on the device and the labels (B,) of rows (B,)."""
        turns, rows = rows // len(self.images), rows % len(self.images)
        x = self.images[rows]
        if self.labels is not None:
            return x, self.labels[rows].to(x.device)
        turns = turns.to(x.device)
        for k in range(1, self.turns):
            chosen = turns == k
            x[chosen] = x[chosen].rot90(k * 4 // self.turns, (2, 3))
        return x, turns


class ClassifierTraining(ExtractorTraining):
    """Adam with a cosine-decayed learning rate, ``epochs`` passes over the images in random order, in equal batches.

    All that is random comes from one generator on the CPU: the initial weights, and for each epoch the order of the
    images, then the noise of its steps.  So a state has the generator at the beginning of the epoch too.
    """

    def __init__(self, spec: TrainedExtractorSpec, dataset: Dataset, device: torch.device) -> None:
        self.spec, self.dataset, self.device = spec, dataset, device
        self.step, self.threads = 0, spec.threads
        self.generator = torch.Generator()
        with torch.random.fork_rng(devices=[]):
            # Layers draw their initial weights from the global generator.
            torch.manual_seed(spec.seed)
            self.module = build_extractor(spec, dataset).to(device).train()
            self.generator.set_state(torch.get_rng_state())
        self.task = Task(dataset, self.module.grey, device)
        self.batches = -(-len(self.task) // spec.batch)
        self.batch, self.steps = spec.batch, spec.epochs * self.batches
        self.optimiser = torch.optim.Adam(self.module.parameters(), lr=spec.lr)
        self.decay = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, self.steps)
        self.shuffle()

    def shuffle(self) -> None:
        """Draw the order of the images in an epoch, and cut it into batches."""
        self.epoch = self.generator.get_state()
        order = torch.randperm(len(self.task), generator=self.generator)
        self.order = order.tensor_split(self.batches)

    def advance(self) -> Tensor:
        """Take a step on a batch, with Gaussian noise on its images."""
        if self.step and self.step % self.batches == 0:
            self.shuffle()
        x, y = self.task[self.order[self.step % self.batches]]
        noise = torch.randn(x.shape, generator=self.generator).to(x.device)
        logits = self.module.embed(x + self.spec.noise * noise)[1]
        loss = nn.functional.cross_entropy(logits, y)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.decay.step()
        self.step += 1
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """Weights and batch statistics, Adam's moments and learning rate, and the generator, now and before the epoch.

        The learning rate is computed from the one before, so it is kept.
        """
        tensors = {f"model.{name}": each for name, each in self.module.state_dict().items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": each for name, each in moments.items()}
        rate = torch.tensor(self.optimiser.param_groups[0]["lr"], dtype=torch.float64)
        return tensors | {
            "optimiser.lr": rate,
            "rng.epoch": self.epoch,
            "rng.now": self.generator.get_state(),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a saved state."""
        self.step = int(tensors["step"])
        parts = by_part(tensors)
        self.module.load_state_dict(parts["model"])
        rate = float(parts["optimiser"].pop("lr"))
        moments = {int(index): each for index, each in by_part(parts["optimiser"]).items()}
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.optimiser.param_groups[0]["lr"] = rate
        done = {"last_epoch": self.step, "_step_count": self.step + 1, "_last_lr": [rate]}
        self.decay.load_state_dict(self.decay.state_dict() | done)
        self.generator.set_state(tensors["rng.epoch"])
        self.shuffle()
        self.generator.set_state(tensors["rng.now"])

    def finished(self) -> FeatureNetwork:
        """The classifier, its features scaled to the variance of the spec."""
        self.module.eval().requires_grad_(False)
        variance = total_variance(features_in_parts(self.module, self.dataset.train))
        self.module.scale.fill_(float(np.sqrt(self.spec.variance / variance)))
        return self.module


def total_variance(parts: Iterable[Features]) -> float:
    """The variance of all rows of the parts (N_i, d), summed over columns; `distances.joined` has the rule."""
    n, mean, variance = 0, np.zeros(()), np.zeros(())
    for z in (each.astype(np.float64) for each in parts):
        m, own = len(z), z.mean(axis=0)
        if n:
            apart = own - mean
            both = n * variance + m * z.var(axis=0) + n * m / (n + m) * apart**2
            n, mean, variance = n + m, mean + apart * (m / (n + m)), both / (n + m)
        else:
            n, mean, variance = m, own, z.var(axis=0)
    return float(variance.sum())


def _block(channels: int, width: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


def _turns(shape: tuple[int, int, int]) -> int:
    return 4 if shape[0] == shape[1] else 2
