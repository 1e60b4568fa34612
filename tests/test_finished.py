"""A job on a cluster that finished and is called failed: its files are put back, and it is not run again."""

import commands
import pytest
from commands import plan_of, run, said, write_config

from diffbench.cli.jobs import ELSEWHERE
from diffbench.store import files, finished, paths, status

BACK = "data: an earlier attempt had finished, its files are put back"


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The data job of the tiny benchmark, as a cluster runs it."""
    monkeypatch.chdir(tmp_path)
    real = commands.environment
    monkeypatch.setattr(commands, "environment", lambda **more: real(**{ELSEWHERE: "1"}, **more))
    write_config(tmp_path)
    return plan_of(tmp_path).job("data")


def done(job, folder):
    """What the job's command prints, which has succeeded."""
    found = run("data", "--root", job.root, "--spec", job.spec.canonical(), cwd=folder)
    assert found.returncode == 0, said(found)
    return said(found)


def made(job):
    """The job's files as Snakemake knows and removes them, with their bytes."""
    outputs = (job.product, paths.sidecar(job.product), paths.run_record(job.product))
    return {path: path.read_bytes() for path in outputs}


def test_files_of_a_finished_job_that_were_removed_are_put_back(job, tmp_path):
    assert BACK not in done(job, tmp_path)
    first = made(job)
    for path in first:
        path.unlink()
    status.record_failure(paths.state(job.root, job.spec), "data", "stopped by SIGTERM")
    assert BACK in done(job, tmp_path)
    # The record of the run too, with its times: nothing was made again.
    assert made(job) == first
    assert status.read_status(paths.state(job.root, job.spec)) is None
    # A run that ends well removes the links.
    finished.clear(job.root)
    assert not paths.finished(job.root).exists()
    job.product.unlink()
    assert BACK not in done(job, tmp_path)


@pytest.mark.parametrize("damage", ["flipped", "lacking"])
def test_links_that_are_not_whole_are_of_no_use(job, tmp_path, damage):
    done(job, tmp_path)
    first = job.product.read_bytes()
    link = paths.finished(job.root) / job.spec.digest() / job.product.relative_to(job.root)
    if damage == "flipped":
        # A link is the file itself: what damages the one damages the other.
        files.write(link, bytes([first[0] ^ 1]) + first[1:])
    else:
        link.unlink()
    job.product.unlink()
    assert BACK not in done(job, tmp_path)
    assert job.product.read_bytes() == first
    assert link.samefile(job.product)
