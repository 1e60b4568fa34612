"""A plan and its jobs: what a benchmark is going to do, and what each job reads and makes.

    data -> train -> sample -> score                 classifier -> sample, where a solver is guided by one
                  -> likelihood          data -> analysis, or data -> train -> analysis of the model,
                  -> restore                     or an analysis that brings all it needs
                                         data -> restore, where a restorer needs no model
    train -> shards -> sample            where a benchmark spreads sampling over jobs
    data -> reference -> score, restore

What a job builds on and makes, its spec says (``diffbench.specs.jobs``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from diffbench.plan.along import at_step
from diffbench.plan.variants import seeds_of
from diffbench.specs.benchmark import BenchmarkSpec, VariantSpec
from diffbench.specs.jobs import STAGES, StageSpec
from diffbench.specs.weights import CellAt, OfWeights, step_of
from diffbench.store import paths

#: What tells a job from all others of a plan: stage, variant, seed and item.
Key = tuple[str, str, int, str]


@dataclass(frozen=True)
class Job:
    """One job of a benchmark: its spec, in the benchmark's folder of results.

    ``item`` is the solver, likelihood or analysis id, ``id@500`` where that is of one of several steps, ``task/method``
    of a restoration, ``solver/2of3`` of a shard, and empty where a stage has none; a classifier's ``variant`` is the
    name of its process.
    """

    benchmark: str
    spec: StageSpec

    @property
    def stage(self) -> str:
        """The stage's name, which is also its command's."""
        return self.spec.stage

    @cached_property
    def key(self) -> Key:
        """What tells it from all other jobs of the plan."""
        return key_of(self.spec)

    @property
    def variant(self) -> str:
        """The variant's id; empty of what all variants share."""
        return self.key[1]

    @property
    def seed(self) -> int:
        """The seed; 0 of what all seeds share."""
        return self.key[2]

    @property
    def item(self) -> str:
        """The item's id."""
        return self.key[3]

    @property
    def root(self) -> Path:
        """The benchmark's results, relative to the working directory."""
        return paths.root(self.benchmark)

    @cached_property
    def products(self) -> tuple[Path, ...]:
        """What the job makes, the main product first."""
        return paths.products(self.root, self.spec)

    @property
    def product(self) -> Path:
        """The main product."""
        return self.products[0]

    @property
    def extras(self) -> tuple[Path, ...]:
        """Outputs without a sidecar, such as pictures."""
        return paths.extras(self.root, self.spec)

    @property
    def choice(self) -> OfWeights | None:
        """The solver or likelihood, which says of which step the weights are; None of other jobs."""
        return self.spec.choice


def key_of(spec: StageSpec) -> Key:
    """Return what tells the job of a spec from all others of a plan."""
    values = spec.values
    return spec.stage, values.get("variant", ""), values.get("seed", 0), spec.item


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
        jobs: in the order of STAGES; without shards, whose products are gone once samples are gathered.
        refusals: cells that no job can fill.
        device: ``cpu``, ``cuda`` or ``mps``.
        extensions: the extension files.
        config: the benchmark file's path.
        repository: the folder of the Snakefile.
    """

    benchmark: BenchmarkSpec
    variants: Mapping[str, VariantSpec]
    jobs: tuple[Job, ...]
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
    def _index(self) -> dict[Key, Job]:
        return {job.key: job for job in self._every}

    @cached_property
    def _every(self) -> list[Job]:
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

    def along(self, variant: str, item: str) -> list[Job]:
        """Return the jobs of an item with the weights of every step that there are, of all seeds, by stage."""
        return [
            job
            for job in self.jobs
            if job.variant == variant
            and job.choice
            and item in (job.item, job.item.partition("@")[0])
        ]

    def find(self, variant: str, item: str, stages: Iterable[str] = ()) -> Job | None:
        """Return the job of a variant's item, with its first seed, in the first of the stages that has one.

        Without ``stages`` in any whose jobs have items.
        """
        if variant not in self.variants:
            return None
        stages = stages or [name for name, stage in STAGES.items() if stage.item_wildcards()]
        keys = ((stage, variant, self.seeds(variant)[0], item) for stage in stages)
        return next((self._index[key] for key in keys if key in self._index), None)

    def of(self, stage: str) -> list[Job]:
        """Return all jobs of a stage, shards too."""
        return [job for job in self._every if job.stage == stage]

    def shards(self, job: Job) -> list[Job]:
        """Return the jobs that a job is spread over; none where it does all itself, as a control does."""
        return [Job(job.benchmark, part) for part in job.spec.parts(self.benchmark.shards)]

    def gpus(self, job: Job) -> int:
        """Return how many GPUs a job asks for; on a CPU none, for asking would have jobs wait for one another."""
        if self.device == "cpu" or not job.spec.uses_gpu or self.shards(job):
            return 0
        return self.benchmark.gpus if job.spec.shared else 1

    def upstream(self, job: Job) -> list[Job]:
        """Return the jobs that a job builds on directly, the data stage first; it may be that there is none.

        Of a sample job they are those of its shards, without the shards themselves.
        """
        order = list(STAGES)
        specs = sorted(job.spec.upstream, key=lambda spec: order.index(spec.stage))
        found = [self._index[key_of(spec)] for spec in specs]
        return [self.job("data"), *found] if job.spec.reads_data else found

    def inputs(self, job: Job) -> list[Path]:
        """Return the files that a job reads: products, of the data stage the images' files and folders."""
        above = [path for each in self.upstream(job) for path in each.products]
        # Shards' files are removed once no job that names them is left, so all that is read must be named.
        beside = (paths.sidecar, paths.run_record)
        parts = [shard.product for shard in self.shards(job)]
        read = [path for part in parts for path in (part, *(each(part) for each in beside))]
        return [*_sources(job.spec.sources), *above, *read]

    def digest(self) -> str:
        """Return a hash of all that tables depend on: a change to it makes them anew."""
        content = [
            [job.spec.model_dump(mode="json") for job in self.jobs],
            [[each.variant, each.item, each.reason] for each in self.refusals],
            {name: [each.paper, each.note] for name, each in self.variants.items()},
            self.benchmark.tables,
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _sources(places: Iterable[str]) -> list[Path]:
    """Files, or folders and those in them: a folder's time changes when files come or go."""
    found = list(map(Path, places))
    inner = [each for path in found if path.is_dir() for each in path.iterdir() if each.is_dir()]
    return [*found, *sorted(inner)]
