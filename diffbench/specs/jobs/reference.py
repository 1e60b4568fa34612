"""The reference stage: statistics of the real images, which samples are compared with."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from diffbench.specs.base import PositiveInt
from diffbench.specs.choices import AnyExtractor
from diffbench.specs.jobs.data import StoredData
from diffbench.specs.jobs.stage import StageSpec

#: The numbers (pixels, in each channel) of the training images above which distances and the classifier use a GPU.
#: Below it a GPU would take longer to start than a CPU to end; and the digits have the same scores on every machine.
LARGE = 2**24


class ReferenceSpec(StageSpec):
    """Measure the data set with the feature extractor.

    The extractor is trained and validated here, or it is a published one.

    library: the library that computes distances, and its version.
    conversion: how the extractor converts grey levels.
    split: the split whose statistics samples are compared with.
    neighbours: the largest number of images of each split whose features are kept.  KID, precision and recall use
        those of the training images, floors those of both splits.
    """

    template: ClassVar[str] = "data/reference/statistics.npz"
    priority: ClassVar[int] = 2
    #: The path of the extractor's weights, where it is trained on the data set.
    weights: ClassVar[str] = "data/extractor/model.safetensors"

    stage: Literal["reference"] = "reference"
    version: PositiveInt = 2

    data: StoredData
    extractor: AnyExtractor
    library: str
    conversion: str
    split: Literal["train"] = "train"
    neighbours: PositiveInt = 50_000

    @property
    def templates(self) -> tuple[str, ...]:
        """The paths of the statistics, and of the weights of an extractor that is trained here."""
        return (self.template, *([self.weights] if self.extractor.stored else []))

    @property
    def uses_gpu(self) -> bool:
        """Whether the extractor or the training split is large; one whose size is not known yet is taken to be."""
        shape, images = self.data.known_shape, self.data.known_counts.get("train")
        if self.extractor.heavy or shape is None or images is None:
            return True
        return images * math.prod(shape) > LARGE
