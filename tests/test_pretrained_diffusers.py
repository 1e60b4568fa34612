"""diffusers' layout of DDPM's own U-Net, held to a second implementation that goes by the tensors' names."""

import math

import official
import pytest
import torch
import torch.nn.functional as F
from fills import filled

from diffbench.pretrained import diffusers
from diffbench.pretrained.conversion import CheckpointError, converted
from diffbench.pretrained.exporting import theirs
from diffbench.pretrained.importing import import_checkpoint
from diffbench.specs.networks.residual_unet import DDPMOriginalSpec

CIFAR = {"channels": 128, "multipliers": (1, 2, 2, 2), "blocks": 2, "attending": (1,)}
LSUN = {"channels": 128, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attending": (4,)}
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def shapes_of(channels, multipliers, blocks, attending):
    """Every key of the layout and its shape."""
    found = {}

    def layer(key, *shape):
        found[f"{key}.weight"], found[f"{key}.bias"] = shape, shape[:1]

    def block(key, entering, leaving):
        layer(f"{key}.norm1", entering)
        layer(f"{key}.conv1", leaving, entering, 3, 3)
        layer(f"{key}.time_emb_proj", leaving, 4 * channels)
        layer(f"{key}.norm2", leaving)
        layer(f"{key}.conv2", leaving, leaving, 3, 3)
        if entering != leaving:
            layer(f"{key}.conv_shortcut", leaving, entering, 1, 1)

    def attention(key, width):
        layer(f"{key}.group_norm", width)
        for part in OLD:
            layer(f"{key}.{part}", width, width)

    layer("conv_in", channels, 3, 3, 3)
    layer("time_embedding.linear_1", 4 * channels, channels)
    layer("time_embedding.linear_2", 4 * channels, 4 * channels)
    widths, last = [channels * each for each in multipliers], len(multipliers) - 1
    width, kept = channels, [channels]
    for level, wanted in enumerate(widths):
        for index in range(blocks):
            block(f"down_blocks.{level}.resnets.{index}", width, wanted)
            width = wanted
            if level in attending:
                attention(f"down_blocks.{level}.attentions.{index}", width)
            kept.append(width)
        if level < last:
            layer(f"down_blocks.{level}.downsamplers.0.conv", width, width, 3, 3)
            kept.append(width)
    block("mid_block.resnets.0", width, width)
    attention("mid_block.attentions.0", width)
    block("mid_block.resnets.1", width, width)
    for level, wanted in enumerate(reversed(widths)):
        for index in range(blocks + 1):
            block(f"up_blocks.{level}.resnets.{index}", width + kept.pop(), wanted)
            width = wanted
            if last - level in attending:
                attention(f"up_blocks.{level}.attentions.{index}", width)
        if level < last:
            layer(f"up_blocks.{level}.upsamplers.0.conv", width, width, 3, 3)
    layer("conv_norm_out", width)
    layer("conv_out", 3, width, 3, 3)
    return found


def output_of(state, x, t, *, levels, blocks):
    """DDPM's U-Net of a state, as its appendix B and its code have it; float64."""

    def layer(kind, key, h, **options):
        return kind(h, state[f"{key}.weight"], state[f"{key}.bias"], **options)

    def normed(key, h):
        return F.group_norm(h, 32, state[f"{key}.weight"], state[f"{key}.bias"], 1e-6)

    def block(key, h):
        inner = layer(F.conv2d, f"{key}.conv1", F.silu(normed(f"{key}.norm1", h)), padding=1)
        told = layer(F.linear, f"{key}.time_emb_proj", F.silu(embedding))
        inner = F.silu(normed(f"{key}.norm2", inner + told[..., None, None]))
        inner = layer(F.conv2d, f"{key}.conv2", inner, padding=1)
        if f"{key}.conv_shortcut.weight" in state:
            h = layer(F.conv2d, f"{key}.conv_shortcut", h)
        return h + inner

    def attention(key, h):
        if f"{key}.to_q.weight" not in state:
            return h
        rows = normed(f"{key}.group_norm", h).flatten(2).mT
        q, k, v = (layer(F.linear, f"{key}.to_{each}", rows) for each in "qkv")
        mixed = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v
        return h + layer(F.linear, f"{key}.to_out.0", mixed).mT.reshape(h.shape)

    half = state["conv_in.weight"].shape[0] // 2
    angles = t[:, None] * 10_000 ** (-torch.arange(half, dtype=t.dtype) / (half - 1))
    embedding = torch.cat([angles.sin(), angles.cos()], 1)
    embedding = layer(F.linear, "time_embedding.linear_1", embedding)
    embedding = layer(F.linear, "time_embedding.linear_2", F.silu(embedding))
    h = layer(F.conv2d, "conv_in", x, padding=1)
    kept = [h]
    for level in range(levels):
        for index in range(blocks):
            h = block(f"down_blocks.{level}.resnets.{index}", h)
            h = attention(f"down_blocks.{level}.attentions.{index}", h)
            kept.append(h)
        if level < levels - 1:
            # TensorFlow's SAME on an even size: a row and a column of zeros at the far sides.
            key = f"down_blocks.{level}.downsamplers.0.conv"
            h = layer(F.conv2d, key, F.pad(h, (0, 1, 0, 1)), stride=2)
            kept.append(h)
    h = attention("mid_block.attentions.0", block("mid_block.resnets.0", h))
    h = block("mid_block.resnets.1", h)
    for level in range(levels):
        for index in range(blocks + 1):
            key = f"up_blocks.{level}.resnets.{index}"
            h = block(key, torch.cat([h, kept.pop()], 1))
            h = attention(f"up_blocks.{level}.attentions.{index}", h)
        if level < levels - 1:
            h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            h = layer(F.conv2d, f"up_blocks.{level}.upsamplers.0.conv", h, padding=1)
    return layer(F.conv2d, "conv_out", F.silu(normed("conv_norm_out", h)), padding=1)


def imported(state):
    """The network that an official state_dict is of, with its weights, ready to be called."""
    return official.loaded(*official.imported(diffusers, state, torch.float64))


def test_what_is_imported_is_given_back_to_the_bit():
    state = filled(shapes_of(32, (1, 2, 2, 2), 2, (1,)), torch.float32)
    found, tensors = official.imported(diffusers, state)
    back = dict(theirs(official.loaded(found, tensors).state_dict(), found.network.blocks))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], each) for key, each in state.items())


