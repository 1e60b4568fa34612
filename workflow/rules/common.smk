# The plan, and how rules ask it: for a job's inputs and for its spec.
import json
import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))

from diffbench.plan.along import training_rules
from diffbench.specs.errors import PlanError
from diffbench.plan.loading import check_writable, load_plan
from diffbench.reporting.tables import outputs, table_params
from diffbench.store import paths

OVERRIDES = dict(workflow.config_settings.config)

try:
    PLAN = load_plan(workflow.configfiles, OVERRIDES, Path(workflow.basedir))
    check_writable(PLAN.root)
    TABLE_PARAMS = table_params(PLAN)
except PlanError as error:
    sys.exit(f"diffbench: {error}")


def quoted(*words):
    """Words as the shell reads them; braces doubled, for Snakemake formats the text."""
    return shlex.join(map(str, words)).replace("{", "{{").replace("}", "}}")


# `diffbench` in every rule is this checkout's, run by the interpreter that runs Snakemake, whatever PATH says.
# Device, extensions, the number of shards and where the extractor's files lie go by the environment: they are no part of
# a job's identity and must not cause reruns.
FILES = "".join(
    f" export DIFFBENCH_{key.upper()}={quoted(Path(file).resolve())};"
    for key, file in PLAN.benchmark.extractor.files.items()
)
shell.prefix(
    f"export DIFFBENCH_DEVICE={quoted(PLAN.device)}"
    f" DIFFBENCH_EXTENSIONS={quoted(os.pathsep.join(str(path.resolve()) for path in PLAN.extensions))};"
    f" export DIFFBENCH_SHARDS={PLAN.benchmark.shards};"
    f"{FILES}"
    f" diffbench() {{{{ PYTHONPATH={quoted(workflow.basedir)}${{{{PYTHONPATH:+:$PYTHONPATH}}}}"
    f' {quoted(sys.executable)} -m diffbench "$@"; }}}}; '
)

# Where things lie, with Snakemake's wildcards in place of names.
ROOT = str(PLAN.root)
RUN = (PLAN.root, "{variant}", "{seed}")
LEVELS = paths.levels(PLAN.root)
REFERENCE = [path for run in PLAN.of("reference") for path in run.products]
RUN_FOLDER = paths.run_folder(*RUN)
MODEL = paths.model(*RUN)
SAMPLES = paths.samples(*RUN, "{solver}")
SHARD = paths.shard(*RUN, "{solver}", "{shard}")
SCORES = paths.scores(*RUN)
LIKELIHOOD = paths.likelihood(*RUN, "{kind}")
RESTORATION = paths.restoration(*RUN, "{task}", "{method}")
RESTORED_IMAGES = paths.restored_images(*RUN, "{task}", "{method}")
ANALYSIS = paths.analysis(*RUN, "{analysis}")
# A classifier belongs to a process, whose name stands in the place of a variant's.
CLASSIFIER = paths.classifier(*RUN)
LOGS = PLAN.root / "logs"
BENCHMARKS = PLAN.root / "benchmarks"
RUN_NAME = "{variant}/seed{seed}"
# The wildcards of which a job's item is made; a rule has one of them, or solver and shard, or task and method.
ITEM = ("solver", "shard", "kind", "task", "method", "analysis")

# Asking for a GPU where there is none would serialise all jobs.
GPUS = int(PLAN.device != "cpu")
# Training alone can use several; Snakemake cuts a wish down to its own limit, --resources gpu=N.
TRAINING_GPUS = GPUS * PLAN.benchmark.gpus
# Only a large extractor's features are computed there.
SCORING_GPUS = GPUS * PLAN.benchmark.extractor.heavy

PLAN_ARGUMENTS = [
    "--config",
    os.path.relpath(PLAN.config),
    *(["--set", json.dumps(OVERRIDES)] if OVERRIDES else []),
]
# Tables, the claims' table and figures.
TABLES = [str(path) for path in outputs(PLAN, PLAN.root)]
RESCUE = (
    f"diffbench score --partial {quoted(*PLAN_ARGUMENTS)} || true;"
    f" diffbench table {quoted(*PLAN_ARGUMENTS)} || true"
)


wildcard_constraints:
    variant=r"[^/]+",
    seed=r"\d+",
    solver=r"[^/]+",
    shard=r"\d+of\d+",
    kind=r"[^/]+",
    task=r"[^/]+",
    method=r"[^/]+",
    analysis=r"[^/]+",


def job(stage, wildcards):
    """The plan's job for a stage and a rule's wildcards."""
    item = "/".join(wildcards[key] for key in ITEM if key in wildcards.keys())
    return PLAN.run(stage, wildcards.get("variant", ""), int(wildcards.get("seed", 0)), item)


def root_of(wildcards):
    """A params function: the results folder."""
    return ROOT


def inputs_of(stage):
    """An input function: the products that the job reads, or the files of the data set."""

    def inputs(wildcards):
        return [str(path) for path in PLAN.inputs(job(stage, wildcards))]

    return inputs


def spec_of(stage):
    """A params function: the job's exact spec as JSON."""

    def spec(wildcards):
        return job(stage, wildcards).spec.canonical()

    return spec


def threads_of(stage):
    """A threads function: what the training budget or the imported model pins, else one."""

    def threads(wildcards):
        spec = job(stage, wildcards).spec
        trained = getattr(spec, "train", spec)
        running = getattr(trained, "training", None) or getattr(trained, "pretrained", None)
        return running.threads if running else 1

    return threads
