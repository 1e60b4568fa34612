"""EDM's checkpoints of DDPM++ and NCSN++: the state_dict of a network in its pickles, or of their ``ema``.

    map_noise  map_label  map_augment  map_layer0  map_layer1       the embedding
    enc.RxR_conv, _down, _aux_residual, _block0 ..                  R the resolution
    dec.RxR_in0, _in1, _up, _block0 .., _aux_norm, _aux_conv

Channels of ``qkv`` are in the order (channel, which of q, k, v), ours in the order (which, channel).  The state does
not say which preconditioning the network was trained with, but a pickle says it by the name of the network's class;
EDM's own is assumed where there is none.  Those of the baselines are

    VP    denoiser: {predict: eps, noise_input: time}
    VE    denoiser: {predict: score, input_scale: none, noise_input: log-sigma}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from diffbench.pretrained.conversion import (
    Architecture,
    CheckpointError,
    ConversionRule,
    rule,
    same,
)
from diffbench.specs.networks.song import EDMDDPMppSpec, EDMNCSNppSpec, SongSpec

SOURCE = "https://github.com/NVlabs/edm: Elucidating the Design Space (Karras et al. 2022)"

#: Our name -> EDM's name, inside a residual block.
BLOCK = {
    "norm_in": "norm0",
    "conv_in": "conv0",
    "shift": "affine",
    "norm_out": "norm1",
    "conv_out": "conv1",
    "skip": "skip",
    "attention.norm": "norm2",
    "attention.qkv": "qkv",
    "attention.project": "proj",
}


def weights(contents: Any) -> dict[str, Tensor]:
    """The averaged weights: ``contents`` is their state_dict, or has it under ``ema``.

    Raises:
        CheckpointError: when it holds no tensors under EDM's names.
    """
    state = contents.get("ema", contents) if isinstance(contents, Mapping) else {}
    if not isinstance(state, Mapping):
        state = {}
    found = {
        key.removeprefix("model."): each for key, each in state.items() if isinstance(each, Tensor)
    }
    if not any(key.startswith("enc.") for key in found):
        raise CheckpointError(
            "it has no state_dict of EDM: it must have keys such as model.enc.32x32_conv.weight"
        )
    return found


#: Classes of whole networks -> keys of the denoiser where it is not EDM's own.
PRECONDITIONINGS: dict[str, dict[str, str]] = {
    "EDMPrecond": {},
    "VPPrecond": {"predict": "eps", "noise_input": "time"},
    "VEPrecond": {"predict": "score", "input_scale": "none", "noise_input": "log-sigma"},
}


def parameterisation(contents: Any) -> dict[str, str]:
    """Keys of the denoiser that follow from the class of the network in the file.

    Raises:
        CheckpointError: when the class is not one of EDM's or its baselines'.
    """
    kind = getattr(contents.get("ema"), "kind", "EDMPrecond")
    if kind not in PRECONDITIONINGS:
        known = ", ".join(PRECONDITIONINGS)
        raise CheckpointError(f"the network has the preconditioning {kind}; known: {known}")
    return PRECONDITIONINGS[kind]


def architecture(state: Mapping[str, Tensor]) -> Architecture:
    """The network and the denoiser that the weights are of.

    Raises:
        CheckpointError: when they are neither of DDPM++ nor of NCSN++.
    """
    if "out_norm.weight" in state:
        raise CheckpointError(
            "this is EDM's ADM network, but the family edm reads only DDPM++ and NCSN++"
        )
    enter = _one(state, r"enc\.(\d+)x\d+_conv\.weight")
    channels, in_channels = state[enter].shape[:2]
    sizes = sorted(_sizes(state, r"enc\.(\d+)x\d+_block0\."), reverse=True)
    first = f"enc.{sizes[0]}x{sizes[0]}_"
    leave = f"dec.{sizes[0]}x{sizes[0]}_aux_conv.weight"
    if leave not in state:
        raise CheckpointError(f"the checkpoint lacks {leave}: it is of another network")
    filters = [each for key, each in state.items() if key.endswith("resample_filter")]
    resampling = "fir" if any(each.shape[-1] == 4 for each in filters) else "box"
    spec = EDMNCSNppSpec if "map_noise.freqs" in state else EDMDDPMppSpec
    classes = state["map_label.weight"].shape[1] if "map_label.weight" in state else 0
    augmentation = state["map_augment.weight"].shape[1] if "map_augment.weight" in state else 0
    network = spec(
        channels=channels,
        multipliers=tuple(
            len(state[f"enc.{size}x{size}_block0.conv0.weight"]) // channels for size in sizes
        ),
        blocks=len(_sizes(state, re.escape(first) + r"block(\d+)\.conv0\.weight")),
        attention=tuple(sorted(_sizes(state, r"enc\.(\d+)x\d+_block0\.qkv"), reverse=True)),
        resampling=resampling,
        pyramid="fir" if any("aux_residual" in key for key in state) else "none",
        augmentation=augmentation,
    )
    return Architecture(
        network=network,
        denoiser={"predict": "edm", "conditional": classes > 0},
        image_shape=(len(state[leave]), sizes[0], sizes[0]),
        in_channels=in_channels,
        out_channels=len(state[leave]),
        classes=classes,
    )


def _sizes(state: Mapping[str, Tensor], pattern: str) -> set[int]:
    """The numbers that the pattern's group has among the keys."""
    return {int(found[1]) for key in state if (found := re.match(pattern, key))}


