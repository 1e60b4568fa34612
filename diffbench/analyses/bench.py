"""The inputs of an analysis.

An analysis' class is built from its spec, and from the training spec of its variant, if it is about one;
``measure(bench)`` returns the content of its JSON file, and a PNG or None; ``cost(timings)`` the expected cost.
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
    """The variant's data set, the device, the state folder, the benchmark's results, and the seed of an analysis.

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
        """Return the variant's trained model."""
        return models.load_denoiser(train, self.root, self.dataset, self.device, self.precision)
