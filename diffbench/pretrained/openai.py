"""improved-diffusion's and guided-diffusion's checkpoints: a U-Net's state_dict, of the averaged weights.

The two repositories use the same names.  What the shapes do not say is what the released models have in common:

    image size   that of the multipliers of the widths
    heads        4; where blocks resample, one for each 64 channels, but 4 heads at 128x128
    q, k, v      of the first head, then of the next; where blocks resample at 64x64 all q, all k, all v
    time         1000 t/T of a chain of T levels; where blocks resample t, and T is 1000
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffbench.networks.residual_parts import Attention, Plain, ResidualBlock
from diffbench.networks.residual_unet import ResidualUNet
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
from diffbench.specs.networks.residual_unet import ADMSpec, IDDPMSpec, ResidualUNetSpec

SOURCE = (
    "https://github.com/openai/improved-diffusion (Nichol & Dhariwal 2021), "
    "https://github.com/openai/guided-diffusion (Dhariwal & Nichol 2021)"
)

#: Multipliers of the widths of the released models -> the size of their images.
SIZES: dict[tuple[float, ...], int] = {
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
    (0.5, 1, 1, 2, 2, 4, 4): 512,
}

#: Parts of our layers -> official names, after the path of the layer (`their_path`).
PARTS: dict[type[nn.Module], dict[str, str]] = {
    ResidualUNet: {
        "conditioning.enter": "time_embed.0",
        "conditioning.leave": "time_embed.2",
        "conditioning.classes": "label_emb",
        "stem": "input_blocks.0.0",
        "norm": "out.0",
        "head": "out.2",
    },
    ResidualBlock: {
        "enter_norm": "in_layers.0",
        "enter": "in_layers.2",
        "modulation.linear": "emb_layers.1",
        "leave_norm": "out_layers.0",
        "leave": "out_layers.3",
        "skip": "skip_connection",
    },
    Attention: {"norm": "norm", "qkv": "qkv", "project": "proj_out"},
    Plain: {"shrink": "op", "grow": "conv"},
}

#: Official parts that double the resolution, after a block of the decoder.
DOUBLES = ("conv.weight", "in_layers.2.weight")

#: A function of (width -> number of heads, a tensor of q, k and v) that returns the tensor in our order.
Grouping = Callable[[Callable[[int], int], Tensor], Tensor]


def weights(contents: Any) -> dict[str, Tensor]:
    """The state_dict that the whole file is: of the average, where its name says ``ema``.

    Raises:
        CheckpointError: when the file is something else.
    """
    return tensors(contents, "a file holds one network, such as ema_0.9999_500000.pt")


def architecture(state: Mapping[str, Tensor]) -> Architecture:
    """The network and the denoiser, read from the shapes and completed as the module says.

    Raises:
        CheckpointError: when the tensors are not of such a network, or of none that was released.
    """
    outline = Outline(state)
    channels, outputs = outline.in_channels, shape_of(state, "out.2.weight", 4)[0]
    if channels not in (1, 3) or outputs not in (channels, 2 * channels):
        raise CheckpointError(
            f"the network makes {outputs} channels from {channels}: an image has 1 or 3 channels, and the output "
            "must have as many, or twice as many"
        )
    size = outline.size(SIZES)
    spec, time = outline.spec(IDDPMSpec, size), "rescaled-time"
    if outline.in_blocks:
        spec, time = outline.spec(ADMSpec, size, head_channels=None if size == 128 else 64), "time"
    classes = shape_of(state, "label_emb.weight", 2)[0] if "label_emb.weight" in state else 0
    return Architecture(
        network=spec,
        denoiser={
            "predict": "eps",
            "noise_input": time,
            "variance": "fixed" if outputs == channels else "learned",
            "conditional": classes > 0,
        },
        image_shape=(channels, size, size),
        in_channels=channels,
        out_channels=outputs,
        classes=classes,
    )


class Outline:
    """The sizes of the U-Net that the shapes of a state_dict give.

    Raises CheckpointError when a tensor that they are read from is missing.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.channels = shape_of(state, "time_embed.0.weight", 2)[1]
        self.in_channels = shape_of(state, "input_blocks.0.0.weight", 4)[1]
        numbers = {
            int(found[1]) for key in state if (found := re.match(r"output_blocks\.(\d+)\.", key))
        }
        doubles = [
            (number, part)
            for number in sorted(numbers)
            for part in DOUBLES
            if {f"output_blocks.{number}.{layer}.{part}" for layer in (1, 2)} & state.keys()
        ]
        # The decoder has one block more a resolution than the encoder, and the last of them doubles the resolution.
        self.blocks = doubles[0][0] if doubles else len(numbers) - 1
        resolutions = max(len(numbers) // (self.blocks + 1), 1) if numbers else 1
        first = [1 + level * (self.blocks + 1) for level in range(resolutions)]
        widths = [
            shape_of(state, f"input_blocks.{number}.0.out_layers.0.weight", 1)[0]
            for number in first
        ]
        self.multipliers = tuple(width / self.channels for width in widths)
        self.attending = tuple(
            level
            for level, number in enumerate(first)
            if f"input_blocks.{number}.1.qkv.weight" in state
        )
        told = shape_of(state, "input_blocks.1.0.emb_layers.1.weight", 2)[0]
        self.modulation = "addition" if told == widths[0] else "scale-shift"
        self.in_blocks = any(part == "in_layers.2.weight" for _, part in doubles)

    def size(self, sizes: Mapping[tuple[float, ...], int]) -> int:
        """The size of the images, from the multipliers of the widths.

        Raises:
            CheckpointError: when there are no such widths.
        """
        return size_of(self.channels, self.multipliers, sizes)

    def spec(self, kind: type[ResidualUNetSpec], size: int, **others: Any) -> ResidualUNetSpec:
        """The network's spec for images of that size; ``others`` are the keys that the shapes do not give.

        Raises:
            CheckpointError: when there is no such network.
        """
        keys = ("channels", "multipliers", "blocks", "modulation")
        shapes = {key: getattr(self, key) for key in keys}
        shapes["attention"] = [size >> level for level in self.attending]
        return spec_of(kind, shapes | others)


def rules(architecture: Architecture) -> list[ConversionRule]:
    """The rules that make each tensor of our network."""
    spec = architecture.network
    assert isinstance(spec, ResidualUNetSpec)
    new = spec.resampling == "block" and architecture.image_shape[1] == 64
    return unet_rules(architecture, q_first if new else head_first)


def ignored(architecture: Architecture) -> set[str]:
    """No keys: every tensor is a weight."""
    return set()


def unet_rules(architecture: Architecture, grouping: Grouping) -> list[ConversionRule]:
    """The rules of a U-Net; ``grouping`` is the order of the official q, k and v."""
    spec, network = architecture.network, architecture.skeleton
    assert isinstance(spec, ResidualUNetSpec)
    changes: dict[str, Callable[..., Tensor]] = {
        "qkv": partial(grouping, spec.heads_of),
        "project": pixelwise,
        "conditioning.classes": with_null,
    }
    names = network.state_dict().keys()
    return [
        rule(ours, f"{their_path(path)}{theirs}.{leaf}", change=changes.get(part, same))
        for path, module in network.named_modules()
        for part, theirs in parts_of(module).items()
        for leaf in ("weight", "bias")
        if (ours := f"{path}.{part}.{leaf}".removeprefix(".")) in names
    ]


def parts_of(module: nn.Module) -> dict[str, str]:
    """Parts of one of our layers -> their official names."""
    return next((parts for kind, parts in PARTS.items() if isinstance(module, kind)), {})


def their_path(path: str) -> str:
    """The official path, with a dot, of one of our layers; official encoders count the stem as layer 0."""
    side, *numbers = path.split(".")
    if side == "encoder":
        numbers[0] = str(int(numbers[0]) + 1)
    theirs = {"encoder": "input_blocks", "middle": "middle_block", "decoder": "output_blocks"}
    return ".".join([theirs[side], *numbers, ""]) if path else ""


def pixelwise(tensor: Tensor) -> Tensor:
    """The weight (C', C, 1) of a layer for sequences as one for images (C', C, 1, 1); a bias does not change."""
    return tensor[..., None] if tensor.ndim == 3 else tensor


def q_first(heads_of: Callable[[int], int], tensor: Tensor) -> Tensor:
    """q, k and v in our order: all heads' q, then all k, then all v."""
    return pixelwise(tensor)


def head_first(heads_of: Callable[[int], int], tensor: Tensor) -> Tensor:
    """q, k and v in our order, from the order q, k, v of the first head, then of the next."""
    heads = heads_of(len(tensor) // 3)
    return pixelwise(tensor.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2))


def with_null(embedding: Tensor) -> Tensor:
    """The classes' embeddings, and a zero embedding for no class."""
    return torch.cat([embedding, torch.zeros_like(embedding[:1])])
