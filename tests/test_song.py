"""Song et al.'s networks, small: sizes, gradients, labels, filters, what is refused."""

import re

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.signal import upfirdn

from diffbench.networks.resampling import DOWN, UP, DoubledConvolution, FilteredConvolution
from diffbench.networks.song import Song
from diffbench.networks.song_parts import Attention, Positional, normalisation
from diffbench.specs.networks import NetworkSpec, SongSpec
from diffbench.specs.registry import build

NAMES = sorted(name for name, spec in NetworkSpec.known.items() if issubclass(spec, SongSpec))
SMALL = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "heads": 2}


def small(name, classes=0, image_shape=(3, 8, 8), out_channels=3, **changes) -> Song:
    torch.manual_seed(0)
    spec = NetworkSpec.choose({"name": name} | SMALL | changes)
    channels = image_shape[0]
    network = build(
        spec,
        image_shape=image_shape,
        in_channels=channels,
        out_channels=out_channels,
        classes=classes,
    )
    return network.eval()


def awake(network) -> Song:
    """The network with branches as large as their skips, so that all of it matters."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        if parameter.requires_grad and parameter.ndim > 1:
            torch.nn.init.xavier_uniform_(parameter)
    return network


def batch(image_shape=(3, 8, 8), size=4):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(size, *image_shape, generator=generator), torch.linspace(-1, 2, size)


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_are_as_many_as_the_docstring_says(name):
    said = re.search(r"([\d,]+) parameters on CIFAR-10", NetworkSpec.known[name].__doc__)
    sizes = {"image_shape": (3, 32, 32), "in_channels": 3, "out_channels": 3, "classes": 0}
    with torch.device("meta"):
        network = build(NetworkSpec.choose(name), **sizes)
    assert sum(each.numel() for each in network.parameters()) == int(said[1].replace(",", ""))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 4, 12)])
@pytest.mark.parametrize("out", [1, 2])
def test_keeps_the_image_size(name, image_shape, out):
    channels = out * image_shape[0]
    x, c_noise = batch(image_shape)
    network = small(name, image_shape=image_shape, out_channels=channels)
    assert network(x, c_noise).shape == (4, channels, *image_shape[1:])


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_reaches_every_trainable_parameter(name):
    network = awake(small(name, classes=3)).train()
    x, c_noise = batch()
    told = torch.ones(4, network.embedding.augmentation.in_features) if "edm" in name else None
    network(x, c_noise, torch.tensor([0, 1, 2, 0]), x, told).square().sum().backward()
    trainable = {k: each for k, each in network.named_parameters() if each.requires_grad}
    assert {k for k, each in trainable.items() if each.grad is None or not each.grad.any()} == set()
    fixed = network.state_dict().keys() - trainable.keys()
    assert fixed == ({"embedding.noise.frequencies"} if name not in POSITIONAL else set())


POSITIONAL = {"ddpm", "ddpmpp", "edm-ddpmpp"}


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_near_zero(name):
    """The last layer's weights have variance 1e-10 times 2/(fan in + fan out): its outputs are about 1e-5."""
    x, c_noise = batch()
    assert 0 < small(name)(x, c_noise).abs().max() < 1e-3


def test_the_augmentation_matters_and_zeros_are_none():
    network = awake(small("edm-ddpmpp"))
    x, c_noise = batch()
    none = network(x, c_noise)
    torch.testing.assert_close(network(x, c_noise, augmented=torch.zeros(4, 9)), none)
    for label in range(9):
        told = network(x, c_noise, augmented=torch.eye(9)[label].expand(4, 9))
        assert not torch.allclose(told, none)


@pytest.mark.parametrize("filtering", ["box", "fir"])
def test_filters_keep_constants_and_are_adjoint(filtering):
    """Halving is doubling's adjoint over four: <down a, b> = <a, up b>/4; a constant stays inside the edge."""
    down, up = DOWN[filtering]().double(), UP[filtering]().double()
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    b = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((down(a) * b).sum(), (a * up(b)).sum() / 4)
    ones = torch.ones_like(a)
    for made in (down(ones), up(ones)):
        torch.testing.assert_close(made[..., 2:-2, 2:-2], torch.ones_like(made[..., 2:-2, 2:-2]))


def test_the_fir_filter_halves_by_its_taps():
    """Taps (1, 3, 3, 1)/8 about each pair of pixels, with zeros beyond the edge."""
    line = torch.arange(1.0, 9)
    image = line.expand(8, 8)[None, None]
    padded = torch.cat([torch.zeros(1), line, torch.zeros(1)])
    taps = torch.tensor([1.0, 3, 3, 1]) / 8
    expected = torch.stack([(padded[2 * i : 2 * i + 4] * taps).sum() for i in range(4)])
    torch.testing.assert_close(DOWN["fir"]()(image)[0, 0, 1], expected)


