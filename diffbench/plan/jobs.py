"""A plan and its jobs: what a benchmark is going to do, and what each job reads and makes.

    data -> train -> sample -> score                 classifier -> sample, where a solver is guided by one
                  -> likelihood          data -> analysis, or data -> train -> analysis of the model,
                  -> restore                     or an analysis that brings all it needs
                                         data -> restore, where a restorer needs no model
    train -> shards -> sample            where a benchmark spreads sampling over jobs
    data -> reference -> score, restore

The spec of a job says what it builds on and makes (``diffbench.specs.jobs``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from diffbench.plan.along import at_step
from diffbench.plan.places import Located
from diffbench.specs.base import digest_of
from diffbench.specs.benchmark import BenchmarkSpec, VariantSpec, seeds_of
from diffbench.specs.extensions import ExtensionSource
from diffbench.specs.jobs import STAGES, StageSpec
from diffbench.specs.jobs.texts import Texts
from diffbench.specs.weights import CellAt, OfWeights, step_of
from diffbench.store import paths

#: What identifies a job in a plan: stage, variant, seed and item.
Key = tuple[str, str, int, str]


@dataclass(frozen=True)
class Job:
    """One job of a benchmark: its spec, in the benchmark's folder of results.

    ``item`` is the id of the solver, likelihood or analysis; ``id@500`` for one of several steps of weights;
    ``task/method`` for a restoration; ``solver/2of3`` for a shard; and empty where a stage has no items.  The
    ``variant`` of a classifier is the name of its process.
    """

    benchmark: str
    spec: StageSpec

    @property
    def stage(self) -> str:
        """The stage's name, which is also the name of its command."""
        return self.spec.stage

    @cached_property
    def key(self) -> Key:
        """What identifies the job in the plan."""
        return key_of(self.spec)

    @property
    def variant(self) -> str:
        """The variant's id; empty for a job that all variants share."""
        return self.key[1]

    @property
    def seed(self) -> int:
        """The seed; 0 for a job that all seeds share."""
        return self.key[2]

    @property
    def item(self) -> str:
        """The item's id; empty where the stage has no items."""
        return self.key[3]

    @cached_property
    def name(self) -> str:
        """The job's name in the workflow, which is also the path of its log: ``sample/vp/seed0/heun-18``."""
        values = self.spec.values
        seeds = {"seed": f"seed{values['seed']}"} if "seed" in values else {}
        return "/".join([self.stage, *map(str, (dict(values) | seeds).values())])

    @property
    def root(self) -> Path:
        """The folder of the benchmark's results, relative to the working directory."""
        return paths.root(self.benchmark)

    @cached_property
    def products(self) -> tuple[Path, ...]:
        """The paths of the job's products, the main one first."""
        return paths.products(self.root, self.spec)

    @property
    def product(self) -> Path:
        """The path of the main product."""
        return self.products[0]

    @property
    def extras(self) -> tuple[Path, ...]:
        """The paths of outputs without a sidecar, such as pictures."""
        return paths.extras(self.root, self.spec)

    @property
    def choice(self) -> OfWeights | None:
        """The solver or likelihood, which names the step of the weights; None for other jobs."""
        return self.spec.choice


def key_of(spec: StageSpec) -> Key:
    """Return what identifies the job of a spec in a plan."""
    values = spec.values
    return spec.stage, values.get("variant", ""), values.get("seed", 0), spec.item


