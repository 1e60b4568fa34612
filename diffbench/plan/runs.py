"""From a benchmark file to its jobs: one row a job, each with the exact spec of what it makes.

    data -> train -> sample -> score                 classifier -> sample, where a solver is guided by one
                  -> likelihood          data -> analysis, or data -> train -> analysis of the model,
                  -> restore                     or an analysis that brings all it needs
                                         data -> restore, where a restorer needs no model
    train -> shards -> sample            where a benchmark spreads sampling over jobs
    data -> reference -> score, restore

A row's spec holds the specs of the rows it builds on.  Whether a solver, likelihood or restorer can
serve a process is decided here, from specs: asked for by a variant itself, an impossible one is an
error; from the lists that a benchmark offers to every variant, it becomes a refusal, which tables
print as a footnote.  So does a restorer that cannot serve one of the benchmark's tasks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from diffbench.plan import reading, registry
from diffbench.plan.devices import resolved
from diffbench.plan.reading import PlanError, Tree
from diffbench.plan.variants import matches, refusal, seeds_of, variants_of
from diffbench.specs.benchmark import CONTROL_SOLVER, BenchmarkSpec, VariantSpec
from diffbench.specs.likelihood import LikelihoodSpec
from diffbench.specs.restorer import RestorerSpec
from diffbench.specs.solver import SolverSpec
from diffbench.specs.stages import (
    STAGES,
    AnalysisStageSpec,
    ClassifierSpec,
    DataStageSpec,
    LikelihoodStageSpec,
    ReferenceSpec,
    RestoreSpec,
    SampleSpec,
    ScoreSpec,
    ShardSpec,
    StageSpec,
    TrainSpec,
)
from diffbench.specs.training import TrainingSpec
from diffbench.store import paths

DEFAULT = Path("config") / "digits.yaml"
METHODS = Path("config") / "methods.yaml"

S = TypeVar("S", bound=StageSpec)
C = TypeVar("C", SolverSpec, LikelihoodSpec)


@dataclass(frozen=True)
class Run:
    """One job.

    ``item`` is the solver, likelihood or analysis id, ``task/method`` of a restoration, ``solver/2of3`` of a shard, and
    empty where a stage has none; a classifier's ``variant`` is the name of its process.
    """

    benchmark: str
    stage: str
    variant: str
    seed: int
    item: str
    spec: StageSpec

    @property
    def root(self) -> Path:
        """The benchmark's results, relative to the working directory."""
        return paths.root(self.benchmark)

    @property
    def products(self) -> tuple[Path, ...]:
        """What the job makes, the main product first."""
        return paths.products(self.root, self.spec)

    @property
    def product(self) -> Path:
        """The main product."""
        return self.products[0]


