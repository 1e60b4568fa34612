"""The stages' commands: each runs one job from its spec; the workflow calls them."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffbench.cli.command import CONFIG, SET, Argument, Command, argument, fail, load, reason
from diffbench.plan.devices import resolved
from diffbench.plan.jobs import Plan
from diffbench.plan.loading import check_writable
from diffbench.plan.reading import Tree, validated
from diffbench.specs.errors import PlanError
from diffbench.specs.jobs import STAGES, StageSpec
from diffbench.specs.registry import content_hash, load_extension
from diffbench.store import paths, status
from diffbench.store.products import status_of
from diffbench.training import launch


def commands() -> list[Command]:
    """Return a command for every stage."""
    example = "--root results/digits --spec JSON"
    return [
        Command(name, "jobs", stage.summary(), f"{name} {example}", run_stage, _arguments(stage))
        for name, stage in STAGES.items()
    ]


def _arguments(stage: type[StageSpec]) -> tuple[Argument, ...]:
    named = os.environ.get("DIFFBENCH_EXTENSIONS", "").split(os.pathsep)
    found = [
        argument("--root", type=Path, help="the results folder, e.g. results/digits"),
        argument("--spec", help="the spec of the job, as JSON: `snakemake -np` prints it"),
        argument("--device", default=os.environ.get("DIFFBENCH_DEVICE", "auto")),
        argument(
            "--extension", type=Path, action="append", default=[*map(Path, filter(None, named))]
        ),
    ]
    if stage.spread:
        shards = os.environ.get("DIFFBENCH_SHARDS", "1")
        found.append(
            argument("--shards", type=int, default=shards, help="the number of shards to gather")
        )
    if stage.shared:
        processes = "the number of processes that torchrun starts (0 or 1: no torchrun)"
        found.append(argument("--processes", type=int, default=1, help=processes))
    if stage.partial:
        left = "run the jobs of this stage that a failed run left"
        found += [argument("--partial", action="store_true", help=left), CONFIG, SET]
    return tuple(found)


def run_stage(options: argparse.Namespace) -> int:
    """Run one job from its spec, or, with --partial, the jobs of a failed benchmark on whatever there is."""
    if getattr(options, "partial", False):
        return run_partly(load(options), options.name)
    if options.root is None or options.spec is None:
        raise ValueError("--root and --spec are required: `snakemake -np` prints them")
    spec = read_spec(options.name, options.spec, options.extension)
    device = resolved(options.device)
    if getattr(options, "processes", 1) > 1 and spec.divided and not launch.launched():
        return launch_job(options, spec, device)
    shards = getattr(options, "shards", 1)
    return run_job(spec, options.root, device, **({"shards": shards} if shards > 1 else {}))


def read_spec(stage: str, text: str, extensions: Sequence[Path]) -> StageSpec:
    """Return a job's spec, parsed after the extensions that it uses are imported.

    Raises:
        PlanError: when an extension is not given or has changed since the plan was made.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise PlanError(f"--spec is not JSON: {error}") from None
    files = {path.name: path for path in extensions}
    for name, wanted in (value.get("extensions") or {}).items():
        if name not in files:
            raise PlanError(f"the spec uses {name}: give its path with --extension")
        if content_hash(files[name]) != wanted:
            raise PlanError(f"{files[name]} has changed since the plan was made: plan again")
        load_extension(files[name])
    model = STAGES[stage]
    return validated(model.model_validate, model, Tree(value, {(): "--spec"}))


def launch_job(options: argparse.Namespace, spec: StageSpec, device: str) -> int:
    """Run one job in several processes and return the exit status."""
    check_writable(options.root)
    words = [options.name, "--root", str(options.root), "--spec", options.spec, "--device", device]
    for file in options.extension:
        words += ["--extension", str(file)]
    state = paths.state(options.root, spec)
    return launch.launch(options.processes, words, state, on_gpus=device == "cuda")


def run_job(spec: StageSpec, root: Path, device: str, **extra: Any) -> int:
    """Run one job and return the exit status; record why it failed, or remove the record of an earlier failure."""
    check_writable(root)
    folder = paths.state(root, spec)
    if not (extra.get("partial") or launch.launched()):
        # Scoring what a failed run left must not remove the record of its failure.  Nor must one of several processes:
        # the launcher has removed it already, and another process may just have failed.
        status.clear(folder)
    try:
        importlib.import_module(spec.module()).run(spec, root, device, **extra)
    except Exception as error:
        # A full disk may be the reason; then the status cannot be written either.
        # Of several processes the first that fails records the reason; the others fail because of it.
        with suppress(OSError):
            if not (launch.launched() and status.read_status(folder)):
                status.record_failure(folder, spec.stage, reason(error), traceback.format_exc())
        return fail(spec.stage, error)
    return 0


def run_partly(plan: Plan, stage: str) -> int:
    """Run the jobs of a stage that are not done but have some of their variant's products; return 1 if any failed."""
    failed = 0
    for job in plan.of(stage):
        own = [each for each in plan.upstream(job) if each.variant]
        some = any(status_of(each.product, each.spec) == "ok" for each in own)
        if some and status_of(job.product, job.spec) != "ok":
            failed |= run_job(job.spec, plan.root, plan.device, partial=True)
    return failed
