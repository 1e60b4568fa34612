"""Where a number came from, by its name."""

import shlex

import fast_yaml
import pytest
from commands import CONFIG, REPOSITORY, planned, run, said, snakemake
from layouts import filled

from diffbench import cli
from diffbench.plan.loading import load_plan
from diffbench.reporting.provenance import chain, command, named, provenance
from diffbench.reporting.results import Results
from diffbench.specs.errors import PlanError
from diffbench.store import files, paths


@pytest.fixture
def plan(tmp_path, monkeypatch):
    return filled(tmp_path, monkeypatch)


def stages(plan, name):
    (job,) = named(plan, name)
    return [each.stage for each in chain(plan, job)]


def test_a_sample_is_made_of_its_model_and_measured_by_its_score(plan):
    assert stages(plan, "edm/1/heun-3") == ["data", "reference", "train", "sample", "score"]
    (job,) = named(plan, "edm/1/heun-3")
    assert [each.seed for each in chain(plan, job)] == [0, 0, 1, 1, 1]
    assert stages(plan, "edm/2") == ["data", "train"]


def test_it_says_the_number_its_files_and_what_ran(plan):
    (job,) = named(plan, "edm/1/heun-3")
    ran = {"seconds": 3.0, "device": "cpu", "commit": "c0ffee", "host": "private"}
    files.write_json(paths.run_record(job.product), ran)
    found = provenance(Results(plan, plan.root), job)
    assert found["status"] == "ok" and found["numbers"]["fid"] == "2 (se 0.1)"
    assert found["ran"] == {"seconds": 3.0, "device": "cpu", "commit": "c0ffee"}
    assert found["settings"]["name"] == "heun" and found["settings"]["steps"] == 3
    made = {each["stage"]: each for each in found["made of"]}
    assert made["sample"]["sha256"] == files.sha256(job.product)
    assert made["train"]["spec"] == plan.job("train", "edm", 1).spec.digest()
    assert {each["status"] for each in found["made of"]} == {"ok"}


def test_a_missing_or_damaged_product_is_seen(plan):
    (job,) = named(plan, "edm/1/heun-3")
    plan.job("train", "edm", 1).product.write_bytes(b"damaged")
    plan.job("score", "edm", 1).product.unlink()
    found = provenance(Results(plan, plan.root), job)
    assert found["status"] == "failed" and "sha256" in found["reason"]
    made = {each["stage"]: each["status"] for each in found["made of"]}
    assert (made["train"], made["score"], made["sample"]) == ("corrupt", "missing", "ok")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("emd/0/heun-3", "no variant 'emd' in .*; did you mean 'edm'"),
        ("edm/7/heun-3", "edm has no seed '7' in .*: it has 0, 1, 2"),
        ("edm/0/heun-4", "edm has no 'heun-4' in .*; did you mean 'heun-3'"),
    ],
)
def test_names_that_are_not_planned_are_refused(plan, name, said):
    with pytest.raises(PlanError, match=said):
        named(plan, name)


def test_the_command_line_prints_yaml(plan, capsys, monkeypatch):
    (plan.repository / "bench.yaml").write_text(plan.config.read_text())
    assert cli.main(["show", "edm/0/heun-3", "--config", "bench.yaml"]) == 0
    found = fast_yaml.load(capsys.readouterr().out)
    assert found["sample"]["numbers"]["fid"] == "2.5 (se 0.1)"


@pytest.mark.slow
def test_its_command_makes_this_cell_again_and_no_other(made, monkeypatch):
    monkeypatch.chdir(made)
    plan = load_plan([made / CONFIG], {}, REPOSITORY)
    (job,) = named(plan, f"edm/{plan.seeds('edm')[0]}/heun-3")
    words = shlex.split(command(plan, job))
    assert words[0] == "snakemake"
    again = planned(snakemake("-n", *words[1:], cwd=made))
    assert again == {"sample edm heun-3", "score edm"}
    shown = run("show", f"edm/{plan.seeds('edm')[0]}/heun-3", "--config", CONFIG, cwd=made)
    assert shown.returncode == 0 and command(plan, job).split()[-1] in said(shown)
