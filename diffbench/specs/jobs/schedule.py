"""The schedule stage: a process's noise over time, and where solvers and training evaluate it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from diffbench.specs.base import PositiveInt
from diffbench.specs.choices import AnyProcess
from diffbench.specs.jobs.asked import Asked
from diffbench.specs.jobs.data import StoredData
from diffbench.specs.jobs.stage import StageSpec
from diffbench.specs.objectives import AnyTimes
from diffbench.specs.solvers import AnySolver


class ScheduleSpec(StageSpec):
    """Compute the noise of a variant's process over time, and on the grids of its solvers.

    No model is trained for it.  ``times`` are those of training; an exact denoiser has none.
    """

    template: ClassVar[str] = "schedules/{variant}.json"

    stage: Literal["schedule"] = "schedule"
    version: PositiveInt = 1

    variant: str
    data: StoredData
    process: AnyProcess
    times: AnyTimes | None = None
    solvers: dict[str, AnySolver]

    @classmethod
    def wanted(cls, asked: Asked) -> Iterator[ScheduleSpec]:
        """One job for all seeds, of a variant with a process."""
        process, objective = asked.variant.process, asked.variant.objective
        if process is None or not (asked.benchmark.schedules and asked.first):
            return
        yield cls(
            variant=asked.name,
            data=asked.benchmark.data,
            process=process,
            times=None if objective is None else objective.times,
            # Of a solver with the weights of several steps (`id@500`) there is one grid.
            solvers={
                item.partition("@")[0]: each.plain
                for item, each in asked.solvers.items()
                if each is not None
            },
        )

    @property
    def tabled(self) -> bool:
        """True: a figure shows it."""
        return True

    @property
    def uses_gpu(self) -> bool:
        """False: it takes milliseconds."""
        return False
