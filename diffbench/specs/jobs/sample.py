"""The sample stage: images, drawn by one job or by several shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from diffbench.specs.base import NonNegativeInt, PositiveInt
from diffbench.specs.choices import AnyControl
from diffbench.specs.jobs.asked import Asked
from diffbench.specs.jobs.classifier import ClassifierSpec
from diffbench.specs.jobs.data import StoredData
from diffbench.specs.jobs.stage import RUN, StageSpec
from diffbench.specs.jobs.train import AskingSpec
from diffbench.specs.solvers import AnySolver
from diffbench.specs.weights import OfWeights

#: The folder of one solver's samples.
SAMPLES = f"{RUN}/samples/{{solver}}"


class SampleSpec(AskingSpec):
    """Draw samples with one solver, or gather those of its shards.

    ``samples`` images are drawn in chunks of ``chunk``, by a solver from a model, or by a control.
    """

    template: ClassVar[str] = f"{SAMPLES}/samples.npz"
    extras: ClassVar[tuple[str, ...]] = (f"{SAMPLES}/grid.png",)
    spread: ClassVar[bool] = True
    numbers: ClassVar[str] = "score"

    stage: Literal["sample"] = "sample"
    version: PositiveInt = 4

    variant: str
    seed: NonNegativeInt
    solver_id: str
    samples: PositiveInt
    chunk: PositiveInt = 500
    data: StoredData
    classifier: ClassifierSpec | None = None
    solver: AnySolver | None = None
    control: AnyControl | None = None

    @classmethod
    def wanted(cls, asked: Asked) -> Iterator[SampleSpec]:
        """A job for each solver; one job for a control."""
        for item, solver in asked.solvers.items():
            yield cls(
                variant=asked.name,
                seed=asked.seed,
                solver_id=item,
                samples=asked.benchmark.samples,
                chunk=asked.benchmark.chunk,
                data=asked.benchmark.data,
                train=asked.train,
                classifier=asked.classifier(solver),
                solver=solver,
                control=asked.variant.control,
                precision=asked.precision(solver),
            )

    @property
    def choice(self) -> OfWeights | None:
        return self.solver

    @property
    def sources(self) -> tuple[str, ...]:
        """What a control's images are read from."""
        return () if self.control is None else self.control.sources

    def parts(self, count: int) -> tuple[ShardSpec, ...]:
        """The ``count`` shards of a solver's samples; none for a control, or where ``count`` is 1."""
        if self.solver is None or count == 1:
            return ()
        return tuple(ShardSpec.every(self, count))


class PartSpec(StageSpec):
    """Base of jobs that draw some of the images of a sample job, from what that job is made from."""

    sample: SampleSpec

    @property
    def variant(self) -> str:
        """The variant of the samples."""
        return self.sample.variant

    @property
    def seed(self) -> int:
        """The seed of the samples."""
        return self.sample.seed

    @property
    def solver_id(self) -> str:
        """The solver of the samples."""
        return self.sample.solver_id

    @property
    def upstream(self) -> tuple[StageSpec, ...]:
        """The jobs that the samples are made from."""
        return self.sample.upstream


class ShardSpec(PartSpec):
    """Draw one part of the samples of one solver.

    A part is some of the chunks.  The samples' spec does not have the number of parts, because the images do not
    depend on it: each chunk has its own random stream.
    """

    template: ClassVar[str] = f"{SAMPLES}/{{shard}}/chunks.npz"
    temporary: ClassVar[bool] = True

    stage: Literal["shard"] = "shard"
    version: PositiveInt = 1

    shard: PositiveInt
    shards: PositiveInt

    @classmethod
    def every(cls, sample: SampleSpec, count: int) -> list[ShardSpec]:
        """All ``count`` shards of a sample job, in order."""
        return [
            cls(sample=sample, shard=shard, shards=count, extensions=sample.extensions)
            for shard in range(1, count + 1)
        ]

    @property
    def shard_id(self) -> str:
        """The shard's name: ``2of3``."""
        return f"{self.shard}of{self.shards}"

    @property
    def state(self) -> Path:
        """The folder of the shard's state, inside that of the samples' state."""
        return self.sample.state / self.shard_id
