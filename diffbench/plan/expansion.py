"""From variants to jobs: one for each seed, stage and solver, likelihood, restoration or analysis.

Whether a solver, likelihood or restorer can serve a process is decided here, from specs: asked for by a variant itself,
an impossible one was an error (``variants``); from the lists that a benchmark offers to every variant, it becomes a
refusal, which tables print as a footnote.  So does a restorer that cannot serve one of the benchmark's tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from diffbench.plan import reading
from diffbench.plan.along import each_step
from diffbench.plan.jobs import Refusal, Run
from diffbench.plan.reading import Tree
from diffbench.plan.variants import matches, refusal, seeds_of
from diffbench.specs import registry
from diffbench.specs.analyses import AnalysisSpec
from diffbench.specs.benchmark import CONTROL_SOLVER, BenchmarkSpec, VariantSpec
from diffbench.specs.errors import PlanError
from diffbench.specs.jobs import (
    AnalysisStageSpec,
    ClassifierSpec,
    DataStageSpec,
    LikelihoodStageSpec,
    ReferenceSpec,
    RestoreSpec,
    SampleSpec,
    ScoreSpec,
    StageSpec,
    TrainSpec,
)
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.restorers import RestorerSpec
from diffbench.specs.sampling import Precision
from diffbench.specs.solvers import SolverSpec
from diffbench.specs.training import TrainingSpec

S = TypeVar("S", bound=StageSpec)
C = TypeVar("C", SolverSpec, LikelihoodSpec)


class Expansion:
    """Makes jobs of variants; ``refusals`` are filled on the way."""

    def __init__(self, benchmark: BenchmarkSpec, tree: Tree, extensions: tuple[Path, ...]) -> None:
        self.benchmark = benchmark
        self.tree = tree
        self.extensions = extensions
        self.refusals: list[Refusal] = []
        self.classifiers: dict[tuple[str, int], ClassifierSpec] = {}
        self.data = self._stamped(DataStageSpec(data=benchmark.data))
        self.reference = self._stamped(reference_of(benchmark))

    def _stamped(self, spec: S) -> S:
        """Add the contents of the extensions that a spec uses."""
        used = registry.extensions_of(spec, self.extensions)
        return spec.model_copy(update={"extensions": used}) if used else spec

    def _row(self, stage: StageSpec, item: str = "") -> Run:
        variant, seed = getattr(stage, "variant", ""), getattr(stage, "seed", 0)
        return Run(self.benchmark.name, stage.stage, variant, seed, item, stage)

    def runs(self, variants: Mapping[str, VariantSpec]) -> Iterator[Run]:
        """Make all jobs."""
        yield self._row(self.data)
        yield self._row(self.reference)
        for name, variant in variants.items():
            served = self._solvers(name, variant), self._likelihoods(name, variant)
            restored = list(self._restored(name, variant))
            for seed in seeds_of(self.benchmark, variant):
                yield from self._of_seed(name, variant, seed, *served, restored)
        for classifier in self.classifiers.values():
            yield self._row(classifier)

    def _of_seed(
        self,
        name: str,
        variant: VariantSpec,
        seed: int,
        solvers: Mapping[str, SolverSpec | None],
        likelihoods: Mapping[str, LikelihoodSpec],
        restored: Sequence[tuple[str, str, RestorerSpec]],
    ) -> Iterator[Run]:
        train = self._train(name, variant, seed)
        if train is not None:
            yield self._row(train)
        samples = {
            item: self._sample(name, variant, seed, item, solver, train)
            for item, solver in solvers.items()
        }
        for item, sample in samples.items():
            yield self._row(sample, item)
        if samples:
            score = ScoreSpec(
                variant=name,
                seed=seed,
                reference=self.reference,
                floors=self.benchmark.floors,
                samples=samples,
            )
            yield self._row(self._stamped(score))
        for item, likelihood in likelihoods.items():
            spec = LikelihoodStageSpec(
                variant=name,
                seed=seed,
                kind_id=item,
                likelihood=likelihood,
                train=train,
                precision=precision_of(variant, likelihood),
            )
            yield self._row(self._stamped(spec), item)
        for task, method, restorer in restored:
            job = self._restore(name, variant, seed, task, method, restorer, train)
            yield self._row(job, f"{task}/{method}")
        for item, analysis in variant.analyses.items():
            subject = train if analysis.uses_variant else None
            wanted = AnalysisStageSpec(
                variant=name,
                seed=seed,
                analysis_id=item,
                analysis=analysis,
                train=subject,
                precision=precision_of(variant, analysis),
            )
            yield self._row(self._stamped(wanted), item)

    def _train(self, name: str, variant: VariantSpec, seed: int) -> TrainSpec | None:
        if variant.process is None:
            return None
        spec = TrainSpec(
            variant=name,
            seed=seed,
            data=self.benchmark.data,
            dequantise=variant.dequantise,
            process=variant.process,
            denoiser=variant.denoiser,
            network=variant.network,
            objective=variant.objective,
            training=variant.training,
            pretrained=variant.pretrained,
        )
        return self._stamped(spec)

    def _sample(
        self,
        name: str,
        variant: VariantSpec,
        seed: int,
        item: str,
        solver: SolverSpec | None,
        train: TrainSpec | None,
    ) -> SampleSpec:
        spec = SampleSpec(
            variant=name,
            seed=seed,
            solver_id=item,
            samples=self.benchmark.samples,
            chunk=self.benchmark.chunk,
            data=self.benchmark.data,
            train=train,
            classifier=self._classifier(variant, seed, solver),
            solver=solver,
            control=variant.control,
            precision=precision_of(variant, solver),
        )
        return self._stamped(spec)

    def _restore(
        self,
        name: str,
        variant: VariantSpec,
        seed: int,
        task: str,
        method: str,
        restorer: RestorerSpec,
        train: TrainSpec | None,
    ) -> RestoreSpec:
        asked = self.benchmark.restorations
        spec = RestoreSpec(
            variant=name,
            seed=seed,
            task_id=task,
            method_id=method,
            task=asked.tasks[task],
            restorer=restorer,
            images=asked.images,
            draws=asked.draws,
            chunk=self.benchmark.chunk,
            data=self.benchmark.data,
            reference=self.reference,
            floors=self.benchmark.floors,
            train=train if restorer.uses_model else None,
            precision=precision_of(variant, restorer.inner),
        )
        return self._stamped(spec)

    def _classifier(
        self, variant: VariantSpec, seed: int, solver: SolverSpec | None
    ) -> ClassifierSpec | None:
        """The classifier that guides a solver; made once for each process, dequantisation and seed."""
        if solver is None or solver.classifier_scale is None:
            return None
        assert variant.process is not None
        settings, own = self.benchmark.classifier, self.tree.at("classifier", "training")
        if "snapshots" in own.value:
            place = self.tree.where(("classifier", "training", "snapshots"))
            raise PlanError(
                f"{place}: classifier.training.snapshots: classifiers guide as they are in the end; leave it out"
            )
        training = self.tree.at("training").without("snapshots").under(own)
        keys = ("classifier", "training")
        times = settings.times_for(variant.process)
        if reason := times.refusal(variant.process):
            raise PlanError(
                f"{self.tree.where(('classifier', 'times'))}: classifier.times.{reason}"
            )
        spec = ClassifierSpec(
            seed=seed,
            data=self.benchmark.data,
            dequantise=variant.dequantise,
            process=variant.process,
            network=settings.network,
            times=times,
            training=reading.validated(TrainingSpec.model_validate, TrainingSpec, training, keys),
        )
        return self.classifiers.setdefault((spec.variant, seed), self._stamped(spec))

    def _solvers(self, name: str, variant: VariantSpec) -> Mapping[str, SolverSpec | None]:
        if variant.control is not None:
            return {CONTROL_SOLVER: None}
        own, offered = variant.solvers, self.benchmark.solvers
        return each_step(self._served(name, variant, "sample", own, offered), variant.training)

    def _likelihoods(self, name: str, variant: VariantSpec) -> Mapping[str, LikelihoodSpec]:
        own, offered = variant.likelihoods, self.benchmark.likelihoods
        return each_step(self._served(name, variant, "likelihood", own, offered), variant.training)

    def _restored(self, name: str, variant: VariantSpec) -> Iterator[tuple[str, str, RestorerSpec]]:
        """Yield task, method and restorer of what can be restored; note what cannot."""
        asked = self.benchmark.restorations
        methods = dict(variant.restorers)
        if variant.process and any(matches(name, pattern) for pattern in asked.variants):
            methods |= {
                each: asked.restorers[each] for each in asked.restorers if each not in methods
            }
        for task, problem in asked.tasks.items():
            for method, restorer in methods.items():
                reason = restorer.refusal(variant.process, variant.denoiser, problem.operator)
                if reason:
                    self.refusals.append(Refusal(name, "restore", f"{task}/{method}", reason))
                else:
                    yield task, method, restorer

    def _served(
        self,
        name: str,
        variant: VariantSpec,
        stage: str,
        own: Mapping[str, C],
        offered: Mapping[str, C],
    ) -> dict[str, C]:
        """Return what can serve a variant's process; note what is offered in vain.

        A variant without a process, a control or analyses alone, is offered nothing.
        """
        if variant.process is None:
            return {}
        kept = dict(own)
        for item, choice in offered.items():
            if item in own:
                continue
            if reason := refusal(choice, variant, self.benchmark.data):
                self.refusals.append(Refusal(name, stage, item, reason))
            else:
                kept[item] = choice
        return kept


def precision_of(
    variant: VariantSpec, asking: SolverSpec | LikelihoodSpec | AnalysisSpec | None
) -> Precision:
    """In which precision a variant's network is asked; float32 where there is none, or where rounding is an error."""
    if not variant.trained or (asking is not None and asking.full_precision):
        return "fp32"
    if isinstance(asking, AnalysisSpec) and asking.trains and variant.training is not None:
        return variant.training.precision
    return variant.sampling.precision


def reference_of(benchmark: BenchmarkSpec) -> ReferenceSpec:
    """How a benchmark's data set is measured, with the library that is installed."""
    return ReferenceSpec(
        data=benchmark.data,
        extractor=benchmark.extractor,
        library=f"torch-fidelity {metadata.version('torch-fidelity')}",
        conversion=benchmark.extractor.conversion,
    )
