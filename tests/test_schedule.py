"""Noise over time and on grids, by closed forms; and the figure of it."""

import math

import pytest
from commands import REPOSITORY, TINY
from layouts import configured, fill
from scipy.stats import norm

from diffbench.jobs.schedule import QUANTILES, schedule
from diffbench.plan.loading import load_plan
from diffbench.reporting.schedules import NONE
from diffbench.reporting.tables import charts
from diffbench.specs.jobs import ScheduleSpec
from diffbench.store import paths
from diffbench.store.products import write_json_product

FIGURES = {"noise": {"layout": "schedules", "title": "Noise"}}


def of(digits, process, solvers=None, times=None):
    given = {"process": process, "solvers": solvers or {}, "times": times}
    return schedule(ScheduleSpec(variant="v", data={"name": "digits"}, **given), digits)


def test_vp_has_the_log_snr_of_its_formula(digits):
    found = of(digits, {"name": "vp"})
    assert "highest" not in found
    assert found["times"] == sorted(found["times"])
    assert found["times"][-1] == 1
    for t, level in zip(found["times"], found["log_snr"], strict=True):
        alpha2 = math.exp(-0.5 * t**2 * (20 - 0.1) - t * 0.1)
        assert level == pytest.approx(math.log(alpha2 / (1 - alpha2)), rel=1e-6)


def test_noise_is_for_data_in_minus_one_to_one(digits):
    """VE's data range is [0, 1], half as wide: its noise is twice as large for data in [-1, 1]."""
    found = of(digits, {"name": "ve", "sigma_min": 0.01, "sigma_max": 5})
    assert found["log_snr"][-1] == pytest.approx(-2 * math.log(10))
    assert found["log_snr"][0] == pytest.approx(-2 * math.log(0.02), abs=1e-3)


def test_blur_has_curves_of_the_lowest_and_the_highest_frequency(digits):
    found = of(digits, {"name": "blurring", "sigma_max": 2.5})
    plain = of(digits, {"name": "vp-cosine"})
    assert found["log_snr"] == pytest.approx(plain["log_snr"])
    highest = 2 * (7 * math.pi / 8) ** 2
    factor = (1 - 0.001) * math.exp(-highest * 2.5**2 / 2) + 0.001
    difference = found["log_snr"][-1] - found["highest"][-1]
    assert difference == pytest.approx(-2 * math.log(factor))


def test_marks_are_where_steps_begin(digits):
    heun = {"name": "heun", "steps": 3, "sigma_min": 0.01, "sigma_max": 10, "rho": 1}
    solvers = {"heun-3": heun, "ode-adaptive": {"name": "ode-adaptive"}}
    solvers |= {"guided": heun | {"classifier_scale": 2}}
    found = of(digits, {"name": "edm"}, solvers)
    wanted = [-2 * math.log(sigma) for sigma in (10, 5.005, 0.01)]
    assert found["solvers"]["heun-3"] == pytest.approx(wanted)
    assert found["solvers"]["guided"] == found["solvers"]["heun-3"]
    assert found["adaptive"] == ["ode-adaptive"]
    assert "ode-adaptive" not in found["solvers"]


def test_the_marks_of_training_are_quantiles(digits):
    found = of(digits, {"name": "edm"}, times={"name": "lognormal", "mean": -1.0, "std": 1.5})
    quantiles = [(i + 0.5) / QUANTILES for i in range(QUANTILES)]
    wanted = [-2 * (-1.0 + 1.5 * norm.ppf(u)) for u in quantiles]
    assert found["training"] == pytest.approx(wanted)


def test_where_only_blur_changes_marks_are_at_the_highest_frequency(digits):
    process = {"name": "ihdm", "levels": 3, "blur_min": 1, "blur_max": 3, "spacing": "linear"}
    found = of(digits, process | {"sigma": 0.1}, {"deblur": {"name": "inverse-heat"}})
    assert len(set(found["log_snr"])) == 1
    assert found["solvers"]["deblur"] == found["highest"][::-1]


def test_there_is_one_for_each_variant_with_a_process():
    asked = {"only": ["edm", "reflected", "control-test"], "seeds": [0, 1], "schedules": True}
    plan = load_plan([TINY], asked, REPOSITORY)
    jobs = plan.of("schedule")
    assert [(job.variant, job.item) for job in jobs] == [("edm", ""), ("reflected", "")]
    assert jobs[0].product == plan.root / "schedules" / "edm.json"
    assert plan.upstream(jobs[0]) == [plan.job("data")]
    assert (jobs[0].spec.tabled, plan.gpus(jobs[0])) == (True, 0)
    # Another budget or another weight of the loss is no other schedule.
    other = load_plan([TINY], asked | {"training": {"steps": 7}}, REPOSITORY)
    assert other.of("schedule")[0].spec == jobs[0].spec
    assert load_plan([TINY], {"only": ["edm"]}, REPOSITORY).of("schedule") == []


def drawn(folder, contents, **benchmark):
    """The plan and the figure of a benchmark whose schedules have this content, by variant."""
    settings = {"variants": list(contents), "seeds": [0], "schedules": True} | benchmark
    plan = configured(folder, figures=FIGURES, **settings)
    fill(plan, folder)
    for job in plan.of("schedule"):
        write_json_product(paths.product(folder, job.spec), contents[job.variant], job.spec)
    return plan, charts(plan, folder)["noise"]


CONTENT = {"times": [0.0, 1.0], "log_snr": [5.0, -5.0], "solvers": {"a-2": [-5.0, 1.0]}}


def test_variants_of_one_noise_share_a_panel(tmp_path):
    same = CONTENT | {"solvers": {"a-2": [-5.0, 1.0], "b-1": [0.0]}, "training": [1.0, 0.0]}
    other = CONTENT | {"solvers": {"a-2": [-5.0, 2.0]}}
    apart = CONTENT | {"highest": [5.0, None]}
    contents = {"edm": CONTENT, "ve": same, "ihdm": other, "reflected": apart}
    _, drawing = drawn(tmp_path, contents)
    first, second = drawing.schedules
    assert (first.variants, second.variants) == (["edm", "ve", "ihdm"], ["reflected"])
    assert list(first.grids) == ["a-2", "b-1", "training", "a-2, ihdm"]
    assert [line.label for line in second.curves] == ["log SNR", "log SNR, highest frequency"]
    rows = drawing.csv("noise").splitlines()
    assert 'noise,"edm, ve, ihdm",log SNR,1,-5,-,-,1,ok,-' in rows
    assert 'noise,"edm, ve, ihdm",a-2,1,1,-,-,1,ok,-' in rows
    assert drawing.png() == drawing.png()


def test_what_is_missing_is_said(tmp_path):
    plan, _ = drawn(tmp_path, {"edm": CONTENT, "ve": CONTENT})
    paths.product(tmp_path, plan.job("schedule", "ve").spec).unlink()
    drawing = charts(plan, tmp_path)["noise"]
    assert [each.variants for each in drawing.schedules] == [["edm"], ["ve"]]
    assert drawing.csv("noise").splitlines()[-1] == "noise,ve,log SNR,-,-,-,-,0,missing,-"
    drawing.png()


def test_a_benchmark_without_schedules_says_how_to_ask(tmp_path):
    _, drawing = drawn(tmp_path, {"edm": CONTENT}, schedules=False)
    assert NONE in drawing.csv("noise")
    drawing.png()
