"""Canonical texts that are put together: those of whole specs, to the byte."""

import json

import pytest
from commands import REPOSITORY, plan_of, write_config

from diffbench.plan.loading import load_plan
from diffbench.specs.jobs.texts import Texts


def whole(spec):
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("config", ["config/digits.yaml", "examples/tiny.yaml"])
def test_texts_are_those_of_whole_specs(config):
    plan = load_plan([REPOSITORY / config], {}, REPOSITORY)
    texts = Texts()
    for job in plan.every:
        assert texts.of(job.spec) == job.spec.canonical() == whole(job.spec)
    assert plan.digests == {job.key: job.spec.digest() for job in plan.every}


def test_a_solver_of_a_thousand_changes_its_own_jobs_alone(tmp_path):
    def digests(changed):
        many = {
            f"ddim-{steps}-{eta}": {"name": "ddim", "steps": steps, "eta": eta}
            for steps in range(2, 502)
            for eta in (0, 1)
        }
        many["ddim-7-0"]["eta"] = changed
        solvers = {"ddpm-linear": {"solvers": many}}
        write_config(
            tmp_path,
            {"variants": ["ddpm-linear", "edm"], "overrides": solvers, "claims": [], "figures": []},
        )
        return plan_of(tmp_path).digests

    before, after = digests(0), digests(0.5)
    assert len(before) > 1000 and before.keys() == after.keys()
    assert {key for key in before if before[key] != after[key]} == {
        ("sample", "ddpm-linear", 0, "ddim-7-0"),
        ("score", "ddpm-linear", 0, ""),
    }
