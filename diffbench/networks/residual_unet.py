"""The U-Net of DDPM, Improved DDPM and ADM.

    e    = MLP(sinusoids(c_noise)) + class embedding
    h_0  = stem(x),   h_i = layers_i(h_{i-1}, e)                    the way in: blocks, attention, halving
    h    = middle(h_n, e)
    h    = layers_j([h, h_i], e)   for i = n .. 0                   the way out: every h_i is used again
    out  = conv(silu(norm(h)))

Sources: "Denoising Diffusion Probabilistic Models" (Ho et al. 2020, https://arxiv.org/abs/2006.11239, appendix B);
"Improved Denoising Diffusion Probabilistic Models" (Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672);
"Diffusion Models Beat GANs on Image Synthesis" (Dhariwal & Nichol 2021, https://arxiv.org/abs/2105.05233).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffbench.networks.network import Network
from diffbench.networks.parts import check_halvings
from diffbench.networks.residual_parts import (
    FEATURES,
    INITIAL,
    RESAMPLINGS,
    Attention,
    Conditioning,
    Last,
    Layers,
    ResidualBlock,
)
from diffbench.specs.networks.residual_unet import ResidualUNetSpec


def way_in(spec: ResidualUNetSpec, height: int) -> Iterator[tuple[Layers, int]]:
    """The layers of the way in with their widths, in order, for images of the given height."""
    halved, _ = RESAMPLINGS[spec.resampling]
    width = spec.widths[0]
    for level, wanted in enumerate(spec.widths):
        for _ in range(spec.blocks):
            layers = Layers([ResidualBlock(spec, width, wanted)])
            width = wanted
            if height >> level in spec.attention:
                layers.append(Attention(spec, width))
            yield layers, width
        if level < len(spec.widths) - 1:
            yield Layers([halved(spec, width)]), width


def way_out(spec: ResidualUNetSpec, height: int, met: list[int]) -> Iterator[Layers]:
    """The layers of the way out, in order; each removes the last width of ``met``, that of its second input."""
    _, doubled = RESAMPLINGS[spec.resampling]
    width = spec.widths[-1]
    for level, wanted in reversed(list(enumerate(spec.widths))):
        for block in range(spec.blocks + 1):
            layers = Layers([ResidualBlock(spec, width + met.pop(), wanted)])
            width = wanted
            if height >> level in spec.attention:
                layers.append(Attention(spec, width))
            if level and block == spec.blocks:
                layers.append(doubled(spec, width))
            yield layers


class ResidualUNet(Network):
    """The network of a ``ResidualUNetSpec``; its output starts at zero.

    Raises:
        ValueError: when H or W cannot be halved between resolutions without remainder.
    """

    channels_last = frozenset({"cpu"})

    def __init__(
        self,
        spec: ResidualUNetSpec,
        *,
        image_shape: tuple[int, int, int],
        in_channels: int,
        out_channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        height = image_shape[1]
        check_halvings(spec, image_shape)
        features = FEATURES[spec.features]
        self.conditioning = Conditioning(features, spec.channels, spec.embedding, classes)
        outer, inner = spec.widths[0], spec.widths[-1]
        self.stem = nn.Conv2d(in_channels, outer, 3, padding=1)
        entered = list(way_in(spec, height))
        self.encoder = nn.ModuleList(layers for layers, _ in entered)
        self.middle = Layers(
            [
                ResidualBlock(spec, inner, inner),
                Attention(spec, inner),
                ResidualBlock(spec, inner, inner),
            ]
        )
        met = [outer, *(width for _, width in entered)]
        self.decoder = nn.ModuleList(way_out(spec, height, met))
        self.norm = nn.GroupNorm(spec.groups, outer, spec.epsilon)
        self.head = Last(outer, out_channels, 3, padding=1)
        INITIAL[spec.initial](self)

    def forward(
        self, x: Tensor, c_noise: Tensor, y: Tensor | None = None, raw: Tensor | None = None
    ) -> Tensor:
        e = F.silu(self.conditioning(c_noise, y))
        met = [self.stem(x)]
        for layers in self.encoder:
            met.append(layers(met[-1], e))
        h = self.middle(met[-1], e)
        for layers in self.decoder:
            h = layers(torch.cat([h, met.pop()], dim=1), e)
        found: Tensor = self.head(F.silu(self.norm(h)))
        return found


class IHDMUNet(ResidualUNet):
    """The residual U-Net that sees images in [0, 1] and levels from 1 (Rissanen et al. 2023, official code).

    Its inputs are as for other networks: x with data in [-1, 1], and c_noise with levels from 0.
    """

    def forward(
        self, x: Tensor, c_noise: Tensor, y: Tensor | None = None, raw: Tensor | None = None
    ) -> Tensor:
        return super().forward((x + 1) / 2, c_noise + 1, y, raw)
