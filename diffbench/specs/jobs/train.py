"""The train stage, which makes a variant's model, and the base of all jobs that run a model."""

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
    """A variant or its training, which says where the weights of a model come from."""

    @property
    def training(self) -> TrainingSpec | None: ...
    @property
    def pretrained(self) -> PretrainedSpec | None: ...
    @property
    def denoiser(self) -> DenoiserSpec | None: ...


def weights_refusal(model: Model, choice: OfWeights) -> str | None:
    """Return why a model does not keep the weights that a solver or likelihood names; None when it does."""
    if not choice.names_weights:
        return None
    if model.training is not None:
        return model.training.weights_refusal(choice)
    key = "ema_std" if choice.at is None else "at"
    if model.pretrained is not None:
        return f"{key}: an imported model has only the weights of its checkpoint"
    assert model.denoiser is not None
    return f"{key}: the {model.denoiser.name} denoiser is exact and is not trained"


class TrainSpec(StageSpec):
    """Train one variant, or continue where a training was stopped.

    An exact denoiser has no network, objective or budget, and is fitted; imported weights are taken as they are.
    """

    template: ClassVar[str] = f"{RUN}/model.safetensors"
    shared: ClassVar[bool] = True
    resumes: ClassVar[bool] = True
    priority: ClassVar[int] = 2

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
        """The training budget or the imported weights, which say how the network is run; None for an exact denoiser."""
        return self.training or self.pretrained

    @property
    def templates(self) -> tuple[str, ...]:
        """The paths of all weights that are kept, the model's own first."""
        if self.training is None:
            return (self.template,)
        return tuple(map(self.weights_template, self.training.kept))

    def weights_template(self, wanted: Weights) -> str:
        """The path of weights that are kept; each other step and each other length of an average has its own folder."""
        assert self.training is not None
        own = self.training.kept[0]
        if wanted == own:
            return self.template
        length = "" if wanted.length == own.length else f"/std{wanted.length:g}"
        return f"{RUN}/snapshots/{wanted.step}{length}/model.safetensors"

    @property
    def divided(self) -> bool:
        """Whether the model is trained here."""
        return self.training is not None

    @property
    def rule(self) -> str:
        """``train`` where the model is the only product, ``train_along`` where other weights are kept too."""
        return "train" if len(self.templates) == 1 else "train_along"

    @property
    def threads(self) -> int:
        """The number of threads of the budget or of the imported model; 1 for an exact denoiser."""
        return self.running.threads if self.running else 1


class AskingSpec(StageSpec):
    """A job that runs a trained network in some precision; a job of a control or an exact method has no network."""

    train: TrainSpec | None = None
    precision: Precision = "fp32"

    @property
    def asked_in(self) -> str:
        """The precision in which the network is run; empty where there is no network."""
        return "" if self.train is None or self.train.network is None else self.precision
