"""EMA against the arrays recorded from score_sde's (reference/sde_ema.npz)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from diffbench.networks.ema import EMA

REFERENCE = Path(__file__).parent / "reference" / "sde_ema.npz"


class Weights(nn.Module):
    """Five free numbers and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(5, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(1))


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
    shadows = follow(EMA(module, 0.999), module, recorded["params"])
    np.testing.assert_allclose(shadows, recorded["shadow"], rtol=1e-9)


def test_decay_is_capped_by_the_rate():
    module = Weights()
    ema = EMA(module, 0.5)
    for n in range(1, 30):
        ema.update()
        assert ema.decay == min(0.5, (1 + n) / (10 + n))


def test_a_restored_average_continues_as_the_unbroken_one():
    recorded = np.load(REFERENCE)
    module = Weights()
    first = EMA(module, 0.999)
    follow(first, module, recorded["params"][:3])
    resumed = EMA(module, 0.999)
    resumed.load(first.state_dict())
    shadows = follow(resumed, module, recorded["params"][3:])
    np.testing.assert_allclose(shadows, recorded["shadow"][3:], rtol=1e-9)


def test_loading_does_not_alias_the_state():
    module = Weights()
    first, second = EMA(module, 0.9), EMA(module, 0.9)
    second.load(first.state_dict())
    module.values.data.fill_(1.0)
    second.update()
    assert first.shadow["values"].abs().max() == 0


def test_averages_parameters_only_and_copies_them():
    module, other = Weights(), Weights()
    ema = EMA(module, 0.9)
    module.values.data.fill_(2.0)
    ema.update()
    ema.copy_to(other)
    assert list(ema.shadow) == ["values"]
    assert torch.equal(other.values, ema.shadow["values"])


def test_another_network_is_refused():
    with pytest.raises(ValueError, match="another network: bias, values, weight"):
        EMA(Weights(), 0.9).load(EMA(nn.Linear(2, 2), 0.9).state_dict())


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_the_range_is_refused(rate):
    with pytest.raises(ValueError, match="rate"):
        EMA(Weights(), rate)
