"""IHDM's checkpoints: Improved DDPM's layout, under ``model`` with the prefix of DataParallel.

    model.module.input_blocks.0.0.weight ..        the weights of the last step
    ema.shadow_params                              the averages, a list in the order of the parameters

Not in the shapes: one attention head, and the images' size, which follows from the widths and the blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffbench.pretrained.conversion import Architecture, CheckpointError, ConversionRule, shape_of
from diffbench.pretrained.openai import Outline, head_first, unet_rules
from diffbench.pretrained.score_sde import averaged
from diffbench.specs.networks.residual_unet import IHDMUNetSpec

SOURCE = (
    "https://github.com/AaltoML/generative-inverse-heat-dissipation: Generative Modelling with Inverse Heat "
    "Dissipation (Rissanen et al. 2023)"
)

#: Multipliers of the widths of the official configurations -> the size of their images.
SIZES: dict[tuple[float, ...], int] = {
    (1, 2, 2): 28,
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 2, 3, 4, 5): 256,
}
#: LSUN Church has the widths of 256x256 images, and one block more.
CHURCH, CHURCH_BLOCKS = 128, 4


def weights(contents: Any) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint; a bare state_dict is returned as it is.

    Raises:
        CheckpointError: when there are no tensors of the expected names, or when the averages do not fit the names.
    """
    return averaged(contents, "IHDM", "input_blocks.0.0.weight")


def architecture(state: Mapping[str, Tensor]) -> Architecture:
    """The network and the denoiser, read from the shapes.

    Raises:
        CheckpointError: when the tensors are not of such a network, or of none of the official configurations.
    """
    outline = Outline(state)
    channels, outputs = outline.in_channels, shape_of(state, "out.2.weight", 4)[0]
    if outputs != channels:
        raise CheckpointError(
            f"the network makes {outputs} channels from {channels}: they must be as many"
        )
    size = outline.size(SIZES)
    if len(outline.multipliers) == 5 and outline.blocks == CHURCH_BLOCKS:
        size = CHURCH
    return Architecture(
        network=outline.spec(IHDMUNetSpec, size),
        denoiser={"predict": "mean", "skip": "addition", "noise_input": "time"},
        image_shape=(channels, size, size),
        in_channels=channels,
        out_channels=outputs,
        classes=0,
    )


def rules(architecture: Architecture) -> list[ConversionRule]:
    """The rules that make each tensor of our network."""
    return unet_rules(architecture, head_first)


def ignored(architecture: Architecture) -> set[str]:
    """No keys: every tensor is a weight."""
    return set()
