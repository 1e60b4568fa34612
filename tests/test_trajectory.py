"""States on the way from noise to image: those of the samples, which stay as they are."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import REPOSITORY, TINY, plan_of, write_config
from toys import exact_denoiser, process_of

from diffbench.diffusion.core.condition import UNCONDITIONAL
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.core.streams import normal_like, stream
from diffbench.diffusion.solvers.loop import sample as sampled
from diffbench.diffusion.solvers.loop import solve
from diffbench.estimate.costs import Cost
from diffbench.jobs import data, sample, train, trajectory
from diffbench.jobs.trajectory import evenly
from diffbench.plan.findings import examine
from diffbench.plan.loading import load_plan
from diffbench.specs.errors import PlanError
from diffbench.specs.registry import build
from diffbench.specs.solvers import EulerMaruyamaSpec, HeunSpec
from diffbench.store import paths
from diffbench.store.products import write_product
from diffbench.training import models

#: Three chunks, the first of 16 images; a corrector, walls, and a chain with blur.
ITEMS = {"ve": "pc-3", "reflected": "reflect-3", "ihdm": "deblur"}
SETTINGS = {
    "variants": [*ITEMS, "control-test"],
    "seeds": [0, 1],
    "samples": 40,
    "chunk": 16,
    "training": {"steps": 1},
    "claims": [],
    "trajectory": {"images": 3, "states": 3, "of": ["*/pc-3", "*/reflect-3", "ihdm/*"]},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A plan, and a results folder with its models, samples and trajectories."""
    folder = tmp_path_factory.mktemp("run")
    write_config(folder, SETTINGS)
    plan = plan_of(folder)
    root = folder / plan.root
    spec = plan.job("data").spec
    write_product(paths.dataset(root), lambda file: data.save(build(spec.data).load(), file), spec)
    for variant, item in ITEMS.items():
        train.run(plan.job("train", variant).spec, root, "cpu")
        sample.run(plan.job("sample", variant, 0, item).spec, root, "cpu")
    for job in plan.of("trajectory"):
        trajectory.run(job.spec, root, "cpu")
    return plan, root


def arrays(root, spec):
    with np.load(paths.product(root, spec)) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("variant", ITEMS)
def test_the_last_states_are_the_samples_first_images(run, variant, digits):
    plan, root = run
    spec = plan.job("trajectory", variant, 0, ITEMS[variant]).spec
    kept, drawn = arrays(root, spec), arrays(root, spec.sample)
    steps = 5 if variant == "ihdm" else len(build(spec.sample.solver, exact_like(spec)).times()) - 1
    assert kept["states"].shape == (3, 3, 8, 8, 1)
    assert kept["states"].dtype == np.float32
    assert kept["steps"].tolist() == evenly(steps, 3)
    grey = models.grey_levels_of(digits, spec.sample.train.process)
    last = torch.from_numpy(kept["states"][-1]).permute(0, 3, 1, 2)
    assert np.array_equal(grey.from_model(last), drawn["levels"][:3])
    assert not np.array_equal(kept["states"][0], kept["states"][-1])


def redrawn(root, spec, monkeypatch):
    """The trajectory drawn again, and how many images each attempt drew; None is the whole chunk."""
    drawing, seen = sample.drawing, []

    def noted(*arguments):
        seen.append(arguments[-1])
        return drawing(*arguments)

    monkeypatch.setattr(sample, "drawing", noted)
    dataset = data.load(root, spec.sample.data)
    return trajectory.drawn(spec, root, dataset, torch.device("cpu")), seen


@pytest.mark.parametrize("variant", ["reflected", "ihdm"])
def test_only_its_images_are_drawn(run, variant, monkeypatch):
    plan, root = run
    spec = plan.job("trajectory", variant, 0, ITEMS[variant]).spec
    found, seen = redrawn(root, spec, monkeypatch)
    assert seen == [3]
    for name, kept in arrays(root, spec).items():
        assert np.array_equal(found[name], kept)


def test_the_whole_chunk_is_drawn_where_they_are_not_the_samples(run, monkeypatch, capsys):
    plan, root = run
    spec = plan.job("trajectory", "ihdm", 0, "deblur").spec
    monkeypatch.setattr(sample, "levels", lambda *_: np.zeros((40, 8, 8, 1), np.uint8))
    _, seen = redrawn(root, spec, monkeypatch)
    assert seen == [3, None]
    assert "trajectory ihdm deblur: not the same images as the samples'" in capsys.readouterr().err


def exact_like(spec):
    """A denoiser of the same process."""
    return exact_denoiser(process_of(**spec.sample.train.process.model_dump()))


def test_the_first_state_is_the_prior_s_draw(run):
    plan, root = run
    spec = plan.job("trajectory", "ve", 0, "pc-3").spec
    kept, process = arrays(root, spec), spec.sample.train.process
    z = normal_like(torch.empty(16, 1, 8, 8), stream("sample", 0, 0))[:3]
    start = process.middle + process.sigma_max * z.permute(0, 2, 3, 1)
    assert kept["states"][0] == pytest.approx(start.numpy(), abs=1e-4)
    # For data in [-1, 1], twice as wide as VE's.
    assert kept["sigma"][0] == pytest.approx(2 * process.sigma_max)
    assert kept["alpha"].tolist() == [1, 1, 1]


