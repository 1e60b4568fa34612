"""Checkpoints of diffusers' unconditional U-Nets in the layout of google/ddpm-cifar10-32: DDPM's own, converted.

    time_embedding.linear_1  conv_in  conv_norm_out  conv_out
    down_blocks.L.resnets.I  .attentions.I  .downsamplers.0       L resolutions down, I blocks
    mid_block.resnets.0  .attentions.0  .resnets.1
    up_blocks.L.resnets.I  .attentions.I  .upsamplers.0

q, k and v are separate linear layers, called ``to_q`` or, before diffusers 0.17, ``query``; a layer that changes the
resolution may be a block.  What the shapes do not say is assumed to be as in the released models: the size of the
images, which depends on the widths; one head, sines first, halving padded at the right and bottom.  diffusers' defaults
differ from these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffbench.pretrained.conversion import (
    Architecture,
    CheckpointError,
    ConversionRule,
    rule,
    same,
    shape_of,
    size_of,
    spec_of,
    tensors,
)
from diffbench.pretrained.scheduler import beside as beside
from diffbench.specs.networks.residual_unet import DDPMOriginalSpec

SOURCE = (
    "https://huggingface.co/google/ddpm-cifar10-32 and its sisters, of https://github.com/hojonathanho/diffusion "
    "(Ho et al. 2020)"
)

#: Multipliers of the widths of the released models -> the size of their images.
SIZES: dict[tuple[float, ...], int] = {(1, 2, 2, 2): 32, (1, 1, 2, 2, 4, 4): 256}

#: Parts of our layers -> their names in diffusers.
ENDS = {
    "conditioning.enter": "time_embedding.linear_1",
    "conditioning.leave": "time_embedding.linear_2",
    "conditioning.classes": "class_embedding",
    "stem": "conv_in",
    "norm": "conv_norm_out",
    "head": "conv_out",
}
BLOCK = {
    "enter_norm": "norm1",
    "enter": "conv1",
    "modulation.linear": "time_emb_proj",
    "leave_norm": "norm2",
    "leave": "conv2",
    "skip": "conv_shortcut",
}
ATTENTION = {
    "norm": ("group_norm",),
    "qkv": ("to_q", "to_k", "to_v"),
    "project": ("to_out.0",),
}
MOVES = {"shrink": "downsamplers.0.conv", "grow": "upsamplers.0.conv"}

#: Names in an attention layer of older versions -> names now.
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def weights(contents: Any) -> dict[str, Tensor]:
    """The state_dict that the whole file is; diffusers keeps the average in a separate file.

    Names of older versions become those of newer ones.

    Raises:
        CheckpointError: when the file is something else.
    """
    state = tensors(contents, "diffusion_pytorch_model.safetensors or .bin holds one network")
    return {_renamed(key): tensor for key, tensor in state.items()}


def _renamed(key: str) -> str:
    found = re.fullmatch(rf"(.*\.attentions\.\d+)\.({'|'.join(RENAMED)})\.(weight|bias)", key)
    return f"{found[1]}.{RENAMED[found[2]]}.{found[3]}" if found else key


def architecture(state: Mapping[str, Tensor]) -> Architecture:
    """The network and the denoiser, read from the shapes.

    Raises:
        CheckpointError: when the tensors are not of such a network, or of none that was released.
    """
    in_channels = shape_of(state, "conv_in.weight", 4)[1]
    out_channels = shape_of(state, "conv_out.weight", 4)[0]
    resolutions = _count(state, r"down_blocks\.(\d+)\.")
    widths = [
        shape_of(state, f"down_blocks.{each}.resnets.0.norm2.weight", 1)[0]
        for each in range(resolutions)
    ]
    channels = shape_of(state, "time_embedding.linear_1.weight", 2)[1]
    multipliers = tuple(width / channels for width in widths)
    size = size_of(channels, multipliers, SIZES)
    if out_channels not in (in_channels, 2 * in_channels):
        raise CheckpointError(
            f"the network makes {out_channels} channels from {in_channels}: they must be as many, or twice as many"
        )
    attending = [
        each
        for each in range(resolutions)
        if f"down_blocks.{each}.attentions.0.to_q.weight" in state
    ]
    shapes = {
        "channels": channels,
        "multipliers": multipliers,
        "blocks": _count(state, r"down_blocks\.0\.resnets\.(\d+)\."),
        "attention": [size >> each for each in attending],
        "dropout": 0.1 if size == 32 else 0.0,
    }
    return Architecture(
        network=spec_of(DDPMOriginalSpec, shapes),
        denoiser={
            "predict": "eps",
            "noise_input": "time",
            "variance": "fixed" if out_channels == in_channels else "learned",
        },
        image_shape=(in_channels, size, size),
        in_channels=in_channels,
        out_channels=out_channels,
        classes=0,
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different values the pattern's group has among the keys."""
    return len({found[1] for key in state if (found := re.match(pattern, key))})


def rules(architecture: Architecture) -> list[ConversionRule]:
    """The rules that make each tensor of our network."""
    spec = architecture.network
    assert isinstance(spec, DDPMOriginalSpec)
    found = []
    for ours in architecture.skeleton.state_dict():
        part, _, leaf = ours.rpartition(".")
        theirs = [f"{each}.{leaf}" for each in their_parts(part, spec.blocks)]
        found.append(rule(ours, *theirs, change=pixelwise if ".attentions." in theirs[0] else same))
    return found


def ignored(architecture: Architecture) -> set[str]:
    """No keys: every tensor is a weight."""
    return set()


def their_parts(part: str, blocks: int) -> list[str]:
    """The official names for one of our parts, in a network with that number of blocks a resolution."""
    if part in ENDS:
        return [ENDS[part]]
    side, rest = part.split(".", 1)
    if side == "middle":
        number, name = rest.split(".", 1)
        # The middle is a block, attention, a block: the second block is the third layer.
        theirs, index = "mid_block", int(number) // 2
    else:
        number, place, name = rest.split(".", 2)
        level, index = divmod(int(number), blocks + 1)
        theirs = f"{'down' if side == 'encoder' else 'up'}_blocks.{level}"
        # A block that changes the resolution: alone on the way in, after another block on the way out.
        changes = index == blocks if side == "encoder" else place != "0"
        if changes and name in BLOCK:
            sampler = "downsamplers" if side == "encoder" else "upsamplers"
            return [f"{theirs}.{sampler}.0.{BLOCK[name]}"]
    if name in MOVES:
        return [f"{theirs}.{MOVES[name]}"]
    if name in BLOCK:
        return [f"{theirs}.resnets.{index}.{BLOCK[name]}"]
    return [f"{theirs}.attentions.{index}.{each}" for each in ATTENTION[name]]


def pixelwise(*parts: Tensor) -> Tensor:
    """Weights of linear layers (C', C) as one of a convolution (sum of C', C, 1, 1); norms and biases joined."""
    joined = torch.cat(parts)
    return joined[..., None, None] if joined.ndim == 2 else joined
