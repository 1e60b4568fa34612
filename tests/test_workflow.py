"""Whole runs of the tiny benchmark, and dry runs on its results."""

import base64
import csv
import json
import math
import re
import shutil
import sys
from collections import Counter

import pytest
from commands import (
    CONFIG,
    PATIENCE,
    REPOSITORY,
    TINY,
    bench,
    jobs_of,
    merged,
    plan_of,
    planned,
    run,
    said,
    snakemake,
    write_config,
)

from diffbench.reporting.tables import outputs
from diffbench.specs.extensions import source
from diffbench.specs.objectives import ObjectiveSpec
from diffbench.specs.operators import OperatorSpec
from diffbench.specs.restorers import RestorerSpec
from diffbench.specs.solvers import SolverSpec
from diffbench.store import paths
from diffbench.store.manifest import manifest
from diffbench.store.products import remove_product, status_of

NOTHING = "Nothing to be done"


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


# One real run.


def test_the_run_finds_its_profile(first):
    _, printed = first
    assert "Using workflow specific profile" in printed
    assert "profiles/default for setting default command line arguments" in printed


def test_the_log_of_a_run_has_a_line_for_each_job(first):
    _, printed = first
    lines = re.findall(r"^(\d+) of (\d+) jobs done: [\w/@.-]+, \d", printed, re.MULTILINE)
    total = len(lines)
    assert [int(done) for done, _ in lines] == list(range(1, total + 1))
    assert {int(each) for _, each in lines} == {total}
    assert f"tiny: {total} of {total} jobs done; " in printed
    assert "\nlocalrule " not in printed


def test_every_cell_of_the_tables_is_filled(first):
    folder, _ = first
    rows = overview(folder)
    wanted = {(job.variant, job.item) for job in cells_of(folder)}
    assert cells(rows, "ok") == wanted
    assert {row["status"] for row in rows} == {"ok"}
    assert all(math.isfinite(float(row["ours_mean"])) for row in rows)
    tables = folder / "results" / "tiny" / "tables"
    for suffix, edge, between, nothing in [("md", "|", "|", "–"), ("tex", "\\", "&", "--")]:
        lines = (tables / f"overview.{suffix}").read_text().splitlines()
        shown = [split(line, between) for line in lines if line.endswith(edge) and between in line]
        body = [line for line in shown if line[0] in {variant for variant, _ in wanted}]
        assert len(body) == len(wanted)
        # What there is none of: the seconds to train a control, and the likelihoods of the other variants.
        bits = [job for job in cells_of(folder) if job.stage == "likelihood"]
        items = {(job.spec.likelihood.column, job.item) for job in bits}
        widths = Counter(kind for kind, _ in items).values()
        # The grid of each kind of bits has the variants of that kind alone.
        assert len(bits) == len([line for line in body if len(line) - 1 in widths])
        for line in body:
            width = len(line) - 1
            lacking = width - 1 if width in widths else int(line[0] == "control-test")
            assert line.count(nothing) == lacking
        assert not {"", "failed", "missing", "stale"} & {word for line in body for word in line}


def split(line, between):
    """The cells of a table's line."""
    return [cell.strip() for cell in line.removesuffix("\\\\").strip(" |").split(between)]


def cells_of(folder):
    """The jobs whose numbers are the tables' cells."""
    plan = plan_of(folder)
    return [*plan.of("sample"), *plan.of("likelihood")]


def test_every_product_fits_its_sidecar_and_every_cell_has_a_picture(first):
    folder, _ = first
    for job in plan_of(folder).jobs:
        assert {status_of(folder / path, job.spec) for path in job.products} == {"ok"}
        assert json.loads((folder / paths.run_record(job.product)).read_text())["seconds"] > 0
    for job in plan_of(folder).of("sample"):
        picture = (
            folder / job.root / f"runs/{job.variant}/seed{job.seed}/samples/{job.item}/grid.png"
        )
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do_whatever_is_touched_or_remarked(made, monkeypatch):
    before = products(made)
    write_config(made, text="\n# a remark\n")
    # With it the report, which needs no network.
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    done = bench("-c1", "--report", "report.html", "--report-after-run", cwd=made)
    assert done.returncode == 0, said(done)
    assert NOTHING in said(done)
    assert products(made) == before
    check_report(made)


