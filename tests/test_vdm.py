"""VDM's network: its size, what it is told, and a second writing of its equations."""

import pytest
import torch
import torch.nn.functional as F
from fills import filled
from pydantic import ValidationError

from diffbench.networks.parameters import parameters_of
from diffbench.networks.vdm import VDM
from diffbench.specs.networks.vdm import VDMSpec

SMALL = {"channels": 8, "blocks": 2, "groups": 4, "heads": 2, "dropout": 0, "fourier": (64, 128)}


def new(image_shape=(3, 8, 8), out_channels=3, classes=0, in_channels=None, **changes):
    return VDM(
        VDMSpec(**SMALL | changes),
        image_shape=image_shape,
        in_channels=in_channels or image_shape[0],
        out_channels=out_channels,
        classes=classes,
    )


def made(*args, dtype=torch.float32, **kwargs):
    """A small network whose layers all matter."""
    network = new(*args, **kwargs).to(dtype)
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    network.load_state_dict(filled(shapes, dtype))
    return network.eval()


def batch(image_shape=(3, 8, 8), size=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(size, *image_shape, generator=generator).to(dtype)
    return x, torch.linspace(-13.3 / 8, 5 / 8, size, dtype=dtype)


def test_the_papers_size():
    """By hand: the MLP, the stem of 3 + 12 channels, 34 + 33 blocks, attention and the head.

    The official code has 512 more, of an input that is 0, and two of its noise schedule.
    """
    width = 128
    convolution, projection = 9 * width**2 + width, 4 * width * width
    same = 2 * convolution + projection + 4 * width
    wider = same + 9 * width**2 + 2 * width + 2 * width**2 + width
    mlp = width * 4 * width + 4 * width + (4 * width) ** 2 + 4 * width
    ends = 9 * 15 * width + width + 2 * width + 9 * width * 3 + 3
    attention = 4 * (width**2 + width) + 2 * width
    wanted = mlp + 34 * same + 33 * wider + attention + ends
    assert parameters_of(VDMSpec(), 1) == wanted == 30_577_667


@pytest.mark.parametrize(
    ("image_shape", "in_channels", "out_channels"),
    [((1, 7, 5), 1, 2), ((3, 8, 6), 7, 3), ((2, 1, 1), 2, 4)],
)
def test_keeps_any_image_size_and_starts_at_the_image(image_shape, in_channels, out_channels):
    network = new(image_shape, out_channels, in_channels=in_channels)
    x, c_noise = batch((in_channels, *image_shape[1:]))
    image = x[:, : image_shape[0]]
    got = network(x, c_noise, None, image)
    assert torch.equal(got[:, : image_shape[0]], image)
    assert got.shape == (4, out_channels, *image_shape[1:])
    assert (got[:, image_shape[0] :] == 0).all()


def test_the_network_by_its_equations():
    network = made(blocks=1, dtype=torch.float64)
    state = network.state_dict()
    x, c_noise = batch(dtype=torch.float64)
    gamma = 8 * c_noise

    def layer(kind, key, h, **options):
        return kind(h, state[f"{key}.weight"], state.get(f"{key}.bias"), **options)

    def normed(key, h):
        return F.group_norm(h, 4, state[f"{key}.weight"], state[f"{key}.bias"], 1e-6)

    def block(key, h):
        inner = layer(F.conv2d, f"{key}.enter", F.silu(normed(f"{key}.enter_norm", h)), padding=1)
        inner = inner + layer(F.linear, f"{key}.told", e)[..., None, None]
        inner = layer(
            F.conv2d, f"{key}.leave", F.silu(normed(f"{key}.leave_norm", inner)), padding=1
        )
        skips = f"{key}.skip.weight" in state
        return inner + (layer(F.conv2d, f"{key}.skip", h) if skips else h)

    steps = 1000 * (gamma + 13.3) / 18.3
    angles = steps[:, None] * 10_000 ** (-torch.arange(4, dtype=torch.float64) / 3)
    e = layer(F.linear, "conditioning.enter", torch.cat([angles.sin(), angles.cos()], 1))
    e = F.silu(layer(F.linear, "conditioning.leave", F.silu(e)))
    waves = network.features(x).double()
    first = layer(F.conv2d, "stem", torch.cat([x, waves], 1), padding=1)
    second = block("encoder.0", first)
    h = block("enter", second)
    q, k, v = layer(F.conv2d, "attention.qkv", normed("attention.norm", h)).chunk(3, 1)
    heads = []
    for one in (slice(0, 4), slice(4, 8)):
        a, b, c = (each[:, one].flatten(2) for each in (q, k, v))
        heads.append(c @ (a.mT @ b / 2).softmax(-1).mT)
    h = h + layer(F.conv2d, "attention.project", torch.cat(heads, 1).reshape(h.shape))
    h = block("leave", h)
    h = block("decoder.1", torch.cat([block("decoder.0", torch.cat([h, second], 1)), first], 1))
    want = x + layer(F.conv2d, "head", F.silu(normed("norm", h)), padding=1)
    torch.testing.assert_close(network(x, c_noise, None, x), want, rtol=0, atol=1e-11)


def test_features_see_the_unscaled_image_within_a_period():
    """Frequencies 64 and 128 have a period of 1/64: so far on, exactly in binary, nothing changes."""
    network = made()
    x, c_noise = batch()
    raw = (x * 512).round() / 512
    got = network(x, c_noise, None, raw)
    torch.testing.assert_close(network(x, c_noise, None, raw + 1 / 64), got, rtol=0, atol=1e-3)
    assert (network(x, c_noise, None, raw + 1 / 256) - got).abs().max() > 0.1
    with pytest.raises(ValueError, match="raw"):
        network(x, c_noise)


def test_labels_without_classes_are_refused():
    x, c_noise = batch()
    with pytest.raises(ValueError, match="no classes"):
        made(fourier=())(x, c_noise, torch.zeros(4, dtype=torch.long))


def test_gradient_reaches_every_parameter():
    network = made(out_channels=6, classes=5)
    x, c_noise = batch()
    network(x, c_noise, torch.tensor([0, 2, 5, 4]), x).square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, key


def test_initial_weights_have_variance_one_over_fan_in():
    torch.manual_seed(0)
    network = new(channels=64)
    for weight in (network.encoder[0].enter.weight, network.conditioning.leave.weight):
        fan_in = weight[0].numel()
        assert abs(weight.var() * fan_in - 1) < 0.02
        assert weight.abs().max() <= 2 / 0.8796 / fan_in**0.5
    assert network.encoder[0].told.weight.abs().max() == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channels": 10}, "multiple of groups"),
        ({"heads": 3}, "multiple of groups"),
        ({"gamma_min": 5}, "gamma_min, .*, must be below gamma_max"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        VDMSpec(**SMALL | changes)