@dataclass(frozen=True)
class Refusal:
    """A solver, likelihood or restorer that cannot serve a variant or a task, and why; ``item`` as a job's."""

    variant: str
    stage: str
    item: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything a benchmark is going to do.

    Attributes:
        benchmark: the benchmark file, validated.
        variants: the chosen variants by id, everything merged into them.
        runs: the jobs, in the order of STAGES; without shards, whose products are gone once samples are gathered.
        refusals: cells that no job can fill.
        device: ``cpu``, ``cuda`` or ``mps``.
        extensions: the extension files.
        config: the benchmark file's path.
        repository: the folder of the Snakefile.
    """

    benchmark: BenchmarkSpec
    variants: Mapping[str, VariantSpec]
    runs: tuple[Run, ...]
    refusals: tuple[Refusal, ...]
    device: str
    extensions: tuple[Path, ...]
    config: Path
    repository: Path

    @property
    def root(self) -> Path:
        """The benchmark's results, relative to the working directory."""
        return paths.root(self.benchmark.name)

    @cached_property
    def _index(self) -> dict[tuple[str, str, int, str], Run]:
        return {(run.stage, run.variant, run.seed, run.item): run for run in self._every}

    @cached_property
    def _every(self) -> list[Run]:
        return [*self.runs, *(shard for run in self.runs for shard in self.shards(run))]

    def seeds(self, variant: str) -> list[int]:
        """Return the seeds that a variant is run with."""
        return seeds_of(self.benchmark, self.variants[variant])

    def run(self, stage: str, variant: str = "", seed: int = 0, item: str = "") -> Run:
        """Return one job.

        Raises:
            KeyError: when the plan has no such job.
        """
        return self._index[stage, variant, seed, item]

    def of(self, stage: str) -> list[Run]:
        """Return all jobs of a stage, shards too."""
        return [run for run in self._every if run.stage == stage]

    def shards(self, run: Run) -> list[Run]:
        """Return the jobs that draw the chunks of a sample job; none where it draws them itself, as a control does."""
        spec, count = run.spec, self.benchmark.shards
        if not isinstance(spec, SampleSpec) or spec.solver is None or count == 1:
            return []
        parts = [
            ShardSpec(sample=spec, shard=shard, shards=count, extensions=spec.extensions)
            for shard in range(1, count + 1)
        ]
        return [
            replace(run, stage="shard", item=f"{run.item}/{part.part}", spec=part) for part in parts
        ]

    def upstream(self, run: Run) -> list[Run]:
        """Return the jobs that a job builds on directly, the data stage first; it may be that there is none.

        Of a sample job they are those of its shards, without the shards themselves.
        """
        spec = run.spec.sample if isinstance(run.spec, ShardSpec) else run.spec
        if isinstance(spec, DataStageSpec) or _stands_alone(spec):
            return []
        found = [self.run("data")]
        if isinstance(spec, ScoreSpec | RestoreSpec):
            found.append(self.run("reference"))
        if isinstance(spec, ScoreSpec):
            found += [self.run("sample", run.variant, run.seed, item) for item in spec.samples]
        if _needs_model(spec):
            found.append(self.run("train", run.variant, run.seed))
        if isinstance(spec, SampleSpec) and spec.classifier is not None:
            found.append(self.run("classifier", spec.classifier.variant, run.seed))
        return found

    def inputs(self, run: Run) -> list[Path]:
        """Return the files that a job reads: products, of the data stage the images' files and folders."""
        if isinstance(run.spec, DataStageSpec):
            return _sources(run.spec.data.paths.values())
        above = [path for job in self.upstream(run) for path in job.products]
        # Shards' files are removed once no job that names them is left, so all that is read must be named.
        beside = (paths.sidecar, paths.run_record)
        parts = [shard.product for shard in self.shards(run)]
        return above + [path for part in parts for path in (part, *(each(part) for each in beside))]

    def digest(self) -> str:
        """Return a hash of all that tables depend on: a change to it makes them anew."""
        content = [
            [run.spec.model_dump(mode="json") for run in self.runs],
            [[each.variant, each.item, each.reason] for each in self.refusals],
            {name: [each.paper, each.note] for name, each in self.variants.items()},
            self.benchmark.tables,
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def load_plan(
    config_files: Sequence[str | Path],
    overrides: Mapping[str, Any],
    repository: Path,
    origin: str = "--config",
    needs_files: bool = True,
) -> Plan:
    """Read a benchmark and expand it to its jobs.

    Args:
        config_files: the last is the benchmark; the repository's ``config/digits.yaml`` if empty.
        overrides: laid over the benchmark file; nested mappings or dotted keys.
        repository: the folder that holds the Snakefile and ``config/methods.yaml``.
        origin: the option that the overrides came from, for messages.
        needs_files: whether the files that the data set is read from must be there, as they must for any job to run.

    Raises:
        PlanError: for the first mistake: file and line, key, value, nearest valid name.
    """
    config = Path(config_files[-1]) if config_files else repository / DEFAULT
    tree = _on_base(reading.read(config), config).merged(reading.overriding(overrides, origin))
    extensions = _extensions(tree, config)
    benchmark = reading.validated(BenchmarkSpec.model_validate, BenchmarkSpec, tree)
    if needs_files:
        _check_sources(benchmark, tree)
        _check_weights(benchmark, tree)
    _check_tasks(benchmark, tree)
    _check_shards(benchmark, tree)
    variants = variants_of(benchmark, tree, reading.read(repository / METHODS))
    expansion = _Expansion(benchmark, tree, extensions)
    runs = tuple(expansion.runs(variants))
    return Plan(
        benchmark=benchmark,
        variants=variants,
        runs=tuple(sorted(runs, key=lambda run: list(STAGES).index(run.stage))),
        refusals=tuple(expansion.refusals),
        device=resolved(benchmark.device),
        extensions=extensions,
        config=config,
        repository=repository,
    )


def _on_base(tree: Tree, config: Path) -> Tree:
    """Lay a benchmark over the one that its ``base`` names, key by key; a base has none of its own."""
    if "base" not in tree.value:
        return tree
    base = config.parent / str(tree.value["base"])
    if not base.is_file():
        place = tree.where(("base",))
        raise PlanError(f"{place}: base: there is no file {reading.shown(base)}")
    under = reading.read(base)
    if "base" in under.value:
        raise PlanError(f"{under.where(('base',))}: base: {reading.shown(base)} is a base itself")
    return under.merged(tree.without("base"))


def _needs_model(spec: StageSpec) -> bool:
    """Whether a job starts from its variant's trained model."""
    if isinstance(spec, AnalysisStageSpec):
        return spec.analysis.uses_model
    if isinstance(spec, SampleSpec | LikelihoodStageSpec | RestoreSpec):
        return spec.train is not None
    return False


def _stands_alone(spec: StageSpec) -> bool:
    """Whether a job reads nothing of the benchmark's."""
    return isinstance(spec, AnalysisStageSpec) and spec.train is None


def _sources(paths: Iterable[str]) -> list[Path]:
    """Files, or folders and those in them: a folder's time changes when files come or go."""
    found = list(map(Path, paths))
    inner = [each for path in found if path.is_dir() for each in path.iterdir() if each.is_dir()]
    return [*found, *sorted(inner)]


def _check_sources(benchmark: BenchmarkSpec, tree: Tree) -> None:
    data = benchmark.data
    for key, path in data.paths.items():
        if not Path(path).exists():
            wanted = f"; wanted is {data.origin}" if data.origin else ""
            place = tree.where(("data", key))
            raise PlanError(f"{place}: data.{key}: there is no file or folder {path!r}{wanted}")


def _check_weights(benchmark: BenchmarkSpec, tree: Tree) -> None:
    extractor = benchmark.extractor
    if extractor.file is not None and not Path(extractor.file).is_file():
        place = tree.where(("extractor", "weights"))
        raise PlanError(
            f"{place}: extractor.weights: there is no file {extractor.file!r}; "
            f"wanted is {extractor.origin}"
        )


def _check_tasks(benchmark: BenchmarkSpec, tree: Tree) -> None:
    """Refuse an operator that cannot degrade the data set's images, where their shape is known."""
    shape = benchmark.data.known_shape
    if shape is None:
        return
    for name, task in benchmark.restorations.tasks.items():
        if reason := task.operator.refusal(shape):
            keys = ("restorations", "tasks", name, "operator", reason.partition(":")[0])
            place = tree.where(keys)
            raise PlanError(f"{place}: restorations.tasks.{name}.operator.{reason}")


def _check_shards(benchmark: BenchmarkSpec, tree: Tree) -> None:
    """Refuse more shards than there are chunks."""
    chunks = -(-benchmark.samples // benchmark.chunk)
    if benchmark.shards > chunks:
        raise PlanError(
            f"{tree.where(('shards',))}: shards: {benchmark.shards}, but {benchmark.samples} samples in chunks of "
            f"{benchmark.chunk} are {chunks}, and a shard has at least one; lower shards or chunk"
        )


def _extensions(tree: Tree, config: Path) -> tuple[Path, ...]:
    """Import the extension files: what they register can then be named."""
    named = tree.value.get("extensions", [])
    files = [config.parent / str(name) for name in (named if isinstance(named, list) else [named])]
    for index, file in enumerate(files):
        try:
            registry.load_extension(file)
        except PlanError as error:
            place = tree.where(("extensions", index))
            raise PlanError(f"{place}: {error}") from error.__cause__
    return tuple(files)


class _Expansion:
    """Makes jobs of variants, and keeps what was refused."""

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
            score = ScoreSpec(variant=name, seed=seed, reference=self.reference, samples=samples)
            yield self._row(self._stamped(score))
        for item, likelihood in likelihoods.items():
            spec = LikelihoodStageSpec(
                variant=name, seed=seed, kind_id=item, likelihood=likelihood, train=train
            )
            yield self._row(self._stamped(spec), item)
        for task, method, restorer in restored:
            job = self._restore(name, seed, task, method, restorer, train)
            yield self._row(job, f"{task}/{method}")
        for item, analysis in variant.analyses.items():
            subject = train if analysis.uses_variant else None
            wanted = AnalysisStageSpec(
                variant=name, seed=seed, analysis_id=item, analysis=analysis, train=subject
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
        )
        return self._stamped(spec)

    def _restore(
        self,
        name: str,
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
            train=train if restorer.uses_model else None,
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
        training = self.tree.at("training").under(own)
        keys = ("classifier", "training")
        times = settings.times_for(variant.process)
        if reason := times.refusal(variant.process):
            raise PlanError(f"{self.tree.where(('classifier', 'times'))}: classifier.{reason}")
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
        return self._served(name, variant, "sample", variant.solvers, self.benchmark.solvers)

    def _likelihoods(self, name: str, variant: VariantSpec) -> Mapping[str, LikelihoodSpec]:
        own, offered = variant.likelihoods, self.benchmark.likelihoods
        return self._served(name, variant, "likelihood", own, offered)

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


def reference_of(benchmark: BenchmarkSpec) -> ReferenceSpec:
    """How a benchmark's data set is measured, with the library that is installed."""
    return ReferenceSpec(
        data=benchmark.data,
        extractor=benchmark.extractor,
        library=f"torch-fidelity {metadata.version('torch-fidelity')}",
        conversion=benchmark.extractor.conversion,
    )


def check_writable(root: Path) -> None:
    """Check that results can be written, before any job has run for hours.

    Raises:
        PlanError: naming the folder that cannot be written.
    """
    existing = root
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise PlanError(f"results cannot be written to {root}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PlanError(f"results cannot be written to {root}: no permission to write {existing}")
