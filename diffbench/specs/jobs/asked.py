"""What a benchmark asks of one variant with one seed, from which stages make their jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diffbench.specs.analyses import AnalysisSpec
from diffbench.specs.benchmark import BenchmarkSpec, VariantSpec, seeds_of
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.restorers import RestorerSpec
from diffbench.specs.sampling import Precision
from diffbench.specs.solvers import SolverSpec

if TYPE_CHECKING:
    from diffbench.specs.jobs.classifier import ClassifierSpec
    from diffbench.specs.jobs.reference import ReferenceSpec
    from diffbench.specs.jobs.stage import StageSpec


@dataclass(frozen=True)
class Asked:
    """What a benchmark asks of one variant with one seed.

    Attributes:
        benchmark: the benchmark.
        name: the variant's id.
        variant: the variant.
        seed: the seed.
        reference: the job that measures the real images, which samples are compared with.
        solvers: id -> a solver that can serve the variant; None in its place for a control.
        likelihoods: id -> a likelihood that can serve the variant.
        restored: task id, method id and restorer, for each restorer that can serve a task.
        classifier: a function from a solver to the classifier that guides it, or None.
        made: stage -> its jobs, of earlier stages.
    """

    benchmark: BenchmarkSpec
    name: str
    variant: VariantSpec
    seed: int
    reference: ReferenceSpec
    solvers: Mapping[str, SolverSpec | None]
    likelihoods: Mapping[str, LikelihoodSpec]
    restored: Sequence[tuple[str, str, RestorerSpec]]
    classifier: Callable[[SolverSpec | None], ClassifierSpec | None]
    made: dict[str, list[StageSpec]] = field(default_factory=dict)

    @property
    def train(self) -> Any:
        """The spec of the training; None where the variant has no model."""
        return next(iter(self.made.get("train", ())), None)

    @property
    def first(self) -> bool:
        """Whether the seed is the variant's first."""
        return self.seed == seeds_of(self.benchmark, self.variant)[0]

    def precision(self, asking: SolverSpec | LikelihoodSpec | AnalysisSpec | None) -> Precision:
        """Return the precision in which the network is run; fp32 without one, or where rounding would be an error."""
        variant = self.variant
        if not variant.trained or (asking is not None and asking.full_precision):
            return "fp32"
        if isinstance(asking, AnalysisSpec) and asking.trains and variant.training is not None:
            return variant.training.precision
        return variant.sampling.precision
