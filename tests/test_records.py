"""The long table: a row a number, or why there is none."""

import subprocess
import sys

import pytest
from layouts import BITS, FIDS, REPOSITORY, configured, fill
from test_reporting import METRICS, fail, plan_of, remove

from diffbench.reporting.layout import CellSpec
from diffbench.reporting.records import COLUMNS, Records, long
from diffbench.reporting.results import Outcome


@pytest.fixture
def plan(tmp_path):
    return configured(tmp_path)


def test_a_row_a_number(plan, tmp_path):
    fill(plan, tmp_path)
    frame = Records(plan, tmp_path).frame
    assert tuple(frame.columns) == COLUMNS
    own = frame[(frame["variant"] == "ddpm-cosine") & (frame["item"] == "ancestral-10")]
    assert own.groupby("seed")["metric"].apply(sorted).to_dict() == dict.fromkeys(
        (0, 1, 2), sorted([*METRICS, "sample_seconds"])
    )
    fids = own[own["metric"] == "fid"]
    assert fids["value"].tolist() == FIDS["ancestral-10"]
    assert fids[["samples", "nfe", "status", "seconds"]].iloc[0].tolist() == [64, 10, "ok", 3.0]
    bits = frame[frame["metric"] == "bits_per_dim"]
    assert bits["value"].tolist()[:3] == BITS and set(bits["stage"]) == {"likelihood"}
    named = ["variant", "seed", "stage", "item", "metric"]
    assert not frame.duplicated(named).any()
    assert set(frame["benchmark"]) == {"tiny"}
    assert frame["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    sample = plan.job("sample", "ddpm-cosine", 0, "ancestral-10")
    assert set(own[own["seed"] == 0]["spec"]) == {sample.spec.digest()}


def test_a_seed_without_a_number_has_a_row_with_the_reason(plan, tmp_path):
    fill(plan, tmp_path)
    remove(plan_of(seeds=[0]), tmp_path, "train", "sample", "score")
    fail(plan, tmp_path, "train", "diverged")
    results = Records(plan, tmp_path)
    rows = results.frame.query("item == 'ancestral-10' and metric == 'fid'")
    assert rows["status"].tolist() == ["failed", "ok", "ok"]
    assert rows["reason"].tolist() == ["train: diverged", "", ""]
    named = CellSpec(variant="ddpm-cosine", item="ancestral-10", metric="fid")
    assert results.values(named) == {1: 3.0, 2: 4.0}
    item, found = results.find(named)
    assert (item, found.status, found.mean, found.seeds) == ("ancestral-10", "partial", 3.5, 2)


def test_an_empty_folder_has_a_row_a_job(plan, tmp_path):
    results = Records(plan, tmp_path / "nothing")
    made = {"sample", "likelihood", "restore", "analysis", "train"}
    assert set(results.frame["stage"]) <= made
    assert set(results.frame["status"]) == {"missing"}
    assert results.frame["value"].isna().all()
    assert results.cell("ddpm-cosine", "sample", "ancestral-10", "fid").status == "missing"


def test_the_first_item_that_the_benchmark_has_is_taken(plan, tmp_path):
    fill(plan, tmp_path)
    results = Records(plan, tmp_path)
    several = CellSpec(variant="ddpm-cosine", item=["ddim-7", "ddim-5"], metric="fid")
    assert results.find(several)[0] == "ddim-5"
    none = CellSpec(variant="ddpm-cosine", item=["ddim-7", "ddim-9"], metric="fid")
    item, found = results.find(none)
    assert (item, found.note) == ("ddim-7", "this benchmark has no such ddim-7 or ddim-9")
    assert results.values(none) == {}


def test_a_number_that_another_seed_has_is_missing_with_its_reason():
    jobs = [
        ({"variant": "a", "seed": 0, "stage": "sample", "item": "x"}, {"fid": {"value": 2.0}}),
        (
            {"variant": "a", "seed": 1, "stage": "sample", "item": "x"},
            {"fid": {"value": None, "reason": "outside"}, "is": {"value": 3.0}},
        ),
    ]
    table = long([(job, Outcome("ok", scores=scores)) for job, scores in jobs])
    found = table[["seed", "metric", "status", "reason"]].to_numpy().tolist()
    assert found == [
        [0, "fid", "ok", ""],
        [0, "is", "missing", "the scores have no is"],
        [1, "fid", "missing", "outside"],
        [1, "is", "ok", ""],
    ]


def test_the_command_line_starts_without_pandas():
    code = "import sys, diffbench.cli, diffbench.reporting.records; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=REPOSITORY)
    assert done.stdout.split() == [b"False"]
