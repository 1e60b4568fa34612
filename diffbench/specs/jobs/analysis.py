"""The analysis stage: measurements that are neither samples, likelihoods nor restorations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from diffbench.specs.base import NonNegativeInt, PositiveInt
from diffbench.specs.choices import AnyAnalysis
from diffbench.specs.jobs.asked import Asked
from diffbench.specs.jobs.stage import RUN, StageSpec
from diffbench.specs.jobs.train import AskingSpec


class AnalysisStageSpec(AskingSpec):
    """Carry out one analysis of a variant, or of its trained model.

    ``train`` describes the variant; it is None for an analysis that needs no variant.
    """

    template: ClassVar[str] = f"{RUN}/analysis/{{analysis}}.json"
    numbers: ClassVar[str] = "analysis"

    stage: Literal["analysis"] = "analysis"
    version: PositiveInt = 2

    variant: str
    seed: NonNegativeInt
    analysis_id: str
    analysis: AnyAnalysis

    @classmethod
    def wanted(cls, asked: Asked) -> Iterator[AnalysisStageSpec]:
        """A job for each analysis of the variant."""
        for item, analysis in asked.variant.analyses.items():
            yield cls(
                variant=asked.name,
                seed=asked.seed,
                analysis_id=item,
                analysis=analysis,
                train=asked.train if analysis.uses_variant else None,
                precision=asked.precision(analysis),
            )

    @classmethod
    def module(cls) -> str:
        return "diffbench.analyses.job"

    @property
    def upstream(self) -> tuple[StageSpec, ...]:
        """The training, where the analysis uses the trained model; other analyses read only its spec."""
        return self.held if self.analysis.uses_model else ()

    @property
    def threads(self) -> int:
        """The number of threads of the model's training; 1 without a model."""
        return self.train.threads if self.train else 1
