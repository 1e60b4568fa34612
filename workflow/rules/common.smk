# The plan, and how rules ask it: for a job's inputs and for its spec.
import gc
import json
import os
import shlex
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))

# Snakemake takes braces in any path for the names of variables.
if set("{}") & set(str(workflow.basedir)):
    sys.exit(
        f"diffbench: {workflow.basedir}: Snakemake cannot run a workflow below a folder with braces in its name; move or"
        " rename it"
    )

from diffbench.cli.command import reason
from diffbench.plan import devices
from diffbench.plan.findings import altered
from diffbench.plan.loading import check_writable, load_plan
from diffbench.plan.rules import rules
from diffbench.plan.sizes import Size, estimated
from diffbench.plan.workspace import package_of
from diffbench.reporting.shown import shown_as
from diffbench.reporting.tables import outputs, table_params
from diffbench.server.client import VARIABLE, start as start_server
from diffbench.store import finished, paths, spec_files
from diffbench.watch import view
from diffbench.watch.sigterm import heed_apart
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Slurm's warning before a time limit (SIGUSR1) is for the stage; Snakemake waits for it.
signal.signal(signal.SIGUSR1, lambda *_: None)

OVERRIDES = dict(workflow.config_settings.config)


def most(name):
    """A limit of the profile or of --resources that no job's request passes."""
    limit = workflow.global_resources.get(name)
    return (limit and limit.value) or sys.maxsize


def sizes_of_plan():
    """What jobs ask of a cluster, by the estimate that the environment names; None without one."""
    file = os.environ.get("DIFFBENCH_ESTIMATE")
    if not file or not workflow.is_main_process:
        return None
    return estimated(PLAN, Path(file), Size(most("max_runtime"), most("max_mem_mb")))


try:
    #: The package that every job runs by its path: a list of paths cannot name one with a colon.
    PACKAGE = package_of(Path(workflow.basedir))
    PLAN = load_plan(workflow.configfiles, OVERRIDES, Path(workflow.basedir))
    check_writable(PLAN.root)
    TABLE_PARAMS = table_params(PLAN)
    SIZES = sizes_of_plan()
    # The plan stays; without this Python looks through all of it for garbage while Snakemake makes its jobs.
    gc.freeze()
except Exception as error:
    if os.environ.get("DIFFBENCH_DEBUG"):
        raise
    sys.exit(f"diffbench: {reason(error)}")


def quoted(*words):
    """Words as the shell reads them; braces doubled, for Snakemake formats the text."""
    return shlex.join(map(str, words)).replace("{", "{{").replace("}", "}}")


def elsewhere():
    """What only jobs on a cluster's nodes are told: that they are, and how long a file may take to be seen there."""
    if not workflow.remote_exec:
        return ""
    # Settings are not known yet; the process that submits a job hands this one on.
    option = "--latency-wait"
    seconds = sys.argv[sys.argv.index(option) + 1] if option in sys.argv else "0"
    return f" export DIFFBENCH_ELSEWHERE=1 DIFFBENCH_LATENCY={quoted(seconds)};"


# `diffbench` in every rule is this checkout's, run by the interpreter that runs Snakemake, whatever PATH says.
# Device, extensions, the number of shards and where the files of data, extractor and measures lie go by the environment: they are
# no part of a job's identity and must not cause reruns.
# A request to stop (SIGUSR1, which Slurm sends before a time limit, and SIGTERM) goes to all processes of a job: the shell and
# Snakemake wait for the stage, which saves its state.
FILES = "".join(
    f" export DIFFBENCH_{key.upper()}={quoted(Path(file).resolve())};"
    for key, file in PLAN.benchmark.files.items()
)
shell.prefix(
    # A job's stderr is its log; what a full disk keeps out of it goes to the run's own stderr.
    "trap : USR1 TERM; exec 9>&2;"
    f" export DIFFBENCH_STDERR=9; export DIFFBENCH_DEVICE={quoted(PLAN.device)}"
    f" DIFFBENCH_EXTENSIONS={quoted(json.dumps([each.words for each in PLAN.extensions]))};"
    f" export DIFFBENCH_SHARDS={PLAN.benchmark.shards} DIFFBENCH_NODES={PLAN.benchmark.nodes}"
    f" DIFFBENCH_GPUS={PLAN.benchmark.gpus};"
    f" export DIFFBENCH_DATA={quoted(PLAN.located.told)};"
    f"{FILES}{elsewhere()}"
    f' diffbench() {{{{ {quoted(sys.executable, PACKAGE)} "$@"; }}}}; '
)

#: The view of the run, once it has begun; None where Snakemake's own lines are wanted.
VIEW = None
#: The number of jobs from which a run starts a job server.
SERVED = 4
ROOT = str(PLAN.root)
LOGS = PLAN.root / "logs"
RULES = {rule.name: rule for rule in rules(PLAN)}

PLAN_ARGUMENTS = [
    "--config",
    os.path.relpath(PLAN.config),
    *(["--set", json.dumps(OVERRIDES)] if OVERRIDES else []),
]
# Tables, the claims' table and figures.
TABLES = outputs(PLAN, PLAN.root)
RESCUE = (
    f"diffbench score --partial {quoted(*PLAN_ARGUMENTS)} || true;"
    f" diffbench table {quoted(*PLAN_ARGUMENTS)} || true"
)


