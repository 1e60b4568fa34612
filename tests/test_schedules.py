"""Schedules against improved-diffusion's tables and the published end points."""

import math

import pytest
import torch
from pydantic import ValidationError
from toys import close, column, fixed_variance, process_of, recorded

from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.core.transitions import posterior_residual, step_mean
from diffbench.diffusion.processes.discrete import Discrete
from diffbench.diffusion.processes.schedules import cosine_betas, linear_betas
from diffbench.specs.processes import ProcessSpec

CHAINS = {
    f"{schedule}{steps}": (schedule, steps)
    for schedule, steps in [("linear", 1000), ("cosine", 1000), ("cosine", 4000), ("linear", 50)]
}
TABLES = ["linear1000", "cosine1000", "linear50"]


def chain(name: str) -> Discrete:
    schedule, steps = CHAINS[name]
    return process_of("discrete", schedule=schedule, steps=steps)


def times(process: Discrete) -> torch.Tensor:
    return torch.arange(process.steps, dtype=torch.float64)


@pytest.mark.parametrize("name", CHAINS)
def test_betas_and_their_products(name: str) -> None:
    process, tables = chain(name), recorded("gd_schedules")
    close(process.betas, tables[f"{name}_betas"])
    close(process.alpha(times(process)) ** 2, tables[f"{name}_alphas_cumprod"])


@pytest.mark.parametrize("name", TABLES)
def test_posterior_variance(name: str) -> None:
    process, tables = chain(name), recorded("gd_schedules")
    t = times(process)
    close(process.posterior_variance(t, t - 1), tables[f"{name}_posterior_variance"])


@pytest.mark.parametrize("name", TABLES)
def test_log_variance_of_the_first_step_is_that_of_the_second(name: str) -> None:
    process, tables = chain(name), recorded("gd_schedules")
    t = times(process)
    variances = fixed_variance(process, t, t - 1, "small")
    close(variances.log(), tables[f"{name}_posterior_log_variance_clipped"])
    assert fixed_variance(process, float64(0), float64(-1), "large") == variances[0] == variances[1]


@pytest.mark.parametrize("name", TABLES)
def test_posterior_mean_coefficients(name: str) -> None:
    """The step's mean at (x_0, x_t) = (1, 0) and (0, 1)."""
    process, tables = chain(name), recorded("gd_schedules")
    t = column(times(process))
    r = posterior_residual(process, t, t - 1)
    for x0, x_t, key in [(1.0, 0.0, "coef1"), (0.0, 1.0, "coef2")]:
        truth = Prediction(process, torch.full_like(t, x_t), t, "x0", torch.full_like(t, x0))
        mean = step_mean(truth, t - 1, r).flatten()
        close(mean, tables[f"{name}_posterior_mean_{key}"])


@pytest.mark.parametrize(
    ("schedule", "steps", "number", "want", "digits"),
    [
        ("linear", 1000, lambda betas: (1 - betas).prod(), 4.0358e-5, 5),
        ("cosine", 1000, lambda betas: betas[0], 4.1284e-5, 5),
        ("cosine", 1000, lambda betas: betas[-1], 0.999, 16),
        ("cosine", 1000, lambda betas: betas[-2], 0.7500, 4),
        ("cosine", 1000, lambda betas: (1 - betas).prod(), 2.43e-9, 3),
        ("cosine", 4000, lambda betas: betas[0], 9.866e-6, 4),
        ("cosine", 4000, lambda betas: (1 - betas).prod(), 1.52e-10, 3),
    ],
)
def test_published_end_points(schedule, steps, number, want, digits) -> None:
    """To the digits given: half a unit of the last one."""
    betas = {"linear": linear_betas, "cosine": cosine_betas}[schedule](steps)
    unit = 10.0 ** (math.floor(math.log10(want)) + 1 - digits)
    assert abs(float(number(betas)) - want) <= 0.5 * unit


def test_a_chain_between_any_two_betas() -> None:
    """Ten evenly spaced betas from 0.3 to 0.03, and their products; the scaled ends of 1,000 steps by their values."""
    chain = process_of("discrete", schedule="linear", steps=10, beta_first=0.3, beta_last=0.03)
    betas = 0.3 - 0.03 * torch.arange(10, dtype=torch.float64)
    close(chain.betas, betas, rtol=1e-14)
    close(chain.alpha(times(chain)) ** 2, (1 - betas).log().cumsum(0).exp(), rtol=1e-13)
    for ends in ({"beta_first": 0.002, "beta_last": 0.4}, {"beta_last": 0.4}):
        said = process_of("discrete", schedule="linear", steps=50, **ends)
        assert torch.equal(said.betas, chain_of_fifty().betas)


def chain_of_fifty() -> Discrete:
    """1e-4 and 0.02 times 1000/50."""
    return process_of("discrete", schedule="linear", steps=50)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"schedule": "cosine", "beta_last": 0.1}, "the ends of the linear schedule, .* cosine"),
        ({"schedule": "linear", "beta_last": 1}, "beta_last"),
        ({"schedule": "linear", "beta_first": 0}, "beta_first"),
        ({"schedule": "linear", "steps": 20}, "more than 20 steps, not 20, or a beta_last"),
    ],
)
def test_ends_that_do_not_fit_are_refused(keys: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ProcessSpec.choose({"name": "discrete", **keys})


@pytest.mark.parametrize("steps", [1, 19, 20])
def test_a_linear_schedule_whose_beta_reaches_one_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="more than 20 steps"):
        linear_betas(steps)


def test_twenty_one_linear_steps_are_a_schedule() -> None:
    betas = linear_betas(21)
    assert betas[-1] < 1 and (betas.diff() > 0).all()
