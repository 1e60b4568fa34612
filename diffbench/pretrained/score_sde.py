"""Checkpoints of score_sde_pytorch: DDPM, DDPM++ and NCSN++, made of numbered layers of the same kinds.

    all_modules.N.GroupNorm_0, Conv_0, Dense_0, GroupNorm_1, Conv_1, [Conv_2 or NIN_0]        a residual block
    all_modules.N.GroupNorm_0, NIN_0 (q), NIN_1 (k), NIN_2 (v), NIN_3                         attention
    all_modules.N.weight, .bias                           the embedding's two layers, the first and the last convolution
    all_modules.N.Conv_0 or .Conv2d_0                     a change of resolution, or the pyramid's
    all_modules.0.W                                       Fourier frequencies

A ``NIN`` is a 1x1 convolution with W (in, out).  A checkpoint has the network of the last step under ``model``, with
the prefix ``module.``, and under ``ema`` the averages of what was trained, as a list in the order of the parameters.
No tensor gives the images' size: attention is assumed to be at a height of 16 pixels, as in all official
configurations.  No tensor holds the resampling filters: NCSN++ is recognised by the layer names of its pyramid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffbench.networks.resampling import FilteredConvolution, StridedConvolution
from diffbench.networks.song import Song, Untold
from diffbench.networks.song_parts import Attention, Fourier, ResidualBlock
from diffbench.pretrained.conversion import Architecture, CheckpointError, ConversionRule, rule
from diffbench.specs.networks.song import DDPMppSpec, DDPMSpec, NCSNppSpec, SongSpec

SOURCE = (
    "https://github.com/yang-song/score_sde_pytorch: Score-Based Generative Modeling through SDEs "
    "(Song et al. 2021)"
)

#: Keys of the denoisers of VE's networks, and of those of VP and sub-VP.
SCORE = {"predict": "score", "noise_input": "log-sigma", "input_scale": "none"}
EPS = {"predict": "eps", "noise_input": "time", "input_scale": "none"}

#: Keys in a state_dict that were not trained, of this family and of related ones.
FIXED = {"sigmas", "all_modules.0.W", "image_fourier.freqs"}

#: The image height at which all official networks have attention.
ATTENDS = 16

#: Our name -> the official name, inside a residual block.
BLOCK = {
    "norm_in": "GroupNorm_0",
    "conv_in": "Conv_0",
    "shift": "Dense_0",
    "norm_out": "GroupNorm_1",
    "conv_out": "Conv_1",
    "skip": "Conv_2",
}
#: Our name -> the official name, inside the layers of each kind.
LAYERS: dict[type[nn.Module], dict[str, str]] = {
    ResidualBlock: BLOCK,
    Untold: {"layer.0.convolution": "Conv_0", "layer.1": "Conv_0"},
    StridedConvolution: {"convolution": "Conv_0"},
    FilteredConvolution: {"convolution": "Conv2d_0"},
}
#: The official name of the skip of DDPM's blocks.
NARROW = "NIN_0"
STRIDED = LAYERS | {ResidualBlock: BLOCK | {"skip": NARROW}}
KINDS = {"frequencies": "W"}
QKV = ("NIN_0", "NIN_1", "NIN_2")


def weights(contents: Any) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint; a bare state_dict is returned as it is.

    Raises:
        CheckpointError: when there are no tensors of the expected names, or when the averages do not fit the names.
    """
    return averaged(contents, "score_sde", "all_modules.0.weight")


def averaged(contents: Any, whose: str, *examples: str) -> dict[str, Tensor]:
    """The state_dict under ``model``, without the prefix of DataParallel, with the averages under ``ema`` in its place.

    Args:
        contents: the content of the file; may be the state_dict itself.
        whose: the family's name in messages.
        examples: keys of such a state_dict; some key must begin like one of them, up to the dot.

    Raises:
        CheckpointError: when no key does, or when the averages do not fit the names.
    """
    outer = contents if isinstance(contents, Mapping) else {}
    model = outer.get("model", outer)
    state = {
        str(key).removeprefix("module."): each
        for key, each in (model.items() if isinstance(model, Mapping) else ())
        if isinstance(each, Tensor)
    }
    beginnings = tuple(example.partition(".")[0] + "." for example in examples)
    if not any(key.startswith(beginnings) for key in state):
        raise CheckpointError(
            f"it has no state_dict of {whose}: it must have keys such as {' or '.join(examples)}"
        )
    return state | averages(outer["ema"], state) if "ema" in outer else state


