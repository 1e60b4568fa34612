"""The lean U-Net: shapes, the null class, features, initialisation."""

import math

import pytest
import torch
from pydantic import ValidationError

from diffbench.networks.parts import FourierFeatures
from diffbench.networks.unet import NoiseEmbedding, UNet
from diffbench.specs.networks.network import UNetSpec


def build(image_shape=(1, 8, 8), out_channels=1, classes=0, in_channels=None, **changes) -> UNet:
    torch.manual_seed(0)
    return UNet(
        UNetSpec(**changes),
        image_shape=image_shape,
        in_channels=in_channels or image_shape[0],
        out_channels=out_channels,
        classes=classes,
    )


def awake(network: UNet) -> UNet:
    """The network with an output layer that is not zero, so that its inputs matter."""
    torch.manual_seed(1)
    torch.nn.init.normal_(network.head[-1].weight)
    return network


def batch(image_shape=(1, 8, 8), size=4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(size, *image_shape, generator=generator), torch.linspace(-1.7, 2.5, size)


@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 8, 8), (1, 6, 10), (3, 32, 32), (1, 2, 2)])
@pytest.mark.parametrize("position_embedding", [False, True])
@pytest.mark.parametrize("out", [1, 2])
def test_keeps_the_image_size(image_shape, position_embedding, out):
    channels = out * image_shape[0]
    network = build(image_shape, channels, position_embedding=position_embedding, fourier=(8,))
    x, c_noise = batch(image_shape)
    assert network(x, c_noise, None, x).shape == (4, channels, *image_shape[1:])


def test_starts_at_zero():
    x, c_noise = batch()
    assert build()(x, c_noise).abs().max() == 0


def test_default_size():
    assert sum(p.numel() for p in build(fourier=(8,)).parameters()) == 133_137
    assert all(b.dtype == torch.float32 for b in build(fourier=(8,)).buffers())


def test_without_heads_there_is_no_attention():
    assert not any("attention" in name for name, _ in build(heads=0).named_parameters())
    x, c_noise = batch()
    assert awake(build(heads=0))(x, c_noise).shape == x.shape


def test_the_state_holds_parameters_only():
    network = build(fourier=(8,), classes=3)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_labels_without_classes_are_refused():
    x, c_noise = batch()
    with pytest.raises(ValueError, match="no classes"):
        build()(x, c_noise, torch.zeros(4, dtype=torch.long))


def test_features_without_an_image_are_refused():
    x, c_noise = batch()
    with pytest.raises(ValueError, match="raw"):
        build(fourier=(8,))(x, c_noise)


@pytest.mark.parametrize("size", [(1, 7, 8), (1, 8, 5)])
def test_an_odd_size_is_refused(size):
    with pytest.raises(ValueError, match="must be even, not"):
        build(size)


@pytest.mark.parametrize(
    "changes",
    [
        {"inner_channels": 46},
        {"inner_channels": 48, "heads": 5},
        {"embedding": 33},
        {"channels": 0},
    ],
)
def test_sizes_that_do_not_divide_are_refused(changes):
    with pytest.raises(ValidationError):
        UNetSpec(**changes)


def test_gradient_reaches_every_parameter_after_one_step():
    network = build((3, 8, 8), 6, classes=5, fourier=(8, 16))
    x, c_noise = batch((3, 8, 8))
    y = torch.tensor([0, 2, 5, 4])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        (network(x, c_noise, y, x) - 1).square().mean().backward()
        optimiser.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_each_image_is_computed_alone():
    network = awake(build(classes=2, fourier=(8,)))
    x, c_noise = batch()
    y = torch.tensor([0, 1, 2, 1])
    together = network(x, c_noise, y, x)
    alone = torch.cat(
        [network(x[i, None], c_noise[i, None], y[i, None], x[i, None]) for i in range(4)]
    )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_features_are_one_period_per_grey_level():
    levels = torch.arange(17) / 8 - 1
    x = (levels + 1 / 64).reshape(1, 1, 1, 17)
    sine, cosine = FourierFeatures((8,))(x).flatten(2)[0]
    torch.testing.assert_close(sine, torch.full((17,), math.sqrt(0.5)), atol=2e-5, rtol=0)
    torch.testing.assert_close(cosine, torch.full((17,), math.sqrt(0.5)), atol=2e-5, rtol=0)


def test_features_keep_their_precision_under_autocast():
    x, c_noise = batch()
    features = FourierFeatures((8, 127.5))
    with torch.autocast("cpu", torch.bfloat16):
        under = features(x)
    assert under.dtype == torch.float32
    torch.testing.assert_close(under, features(x))
    assert under.shape == (4, 4, 8, 8)


def test_noise_levels_are_told_apart():
    """No two of 400 noise levels of the range share an embedding."""
    angles = torch.linspace(-1.7, 2.5, 400)[:, None] * NoiseEmbedding(64).frequencies
    code = torch.cat([angles.sin(), angles.cos()], dim=1)
    distances = torch.cdist(code, code) + 1e3 * torch.eye(400)
    assert distances.min() > 0.3
