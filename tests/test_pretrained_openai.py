"""improved-diffusion's and guided-diffusion's layouts, held to the recorded ones and to a recorded output."""

import official
import pytest
import torch
from fills import filled, filled_layout, layout
from official_unet import output_of, shapes_of
from toys import recorded

from diffbench.pretrained import openai
from diffbench.pretrained.conversion import CheckpointError, converted
from diffbench.pretrained.importing import import_checkpoint
from diffbench.specs.networks.residual_unet import ADMSpec, IDDPMSpec

CIFAR = "net_iddpm_cifar10_learnsigma"
LAYOUTS = [CIFAR, "net_iddpm_cifar10"]


def imported(state, dtype=torch.float64):
    """The network that an official state_dict is of, with its weights, ready to be called."""
    return official.loaded(*official.imported(openai, state, dtype))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_iddpm_through_its_official_layout(dtype, tolerance):
    """Outputs up to 2.2: float64 to a few thousand roundings, float32 to 20 times the official code's own 5.1e-6."""
    arrays = recorded(CIFAR)
    network = imported(filled_layout(CIFAR), dtype)
    with torch.no_grad():
        got = network(arrays["x"].to(dtype), arrays["t"].to(dtype))
    torch.testing.assert_close(got.double(), arrays["out_hash"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_official_key_is_mapped_and_counts_agree(name):
    state = {key: torch.empty(shape, device="meta") for key, shape, _ in layout(name)["state_dict"]}
    architecture = openai.architecture(state)
    network = architecture.skeleton
    converted(state, openai.rules(architecture), network)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == layout(name)["n_params_total"]


@pytest.mark.parametrize(("name", "variance"), [(CIFAR, "learned"), (LAYOUTS[1], "fixed")])
def test_the_architecture_is_read_off_the_shapes(name, variance):
    state = {key: torch.empty(shape, device="meta") for key, shape, _ in layout(name)["state_dict"]}
    found = openai.architecture(state)
    assert found.network == IDDPMSpec()
    assert found.image_shape == (3, 32, 32) and found.classes == 0 and found.in_channels == 3
    assert found.out_channels == (6 if variance == "learned" else 3)
    told = {"predict": "eps", "noise_input": "rescaled-time"}
    assert found.denoiser == told | {"variance": variance, "conditional": False}


def state_of_cifar():
    shapes = layout(CIFAR)["state_dict"]
    return {key: torch.empty(shape, device="meta") for key, shape, _ in shapes}


def refusal(state):
    with pytest.raises(CheckpointError) as caught:
        architecture = openai.architecture(state)
        converted(state, openai.rules(architecture), architecture.skeleton)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("key", ["time_embed.0.weight", "out.2.weight", "middle_block.1.qkv.bias"])
def test_a_missing_key_is_named(key):
    state = state_of_cifar()
    del state[key]
    assert f"lacks {key}" in refusal(state)


def test_an_unknown_key_is_named():
    assert "unknown keys extra.weight" in refusal(
        state_of_cifar() | {"extra.weight": torch.ones(1)}
    )


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("middle_block.1.qkv.weight", (767, 256, 1), "[767, 256, 1] cannot make"),
        ("middle_block.1.proj_out.weight", (256, 255, 1), "the network needs [256, 256, 1, 1]"),
        ("input_blocks.5.0.out_layers.0.weight", (384,), "128 times [1.0, 3.0, 2.0, 2.0]"),
        ("input_blocks.0.0.weight", (128, 3), "4 sizes above 0"),
        ("time_embed.0.weight", (512, 0), "2 sizes above 0"),
        ("out.2.weight", (5, 128, 3, 3), "makes 5 channels from 3"),
        ("time_embed.0.weight", (512, 126), "the widths are 126 times"),
    ],
)
def test_a_wrong_shape_is_named(key, shape, said):
    assert said in refusal(state_of_cifar() | {key: torch.empty(shape, device="meta")})


@pytest.mark.parametrize("contents", [{}, [], None, {"a": 1}, {"state": {"a": torch.ones(1)}}])
def test_only_a_state_dict_has_weights(contents):
    with pytest.raises(CheckpointError, match="must be a state_dict"):
        openai.weights(contents)


def test_the_weights_are_the_file():
    state = {"a": torch.ones(1)}
    assert openai.weights(state) == state


