"""Reflected-Diffusion's checkpoints of the networks that it has from score_sde: the same layers, deeper.

The network's output over sigma is the score of data in [0, 1]; it is told ln(sigma).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from diffbench.pretrained.conversion import Architecture, CheckpointError
from diffbench.pretrained.score_sde import SCORE, Layers, ignored, rules, weights
from diffbench.specs.song import ReflectedNetworkSpec

SOURCE = (
    "https://github.com/louaaron/Reflected-Diffusion: Reflected Diffusion Models (Lou & Ermon 2023)"
)

__all__ = ["SOURCE", "architecture", "ignored", "rules", "weights"]


def architecture(state: Mapping[str, Tensor]) -> Architecture:
    """What network the weights are of.

    Raises:
        CheckpointError: when they are of no such network.
    """
    layers = Layers(state)
    if not layers.fourier or layers.pyramid != "convolution":
        raise CheckpointError(
            "this is not reflected diffusion's network, with Fourier features and a strided pyramid; "
            "score-sde reads the others of these layers"
        )
    return layers.architecture(ReflectedNetworkSpec, SCORE)
