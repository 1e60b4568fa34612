"""The data stage: a benchmark's data set in grey levels."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from diffbench.specs.base import PositiveInt
from diffbench.specs.choices import AnyData
from diffbench.specs.jobs.stage import StageSpec

#: The data set of a job that reads the data stage's product: without the paths that the data stage reads.
StoredData = Annotated[AnyData, AfterValidator(lambda data: data.unplaced)]


class DataStageSpec(StageSpec):
    """Read the data set and store its grey levels."""

    template: ClassVar[str] = "data/levels.npz"
    extras: ClassVar[tuple[str, ...]] = ("data/manifest.json",)

    stage: Literal["data"] = "data"
    version: PositiveInt = 4

    data: AnyData

    @property
    def reads_data(self) -> bool:
        """False: this stage stores the data."""
        return False

    @property
    def sources(self) -> tuple[str, ...]:
        """The files and folders that the images are read from."""
        return tuple(self.data.paths.values())

    @property
    def uses_gpu(self) -> bool:
        """False: nothing is computed."""
        return False
