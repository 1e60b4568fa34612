"""What jobs say of the machine."""

import warnings

import pytest
import torch
from torch import nn

from diffbench.specs.training import TrainingSpec
from diffbench.training import machine
from diffbench.training.models import NetworkRunner

RUNNING = TrainingSpec(steps=1)


@pytest.fixture
def processor(monkeypatch):
    """A function that sets what PyTorch's kernels may use of the processor."""
    machine.warn_if_slow.cache_clear()
    yield lambda name: monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: name)
    machine.warn_if_slow.cache_clear()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_without_fast_kernels_is_told_once(processor, precision):
    processor("AVX2")
    with pytest.warns(
        UserWarning, match=f"precision: {precision} .* write `precision: fp32`"
    ) as told:
        for _ in range(2):
            NetworkRunner(nn.Identity(), torch.device("cpu"), RUNNING, precision)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("kernels", "device", "precision"),
    [("AVX2", "cpu", "fp32"), ("AVX512", "cpu", "bf16"), ("AVX2", "meta", "bf16")],
)
def test_nothing_is_told_where_it_is_not_slow(processor, kernels, device, precision):
    processor(kernels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NetworkRunner(nn.Identity(), torch.device(device), RUNNING, precision)
