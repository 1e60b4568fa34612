"""Speed and operations: counted by hand, layer by layer; the trainer is left as it was."""

from __future__ import annotations

import pytest
import torch
from test_trainer import CPU, trainer_of
from torch import nn

from diffbench.networks.norms import AdaptiveNorm
from diffbench.networks.unet import Patches
from diffbench.training import meter
from diffbench.training.meter import Meter, matrix_peak, operations
from diffbench.training.trainer import Trainer


def by_hand(trainer: Trainer) -> int:
    """Two a multiplication, forward and backward, of layers, group norms and attention."""
    found = {}

    def count(module, inputs, output):
        if isinstance(module, Patches):
            forward = 2 * module[1].weight.numel() * output.shape[2] * output.shape[3]
        elif isinstance(module, nn.Conv2d):
            forward = 2 * module.weight.numel() * output.shape[2] * output.shape[3]
        else:
            forward = 2 * module.weight.numel()
        # Backward: for the weights, and for the inputs if they depend on any weight.
        found[module] = forward * (2 + inputs[0].requires_grad)

    layers = [
        m for m in trainer.network.modules() if isinstance(m, nn.Conv2d | nn.Linear | Patches)
    ]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    trainer.part(trainer.drawn().cut(slice(0, 1)), 1)
    for hook in hooks:
        hook.remove()
    # A norm takes the sums of x and of its square to the means over groups, and so does the gradient.
    norms = [m for m in trainer.network.modules() if isinstance(m, AdaptiveNorm)]
    means = sum(2 * 2 * 2 * m.together.numel() for m in norms)
    # Scores and their sums over 4 x 4 places and 8 channels; the backward pass has two products for each.
    return sum(found.values()) + means + 3 * 2 * 2 * 16 * 16 * 8


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_operations_are_those_of_the_layers(digits, precision):
    trainer = trainer_of(digits, "edm", precision=precision)
    before = {name: each.clone() for name, each in trainer.state().items()}
    counted = operations(trainer)
    assert counted == by_hand(trainer)
    assert all(torch.equal(each, before[name]) for name, each in trainer.state().items())
    assert all(parameter.grad is None for parameter in trainer.network.parameters())


def test_a_cpu_has_no_peak():
    assert matrix_peak(CPU, "fp32") is None


def test_speed_leaves_out_saves_and_the_first_stretch(digits, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    trainer = trainer_of(digits, "edm", batch=10)
    measured = Meter(trainer.batch, trainer.step, operations=50, peak=4000.0)
    assert measured.summary() == {}
    for seconds, speed in ((20, 1), (2, 10), (1, 20)):
        now[0] += seconds
        trainer.step += 2
        # 50 operations an image, of 4000 a second.
        assert measured.stop(trainer.step) == {
            "images_per_second": speed,
            "utilisation": speed / 80,
        }
        now[0] += 1000
        measured.go(trainer.step)
    summary = measured.summary()
    assert summary["images_per_second"] == pytest.approx(40 / 3, rel=1e-3)
    assert summary["utilisation"] == pytest.approx(40 / 3 / 80, abs=1e-4)
    assert Meter(trainer.batch, 0, 50, None).numbers([(10, 1.0)]) == {
        "images_per_second": 10,
        "utilisation": None,
    }
