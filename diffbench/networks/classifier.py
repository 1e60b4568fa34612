"""A classifier of noisy images: the encoder half of the U-Net, pooled.

    h      = block(attend(block(down(block(stem(x))))))          (inner_channels, H/2, W/2)
    logits = linear(mean over pixels of silu(norm(h)))           (classes,)

Its blocks and its noise embedding are those of ``unet``.  Source: "Diffusion Models Beat GANs" (Dhariwal and Nichol
2021, https://arxiv.org/abs/2105.05233, section 4 and appendix H), whose classifier is also a downsampling U-Net, pooled
by attention.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffbench.networks.norms import GroupNorm
from diffbench.networks.parts import check_halvings
from diffbench.networks.unet import Attention, NoiseEmbedding, ResidualBlock
from diffbench.specs.networks.network import EncoderSpec


class Encoder(nn.Module):
    """The network F(x; c_noise) of an ``EncoderSpec``, for images of one shape.

    Args:
        spec: the sizes of its layers.
        image_shape: (C, H, W) with H and W even.
        classes: the number of labels.

    Raises:
        ValueError: when H or W is odd.
    """

    def __init__(
        self, spec: EncoderSpec, *, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__()
        in_channels, height, width = image_shape
        check_halvings(spec, image_shape)
        outer, inner, embedding = spec.channels, spec.inner_channels, spec.embedding
        self.noise_embedding = NoiseEmbedding(embedding)
        self.stem = nn.Conv2d(in_channels, outer, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(outer, height, width))
        self.enter = ResidualBlock(outer, embedding, spec.dropout)
        self.down = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * outer, inner, 1))
        self.inner_enter = ResidualBlock(inner, embedding, spec.dropout)
        self.attention = Attention(inner, spec.heads)
        self.inner_leave = ResidualBlock(inner, embedding, spec.dropout)
        self.norm = GroupNorm(inner)
        self.head = nn.Linear(inner, classes)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """The logits (B, classes) of x (B, C, H, W), scaled to unit size, and c_noise (B,)."""
        e = F.silu(self.noise_embedding(c_noise))
        h = self.down(self.enter(self.stem(x) + self.position, e))
        h = self.inner_leave(self.attention(self.inner_enter(h, e)), e)
        found: Tensor = self.head(F.silu(self.norm(h)).mean((2, 3)))
        return found
