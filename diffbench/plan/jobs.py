"""A plan and its jobs: what a benchmark is going to do, and what each job reads and makes.

    data -> train -> sample -> score                 classifier -> sample, where a solver is guided by one
                  -> likelihood          data -> analysis, or data -> train -> analysis of the model,
                  -> restore                     or an analysis that brings all it needs
                                         data -> restore, where a restorer needs no model
    train -> shards -> sample            where a benchmark spreads sampling over jobs
    data -> reference -> score, restore

A job's spec holds the specs of the jobs it builds on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from diffbench.plan.along import at_step
from diffbench.plan.variants import seeds_of
from diffbench.specs.benchmark import BenchmarkSpec, VariantSpec
from diffbench.specs.jobs import (
    AnalysisStageSpec,
    DataStageSpec,
    LikelihoodStageSpec,
    RestoreSpec,
    SampleSpec,
    ScoreSpec,
    ShardSpec,
    StageSpec,
)
from diffbench.specs.weights import CellAt, OfWeights, step_of
from diffbench.store import paths


@dataclass(frozen=True)
class Run:
    """One job.

    ``item`` is the solver, likelihood or analysis id, ``id@500`` where that is of one of several steps, ``task/method``
    of a restoration, ``solver/2of3`` of a shard, and empty where a stage has none; a classifier's ``variant`` is the
    name of its process.
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
    def choice(self) -> OfWeights | None:
        """The solver or likelihood, which says of which step the weights are; None of other jobs."""
        if isinstance(self.spec, SampleSpec):
            return self.spec.solver
        return self.spec.likelihood if isinstance(self.spec, LikelihoodStageSpec) else None

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

    def item_at(self, variant: str, item: str, at: CellAt) -> str:
        """Return the id of the job that an item has with the weights of ``at``; the plan may have no such job.

        ``at`` is a step, a fraction of the variant's run, or None for the item as it is.
        """
        training = self.variants[variant].training if variant in self.variants else None
        if at is None:
            return item
        if training is None:
            return f"{item}@{at}"
        step, jobs = step_of(at, training.steps), self.along(variant, item)
        if not jobs and step == training.steps:
            return item
        found = {step_of(each.choice.at_step, training.steps): each for each in jobs if each.choice}
        return found[step].item if step in found else at_step(item, step)

    def along(self, variant: str, item: str) -> list[Run]:
        """Return the jobs of an item with the weights of every step that there are, of all seeds, by stage."""
        return [
            run
            for run in self.runs
            if run.variant == variant
            and run.choice
            and item in (run.item, run.item.partition("@")[0])
        ]

    def find(self, variant: str, item: str, stages: Iterable[str]) -> Run | None:
        """Return the job of a variant's item, with its first seed, in the first of the stages that has one."""
        if variant not in self.variants:
            return None
        keys = ((stage, variant, self.seeds(variant)[0], item) for stage in stages)
        return next((self._index[key] for key in keys if key in self._index), None)

    def of(self, stage: str) -> list[Run]:
        """Return all jobs of a stage, shards too."""
        return [run for run in self._every if run.stage == stage]

    def shards(self, run: Run) -> list[Run]:
        """Return the jobs that draw the chunks of a sample job; none where it draws them itself, as a control does."""
        spec, count = run.spec, self.benchmark.shards
        if not isinstance(spec, SampleSpec) or spec.solver is None or count == 1:
            return []
        return [
            replace(run, stage="shard", item=f"{run.item}/{part.part}", spec=part)
            for part in ShardSpec.every(spec, count)
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
