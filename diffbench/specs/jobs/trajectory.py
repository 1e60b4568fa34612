"""The trajectory stage: states on the way from noise to image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from diffbench.specs.base import Int, PositiveInt
from diffbench.specs.jobs.asked import Asked
from diffbench.specs.jobs.sample import PartSpec, SampleSpec
from diffbench.specs.jobs.stage import RUN, StageSpec


class TrajectorySpec(PartSpec):
    """Draw a solver's first samples again, and keep states on their way."""

    template: ClassVar[str] = f"{RUN}/trajectories/{{solver}}/states.npz"

    stage: Literal["trajectory"] = "trajectory"
    version: PositiveInt = 2

    images: PositiveInt
    states: Annotated[Int, Field(ge=2)]

    @classmethod
    def wanted(cls, asked: Asked) -> Iterator[TrajectorySpec]:
        """A job for the solver that the benchmark's ``trajectory`` chooses, of the variant's first seed."""
        settings = asked.benchmark.trajectory
        if settings is None or not asked.first or asked.train is None:
            return
        made = [each for each in asked.made["sample"] if isinstance(each, SampleSpec)]
        chosen = settings.chosen(asked.name, [each.solver_id for each in made])
        for sample in made:
            if sample.solver_id == chosen:
                yield cls(sample=sample, images=settings.images, states=settings.states)

    @property
    def upstream(self) -> tuple[StageSpec, ...]:
        """The samples, with which the images are compared, and what they are made from."""
        return (*self.sample.upstream, self.sample)

    @property
    def drawn(self) -> SampleSpec:
        """The samples' first chunk as a job of its own; its images are the samples' first ones."""
        count = min(self.sample.chunk, self.sample.samples)
        return self.sample.model_copy(update={"samples": count})

    @property
    def tabled(self) -> bool:
        """True: a figure shows the states."""
        return True
