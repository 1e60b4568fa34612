"""Specs of the jobs: everything a stage needs to know, and all that its product depends on.

A job's spec holds the specs of what it builds on (a sample's holds its training run's), so that one
comparison tells whether a product is what the plan now asks for.  ``version`` is raised when the stage's
numerics change.  Device, paths and threads of the machine are in no spec.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny

from diffbench.specs.analyses import AnalysisSpec
from diffbench.specs.base import Int, NonNegativeInt, PositiveInt, Spec
from diffbench.specs.controls import ControlSpec
from diffbench.specs.data import DataSpec
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.extractors import ExtractorSpec
from diffbench.specs.floors import FloorSpec
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.networks import ClassifierNetworkSpec, NetworkSpec
from diffbench.specs.objectives import AnyTimes, ObjectiveSpec
from diffbench.specs.pretrained import PretrainedSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.restorers import AnyRestorer, TaskSpec
from diffbench.specs.sampling import Precision
from diffbench.specs.solvers import AnySolver
from diffbench.specs.training import TrainingSpec
from diffbench.specs.weights import OfWeights

AnyAnalysis = Annotated[SerializeAsAny[AnalysisSpec], BeforeValidator(AnalysisSpec.choose)]
AnyClassifierNetwork = Annotated[
    SerializeAsAny[ClassifierNetworkSpec], BeforeValidator(ClassifierNetworkSpec.choose)
]
AnyControl = Annotated[SerializeAsAny[ControlSpec], BeforeValidator(ControlSpec.choose)]
AnyData = Annotated[SerializeAsAny[DataSpec], BeforeValidator(DataSpec.choose)]
#: Of jobs that read what the data stage stored: where it was read from is none of their business.
StoredData = Annotated[AnyData, AfterValidator(lambda data: data.unplaced)]
AnyDenoiser = Annotated[SerializeAsAny[DenoiserSpec], BeforeValidator(DenoiserSpec.choose)]
AnyExtractor = Annotated[SerializeAsAny[ExtractorSpec], BeforeValidator(ExtractorSpec.choose)]
AnyLikelihood = Annotated[SerializeAsAny[LikelihoodSpec], BeforeValidator(LikelihoodSpec.choose)]
AnyNetwork = Annotated[SerializeAsAny[NetworkSpec], BeforeValidator(NetworkSpec.choose)]
AnyObjective = Annotated[SerializeAsAny[ObjectiveSpec], BeforeValidator(ObjectiveSpec.choose)]
AnyProcess = Annotated[SerializeAsAny[ProcessSpec], BeforeValidator(ProcessSpec.choose)]


class StageSpec(Spec):
    """What all jobs have: their stage, its version, and the contents of the extensions they use."""

    stage: str
    version: PositiveInt
    extensions: dict[str, str] = {}


class Model(Protocol):
    """What has weights: a variant, or its training run."""

    @property
    def training(self) -> TrainingSpec | None: ...
    @property
    def pretrained(self) -> PretrainedSpec | None: ...
    @property
    def denoiser(self) -> DenoiserSpec | None: ...


def weights_refusal(model: Model, choice: OfWeights) -> str | None:
    """Return why a model keeps no weights that a solver or likelihood names; None when it keeps them."""
    if not choice.names_weights:
        return None
    if model.training is not None:
        return model.training.weights_refusal(choice)
    key = "ema_std" if choice.at is None else "at"
    if model.pretrained is not None:
        return f"{key}: an imported model has the weights of its checkpoint alone"
    assert model.denoiser is not None
    return f"{key}: the {model.denoiser.name} denoiser is exact and is not trained"


class DataStageSpec(StageSpec):
    """Read the data set, store its levels."""

    stage: Literal["data"] = "data"
    version: PositiveInt = 4

    data: AnyData


class ReferenceSpec(StageSpec):
    """Measure the data set with the extractor, trained and validated here or published: what scores start from.

    library: what computes distances, and its version.
    conversion: what the extractor makes of the grey levels.
    split: whose statistics samples are measured against.
    neighbours: images of each split, at most, whose features are kept: KID, precision and recall compare with the
        training images', and floors are of both.
    """

    stage: Literal["reference"] = "reference"
    version: PositiveInt = 2

    data: StoredData
    extractor: AnyExtractor
    library: str
    conversion: str
    split: Literal["train"] = "train"
    neighbours: PositiveInt = 50_000


class TrainSpec(StageSpec):
    """Train one variant; an exact denoiser (no network, objective or budget) is fitted, imported weights are taken."""

    stage: Literal["train"] = "train"
    version: PositiveInt = 4

    variant: str
    seed: NonNegativeInt
    data: StoredData
    dequantise: Literal["none", "uniform"] = "none"
    process: AnyProcess
    denoiser: AnyDenoiser
    network: AnyNetwork | None = None
    objective: AnyObjective | None = None
    training: TrainingSpec | None = None
    pretrained: PretrainedSpec | None = None

    @property
    def running(self) -> TrainingSpec | PretrainedSpec | None:
        """What says how the network is run: its precision, its threads; None for an exact denoiser."""
        return self.training or self.pretrained


class ClassifierSpec(StageSpec):
    """Train a classifier of the noisy images of one process, for guidance.

    One serves all variants of the benchmark with that process, dequantisation and seed.
    """

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
        """The name of what it is trained on: the process, and a hash of its parameters."""
        parts = (self.process.canonical(), self.dequantise)
        digest = hashlib.sha256("/".join(parts).encode()).hexdigest()
        return f"{self.process.name}-{digest[:8]}"


class AskingSpec(StageSpec):
    """What asks a trained network, and the precision in which it does; some do without one."""

    train: TrainSpec | None = None
    precision: Precision = "fp32"

    @property
    def asked_in(self) -> str:
        """The network's precision; empty where there is none."""
        return "" if self.train is None or self.train.network is None else self.precision


