"""The convolution with fewer products, and its gradients, against PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffbench.networks import winograd
from diffbench.networks.winograd import Convolution, convolved, kernel_gradient
from diffbench.specs.networks import NetworkSpec
from diffbench.specs.registry import build

LAST = torch.channels_last


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FROM_TILES", "OF_KERNELS", "TO_RESULTS"):
        single = {"FROM_TILES": "FROM_TILE", "OF_KERNELS": "OF_KERNEL", "TO_RESULTS": "TO_RESULT"}
        each = getattr(winograd, single[name])
        monkeypatch.setattr(winograd, name, torch.kron(each, each))


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 4, 12), (3, 5, 16, 8)])
def test_it_is_the_convolution_and_its_gradients(shape: tuple[int, ...]) -> None:
    """In float64 the two agree to its rounding of 1e-16, times some hundred: entries of the matrices are up to 64."""
    x, weight = drawn(*shape), drawn(4, shape[1], 3, 3, seed=1)
    torch.testing.assert_close(
        convolved(x, weight), F.conv2d(x, weight, padding=1), rtol=1e-12, atol=1e-12
    )
    dy = drawn(shape[0], 4, *shape[2:], seed=2)
    weight.requires_grad_()
    (wanted,) = torch.autograd.grad((F.conv2d(x, weight, padding=1) * dy).sum(), weight)
    torch.testing.assert_close(kernel_gradient(x, dy), wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("size", winograd.SIZES)
def test_in_float32_a_layer_and_its_gradients_differ_by_rounding(size: int) -> None:
    """Of 128 channels; float32 rounds by 6e-8, and the transforms enlarge it to some 2e-6 of the norm."""
    torch.manual_seed(0)
    layer, plain = Convolution(128, 128, 3, padding=1), nn.Conv2d(128, 128, 3, padding=1)
    plain.load_state_dict(layer.state_dict())
    x = drawn(16, 128, size, size).float().contiguous(memory_format=LAST)
    dy = drawn(16, 128, size, size, seed=1).float()
    assert layer.gains(x)
    found = []
    for each in (layer, plain):
        image = x.clone(memory_format=LAST).requires_grad_()
        y = each(image)
        found.append([y, *torch.autograd.grad((y * dy).sum(), [image, *each.parameters()])])
    for got, wanted in zip(*found, strict=True):
        assert (got - wanted).norm() < 1e-5 * wanted.norm()
    assert found[0][0].is_contiguous(memory_format=LAST)


def test_where_it_was_not_faster_it_is_pytorchs() -> None:
    layer = Convolution(128, 128, 3, padding=1)

    def image(batch: int = 16, size: int = 16) -> Tensor:
        return torch.zeros(batch, 128, size, size).contiguous(memory_format=LAST)

    assert layer.gains(image())
    assert not layer.gains(image(size=32)) and not layer.gains(image(size=4))
    assert not layer.gains(image(batch=1)) and not layer.gains(image(size=10))
    assert not layer.gains(torch.zeros(16, 128, 16, 16)), "channels first"
    assert not layer.gains(image().double())
    assert not Convolution(128, 64, 3, padding=1).gains(image())
    assert not Convolution(128, 128, 1).gains(image())
    assert not Convolution(128, 128, 3, padding=1, stride=2).gains(image())
    with torch.autocast("cpu", torch.bfloat16):
        assert not layer.gains(image())


def test_ddpms_network_says_the_same_with_and_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of some 40 layers adds 2e-6 of its result's norm."""
    torch.manual_seed(0)
    spec = NetworkSpec.choose({"name": "ddpm", "channels": 128, "blocks": 1})
    sizes = {"image_shape": (3, 16, 16), "in_channels": 3, "out_channels": 3, "classes": 0}
    network = build(spec, **sizes).eval().to(memory_format=LAST)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    x = drawn(4, 3, 16, 16).float().contiguous(memory_format=LAST)
    calls = []
    inner = winograd.convolved
    monkeypatch.setattr(winograd, "convolved", lambda *given: calls.append(1) or inner(*given))
    with torch.no_grad():
        got = network(x, torch.full((4,), 500.0))
        assert calls
        monkeypatch.setattr(winograd, "SIZES", ())
        wanted = network(x, torch.full((4,), 500.0))
    assert (got - wanted).norm() < 1e-4 * wanted.norm()