def test_the_fir_filter_is_scipys():
    """scipy's upfirdn along both axes, cut to what zeros (1, 1), of doubling (2, 1), around the image leave."""
    taps = np.array([1, 3, 3, 1]) / 8
    image = np.random.default_rng(0).normal(size=(8, 6))
    small, large = image, image
    for axis in (0, 1):
        count = image.shape[axis]
        small = upfirdn(taps, small, 1, 1, axis).take(range(2, count + 2, 2), axis)
        large = upfirdn(2 * taps, large, 2, 1, axis).take(range(1, 2 * count + 1), axis)
    tensor = torch.from_numpy(image)[None, None]
    np.testing.assert_allclose(DOWN["fir"]()(tensor)[0, 0], small, atol=1e-15)
    np.testing.assert_allclose(UP["fir"]()(tensor)[0, 0], large, atol=1e-15)


def test_filter_and_convolution_commute():
    """Filter then convolution of stride 2 is convolution then filter, given every zero that either sees."""
    layer = FilteredConvolution(3, 5).double()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    full = torch.nn.functional.conv2d(x, layer.convolution.weight, padding=2)
    other = DOWN["fir"](padding=0).double()(full) + layer.convolution.bias[:, None, None]
    torch.testing.assert_close(layer(x), other)


def test_a_convolution_of_the_doubled_image_and_its_gradient():
    """Sums of 9 products of each of 3 channels, in another order: 27 roundings of 1e-16."""
    torch.manual_seed(0)
    layer, h = DoubledConvolution(3, 5).double(), torch.randn(2, 3, 4, 6).double()
    doubled = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
    want = torch.nn.functional.conv2d(doubled, layer.weight, layer.bias, padding=1)
    got, along = layer(h), torch.randn(want.shape).double()
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)
    gradients = [torch.autograd.grad((each * along).sum(), layer.weight)[0] for each in (got, want)]
    # Each entry is a sum of 96 products.
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_positional_embedding():
    """Sines, then cosines, at 1, 10000^(-1/(n - 1)) .. 1/10000."""
    embedded = Positional(8)(torch.tensor([3.0], dtype=torch.float64))
    frequencies = 10000.0 ** -(torch.arange(4, dtype=torch.float64) / 3)
    expected = torch.cat([(3 * frequencies).sin(), (3 * frequencies).cos()])
    torch.testing.assert_close(embedded[0], expected)


def test_attention_is_the_formula_per_head():
    layer = awake(Attention(8, 2, 0.5)).double()
    h = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q, k, v = layer.qkv(layer.norm(h)).reshape(2, 3, 2, 4, 9).unbind(1)
    weights = (torch.einsum("bhci,bhcj->bhij", q, k) / 2).softmax(-1)
    mixed = torch.einsum("bhij,bhcj->bhci", weights, v).reshape(h.shape)
    torch.testing.assert_close(layer(h), 0.5 * (h + layer.project(mixed)))


@pytest.mark.parametrize(
    ("channels", "groups"), [(128, 32), (384, 32), (64, 16), (12, 3), (144, 16)]
)
def test_groups_of_the_norms(channels, groups):
    assert normalisation(channels).num_groups == groups


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"channels": 6}, "multiple of 4"),
        ({"channels": 8, "heads": 3}, r"of heads \(3\), not 8"),
        ({"multipliers": []}, "multipliers"),
        ({"resampling": "cubic"}, "resampling"),
        ({"chanels": 8}, "chanels"),
    ],
)
def test_other_specs_are_refused(changes, named):
    with pytest.raises(ValidationError, match=named):
        NetworkSpec.choose({"name": "ddpmpp"} | changes)


def test_images_that_cannot_be_halved_are_refused_in_one_line():
    with pytest.raises(
        ValueError, match="halves the image 3 times.* multiples of 8, not 28x28"
    ) as error:
        small("ddpmpp", image_shape=(1, 28, 28), multipliers=[1, 2, 2, 2])
    assert "\n" not in str(error.value)


def test_labels_that_it_does_not_know_are_refused():
    x, c_noise = batch()
    with pytest.raises(ValueError, match="has no classes"):
        small("ddpmpp")(x, c_noise, torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="set network.augmentation"):
        small("ddpmpp")(x, c_noise, augmented=torch.zeros(4, 9))