def averages(ema: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name -> average, from a list in the order of the trained parameters, which is that of the state_dict."""
    listed = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    names = [key for key in state if key not in FIXED]
    if not isinstance(listed, Sequence) or len(listed) != len(names):
        count = len(listed) if isinstance(listed, Sequence) else "no"
        raise CheckpointError(
            f"ema.shadow_params has {count} tensors, but the model has {len(names)} trained ones"
        )
    for name, average in zip(names, listed, strict=True):
        if not isinstance(average, Tensor) or average.shape != state[name].shape:
            raise CheckpointError(
                f"ema.shadow_params does not fit the model: {name} has shape {list(state[name].shape)}"
            )
    return dict(zip(names, listed, strict=True))


def architecture(state: Mapping[str, Tensor]) -> Architecture:
    """The network and the denoiser of the weights; Fourier features mean VE, positional ones VP or sub-VP.

    Raises:
        CheckpointError: when they are of no such network.
    """
    layers = NumberedLayers(state)
    spec: Callable[..., SongSpec] = DDPMppSpec
    if layers.strided:
        spec = DDPMSpec
    elif layers.pyramid == "fir":
        spec = NCSNppSpec
    return layers.architecture(spec, SCORE if layers.fourier else EPS)


class NumberedLayers:
    """The sizes that can be read from the numbered layers.

    Raises:
        CheckpointError: when they are not of such a network.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        parts: dict[int, dict[str, Tensor]] = {}
        for key, each in state.items():
            if found := re.fullmatch(r"all_modules\.(\d+)\.(.+)", key):
                parts.setdefault(int(found[1]), {})[found[2]] = each
        inside = [parts[number] for number in sorted(parts)]
        bare = [part["weight"] for part in inside if "weight" in part and part["weight"].ndim == 4]
        if len(bare) != 2:
            raise CheckpointError(
                f"the checkpoint has {len(bare)} convolutions outside blocks, and must have two, a first and a last"
            )
        self.enter, self.leave = bare
        self.fourier = "W" in inside[0]
        self.strided = not any(self.changes(part) for part in inside)
        single = [part for part in inside if part.keys() == {"Conv_0.weight", "Conv_0.bias"}]
        filtered = any("Conv2d_0.weight" in part for part in inside)
        self.pyramid = (
            "fir" if filtered else "convolution" if single and not self.strided else "none"
        )
        filtering = "fir" if filtered else "box"
        self.resampling = "convolution" if self.strided else filtering
        changes = single if self.strided else [part for part in inside if self.changes(part)]
        self.resolutions = len(changes) // 2 + 1
        blocks = [
            i for i, part in enumerate(inside) if self.is_block(part) and not self.changes(part)
        ]
        # n blocks a resolution in the encoder, n + 1 in the decoder, 2 in the middle.
        self.blocks, odd = divmod((len(blocks) - 2) // self.resolutions - 1, 2)
        if self.blocks < 1 or odd or len(blocks) != self.resolutions * (2 * self.blocks + 1) + 2:
            raise CheckpointError(
                f"the checkpoint has {len(blocks)} residual blocks and {len(changes)} changes of resolution: "
                "it is of another network"
            )
        firsts = [blocks[level * self.blocks] for level in range(self.resolutions)]
        self.widths = [len(inside[i]["Conv_0.weight"]) for i in firsts]
        self.attends = [level for level, i in enumerate(firsts) if "NIN_3.W" in inside[i + 1]]
        if not self.attends:
            raise CheckpointError(
                "no block has attention on the way down: the image size cannot be known"
            )

    @staticmethod
    def is_block(part: Mapping[str, Tensor]) -> bool:
        """Whether a layer is a residual block."""
        return "Conv_1.weight" in part and "Conv_0.weight" in part

    @classmethod
    def changes(cls, part: Mapping[str, Tensor]) -> bool:
        """Whether a layer is a residual block with a skip of its own although its width does not change."""
        if not cls.is_block(part) or "Conv_2.weight" not in part:
            return False
        after, before = part["Conv_0.weight"].shape[:2]
        return after == before

    def architecture(
        self, spec: Callable[..., SongSpec], denoiser: Mapping[str, Any]
    ) -> Architecture:
        """The network with these sizes, described by that spec, and its denoiser."""
        height = ATTENDS << self.attends[0]
        channels, in_channels = self.enter.shape[:2]
        changed = spec(
            channels=channels,
            multipliers=tuple(width // channels for width in self.widths),
            blocks=self.blocks,
            attention=tuple(height >> level for level in self.attends),
            resampling=self.resampling,
            pyramid=self.pyramid,
            embedding="fourier" if self.fourier else "positional",
        )
        out_channels = len(self.leave)
        return Architecture(
            changed, denoiser, (out_channels, height, height), in_channels, out_channels, 0
        )


def rules(architecture: Architecture) -> list[ConversionRule]:
    """The rules that make each tensor of our network."""
    network, spec, number = architecture.skeleton, architecture.network, 0
    assert isinstance(network, Song) and isinstance(spec, SongSpec)
    layers = STRIDED if spec.resampling == "convolution" else LAYERS
    made: list[ConversionRule] = []
    for ours, module in units(network):
        made += unit_rules(ours, module, f"all_modules.{number}", layers)
        number += 1
        if isinstance(module, ResidualBlock) and isinstance(module.attention, Attention):
            made += attention_rules(f"{ours}.attention", f"all_modules.{number}")
            number += 1
    return made


def ignored(architecture: Architecture) -> set[str]:
    """The key of the process's noise levels."""
    return {"sigmas"}


def units(network: Song) -> Iterator[tuple[str, nn.Module]]:
    """Our layers and blocks in the order of the official numbers; attention is inside its block."""
    embedding = network.embedding
    if isinstance(embedding.noise, Fourier):
        yield "embedding.noise", embedding.noise
    yield from (("embedding.enter", embedding.enter), ("embedding.leave", embedding.leave))
    yield "enter", network.enter
    for name, module in network.named_modules():
        if re.fullmatch(r"(down|up)\.\d+\.(change|pyramid|blocks\.\d+)|middle\.\d+", name):
            yield name, module
    yield from (("leave.0", network.leave[0]), ("leave.2", network.leave[2]))


def unit_rules(
    ours: str, module: nn.Module, theirs: str, layers: Mapping[type[nn.Module], Mapping[str, str]]
) -> Iterator[ConversionRule]:
    """The rules of one layer or block, without attention."""
    for name in module.state_dict():
        inner, _, kind = name.rpartition(".")
        if inner.startswith("attention"):
            continue
        layer = layers.get(type(module), {}).get(inner, inner)
        if layer == NARROW:
            yield one_by_one(f"{ours}.{inner}", kind, f"{theirs}.{layer}")
        else:
            yield rule(
                f"{ours}.{name}", ".".join(filter(None, [theirs, layer, KINDS.get(kind, kind)]))
            )


def attention_rules(ours: str, theirs: str) -> Iterator[ConversionRule]:
    """The rules of one attention."""
    for kind in ("weight", "bias"):
        yield rule(f"{ours}.norm.{kind}", f"{theirs}.GroupNorm_0.{kind}")
        yield one_by_one(f"{ours}.qkv", kind, *(f"{theirs}.{each}" for each in QKV))
        yield one_by_one(f"{ours}.project", kind, f"{theirs}.NIN_3")


def one_by_one(ours: str, kind: str, *theirs: str) -> ConversionRule:
    """Weight or bias of a 1x1 convolution of ours from one or several of theirs, side by side."""
    letter, change = {"weight": ("W", turned), "bias": ("b", joined)}[kind]
    return rule(f"{ours}.{kind}", *(f"{each}.{letter}" for each in theirs), change=change)


def turned(*weights: Tensor) -> Tensor:
    """Weights W (in, out) of 1x1 convolutions, joined as (all out, in, 1, 1)."""
    return torch.cat([each.T for each in weights])[..., None, None]


def joined(*biases: Tensor) -> Tensor:
    """The biases, joined."""
    return torch.cat(biases)
