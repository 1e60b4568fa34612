"""What every feature extractor is, and how features are computed.

An extractor is a module from images, uint8 (B, C, H, W), to the pair (features (B, d), logits (B, K)).  A registered
`Extractor` says how one kind of extractor is made: trained on the data set, or published with its weights.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.data.grey_levels import Images
from diffbench.diffusion.core.returned import check_rows, described
from diffbench.metrics.batch import Batch
from diffbench.store.progress import Step

#: Features (N, d), or logits, in the precision of their network: as a rule float32.
Features = NDArray[np.floating[Any]]
#: The number of images whose features are in memory at a time where not all are kept.
PART = 10_000
#: The channels of a convolution that sFID compares, and the largest number of features that these make.
CHANNELS, WIDEST = 7, 2048


class ExtractorTraining(ABC):
    """The training of an extractor, which can be stopped after any step and goes on from its state.

    Attributes:
        name: its name in messages.
        title: the title of its progress.
        step: the number of steps done.
        steps: the number of all steps.
        batch: the largest number of images of a step.
        threads: CPU threads that it is meant for.
        device: where it is trained.
        parts: the names with which the tensors of a state begin.
    """

    name: str = "extractor"
    title: str = "extractor: training"
    step: int
    steps: int
    batch: int
    threads: int = 1
    device: torch.device
    parts: tuple[str, ...] = ("model", "optimiser", "rng")

    @abstractmethod
    def advance(self) -> Tensor:
        """Take a step; return its loss, a scalar on the device."""

    def sound(self, loss: Tensor) -> bool:
        """Whether the loss is finite."""
        return bool(loss.isfinite())

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, but for the number of steps done."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a saved state, which has the number of ``step``s too."""

    @abstractmethod
    def finished(self) -> nn.Module:
        """The extractor after the last step, in evaluation mode and without gradients."""


class Extractor(ABC):
    """How one kind of extractor is made; its modules are in evaluation mode and without gradients."""

    @abstractmethod
    def make(self, dataset: Dataset) -> nn.Module:
        """The extractor of a data set, trained or downloaded.

        Raises:
            StoreError: when its weights are published and there is no complete copy of them.
        """

    def training(self, dataset: Dataset, device: torch.device) -> ExtractorTraining | None:
        """The training that makes the extractor, step by step; None where it is not trained here."""
        return None

    def untrained(self, dataset: Dataset) -> nn.Module | None:
        """The network with any weights, to be timed; None where it cannot be built without its own."""
        return None

    def load(self, dataset: Dataset, weights: Path | None) -> nn.Module:
        """The extractor as it was made: from its stored weights, or made again where the spec stores none."""
        return self.make(dataset)

    def validate(self, module: nn.Module, dataset: Dataset) -> dict[str, float]:
        """Numbers that say whether the extractor can be used for measurements.

        Raises:
            ValueError: when it cannot.
        """
        return {}

    def opinions(self, module: nn.Module) -> Mapping[str, nn.Module]:
        """Further extractors with an FID of their own: metric -> extractor."""
        return {}

    def reference(self, dataset: Dataset) -> Batch | None:
        """A published reference to compare with, in place of the training images.

        Raises:
            StoreError: when there is no complete copy of it.
            ValueError: when it is of other features or images.
        """
        return None

    def sha256(self, module: nn.Module) -> str:
        """SHA-256 that identifies the extractor's weights."""
        return weights_sha256(module)


def spatial_features(maps: Tensor) -> Tensor:
    """The features (B, H W K) of sFID: the first K channels of a convolution's output (B, C, H, W), pixel by pixel.

    K is 7, so that a 17 x 17 map has 2,023 features, about as many as FID (Nash, Menick, Dieleman, Battaglia,
    "Generating Images with Sparse Representations", 2021, https://arxiv.org/abs/2103.03841); fewer where there
    would be more than 2,048.
    """
    kept = max(1, min(CHANNELS, WIDEST // (maps.shape[2] * maps.shape[3])))
    return maps[:, :kept].permute(0, 2, 3, 1).flatten(1)


def features_and_logits(
    module: nn.Module,
    images: Images,
    batch: int | None = None,
    seen: Callable[[int], None] | None = None,
) -> tuple[Features, Features]:
    """Features (N, d) and logits (N, classes), in the extractor's precision, of images, uint8 (N, H, W, C).

    ``batch``: images in a forward pass; the module's own ``batch`` by default, else 1,000.
    ``seen``: called with the number of images of each pass; by default a progress of these images is shown.

    Raises:
        ValueError: when the images are not uint8 of four dimensions, or an output is not floats (B, any) or not finite.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise ValueError(f"images must be uint8 (N, H, W, C), not {images.dtype} {images.shape}")
    if seen is None:
        with Step("features", len(images), "image") as step:
            return features_and_logits(module, images, batch, step.advance)
    device, size = next(module.parameters()).device, batch or batch_of(module)
    found: tuple[Features, Features] | None = None
    for start in range(0, len(images), size):
        rows = slice(start, min(start + size, len(images)))
        # A batch is copied at a time: the images may be mapped into memory, and more than fit into it.
        x = torch.from_numpy(np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2)))
        with torch.no_grad():
            pair = [each.cpu().numpy() for each in _pair(module, x.to(device))]
        if found is None:
            features, logits = (np.empty((len(images), each.shape[1]), each.dtype) for each in pair)
            found = features, logits
        for whole, each in zip(found, pair, strict=True):
            if not np.isfinite(each).all():
                raise ValueError("the extractor returned NaN or infinite features")
            whole[rows] = each
        seen(len(x))
    assert found is not None
    return found


def batch_of(module: nn.Module) -> int:
    """How many images an extractor takes at a time: its own choice, else 1,000."""
    return int(getattr(module, "batch", 1000))


def features_in_parts(
    module: nn.Module,
    images: Images,
    part: int = PART,
    batch: int | None = None,
    seen: Callable[[int], None] | None = None,
) -> Iterator[Features]:
    """Features (at most ``part``, d) of images, uint8 (N, H, W, C), part by part; all else as `features_and_logits`."""
    for start in range(0, len(images), part):
        yield features_and_logits(module, images[start : start + part], batch, seen)[0]


def _pair(module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The features (B, d) and logits (B, K) of a batch, once they are seen to be such."""
    found, name = module(images), type(module).__name__
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise ValueError(f"{name} returned {described(found)}; expected: features and logits")
    for part in found:
        check_rows(part, (len(images), -1), name)
    # Logits may be none: some networks know no classes.
    if not found[0].shape[1]:
        raise ValueError(f"{name} returned no features: {described(found[0])}")
    return found[0], found[1]


def byte_levels(grey_levels: int) -> Tensor:
    """The grey levels 0..L-1 on the scale 0..255, rounded to whole numbers: float32 (L,)."""
    table = torch.arange(grey_levels, dtype=torch.float64) * 255 / (grey_levels - 1)
    return (table + 0.5).floor().float()


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
