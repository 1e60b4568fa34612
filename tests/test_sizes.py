"""What a job asks of a cluster: more after an attempt that had too little, and never above the limit."""

import json
import re
import sys

import commands
import pytest
from commands import CONFIG, plan_of, said, write_config

from diffbench import cli
from diffbench.plan.sizes import COPIES, FACTOR, STARTING, UNKNOWN, Size, estimated
from diffbench.specs.errors import PlanError
from diffbench.store import paths, status

ONLY = {"only": ["ddpm-cosine", "control-test"]}
NO_LIMITS = Size(sys.maxsize, sys.maxsize)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, ONLY)
    return plan_of(tmp_path)


def written(plan, folder, **seconds):
    """The file of an estimate, where jobs of a stage take that many seconds, and 0 if it is not named."""
    jobs = {job.name: {"seconds": seconds.get(job.stage, 0), "bytes": 10**6} for job in plan.every}
    jobs["sample/ddpm-cosine/seed0/ancestral-10"]["seconds"] = 3600
    file = folder / "estimate.json"
    file.write_text(json.dumps({"memory_mib": 500, "jobs": jobs}))
    return file


def killed(folder):
    """An attempt of which only the mark is left."""
    with pytest.raises(RuntimeError), status.started(folder, "train"):
        raise RuntimeError


def test_a_job_asks_for_what_the_largest_of_its_rule_needs(plan, tmp_path):
    found = estimated(plan, written(plan, tmp_path, train=None), NO_LIMITS)
    # 500 MiB are 524.288 MB.
    memory = FACTOR * 524 + COPIES * 2 + 1
    hour = (FACTOR * 3600 + STARTING) // 60
    samples = {found.of(job, 1) for job in plan.of("sample")}
    assert samples == {Size(hour, memory)}
    assert found.of(plan.job("data"), 1) == Size(STARTING // 60, memory)
    assert found.of(plan.job("train", "ddpm-cosine"), 1) == Size(UNKNOWN, memory)


def test_a_later_attempt_asks_for_twice_as_much_up_to_the_limit(plan, tmp_path):
    found = estimated(plan, written(plan, tmp_path), Size(25, 3000))
    first, *later = (found.of(plan.job("data"), attempt) for attempt in (1, 2, 3, 100))
    assert (first.minutes, first.memory) == (10, 1057)
    assert later == [Size(20, 2114), Size(25, 3000), Size(25, 3000)]


def test_a_training_that_was_stopped_asks_for_the_same_and_one_that_was_killed_for_memory(
    plan, tmp_path
):
    found = estimated(plan, written(plan, tmp_path, train=300), NO_LIMITS)
    train = plan.job("train", "ddpm-cosine")
    folder = paths.state(plan.root, train.spec)
    first = found.of(train, 1)
    status.record_failure(folder, "train", "stopped by SIGUSR1: run the command again")
    assert found.of(train, 9) == first
    killed(folder)
    assert found.of(train, 9) == Size(first.minutes, 2 * first.memory)


def test_an_estimate_of_another_plan_is_refused_in_one_line(plan, tmp_path):
    file = written(plan, tmp_path)
    file.write_text(file.read_text().replace("train/ddpm-cosine", "train/other"))
    with pytest.raises(PlanError, match=r"estimate\.json: not an estimate of this plan"):
        estimated(plan, file, NO_LIMITS)
    file.write_text("[")
    with pytest.raises(PlanError, match=r"estimate\.json: .*: make it with: diffbench estimate"):
        estimated(plan, file, NO_LIMITS)


@pytest.mark.slow
def test_the_estimate_of_a_plan_says_what_its_jobs_ask_for(plan, tmp_path):
    assert cli.main(["estimate", CONFIG, "--steps", "1", "--json", "--write", "sizes.json"]) == 0
    found = estimated(plan, tmp_path / "sizes.json", NO_LIMITS)
    for job in plan.every:
        size = found.of(job, 1)
        # No job of the tiny benchmark took half a minute, or more memory than this process.
        assert 10 <= size.minutes < 130 and 400 < size.memory < 8000, job.name


@pytest.mark.slow
def test_the_workflow_asks_for_the_sizes_and_no_more_than_its_limits(plan, tmp_path, monkeypatch):
    file = written(plan, tmp_path)
    real = commands.environment
    monkeypatch.setattr(
        commands, "environment", lambda **more: real(**more, DIFFBENCH_ESTIMATE=file.name)
    )
    found = said(commands.bench("-n", "--resources", "max_mem_mb=900", cwd=tmp_path))
    asked = re.findall(
        r"^rule (\w+):$.*?runtime=(\d+).*?mem_mb=(\d+)", found, re.MULTILINE | re.DOTALL
    )
    assert {each for each in asked if each[0] in ("data", "sample")} == {
        ("data", "10", "900"),
        ("sample", "130", "900"),
    }
