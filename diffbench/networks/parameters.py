"""The number of parameters of a network, counted without making their values."""

from __future__ import annotations

import torch
from torch import nn

from diffbench.specs.networks.network import NetworkSpec
from diffbench.specs.registry import build

#: Images that networks are compared on: CIFAR-10's.
IMAGE_SHAPE = (3, 32, 32)


def parameters(network: nn.Module) -> int:
    """Return the number of a network's parameters, trained or not; buffers do not count."""
    return sum(each.numel() for each in network.parameters())


def parameters_of(spec: NetworkSpec, outputs: int = 1, classes: int = 0) -> int:
    """Return the number of parameters of a network for CIFAR-10's images.

    Args:
        spec: the network's spec.
        outputs: the number of outputs for each pixel and channel; 2 where a variance is learned beside the mean.
        classes: the number of labels, 0 for an unconditional network.

    Raises:
        ValueError: when the network is not for such images.
    """
    channels = IMAGE_SHAPE[0]
    with torch.device("meta"):
        network: nn.Module = build(
            spec,
            image_shape=IMAGE_SHAPE,
            in_channels=channels,
            out_channels=channels * outputs,
            classes=classes,
        )
    return parameters(network)
