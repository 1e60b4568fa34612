"""The parts of DDPM's U-Net and of its descendants: embeddings, residual blocks, attention, resampling.

    e = MLP(sinusoids(c_noise)) + class embedding

A residual block is h + conv(silu(modulated(norm, conv(silu(norm h)), e))), where

    addition     modulated(norm, h, e) = norm(h + linear(silu e))
    scale-shift  modulated(norm, h, e) = norm(h) (1 + scale) + shift,    scale, shift = linear(silu e)

A block that resamples does so in both of its branches, before the first convolution.  The w sinusoids of c are, for
k = 0 .. w/2 - 1,

    cosine-first  cos(c f_k), sin(c f_k),   f_k = 10000^(-k/(w/2))
    sine-first    sin(c f_k), cos(c f_k),   f_k = 10000^(-k/(w/2 - 1))

Sources: "Denoising Diffusion Probabilistic Models" (Ho et al. 2020, https://arxiv.org/abs/2006.11239, appendix B);
"Improved Denoising Diffusion Probabilistic Models" (Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672);
"Diffusion Models Beat GANs on Image Synthesis" (Dhariwal & Nichol 2021, https://arxiv.org/abs/2105.05233).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffbench.networks.parts import attended, with_class
from diffbench.networks.resampling import DoubledConvolution, with_convolution
from diffbench.networks.winograd import Convolution
from diffbench.specs.networks.residual_unet import ResidualUNetSpec


def phases(c: Tensor, count: int, steps: int) -> Tensor:
    """The angles c 10000^(-k/steps) (B, count), k = 0 .. count - 1, of c (B,), in c's precision."""
    k = torch.arange(count, device=c.device, dtype=c.dtype)
    return c[:, None] * (-math.log(10_000) * (k / steps)).exp()