def test_blur_has_an_alpha_for_the_lowest_and_the_highest_frequency(run):
    plan, root = run
    kept = arrays(root, plan.job("trajectory", "ihdm", 0, "deblur").spec)
    # The highest eigenvalue on 8 x 8 pixels is 2 (7 pi/8)^2; the widest blur is 4 pixels, the noise 0.1 in [0, 1].
    assert kept["alpha"].tolist() == [1, 1, 1]
    assert kept["alpha_highest"][0] == pytest.approx(np.exp(-((7 * np.pi / 8) ** 2) * 16))
    assert kept["sigma"].tolist() == pytest.approx([0.2, 0.2, 0])
    assert kept["times"].tolist() == [4, 2, -1]


def test_the_samples_job_does_not_depend_on_it(run):
    plan, _ = run
    without = load_plan(
        [TINY], {k: v for k, v in SETTINGS.items() if k != "trajectory"}, REPOSITORY
    )
    rest = [job for job in plan.jobs if job.stage != "trajectory"]
    assert [job.spec.digest() for job in rest] == [job.spec.digest() for job in without.jobs]
    (job,) = [job for job in plan.of("trajectory") if job.variant == "ve"]
    above = plan.upstream(plan.job("sample", "ve", 0, "pc-3"))
    assert plan.upstream(job) == [*above, plan.job("sample", "ve", 0, "pc-3")]
    assert (job.spec.tabled, plan.gpus(job), replace(plan, device="cuda").gpus(job)) == (True, 0, 1)


def test_it_is_of_the_first_seed_and_of_the_first_solver_that_is_named(run):
    plan, _ = run
    assert {(job.variant, job.seed) for job in plan.of("trajectory")} == {(v, 0) for v in ITEMS}
    named = {"trajectory": {"of": ["v*/ode-adaptive", "*/pc-3", "ihdm/*"]}}
    chosen = load_plan([TINY], SETTINGS | named, REPOSITORY).of("trajectory")
    assert [(job.variant, job.item) for job in chosen] == [
        ("ve", "ode-adaptive"),
        ("ihdm", "deblur"),
    ]
    assert load_plan([TINY], SETTINGS | {"trajectory": "none"}, REPOSITORY).of("trajectory") == []
    with pytest.raises(PlanError, match=r"trajectory\.of: no variant/solver 'nothing/\*'"):
        load_plan([TINY], SETTINGS | {"trajectory": {"of": ["nothing/*"]}}, REPOSITORY)
    with pytest.raises(PlanError, match=r"trajectory\.states: .*1"):
        load_plan([TINY], SETTINGS | {"trajectory": {"states": 1}}, REPOSITORY)


def test_a_damaged_one_is_found(run, monkeypatch):
    plan, root = run
    monkeypatch.chdir(root.parent.parent)
    mine = replace(plan, jobs=tuple(plan.of("trajectory")))
    assert list(examine(mine)) == []
    path = paths.product(root, mine.jobs[0].spec)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    (finding,) = examine(mine)
    path.write_bytes(content)
    assert (str(finding.path), finding.status) == (
        str(path.relative_to(root.parent.parent)),
        "corrupt",
    )


def test_it_costs_one_chunk_of_samples(run, monkeypatch, digits):
    plan, _ = run
    spec = plan.job("trajectory", "ve", 0, "pc-3").spec
    monkeypatch.setattr(sample, "cost", lambda each, timings: Cost(each.samples, 7, ("a note",)))

    timings = SimpleNamespace(dataset=digits)
    assert trajectory.cost(spec, timings) == Cost(16, 4 * 3 * 3 * 64, ("a note",))


@pytest.mark.parametrize("spec", [HeunSpec(steps=4), EulerMaruyamaSpec(steps=4)])
def test_looking_at_states_changes_nothing(spec):
    solver = build(spec, exact_denoiser(process_of("vp")))
    seen = []

    def watch(t, x):
        seen.append((float(t), x.clone()))

    shape = (2, 1, 2, 2)
    images = sampled(solver, shape, stream("look"), dtype=torch.float64, watch=watch)
    unseen = sampled(solver, shape, stream("look"), dtype=torch.float64)
    assert torch.equal(images, unseen)
    assert [t for t, _ in seen] == solver.times().tolist()
    assert torch.equal(seen[-1][1], images)


def test_a_state_on_the_way_is_what_the_first_steps_give():
    solver = build(HeunSpec(steps=4), exact_denoiser(process_of("vp")))
    seen = []
    times, x = solver.times(), float64([[[[0.3, -1.2], [0.7, 0.1]]]])
    solve(solver, x, UNCONDITIONAL, torch.zeros_like, watch=lambda t, x: seen.append(x))
    for count in (1, 2, 3):
        there = solve(solver, x, UNCONDITIONAL, torch.zeros_like, times[: count + 1])
        assert torch.equal(seen[count], there)


def test_states_are_evenly_spaced_over_the_steps():
    assert evenly(18, 4) == [0, 6, 12, 18]
    assert evenly(25, 12) == [0, 2, 5, 7, 9, 11, 14, 16, 18, 20, 23, 25]
    # A solver with step size control has one step to the last time with noise, and one to the data.
    assert evenly(2, 12) == [0, 1, 2]
    assert evenly(1, 2) == [0, 1]
