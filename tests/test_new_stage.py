"""A stage is one object: a spec and a module, declared here, are all that a new one needs."""

import json
import sys
from dataclasses import replace
from types import ModuleType
from typing import ClassVar, Literal

import pytest
from commands import REPOSITORY, TINY

from diffbench import cli
from diffbench.estimate import report
from diffbench.estimate.costs import Cost
from diffbench.estimate.estimate import estimate
from diffbench.plan.loading import load_plan
from diffbench.plan.rules import rules
from diffbench.reporting.records import Records
from diffbench.specs.jobs import STAGES, SampleSpec, StageSpec
from diffbench.specs.jobs.stage import RUN
from diffbench.store import paths
from diffbench.store.products import read_json, write_json_product


@pytest.fixture
def counting(monkeypatch):
    """A stage that says how many samples there are of a solver."""

    class CountSpec(StageSpec):
        """Count the samples of one solver.

        And nothing else.
        """

        template: ClassVar[str] = f"{RUN}/counts/{{solver}}.json"
        extras: ClassVar[tuple[str, ...]] = (f"{RUN}/counts/{{solver}}.png",)
        numbers: ClassVar[str] = "count"

        stage: Literal["count"] = "count"
        version: int = 1
        variant: str
        seed: int
        solver_id: str
        sample: SampleSpec

        @classmethod
        def wanted(cls, asked):
            for each in asked.made["sample"]:
                if each.solver is not None:
                    names = {"variant": asked.name, "seed": asked.seed, "solver_id": each.solver_id}
                    yield cls(sample=each, **names)

        @property
        def uses_gpu(self):
            return False

    module = ModuleType(CountSpec.module())
    module.run = lambda spec, root, device: write_json_product(
        paths.product(root, spec),
        {"metrics": {"count": {"value": spec.sample.samples, "se": None}}, "images": 9},
        spec,
    )
    module.cost = lambda spec, timings: Cost(spec.sample.samples / 3600, 7)
    monkeypatch.setitem(sys.modules, CountSpec.module(), module)
    yield CountSpec
    StageSpec.known.pop("count")


@pytest.fixture
def plan(counting, tmp_path, monkeypatch):
    """The plan of a variant and a control with the new stage, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return load_plan([TINY], {"only": ["edm", "control-test"]}, REPOSITORY)


def test_it_is_planned_after_all_that_it_builds_on(plan):
    (job,) = plan.of("count")
    assert (job.variant, job.item, job) == ("edm", "heun-3", plan.jobs[-1])
    assert job.spec.sample == plan.job("sample", "edm", 0, "heun-3").spec


def test_it_has_paths_and_inputs(plan):
    job = plan.job("count", "edm", 0, "heun-3")
    folder = plan.root / "runs" / "edm" / "seed0" / "counts"
    assert (job.products, job.extras) == ((folder / "heun-3.json",), (folder / "heun-3.png",))
    data, sample = plan.job("data"), plan.job("sample", "edm", 0, "heun-3")
    assert plan.upstream(job) == [data, sample]
    assert plan.inputs(job) == [data.product, sample.product]
    assert plan.find("edm", "heun-3", ["count"]) == job
    assert job.spec.state.name == job.spec.digest()


def test_it_has_a_rule(plan):
    (rule,) = [each for each in rules(plan) if each.stage is STAGES["count"]]
    counts = "runs/{variant}/seed{seed}/counts"
    assert [str(path) for path in rule.outputs] == [
        f"{counts}/{{solver}}.json",
        f"{counts}/{{solver}}.spec.json",
        f"{counts}/{{solver}}.run.json",
        f"{counts}/{{solver}}.png",
    ]
    assert (rule.name, rule.job) == ("count", "count/{variant}/seed{seed}/{solver}")
    assert rule.constraints == {"variant": "edm", "seed": r"\d+", "solver": "[^/]+"}
    assert (
        rule.command
        == "diffbench count --root {params.root:q} --spec {params.spec:q} > {log:q} 2>&1"
    )
    job = plan.job("count", "edm", 0, "heun-3")
    on_gpu = replace(plan, device="cuda")
    assert (job.spec.threads, plan.gpus(job), on_gpu.gpus(job)) == (1, 0, 0)
    assert [on_gpu.gpus(on_gpu.job(stage, "edm")) for stage in ("train", "score")] == [1, 0]


def test_it_has_a_command_and_a_place_in_the_list(plan, capsys):
    job = plan.job("count", "edm", 0, "heun-3")
    words = ["--root", str(plan.root), "--spec", job.spec.canonical(), "--device", "cpu"]
    assert cli.main(["count", *words]) == 0
    counted = {"metrics": {"count": {"value": 64, "se": None}}, "images": 9}
    assert read_json(job.product, job.spec) == counted
    with pytest.raises(SystemExit, match="0"):
        cli.main(["count", "--help"])
    assert "count the samples of one solver" in capsys.readouterr().out
    assert cli.main(["list", "stages", "--config", str(TINY)]) == 0
    assert "\ncount       count the samples of one solver\n" in capsys.readouterr().out


def test_it_has_numbers_in_the_table_of_all_results(plan):
    job = plan.job("count", "edm", 0, "heun-3")
    sys.modules[type(job.spec).module()].run(job.spec, plan.root, "cpu")
    records = Records(plan, plan.root)
    (row,) = records.frame[records.frame["stage"] == "count"].to_dict("records")
    assert (row["variant"], row["item"], row["metric"]) == ("edm", "heun-3", "count")
    assert (row["value"], row["samples"], row["status"]) == (64, 9, "ok")
    assert records.number("edm", "heun-3", "count").mean == 64
    # Tables read its product, and of samples that of their scores.
    tabled = {each.stage for each in plan.jobs if each.spec.tabled}
    assert {"count", "score"} <= tabled and "sample" not in tabled


def test_it_has_a_column_of_costs(plan):
    found = estimate(replace(plan, jobs=plan.jobs[-1:]), 1, clock=lambda: 0.0)
    (cost,) = found.costs
    assert (cost.job.stage, cost.hours, cost.size, cost.done) == ("count", 64 / 3600, 7, False)
    lines = report.text(found).splitlines()
    heads = next(line.split() for line in lines if line.startswith("variant"))
    row = next(line.split() for line in lines if line.startswith("edm "))
    assert row[heads.index("count")] == "0.0178"


def test_specs_are_as_they_were_written(plan):
    """What says how a stage works is no part of the JSON, on which hashes depend."""
    for job in plan.jobs:
        fields = type(job.spec).model_fields
        # Keys that were added later are left out where they ask for nothing, so that the hashes of before stay.
        untold = {
            name
            for name, field in fields.items()
            if field.exclude_if and field.exclude_if(getattr(job.spec, name))
        }
        assert json.loads(job.spec.canonical()).keys() == fields.keys() - untold


def test_two_stages_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two stages have the name 'score'"):

        class OtherSpec(StageSpec):
            stage: Literal["score"] = "score"

    assert STAGES["score"].__name__ == "ScoreSpec"
