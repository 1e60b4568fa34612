"""What a benchmark would cost: counted evaluations, and times by a clock that the tests hold."""

import re
import time
from itertools import count
from pathlib import Path

import fast_yaml
import pytest
import torch
from commands import CONFIG, REPOSITORY, TINY, merged, plan_of, write_config

from diffbench import cli
from diffbench.estimate import counting, report
from diffbench.estimate.costs import JobCost, left, size, with_upstream
from diffbench.estimate.estimate import estimate, known_shape
from diffbench.estimate.stopwatch import FEW, PATIENCE, Stopwatch
from diffbench.estimate.timings import noise_images
from diffbench.jobs import data, restore
from diffbench.plan.loading import load_plan
from diffbench.specs.errors import PlanError
from diffbench.store import paths
from diffbench.store.products import write_product

FEWER = {"only": ["ddpm-cosine", "iddpm-hybrid", "ve", "control-test"]}
CPU = torch.device("cpu")


#: Short enough for the largest batch to be timed as a whole.
TICK = 2**-10
#: Of what is timed twice.
EACH = TICK / 2


def ticking(tick=TICK):
    """A clock that is so much later whenever it is read."""
    return count(0.0, tick).__next__


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the tiny benchmark's file, where no data can be read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", None)
    write_config(tmp_path, FEWER)
    return tmp_path


def costs(folder, changes=None):
    """Estimated costs by (stage, variant, item); each timed thing takes EACH."""
    write_config(folder, merged(FEWER, changes or {}))
    found = estimate(plan_of(folder), 2, clock=ticking())
    return found, {(each.job.stage, each.job.variant, each.job.item): each for each in found.costs}


def test_costs_are_times_the_counts(here):
    found, by_job = costs(here)
    assert {each.seconds for each in found.timed} == {EACH}
    assert by_job["train", "ddpm-cosine", ""].hours == pytest.approx(4 * EACH / 3600)
    # 64 samples in chunks of 32, ten steps each.
    sample = by_job["sample", "ddpm-cosine", "ancestral-10"]
    assert sample.hours == pytest.approx(2 * 10 * EACH / 3600)
    assert sample.size == 64 * 8 * 8
    # With both guidances: two evaluations of the network and a gradient of the classifier in each of five steps.
    guided = by_job["sample", "iddpm-hybrid", "ancestral-5-w1-c2"]
    assert guided.hours == pytest.approx(2 * (10 + 5) * EACH / 3600)
    # Ten of the twenty levels, 297 images in one batch.
    bound = by_job["likelihood", "iddpm-hybrid", "vlb-learned"]
    assert bound.hours == pytest.approx(10 * EACH / 3600)
    adaptive = by_job["sample", "ve", "ode-adaptive"]
    assert adaptive.hours == pytest.approx(2 * counting.ADAPTIVE_CALLS * EACH / 3600)
    assert adaptive.notes == ("step size control is assumed to take 150 evaluations",)
    assert by_job["sample", "control-test", "draw"].hours == 0
    assert by_job["data", "", ""].hours is by_job["score", "ve", ""].hours is None
    assert not (here / "results").exists()


@pytest.mark.parametrize(
    ("changes", "job", "factor"),
    [
        ({"training": {"steps": 12}}, ("train", "ve", ""), 3),
        ({"samples": 320}, ("sample", "ve", "pc-3"), 5),
        ({"samples": 80}, ("sample", "ve", "pc-3"), 80 / 64),
        (
            {"overrides": {"ddpm-cosine": {"solvers": {"ddim-5": {"steps": 10}}}}},
            ("sample", "ddpm-cosine", "ddim-5"),
            2,
        ),
    ],
    ids=["steps", "samples", "a part of a chunk", "evaluations"],
)
def test_hours_are_linear(here, changes, job, factor):
    before, after = costs(here)[1][job], costs(here, changes)[1][job]
    assert after.hours == pytest.approx(factor * before.hours)


#: Network evaluations of the default benchmark as its results have them (README.md).
MEASURED = {
    ("ddpm-cosine", "ancestral-100"): 100,
    ("ddpm-cosine-cond", "ancestral-25-w0"): 25,
    ("ddpm-cosine-cond", "ancestral-25-w4"): 50,
    ("vp", "em-100"): 100,
    ("vp", "pc-50"): 99,
    ("vp", "heun-18"): 35,
    ("sub-vp", "ode-18"): 35,
    ("ve", "rd-100"): 100,
    ("edm", "dpm-9"): 9,
    ("edm", "churn-18"): 35,
    ("ihdm", "deblur"): 50,
    ("blurring-s2.5", "ddim-25"): 25,
    ("reflected", "reflect-100"): 100,
    ("reflected", "ode-18"): 36,
    ("reflected", "transport-9"): 17,
}


