"""Commands around a run: check its file, estimate its cost, import checkpoints for it, and make its tables."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
from pathlib import Path

from diffbench.cli.command import (
    CONFIG,
    FILE,
    SET,
    WRITE,
    argument,
    command,
    deliver,
    load,
    repository,
    setting,
)


@command(
    "run",
    "init my-benchmark",
    argument("folder", type=Path, metavar="FOLDER", help="a new or empty folder"),
)
def init(options: argparse.Namespace) -> int:
    """Make a folder to run benchmarks in, without a checkout."""
    from diffbench.plan import workspace

    for path in workspace.lay(options.folder):
        print(path)
    print(f"cd {options.folder} && snakemake --cores all --configfile examples/tiny.yaml")
    return 0


@command(
    "run",
    "check-config config/digits.yaml",
    FILE,
    argument(
        "--text",
        action="store_true",
        help="only read the file: nothing in it is looked up or imported",
    ),
    SET,
)
def check_config(options: argparse.Namespace) -> int:
    """Check a benchmark file and say what it would run."""
    from diffbench.plan.reading import read

    if options.text:
        read(options.file)
        return 0
    from diffbench.plan.loading import check_writable
    from diffbench.plan.remarks import remarks
    from diffbench.reporting import tables
    from diffbench.specs.jobs import STAGES

    plan = load(options, looks=True)
    # All that the workflow asks before it runs a job.
    check_writable(plan.root)
    tables.table_params(plan)
    jobs = ", ".join(f"{len(plan.of(stage))} {stage}" for stage in STAGES)
    print(f"{options.file}: {len(plan.variants)} variants on {plan.device}; jobs: {jobs}")
    for remark in remarks(plan):
        print(f"  {remark}")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number of at least 1")
    return int(text)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text!r}: must be C,H,W, such as 3,32,32")
    return tuple(_count(part.strip()) for part in parts)


@command(
    "run",
    "estimate config/cifar10.yaml --set only=vp",
    FILE,
    argument("--steps", type=_count, default=3, help="steps to time, of each kind (default 3)"),
    argument(
        "--shape",
        type=_shape,
        metavar="C,H,W",
        help="shape of the images, where the data set does not say it",
    ),
    argument("--json", action="store_true", help="print what each job needs, as JSON"),
    WRITE,
    argument(
        "--no-compile", action="store_true", help="time networks as they are, which is sooner done"
    ),
    SET,
)
def estimate(options: argparse.Namespace) -> int:
    """Say what a benchmark would cost on this machine, from a few timed steps."""
    plan = load(options, needs_files=False)
    report = importlib.import_module("diffbench.estimate.report")
    module = importlib.import_module("diffbench.estimate.estimate")
    found = module.estimate(plan, options.steps, options.shape, compiled=not options.no_compile)
    text = json.dumps(report.as_json(found)) + "\n" if options.json else report.text(found)
    return deliver(text, options.write)


@command(
    "run",
    "import edm edm-cifar10-32x32-uncond-vp.pkl --name edm-cifar10",
    argument(
        "family",
        metavar="FAMILY",
        help="the layout of the checkpoint: see diffbench list families; or BENCHMARK:VARIANT, for the weights of "
        "that variant's network; or a published checkpoint, which is fetched: see diffbench list checkpoints",
    ),
    argument("file", type=Path, nargs="?", help="the checkpoint; of a published one a local copy"),
    argument(
        "--to", type=Path, metavar="FOLDER", help="the folder to write (default: models/NAME)"
    ),
    argument(
        "--name", dest="called", default="", help="the name of the model (default: the file's name)"
    ),
    argument(
        "--denoiser",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the denoiser where the family's own value is wrong (predict=eps)",
    ),
)
def import_(options: argparse.Namespace) -> int:
    """Turn a paper's checkpoint into weights that a variant can name."""
    importing = importlib.import_module("diffbench.pretrained.importing")
    denoiser = {key: value for each in options.denoiser for key, value in each.items()}
    family, file, called = options.family, options.file, options.called
    cards = importlib.import_module("diffbench.pretrained.cards")
    known = cards.cards(repository())
    published = cards.card(family, known) if file is None else known.get(family)
    if published:
        file, called = published.file(family).local(file), called or family
        family = published.family
    process = published.process if published else importing.process_beside(family, file)
    folder, spec = importing.import_checkpoint(
        family, file, options.to, called, denoiser, repository()
    )
    channels, height, width = spec.image_shape
    averaged = ", averaged" if spec.ema else ", averaged or not is not known"
    print(
        f"{folder}: {spec.network.name} of {spec.family}, {spec.parameters:,} parameters{averaged}, for "
        f"{height}x{width} images with {channels} channel{'s' if channels > 1 else ''}"
    )
    if process is not None:
        print(f"a variant: {json.dumps({'pretrained': str(folder), 'process': process})}")
    return 0


@command("run", "table --config config/digits.yaml", CONFIG, SET)
def table(options: argparse.Namespace) -> int:
    """Make the tables from whatever results exist."""
    from diffbench.store import paths

    # Nearly all that is made here is needed to the end: to look for what is not would take a tenth of the time.
    gc.set_threshold(50_000, 20, 20)
    plan = load(options, needs_files=False)
    # Snakemake's rule writes this mark again; without it, a later run makes the tables anew.
    paths.tables_complete(plan.root).unlink(missing_ok=True)
    for path in importlib.import_module("diffbench.reporting.tables").make(plan, plan.root):
        print(path)
    return 0