@dataclass(frozen=True)
class Refusal:
    """A solver, likelihood or restorer that cannot serve a variant or a task, and why; ``item`` is as in a job."""

    variant: str
    stage: str
    item: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything a benchmark is going to do.

    Attributes:
        benchmark: the benchmark file, validated.
        variants: the chosen variants by id, with everything merged into them.
        jobs: all jobs in the order of STAGES, without shards, whose products are removed once samples are gathered.
        refusals: cells that no job can fill.
        device: ``cpu``, ``cuda`` or ``mps``.
        extensions: the sources of extensions, in the order of the file.
        config: the benchmark file's path.
        repository: the folder of the Snakefile.
        located: the data set, with where its files lie.
        left_out: the ids of variants of the benchmark that ``only`` or the seeds leave out.
    """

    benchmark: BenchmarkSpec
    variants: Mapping[str, VariantSpec]
    jobs: tuple[Job, ...]
    refusals: tuple[Refusal, ...]
    device: str
    extensions: tuple[ExtensionSource, ...]
    config: Path
    repository: Path
    located: Located
    left_out: frozenset[str] = frozenset()

    @property
    def root(self) -> Path:
        """The folder of the benchmark's results, relative to the working directory."""
        return paths.root(self.benchmark.name)

    @cached_property
    def _index(self) -> dict[Key, Job]:
        return {job.key: job for job in self.every}

    @cached_property
    def every(self) -> list[Job]:
        """All jobs, with shards."""
        return [*self.jobs, *(shard for job in self.jobs for shard in self.shards(job))]

    def seeds(self, variant: str) -> list[int]:
        """Return the seeds that a variant is run with."""
        return seeds_of(self.benchmark, self.variants[variant])

    def job(self, stage: str, variant: str = "", seed: int = 0, item: str = "") -> Job:
        """Return one job.

        Raises:
            KeyError: when the plan has no such job.
        """
        return self._index[stage, variant, seed, item]

    def item_at(self, variant: str, item: str, at: CellAt) -> str:
        """Return the item of the job that uses the weights of ``at``; the plan may have no such job.

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

    def along(self, variant: str, item: str) -> list[Job]:
        """Return the jobs of an item for all steps of weights and all seeds, in the order of stages."""
        return [
            job
            for job in self.jobs
            if job.variant == variant
            and job.choice
            and item in (job.item, job.item.partition("@")[0])
        ]

    def find(self, variant: str, item: str, stages: Iterable[str] = ()) -> Job | None:
        """Return the job of a variant's item, with its first seed, in the first of the stages that has one.

        Without ``stages``, all stages whose jobs have items are searched.
        """
        if variant not in self.variants:
            return None
        stages = stages or [name for name, stage in STAGES.items() if stage.item_wildcards()]
        keys = ((stage, variant, self.seeds(variant)[0], item) for stage in stages)
        return next((self._index[key] for key in keys if key in self._index), None)

    def of(self, stage: str) -> list[Job]:
        """Return all jobs of a stage, with its shards."""
        return [job for job in self.every if job.stage == stage]

    def shards(self, job: Job) -> list[Job]:
        """Return the jobs that a job is spread over; none where it does all the work itself, as for a control."""
        return [Job(job.benchmark, part) for part in job.spec.parts(self.benchmark.shards)]

    def gpus(self, job: Job) -> int:
        """Return how many GPUs a job asks for; none on a CPU, where jobs would wait for one another."""
        if self.device == "cpu" or not job.spec.uses_gpu or self.shards(job):
            return 0
        return self.benchmark.gpus if job.spec.shared else 1

    def nodes(self, job: Job) -> int:
        """Return over how many nodes of a cluster a job's GPUs are spread."""
        return self.benchmark.nodes if self.gpus(job) > 1 and job.spec.divided else 1

    def upstream(self, job: Job) -> list[Job]:
        """Return the jobs that a job builds on directly, the data stage first; there may be none.

        For a sample job these are the jobs that its shards build on, not the shards.
        """
        order = list(STAGES)
        specs = sorted(job.spec.upstream, key=lambda spec: order.index(spec.stage))
        found = [self._index[key_of(spec)] for spec in specs]
        return [self.job("data"), *found] if job.spec.reads_data else found

    def inputs(self, job: Job) -> list[Path]:
        """Return the files that a job reads: products or, for the data stage, the files and folders of the images."""
        above = [path for each in self.upstream(job) for path in each.products]
        # Shards' files are removed once no job that names them is left, so all that is read must be named.
        beside = (paths.sidecar, paths.run_record)
        parts = [shard.product for shard in self.shards(job)]
        read = [path for part in parts for path in (part, *(each(part) for each in beside))]
        sources = job.spec.sources
        return [*(self._sources(sources) if sources else ()), *above, *read]

    def _sources(self, named: Iterable[str]) -> list[Path]:
        """Return files where they are, or folders with the folders in them.

        The time of a folder changes when files come or go.
        """
        here = dict(
            zip(self.benchmark.data.paths.values(), self.located.here.paths.values(), strict=False)
        )
        found = [Path(here.get(each, each)) for each in named]
        inner = [
            each for path in found if path.is_dir() for each in path.iterdir() if each.is_dir()
        ]
        return [*found, *sorted(inner)]

    @cached_property
    def digests(self) -> Mapping[Key, str]:
        """The digest of each job's spec."""
        found: dict[Key, str] = {}
        runs: dict[tuple[str, int], list[Job]] = {}
        for job in self.every:
            runs.setdefault((job.variant, job.seed), []).append(job)
        for jobs in runs.values():
            # The specs of a run hold one another; the texts of all runs would take a gigabyte.
            texts = Texts()
            found |= {job.key: digest_of(texts.of(job.spec)) for job in jobs}
        return found

    def digest(self) -> str:
        """Return a hash of all that tables depend on; when it changes, tables are made again."""
        content = [
            [self.digests[job.key] for job in self.jobs],
            [[each.variant, each.item, each.reason] for each in self.refusals],
            {name: [each.paper, each.note] for name, each in self.variants.items()},
            self.benchmark.tables,
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
