"""What plans, dry runs, tables and the page cost as a benchmark grows: CPU seconds and peak memory of one process each.

A variant with 10 seeds and 8 solvers has 100 jobs; 1,000 jobs are 10 variants, which a sweep makes.  Arguments: numbers
of jobs (default: 1000 10000 100000), and `--of` with what to measure.  Results are made up for the tables: a file of
scores for each run, and files of two words for the rest.  Most of a dry run is Snakemake's own.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

from diffbench.plan.jobs import Plan
from diffbench.plan.loading import load_plan
from diffbench.plan.rules import rules
from diffbench.reporting.tables import table_params
from diffbench.specs.jobs import ScoreSpec
from diffbench.store.products import write_json_product, write_product

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = "bench.yaml"
SEEDS, SOLVERS = 10, 8
JOBS_OF_VARIANT = SEEDS * (SOLVERS + 2)
SNAKEMAKE = ["-m", "snakemake", "-s", f"{REPOSITORY}/Snakefile", "--configfile", CONFIG, "--quiet"]
#: What is measured -> the arguments of Python for it.
COMMANDS = {
    "plan": [__file__, "--plan"],
    "dry-run": [*SNAKEMAKE, "-n"],
    "batch": [*SNAKEMAKE, "-n", "tables", "--batch", "tables=1/10"],
    "tables": ["-m", "diffbench", "table", "--config", CONFIG],
}


def benchmark(jobs: int) -> dict:
    """Return a benchmark file of about so many jobs; the data set and the reference are two more."""
    rates = [round(1e-3 + 1e-6 * number, 6) for number in range((jobs - 2) // JOBS_OF_VARIANT)]
    grown = {
        "sweep": {"lr": rates},
        "process": "vp",
        "denoiser": {"predict": "eps"},
        "objective": "score-matching",
        "training": {"lr": "{lr}"},
        "solvers": {
            f"heun-{steps}": {"name": "heun", "steps": steps} for steps in range(2, 2 + SOLVERS)
        },
    }
    return {
        "name": "growth",
        "data": "digits",
        "network": {"name": "unet", "channels": 8},
        "training": {"steps": 4, "batch": 16},
        "device": "cpu",
        "seeds": list(range(SEEDS)),
        "samples": 64,
        "methods": {"grown-{lr}": grown},
        "variants": ["grown-*"],
    }


def planned() -> Plan:
    """Return the plan of the benchmark in the working directory."""
    return load_plan([CONFIG], {}, REPOSITORY)


def ask() -> None:
    """Make a plan and ask of it all that the Snakefile does."""
    plan = planned()
    table_params(plan)
    gc.freeze()
    rules(plan)
    for job in plan.jobs:
        _ = job.products, job.extras, plan.inputs(job), plan.digests[job.key]


def fabricate() -> None:
    """Write results that look whole."""
    plan = planned()
    score = {"metrics": {"fid": {"value": 2.0, "se": 0.1}}, "nfe": 10, "samples": 64}
    # Nothing that is made up needs to outlive a power cut.
    with mock.patch.object(os, "fsync"):
        for job in plan.jobs:
            for path in job.products:
                if isinstance(job.spec, ScoreSpec):
                    content = {"solvers": dict.fromkeys(job.spec.samples, score), "protocol": {}}
                    write_json_product(path, content, job.spec)
                else:
                    write_product(path, b"made up", job.spec)


def spent(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Return the CPU seconds and the peak memory in MB of a Python process and those that it waited for."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    said = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments}: {said[-2000:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="*", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--of", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--plan", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        ask()
        return
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    print(f"{'jobs':>8}  {'of':8}  CPU s  peak MB")
    for jobs in options.jobs:
        with tempfile.TemporaryDirectory() as name:
            Path(name, CONFIG).write_text(json.dumps(benchmark(jobs)))
            for what in options.of:
                if what == "tables":
                    os.chdir(name)
                    fabricate()
                    os.chdir(REPOSITORY)
                seconds, memory = spent(COMMANDS[what], Path(name))
                print(f"{jobs:8,}  {what:8}  {seconds:5.1f}  {memory:7,.0f}", flush=True)


if __name__ == "__main__":
    main()