class SampleSpec(AskingSpec):
    """Draw ``samples`` images in chunks of ``chunk``: with a solver from a model, or as a control."""

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


class ShardSpec(StageSpec):
    """Draw one part of the chunks of a sample job that has a solver.

    How many parts there are is no part of the samples' spec: each chunk has a random stream of its own.
    """

    stage: Literal["shard"] = "shard"
    version: PositiveInt = 1

    sample: SampleSpec
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
    def part(self) -> str:
        """The shard's name: ``2of3``."""
        return f"{self.shard}of{self.shards}"

    @property
    def variant(self) -> str:
        """That of the samples."""
        return self.sample.variant

    @property
    def seed(self) -> int:
        """That of the samples."""
        return self.sample.seed


class ScoreSpec(StageSpec):
    """Score all samples of one variant and seed against one reference, and real images in their place."""

    stage: Literal["score"] = "score"
    version: PositiveInt = 4

    variant: str
    seed: NonNegativeInt
    reference: ReferenceSpec
    floors: FloorSpec = FloorSpec()
    samples: dict[str, SampleSpec]


class LikelihoodStageSpec(AskingSpec):
    """Evaluate one kind of likelihood of a trained model."""

    stage: Literal["likelihood"] = "likelihood"
    version: PositiveInt = 4

    variant: str
    seed: NonNegativeInt
    kind_id: str
    likelihood: AnyLikelihood
    train: TrainSpec


class RestoreSpec(AskingSpec):
    """Restore the first ``images`` test images of one task with one method, ``draws`` times each.

    A method without a model has no ``train``.
    """

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


class AnalysisStageSpec(AskingSpec):
    """Carry out one analysis of a variant, as ``train`` describes it, or of its trained model.

    An analysis that brings all it needs has no ``train``.
    """

    stage: Literal["analysis"] = "analysis"
    version: PositiveInt = 2

    variant: str
    seed: NonNegativeInt
    analysis_id: str
    analysis: AnyAnalysis


#: The stages, each before those that build on it.
STAGES: dict[str, type[StageSpec]] = {
    "data": DataStageSpec,
    "reference": ReferenceSpec,
    "train": TrainSpec,
    "classifier": ClassifierSpec,
    "shard": ShardSpec,
    "sample": SampleSpec,
    "score": ScoreSpec,
    "likelihood": LikelihoodStageSpec,
    "restore": RestoreSpec,
    "analysis": AnalysisStageSpec,
}
