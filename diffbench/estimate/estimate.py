"""The expected cost of a plan on this machine: a few steps and calls are timed and multiplied.

    data                  bytes, and files where images are decoded: a guess
    reference             passes of images through the extractor, distances to the nearest images
    train, classifier     steps x seconds of a step
    sample                samples/chunk x (network calls x seconds of a call + classifier gradients x theirs)
    likelihood            test images/batch x calls x (seconds of a call + backward passes x theirs)
    restore               images x draws/chunk x calls x seconds of a call, and scores
    score                 images, distances, kernels and FIDs x seconds of each (``scoring``)
    analysis              steps and calls as above, of its own counts

The module of a stage computes the cost of its jobs, with ``cost(spec, timings)``.  Stages whose modules have no such
function, and models without a network, are not estimated.  Where jobs of a stage are done and were run on this machine,
all hours of the stage are multiplied by what these took in place of their estimate.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from diffbench.estimate.costs import (
    Cost,
    Estimate,
    JobCost,
    Timed,
    corrected,
    factors,
    hours_taken,
    is_done,
)
from diffbench.estimate.stopwatch import Clock
from diffbench.estimate.timings import Shape, Timings, Training
from diffbench.plan.jobs import Job, Plan
from diffbench.specs.errors import PlanError
from diffbench.specs.jobs import STAGES, StageSpec
from diffbench.training import machine


def estimate(
    plan: Plan,
    repeats: int = 3,
    shape: Shape | None = None,
    clock: Clock | None = None,
    compiled: bool = True,
) -> Estimate:
    """Time what a plan needs on its device, and return the costs of its jobs.

    Args:
        plan: the benchmark.
        repeats: how often each call is timed, after one call to warm up.
        shape: the shape (C, H, W) of images, where the data set does not say.
        clock: a function that returns seconds; by default of a GPU, or of all of a CPU's cores.
        compiled: whether networks are compiled, on a GPU, where their budget says so: it takes minutes.

    Raises:
        PlanError: when nothing says what shape images have.
        RuntimeError: when there is no such device, or it has too little memory for a batch.
    """
    timings = Timings(plan, repeats, shape or known_shape(plan), clock, compiled)
    name = machine.name(timings.device)
    raw = [job_cost(job, timings, name) for job in plan.jobs]
    known = factors(raw)
    measured = timings.timed.values()
    timed = [each.step for each in measured if isinstance(each, Training)]
    timed += [each for each in measured if isinstance(each, Timed)]
    stages = tuple(stage for stage in STAGES if any(cost.job.stage == stage for cost in raw))
    costs = tuple(corrected(raw, known))
    return Estimate(plan, costs, tuple(timed), stages, known, name, repeats)


def cost_of(stage: type[StageSpec]) -> Callable[[Any, Timings], Cost] | None:
    """Return the function that computes the cost of a stage's jobs; None where they are not estimated."""
    return getattr(importlib.import_module(stage.module()), "cost", None)


def job_cost(job: Job, timings: Timings, machine_name: str) -> JobCost:
    """Return the cost of one job, and what it took if it is done."""
    cost, done = cost_of(type(job.spec)), is_done(job)
    found = Cost(None) if cost is None else cost(job.spec, timings)
    took = hours_taken(job, machine_name) if done else None
    return JobCost(job=job, done=done, took=took, **vars(found))


def known_shape(plan: Plan) -> Shape:
    """Return the shape (C, H, W) of a benchmark's images, from its data's spec alone.

    Raises:
        PlanError: naming the key that would say it.
    """
    data = plan.benchmark.data
    if data.known_shape is not None:
        return data.known_shape
    lacking = [key for key in ("size", "channels") if getattr(data, key, 0) is None]
    key = f"data.{lacking[0]} is not given, and " if lacking else ""
    raise PlanError(
        f"{plan.config}: data: {key}the shape of the images of {data.name} is known only after they are read; give "
        "it with --shape, e.g. --shape 3,32,32"
    )
