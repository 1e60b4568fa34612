"""The simplex experiment: an exact score has the closed form's likelihood, and a tiny budget runs."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from toys import Toy, close

from diffbench.networks.categories import CategoryNetwork
from diffbench.specs.analysis import SimplexSpec
from diffbench.specs.solver import EulerMaruyamaSpec
from diffbench.stages.bench import Bench
from diffbench.stages.simplex import Simplex

BUDGET = {"steps": 3, "batch": 4, "lr": 1e-3}
CPU = torch.device("cpu")


def spec_of(**options: object) -> SimplexSpec:
    small = {
        "categories": 5,
        "points": 40,
        "held_out": 20,
        "samples": 30,
        "steps": 3,
        "width": 4,
        "blocks": 1,
    }
    return SimplexSpec(**{**small, "training": BUDGET, **options})


def bench(seed: int = 0) -> Bench:
    return Bench(None, CPU, None, Path(), seed)  # type: ignore[arg-type]


@pytest.mark.parametrize(("categories", "probes"), [(2, None), (5, None), (1000, 1)])
def test_uniform_points_have_the_closed_forms_likelihood(
    categories: int, probes: int | None
) -> None:
    """Dirichlet(1, .., 1) is uniform on the cube: its score is 0, and its density 1 but for float32."""
    experiment = Simplex(spec_of(categories=categories, concentrations=[1.0], probes=probes))
    exact = Toy(experiment.process, "eps", lambda x, t: 0 * x)
    found = experiment.likelihood(exact, bench())
    assert abs(found["simplex_excess_nats"]["value"]) < 1e-6
    close(
        *(torch.tensor(found[k]["value"]) for k in ("simplex_nats", "simplex_exact_nats")),
        rtol=1e-6,
    )


def test_uniform_samples_are_valid_points_with_the_right_means() -> None:
    experiment = Simplex(spec_of(concentrations=[1.0], samples=2000))
    exact = Toy(experiment.process, "eps", lambda x, t: 0 * x)
    found = experiment.sampled(EulerMaruyamaSpec(steps=20), exact, bench())
    # K roundings of numbers that sum to 1; the root mean square of five standardised means, within 5 deviations.
    assert found["simplex_sum_error"]["value"] < 5 * 2.3e-16
    assert found["simplex_smallest"]["value"] >= 0
    assert found["simplex_mean_error"]["value"] < 1 + 5 / 10**0.5


def test_it_trains_samples_and_evaluates_the_same_each_time() -> None:
    contents = [Simplex(spec_of()).measure(bench())[0] for _ in range(2)]
    assert contents[0] == contents[1]
    assert contents[0] != Simplex(spec_of()).measure(bench(1))[0]
    assert set(contents[0]["metrics"]) == set(contents[0]["transport"]) | {
        "simplex_exact_nats",
        "simplex_nats",
        "simplex_excess_nats",
    }


def test_the_network_has_the_shape_of_its_input_and_begins_at_zero() -> None:
    x = torch.rand(3, 1, 1, 7)
    assert torch.equal(CategoryNetwork(7, 4, 1)(x, torch.zeros(3)), torch.zeros_like(x))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"categories": 1}, "greater than or equal to 2"),
        ({"concentrations": [0.5]}, "greater than or equal to 1"),
        ({"width": 3}, "multiple of 2"),
    ],
)
def test_mistakes_are_refused(options: dict, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        spec_of(**options)
