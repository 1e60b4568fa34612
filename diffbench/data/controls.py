"""Controls: rows of the table that no model made.

The training split shows what a perfect copy scores, the test split what a perfect model scores at best,
noise what every model must beat.
"""

from __future__ import annotations

import numpy as np

from diffbench.data.datasets import Dataset
from diffbench.data.grey_levels import Images
from diffbench.specs.controls import NoiseControlSpec, SplitControlSpec


class SplitControl:
    """Images of one split of the data set."""

    def __init__(self, spec: SplitControlSpec) -> None:
        self.split = spec.split

    def draw(self, dataset: Dataset, samples: int, generator: np.random.Generator) -> Images:
        """Return all images of the split when there are no more than ``samples``, else that many at random."""
        images: Images = getattr(dataset, self.split)
        return images if len(images) <= samples else generator.permutation(images)[:samples]


class NoiseControl:
    """Images of uniform noise."""

    def __init__(self, spec: NoiseControlSpec) -> None:
        self.spec = spec

    def draw(self, dataset: Dataset, samples: int, generator: np.random.Generator) -> Images:
        """Return images whose pixels are uniform over the grey levels."""
        return generator.integers(0, dataset.levels, (samples, *dataset.shape), dtype=np.uint8)
