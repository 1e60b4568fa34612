"""The train stage: a variant's model, and what all jobs that ask one have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Protocol

from diffbench.specs.base import NonNegativeInt, PositiveInt
from diffbench.specs.choices import AnyDenoiser, AnyNetwork, AnyObjective, AnyProcess
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.jobs.asked import Asked
from diffbench.specs.jobs.data import StoredData
from diffbench.specs.jobs.stage import RUN, StageSpec
from diffbench.specs.pretrained import PretrainedSpec
from diffbench.specs.sampling import Precision
from diffbench.specs.training import TrainingSpec
from diffbench.specs.weights import OfWeights, Weights


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


class TrainSpec(StageSpec):
    """Train one variant, going on where it was stopped.

    An exact denoiser, which has no network, objective or budget, is fitted; imported weights are taken as they are.
    """

    template: ClassVar[str] = f"{RUN}/model.safetensors"
    shared: ClassVar[bool] = True

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

    @classmethod
    def wanted(cls, asked: Asked) -> Iterator[TrainSpec]:
        """One training, where the variant has a model."""
        variant = asked.variant
        if variant.process is not None:
            yield cls(
                variant=asked.name,
                seed=asked.seed,
                data=asked.benchmark.data,
                dequantise=variant.dequantise,
                process=variant.process,
                denoiser=variant.denoiser,
                network=variant.network,
                objective=variant.objective,
                training=variant.training,
                pretrained=variant.pretrained,
            )

    @property
    def running(self) -> TrainingSpec | PretrainedSpec | None:
        """What says how the network is run: its precision, its threads; None for an exact denoiser."""
        return self.training or self.pretrained

    @property
    def templates(self) -> tuple[str, ...]:
        """The paths of all weights that are kept, the model's own first."""
        if self.training is None:
            return (self.template,)
        return tuple(map(self.weights_template, self.training.kept))

    def weights_template(self, wanted: Weights) -> str:
        """The path of weights that are kept: other steps and lengths of averages have folders of their own."""
        assert self.training is not None
        own = self.training.kept[0]
        if wanted == own:
            return self.template
        length = "" if wanted.length == own.length else f"/std{wanted.length:g}"
        return f"{RUN}/snapshots/{wanted.step}{length}/model.safetensors"

    @property
    def divided(self) -> bool:
        """Only where the model is trained."""
        return self.training is not None

    @property
    def rule(self) -> str:
        """Rules differ by their outputs: one is for models alone, another for those with weights of other steps."""
        return "train" if len(self.templates) == 1 else "train_along"

    @property
    def threads(self) -> int:
        """As many as the budget says, or the imported model."""
        return self.running.threads if self.running else 1


class AskingSpec(StageSpec):
    """What asks a trained network, and the precision in which it does; some do without one."""

    train: TrainSpec | None = None
    precision: Precision = "fp32"

    @property
    def asked_in(self) -> str:
        """The network's precision; empty where there is none."""
        return "" if self.train is None or self.train.network is None else self.precision
