"""The expected cost of a plan on this machine: a few steps and calls are timed and multiplied.

    train, classifier     steps x seconds of a step
    sample                samples/chunk x (network calls x seconds of a call + classifier gradients x theirs)
    likelihood            test images/batch x calls x (seconds of a call + backward passes x theirs)
    restore               images x draws/chunk x calls x seconds of a call

The module of a stage computes the cost of its jobs, with ``cost(spec, timings)``.  Stages whose modules have no such
function, and models without a network, are not estimated.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from diffbench.estimate.costs import Cost, Estimate, JobCost, Timed, is_done
from diffbench.estimate.stopwatch import Clock
from diffbench.estimate.timings import Shape, Timings, Training
from diffbench.plan.jobs import Job, Plan
from diffbench.specs.errors import PlanError
from diffbench.specs.jobs import STAGES, StageSpec
from diffbench.training import machine


def estimate(
    plan: Plan, repeats: int = 3, shape: Shape | None = None, clock: Clock | None = None
) -> Estimate:
    """Time what a plan needs on its device, and return the costs of its jobs.

    Args:
        plan: the benchmark.
        repeats: how often each call is timed, after one call to warm up.
        shape: the shape (C, H, W) of images, where the data set does not say.
        clock: a function that returns seconds; by default of a GPU, or of all of a CPU's cores.

    Raises:
        PlanError: when nothing says what shape images have.
        RuntimeError: when there is no such device, or it has too little memory for a batch.
    """
    timings = Timings(plan, repeats, shape or known_shape(plan), clock)
    costs = tuple(job_cost(plan, job, timings) for job in plan.jobs)
    measured = timings.timed.values()
    timed = [each.step for each in measured if isinstance(each, Training)]
    timed += [each for each in measured if isinstance(each, Timed)]
    stages = tuple(name for name, stage in STAGES.items() if cost_of(stage) and plan.of(name))
    name = machine.name(timings.device)
    return Estimate(plan, costs, tuple(timed), stages, name, repeats)


def cost_of(stage: type[StageSpec]) -> Callable[[Any, Timings], Cost] | None:
    """Return the function that computes the cost of a stage's jobs; None where they are not estimated."""
    return getattr(importlib.import_module(stage.module()), "cost", None)


def job_cost(plan: Plan, job: Job, timings: Timings) -> JobCost:
    """Return the cost of one job."""
    cost = cost_of(type(job.spec))
    found = Cost(None) if cost is None else cost(job.spec, timings)
    return JobCost(job=job, done=is_done(plan, job), **vars(found))


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
