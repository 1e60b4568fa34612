"""What a finished run does in a notebook, with the exact model of the digits, which needs no training."""

import numpy as np
import pytest
import torch
from commands import REPOSITORY

import diffbench
from diffbench.jobs import data, sample, train
from diffbench.notebook import chosen
from diffbench.plan.loading import load_plan
from diffbench.specs.errors import PlanError
from diffbench.specs.solvers import HeunSpec, SolverSpec
from diffbench.store import paths

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    plan = load_plan(
        [REPOSITORY / "config" / "digits.yaml"],
        {"only": "control-exact", "samples": 20},
        REPOSITORY,
    )
    (drawn,) = plan.of("sample")
    data.run(plan.job("data").spec, root, "cpu")
    train.run(plan.job("train", "control-exact", 0).spec, root, "cpu")
    sample.run(drawn.spec, root, "cpu")
    return diffbench.load(paths.product(root, drawn.spec.train).parent)


def test_a_run_says_what_it_is(run):
    assert "control-exact, seed 0, edm on digits, 1 solvers" in repr(run)
    assert run.solvers() == {"heun-18": HeunSpec(steps=18)} and run.likelihoods() == {}


def test_a_solver_goes_by_its_name_its_kind_or_its_spec(run):
    images = run.sample(3, HeunSpec(steps=4))
    assert images.shape == (3, 8, 8, 1) and images.dtype == np.uint8
    for solver in ("heun", "heun-18"):
        assert np.array_equal(run.sample(3, solver, steps=4), images)
    assert not np.array_equal(run.sample(3, "heun", steps=4, seed=1), images)
    with pytest.raises(PlanError, match="'hein' is not a known solver; known: ancestral"):
        run.sample(3, "hein")
    with pytest.raises(PlanError, match="solver heun: stps: unknown key 'stps' .*mean 'steps'"):
        run.sample(3, "heun", stps=4)
    with pytest.raises(PlanError, match="solver heun-18: steps: must be greater than 0, not 0"):
        run.sample(3, "heun-18", steps=0)
    assert chosen(SolverSpec, spec := HeunSpec(steps=2), {}, {}) is spec


def test_a_trajectory_ends_in_the_sample(run):
    found = run.trajectory(2, "heun", states=3, steps=4)
    assert found["states"].shape == (3, 2, 8, 8, 1) and found["steps"].tolist() == [0, 2, 4]
    last = torch.from_numpy(found["states"][-1]).permute(0, 3, 1, 2)
    assert np.array_equal(run._grey.from_model(last), run.sample(2, "heun", steps=4))
    assert (np.diff(found["sigma"]) < 0).all()
    with pytest.raises(ValueError, match="states: 1 must be at least 2"):
        run.trajectory(2, "heun", states=1, steps=4)


def test_images_are_recovered_from_their_latents_and_lie_at_the_ends_of_an_interpolation(run):
    images = run.dataset.train[:4]
    latents = run.encode(images, "heun", steps=40)
    assert latents.shape == (4, 1, 8, 8)
    # The exact model's flow ends in a training image, from the latent of that image in itself.
    assert np.array_equal(run.decode(latents, "heun", steps=40), images)
    between = run.interpolate(images[:2], images[2:], "heun", between=3, steps=40)
    assert between.shape == (2, 3, 8, 8, 1)
    assert np.array_equal(between[:, 0], images[:2]) and np.array_equal(between[:, 2], images[2:])
    for call in (run.encode, run.decode):
        with pytest.raises(ValueError, match="use ddim with eta 0, ode or heun"):
            call(images if call == run.encode else latents, "ddim", steps=4, eta=1)
    with pytest.raises(ValueError, match="between: 1 must be at least 2"):
        run.interpolate(images, images, "ddim", between=1, steps=4)


def test_training_images_are_likelier_than_noise(run):
    noise = np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1), np.uint8)
    settings = {"method": "heun", "steps": 24}
    bits = [run.likelihood(each, "ode", **settings) for each in (run.dataset.train[:3], noise)]
    assert all(each.shape == (3,) and each.dtype == np.float64 for each in bits)
    assert bits[0].max() < bits[1].min()
    with pytest.raises(PlanError, match="'od' is not a known likelihood"):
        run.likelihood(noise, "od")


def test_a_measurement_is_restored(run):
    images = run.dataset.train[:3]
    measured = run.measure(images, "box-mask", height=4, width=4)
    assert measured.y.shape == (3, 1, 48) and measured.std == 0
    found = run.restore(measured, "ddrm", steps=20)
    outside = np.ones((8, 8), bool)
    outside[2:6, 2:6] = False
    assert np.array_equal(found[:, outside], images[:, outside])
    # A mean over pixels of squared levels: the exact model knows these images.
    error = np.square(found.astype(float) - images).mean()
    assert (
        error
        < 0.3 * np.square(run.restore(measured, "pseudo-inverse").astype(float) - images).mean()
    )
    noisy = run.measure(images, "box-mask", noise=0.1, height=4, width=4)
    assert noisy.std == pytest.approx(0.1 * (run._grey.high - run._grey.low))
    apart = (noisy.y - measured.y) / noisy.std
    # 144 standard normal numbers: their variance is 1 with a standard error of sqrt(2/144) = 0.12.
    assert abs(float(apart.var()) - 1) < 0.5
    with pytest.raises(ValueError, match="a box of 40x4"):
        run.measure(images, "box-mask", height=40, width=4)


def test_images_of_another_shape_or_level_are_refused(run):
    images = run.dataset.train[:2]
    with pytest.raises(ValueError, match=r"must be uint8 \(N, 8, 8, 1\)"):
        run.encode(images[:, :4], "ddim", steps=4)
    with pytest.raises(ValueError, match=r"images are float64"):
        run.measure(images.astype(float), "box-mask", height=4, width=4)
    with pytest.raises(ValueError, match="grey level 17, but digits has levels 0 to 16"):
        run.likelihood(np.full_like(images, 17), "ode")
    with pytest.raises(ValueError, match="labels: this model is unconditional"):
        run.likelihood(images, "ode", labels=[1, 2])


def test_a_time_may_be_a_number_or_one_for_each_image(run):
    x = run.process.prior_sample(torch.randn(3, 1, 8, 8))
    each = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    expected = run.denoiser(x, each[:, None, None, None]).x0
    for t in (each, [1, 2.0, 2], each.float()):
        assert torch.equal(run.denoiser(x, t).x0, expected)
    assert torch.equal(run.denoiser(x, 2).x0, run.denoiser(x, torch.tensor(2.0).double()).x0)
    for t in (1e9, -1, [1, 2, float("nan")]):
        with pytest.raises(ValueError, match="is not a time of edm, from 0.002 to 80"):
            run.denoiser(x, t)
    with pytest.raises(ValueError, match=r"t has the shape \(2,\), but must be one time or 3"):
        run.denoiser(x, [1.0, 2.0])