def empty(**sizes):
    return {key: torch.empty(shape, device="meta") for key, shape in shapes_of(**sizes).items()}


@pytest.mark.parametrize("sizes", [CIFAR, LSUN], ids=["cifar", "lsun"])
def test_outputs_against_the_second_implementation(sizes):
    """The released networks with half their width or a quarter, their attention where it was."""
    small = sizes | {"channels": 64 if sizes is CIFAR else 32, "blocks": 1}
    state = filled(shapes_of(**small))
    side, levels = 2 ** len(sizes["multipliers"]), len(sizes["multipliers"])
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor([3.0, 950.0], dtype=torch.float64)
    with torch.no_grad():
        got = imported(state)(x, t)
        want = output_of(state, x, t, levels=levels, blocks=1)
    assert got.abs().max() > 0.1
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


def test_cifars_network_has_its_official_size_and_default_spec():
    state = empty(**CIFAR)
    assert sum(each.numel() for each in state.values()) == 35_746_307
    found = diffusers.architecture(state)
    assert found.network == DDPMOriginalSpec() and found.image_shape == (3, 32, 32)
    assert found.denoiser == {"predict": "eps", "noise_input": "time", "variance": "fixed"}
    network = found.skeleton
    converted(state, diffusers.rules(found), network, diffusers.ignored(found))
    assert sum(each.numel() for each in network.parameters()) == 35_746_307


def test_lsuns_network_is_of_256_pixels_with_attention_at_16():
    """113,673,219 parameters, the 114 million of the paper's appendix B."""
    state = empty(**LSUN)
    found = diffusers.architecture(state)
    assert found.image_shape == (3, 256, 256) and found.network.attention == (16,)
    network = found.skeleton
    converted(state, diffusers.rules(found), network)
    assert sum(each.numel() for each in network.parameters()) == 113_673_219


def test_older_names_are_the_same():
    state, old = empty(**CIFAR), {}
    for key, tensor in state.items():
        place, dot, part = key.partition(".attentions.")
        for new, name in OLD.items():
            part = part.replace(new, name)
        old[f"{place}{dot}{part}"] = tensor
    assert sum(key not in state for key in old) == 8 * 6
    assert diffusers.weights(old).keys() == state.keys()


def refusal(state):
    with pytest.raises(CheckpointError) as caught:
        architecture = diffusers.architecture(state)
        converted(state, diffusers.rules(architecture), architecture.skeleton)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("key", ["conv_in.weight", "mid_block.attentions.0.to_k.bias"])
def test_a_missing_key_is_named(key):
    state = empty(**CIFAR)
    del state[key]
    assert f"lacks {key}" in refusal(state)


def test_an_unknown_key_is_named():
    assert "unknown keys extra.weight" in refusal(empty(**CIFAR) | {"extra.weight": torch.ones(1)})


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("mid_block.attentions.0.to_k.weight", (256, 255), "cannot make middle.1.qkv.weight"),
        ("mid_block.attentions.0.to_k.weight", (255, 256), "has shape [767, 256, 1, 1]"),
        ("down_blocks.1.resnets.0.norm2.weight", (384,), "128 times [1.0, 3.0, 2.0, 2.0]"),
        ("conv_out.weight", (5, 128, 3, 3), "makes 5 channels from 3"),
        ("conv_in.weight", (128,), "4 sizes above 0"),
    ],
)
def test_a_wrong_shape_is_named(key, shape, said):
    assert said in refusal(empty(**CIFAR) | {key: torch.empty(shape, device="meta")})


@pytest.mark.parametrize("contents", [{}, None, {"a": 1}])
def test_only_a_state_dict_has_weights(contents):
    with pytest.raises(CheckpointError, match="must be a state_dict"):
        diffusers.weights(contents)


def test_a_file_is_imported(tmp_path):
    torch.save(filled(shapes_of(32, (1, 2, 2, 2), 1, (1,)), torch.float32), tmp_path / "file.pt")
    folder, spec = import_checkpoint("diffusers", tmp_path / "file.pt", tmp_path / "model")
    assert (folder / "model.safetensors").exists()
    assert (
        spec.image_shape[1] in (28, 32)
        and spec.network.channels == 32
        and spec.denoiser.noise_input == "time"
    )