def check_report(folder):
    """The report has every table, figure and picture, and the page, with captions and labels, in one file."""
    text = (folder / "report.html").read_text()
    # Its scripts are inside: nothing is fetched when it is opened.
    assert not re.search(r'(src|href)="https?://', text)
    plan = plan_of(folder)
    pictures = [path for job in plan.jobs for path in [*job.products, *job.extras]]
    wanted = [*outputs(plan, plan.root), *(path for path in pictures if path.suffix == ".png")]
    found, categories = (
        json.JSONDecoder().raw_decode("{" + text.partition(f"var {name} = {{")[2])[0]
        for name in ("results", "categories")
    )
    assert set(found) == set(map(str, wanted))
    named = {"The page", "Tables", "Claims", "Figures", "All numbers", "Pictures"}
    assert set(categories) == named and set(categories["Pictures"]) == {"sample"}
    for path, each in found.items():
        content = base64.b64decode(each["data_uri"].partition("base64,")[2])
        assert content == (folder / path).read_bytes()
        assert len(each["caption"].split()) > 15 and all(each["labels"].values())


@pytest.mark.slow
def test_one_core_makes_what_two_made(first, tmp_path):
    write_config(tmp_path)
    done = bench("-c1", cwd=tmp_path)
    assert done.returncode == 0, said(done)
    assert products(tmp_path) == products(first[0])


# Dry runs on a copy of it.


def matching(pattern, folder):
    """Those jobs of the folder's benchmark that match a pattern."""
    return {job for job in jobs_of(plan_of(folder)) if re.fullmatch(pattern, job)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "jobs"),
    [
        (override("ddpm-cosine", training={"lr": 2e-3}), r"\w+ ddpm-cosine.*|tables"),
        (
            override("edm", solvers={"heun-2": {"name": "heun", "steps": 2}}),
            r"sample edm heun-2|score edm|tables",
        ),
        ({"samples": 70}, r"(sample|score) .*|tables"),
    ],
    ids=["lr", "solver", "samples"],
)
def test_a_change_plans_what_depends_on_it_and_nothing_else(made, changes, jobs):
    write_config(made, changes)
    assert planned(bench("-n", cwd=made)) == matching(jobs, made)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["samples.npz", "grid.png"])
def test_what_was_deleted_is_made_again(made, suffix):
    folder = made / "results" / "tiny" / "runs" / "edm" / "seed0" / "samples" / "heun-3"
    (folder / suffix).unlink()
    assert "sample edm heun-3" in planned(bench("-n", cwd=made))


@pytest.mark.slow
def test_a_failed_score_says_why(made):
    scores = made / "results" / "tiny" / "runs" / "edm" / "seed0" / "scores.json"
    remove_product(scores)
    job = plan_of(made).job("score", "edm")
    extractor = made / "results" / "tiny" / "data" / "extractor" / "model.safetensors"
    content = bytearray(extractor.read_bytes())
    content[-1] ^= 1
    extractor.write_bytes(content)
    spec = job.spec.canonical()
    assert run("score", "--root", job.root, "--spec", spec, cwd=made).returncode == 1
    run("score", "--partial", "--config", CONFIG, cwd=made)
    assert run("table", "--config", CONFIG, cwd=made).returncode == 0
    notes = {
        row["note"]
        for row in overview(made)
        if (row["variant"], row["status"]) == ("edm", "failed")
    }
    assert notes
    assert all("sha256" in note for note in notes)


@pytest.mark.slow
def test_two_benchmarks_in_one_folder_do_not_mix(made):
    write_config(made, {"name": "other", "seeds": [0]})
    done = bench("-n", cwd=made)
    assert planned(done) == jobs_of(plan_of(made))
    assert "results/other" in said(done)
    assert "results/tiny" not in said(done)


@pytest.mark.slow
def test_results_of_another_spec_are_stale_until_the_doctor_removes_them(made):
    shutil.rmtree(made / ".snakemake")
    write_config(made, override("edm", training={"lr": 2e-3}))
    assert NOTHING in said(bench("-n", cwd=made))
    assert run("table", "--config", CONFIG, cwd=made).returncode == 0
    rows = overview(made)
    edm = {(job.variant, job.item) for job in cells_of(made) if job.variant == "edm"}
    assert cells(rows, "stale") == edm
    assert cells(rows, "ok") == {(job.variant, job.item) for job in cells_of(made)} - edm
    assert all(
        "lr = 0.001, and 0.002 is expected" in r["note"] for r in rows if r["status"] != "ok"
    )
    found = run("doctor", "--config", CONFIG, cwd=made)
    assert found.returncode == 1
    stale = [line.split()[1] for line in found.stdout.splitlines() if line.startswith("stale")]
    assert stale == [str(job.product) for job in plan_of(made).jobs if job.variant == "edm"]
    assert run("doctor", "--fix", "--config", CONFIG, cwd=made).returncode == 0
    assert planned(bench("-n", cwd=made)) == matching(r"\w+ edm.*|tables", made)


# Failures.

