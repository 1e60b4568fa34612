"""What a benchmark would cost: counted evaluations, and times by a clock that the tests hold."""

import json
import platform
import re
import time
from functools import cache
from itertools import count
from pathlib import Path

import fast_yaml
import pytest
import torch
from commands import CONFIG, REPOSITORY, TINY, merged, plan_of, write_config

from diffbench import cli
from diffbench.estimate import counting, report
from diffbench.estimate import scoring as scoring_module
from diffbench.estimate.costs import Cost, JobCost, Known, hours_taken, left, size, with_upstream
from diffbench.estimate.estimate import estimate, known_shape
from diffbench.estimate.scoring import Scoring
from diffbench.estimate.stopwatch import FEW, PATIENCE, Stopwatch
from diffbench.estimate.timings import Timings, noise_images
from diffbench.jobs import data, restore
from diffbench.plan.loading import load_plan
from diffbench.plan.rules import rules
from diffbench.specs.errors import PlanError
from diffbench.specs.extractors import InceptionSpec
from diffbench.specs.floors import FloorSpec
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
    # What scores are made of is timed with few features, and one batch of few images.
    monkeypatch.setattr(scoring_module, "FEW", 8)
    monkeypatch.setattr(scoring_module, "NARROW", 8)
    monkeypatch.setattr(scoring_module, "BATCH", 8)
    write_config(tmp_path, FEWER)
    return tmp_path


def costs(folder, changes=None):
    """Estimated costs by (stage, variant, item); each timed thing takes EACH."""
    write_config(folder, merged(FEWER, changes or {}))
    found = estimate(plan_of(folder), 2, clock=ticking())
    return found, {(each.job.stage, each.job.variant, each.job.item): each for each in found.costs}


@cache
def unchanged():
    """The costs of the file as it is, in the working directory of the first test that asks (`here`)."""
    return costs(Path())


def test_costs_are_times_the_counts(here):
    found, by_job = unchanged()
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
    # Of a data set only counts are known.
    assert by_job["data", "", ""].known is Known.COUNTED
    for stage in ("reference", "score", "analysis"):
        assert all(each.hours > 0 for each in found.costs if each.job.stage == stage)
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
    before, after = unchanged()[1][job], costs(here, changes)[1][job]
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
    _, before = unchanged()
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


def recorded(job, **changes):
    """The products of a job that is done, with a run record of this machine."""
    for path in job.products:
        write_product(path, b"content", job.spec)
    record = {"host": platform.node(), "device": "cpu", "cpu_seconds": 8.0, "seconds": 9.0}
    paths.run_record(job.product).write_text(json.dumps(record | {"notes": {}} | changes))


def test_done_jobs_of_this_machine_correct_their_stage(here):
    recorded(plan_of(here).job("train", "ve"))
    found, by_job = costs(here, {"only": ["ve", "ddpm-cosine"]})
    # Four steps of EACH seconds took 8 seconds of the processor.
    factor = 8 / (4 * EACH)
    assert found.factors == {"train": (pytest.approx(factor), 1)}
    other = by_job["train", "ddpm-cosine", ""]
    assert (other.hours, other.known) == (pytest.approx(8 / 3600), Known.RECORDED)
    sample = by_job["sample", "ddpm-cosine", "ancestral-10"]
    assert (sample.hours, sample.known) == (pytest.approx(2 * 10 * EACH / 3600), Known.TIMED)
    text = report.text(found)
    said = f"1 done job here, which took {factor:.2f} of what was timed or counted"
    assert said in text


@pytest.mark.parametrize(
    ("changes", "hours"),
    [
        ({}, 8 / 3600),
        ({"host": "another"}, None),
        ({"device": "cuda:0: NVIDIA H200"}, None),
        ({"notes": {"start": 2}}, None),
        ({"notes": 1}, None),
    ],
    ids=["here", "another machine", "another device", "only the end of a training", "torn"],
)
def test_what_a_job_took_here(here, changes, hours):
    job = plan_of(here).job("train", "ve")
    recorded(job, **changes)
    assert hours_taken(job, "cpu") == hours
    gpu = hours_taken(job, "cuda:0: NVIDIA H200")
    assert gpu == (9 / 3600 if "device" in changes else None)


def test_costs_are_added():
    one, other = Cost(1.0, 5, ("a",)), Cost(2.0, 6, ("a", "b"), Known.COUNTED)
    assert one + other == Cost(3.0, 11, ("a", "b"), Known.COUNTED)
    assert (one + Cost(None)).hours is None