def _one(state: Mapping[str, Tensor], pattern: str) -> str:
    keys = [key for key in state if re.fullmatch(pattern, key)]
    if len(keys) != 1:
        raise CheckpointError(f"the checkpoint has {len(keys)} keys like {pattern}, not one")
    return keys[0]


def rules(architecture: Architecture) -> list[ConversionRule]:
    """The rules that make each tensor of our network."""
    units = dict(_units(architecture))
    return [
        rule(ours, _theirs(ours, units), change=by_kind if ".attention.qkv." in ours else same)
        for ours in architecture.skeleton.state_dict()
    ]


def by_kind(qkv: Tensor) -> Tensor:
    """The first axis of ``qkv`` reordered from (C, 3) to (3, C)."""
    found: Tensor = qkv.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
    return found


def ignored(architecture: Architecture) -> set[str]:
    """The keys of the resampling filters, which our code computes."""
    changes = [theirs for _, theirs in _units(architecture) if re.search("_(down|up)$", theirs)]
    blocks = {f"{each}.{layer}.resample_filter" for each in changes for layer in ("conv0", "skip")}
    pyramids = {
        theirs.removesuffix(".weight") + ".resample_filter"
        for ours, theirs in _units(architecture)
        if ours.endswith(".pyramid.convolution")
    }
    return blocks | pyramids


def _theirs(ours: str, units: Mapping[str, str]) -> str:
    """The official key of one of our tensors."""
    unit = next(each for each in units if ours.startswith(each + ".") or ours == each)
    inner, _, kind = ours.removeprefix(unit).removeprefix(".").rpartition(".")
    return ".".join(filter(None, [units[unit], BLOCK.get(inner, inner), kind]))


def _units(architecture: Architecture) -> Iterator[tuple[str, str]]:
    """Pairs of our name and EDM's name, of layers and of residual blocks."""
    spec, height = architecture.network, architecture.image_shape[1]
    assert isinstance(spec, SongSpec)
    resolutions = range(len(spec.multipliers))
    sizes = [f"{height >> level}x{height >> level}" for level in resolutions]
    yield "embedding.noise.frequencies", "map_noise.freqs"
    yield "embedding.classes", "map_label"
    yield "embedding.augmentation", "map_augment"
    yield "embedding.enter", "map_layer0"
    yield "embedding.leave", "map_layer1"
    yield "enter", f"enc.{sizes[0]}_conv"
    for level, size in enumerate(sizes):
        yield f"down.{level}.change", f"enc.{size}_down"
        yield f"down.{level}.pyramid.convolution", f"enc.{size}_aux_residual"
        for index in range(spec.blocks):
            yield f"down.{level}.blocks.{index}", f"enc.{size}_block{index}"
    for index in range(2):
        yield f"middle.{index}", f"dec.{sizes[-1]}_in{index}"
    for level, size in enumerate(reversed(sizes)):
        yield f"up.{level}.change", f"dec.{size}_up"
        for index in range(spec.blocks + 1):
            yield f"up.{level}.blocks.{index}", f"dec.{size}_block{index}"
    yield "leave.0", f"dec.{sizes[0]}_aux_norm"
    yield "leave.2", f"dec.{sizes[0]}_aux_conv"
