"""The likelihood stage: bits per dimension."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from diffbench.specs.base import NonNegativeInt, PositiveInt
from diffbench.specs.choices import AnyLikelihood
from diffbench.specs.jobs.asked import Asked
from diffbench.specs.jobs.stage import RUN
from diffbench.specs.jobs.train import AskingSpec, TrainSpec
from diffbench.specs.weights import OfWeights


class LikelihoodStageSpec(AskingSpec):
    """Evaluate one kind of likelihood of a trained model."""

    template: ClassVar[str] = f"{RUN}/likelihood/{{kind}}.json"
    numbers: ClassVar[str] = "likelihood"
    priority: ClassVar[int] = 1

    stage: Literal["likelihood"] = "likelihood"
    version: PositiveInt = 4

    variant: str
    seed: NonNegativeInt
    kind_id: str
    likelihood: AnyLikelihood
    train: TrainSpec

    @classmethod
    def wanted(cls, asked: Asked) -> Iterator[LikelihoodStageSpec]:
        """A job for each likelihood."""
        for item, likelihood in asked.likelihoods.items():
            yield cls(
                variant=asked.name,
                seed=asked.seed,
                kind_id=item,
                likelihood=likelihood,
                train=asked.train,
                precision=asked.precision(likelihood),
            )

    @property
    def choice(self) -> OfWeights | None:
        return self.likelihood
