"""A lean U-Net for small images.

One residual block works at full resolution on the way in, one on the way out, the rest at half resolution.

    skip = block(stem([x, features(raw)]) + position)               (channels, H, W)
    h    = block(attend(block(down(skip) + position)))              (inner_channels, H/2, W/2)
    out  = head(block(join([skip, up(h)])))                         (out_channels, H, W)

``down`` is pixel-unshuffle and a 1x1 convolution, ``up`` pixel-shuffle: no resampling filter is chosen.
Each block is given the noise level and the class by an adaptive group norm, h (1 + scale(e)) +
shift(e), with

    e = MLP([sin(w c_noise), cos(w c_noise)]) + class embedding,    c_noise = ln(sigma/alpha)/4

c_noise spans about -1.7 (sigma = .001) to 2.5 (sigma = 20000), so the frequencies w are geometric,
from 1/2 (one-to-one over that range) to 32. Features are sin(2 pi f x), cos(2 pi f x) of the
unscaled x_t: a good code of discrete data needs a function with a step at every grey level, too
fine for x alone.

Sources: U-Net with attention, "Denoising Diffusion Probabilistic Models" (Ho et al. 2020,
https://arxiv.org/abs/2006.11239); adaptive group norm, "Diffusion Models Beat GANs" (Dhariwal and
Nichol 2021, https://arxiv.org/abs/2105.05233); c_noise, "Elucidating the Design Space" (Karras et
al. 2022, https://arxiv.org/abs/2206.00364, table 1); Fourier features, "Variational Diffusion
Models" (Kingma et al. 2021, https://arxiv.org/abs/2107.00630).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffbench.networks.network import Network
from diffbench.networks.norms import AdaptiveNorm, GroupNorm
from diffbench.networks.parts import FourierFeatures, check_halvings, with_class, with_features
from diffbench.specs.networks.network import UNetSpec


def zero_convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that starts at zero, so that every denoiser starts at c_skip x_t."""
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution


class NoiseEmbedding(nn.Module):
    """The embedding c_noise (B,) -> (B, width): sines and cosines at width/2 frequencies, then two layers."""

    frequencies: Tensor

    def __init__(self, width: int, *, lowest: float = 0.5, highest: float = 32.0) -> None:
        super().__init__()
        ratios = torch.linspace(0, 1, width // 2, dtype=torch.float64)
        frequencies = lowest * (highest / lowest) ** ratios
        self.register_buffer("frequencies", frequencies.float(), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise.float()[:, None] * self.frequencies
        found: Tensor = self.mlp(torch.cat([angles.sin(), angles.cos()], dim=1))
        return found


class ResidualBlock(nn.Module):
    """A residual block of two 3x3 convolutions, modulated in between: h (B, C, H, W), e (B, E) -> (B, C, H, W)."""

    def __init__(self, channels: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            GroupNorm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.modulation = nn.Linear(embedding, 2 * channels)
        self.norm = AdaptiveNorm(channels)
        self.leave = nn.Sequential(
            nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.modulation(e).chunk(2, dim=1)
        found: Tensor = h + self.leave(self.norm(self.enter(h), 1 + scale, shift))
        return found


class Attention(nn.Module):
    """Self-attention over all pixels, which are few, added to h: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(h)).permute(0, 2, 3, 1).flatten(1, 2)
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(len(h), *h.shape[2:], -1)
        found: Tensor = h + self.project(mixed.permute(0, 3, 1, 2))
        return found


class Patches(nn.Sequential):
    """Pixel-unshuffle and a 1x1 convolution, computed as one convolution of 2x2 patches: half of the time."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.PixelUnshuffle(2), nn.Conv2d(4 * in_channels, out_channels, 1))

    def forward(self, h: Tensor) -> Tensor:
        point = self[1]
        assert isinstance(point, nn.Conv2d)
        weight = point.weight.reshape(point.out_channels, -1, 2, 2)
        return F.conv2d(h, weight, point.bias, stride=2)


class UNet(Network):
    """The network of a ``UNetSpec``; it is told c_noise = ln(sigma/alpha)/4.

    Raises:
        ValueError: when H or W is odd.
    """

    channels_last = frozenset({"cpu", "cuda", "mps"})

    def __init__(
        self,
        spec: UNetSpec,
        *,
        image_shape: tuple[int, int, int],
        in_channels: int,
        out_channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        check_halvings(spec, image_shape)
        outer, inner, embedding = spec.channels, spec.inner_channels, spec.embedding
        self.noise_embedding = NoiseEmbedding(embedding)
        self.class_embedding = nn.Embedding(classes + 1, embedding) if classes else None
        self.features = FourierFeatures(spec.fourier) if spec.fourier else None
        features = channels * 2 * len(spec.fourier)
        self.stem = nn.Conv2d(in_channels + features, outer, 3, padding=1)
        self.position = self.inner_position = None
        if spec.position_embedding:
            self.position = nn.Parameter(torch.zeros(outer, height, width))
            self.inner_position = nn.Parameter(torch.zeros(inner, height // 2, width // 2))
        self.enter = ResidualBlock(outer, embedding, spec.dropout)
        self.down = Patches(outer, inner)
        self.inner_enter = ResidualBlock(inner, embedding, spec.dropout)
        self.attention = Attention(inner, spec.heads) if spec.heads else nn.Identity()
        self.inner_leave = ResidualBlock(inner, embedding, spec.dropout)
        self.up = nn.PixelShuffle(2)
        self.join = nn.Conv2d(outer + inner // 4, outer, 1)
        self.leave = ResidualBlock(outer, embedding, spec.dropout)
        self.head = nn.Sequential(
            GroupNorm(outer), nn.SiLU(), zero_convolution(outer, out_channels)
        )

    def forward(
        self, x: Tensor, c_noise: Tensor, y: Tensor | None = None, raw: Tensor | None = None
    ) -> Tensor:
        e = F.silu(with_class(self.noise_embedding(c_noise), self.class_embedding, y))
        h = self.stem(with_features(x, self.features, raw))
        skip = self.enter(h if self.position is None else h + self.position, e)
        h = self.down(skip)
        h = self.inner_enter(h if self.inner_position is None else h + self.inner_position, e)
        h = self.inner_leave(self.attention(h), e)
        h = self.join(torch.cat([skip, self.up(h)], dim=1))
        found: Tensor = self.head(self.leave(h, e))
        return found