def empty(shapes):
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(("name", "out"), [(CIFAR, 6), (LAYOUTS[1], 3)])
def test_the_second_implementation_has_the_recorded_layout(name, out):
    got = {key: tuple(shape) for key, shape, _ in layout(name)["state_dict"]}
    assert shapes_of(128, (1, 2, 2, 2), 3, (1, 2), out=out) == got


def test_the_second_implementation_gives_the_recorded_output():
    arrays = recorded(CIFAR)
    got = output_of(filled_layout(CIFAR), arrays["x"], arrays["t"], blocks=3, heads=lambda width: 4)
    torch.testing.assert_close(got, arrays["out_hash"], rtol=0, atol=1e-11)


def by_width(width):
    return width // 64


#: Released kinds, made small: options of `shapes_of`, heads, whether q comes first, classes.
SMALL = {
    "imagenet 64, 4 heads": (((1, 2, 3, 4), 1, (2, 3), {"classes": 5}), lambda width: 4, False),
    "lsun": (((1, 1, 2, 2, 4, 4), 1, (4, 5), {"out": 6}), lambda width: 4, False),
    "adm 64": (
        ((1, 2, 3, 4), 1, (1, 2, 3), {"in_blocks": True, "classes": 5, "out": 6}),
        by_width,
        True,
    ),
    "adm 128": (
        ((1, 1, 2, 3, 4), 1, (2, 3, 4), {"in_blocks": True, "classes": 3}),
        lambda width: 4,
        False,
    ),
    "adm 256": (((1, 1, 2, 2, 4, 4), 1, (3, 4, 5), {"in_blocks": True}), by_width, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_other_released_kinds_against_the_second_implementation(name):
    """Small, of random labels, on images of the least size, whose attention is where it was at the official one."""
    (multipliers, blocks, attending, options), heads, q_first = SMALL[name]
    state = filled(shapes_of(64, multipliers, blocks, attending, **options))
    network = imported(state)
    side = 2 ** len(multipliers)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor([7.0, 900.25], dtype=torch.float64)
    y = torch.tensor([2, 0]) if "classes" in options else None
    with torch.no_grad():
        got = network(x, t, y)
        want = output_of(state, x, t, y, blocks=blocks, heads=heads, q_first=q_first)
        assert got.abs().max() > 0.1
        torch.testing.assert_close(got, want, rtol=0, atol=1e-11)
        if y is not None:
            none = output_of(state, x, t, blocks=blocks, heads=heads, q_first=q_first)
            torch.testing.assert_close(network(x, t), none, rtol=0, atol=1e-11)


def test_adm_64_has_its_official_size_and_default_spec():
    """295,904,454 parameters, and 768 more for our null class."""
    shapes = shapes_of(192, (1, 2, 3, 4), 3, (1, 2, 3), in_blocks=True, classes=1000, out=6)
    state = empty(shapes)
    assert sum(each.numel() for each in state.values()) == 295_904_454
    found = openai.architecture(state)
    assert found.network == ADMSpec() and found.classes == 1000
    assert found.denoiser["noise_input"] == "time" and found.denoiser["conditional"]
    network = found.skeleton
    converted(state, openai.rules(found), network)
    assert sum(each.numel() for each in network.parameters()) == 295_904_454 + 4 * 192


def test_adm_512_halves_its_first_width():
    multipliers = (0.5, 1, 1, 2, 2, 4, 4)
    state = empty(shapes_of(256, multipliers, 2, (4, 5, 6), in_blocks=True, classes=1000, out=6))
    found = openai.architecture(state)
    assert found.image_shape == (3, 512, 512) and found.network.attention == (32, 16, 8)
    converted(state, openai.rules(found), found.skeleton)


def test_a_file_is_imported(tmp_path):
    torch.save(
        filled(shapes_of(32, (1, 2, 2, 2), 1, (1, 2), classes=3), torch.float32),
        tmp_path / "file.pt",
    )
    folder, spec = import_checkpoint("openai", tmp_path / "file.pt", tmp_path / "model")
    assert (folder / "model.safetensors").exists()
    assert (
        spec.image_shape[1] in (28, 32)
        and spec.classes == 3
        and spec.denoiser.noise_input == "rescaled-time"
    )