def cosine_first(c: Tensor, width: int) -> Tensor:
    """Cosines, then sines (B, width) of c (B,), in c's precision (Nichol & Dhariwal 2021, official code)."""
    angles = phases(c, width // 2, width // 2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def sine_first(c: Tensor, width: int) -> Tensor:
    """Sines, then cosines (B, width) of c (B,), in c's precision (Ho et al. 2020, official code)."""
    angles = phases(c, width // 2, width // 2 - 1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


FEATURES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "cosine-first": cosine_first,
    "sine-first": sine_first,
}


class Last(Convolution):
    """The last convolution of a branch; it starts at zero, so that its block starts as the skip."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Conditioning(nn.Module):
    """The embedding e (B, width) of c_noise (B,) and of y (B,) or None.

    Args:
        features: a function of c_noise and ``count`` that returns the features (B, count) of c_noise.
        count: the number of features.
        width: the number of entries of e for each image.
        classes: the number of labels, 0 for an unconditional network; index ``classes`` is the null class.
    """

    def __init__(
        self, features: Callable[[Tensor, int], Tensor], count: int, width: int, classes: int
    ) -> None:
        super().__init__()
        self.features, self.count = features, count
        self.enter, self.leave = nn.Linear(count, width), nn.Linear(width, width)
        self.classes = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, c_noise: Tensor, y: Tensor | None) -> Tensor:
        """The embedding e (B, width); None is the null class for all.

        Raises:
            ValueError: when there are labels for an unconditional network.
        """
        e = self.leave(F.silu(self.enter(self.features(c_noise, self.count))))
        return with_class(e, self.classes, y)


class Addition(nn.Module):
    """The modulation that adds e to each channel, before the norm."""

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding, channels)

    def forward(self, norm: nn.Module, h: Tensor, e: Tensor) -> Tensor:
        found: Tensor = norm(h + self.linear(e)[:, :, None, None])
        return found


class ScaleShift(nn.Module):
    """The modulation that scales and shifts each channel by e, after the norm."""

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding, 2 * channels)

    def forward(self, norm: nn.Module, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.linear(e)[:, :, None, None].chunk(2, dim=1)
        found: Tensor = norm(h) * (1 + scale) + shift
        return found


MODULATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "addition": Addition,
    "scale-shift": ScaleShift,
}


class ResidualBlock(nn.Module):
    """A residual block: h (B, C, H, W), silu(e) (B, E) -> (B, C', H', W').

    Args:
        spec: the network's spec.
        in_channels: C.
        out_channels: C'.
        resample: the layer that changes the resolution of both branches; None changes nothing.
    """

    def __init__(
        self,
        spec: ResidualUNetSpec,
        in_channels: int,
        out_channels: int,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.resample = resample or nn.Identity()
        self.enter_norm = nn.GroupNorm(spec.groups, in_channels, spec.epsilon)
        self.before, self.enter = with_convolution(self.resample, in_channels, out_channels)
        self.modulation = MODULATIONS[spec.modulation](spec.embedding, out_channels)
        self.leave_norm = nn.GroupNorm(spec.groups, out_channels, spec.epsilon)
        self.dropout = nn.Dropout(spec.dropout)
        self.leave = Last(out_channels, out_channels, 3, padding=1)
        widens = in_channels != out_channels
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if widens else nn.Identity()

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        inner = self.enter(self.before(F.silu(self.enter_norm(h))))
        inner = F.silu(self.modulation(self.leave_norm, inner, e))
        found: Tensor = self.skip(self.resample(h)) + self.leave(self.dropout(inner))
        return found


class Attends(Protocol):
    """What attention needs to know of a spec."""

    @property
    def groups(self) -> int:
        """The number of groups of the group norm."""

    @property
    def epsilon(self) -> float:
        """The epsilon of the group norm."""

    def heads_of(self, width: int) -> int:
        """The number of heads for ``width`` channels."""


class Attention(nn.Module):
    """Self-attention over all pixels, added to h: (B, C, H, W) -> (B, C, H, W); e is not used.

    The channels of ``qkv`` are (3, heads, C/heads).
    """

    def __init__(self, spec: Attends, channels: int) -> None:
        super().__init__()
        self.heads = spec.heads_of(channels)
        self.norm = nn.GroupNorm(spec.groups, channels, spec.epsilon)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = Last(channels, channels, 1)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        found: Tensor = h + self.project(attended(self.qkv(self.norm(h)), self.heads))
        return found


class Layers(nn.ModuleList):
    """Layers that are given e, one after the other."""

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        for layer in self:
            h = layer(h, e)
        return h


class Plain(nn.ModuleDict):
    """Named layers that are not given e, one after the other."""

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        for layer in self.values():
            h = layer(h)
        return h


def _halved(spec: ResidualUNetSpec, channels: int) -> nn.Module:
    return Plain({"shrink": nn.Conv2d(channels, channels, 3, stride=2, padding=1)})


def _halved_same(spec: ResidualUNetSpec, channels: int) -> nn.Module:
    convolution = nn.Conv2d(channels, channels, 3, stride=2)
    return Plain({"pad": nn.ZeroPad2d((0, 1, 0, 1)), "shrink": convolution})


def _doubled(spec: ResidualUNetSpec, channels: int) -> nn.Module:
    return Plain({"grow": DoubledConvolution(channels, channels)})


def _pooled(spec: ResidualUNetSpec, channels: int) -> nn.Module:
    return Plain({"shrink": nn.AvgPool2d(2)})


def _repeated(spec: ResidualUNetSpec, channels: int) -> nn.Module:
    return Plain({"grow": nn.Upsample(scale_factor=2)})


def _pooled_block(spec: ResidualUNetSpec, channels: int) -> nn.Module:
    return ResidualBlock(spec, channels, channels, nn.AvgPool2d(2))


def _repeated_block(spec: ResidualUNetSpec, channels: int) -> nn.Module:
    return ResidualBlock(spec, channels, channels, nn.Upsample(scale_factor=2))


Resampling = Callable[[ResidualUNetSpec, int], nn.Module]

#: By the resampling's name: what makes the layer that halves the resolution, and the one that doubles it.
RESAMPLINGS: dict[str, tuple[Resampling, Resampling]] = {
    "convolution": (_halved, _doubled),
    "same-convolution": (_halved_same, _doubled),
    "average": (_pooled, _repeated),
    "block": (_pooled_block, _repeated_block),
}


def fan_average(network: nn.Module) -> None:
    """Set weights uniform with variance 2/(fan-in + fan-out) and biases 0 (Ho et al. 2020, official code)."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not isinstance(module, Last):
            # q, k and v are three layers, stored as one.
            for part in module.weight.data.chunk(3 if name.endswith("qkv") else 1):
                nn.init.xavier_uniform_(part)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


INITIAL: dict[str, Callable[[nn.Module], None]] = {
    "fan-in": lambda network: None,
    "fan-average": fan_average,
}