EXTENSION = f"""\
import os
import time
from pathlib import Path
from typing import Literal

from diffbench.diffusion.objectives.losses import Simple
from diffbench.diffusion.solvers.ode import Heun
from diffbench.specs.objectives import SimpleSpec
from diffbench.specs.solvers import HeunSpec


class BrokenSolver(Heun):
    def step(self, *arguments):
        raise RuntimeError("the solver broke on purpose")


class BrokenObjective(Simple):
    '''Breaks as soon as two processes train with it; alone it waits for the other.'''

    def view(self, prediction):
        Path(f"met-{{os.getpid()}}").touch()
        end = time.monotonic() + {PATIENCE}
        while len(list(Path().glob("met-*"))) < 2:
            if time.monotonic() > end:
                raise TimeoutError("nobody else is training")
            time.sleep(0.01)
        raise RuntimeError("the objective broke on purpose")


class BrokenSolverSpec(HeunSpec):
    name: Literal["broken"] = "broken"
    implementation = BrokenSolver


class BrokenObjectiveSpec(SimpleSpec):
    name: Literal["broken"] = "broken"
    implementation = BrokenObjective
"""


#: The tiny benchmark's claims and figures are of variants that some benchmarks here lack.
NOTHING_ELSE = {"claims": [], "figures": [], "tables": ["overview"]}
TWIN = {
    "process": {"name": "edm"},
    "denoiser": {"predict": "edm"},
    "objective": {"name": "broken"},
    "solvers": {"heun-2": {"name": "heun", "steps": 2}},
}


@pytest.fixture
def extension(made):
    """The extension in the working directory; what it registered here is forgotten afterwards."""
    path = made / "mine.py"
    path.write_text(EXTENSION)
    yield path.name
    for kind in (SolverSpec, ObjectiveSpec):
        kind.known.pop("broken", None)
    sys.modules.pop(source(path).module, None)


@pytest.mark.slow
def test_what_fails_costs_nothing_else_its_cells(made, extension):
    """Two trainings fail, if two cores train two variants at a time, and one of many solvers."""
    broken = {
        "extensions": [extension],
        "methods": {"twin": TWIN},
        "variants": ["ddpm-cosine", "edm", "twin", "control-test"],
        **NOTHING_ELSE,
        "overrides": {
            "edm": {"objective": {"name": "broken"}},
            "ddpm-cosine": {"solvers": {"broken-3": {"name": "broken", "steps": 3}}},
        },
    }
    before = products(made)
    write_config(made, broken)
    # Its other solvers have to be scored although one has no samples.
    remove_product(made / "results" / "tiny" / "runs" / "ddpm-cosine" / "seed0" / "scores.json")
    done = bench("-c2", cwd=made)
    assert done.returncode == 1
    rows = [row for row in overview(made) if row["metric"] != "train_seconds"]
    failed = {
        (job.variant, job.item)
        for job in cells_of(made)
        if job.variant in ("edm", "twin") or job.item == "broken-3"
    }
    assert cells(rows, "failed") == failed
    assert cells(rows, "ok") == {(job.variant, job.item) for job in cells_of(made)} - failed
    text = (made / "results" / "tiny" / "tables" / "overview.md").read_text()
    for variant, solver in failed:
        stage, part = ("train", "objective") if solver != "broken-3" else ("sample", "solver")
        found = [row for row in rows if (row["variant"], row["solver"]) == (variant, solver)]
        (note,) = {row["note"] for row in found}
        line = rf"{stage}: mine\.py:\d+: the {part} broke on purpose \(RuntimeError\)"
        assert re.fullmatch(line, note)
        assert note in text
        lines = [split(line, "|") for line in text.splitlines()]
        assert any(line[:2] == [variant, solver] and "failed" in line for line in lines)
    # With the mistakes mended all is as if they had never been; one core makes what two made, and
    # a working directory may be named.
    write_config(made)
    config = f"{made.name}/{CONFIG}"
    mended = snakemake("-c1", "--directory", made, "--configfile", config, cwd=made.parent)
    assert mended.returncode == 0, said(mended)
    assert cells(overview(made), "ok") == {(job.variant, job.item) for job in cells_of(made)}
    assert {k: v for k, v in products(made).items() if "broken-3" not in k} == before


# Inverse problems, with operators and a restorer of an extension.


RESTORATIONS = {
    "extensions": ["halving.py"],
    "variants": ["edm", "control-test", "baselines"],
    "tables": ["overview", "restorations"],
    "figures": ["restorations"],
    "claims": [],
    "restorations": {
        "images": 10,
        "draws": 2,
        "tasks": {
            "half": {"operator": "half"},
            "noisy": {"operator": "half", "noise": 0.1},
            "bent": {"operator": "bent"},
        },
        "variants": ["edm"],
        "restorers": {"guess-0.1": {"name": "guess", "spread": 0.1}},
    },
}


