"""The stages' commands: each runs one job from its spec; the workflow calls them."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from diffbench.cli.command import (
    AN_EXTENSION,
    CONFIG,
    SET,
    Argument,
    Command,
    argument,
    fail,
    load,
    parser,
    reason,
    repository,
)
from diffbench.plan import places
from diffbench.plan.devices import resolved
from diffbench.plan.jobs import Plan
from diffbench.plan.loading import check_writable, load_plan
from diffbench.plan.reading import Tree, validated
from diffbench.specs.errors import PlanError, Stopped
from diffbench.specs.extensions import load_used
from diffbench.specs.jobs import STAGES, StageSpec
from diffbench.store import finished, paths, spec_files, status
from diffbench.store.products import status_of
from diffbench.store.progress import announce
from diffbench.training import launch

#: The environment variable that says that a job runs on a cluster, which may call it failed although it has finished.
ELSEWHERE = "DIFFBENCH_ELSEWHERE"
#: The arguments with which images that were made elsewhere are scored without a benchmark file.
IMAGES = (
    argument(
        "images",
        nargs="?",
        help="a folder, zip or tar of PNGs, or an npz, of images that were made elsewhere: score them",
    ),
    argument(
        "--against",
        default="digits",
        metavar="BENCHMARK",
        help="the benchmark, or its file, whose data and protocol they are scored by (default digits)",
    ),
    argument(
        "--levels",
        type=int,
        default=256,
        help="the number of grey levels of these images (default 256)",
    ),
)


def commands() -> list[Command]:
    """Return a command for every stage."""
    example = "--root results/digits --spec FILE"
    return [
        Command(name, "jobs", stage.summary(), f"{name} {example}", run_stage, _arguments(stage))
        for name, stage in STAGES.items()
    ]


def _arguments(stage: type[StageSpec]) -> tuple[Argument, ...]:
    named = json.loads(os.environ.get("DIFFBENCH_EXTENSIONS") or "[]")
    found = [
        argument("--root", type=Path, help="the results folder, e.g. results/digits"),
        argument("--spec", help="the spec of the job: the file that a run writes, or JSON"),
        argument("--device", default=os.environ.get("DIFFBENCH_DEVICE", "auto")),
        argument("--extension", action="append", default=[*named], help=AN_EXTENSION),
    ]
    if stage.spread:
        shards = os.environ.get("DIFFBENCH_SHARDS", "1")
        found.append(
            argument("--shards", type=int, default=shards, help="the number of shards to gather")
        )
    if stage.shared:
        processes = "the number of processes that torchrun starts (0 or 1: no torchrun)"
        found.append(argument("--processes", type=int, default=1, help=processes))
        nodes = "the number of nodes of Slurm's allocation that share the processes"
        given = os.environ.get("DIFFBENCH_NODES", "1")
        found.append(argument("--nodes", type=int, default=given, help=nodes))
    if stage.partial:
        left = "run the jobs of this stage that a failed run left"
        found += [argument("--partial", action="store_true", help=left), CONFIG, SET, *IMAGES]
    return tuple(found)


def run_stage(options: argparse.Namespace) -> int:
    """Run one job from its spec, or, with --partial, the jobs of a failed benchmark on whatever there is."""
    if getattr(options, "partial", False):
        return run_partly(load(options), options.name)
    if getattr(options, "images", None):
        return score_images(options)
    if options.root is None or options.spec is None:
        raise ValueError("--root and --spec are required")
    spec = read_spec(options.name, options.spec, options.extension)
    if not os.environ.get(ELSEWHERE) or launch.is_part():
        return call_stage(options, spec)
    if finished.restored(options.root, spec):
        announce(f"{spec.stage}: an earlier attempt had finished, its files are put back")
        # What became of attempts is forgotten, as when a job is done.
        with status.started(paths.state(options.root, spec), spec.stage):
            return 0
    code = call_stage(options, spec)
    if code == 0:
        finished.keep(options.root, spec)
    return code


def call_stage(options: argparse.Namespace, spec: StageSpec) -> int:
    """Run one job, in several processes if the options say so, and return the exit status."""
    device = resolved(options.device)
    if spec.divided and device == "cuda" and getattr(options, "processes", 1) == 0:
        # Snakemake does not know of the GPUs that a site gives by --gres.
        options.processes = int(os.environ.get("DIFFBENCH_GPUS", "1"))
    if getattr(options, "processes", 1) > 1 and spec.divided and not launch.launched():
        return launch_job(options, spec, device)
    shards = getattr(options, "shards", 1)
    return run_job(spec, options.root, device, **({"shards": shards} if shards > 1 else {}))


def read_spec(stage: str, text: str, extensions: Sequence[str]) -> StageSpec:
    """Return a job's spec, parsed after the extensions that it uses are imported.

    Args:
        stage: the job's stage.
        text: the spec as JSON, or the path of its file (``spec_files``).
        extensions: the sources that are given.

    Raises:
        PlanError: when an extension is not given or has changed since the plan was made.
        StoreError: when the file is missing or altered.
    """
    if text.endswith(".json"):
        text = spec_files.read(Path(text))
    try:
        value = json.loads(text)
    except ValueError as error:
        raise PlanError(f"--spec is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise PlanError("--spec must be a JSON mapping")
    load_used(value.get("extensions") or {}, extensions, "--extension")
    model = STAGES[stage]
    return validated(model.model_validate, model, Tree(value, {(): "--spec"}))


def launch_job(options: argparse.Namespace, spec: StageSpec, device: str) -> int:
    """Run one job in several processes and return the exit status."""
    check_writable(options.root)
    words = [options.name, "--root", str(options.root), "--spec", options.spec, "--device", device]
    for named in options.extension:
        words += ["--extension", named]
    folder, on_gpus = paths.state(options.root, spec), device == "cuda"
    start = partial(launch.launch, options.processes, words, folder, on_gpus=on_gpus)
    if launch.is_part():
        return start(nodes=options.nodes)
    try:
        with status.started(folder, spec.stage):
            code = start(nodes=options.nodes)
            if code:
                raise SystemExit(code)
    except Exception as error:
        status.record_failure(folder, spec.stage, reason(error))
        raise
    except SystemExit:
        if status.read_status(folder) is None or code != 1:
            ended = "stopped when asked to" if code != 1 else "its processes ended early"
            status.record_failure(folder, spec.stage, f"{ended}: run the command again")
    return code


def run_job(spec: StageSpec, root: Path, device: str, **extra: Any) -> int:
    """Run one job and return the exit status; record why it failed, or remove the record of an earlier failure.

    Raises:
        Stopped: when the process was asked to stop.
    """
    check_writable(root)
    folder = paths.state(root, spec)
    # Scoring what a failed run left must not remove the record of its failure.  Nor must one of several processes: the
    # launcher has removed it already, and another process may just have failed.
    alone = not (extra.get("partial") or launch.launched())
    try:
        with (
            status.started(folder, spec.stage) if alone else nullcontext(),
            recorded(spec, folder),
        ):
            importlib.import_module(spec.module()).run(spec, root, device, **extra)
    except Stopped:
        raise
    except (Exception, SystemExit) as error:
        return fail(spec.stage, error)
    return 0


@contextmanager
def recorded(spec: StageSpec, folder: Path) -> Iterator[None]:
    """Record why the block failed, for the tables to quote."""
    try:
        yield
    except BaseException as error:
        # A full disk may be the reason; then the status cannot be written either.
        # Of several processes the first that fails records the reason; the others fail because of it.
        with suppress(OSError):
            if not (launch.launched() and status.read_status(folder)):
                status.record_failure(folder, spec.stage, reason(error), traceback.format_exc())
        raise


def record_death(words: Sequence[str], number: int, seconds: float) -> None:
    """Record, for the tables to quote, that a signal ended the process of a stage's command after so many seconds."""
    options = parser(commands()).parse_args(list(words))
    spec = read_spec(options.name, options.spec, options.extension)
    status.record_death(paths.state(options.root, spec), spec.stage, number, seconds)


