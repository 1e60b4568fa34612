"""An estimate of a plan's costs as text: hours and bytes by variant and stage, and by table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from diffbench.estimate.costs import Estimate, JobCost, Known, left, size, with_upstream
from diffbench.reporting.cells import DASH
from diffbench.reporting.layout import of_plan
from diffbench.specs.benchmark import names
from diffbench.store.run_record import peak_memory

#: The row of what all variants share.
SHARED = "(shared)"
#: CPU seconds that tables, figures and the page take: to begin, for each job that is read, and for each figure.
BEGINNING, READING, DRAWING = 2.0, 0.015, 0.25


def text(estimate: Estimate) -> str:
    """Return the whole estimate as paragraphs."""
    parts = [
        _heading(estimate),
        _variants(estimate),
        _stages(estimate),
        _tables(estimate),
        _timed(estimate),
    ]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in _notes(estimate))]) + "\n"


def as_json(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as plain numbers: the machine, this process's memory, and for each job what it costs or took.

    Seconds, MiB, and bytes left on disk.
    """
    plan, jobs = estimate.plan, {}
    for cost in estimate.costs:
        parts = plan.shards(cost.job)
        # The shards do the work of a job that is spread over them; gathering them takes no time.
        hours = 0.0 if parts else cost.hours
        jobs[cost.job.name] = _job(cost, hours)
        for part in parts:
            jobs[part.name] = _job(cost, cost.hours and cost.hours / len(parts))
    return {
        "config": str(plan.config),
        "machine": estimate.machine,
        "memory_mib": round(peak_memory(), 1),
        "jobs": jobs,
    }


def _job(cost: JobCost, hours: float | None) -> dict[str, Any]:
    return {
        "seconds": None if hours is None else float(f"{3600 * hours:.4g}"),
        "bytes": cost.size,
        "known": cost.known.name.lower(),
        "done": cost.done,
        "took": None if cost.took is None else float(f"{3600 * cost.took:.4g}"),
    }


def unit(machine: str) -> str:
    """Return the unit of an hour of that device."""
    return "CPU-hours" if machine == "cpu" else "GPU-hours"


def _heading(estimate: Estimate) -> str:
    return (
        f"{estimate.plan.config} on {estimate.machine}: {unit(estimate.machine)}, if jobs run one after another "
        f"on this device, from {estimate.repeats} timed repeats of each step and call"
    )


def _variants(estimate: Estimate) -> str:
    every = estimate.costs
    names = dict.fromkeys(cost.job.variant for cost in every)
    groups = {
        name or SHARED: [cost for cost in every if cost.job.variant == name] for name in names
    }
    rows = [_row(name, costs, estimate.stages) for name, costs in {**groups, "all": every}.items()]
    return _aligned([["variant", *estimate.stages, "hours", "disk"], *rows])


def _row(name: str, costs: Sequence[JobCost], stages: Sequence[str]) -> list[str]:
    parts = [[cost for cost in costs if cost.job.stage == stage] for stage in stages]
    return [name, *(hours(part) for part in parts), hours(costs), bytes_of(size(costs))]


def _stages(estimate: Estimate) -> str:
    """Return a row for each stage: its hours, and how they are known."""
    rows = []
    for stage in estimate.stages:
        costs = [cost for cost in estimate.costs if cost.job.stage == stage]
        rows.append([stage, str(len(costs)), hours(costs), _how_known(estimate, stage, costs)])
    return _aligned([["stage", "jobs", "hours", "known from"], *rows])


def _how_known(estimate: Estimate, stage: str, costs: Sequence[JobCost]) -> str:
    known = max((cost.known for cost in costs if cost.hours is not None), default=None)
    if known is None:
        return DASH
    if known is not Known.RECORDED:
        return known.text
    factor, count = estimate.factors[stage]
    jobs = "1 done job" if count == 1 else f"{count} done jobs"
    return f"{jobs} here, which took {factor:.2f} of what was timed or counted"


def _tables(estimate: Estimate) -> str:
    """Return a row for each table, with all jobs it builds on; tables share jobs, so their sum has no meaning."""
    rows = []
    for name, costs in table_costs(estimate).items():
        rows.append([name, str(len(costs)), hours(costs), bytes_of(size(costs))])
    return _aligned([["table", "jobs", "hours", "disk"], *rows])


def table_costs(estimate: Estimate) -> dict[str, list[JobCost]]:
    """Return the costs of each table's jobs and of the jobs that they build on."""
    plan, found = estimate.plan, {}
    for name, table in of_plan(plan).tables.items():
        shown = [job for job in plan.jobs if table.shows(job.stage, job.variant, job.item)]
        wanted = {id(job) for job in with_upstream(plan, shown)}
        found[name] = [cost for cost in estimate.costs if id(cost.job) in wanted]
    return found


def _timed(estimate: Estimate) -> str:
    rows = [
        [each.what, str(each.batch), seconds(each.seconds), _how(each.images, each.batch)]
        for each in estimate.timed
    ]
    return _aligned([["timed (named after the first variant)", "batch", "time", ""], *rows])


def _how(images: int, batch: int) -> str:
    return "" if images == batch else f"from {images} images"


def _notes(estimate: Estimate) -> Iterator[str]:
    costs = estimate.costs
    if done := [cost for cost in costs if cost.done]:
        yield f"{len(done)} of {len(costs)} jobs are done; their hours are not counted, their disk is"
    counted: dict[str, int] = {}
    for cost in costs:
        if not cost.done:
            for note in cost.notes:
                counted[note] = counted.get(note, 0) + 1
    for note, count in counted.items():
        yield f"{note} ({count} jobs)" if count > 1 else note
    without = dict.fromkeys(
        f"{cost.job.stage} of {cost.job.variant or 'the data set'}"
        for cost in costs
        if cost.hours is None
    )
    if without:
        yield f"not estimated: {', '.join(without)}"
    yield "disk: weights, two training states of each network, and samples; not the data set"
    yield (
        f"tables, figures and the page, made at the end, are no job: about {seconds(_making(estimate))} of one core, "
        f"{Known.COUNTED.text}"
    )
    if len(estimate.plan.benchmark.tables) > 1:
        yield "tables share jobs, so their hours do not add up"


def _making(estimate: Estimate) -> float:
    """Return the seconds that a benchmark's tables, figures and page take."""
    plan = estimate.plan
    return BEGINNING + READING * len(plan.jobs) + DRAWING * len(names(plan.benchmark.figures))


def hours(costs: Iterable[JobCost]) -> str:
    """Return the hours that are left as text, three digits; a dash where nothing is estimated."""
    known = [cost for cost in costs if cost.hours is not None]
    value = left(known)
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") if known else DASH


def seconds(value: float) -> str:
    """Return a time as text, in ms or s."""
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def bytes_of(count: int) -> str:
    """Return a size as text, in a suitable unit."""
    value = float(count)
    for name in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {name}"
        value /= 1000
    return f"{value:.3g} TB"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