@pytest.fixture
def restoring(made):
    """The extension in the working directory; what it registered here is forgotten afterwards."""
    path = made / "halving.py"
    path.write_bytes((REPOSITORY / "tests" / path.name).read_bytes())
    yield made
    for kind, name in ((OperatorSpec, "half"), (OperatorSpec, "bent"), (RestorerSpec, "guess")):
        kind.known.pop(name, None)
    sys.modules.pop(source(path).module, None)


@pytest.mark.slow
def test_restorations_are_jobs_like_all_others(restoring):
    write_config(restoring, RESTORATIONS)
    jobs = matching(r"restore .*|tables", restoring)
    assert planned(bench("-n", cwd=restoring)) == jobs
    assert len(jobs) == 3 + 5 + 1
    done = bench("-c2", cwd=restoring)
    assert done.returncode == 0, said(done)
    plan = plan_of(restoring)
    for job in plan.of("restore"):
        assert {status_of(restoring / path, job.spec) for path in job.products} == {"ok"}
        picture = job.root / f"runs/{job.variant}/seed0/restore/{job.item}/strip.png"
        assert (restoring / picture).read_bytes().startswith(b"\x89PNG")
    with (restoring / paths.table(plan.root, "restorations", "csv")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {(job.variant, job.item) for job in plan.of("restore")}
    assert cells(rows, "ok") == wanted | {("truth", "-")}
    assert cells(rows, "refused") == {("baselines", "bent/posterior-mean")}
    assert NOTHING in said(bench("-n", cwd=restoring))
    # What was deleted is made again, and a task's noise concerns the task.
    (restoring / plan.job("restore", "edm", 0, "half/guess-0.1").products[1]).unlink()
    assert "restore edm half guess-0.1" in planned(bench("-n", cwd=restoring))
    write_config(restoring, merged(RESTORATIONS, LOUDER))
    again = matching(r"restore \S+ (noisy .*|half guess-0.1)|tables", restoring)
    assert planned(bench("-n", cwd=restoring)) == again


LOUDER = {"restorations": {"tasks": {"noisy": {"noise": 0.2}}}}


# Mistakes, before any job. All kinds of them: test_plan.py.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            override("edm", solvers={"heun-3": {"name": "huen", "steps": 3}}),
            "edm.solvers.heun-3: 'huen' is not a known solver; did you mean 'heun'?",
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


@pytest.mark.slow
def test_without_a_file_the_digits_are_planned_in_the_folder_that_is_named(tmp_path):
    done = snakemake("-n", "--directory", "else where", "--config", "only=[edm]", cwd=tmp_path)
    jobs = planned(done)
    assert "train edm" in jobs
    assert {job.split()[1] for job in jobs if " " in job} == {"edm"}
    assert "results/digits/runs/edm/seed0/model.safetensors" in said(done)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extractor", "without"),
    [("classifier", {"data", "reference", "score"}), ("inception", {"data"})],
)
def test_a_gpu_is_asked_for_where_one_is_used(tmp_path, extractor, without):
    """Data are read on the CPU, and scored there by a small extractor."""
    content = (TINY.read_text() + "device: cuda\n").replace("device: cpu\n", "")
    lines = [line for line in content.splitlines() if not line.startswith("extractor:")]
    (tmp_path / CONFIG).write_text("\n".join([*lines, f"extractor: {{name: {extractor}}}\n"]))
    done = bench("-n", cwd=tmp_path)
    stages = [run.stage for run in plan_of(tmp_path).jobs]
    wanted = sum(stage not in without for stage in stages)
    assert said(done).count("gpu=1") == wanted
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_training_job_gets_as_many_processes_as_gpus_are_allowed(tmp_path):
    write_config(tmp_path, {"device": "cuda", "gpus": 4, "only": ["edm"]})
    for limit, found in (("4", 4), ("2", 2)):
        shown = said(bench("-np", "--resources", f"gpu={limit}", cwd=tmp_path))
        assert shown.count(f"gpu={found}\n") == 1
        assert f" --processes {found} " in shown
    write_config(tmp_path, {"only": ["edm"]})
    assert " --processes 0 " in said(bench("-np", cwd=tmp_path))
    several = {"device": "cuda", "gpus": 4, "nodes": 2, "only": ["edm", "control-test"]}
    write_config(tmp_path, several)
    shown = said(bench("-np", "--resources", "gpu=4", cwd=tmp_path))
    assert re.findall(r"nodes=2.*gpu=4|gpu=4.*nodes=2", shown) and shown.count("nodes=2") == 1
    write_config(tmp_path, several | {"nodes": 3})
    reason = "nodes: 3 nodes cannot share 4 GPUs equally: make gpus a multiple of nodes"
    assert reason in said(bench("-np", cwd=tmp_path))


@pytest.mark.slow
def test_the_linter_is_content(tmp_path):
    done = snakemake("--lint", cwd=tmp_path)
    assert done.returncode == 0, said(done)
