"""The reference stage: what scores start from."""

from __future__ import annotations

from typing import ClassVar, Literal

from diffbench.specs.base import PositiveInt
from diffbench.specs.choices import AnyExtractor
from diffbench.specs.jobs.data import StoredData
from diffbench.specs.jobs.stage import StageSpec


class ReferenceSpec(StageSpec):
    """Measure the data set with the feature extractor.

    It is trained and validated here, or published.

    library: what computes distances, and its version.
    conversion: what the extractor makes of the grey levels.
    split: whose statistics samples are measured against.
    neighbours: images of each split, at most, whose features are kept: KID, precision and recall compare with the
        training images', and floors are of both.
    """

    template: ClassVar[str] = "data/reference/statistics.npz"
    #: Where the extractor is trained on the data set.
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
        """The statistics, and the weights of an extractor that is trained here."""
        return (self.template, *([self.weights] if self.extractor.stored else []))

    @property
    def uses_gpu(self) -> bool:
        """Only where the extractor is large."""
        return self.extractor.heavy
