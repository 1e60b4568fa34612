"""The score stage: FID and the like."""

from __future__ import annotations

from typing import ClassVar, Literal

from diffbench.specs.base import NonNegativeInt, PositiveInt
from diffbench.specs.floors import FloorSpec
from diffbench.specs.jobs.reference import ReferenceSpec
from diffbench.specs.jobs.sample import SampleSpec
from diffbench.specs.jobs.stage import RUN, StageSpec


class ScoreSpec(StageSpec):
    """Score all samples of one variant and seed, and real images in their place, against one reference."""

    template: ClassVar[str] = f"{RUN}/scores.json"
    partial: ClassVar[bool] = True
    tabled: ClassVar[bool] = True

    stage: Literal["score"] = "score"
    version: PositiveInt = 4

    variant: str
    seed: NonNegativeInt
    reference: ReferenceSpec
    floors: FloorSpec = FloorSpec()
    samples: dict[str, SampleSpec]

    @property
    def uses_gpu(self) -> bool:
        """As the reference."""
        return self.reference.uses_gpu
