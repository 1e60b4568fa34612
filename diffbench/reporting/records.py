"""Everything that a benchmark measured, in one long table: a row a number, or why there is none.

    benchmark, variant, seed, stage, item    the job: of a sample its scores, a likelihood, a restoration, an analysis;
                                             ``item`` is a solver, a likelihood, ``task/restorer`` or an analysis
    at                                       the step of its weights, where it names one
    metric, value, se                        the number and its own standard error; no metric of what has none
    floor                                    what as many real images score
    samples, nfe                             images behind the number, calls of the network
    seconds, gpu_seconds                     wall time of training and of the job itself, and the part on a GPU
    protocol                                 how the number was made
    spec, sha256                             hashes of the job's spec and of the file that the number is in
    status, reason                           ok, failed, stale or missing (``results``), and why

What a training, a sampling and a restoration took are numbers too: ``train_seconds``, ``sample_seconds`` and
``restore_seconds``.  Tables, claims and figures are views of this table; over seeds its rows become cells (``cells``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.plan.jobs import Job, Plan
from diffbench.reporting.cells import ITEM, Cell, Key, cells_of, state
from diffbench.reporting.layout import CellSpec
from diffbench.reporting.results import Outcome, Results
from diffbench.specs.jobs import STAGES
from diffbench.specs.weights import step_of
from diffbench.store import paths, products

if TYPE_CHECKING:
    import pandas as pd

#: The stages whose wall time is itself a number.
TIMED = ("train", "sample", "restore")
#: The name used as variant for the true images' scores, which take the place of a restoration's.
TRUTH = "truth"
#: The columns that describe a job, and those of its numbers.
OF_JOB = ("samples", "nfe", "seconds", "gpu_seconds", "protocol", "spec", "sha256", "status", "reason")  # fmt: skip
OF_NUMBER = ("metric", "value", "se", "floor", "why")
COLUMNS = ("benchmark", *ITEM[:1], "seed", *ITEM[1:], "at", *OF_NUMBER[:-1], *OF_JOB)


class Records:
    """The results of a plan below ``root``."""

    def __init__(self, plan: Plan, root: Path) -> None:
        self.plan = plan
        self.root = root
        self.files = Results(plan, root)

    @cached_property
    def outcomes(self) -> Mapping[tuple[str, str, str], Mapping[int, Outcome]]:
        """The outcomes of the jobs that make numbers: (variant, stage, item) -> seed -> outcome."""
        found: dict[tuple[str, str, str], dict[int, Outcome]] = {}
        for job in self.plan.jobs:
            if job.spec.numbers:
                outcome = self.files.outcome(job)
                found.setdefault((job.variant, job.stage, job.item), {})[job.seed] = outcome
        return found

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The long table."""
        jobs = [job for job in self.plan.jobs if job.spec.numbers]
        read = [
            (self._job(job), self.outcomes[job.variant, job.stage, job.item][job.seed])
            for job in jobs
        ]
        costs = [
            (self._job(job), self.files.cost(job)) for job in self.plan.jobs if job.stage in TIMED
        ]
        return long([*read, *self._truth(read)], costs)

    @cached_property
    def cells(self) -> Mapping[Key, Cell]:
        """The cell of each number over seeds: (variant, stage, item, metric) -> cell."""
        return cells_of(self.frame)

    def cell(self, variant: str, stage: str, item: str, metric: str) -> Cell:
        """Return a number of a job over seeds, or why there is none."""
        if (variant, stage, item, metric) in self.cells:
            return self.cells[variant, stage, item, metric]
        lacking = Outcome("missing", f"the scores have no {metric}")
        read = self.outcomes[variant, stage, item]
        checked = {seed: lacking if each.status == "ok" else each for seed, each in read.items()}
        return Cell(*state(checked))

    def number(self, variant: str, item: str, metric: str) -> Cell:
        """Return a number of an item over seeds, or why there is none."""
        stage = self._stage(variant, item, metric)
        if stage is None:
            return absent(self.plan, variant, [item])
        return self.cell(variant, stage, item, metric)

    def find(self, named: CellSpec) -> tuple[str, Cell]:
        """Return the item that a cell means, the first of its items that the benchmark has, and its number."""
        items = items_of(self.plan, named)
        item = first_planned(self.plan, named.variant, items)
        if item is None:
            return items[0], absent(self.plan, named.variant, items)
        return item, self.number(named.variant, item, named.metric)

    def values(self, named: CellSpec) -> dict[int, float]:
        """Return a cell's value for each seed that has one."""
        item = first_planned(self.plan, named.variant, items_of(self.plan, named))
        stage = None if item is None else self._stage(named.variant, item, named.metric)
        rows = self._rows_of.get((named.variant, stage, item, named.metric), [])
        found = self.frame.iloc[rows]
        good = found[found["status"] == "ok"]
        return {
            int(seed): float(value) for seed, value in zip(good["seed"], good["value"], strict=True)
        }

    def outcomes_of(self, stage: str, variant: str, item: str) -> Mapping[int, Outcome]:
        """Return the outcomes of an item's jobs by seed, with all their content; empty where none is planned."""
        return self.outcomes.get((variant, stage, item), {})

    def measure(self, name: str) -> float | None:
        """Return a measure of the training images, from the data set's manifest; None where it has none."""
        return self.files.measure(name)

    @cached_property
    def _rows_of(self) -> Mapping[Any, Any]:
        return self.frame.groupby([*ITEM, "metric"], sort=False).indices

    def _stage(self, variant: str, item: str, metric: str) -> str | None:
        """Return the stage of an item that has a metric, else one that may have it once its jobs are done."""

        def promise(stage: str) -> int:
            if (variant, stage, item, metric) in self.cells:
                return 2
            return int(any(e.status != "ok" for e in self.outcomes[variant, stage, item].values()))

        return max(stages_of(self.plan, variant, item), key=promise, default=None)

    def _job(self, job: Job) -> dict[str, Any]:
        """Return the columns that describe a job."""
        training = self.plan.variants[job.variant].training
        at = job.choice.at_step if job.choice and training else None
        holder, stage = job, job.spec.numbers
        if stage not in ("", job.stage):
            holder = self.plan.job(stage, job.variant, job.seed)
        return {
            "benchmark": job.benchmark,
            "variant": job.variant,
            "seed": job.seed,
            "stage": job.stage,
            "item": job.item,
            "at": None if at is None or training is None else step_of(at, training.steps),
            "spec": self.plan.digests[job.key],
            "sha256": self._sha256(paths.product(self.root, holder.spec)),
        }

    def _sha256(self, path: Path) -> str | None:
        """Return a product's checksum from its sidecar; None without a sidecar."""
        try:
            return str(products.read_sidecar(path)["sha256"][path.name])
        except products.StoreError:
            return None

    def _truth(
        self, read: Sequence[tuple[dict[str, Any], Outcome]]
    ) -> list[tuple[dict[str, Any], Outcome]]:
        """Return the true images' scores, from the first restoration that has them."""
        for job, outcome in read:
            if job["stage"] == "restore" and outcome.content.get("truth"):
                scores = outcome.content["truth"]
                true = Outcome(
                    "ok",
                    "",
                    scores,
                    outcome.floors,
                    images=outcome.images,
                    protocol=outcome.protocol,
                )
                return [(job | {"variant": TRUTH, "item": "", "seed": 0}, true)]
        return []


