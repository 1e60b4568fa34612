"""improved-diffusion's and guided-diffusion's checkpoints: a U-Net's state_dict, of the averaged weights.

The two repositories name their tensors alike.  What the shapes do not say is what the released models have in common:

    image size   that of the multipliers of the widths
    heads        4; of models that resample in their blocks 64 channels each, but 4 heads at 128x128
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
    Rule,
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

#: Multipliers of the widths of the released models, and their images' size.
SIZES: dict[tuple[float, ...], int] = {
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
    (0.5, 1, 1, 2, 2, 4, 4): 512,
}

#: Parts of our layers, and theirs.  Where the network itself ends, and its lists of layers begin: see `their_path`.
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

#: Their parts that double the resolution, after a block on the way out.
DOUBLES = ("conv.weight", "in_layers.2.weight")

#: From the number of heads of a width, and a tensor of q, k and v, to our order of them.
Grouping = Callable[[Callable[[int], int], Tensor], Tensor]


def weights(contents: Any) -> dict[str, Tensor]:
    """The file is the state_dict: of the average, where its name says ``ema``.

    Raises:
        CheckpointError: when it is something else.
    """
    return tensors(contents, "a file holds one network, such as ema_0.9999_500000.pt")


def architecture(state: Mapping[str, Tensor]) -> Architecture:
    """The network, of which the shapes say all but what the module says above.

    Raises:
        CheckpointError: when the tensors are not of such a network, or of none that was released.
    """
    outline = Outline(state)
    channels, outputs = outline.in_channels, shape_of(state, "out.2.weight", 4)[0]
    if channels not in (1, 3) or outputs not in (channels, 2 * channels):
        raise CheckpointError(
            f"the network makes {outputs} channels of {channels}: an image's has 1 or 3, and makes as many or twice "
            "as many"
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
    """What the shapes of a state_dict say of the U-Net.

    Raises CheckpointError when a tensor is missing that they are read off.
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
            if {f"output_blocks.{number}.{place}.{part}" for place in (1, 2)} & state.keys()
        ]
        # A resolution has one block more on the way out than on the way in, and the last of them doubles.
        self.blocks = doubles[0][0] if doubles else len(numbers) - 1
        levels = max(len(numbers) // (self.blocks + 1), 1) if numbers else 1
        first = [1 + level * (self.blocks + 1) for level in range(levels)]
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
        """Of the images, by the multipliers of the widths.

        Raises:
            CheckpointError: when there are no such widths.
        """
        return size_of(self.channels, self.multipliers, sizes)

    def spec(self, kind: type[ResidualUNetSpec], size: int, **others: Any) -> ResidualUNetSpec:
        """The network's spec for images of that size; ``others`` are what the shapes do not say.

        Raises:
            CheckpointError: when there is no such network.
        """
        keys = ("channels", "multipliers", "blocks", "modulation")
        shapes = {key: getattr(self, key) for key in keys}
        shapes["attention"] = [size >> level for level in self.attending]
        return spec_of(kind, shapes | others)


def rules(architecture: Architecture) -> list[Rule]:
    """How each tensor of our network is made."""
    spec = architecture.network
    assert isinstance(spec, ResidualUNetSpec)
    new = spec.resampling == "block" and architecture.image_shape[1] == 64
    return unet_rules(architecture, q_first if new else head_first)


def ignored(architecture: Architecture) -> set[str]:
    """Nothing: every tensor is a weight."""
    return set()


def unet_rules(architecture: Architecture, grouping: Grouping) -> list[Rule]:
    """The rules of a U-Net whose official q, k and v are grouped so."""
    spec, network = architecture.network, architecture.skeleton()
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
    """Parts of one of our layers, and theirs."""
    return next((parts for kind, parts in PARTS.items() if isinstance(module, kind)), {})


def their_path(path: str) -> str:
    """Their name, with a dot, of where one of our layers is: they count the stem among the way in."""
    place, *numbers = path.split(".")
    if place == "encoder":
        numbers[0] = str(int(numbers[0]) + 1)
    theirs = {"encoder": "input_blocks", "middle": "middle_block", "decoder": "output_blocks"}
    return ".".join([theirs[place], *numbers, ""]) if path else ""


def pixelwise(tensor: Tensor) -> Tensor:
    """The weight of a layer of sequences (C', C, 1) as one of images (C', C, 1, 1); a bias as it is."""
    return tensor[..., None] if tensor.ndim == 3 else tensor


def q_first(heads_of: Callable[[int], int], tensor: Tensor) -> Tensor:
    """All heads' q, all k, all v: our order."""
    return pixelwise(tensor)


def head_first(heads_of: Callable[[int], int], tensor: Tensor) -> Tensor:
    """q, k and v of a head, then of the next."""
    heads = heads_of(len(tensor) // 3)
    return pixelwise(tensor.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2))


def with_null(embedding: Tensor) -> Tensor:
    """The classes' embeddings, and that of no class, which adds nothing."""
    return torch.cat([embedding, torch.zeros_like(embedding[:1])])
