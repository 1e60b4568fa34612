"""The classifier stage: classifiers that guide samplers."""

from __future__ import annotations

import hashlib
from typing import ClassVar, Literal

from diffbench.specs.base import NonNegativeInt, PositiveInt
from diffbench.specs.choices import AnyClassifierNetwork, AnyProcess
from diffbench.specs.jobs.data import StoredData
from diffbench.specs.jobs.stage import StageSpec
from diffbench.specs.objectives import AnyTimes
from diffbench.specs.training import TrainingSpec


class ClassifierSpec(StageSpec):
    """Train a classifier of noisy images, for guidance.

    One classifier serves all variants of the benchmark with the same process, dequantisation and seed.
    """

    template: ClassVar[str] = "classifier/{variant}/seed{seed}/model.safetensors"
    shared: ClassVar[bool] = True
    resumes: ClassVar[bool] = True
    priority: ClassVar[int] = 2

    stage: Literal["classifier"] = "classifier"
    version: PositiveInt = 1

    seed: NonNegativeInt
    data: StoredData
    dequantise: Literal["none", "uniform"] = "none"
    process: AnyProcess
    network: AnyClassifierNetwork
    times: AnyTimes
    training: TrainingSpec

    @property
    def variant(self) -> str:
        """The process's name, and a hash of its parameters and of the dequantisation."""
        parts = (self.process.canonical(), self.dequantise)
        digest = hashlib.sha256("/".join(parts).encode()).hexdigest()
        return f"{self.process.name}-{digest[:8]}"

    @property
    def threads(self) -> int:
        return self.training.threads
