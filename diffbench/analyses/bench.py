"""What an analysis works with.

Its class is built from its spec, and the training spec of the variant that it is about, if it is about one;
``measure(bench)`` returns what goes into its JSON file, and a PNG or None.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from diffbench.data.datasets import Dataset
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.specs.jobs import TrainSpec
from diffbench.specs.sampling import Precision
from diffbench.store.state import StateStore
from diffbench.training import models


@dataclass(frozen=True)
class Bench:
    """The variant's data set, the device, where to keep what it has so far, the benchmark's results, the seed.

    An analysis that is not about the variant has no data set.  ``precision`` is that of the model's network.
    """

    data: Dataset | None
    device: torch.device
    state: StateStore
    root: Path
    seed: int = 0
    precision: Precision = "fp32"

    @property
    def dataset(self) -> Dataset:
        """The data set of an analysis that is about the variant."""
        assert self.data is not None
        return self.data

    def denoiser(self, train: TrainSpec) -> Denoiser:
        """The variant's trained model."""
        return models.load_denoiser(train, self.root, self.dataset, self.device, self.precision)
