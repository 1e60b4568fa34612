"""Where a number came from: the jobs that made it, what they ran on, and the command that makes it again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffbench.plan.jobs import Job, Plan
from diffbench.plan.reading import nearest, refuse_unknown
from diffbench.reporting import context
from diffbench.reporting.cells import DASH, text
from diffbench.reporting.records import stages_of
from diffbench.reporting.results import Results
from diffbench.specs.errors import PlanError
from diffbench.store import paths, products, run_record

#: What of a run record is shown, in this order.
SHOWN = ("start", "seconds", "cpu_seconds", "peak_memory_mib", "device", "platform", "commit", "versions")  # fmt: skip


def named(plan: Plan, name: str) -> list[Job]:
    """Return the jobs of ``variant/seed/item``: those with numbers; of ``variant/seed`` the training.

    Raises:
        PlanError: when the benchmark has none, with the nearest name.
    """
    variant, seed, item = [*name.split("/", 2), "", ""][:3]
    refuse_unknown("variant", variant, plan.variants, plan.config)
    seeds = plan.seeds(variant)
    if seed not in map(str, seeds):
        known = ", ".join(map(str, seeds))
        raise PlanError(f"{name}: {variant} has no seed {seed!r} in {plan.config}: it has {known}")
    stages = stages_of(plan, variant, item) if item else ["train"]
    found = [
        job
        for job in plan.jobs
        if (job.variant, job.seed, job.item) == (variant, int(seed), item) and job.stage in stages
    ]
    if not found:
        items = [job.item for job in plan.jobs if job.variant == variant and job.item]
        reasons = [
            each.reason for each in plan.refusals if (each.variant, each.item) == (variant, item)
        ]
        why = f": {reasons[0]}" if reasons else nearest(item, dict.fromkeys(items))
        raise PlanError(f"{name}: {variant} has no {item or 'training'!r} in {plan.config}{why}")
    return found


def provenance(results: Results, job: Job) -> dict[str, Any]:
    """Return where the numbers of a job came from, in plain values for people.

    The keys are ``numbers`` (or ``status`` and ``reason``), ``protocol``, ``command``, ``settings`` (of the solver or
    likelihood), ``ran`` (the run record) and ``made of`` (the products behind it, the data set first).
    """
    plan, root = results.plan, results.root
    outcome = results.outcome(job) if job.spec.numbers else results.cost(job)
    found: dict[str, Any] = {"status": outcome.status}
    if outcome.reason:
        found["reason"] = outcome.reason
    if outcome.scores:
        found["numbers"] = {
            metric: _number(score) for metric, score in sorted(outcome.scores.items())
        }
    if outcome.protocol:
        found["protocol"] = context.protocol(next(iter(outcome.scores), ""), outcome.protocol)
    if outcome.images is not None:
        found["images"] = outcome.images
    if outcome.nfe is not None:
        found["nfe"] = outcome.nfe
    found["command"] = command(plan, job)
    if job.choice is not None:
        found["settings"] = job.choice.model_dump(mode="json", exclude_none=True)
    found["ran"] = _ran(root, job)
    found["made of"] = [_made(results, each) for each in chain(plan, job)]
    return found


def command(plan: Plan, job: Job) -> str:
    """Return the command that makes a job's numbers again, and nothing that they are made of."""
    targets = [job.product]
    if job.spec.numbers not in ("", job.stage):
        targets.append(plan.job(job.spec.numbers, job.variant, job.seed).product)
    config = Path(os.path.relpath(plan.config))
    words = ["snakemake", "--cores", "1", "--configfile", config, "--force", *targets]
    return shlex.join(map(str, words))


def chain(plan: Plan, job: Job) -> Iterator[Job]:
    """Yield the jobs that a job builds on, directly or not, and then the job itself and what scores it."""
    seen: set[tuple[str, str, int, str]] = set()

    def above(each: Job) -> Iterator[Job]:
        for upper in plan.upstream(each):
            if upper.key not in seen:
                seen.add(upper.key)
                yield from above(upper)
                yield upper

    scored = job.spec.numbers not in ("", job.stage)
    for end in [plan.job("reference"), job] if scored else [job]:
        yield from above(end)
        yield end
    if scored:
        # It reads the samples of other solvers too, of which these numbers are not.
        yield plan.job(job.spec.numbers, job.variant, job.seed)


def _number(score: Mapping[str, Any]) -> str:
    """Return a number with its standard error, or why there is none."""
    if score.get("value") is None:
        return str(score.get("reason") or DASH)
    error = score.get("se")
    return text(score["value"]) + ("" if error is None else f" (se {text(error)})")


def _ran(root: Path, job: Job) -> dict[str, Any]:
    record = run_record.known(paths.product(root, job.spec))
    return {name: record[name] for name in SHOWN if record.get(name) not in (None, {})}


def _made(results: Results, job: Job) -> dict[str, Any]:
    """Return a product: its stage, file, state, hash of its spec, and checksum."""
    path = paths.product(results.root, job.spec)
    found = {"stage": job.stage, "file": str(path), "status": results.status(job)}
    with suppress(products.StoreError):
        found["sha256"] = str(products.read_sidecar(path)["sha256"][path.name])
    return found | {"spec": job.spec.digest()}
