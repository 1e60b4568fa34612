"""From the tensors of an official checkpoint to those of a network of ours.

A family states, for a network, which official keys make which of our tensors, and how:

    ours = change(theirs_1, theirs_2, ...)        the identity of one tensor by default

``converted`` then checks that it is complete: every official key is used or is listed as one that holds no weight, and
every tensor of the network is made once and has the right shape.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from diffbench.specs.errors import UserError
from diffbench.specs.networks.network import NetworkSpec
from diffbench.specs.registry import build

S = TypeVar("S", bound=NetworkSpec)

#: The number of keys that an error names.
SHOWN = 3


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be read, or is not of the network that the user named."""


@dataclass(frozen=True)
class Architecture:
    """The network of a checkpoint, and the denoiser for it.

    network: the network's spec.
    denoiser: keys of the denoiser's spec that such a network needs: predict, noise_input ..
    image_shape, in_channels, out_channels, classes: what the network is built with.
    """

    network: NetworkSpec
    denoiser: Mapping[str, Any]
    image_shape: tuple[int, int, int]
    in_channels: int
    out_channels: int
    classes: int

    @cached_property
    def skeleton(self) -> nn.Module:
        """The network on the meta device, with names and shapes but no numbers; it is shared, and not to be changed."""
        with torch.device("meta"):
            network: nn.Module = build(
                self.network,
                image_shape=self.image_shape,
                in_channels=self.in_channels,
                out_channels=self.out_channels,
                classes=self.classes,
            )
        return network


def tensors(contents: Any, source: str) -> dict[str, Tensor]:
    """The contents of a file that is a state_dict and nothing else.

    Raises:
        CheckpointError: when it is something else; ``source`` says what was expected.
    """
    if not isinstance(contents, Mapping) or not contents:
        raise CheckpointError(f"it must be a state_dict, not {_kind(contents)}: {source}")
    for key, value in contents.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"it must be a state_dict, but {key!r} is {_kind(value)}: {source}"
            )
    return dict(contents)


def _kind(value: object) -> str:
    return "empty" if isinstance(value, Mapping) and not value else f"a {type(value).__name__}"


def shape_of(state: Mapping[str, Tensor], key: str, dims: int) -> tuple[int, ...]:
    """The shape of an official tensor with that number of dimensions.

    Raises:
        CheckpointError: when there is none of that name, or it has another number of dimensions or no numbers.
    """
    if key not in state:
        raise CheckpointError(f"the checkpoint lacks {key}: it is of another family")
    shape = tuple(state[key].shape)
    if len(shape) != dims or 0 in shape:
        raise CheckpointError(f"{key} has shape {list(shape)}, and must have {dims} sizes above 0")
    return shape


def size_of(
    channels: int, multipliers: tuple[float, ...], sizes: Mapping[tuple[float, ...], int]
) -> int:
    """The size of a released model's images, from the multipliers of its widths.

    Raises:
        CheckpointError: when no released model has them.
    """
    if multipliers not in sizes:
        known = ", ".join(str(list(each)) for each in sizes)
        raise CheckpointError(
            f"the widths are {channels} times {list(multipliers)}; those of the released models are a width times "
            f"{known}"
        )
    return sizes[multipliers]


def spec_of(kind: type[S], keys: Mapping[str, Any]) -> S:
    """The spec of a network, from values that were read from shapes.

    Raises:
        CheckpointError: when there is no such network.
    """
    try:
        return kind.model_validate(keys)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise CheckpointError(f"no network of the family has these shapes: {reason}") from error


def same(tensor: Tensor) -> Tensor:
    """The tensor without a change."""
    return tensor


@dataclass(frozen=True)
class ConversionRule:
    """A rule that makes one of our tensors, ``ours`` in the network's state_dict, from official tensors."""

    ours: str
    theirs: tuple[str, ...]
    change: Callable[..., Tensor] = same


def rule(ours: str, *theirs: str, change: Callable[..., Tensor] = same) -> ConversionRule:
    """A rule from keys given one by one."""
    return ConversionRule(ours, theirs, change)


def converted(
    state: Mapping[str, Tensor],
    rules: Iterable[ConversionRule],
    network: nn.Module,
    ignored: Collection[str] = (),
) -> dict[str, Tensor]:
    """The network's state_dict, made from an official one.

    Args:
        state: official key -> tensor.
        rules: how each of our tensors is made.
        network: the network with the names and shapes to be met; it may be on the meta device.
        ignored: official keys that hold no weights, such as filters that our code computes.

    Raises:
        CheckpointError: when official keys are missing or unknown, when a tensor of the network is not made, or when
            a shape does not fit; one line that names the first of them.
    """
    rules, wanted = list(rules), network.state_dict()
    needed = {key for each in rules for key in each.theirs}
    _refuse("the checkpoint lacks", needed - state.keys())
    _refuse("the checkpoint has unknown keys", state.keys() - needed - set(ignored))
    made = {each.ours: _changed(each, state) for each in rules}
    _refuse("nothing in the checkpoint makes", wanted.keys() - made.keys())
    _refuse("the network has no", made.keys() - wanted.keys())
    for name, tensor in made.items():
        if tensor.shape != wanted[name].shape:
            theirs = ", ".join(next(each.theirs for each in rules if each.ours == name))
            raise CheckpointError(
                f"{theirs} has shape {list(tensor.shape)}, but the network needs {list(wanted[name].shape)} for "
                f"{name}: the checkpoint is of another configuration"
            )
    return {name: _own(made[name].to(wanted[name].dtype)) for name in wanted}


def _own(tensor: Tensor) -> Tensor:
    # A copy: tensors of a file may share memory, which safetensors refuses to write.
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _changed(each: ConversionRule, state: Mapping[str, Tensor]) -> Tensor:
    theirs = [state[key] for key in each.theirs]
    try:
        return each.change(*theirs)
    except (RuntimeError, IndexError) as error:
        shapes = ", ".join(f"{key} {list(state[key].shape)}" for key in each.theirs)
        raise CheckpointError(
            f"{shapes} cannot make {each.ours}: the checkpoint is of another configuration"
        ) from error


def _refuse(what: str, keys: Collection[str]) -> None:
    if keys:
        raise CheckpointError(
            f"{what} {first_of(sorted(keys))}: it is of another network, or of another family"
        )


def first_of(keys: Sequence[str]) -> str:
    """The first keys as text, and how many more there are."""
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more
