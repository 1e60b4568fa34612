"""The score stage: FID and other scores of samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from diffbench.specs.base import NonNegativeInt, PositiveInt
from diffbench.specs.choices import AnyMeasure
from diffbench.specs.floors import FloorSpec
from diffbench.specs.jobs.asked import Asked
from diffbench.specs.jobs.reference import ReferenceSpec
from diffbench.specs.jobs.sample import SampleSpec
from diffbench.specs.jobs.stage import RUN, StageSpec
from diffbench.specs.weights import untold


class ScoreSpec(StageSpec):
    """Score all samples of one variant and seed, and real images in their place, against one reference.

    measures: measures besides those that all samples get; those that are opinions are among the reference's.
    """

    template: ClassVar[str] = f"{RUN}/scores.json"
    partial: ClassVar[bool] = True

    stage: Literal["score"] = "score"
    version: PositiveInt = 4

    variant: str
    seed: NonNegativeInt
    reference: ReferenceSpec
    floors: FloorSpec = FloorSpec()
    measures: tuple[AnyMeasure, ...] = Field(default=(), exclude_if=untold)
    samples: dict[str, SampleSpec]

    @classmethod
    def wanted(cls, asked: Asked) -> Iterator[ScoreSpec]:
        """One job, which scores all samples of the variant and seed."""
        made = [each for each in asked.made["sample"] if isinstance(each, SampleSpec)]
        if made:
            yield cls(
                variant=asked.name,
                seed=asked.seed,
                reference=asked.reference,
                floors=asked.benchmark.floors,
                measures=tuple(each for each in asked.benchmark.measures if not each.opinion),
                samples={each.solver_id: each for each in made},
            )

    @property
    def uses_gpu(self) -> bool:
        """Whether the reference uses a GPU."""
        return self.reference.uses_gpu
