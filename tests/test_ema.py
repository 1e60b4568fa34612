"""EMA against the arrays recorded from score_sde's (reference/sde_ema.npz)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from diffbench.networks.ema import EMA, Constant, HalfLife, Warm
from diffbench.specs.averages import ConstantAverageSpec, HalfLifeAverageSpec, WarmAverageSpec
from diffbench.specs.training import TrainingSpec

REFERENCE = Path(__file__).parent / "reference" / "sde_ema.npz"


class Weights(nn.Module):
    """Five free numbers and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(5, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(1))


def warm(rate: float) -> Warm:
    return Warm(WarmAverageSpec(rate=rate))


def follow(ema: EMA, module: Weights, rows: np.ndarray) -> np.ndarray:
    shadows = []
    for row in rows:
        module.values.data.copy_(torch.from_numpy(row))
        ema.update()
        shadows.append(ema.shadow["values"].numpy().copy())
    return np.stack(shadows)


def test_follows_the_official_average():
    recorded = np.load(REFERENCE)
    module = Weights()
    shadows = follow(EMA(module, warm(0.999)), module, recorded["params"])
    np.testing.assert_allclose(shadows, recorded["shadow"], rtol=1e-9)


def test_decay_is_capped_by_the_rate():
    module = Weights()
    ema = EMA(module, warm(0.5))
    for n in range(1, 30):
        ema.update()
        assert ema.decay == min(0.5, (1 + n) / (10 + n))


def test_a_restored_average_continues_as_the_unbroken_one():
    recorded = np.load(REFERENCE)
    module = Weights()
    first = EMA(module, warm(0.999))
    follow(first, module, recorded["params"][:3])
    resumed = EMA(module, warm(0.999))
    resumed.load(first.state_dict())
    shadows = follow(resumed, module, recorded["params"][3:])
    np.testing.assert_allclose(shadows, recorded["shadow"][3:], rtol=1e-9)


def test_loading_does_not_alias_the_state():
    module = Weights()
    first, second = EMA(module, warm(0.9)), EMA(module, warm(0.9))
    second.load(first.state_dict())
    module.values.data.fill_(1.0)
    second.update()
    assert first.shadow["values"].abs().max() == 0


def test_averages_parameters_only_and_copies_them():
    module, other = Weights(), Weights()
    ema = EMA(module, warm(0.9))
    module.values.data.fill_(2.0)
    ema.update()
    ema.copy_to(other)
    assert list(ema.shadow) == ["values"]
    assert torch.equal(other.values, ema.shadow["values"])


def test_another_network_is_refused():
    with pytest.raises(ValueError, match="another network: bias, values, weight"):
        EMA(Weights(), warm(0.9)).load(EMA(nn.Linear(2, 2), warm(0.9)).state_dict())


@pytest.mark.parametrize("rate", [-0.1, 1.0])
@pytest.mark.parametrize("spec", [WarmAverageSpec, ConstantAverageSpec])
def test_a_rate_outside_the_range_is_refused(spec, rate):
    with pytest.raises(ValueError, match="rate"):
        spec(rate=rate)


def test_a_constant_rate_forgets_as_a_geometric_series():
    module = Weights()
    ema = EMA(module, Constant(ConstantAverageSpec(rate=0.75)))
    module.values.data.fill_(1.0)
    for _ in range(6):
        ema.update()
    # What is left of the first weights, zeros, after n updates is 0.75^n: exact in binary.
    assert ema.shadow["values"].tolist() == [1 - 0.75**6] * 5


def test_half_the_weight_is_left_after_the_half_life():
    module = Weights()
    ema = EMA(module, HalfLife(HalfLifeAverageSpec(images=400, ramp_up="none"), batch=100))
    module.values.data.fill_(1.0)
    for _ in range(4):
        ema.update()
    torch.testing.assert_close(ema.shadow["values"], torch.full((5,), 0.5, dtype=torch.float64))


def test_the_ramp_up_keeps_the_half_life_at_a_fraction_of_the_images_seen():
    rule = HalfLife(HalfLifeAverageSpec(images=500_000, ramp_up=0.05), batch=512)
    # Before the first update no image was seen: the average is the weights themselves.
    assert rule.decay(1) == 0
    # After 1000 updates 512,000 were: half the weight after 25,600, which is 50 updates.
    assert rule.decay(1001) ** 50 == pytest.approx(0.5)
    # 500,000 are 5 % of ten million, seen after 19,532 updates; from there on the rate stays.
    assert rule.decay(19_533) == rule.decay(10**6) == pytest.approx(0.5 ** (512 / 500_000))
    assert rule.decay(19_531) < rule.decay(10**6)


def test_a_number_is_the_rate_of_the_warm_average():
    assert TrainingSpec(steps=1, ema="0.5").ema == WarmAverageSpec(rate=0.5)
    assert TrainingSpec(steps=1, ema={"name": "constant", "rate": 0.5}).ema.name == "constant"
    assert TrainingSpec(steps=1, ema="half-life").ema == HalfLifeAverageSpec()
    again = TrainingSpec.read(TrainingSpec(steps=1, ema="half-life").canonical())
    assert again.ema == HalfLifeAverageSpec()
