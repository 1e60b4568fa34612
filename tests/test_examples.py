"""What the documentation tells users to write works as written."""

import pytest
import torch
from commands import REPOSITORY

from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.diffusion.solvers.loop import sample
from diffbench.plan.loading import load_plan
from diffbench.specs.denoisers import GaussianSpec
from diffbench.specs.registry import build


@pytest.fixture(scope="module")
def plan():
    return load_plan([REPOSITORY / "examples" / "new_method.yaml"], {}, REPOSITORY)


def test_the_new_solver_stands_beside_the_baselines(plan):
    solvers = set(plan.variants["ddpm-cosine"].solvers)
    assert {"fading-ddim-25", "ancestral-100", "ddim-25"} <= solvers


def test_only_its_own_jobs_depend_on_the_extension_file(plan):
    dependent = {run.item for run in plan.jobs if run.stage == "sample" and run.spec.extensions}
    assert dependent == {"fading-ddim-25"}


def test_the_new_solver_samples_a_gaussian(plan):
    run = plan.job("sample", "ddpm-cosine", 0, "fading-ddim-25")
    solver_spec = run.spec.solver.model_copy(update={"threshold": "none", "steps": 250})
    process = build(run.spec.train.process)
    # Data N(0.5, 0.25): 4,000 draws in 4 coordinates; the mean's standard error is 0.5/126 = 0.004.
    mean, covariance = torch.full((4,), 0.5), 0.25 * torch.eye(4)
    denoiser = GaussianDenoiser(GaussianSpec(), process, {"mean": mean, "covariance": covariance})
    solver = build(solver_spec, denoiser)
    x = sample(solver, (4000, 1, 2, 2), stream("example", 0)).flatten()
    assert abs(float(x.mean()) - 0.5) < 5 * 0.004
    # A finite-step sampler is narrower than the data; at 250 steps by a few per cent.
    assert 0.4 < float(x.std()) < 0.52


@pytest.mark.parametrize(
    "benchmark", ["config/digits.yaml", "examples/tiny.yaml", "examples/foreign_model.yaml"]
)
def test_every_shipped_benchmark_plans(benchmark):
    assert load_plan([REPOSITORY / benchmark], {}, REPOSITORY).jobs