def test_the_numbers_of_each_job_can_be_read_by_programs(here, capsys):
    changes = ["--set", "only=ve", "--set", "shards=2"]
    assert cli.main(["estimate", CONFIG, "--steps", "1", "--json", *changes]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"] == "cpu"
    plan = load_plan([here / CONFIG], {"only": "ve", "shards": 2}, REPOSITORY)
    names = {rule.job for rule in rules(plan)}
    jobs = [*plan.jobs, *(shard for job in plan.jobs for shard in plan.shards(job))]
    assert set(found["jobs"]) == {job.name for job in jobs}
    # A job's name is the path of its log.
    assert all(fits(job.name, names) for job in jobs)
    names = ("sample/ve/seed0/pc-3", "shard/ve/seed0/pc-3/1of2", "shard/ve/seed0/pc-3/2of2")
    whole, *parts = (found["jobs"][name] for name in names)
    assert whole["seconds"] == 0 and len({part["seconds"] for part in parts}) == 1
    assert {each["known"] for each in found["jobs"].values()} == {"timed", "counted"}


def fits(name, templates):
    patterns = (re.sub(r"\{\w+\}", "[^/]+", template) for template in templates)
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def test_an_extractor_that_cannot_be_timed_is_counted(here):
    plan = plan_of(here)
    timings = Timings(plan, 1, known_shape(plan), ticking())
    reference = plan.job("reference").spec
    large = Scoring(
        reference.model_copy(update={"extractor": InceptionSpec(opinions=("clean_fid",))}), timings
    )
    # Two passes of each image of 11.4e9 operations; a convolution of 4 images takes TICK.
    operations = 2 * 9 * 128**2 * 4 * 32**2
    assert large.features(2 * 50) == pytest.approx(100 * 11.4e9 * TICK / operations)
    assert large.cost(lambda: 7200.0) == Cost(2.0, known=Known.COUNTED)
    # An extractor of which neither is known is not estimated.
    unknown = Scoring(reference, timings)
    unknown.width = 0
    assert unknown.cost(lambda: 7200.0).hours is None


def test_scores_grow_as_their_counts_do(here):
    plan = plan_of(here)
    scoring = Scoring(plan.job("reference").spec, Timings(plan, 1, known_shape(plan), ticking()))
    assert (scoring.train, scoring.test, scoring.width) == (1500, 297, 32)
    seconds = {"image": 2.0**-8, "distance": 2.0**-20, "pixels": 2.0**-18, "kernel": 2.0**-24}
    vars(scoring).update(seconds | {"row": 2.0**-12, "frechet": 2.0**-6, "logits": 2.0**-14})
    n, times = 2000, 21
    # KID's subsets have half of the smaller set: 750 of 1,500.
    kernels = 20 * 3 * 750**2 * 2.0**-24
    fids = times * (n * 2.0**-12 + 2 * 2.0**-6)
    wanted = n * 2.0**-8 + 3500**2 * 2.0**-20 + n * 1500 * 2.0**-18 + kernels + fids
    assert scoring.samples(n) == pytest.approx(wanted + times * n * 2.0**-14)
    assert scoring.floors(n, FloorSpec(redraws=10)) == pytest.approx(fids * 10 / times)


def test_a_table_costs_its_jobs_and_what_they_are_built_on(here):
    found, by_job = unchanged()
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
    _, by_job = unchanged()
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
    assert rows["variant"] == [
        *("variant", "data", "reference", "train", "sample", "score", "likelihood"),
        *("hours", "disk"),
    ]
    assert rows["ddpm-cosine"][1:3] == ["-", "-"]
    assert all(float(hours) > 0 for hours in rows["ddpm-cosine"][3:8])
    shared, own = float(rows["(shared)"][-3]), float(rows["ddpm-cosine"][-3])
    # Three digits of each.
    assert float(rows["all"][-3]) == pytest.approx(shared + own, rel=0.02)
    assert float(rows["overview"][2]) > 0
    assert " ".join(rows["data"]).endswith("a guess from counts")
    assert " ".join(rows["score"]).endswith("timed here")
    assert "not estimated" not in out
    # 2 s, a quarter of one for each of the four figures, and 15 ms for each of up to nine jobs.
    assert "- tables, figures and the page, made at the end, are no job: about 3.1 s" in out
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