def run_partly(plan: Plan, stage: str) -> int:
    """Run the jobs of a stage that are not done but have some of their variant's products; return 1 if any failed."""
    failed = 0
    for job in plan.of(stage):
        own = [each for each in plan.upstream(job) if each.variant]
        some = any(status_of(each.product, each.spec) == "ok" for each in own)
        if some and status_of(job.product, job.spec) != "ok":
            failed |= run_job(job.spec, plan.root, plan.device, partial=True)
    return failed


def score_images(options: argparse.Namespace) -> int:
    """Score images that were made elsewhere as a benchmark scores its samples, and print their row."""
    from diffbench.reporting import tables
    from diffbench.reporting.formats import to_markdown

    if not Path(options.images).exists():
        raise PlanError(f"{options.images}: there is no such file or folder of images")
    file = Path(options.against)
    if not file.suffix:
        file = repository() / "config" / f"{options.against}.yaml"
    name = "images-" + (
        re.sub(r"[^a-z0-9]+", "-", Path(options.images).stem.lower()).strip("-") or "1"
    )
    control = {"name": "images", "path": options.images, "levels": options.levels}
    alone: dict[str, Any] = {"claims": [], "figures": [], "tuned": {}, "overrides": {}}
    alone |= {"restorations": {"tasks": {}, "variants": []}, "tables": ["overview"]}
    method = {name: {"control": control, "note": f"images of {options.images}"}}
    given = alone | {"variants": [name], "methods": method, "seeds": [0]}
    plan = load_plan([file], given, repository(), "score")
    os.environ[places.VARIABLE] = plan.located.told
    for job in plan.jobs:
        # The images may be others than those of an earlier call; what belongs to the data set stays.
        known = not job.variant and status_of(job.product, job.spec) == "ok"
        if not known and run_job(job.spec, plan.root, plan.device):
            return 1
    print(to_markdown(tables.tables(plan, plan.root)["overview"]), end="")
    return 0
