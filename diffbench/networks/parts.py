"""Parts that the U-Nets of several papers share.

attention    softmax(q k^T/sqrt(d)) v over all pixels, of each head of d channels
classes      e + class embedding; the last one is the null class
features     sin(2 pi f x), cos(2 pi f x) of the unscaled x_t (Kingma et al. 2021,
             https://arxiv.org/abs/2107.00630, appendix C)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffbench.specs.networks.network import Halving


def attended(qkv: Tensor, heads: int) -> Tensor:
    """The attention's result (B, C, H, W), from q, k and v (B, 3 C, H, W) with channels (3, heads, d)."""
    batch, channels, height, width = qkv.shape
    q, k, v = qkv.flatten(2).unflatten(1, (3, heads, -1)).mT.unbind(1)
    mixed = F.scaled_dot_product_attention(q, k, v).mT
    return mixed.reshape(batch, channels // 3, height, width)


def with_class(e: Tensor, embedding: nn.Embedding | None, y: Tensor | None) -> Tensor:
    """The sum of e (B, E) and the embeddings of labels y (B,); None is the null class, the last one, for all.

    Raises:
        ValueError: when there are labels but no embedding.
    """
    if embedding is None:
        if y is not None:
            raise ValueError("this network has no classes, but was given labels")
        return e
    if y is None:
        y = torch.full((len(e),), embedding.num_embeddings - 1, device=e.device)
    labelled: Tensor = e + embedding(y)
    return labelled


class FourierFeatures(nn.Module):
    """Fourier features: x (B, C, H, W) in data units -> (B, 2 C n, H, W) float32, sin and cos of 2 pi f x for n f's."""

    angular: Tensor

    def __init__(self, frequencies: Sequence[float]) -> None:
        super().__init__()
        angular = 2 * math.pi * torch.tensor(frequencies, dtype=torch.float64)
        self.register_buffer("angular", angular.float()[:, None, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # Elementwise products stay float32 under autocast; a matrix product would be bfloat16.
        phase = (x.float()[:, None] * self.angular).flatten(1, 2)
        return torch.cat([phase.sin(), phase.cos()], dim=1)


def with_features(x: Tensor, features: nn.Module | None, raw: Tensor | None) -> Tensor:
    """The channels of x (B, C', H, W), then the features of the unscaled image raw (B, C, H, W).

    Raises:
        ValueError: when there are features and no ``raw``.
    """
    if features is None:
        return x
    if raw is None:
        raise ValueError("Fourier features need the unscaled image: pass it as `raw`")
    return torch.cat([x, features(raw).to(x)], dim=1)


def check_halvings(spec: Halving, shape: tuple[int, int, int]) -> None:
    """Refuse images (C, H, W) that the network cannot halve.

    Raises:
        ValueError: when height or width is not a multiple of 2^halvings, with both.
    """
    if reason := spec.halving_refusal(shape):
        raise ValueError(f"network {reason}")
