"""Whole runs of the tiny benchmark, and dry runs on its results."""

import csv
import json
import shutil

import pytest
from commands import (
    CONFIG,
    PATIENCE,
    REPOSITORY,
    bench,
    jobs_of,
    plan_of,
    planned,
    run,
    said,
    snakemake,
    write_config,
)

from diffbench.store import paths
from diffbench.store.manifest import manifest
from diffbench.store.products import status_of

NOTHING = "Nothing to be done"
EDM = {"train edm", "sample edm heun-3", "score edm"}
DDPM = {
    "train ddpm-cosine",
    "sample ddpm-cosine ancestral-10",
    "sample ddpm-cosine ddim-5",
    "score ddpm-cosine",
    "likelihood ddpm-cosine vlb-small",
}


def override(variant, **keys):
    """What changes one variant in the benchmark file."""
    return {"overrides": {variant: keys}}


def products(folder):
    return manifest(folder / "results" / "tiny")


def overview(folder):
    """The rows of the overview's CSV."""
    with (folder / "results" / "tiny" / "tables" / "overview.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def cells(rows, status):
    """(variant, solver or likelihood) of those rows that have a status."""
    return {(row["variant"], row["solver"]) for row in rows if row["status"] == status}


pytestmark = pytest.mark.slow


# One real run.


def test_the_run_finds_its_profile(first):
    _, printed = first
    assert "Using workflow specific profile" in printed
    assert "profiles/default for setting default command line arguments" in printed


def test_every_cell_of_the_tables_is_filled(first):
    folder, _ = first
    rows = overview(folder)
    wanted = {(run.variant, run.item) for s in ("sample", "likelihood") for run in plan(folder, s)}
    assert cells(rows, "ok") == wanted
    assert {row["status"] for row in rows} == {"ok"}
    assert all(float(row["ours_mean"]) == float(row["ours_mean"]) for row in rows)
    tables = folder / "results" / "tiny" / "tables"
    for suffix in ("md", "tex"):
        text = (tables / f"overview.{suffix}").read_text()
        assert not [word for word in ("failed", "missing", "stale", "nan") if word in text]
        shown = {line.split()[2:4:2] and line.split()[1] for line in text.splitlines() if "|" in line}
        assert suffix == "tex" or {variant for variant, _ in wanted} <= shown


def plan(folder, stage):
    return plan_of(folder).of(stage)


def test_every_product_fits_its_sidecar_and_every_cell_has_a_picture(first):
    folder, _ = first
    for job in plan_of(folder).runs:
        assert {status_of(folder / path, job.spec) for path in job.products} == {"ok"}
        assert json.loads((folder / paths.run_record(job.product)).read_text())["seconds"] > 0
    for job in plan(folder, "sample"):
        picture = folder / paths.grid(job.root, job.variant, job.seed, job.item)
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_second_run_has_nothing_to_do_whatever_is_touched_or_remarked(made):
    before = products(made)
    write_config(made, text="\n# a remark\n")
    done = bench("-c1", cwd=made)
    assert done.returncode == 0
    assert NOTHING in said(done)
    assert products(made) == before


def test_one_core_and_another_folder_give_the_same_products(first, tmp_path):
    write_config(tmp_path)
    done = bench("-c1", "--directory", "else where", "--config", "only=[ddpm-cosine]", cwd=tmp_path)
    assert done.returncode == 0, said(done)
    found, wanted = products(tmp_path / "else where"), products(first[0])
    assert {path.split("/")[1] for path in found if path.startswith("runs")} == {"ddpm-cosine"}
    assert found == {path: wanted[path] for path in found}
    assert len(found) == len([path for path in wanted if "edm" not in path and "control" not in path])


# Dry runs on a copy of it.


@pytest.mark.parametrize(
    ("changes", "jobs"),
    [
        (override("ddpm-cosine", training={"lr": 2e-3}), DDPM | {"tables"}),
        (
            override("edm", solvers={"heun-2": {"name": "heun", "steps": 2}}),
            {"sample edm heun-2", "score edm", "tables"},
        ),
        (
            {"samples": 70},
            {job for job in DDPM | EDM if job.startswith(("sample", "score"))}
            | {"sample control-test draw", "score control-test", "tables"},
        ),
    ],
    ids=["lr", "solver", "samples"],
)
def test_a_change_plans_what_depends_on_it_and_nothing_else(made, changes, jobs):
    write_config(made, changes)
    assert planned(bench("-n", cwd=made)) == jobs


def test_two_benchmarks_in_one_folder_do_not_mix(made):
    write_config(made, {"name": "other", "seeds": [0]})
    done = bench("-n", cwd=made)
    assert planned(done) == jobs_of(plan_of(made))
    assert "results/other" in said(done)
    assert "results/tiny" not in said(done)


def test_results_of_another_spec_are_stale_until_the_doctor_removes_them(made):
    shutil.rmtree(made / ".snakemake")
    write_config(made, override("edm", training={"lr": 2e-3}))
    assert NOTHING in said(bench("-n", cwd=made))
    assert run("table", "--config", CONFIG, cwd=made).returncode == 0
    rows = overview(made)
    assert cells(rows, "stale") == {("edm", "heun-3")}
    assert cells(rows, "ok") == {(row["variant"], row["solver"]) for row in rows} - {
        ("edm", "heun-3")
    }
    assert all("lr = 0.001, and 0.002 is wanted" in r["note"] for r in rows if r["status"] != "ok")
    found = run("doctor", "--config", CONFIG, cwd=made)
    assert found.returncode == 1
    stale = [line.split()[1] for line in found.stdout.splitlines() if line.startswith("stale")]
    folder = "results/tiny/runs/edm/seed0"
    assert stale == [
        f"{folder}/{name}"
        for name in ("model.safetensors", "samples/heun-3/samples.npz", "scores.json")
    ]
    assert run("doctor", "--fix", "--config", CONFIG, cwd=made).returncode == 0
    assert planned(bench("-n", cwd=made)) == EDM | {"tables"}


# Failures.

EXTENSION = f"""\
import os, time
from pathlib import Path
from typing import Literal

from diffbench.diffusion.objectives import Simple
from diffbench.diffusion.solvers.ode import Heun
from diffbench.specs.objective import SimpleSpec
from diffbench.specs.solver import HeunSpec


class BrokenSolver(Heun):
    def step(self, *arguments):
        raise RuntimeError("the solver broke on purpose")


class BrokenObjective(Simple):
    def view(self, prediction):
        raise RuntimeError("the objective broke on purpose")


class MeetingObjective(Simple):
    '''Goes on when another process has come here too.'''

    def __init__(self, *arguments):
        super().__init__(*arguments)
        Path(f"meeting-{{os.getpid()}}").touch()
        end = time.monotonic() + {PATIENCE}
        while len(list(Path().glob("meeting-*"))) < 2:
            if time.monotonic() > end:
                raise TimeoutError("nobody came")
            time.sleep(0.01)


class BrokenSolverSpec(HeunSpec):
    name: Literal["broken"] = "broken"
    implementation = BrokenSolver


class BrokenObjectiveSpec(SimpleSpec):
    name: Literal["broken"] = "broken"
    implementation = BrokenObjective


class MeetingObjectiveSpec(SimpleSpec):
    name: Literal["meeting"] = "meeting"
    implementation = MeetingObjective
"""


def test_what_fails_costs_nothing_else_its_cells(made):
    (made / "mine.py").write_text(EXTENSION)
    broken = {
        "extensions": ["mine.py"],
        "overrides": {
            "edm": {"objective": {"name": "broken"}},
            "ddpm-cosine": {"solvers": {"broken-3": {"name": "broken", "steps": 3}}},
        },
    }
    before = products(made)
    write_config(made, broken)
    # Its other solvers have to be scored although one has no samples.
    shutil.rmtree(made / "results" / "tiny" / "runs" / "ddpm-cosine" / "seed0" / "scores.json", True)
    done = bench("-c2", cwd=made)
    assert done.returncode == 1
    rows = overview(made)
    failed = {("edm", "heun-3"), ("ddpm-cosine", "broken-3")}
    assert cells(rows, "failed") == failed
    assert cells(rows, "ok") == {(row["variant"], row["solver"]) for row in rows} - failed
    for (variant, solver), reason in {
        ("edm", "heun-3"): "train: the objective broke on purpose (RuntimeError)",
        ("ddpm-cosine", "broken-3"): "sample: the solver broke on purpose (RuntimeError)",
    }.items():
        found = [row for row in rows if (row["variant"], row["solver"]) == (variant, solver)]
        text = (made / "results" / "tiny" / "tables" / "overview.md").read_text()
        assert reason in text
        line = next(line for line in text.splitlines() if f"| {solver} " in line)
        assert "failed" in line
        assert {row["note"] for row in found if row["status"] == "failed"} == {reason}
    # Mended, all is as if it had never been.
    (made / "mine.py").unlink()
    write_config(made)
    mended = bench("-c2", cwd=made)
    assert mended.returncode == 0, said(mended)
    assert cells(overview(made), "failed") == set()
    extra = "runs/ddpm-cosine/seed0/samples/broken-3"
    assert {k: v for k, v in products(made).items() if extra not in k} == before


def test_two_cores_train_two_variants_at_a_time(prepared):
    (prepared / "mine.py").write_text(EXTENSION)
    together = {
        "extensions": ["mine.py"],
        "only": ["ddpm-cosine", "edm"],
        "overrides": {
            "edm": {"objective": {"name": "meeting"}},
            "ddpm-cosine": {"objective": {"name": "meeting"}},
        },
    }
    write_config(prepared, together)
    done = bench("-c2", "--until", "train", "--rerun-triggers", "mtime", cwd=prepared)
    assert done.returncode == 0, said(done)
    assert len(list(prepared.glob("meeting-*"))) == 2


# Mistakes, before any job. All kinds of them: test_plan.py.


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            override("edm", solvers={"heun-3": {"name": "huen", "steps": 3}}),
            "bench.yaml:27: edm.solvers.heun-3: 'huen' is no solver; did you mean 'heun'?",
        ),
        ({"training": {"steps": -4}}, "training.steps: must be greater than 0, not -4"),
    ],
)
def test_a_mistake_is_one_line_and_status_1_and_no_job(tmp_path, changes, named):
    write_config(tmp_path, changes)
    done = bench("-c1", cwd=tmp_path)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow")]
    assert len(lines) == 1
    assert lines[0].startswith("diffbench: bench.yaml:")
    assert named in lines[0]
    assert not (tmp_path / "results").exists()


# What else the Snakefile promises.


def test_without_a_file_the_digits_are_planned_and_only_takes_a_part(tmp_path):
    done = snakemake("-n", "--config", "only=edm", cwd=tmp_path)
    jobs = planned(done)
    assert "train edm" in jobs
    assert {job.split()[1] for job in jobs if " " in job} == {"edm"}
    assert "results/digits/runs/edm/seed0/model.safetensors" in said(done)


def test_a_gpu_is_asked_for_where_one_is_used(tmp_path):
    write_config(tmp_path, {"device": "cuda"})
    done = bench("-n", cwd=tmp_path)
    # train, sample and likelihood; data and scores are made on the CPU.
    stages = [run.stage for run in plan_of(tmp_path).runs]
    wanted = sum(stages.count(stage) for stage in ("train", "sample", "likelihood"))
    assert said(done).count("gpu=1") == wanted
    assert not (tmp_path / "results").exists()


def test_the_linter_is_content(tmp_path):
    done = snakemake("--lint", cwd=tmp_path)
    assert done.returncode == 0, said(done)
