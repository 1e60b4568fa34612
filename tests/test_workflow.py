"""The Snakefile, by dry runs: wiring alone, so each takes two or three seconds."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffbench.plan.runs import STAGES, load_plan
from diffbench.store.manifest import manifest

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = REPOSITORY / "tests" / "tiny.yaml"
pytestmark = pytest.mark.skipif(
    shutil.which("snakemake", path=str(Path(sys.executable).parent)) is None,
    reason="snakemake is not beside this interpreter",
)


def snakemake(*arguments, cwd):
    environment = {**os.environ, "PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(cwd / ".cache")}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "snakemake",
            "-s",
            str(REPOSITORY / "Snakefile"),
            *map(str, arguments),
        ],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment,
    )


def test_a_dry_run_finds_profile_plan_and_all_jobs(tmp_path):
    done = snakemake("-n", "--configfile", TINY, cwd=tmp_path)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert "profile profiles/default" in printed or f"{REPOSITORY}/profiles/default" in printed
    counts = dict(line.split() for line in printed.splitlines() if len(line.split()) == 2)
    plan = load_plan([TINY], {}, REPOSITORY)
    expected = {stage: str(len(plan.of(stage))) for stage in STAGES}
    assert expected.items() <= counts.items()
    assert "tables" in counts
    assert not (tmp_path / "results").exists()


def test_without_a_file_the_digits_are_planned_and_only_takes_a_part(tmp_path):
    done = snakemake("-n", "--config", "only=edm", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = done.stdout + done.stderr
    assert "results/digits/runs/edm/seed0/model.safetensors" in printed
    assert "runs/vp" not in printed


def test_directory_moves_the_outputs(tmp_path):
    done = snakemake("-n", "--directory", "else where", "--configfile", TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "results/tiny/data/levels.npz" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--configfile", TINY, "--config", "sede=1"], "--config: sede: unknown key 'sede'"),
        (["--configfile", TINY, "--config", "only=vq"], "no variant 'vq'"),
        (["--config", "training={lr: -1}"], "training.lr"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(tmp_path, arguments, named):
    done = snakemake("-n", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("diffbench: ")]
    assert len(lines) == 1
    assert named in lines[0]
    assert "Traceback" not in done.stderr


def test_a_gpu_is_asked_for_where_one_is_used(tmp_path):
    wanted = {}
    for device in ("cpu", "cuda"):
        done = snakemake("-n", "--configfile", TINY, "--config", f"device={device}", cwd=tmp_path)
        printed = done.stdout + done.stderr
        wanted[device] = printed.count("gpu=1")
    # train, sample and likelihood; data and scores are made on the CPU.
    plan = load_plan([TINY], {}, REPOSITORY)
    jobs = sum(len(plan.of(stage)) for stage in ("train", "sample", "likelihood"))
    assert wanted == {"cpu": 0, "cuda": jobs}


def products(folder):
    return manifest(folder / "results" / "tiny")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder, with a space and an accent in its name, in which the tiny benchmark was run."""
    folder = tmp_path_factory.mktemp("a bé")
    done = snakemake("-c2", "--configfile", TINY, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_whole_benchmark_runs_and_then_has_nothing_to_do(made):
    tables = made / "results" / "tiny" / "tables"
    assert {path.name for path in tables.iterdir()} >= {"overview.csv", "overview.md"}
    assert "failed" not in (tables / "overview.md").read_text()
    before = products(made)
    again = snakemake("-c1", "--configfile", TINY, cwd=made)
    assert "Nothing to be done" in again.stdout + again.stderr, again.stdout + again.stderr
    assert products(made) == before


@pytest.mark.slow
def test_a_failing_variant_costs_no_other_its_results(made):
    before = products(made)
    broken = ["--configfile", TINY, "--config", "overrides={edm: {training: {steps: 9, lr: 1e30}}}"]
    failed = snakemake("-c2", *broken, cwd=made)
    assert failed.returncode == 1
    overview = (made / "results" / "tiny" / "tables" / "overview.csv").read_text()
    status = {
        (row["variant"], row["solver"]): row["status"]
        for row in csv.DictReader(overview.splitlines())
    }
    assert status["edm", "heun-3"] == "failed"
    assert status["control-test", "draw"] == "ok"
    after = products(made)
    lost = {path for path in before if before[path] != after.get(path)}
    assert "runs/edm/seed0/model.safetensors" in lost
    assert all(path.startswith("runs/edm/") for path in lost)
    # With the mistake mended all is as if it had never been, tables included.
    mended = snakemake("-c2", "--configfile", TINY, cwd=made)
    assert mended.returncode == 0
    assert products(made) == before
    assert "failed" not in (made / "results" / "tiny" / "tables" / "overview.csv").read_text()


@pytest.mark.slow
def test_the_linter_is_content(tmp_path):
    done = snakemake("--lint", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
