"""The restore stage: inverse problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from diffbench.specs.base import Int, NonNegativeInt, PositiveInt
from diffbench.specs.floors import FloorSpec
from diffbench.specs.image_measures import AnyImageMeasure
from diffbench.specs.jobs.asked import Asked
from diffbench.specs.jobs.data import StoredData
from diffbench.specs.jobs.reference import ReferenceSpec
from diffbench.specs.jobs.stage import RUN
from diffbench.specs.jobs.train import AskingSpec
from diffbench.specs.restorers import AnyRestorer, TaskSpec
from diffbench.specs.weights import untold

#: The folder of one method's restorations of one task; no other job has a sidecar there.
RESTORED = f"{RUN}/restore/{{task}}/{{method}}"


class RestoreSpec(AskingSpec):
    """Restore the first test images of one task with one method.

    The first ``images`` images are restored ``draws`` times each.  A method without a model has no ``train``.
    ``measures``, further measures of the restorations, are left out of a spec that has none.
    """

    template: ClassVar[str] = f"{RESTORED}.json"
    #: The path of the first restorations.
    images_template: ClassVar[str] = f"{RESTORED}/images.npz"
    extras: ClassVar[tuple[str, ...]] = (f"{RESTORED}/strip.png",)
    numbers: ClassVar[str] = "restore"

    stage: Literal["restore"] = "restore"
    version: PositiveInt = 2

    variant: str
    seed: NonNegativeInt
    task_id: str
    method_id: str
    task: TaskSpec
    restorer: AnyRestorer
    images: PositiveInt
    draws: Annotated[Int, Field(ge=2)]
    chunk: PositiveInt = 500
    data: StoredData
    reference: ReferenceSpec
    floors: FloorSpec = FloorSpec()
    measures: tuple[AnyImageMeasure, ...] = Field(default=(), exclude_if=untold)

    @classmethod
    def wanted(cls, asked: Asked) -> Iterator[RestoreSpec]:
        """A job for each task and each method that can serve it."""
        restorations = asked.benchmark.restorations
        for task, method, restorer in asked.restored:
            yield cls(
                variant=asked.name,
                seed=asked.seed,
                task_id=task,
                method_id=method,
                task=restorations.tasks[task],
                restorer=restorer,
                images=restorations.images,
                draws=restorations.draws,
                chunk=asked.benchmark.chunk,
                data=asked.benchmark.data,
                reference=asked.reference,
                floors=asked.benchmark.floors,
                measures=restorations.measures,
                train=asked.train if restorer.uses_model else None,
                precision=asked.precision(restorer.inner),
            )

    @property
    def templates(self) -> tuple[str, ...]:
        """The paths of the scores and of the first restorations."""
        return self.template, self.images_template

    @property
    def threads(self) -> int:
        """The number of threads of the model's training; 1 without a model."""
        return self.train.threads if self.train else 1
