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

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.data.grey_levels import GreyLevels, Images
from diffbench.metrics.extractor import Extractor, features_and_logits, spatial_features
from diffbench.metrics.validation import validate_extractor
from diffbench.specs.extractors import TrainedExtractorSpec
from diffbench.store.products import reading
from diffbench.store.progress import Step


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
    """Train the extractor on the training split; on the CPU the result depends only on spec and data set.

    Returns the module in evaluation mode, without gradients.
    """
    with _isolated(spec.seed, spec.threads):
        module = build_extractor(spec, dataset)
        images, labels = _task(dataset)
        _fit(module, spec, images, torch.from_numpy(labels))
        module.eval().requires_grad_(False)
        features, _ = features_and_logits(module, dataset.train)
        module.scale.fill_(float(np.sqrt(spec.variance / features.var(axis=0).sum())))
    return module


def _block(channels: int, width: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


def _fit(module: FeatureNetwork, spec: TrainedExtractorSpec, images: Images, y: Tensor) -> None:
    """Train with Adam and a cosine-decayed learning rate, ``epochs`` passes in random order.

    Images, uint8 (N, H, W, C), are put on [-1, 1] a batch at a time.
    """
    optimiser = torch.optim.Adam(module.parameters(), lr=spec.lr)
    batches = -(-len(images) // spec.batch)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, spec.epochs * batches)
    module.train()
    with Step("extractor: training", spec.epochs * batches, "step") as step:
        every = (torch.randperm(len(images)).tensor_split(batches) for _ in range(spec.epochs))
        for rows in step.over(chain.from_iterable(every)):
            x = module.grey.to_model(images[rows.numpy()])
            noisy = x + spec.noise * torch.randn_like(x)
            loss = nn.functional.cross_entropy(module.embed(noisy)[1], y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            decay.step()


def _task(dataset: Dataset) -> tuple[Images, NDArray[np.int64]]:
    """Return images and the labels to predict: the data set's classes, else by how much an image was turned."""
    if len(dataset.classes) > 1:
        return dataset.train, dataset.train_labels
    turns = _turns(dataset.shape)
    turned = [np.rot90(dataset.train, k * 4 // turns, axes=(1, 2)) for k in range(turns)]
    return np.concatenate(turned), np.repeat(np.arange(turns), len(dataset.train))


def _turns(shape: tuple[int, int, int]) -> int:
    return 4 if shape[0] == shape[1] else 2


@contextmanager
def _isolated(seed: int, threads: int) -> Iterator[None]:
    """Seed torch and fix its number of threads in the block, and restore both after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
