"""Reflected-Diffusion's checkpoints: of its deeper version of the score_sde network, and of its VDM.

    all_modules.N ..                                   as in `score_sde`
    cond_map.0, .2     conv_in     enc.I, mid1, mid2, dec.I with conv1, conv2, norm1, norm2, cond_map, [skip]
    midattn with norm, qkv, proj_out                   out.0, .2                   image_fourier.freqs

The network's output over sigma is the score of data in [0, 1].  The input for the noise level is ln(sigma) in the first
network, and the position of sigma in the process's range, from 0 to 1, in the VDM.  The VDM's images have 32 pixels a
side, as in the official configurations; its features are listed channel by channel, ours frequency by frequency, and
its q, k and v as in `edm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffbench.pretrained import score_sde
from diffbench.pretrained.conversion import (
    Architecture,
    CheckpointError,
    ConversionRule,
    rule,
    same,
    shape_of,
)
from diffbench.pretrained.edm import by_kind
from diffbench.pretrained.score_sde import SCORE, NumberedLayers, averaged
from diffbench.specs.networks.song import ReflectedNetworkSpec
from diffbench.specs.networks.vdm import ReflectedVDMSpec

SOURCE = (
    "https://github.com/louaaron/Reflected-Diffusion: Reflected Diffusion Models (Lou & Ermon 2023)"
)

#: The height and width of the images of the official VDMs.
SIDE = 32
#: The least width: below it the official norms have fewer groups than 32, in a number that varies between blocks.
NARROWEST = 128
FREQUENCIES = "image_fourier.freqs"
#: Our name -> the official name, of the VDM's layers outside blocks.
PARTS = {
    "conditioning.enter": "cond_map.0",
    "conditioning.leave": "cond_map.2",
    "stem": "conv_in",
    "attention.norm": "midattn.norm",
    "attention.qkv": "midattn.qkv",
    "attention.project": "midattn.proj_out",
    "norm": "out.0",
    "head": "out.2",
}
#: Our name -> the official name, of the VDM's blocks and of the layers inside.
BLOCKS = {"encoder": "enc", "decoder": "dec", "enter": "mid1", "leave": "mid2"}
BLOCK = {
    "enter_norm": "norm1",
    "enter": "conv1",
    "told": "cond_map",
    "leave_norm": "norm2",
    "leave": "conv2",
    "skip": "skip",
}


def weights(contents: Any) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint; a bare state_dict is returned as it is.

    Raises:
        CheckpointError: when there are no tensors of the expected names, or when the averages do not fit the names.
    """
    return averaged(contents, "Reflected-Diffusion", "all_modules.0.W", "conv_in.weight")


def architecture(state: Mapping[str, Tensor]) -> Architecture:
    """The network and the denoiser that the weights are of.

    Raises:
        CheckpointError: when they are of no such network.
    """
    if "conv_in.weight" in state:
        return _vdm(state)
    layers = NumberedLayers(state)
    if not layers.fourier or layers.pyramid != "convolution":
        raise CheckpointError(
            "this is not the network of Reflected-Diffusion: it must have Fourier features and a strided pyramid; "
            "the family score-sde reads others with these layers"
        )
    return layers.architecture(ReflectedNetworkSpec, SCORE)


def _vdm(state: Mapping[str, Tensor]) -> Architecture:
    """The VDM and the denoiser that the weights are of."""
    width = shape_of(state, "conv_in.weight", 4)[0]
    channels = shape_of(state, "out.2.weight", 4)[0]
    if any(key.startswith("enc.") and ".qkv." in key for key in state):
        raise CheckpointError(
            "its blocks have attention, but this VDM has attention only in the middle"
        )
    if width < NARROWEST:
        raise CheckpointError(f"its width is {width}, and must be at least {NARROWEST}")
    blocks = {key.split(".")[1] for key in state if key.startswith("enc.")}
    frequencies = state[FREQUENCIES].tolist() if FREQUENCIES in state else []
    return Architecture(
        network=ReflectedVDMSpec(
            channels=width, blocks=len(blocks), fourier=tuple(map(float, frequencies))
        ),
        denoiser=SCORE | {"noise_input": "sigma-share"},
        image_shape=(channels, SIDE, SIDE),
        in_channels=channels,
        out_channels=channels,
        classes=0,
    )


def rules(architecture: Architecture) -> list[ConversionRule]:
    """The rules that make each tensor of our network."""
    if not isinstance(architecture.network, ReflectedVDMSpec):
        return score_sde.rules(architecture)
    return list(_vdm_rules(architecture))


def _vdm_rules(architecture: Architecture) -> Iterator[ConversionRule]:
    changes: dict[str, Callable[..., Tensor]] = {
        "stem.weight": partial(by_frequency, channels=architecture.in_channels),
        "attention.qkv.weight": by_kind,
        "attention.qkv.bias": by_kind,
    }
    for ours in architecture.skeleton.state_dict():
        layer, _, kind = ours.rpartition(".")
        theirs = PARTS.get(layer) or _in_block(layer)
        yield rule(ours, f"{theirs}.{kind}", change=changes.get(ours, same))


def _in_block(layer: str) -> str:
    """The official name of a layer in a block: ``encoder.3.enter`` -> ``enc.3.conv1``."""
    block, _, inner = layer.rpartition(".")
    name, _, number = block.partition(".")
    return ".".join(filter(None, [BLOCKS[name], number, BLOCK[inner]]))


def by_frequency(stem: Tensor, channels: int) -> Tensor:
    """The stem's weight for inputs (image, sines, cosines), with features reordered to (frequency, channel)."""
    image, features = stem.tensor_split([channels], dim=1)
    sizes = (2, channels, features.shape[1] // (2 * channels))
    ordered = features.unflatten(1, sizes).transpose(2, 3).flatten(1, 3)
    return torch.cat([image, ordered], dim=1)


def ignored(architecture: Architecture) -> set[str]:
    """The keys of the process's noise levels and of the features' frequencies."""
    return score_sde.ignored(architecture) | {FREQUENCIES}
