"""From the tensors of an official checkpoint to those of a network of ours.

A family states, for a network, which official keys make which of our tensors, and how:

    ours = change(theirs_1, theirs_2, ...)        the identity of one tensor, where nothing else is said

``converted`` then holds it to account: every official key is used or is named as one that holds no weight, every
tensor of the network is made, once, and has its shape.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffbench.plan.registry import build
from diffbench.specs.network import NetworkSpec

#: How many keys an error names.
SHOWN = 3


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or is not of the network it is said to be of."""


@dataclass(frozen=True)
class Architecture:
    """What network a checkpoint is of, and what denoiser it makes.

    network: its spec.
    denoiser: keys of the denoiser's spec that such a network needs: predict, noise_input ..
    image_shape, in_channels, out_channels, classes: what the network is built with.
    """

    network: NetworkSpec
    denoiser: Mapping[str, Any]
    image_shape: tuple[int, int, int]
    in_channels: int
    out_channels: int
    classes: int

    def skeleton(self) -> nn.Module:
        """The network on the meta device: names and shapes alone."""
        with torch.device("meta"):
            network: nn.Module = build(
                self.network,
                image_shape=self.image_shape,
                in_channels=self.in_channels,
                out_channels=self.out_channels,
                classes=self.classes,
            )
        return network


def same(tensor: Tensor) -> Tensor:
    """The tensor as it is."""
    return tensor


@dataclass(frozen=True)
class Rule:
    """One tensor of ours, ``ours`` in the network's state_dict, from official tensors."""

    ours: str
    theirs: tuple[str, ...]
    change: Callable[..., Tensor] = same


def rule(ours: str, *theirs: str, change: Callable[..., Tensor] = same) -> Rule:
    """A rule, written shortly."""
    return Rule(ours, theirs, change)


def converted(
    state: Mapping[str, Tensor],
    rules: Iterable[Rule],
    network: nn.Module,
    ignored: Collection[str] = (),
) -> dict[str, Tensor]:
    """The network's state_dict from an official one.

    Args:
        state: official key -> tensor.
        rules: how each of our tensors is made.
        network: whose names and shapes must be met; it may be on the meta device.
        ignored: official keys that hold no weights, such as filters that the code makes anew.

    Raises:
        CheckpointError: when official keys are missing or unknown, when a tensor of the network is not made, or when
            a shape does not fit; one line that names the first of them.
    """
    rules, wanted = list(rules), network.state_dict()
    needed = {key for each in rules for key in each.theirs}
    _refuse("the checkpoint lacks", needed - state.keys())
    _refuse("the checkpoint has unknown keys", state.keys() - needed - set(ignored))
    made = {each.ours: each.change(*(state[key] for key in each.theirs)) for each in rules}
    _refuse("nothing in the checkpoint makes", wanted.keys() - made.keys())
    _refuse("the network has no", made.keys() - wanted.keys())
    for name, tensor in made.items():
        if tensor.shape != wanted[name].shape:
            theirs = ", ".join(next(each.theirs for each in rules if each.ours == name))
            raise CheckpointError(
                f"{theirs} has shape {list(tensor.shape)}, and the network wants {list(wanted[name].shape)} for "
                f"{name}: the checkpoint is of another configuration"
            )
    return {name: made[name].to(wanted[name].dtype).contiguous() for name in wanted}


def _refuse(what: str, keys: Collection[str]) -> None:
    if keys:
        some = ", ".join(sorted(keys)[:SHOWN])
        more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        raise CheckpointError(
            f"{what} {some}{more}: it is of another network, or of another family"
        )
