"""DDPM's descendants: sizes, labels, resampling, gradients."""

import pytest
import torch
from fills import filled
from pydantic import ValidationError

from diffbench.networks.residual_parts import FEATURES, RESAMPLINGS
from diffbench.networks.residual_unet import ResidualUNet
from diffbench.specs.networks import NetworkSpec
from diffbench.specs.networks.residual_unet import ResidualUNetSpec
from diffbench.specs.registry import build

SMALL = {
    "channels": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention": [4],
    "heads": 2,
    "groups": 4,
    "dropout": 0,
}
NAMES = sorted(
    name for name, spec in NetworkSpec.known.items() if issubclass(spec, ResidualUNetSpec)
)


def new(
    name="iddpm", image_shape=(3, 8, 8), out_channels=3, classes=0, in_channels=None, **changes
):
    """A small network of that name."""
    by_width = NetworkSpec.known[name].model_fields["head_channels"].default is not None
    heads = {"head_channels": 4} if by_width else {}
    return build(
        NetworkSpec.choose({"name": name} | SMALL | heads | changes),
        image_shape=image_shape,
        in_channels=in_channels or image_shape[0],
        out_channels=out_channels,
        classes=classes,
    )


def made(*args, **kwargs):
    """The same with weights that all matter."""
    network = new(*args, **kwargs)
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    network.load_state_dict(filled(shapes, torch.float32))
    return network.eval()


def batch(image_shape=(3, 8, 8), size=4):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(size, *image_shape, generator=generator), torch.linspace(0, 999, size)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("image_shape", "in_channels", "out_channels"),
    [((1, 8, 8), 1, 2), ((3, 6, 10), 3, 3), ((3, 2, 2), 7, 6)],
)
def test_keeps_the_image_size(name, image_shape, in_channels, out_channels):
    network = made(name, image_shape, out_channels, in_channels=in_channels)
    x, t = batch((in_channels, *image_shape[1:]))
    assert network(x, t).shape == (4, out_channels, *image_shape[1:])


def test_labels_without_classes_are_refused():
    x, t = batch()
    with pytest.raises(ValueError, match="no classes"):
        made()(x, t, torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_gradient_reaches_every_parameter(name, resampling):
    network = made(name, out_channels=6, classes=5, resampling=resampling)
    x, t = batch()
    network(x, t, torch.tensor([0, 2, 5, 4])).square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_starts_at_zero_and_each_image_is_computed_alone(name):
    x, t = batch()
    assert new(name)(x, t).abs().max() == 0
    network = made(name)
    alone = torch.cat([network(x[i, None], t[i, None]) for i in range(4)])
    torch.testing.assert_close(network(x, t), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("initial", ["fan-in", "fan-average"])
def test_initial_weights(initial):
    """Uniform up to sqrt(1/fan-in) or sqrt(6/(fan-in + fan-out)); of q, k, v each for itself."""
    spec = ResidualUNetSpec.model_validate(
        {
            "name": "any",
            "channels": 64,
            "multipliers": [1],
            "blocks": 1,
            "attention": [8],
            "initial": initial,
        }
    )
    torch.manual_seed(0)
    network = ResidualUNet(spec, image_shape=(3, 8, 8), in_channels=3, out_channels=3, classes=0)
    for weight, fans in [
        (network.encoder[0][0].enter.weight, (576, 576)),
        (network.conditioning.enter.weight, (64, 256)),
        (network.encoder[0][1].qkv.weight, (64, 64)),
    ]:
        bound = (1 / fans[0]) ** 0.5 if initial == "fan-in" else (6 / sum(fans)) ** 0.5
        assert 0.98 * bound < weight.abs().max() <= bound


def test_dropout_acts_in_training_only():
    network = made(dropout=0.5)
    x, t = batch()
    assert torch.equal(network(x, t), network(x, t))
    network.train()
    assert not torch.equal(network(x, t), network(x, t))


@pytest.mark.parametrize("kind", FEATURES)
def test_sinusoids_follow_their_formula(kind):
    """Of width 8 at time 250, by hand; in the precision of the time."""
    half, turn = 4, 1 if kind == "sine-first" else 0
    angles = [250 * 10_000 ** (-k / (half - turn)) for k in range(half)]
    angles = torch.tensor(angles, dtype=torch.float64)
    parts = [angles.sin(), angles.cos()] if turn else [angles.cos(), angles.sin()]
    got = FEATURES[kind](torch.tensor([250.0], dtype=torch.float64), 8)[0]
    torch.testing.assert_close(got, torch.cat(parts), rtol=0, atol=1e-12)
    assert FEATURES[kind](torch.tensor([250.0]), 8).dtype == torch.float32


@pytest.mark.parametrize("size", [(3, 7, 8), (3, 8, 5)])
def test_a_size_that_does_not_halve_is_refused(size):
    with pytest.raises(ValueError, match="halves the image once: height and width must be even"):
        made(image_shape=size)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channels": 7}, "channels must be even"),
        ({"channels": 10}, "groups must divide every width"),
        ({"multipliers": [1, 0.01]}, "groups must divide every width"),
        ({"multipliers": []}, "at least 1 item"),
        ({"heads": 3}, "heads must divide every width, and 3"),
        ({"head_channels": 5}, "head_channels must divide every width, and 5"),
        ({"attention": [0]}, "greater than 0"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        NetworkSpec.choose({"name": "iddpm"} | SMALL | changes)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_near(name):
    """Outputs of order 1 through some twenty layers of bfloat16, 2^-9 each."""
    network = made(name)
    x, t = batch()
    with torch.no_grad():
        full = network(x, t)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x, t)
    assert (half - full).abs().max() < 0.1 * full.abs().max()
    laid_out = network.to(memory_format=torch.channels_last)
    again = laid_out(x.to(memory_format=torch.channels_last), t)
    torch.testing.assert_close(again, full, rtol=1e-4, atol=1e-4)