def test_evaluations_are_counted_as_they_were_measured():
    # The transport was measured when the default benchmark had it.
    transport = {"transport-9": {"name": "transport", "steps": 9}}
    plan = load_plan([], {"overrides": {"reflected": {"solvers": transport}}}, REPOSITORY)
    images = noise_images(plan.benchmark.data, (1, 8, 8))
    counted = {}
    for variant, item in MEASURED:
        spec = plan.job("sample", variant, 0, item).spec
        counted[variant, item] = counting.of_solver(spec.train, spec.solver, images).network
    assert counted == MEASURED
    restored = {
        run.item: restore.calls_of(run.spec, images).network
        for run in plan.of("restore")
        if run.spec.train
    }
    assert {item: calls for item, calls in restored.items() if "ddrm" in item} == {
        f"{task}/ddrm-20": 20 for task in plan.benchmark.restorations.tasks
    }
    # A predictor and a corrector at each of 25 steps but the last, which goes to the data.
    assert {calls for item, calls in restored.items() if "impute" in item} == {49}


def test_an_exact_trace_has_a_backward_pass_for_each_number(here):
    changes = {"overrides": {"ve": {"likelihoods": {"ode": {"trace": "exact"}}}}}
    write_config(here, merged(FEWER, changes))
    plan = plan_of(here)
    spec = plan.job("likelihood", "ve", 0, "ode").spec
    assert spec.likelihood.backward_passes(64) == 64
    images = noise_images(plan.benchmark.data, (1, 8, 8))
    exact = counting.of_likelihood(spec.train, spec.likelihood, images)
    probed = spec.likelihood.model_copy(update={"trace": "hutchinson"})
    assert probed.backward_passes(64) == 1
    assert counting.of_likelihood(spec.train, probed, images) == exact


def test_a_batch_that_would_take_too_long_is_timed_in_part():
    made = []

    def make(images):
        made.append(images)
        return lambda: None

    quick = Stopwatch(CPU, 4, clock=ticking(1.0)).of_batch("call", 16, make)
    assert (quick.images, quick.seconds, made) == (16, 1 / 4, [FEW, 16])
    made.clear()
    batch = round(FEW * 4 * PATIENCE)
    slow = Stopwatch(CPU, 4, clock=ticking(1.0)).of_batch("call", batch, make)
    assert (slow.images, slow.seconds, made) == (FEW, batch / FEW / 4, [FEW])


def test_nothing_is_compiled_on_a_cpu(here, monkeypatch):
    monkeypatch.setattr(torch, "compile", None)
    _, by_job = costs(here, {"only": ["ve"], "training": {"compile": True}})
    assert by_job["train", "ve", ""].notes == ("training is timed without compiling the network",)


def test_a_cpu_is_timed_by_what_the_process_used():
    """Nobody's load makes an estimate longer: what sleeps costs nothing."""
    assert Stopwatch(CPU, 2).seconds(lambda: time.sleep(0.05)) < 0.05


def test_what_is_done_is_not_counted_and_what_is_begun_only_in_part(here):
    _, before = costs(here)
    plan = plan_of(here)
    done, begun = plan.job("train", "ve"), plan.job("train", "ddpm-cosine")
    write_product(done.product, b"weights", done.spec)
    state = paths.state(plan.root, begun.spec)
    state.mkdir(parents=True)
    (state / f"state-{3:09d}-{0:016x}.safetensors").write_bytes(b"")
    found, after = costs(here)
    key = ("train", "ve", "")
    assert after[key].done and not before[key].done
    assert left([after[key]]) == 0
    assert size([after[key]]) == size([before[key]]) > 0
    key = ("train", "ddpm-cosine", "")
    assert after[key].hours == pytest.approx(before[key].hours / 4)
    text = report.text(found)
    assert f"- 1 of {len(plan.jobs)} jobs are done; their hours are not counted" in text
    assert "- ddpm-cosine seed 0 goes on from step 3" in text