def slots():
    """How many jobs run at a time: on this machine by its cores, or by its GPUs where the benchmark uses them."""
    limits = [workflow.cores if workflow.local_exec else workflow.nodes]
    gpu = workflow.global_resources.get("gpu")
    if PLAN.device != "cpu" and gpu is not None:
        limits.append(gpu.value)
    return max(min(limit for limit in limits if limit), 1)


def newer_inputs(jobs):
    """Products that make jobs run again because they are newer than what those jobs have made of them."""
    made = {str(path) for job in jobs for path in job.output}
    products = {str(path) for job in PLAN.every for path in job.products} - made
    found = {}
    for job in jobs:
        times = [os.path.getmtime(path) for path in job.output if os.path.exists(path)]
        for path in map(str, job.input if times else ()):
            if path in products and os.path.exists(path) and os.path.getmtime(path) > min(times):
                found[Path(path)] = None
    return found


def check_inputs():
    """Refuse to run where a product was altered: Snakemake would remove good results before their jobs can refuse it."""
    if wrong := list(altered(newer_inputs(list(workflow.dag.needrun_jobs())))):
        raise WorkflowError("\n".join(f"diffbench: {line}" for line in wrong))


def note_places():
    """Say where data were found, and that this machine lacks the device, which may be planned for a cluster's nodes."""
    for remark in filter(None, (devices.remark(PLAN.benchmark.device), *PLAN.located.notes)):
        print(f"diffbench: {remark}", file=sys.stderr)


# The view of the run takes the place of Snakemake's own lines; DIFFBENCH_VIEW= (empty) keeps these.
def begin_view():
    global VIEW
    jobs = [list(job.log) for job in workflow.dag.needrun_jobs()]
    # Elsewhere than here, on the nodes of a cluster, nothing can be timed.
    estimated = PLAN_ARGUMENTS[1:] if workflow.local_exec else None
    VIEW = view.begin(logger, PLAN.benchmark.name, LOGS, jobs, slots(), estimated)


def end_view():
    if VIEW is not None:
        VIEW.end(logger)


def job_of(rule, wildcards):
    """The plan's job for a rule and its wildcards."""
    stage = RULES[rule].stage
    item = "/".join(wildcards[name] for name in stage.item_wildcards())
    variant, seed = wildcards.get("variant", ""), int(wildcards.get("seed", 0))
    return PLAN.job(stage.name(), variant, seed, item)


def root_of(wildcards):
    """A params function: the results folder."""
    return ROOT


def inputs_of(rule):
    """An input function: the products that the job reads, or the files of the data set."""
    return lambda wildcards: [str(path) for path in PLAN.inputs(job_of(rule, wildcards))]


def outputs_of(rule):
    """All that a job makes, its pictures for the report; what only other jobs read goes once they are done."""
    stage = RULES[rule].stage
    outputs = [PLAN.root / path for path in RULES[rule].outputs]
    if stage.temporary:
        return [temp(path) for path in outputs]
    labels = {name: f"{{{name}}}" for name in stage.wildcards()}
    return [
        (
            reported(path, "picture", "Pictures", labels, stage.name())
            if path.suffix == ".png"
            else path
        )
        for path in outputs
    ]


def reported(path, caption, category, labels, subcategory=None):
    """An output that `snakemake --report` shows, with the caption of that name in workflow/report."""
    return report(
        path,
        caption=f"../report/{caption}.rst",
        category=category,
        subcategory=subcategory,
        labels=labels,
    )


def tables_reported():
    """What is made of all results, for the report."""
    found = {path: shown_as(path) for path in TABLES}
    return [
        reported(path, each.caption, each.category, each.labels) for path, each in found.items()
    ]


def spec_of(rule):
    """A params function: the file of the job's exact spec, whose name is the spec's digest."""
    return lambda wildcards: str(
        paths.spec_file(PLAN.root, PLAN.digests[job_of(rule, wildcards).key])
    )


def write_specs():
    """Write the specs of the jobs that will run."""
    jobs = [each for each in workflow.dag.needrun_jobs() if each.rule.name in RULES]
    spec_files.write(PLAN.root, [job_of(each.rule.name, each.wildcards).spec for each in jobs])


def threads_of(rule):
    """A threads function: what the training budget or the imported model pins, else one."""
    return lambda wildcards: job_of(rule, wildcards).spec.threads


def gpus_of(rule):
    """A resources function; Snakemake cuts a wish down to its own limit, --resources gpu=N."""
    return lambda wildcards: PLAN.gpus(job_of(rule, wildcards))


def nodes_of(rule):
    """A resources function for the nodes of a training, where the benchmark asks for several."""
    if PLAN.benchmark.nodes == 1 or not RULES[rule].stage.shared:
        return {}
    return {"nodes": lambda wildcards: PLAN.nodes(job_of(rule, wildcards))}


def sizes_of(rule):
    """Resources functions for minutes and memory where there is an estimate; elsewhere those of the profile hold."""
    if SIZES is None:
        return {}
    size = lambda wildcards, attempt: SIZES.of(job_of(rule, wildcards), attempt)
    return {
        "runtime": lambda wildcards, attempt: size(wildcards, attempt).minutes,
        "mem_mb": lambda wildcards, attempt: size(wildcards, attempt).memory,
    }
