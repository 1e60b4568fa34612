"""What jobs say of the machine."""

import warnings

import pytest
import torch
from torch import nn

from diffbench.diffusion.core.streams import normal_like, stream
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


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("device", "precision", "inside"),
    [
        ("cuda", "fp32", (False, False)),
        ("cuda", "tf32", (True, True)),
        ("cuda", "bf16", (False, False)),
        ("cpu", "tf32", (False, True)),
    ],
)
def test_tf32_is_where_the_precision_says_so(device, precision, inside):
    # PyTorch's default.
    before = (False, True)
    machine.allow_tf32(*before)
    with pytest.raises(ZeroDivisionError), machine.products(torch.device(device), precision):
        assert flags() == inside
        raise ZeroDivisionError
    assert flags() == before


GPU = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is false"
)


@pytest.mark.gpu
@GPU
def test_fp32_is_float32_on_a_gpu_and_tf32_is_not():
    device = torch.device("cuda")
    torch.manual_seed(0)
    for layer, shape in (
        (nn.Linear(512, 512), (512, 512)),
        (nn.Conv2d(64, 64, 3, padding=1), (16, 64, 32, 32)),
    ):
        x = torch.randn(shape)
        with torch.no_grad():
            exact = layer.double()(x.double())
            layer = layer.float().to(device)
            errors = {
                precision: float(
                    (
                        NetworkRunner(layer, device, RUNNING, precision)(x.to(device)).cpu() - exact
                    ).norm()
                    / exact.norm()
                )
                for precision in ("fp32", "tf32")
            }
        # Sums of some 500 products: float32 rounds by 6e-8 and TF32 by 5e-4, each at random.
        assert errors["fp32"] < 1e-5
        assert errors["tf32"] < 1e-2
        if isinstance(layer, nn.Linear):
            assert errors["tf32"] > 1e-5


@pytest.mark.gpu
@GPU
def test_noise_is_sent_to_a_gpu_without_waiting():
    device = torch.device("cuda")
    x = torch.zeros(64, 3, 32, 32, device=device)
    expected = normal_like(x.cpu(), stream("noise"))
    generator = stream("noise")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        z = normal_like(x, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(z.cpu(), expected)
