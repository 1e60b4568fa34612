"""The simplex experiment: an exact score has the closed form's likelihood, and a tiny budget runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import beta
from toys import Toy, close

from diffbench.analyses.bench import Bench
from diffbench.analyses.simplex import Simplex
from diffbench.networks.categories import CategoryNetwork
from diffbench.specs.analyses import SimplexSpec
from diffbench.specs.solvers import EulerMaruyamaSpec

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
    uniform = {"concentrations": [1.0], "contrast": 1, "components": 1}
    experiment = Simplex(spec_of(categories=categories, probes=probes, **uniform))
    exact = Toy(experiment.process, "eps", lambda x, t: 0 * x)
    found = experiment.likelihood(exact, bench())
    assert abs(found["simplex_excess_nats"]["value"]) < 1e-6
    close(
        *(torch.tensor(found[k]["value"]) for k in ("simplex_nats", "simplex_exact_nats")),
        rtol=1e-6,
    )


def test_uniform_samples_are_valid_points_with_the_right_means() -> None:
    experiment = Simplex(spec_of(concentrations=[1.0], contrast=1, samples=2000))
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
        "simplex_uncoupled_excess_nats",
        "simplex_coupling_nats",
    }


def test_of_one_dirichlet_nothing_is_coupled() -> None:
    experiment = Simplex(spec_of(components=1))
    assert float(experiment.coupling(experiment.held_out(bench())).abs().max()) < 1e-12


def test_coupling_is_the_total_correlation() -> None:
    """Of three categories, v_1 and v_2: the integral of p ln(p/(p_1 p_2)) by midpoints, with Beta densities by scipy.

    Midpoints err by O(1/n^2), with n by a third of the change from n/2; 4,000 points have a standard error that is
    measured, and five of them are allowed.
    """
    experiment = Simplex(spec_of(categories=3, components=2, contrast=6, held_out=4000))

    def integral(n: int) -> float:
        v = (np.arange(n) + 0.5) / n
        parts = [
            (beta(a[0], a[1] + a[2]).pdf(v), beta(a[1], a[2]).pdf(v))
            for a in experiment.concentrations.tolist()
        ]
        joint = sum(np.outer(*each) for each in parts) / 2
        alone = np.outer(*(sum(each[i] for each in parts) / 2 for i in (0, 1)))
        return float((joint * np.log(joint / alone)).mean()) / 2

    half, wanted = integral(200), integral(400)
    found = experiment.coupling(experiment.held_out(bench()))
    error = float(found.std()) / len(found) ** 0.5
    assert abs(float(found.mean()) - wanted) < 5 * error + abs(wanted - half)
    assert wanted > 20 * error


def test_a_coordinate_without_coupling_knows_itself_alone() -> None:
    torch.manual_seed(0)
    x, other = torch.rand(2, 1, 1, 5), torch.rand(2, 1, 1, 5)
    other[..., 2] = x[..., 2]
    for coupled in (True, False):
        network = CategoryNetwork(5, 4, 2, coupled)
        torch.nn.init.normal_(network.head.weight)
        answers = [network(each, torch.zeros(2))[..., 2] for each in (x, other)]
        assert torch.equal(*answers) != coupled


@pytest.mark.slow
def test_a_model_without_coupling_fails_and_one_with_it_does_not() -> None:
    """A product of densities loses at least the total correlation; a third of it is what the coupled model may lose."""
    budget = {"steps": 600, "batch": 256, "lr": 5e-3, "warmup": 50, "ema": 0.99}
    options = {"categories": 4, "components": 2, "contrast": 8, "points": 10000, "held_out": 500}
    experiment = Simplex(spec_of(**options, width=32, blocks=2, steps=20, training=budget))
    metrics = experiment.measure(bench())[0]["metrics"]
    coupling, coupled, alone = (
        metrics[f"simplex_{name}_nats"] for name in ("coupling", "excess", "uncoupled_excess")
    )
    assert alone["value"] > coupling["value"] - 3 * (alone["se"] + coupling["se"])
    assert coupled["value"] < coupling["value"] / 3


def test_the_network_has_the_shape_of_its_input_and_begins_at_zero() -> None:
    x = torch.rand(3, 1, 1, 7)
    assert torch.equal(CategoryNetwork(7, 4, 1)(x, torch.zeros(3)), torch.zeros_like(x))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"categories": 1}, "greater than or equal to 2"),
        ({"concentrations": [0.5]}, "greater than or equal to 1"),
        ({"contrast": 0.5}, "greater than or equal to 1"),
        ({"width": 3}, "multiple of 2"),
    ],
)
def test_mistakes_are_refused(options: dict, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        spec_of(**options)