def long(
    jobs: Iterable[tuple[Mapping[str, Any], Outcome]],
    costs: Iterable[tuple[Mapping[str, Any], Outcome]] = (),
) -> pd.DataFrame:
    """Return jobs with their outcomes as the long table.

    A number that some seed of an item has is a row of every seed of it.  Each of ``costs`` has one number, the time of
    the job, named after its stage.
    """
    import pandas as pd

    rows, numbers, times = [], [], []
    for job, outcome in jobs:
        rows.append({**job, **_of_job(outcome)})
        numbers += [
            {**_named(job), "metric": metric, **score, "why": score.get("reason")}
            | {"floor": outcome.floors.get(metric, {}).get("value")}
            for metric, score in outcome.scores.items()
        ]
    for job, cost in costs:
        metric = f"{job['stage']}_seconds"
        times.append({**job, **_of_job(cost), "metric": metric, "value": cost.seconds})
    types = {"seed": int, "value": float, "se": float, "floor": float}
    keys = [*ITEM, "seed"]
    scores = pd.DataFrame(numbers, columns=[*keys, *OF_NUMBER]).astype(types)
    named = scores[[*ITEM, "metric"]].drop_duplicates()
    table = pd.DataFrame(rows, columns=["benchmark", *keys, "at", *OF_JOB]).astype({"seed": int})
    table = table.merge(named, on=ITEM, how="left").merge(scores, on=[*keys, "metric"], how="left")
    lacking = (table["status"] == "ok") & table["metric"].notna() & table["value"].isna()
    table.loc[lacking, "reason"] = table["why"].fillna("the scores have no " + table["metric"])
    table.loc[lacking, "status"] = "missing"
    parts = [table.reindex(columns=list(COLUMNS)), pd.DataFrame(times, columns=list(COLUMNS))]
    kinds = dict.fromkeys(
        ("value", "se", "floor", "samples", "nfe", "seconds", "gpu_seconds"), float
    )
    whole = pd.concat(
        [part.astype(kinds) for part in parts if len(part)] or parts, ignore_index=True
    )
    return whole.assign(metric=whole["metric"].fillna(""))


def _named(job: Mapping[str, Any]) -> dict[str, Any]:
    return {name: job[name] for name in (*ITEM, "seed")}


def _of_job(outcome: Outcome) -> dict[str, Any]:
    return {
        "samples": outcome.images,
        "nfe": outcome.nfe,
        "seconds": outcome.seconds,
        "gpu_seconds": outcome.gpu_seconds,
        "protocol": outcome.protocol,
        "status": outcome.status,
        "reason": outcome.reason,
    }


def with_numbers() -> list[str]:
    """Return the stages whose jobs have numbers.

    Where two have an item of one name, the one whose results have the metric counts.
    """
    return [name for name, stage in STAGES.items() if stage.numbers]


def stages_of(plan: Plan, variant: str, item: str) -> list[str]:
    """Return the stages with numbers in which the benchmark has an item of that variant."""
    return [stage for stage in with_numbers() if plan.find(variant, item, [stage])]


def items_of(plan: Plan, named: CellSpec) -> list[str]:
    """Return the jobs' items that a cell names; it may name the weights of a step of training."""
    return [plan.item_at(named.variant, item, named.at) for item in named.item]


def first_planned(plan: Plan, variant: str, items: Sequence[str]) -> str | None:
    """Return the first of these items that the benchmark has; None where it has none."""
    return next((each for each in items if stages_of(plan, variant, each)), None)


def absent(plan: Plan, variant: str, items: Sequence[str]) -> Cell:
    """Return the cell of a number that no job makes, with the reason."""
    for each in plan.refusals:
        if each.variant == variant and each.item in items:
            return Cell("refused", each.reason)
    lacking = " or ".join(items) if variant in plan.variants else "variant"
    return Cell("missing", f"this benchmark has no such {lacking}")
