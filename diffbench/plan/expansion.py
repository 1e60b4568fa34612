"""From variants to jobs: one for each seed, stage and solver, likelihood, restoration or analysis.

A stage makes its jobs from what a benchmark asks of a variant (``StageSpec.wanted``).  Whether a solver, likelihood or
restorer can serve a process is decided here, from specs.  One that a variant itself names must serve, else reading the
variant has failed (``variants``).  One that the benchmark offers to every variant becomes a refusal where it cannot
serve, which tables print as a footnote; so does a restorer that cannot serve one of the benchmark's tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from importlib import metadata
from typing import TypeVar

from diffbench.plan import reading
from diffbench.plan.along import each_step
from diffbench.plan.jobs import Job, Refusal
from diffbench.plan.reading import Tree
from diffbench.plan.variants import matches, refusal
from diffbench.specs.benchmark import CONTROL_SOLVER, BenchmarkSpec, VariantSpec, seeds_of
from diffbench.specs.data import DataSpec
from diffbench.specs.errors import PlanError
from diffbench.specs.extensions import ExtensionSource, used_by
from diffbench.specs.jobs import (
    STAGES,
    ClassifierSpec,
    DataStageSpec,
    ReferenceSpec,
    StageSpec,
)
from diffbench.specs.jobs.asked import Asked
from diffbench.specs.likelihoods import LikelihoodSpec
from diffbench.specs.restorers import RestorerSpec
from diffbench.specs.solvers import SolverSpec
from diffbench.specs.training import TrainingSpec

S = TypeVar("S", bound=StageSpec)
C = TypeVar("C", SolverSpec, LikelihoodSpec)


class Expansion:
    """The jobs of variants; ``refusals`` is filled while they are made.

    ``here`` is the data set with the paths of its files.
    """

    def __init__(
        self,
        benchmark: BenchmarkSpec,
        tree: Tree,
        extensions: tuple[ExtensionSource, ...],
        here: DataSpec,
    ) -> None:
        self.benchmark = benchmark
        self.tree = tree
        self.extensions = extensions
        self.here = here
        self.refusals: list[Refusal] = []
        self.classifiers: dict[tuple[str, int], ClassifierSpec] = {}
        self.data = self._stamped(DataStageSpec(data=benchmark.data))
        self.reference = self._stamped(reference_of(benchmark))

    def _stamped(self, spec: S) -> S:
        """Return a spec with the digests of the extensions that it uses."""
        used = used_by(spec, self.extensions)
        return spec.model_copy(update={"extensions": used}) if used else spec

    def jobs(self, variants: Mapping[str, VariantSpec]) -> Iterator[Job]:
        """Yield all jobs of some variants."""
        specs: list[StageSpec] = [self.data, self.reference]
        for name, variant in variants.items():
            served = self._solvers(name, variant), self._likelihoods(name, variant)
            restored = list(self._restored(name, variant))
            for seed in seeds_of(self.benchmark, variant):
                classifier = partial(self._classifier, variant, seed)
                given = (self.benchmark, name, variant, seed, self.reference)
                asked = Asked(*given, *served, restored, classifier)
                specs += self._of(asked)
                self._check_shown(asked)
        for spec in [*specs, *self.classifiers.values()]:
            yield Job(self.benchmark.name, spec)

    def _of(self, asked: Asked) -> list[StageSpec]:
        """Return the specs of the jobs of one variant and seed, stage by stage."""
        for name, stage in STAGES.items():
            asked.made[name] = [self._stamped(spec) for spec in stage.wanted(asked)]
        return [spec for specs in asked.made.values() for spec in specs]

    def _check_shown(self, asked: Asked) -> None:
        """Refuse a model that nothing is asked of: it would be trained, and no number of it shown."""
        made = [spec for specs in asked.made.values() for spec in specs]
        model = type(asked.train)
        if asked.train is None or any(
            isinstance(each, model) for spec in made for each in spec.held
        ):
            return
        left_out = "".join(
            f"; {each.item} is left out: {each.reason}"
            for each in self.refusals
            if each.variant == asked.name
        )
        raise PlanError(
            f"{origin_of(self.tree, asked.name)}: {asked.name}: nothing is asked of this model: give it a solver, a "
            f"likelihood, an analysis or a restorer, or leave it out of `variants`{left_out}"
        )

    def _classifier(
        self, variant: VariantSpec, seed: int, solver: SolverSpec | None
    ) -> ClassifierSpec | None:
        """Return the classifier that guides a solver; None where none does.

        There is one for each process, dequantisation and seed.
        """
        if solver is None or solver.classifier_scale is None:
            return None
        assert variant.process is not None
        settings, own = self.benchmark.classifier, self.tree.part("classifier", "training")
        if "snapshots" in own.value:
            origin = self.tree.where(("classifier", "training", "snapshots"))
            raise PlanError(
                f"{origin}: classifier.training.snapshots: guidance uses the last weights of a classifier; leave it "
                "out"
            )
        training = self.tree.part("training").without("snapshots").under(own)
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
        """Yield task, method and restorer of each possible restoration; note the others as refusals."""
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
        """Return the solvers or likelihoods that can serve a variant; note the others as refusals.

        A variant without a process (a control, or only analyses) has none.
        """
        if variant.process is None:
            return {}
        kept = dict(own)
        for item, choice in offered.items():
            if item in own:
                continue
            if reason := refusal(choice, variant, self.here):
                self.refusals.append(Refusal(name, stage, item, reason))
            else:
                kept[item] = choice
        return kept


def origin_of(tree: Tree, variant: str) -> str:
    """Return where a benchmark file speaks of a variant: in its overrides, its methods, or its list of variants."""
    places = (key for key in ("overrides", "methods") if variant in tree.part(key).value)
    key = next(places, None)
    return tree.where((key, variant) if key else ("variants",))


def reference_of(benchmark: BenchmarkSpec) -> ReferenceSpec:
    """Return the spec by which a benchmark's real images are measured, with the library that is installed."""
    extractor = benchmark.extractor.suited(benchmark.data.known_counts.get("train"))
    return ReferenceSpec(
        data=benchmark.data,
        extractor=extractor.with_opinions(
            each.opinion for each in benchmark.measures if each.opinion
        ),
        library=f"torch-fidelity {metadata.version('torch-fidelity')}",
        conversion=benchmark.extractor.conversion,
    )