def test_a_table_costs_its_jobs_and_what_they_are_built_on(here):
    found, by_job = costs(here)
    tables = report.table_costs(found)
    assert set(tables) == {"overview", "iddpm-variance"}
    plan = found.plan
    assert {id(cost) for cost in tables["overview"]} == {
        id(cost) for cost in found.costs if cost.job.stage not in ("reference", "score", "analysis")
    }
    of_one = {(cost.job.stage, cost.job.variant) for cost in tables["iddpm-variance"]}
    assert {variant for stage, variant in of_one if stage == "train"} == {
        "ddpm-cosine",
        "iddpm-hybrid",
    }
    assert left(tables["iddpm-variance"]) < left(tables["overview"])
    runs = with_upstream(plan, [plan.job("score", "iddpm-hybrid")])
    wanted = ["classifier", "data", "reference", "sample", "score", "train"]
    assert sorted(run.stage for run in runs) == wanted


def test_the_disk_is_what_training_leaves(here):
    """Weights in float32 and, twice, those, their average and two moments."""
    _, by_job = costs(here)
    spec = by_job["train", "ve", ""].job.spec
    from diffbench.training import models

    network = models.build_network(spec, noise_images(spec.data, (1, 8, 8)))
    weights = 4 * sum(each.numel() for each in network.state_dict().values())
    parameters = 4 * sum(each.numel() for each in network.parameters())
    found = by_job["train", "ve", ""].size
    assert weights + 2 * (weights + 3 * parameters) < found
    # A few numbers more: torch's generator, steps of the optimiser.
    assert found < (weights + 2 * (weights + 3 * parameters)) * 1.05 + 2 * 16384


def test_the_command_prints_an_estimate_without_data(here, capsys):
    assert cli.main(["estimate", CONFIG, "--steps", "1", "--set", "only=ddpm-cosine"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("bench.yaml on cpu: CPU-hours")
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    # Stages without a job here have no column.
    assert rows["variant"] == ["variant", "train", "sample", "likelihood", "hours", "disk"]
    assert float(rows["ddpm-cosine"][1]) > 0 and float(rows["ddpm-cosine"][2]) > 0
    assert rows["all"][1:] == rows["ddpm-cosine"][1:]
    assert float(rows["overview"][2]) > 0
    assert "- not estimated: data, reference, score" in out
    assert not Path("results").exists()


def folder_of_images(folder):
    (folder / "images").mkdir()
    content = fast_yaml.load(TINY.read_text())
    content |= {"data": {"name": "folder", "path": "images"}, "only": ["edm"]}
    content["overrides"] = {"edm": {"likelihoods": {"ode": "none"}}}
    (folder / CONFIG).write_text(fast_yaml.dump(content))


def test_unknown_shapes_are_one_line(here, capsys):
    folder_of_images(here)
    plan = plan_of(here)
    with pytest.raises(PlanError, match="data.size is not given"):
        known_shape(plan)
    assert cli.main(["estimate", CONFIG]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"diffbench estimate: bench.yaml: data: data.size is not given, and the shape of the images of folder is "
        r"known only after they are read; give it with --shape, e.g. --shape 3,32,32",
        line,
    )
    found = estimate(plan, 1, (3, 16, 16), clock=ticking())
    (sample,) = [cost for cost in found.costs if cost.job.item == "heun-18"]
    assert sample.size == 64 * 3 * 16 * 16


@pytest.mark.parametrize(
    "wrong", [("--steps", "0"), ("--steps", "few"), ("--shape", "32"), ("--shape", "3,0,32")]
)
def test_wrong_numbers_are_refused(wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["estimate", str(TINY), *wrong])
    assert "must be" in capsys.readouterr().err.splitlines()[-1]


def test_units():
    assert report.unit("cuda:0: NVIDIA H200") == "GPU-hours"
    assert [report.bytes_of(n) for n in (0, 999, 12345, 3 * 10**9, 5 * 10**13)] == [
        "0 B",
        "999 B",
        "12.3 kB",
        "3 GB",
        "50 TB",
    ]
    job = load_plan([], {}, REPOSITORY).job("data")
    hours = [
        report.hours([JobCost(job=job, hours=each)]) for each in (None, 0.0, 0.01234, 99.4, 6543.2)
    ]
    assert hours == [
        "-",
        "0",
        "0.0123",
        "99.4",
        "6,543",
    ]
    assert [report.seconds(s) for s in (0.00123, 2.5)] == ["1.23 ms", "2.5 s"]
