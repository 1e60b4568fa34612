"""Power-function averages: profiles by quadrature, and any length from two, against one that was followed directly."""

import numpy as np
import pytest
import torch
from torch import nn

from diffbench.networks.ema import EMA, Power, joined
from diffbench.specs.averages import PowerAverageSpec
from diffbench.specs.profiles import TOLERATED, exponent, missed, products, shares
from diffbench.specs.training import TrainingSpec
from diffbench.specs.weights import Weights

STEPS, TRACKED = 240, (0.05, 0.10)
UNIT = np.finfo(np.float64).eps


def values_of(n):
    """Weights after step n: a drift, what swings, and noise, of five numbers below 2."""
    noise = np.random.default_rng(n).uniform(-0.3, 0.3, 5)
    return np.linspace(-1, 1, 5) * n / STEPS + 0.5 * np.sin(n / 9) + noise


def followed(std, steps=STEPS, at=()):
    """The average of a length as a training follows it, after all steps and after some."""
    module = nn.Module()
    module.values = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    ema = EMA(module, Power(PowerAverageSpec(stds=(std,))))
    found = {}
    for n in range(1, steps + 1):
        module.values.data = torch.from_numpy(values_of(n))
        ema.update()
        if n in (*at, steps):
            found[n] = {"values": ema.shadow["values"].clone()}
    return found


def kept(count):
    """All that a training keeps at so many evenly spaced steps, the last among them."""
    steps = [STEPS * (i + 1) // count for i in range(count)]
    states = {
        Weights(step, std): state
        for std in TRACKED
        for step, state in followed(std, at=steps).items()
    }
    return states


def reconstructed(states, wanted):
    x = shares(list(states), wanted)
    return joined(zip(x.tolist(), states.values(), strict=True), ["values"])["values"].numpy()


def profile(weights, tau):
    gamma = exponent(weights.length)
    inside = (gamma + 1) * tau**gamma / weights.step ** (gamma + 1)
    return np.where(tau <= weights.step, inside, 0.0)


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_the_exponents_are_the_papers(std, gamma):
    """Karras et al. 2024, section 3.1."""
    assert exponent(std) == pytest.approx(gamma, abs=0.005)


@pytest.mark.parametrize("std", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_a_length_is_the_standard_deviation_of_its_profile(std):
    # The midpoint rule of 10^6 points is exact to about 1e-12 on these; steep ones have exponents up to 98.
    tau = (np.arange(10**6) + 0.5) / 10**6
    p = profile(Weights(1, std), tau)
    mean = (p * tau).mean()
    assert p.mean() == pytest.approx(1, abs=1e-6)
    assert ((p * (tau - mean) ** 2).mean()) ** 0.5 == pytest.approx(std, rel=1e-4)


def test_products_of_profiles_are_their_integrals():
    each = [Weights(3, 0.05), Weights(10, 0.1), Weights(10, 0.25)]
    tau = (np.arange(10**6) + 0.5) / 10**5
    on_grid = np.stack([profile(weights, tau) for weights in each])
    # A profile that ends inside is cut at a point of the grid: half a cell of 1e-5 times its product there, below 1e-4.
    np.testing.assert_allclose(products(each, each), on_grid @ on_grid.T * 1e-5, atol=1e-4)


def test_the_rule_is_the_integral_over_its_profile():
    """Weights of step n hold from n - 1 to n: the exact share is (n^(g+1) - (n-1)^(g+1)) / t^(g+1)."""
    n = np.arange(STEPS + 1) / STEPS
    edges = n ** (exponent(0.07) + 1)
    exact = sum((edges[i] - edges[i - 1]) * values_of(i) for i in range(1, STEPS + 1))
    # 240 roundings of numbers below 2.
    np.testing.assert_allclose(
        followed(0.07)[STEPS]["values"].numpy(), exact, rtol=0, atol=2 * STEPS * UNIT
    )


@pytest.mark.parametrize("wanted", [Weights(STEPS, std) for std in (0.04, 0.07, 0.12, 0.15)])
def test_a_length_that_was_not_followed_is_reconstructed_better_the_more_is_kept(wanted):
    """By Cauchy and Schwarz the error is at most ||sum x_i p_i - p|| times the size of the weights over time."""
    direct = followed(wanted.length)[STEPS]["values"].numpy()
    size = np.sqrt(sum(values_of(n) ** 2 for n in range(1, STEPS + 1)))
    own = np.sqrt(products([wanted], [wanted])[0, 0])
    bounds = []
    for count in (4, 8, 16, 32):
        states = kept(count)
        bound = missed(list(states), wanted) * own * size
        error = np.abs(reconstructed(states, wanted) - direct)
        assert (error <= bound).all()
        bounds.append(bound.max())
    assert all(after < before / 2 for before, after in zip(bounds[1:], bounds[2:], strict=False))
    assert bounds[-1] < bounds[0] / 10


@pytest.mark.parametrize("count", [1, 4, 16])
def test_a_length_that_was_kept_is_reconstructed_to_rounding(count):
    states = kept(count)
    gram = products(list(states), list(states))
    scale = 1 / np.sqrt(np.diag(gram))
    # Least squares with a condition number c gets c times the rounding of its n sums wrong, in shares of order 1 that
    # join n numbers below 2.
    n, condition = len(states), np.linalg.cond(gram * scale[:, None] * scale)
    for wanted, state in states.items():
        error = np.abs(reconstructed(states, wanted) - state["values"].numpy())
        spread = (scale.max() / scale.min()) * 2 * n
        assert error.max() <= condition * n * UNIT * spread
        assert missed(list(states), wanted) < 1e-6


def test_constants_of_a_network_are_not_added_up():
    parts = [(0.5, {"w": torch.ones(2), "frequencies": torch.full((2,), 3.0)})] * 4
    found = joined(parts, ["w"])
    assert found["w"].tolist() == [2, 2]
    assert found["frequencies"].tolist() == [3, 3]
    assert found["w"].dtype == torch.float32


def test_too_few_snapshots_are_refused():
    class Asked:
        at, ema_std, step_names = None, 0.2, ("last",)

    few = TrainingSpec(steps=100, ema="power", snapshots=[50])
    assert missed(few.kept, Weights(100, 0.2)) > TOLERATED
    reason = few.weights_refusal(Asked())
    assert "ema_std: 0.2 at step 100" in reason and "keep more snapshots" in reason
    many = TrainingSpec(steps=100, ema="power", snapshots=list(range(10, 100, 10)))
    assert many.weights_refusal(Asked()) is None
    one = TrainingSpec(steps=100, ema={"name": "power", "stds": [0.05]}, snapshots=[50])
    assert "two tracked lengths, and training.ema tracks 0.05" in one.weights_refusal(Asked())
    plain = TrainingSpec(steps=100, snapshots=[50])
    assert "training.ema tracks none" in plain.weights_refusal(Asked())


@pytest.mark.parametrize("stds", [[], [0.05, 0.05], [0.3], [0]])
def test_lengths_that_make_no_sense_are_refused(stds):
    with pytest.raises(ValueError, match="stds"):
        TrainingSpec(steps=1, ema={"name": "power", "stds": stds})
