"""A network for vectors whose coordinates have different meanings, such as the fractions of categories.

    h_i = stem(x_i) + position_i,     h_i <- h_i + MLP(norm(h_i); e + pool),     F_i = head(h_i)

Every coordinate goes through the same layers and has its own position embedding.  It learns of the others only through
``pool``, the mean of h over coordinates, which is given beside the embedding e of the noise level; so there may be many
coordinates.  Without that mean each coordinate sees only itself, and the model's density is a product over coordinates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffbench.networks.unet import NoiseEmbedding


class CoordinateBlock(nn.Module):
    """A residual block: h (B, D, W), e (B, E) -> (B, D, W); if ``coupled``, it uses the mean over coordinates."""

    def __init__(self, width: int, embedding: int, coupled: bool = True) -> None:
        super().__init__()
        self.coupled = coupled
        self.norm = nn.LayerNorm(width)
        self.told = nn.Linear(embedding + width, 2 * width)
        self.enter, self.leave = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        pool = h.mean(1) if self.coupled else torch.zeros_like(h[:, 0])
        scale, shift = self.told(torch.cat([e, pool], 1))[:, None].chunk(2, dim=-1)
        found: Tensor = h + self.leave(F.silu(self.enter(self.norm(h) * (1 + scale) + shift)))
        return found


class CategoryNetwork(nn.Module):
    """The network F(x; c_noise) of "images" x (B, 1, 1, D); its output has x's shape and starts at zero.

    Args:
        coordinates: D.
        width: the number of features of each coordinate; even.
        blocks: the number of residual blocks.
        coupled: whether a coordinate learns of the others.
    """

    def __init__(
        self, coordinates: int, width: int = 32, blocks: int = 3, coupled: bool = True
    ) -> None:
        super().__init__()
        self.noise_embedding = NoiseEmbedding(width)
        self.stem = nn.Linear(1, width)
        self.position = nn.Parameter(0.5 * torch.randn(coordinates, width))
        self.blocks = nn.ModuleList(CoordinateBlock(width, width, coupled) for _ in range(blocks))
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, x: Tensor, c_noise: Tensor, y: Tensor | None = None, raw: Tensor | None = None
    ) -> Tensor:
        """The raw output for x in [-1, 1]; the labels y and the unscaled image ``raw`` are not used."""
        e = F.silu(self.noise_embedding(c_noise))
        h = self.stem(x.flatten(1)[..., None]) + self.position
        for block in self.blocks:
            h = block(h, e)
        found: Tensor = self.head(h).reshape(x.shape)
        return found
