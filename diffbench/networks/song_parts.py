r"""The parts of Song et al.'s networks: embeddings, residual blocks, attention.

    noise      e = [sin(w c_noise), cos(w c_noise)]
                   positional   w = 10000^(-i/(n - 1)), i = 0 .. n - 1
                   Fourier      w = 2 pi 16 z, z ~ N(0, 1) drawn once
    embedding  e <- silu(B silu(A (e + classes + augmentation)))
    block      b = conv(silu(norm(conv(r(silu(norm(h)))) + D e)))
               h <- s (skip(r(h)) + b),     r the identity, or down or up
    attention  h <- s (h + P softmax(q k^T/sqrt(d)) v),     [q, k, v] = Q norm(h)

s = 1 in Ho et al. 2020 (https://arxiv.org/abs/2006.11239), 1/sqrt(2) in Song et al. 2021
(https://arxiv.org/abs/2011.13456, appendix H.1). Weights start uniform with variance 2/(fan in + fan out); the last
ones of every branch are 100,000 times smaller, and Q has a fifth of the variance.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffbench.networks.parts import attended
from diffbench.networks.resampling import with_convolution
from diffbench.networks.residual_parts import sine_first
from diffbench.networks.winograd import Convolution

#: The gain of the last layer of a branch: a block starts almost as its skip.
SMALL = 1e-5


def normalisation(channels: int) -> nn.GroupNorm:
    """A group norm of up to 32 groups, each of four channels or more; their number divides the channels."""
    groups = math.gcd(channels, min(32, max(1, channels // 4)))
    return nn.GroupNorm(groups, channels, eps=1e-6)


def started(layer: nn.Linear | nn.Conv2d, gain: float = 1.0) -> nn.Linear | nn.Conv2d:
    """The layer with weights uniform within +-gain sqrt(6/(fan in + fan out)), and bias 0."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolution(in_channels: int, out_channels: int, size: int = 3, gain: float = 1.0) -> nn.Module:
    """A convolution that keeps the image's size."""
    return started(Convolution(in_channels, out_channels, size, padding=size // 2), gain)


class Positional(nn.Module):
    """The features c_noise (B,) -> (B, width): sines, then cosines, at geometric frequencies from 1 to 1/10000."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = channels

    def forward(self, c_noise: Tensor) -> Tensor:
        return sine_first(c_noise, self.width)


class Fourier(nn.Module):
    """The features c_noise (B,) -> (B, 2 channels): sines, then cosines, at random frequencies that are not trained."""

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = 2 * channels
        self._keep(16 * torch.randn(channels))

    def _keep(self, frequencies: Tensor) -> None:
        self.frequencies = nn.Parameter(frequencies, requires_grad=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        # Elementwise products stay in full precision under autocast.
        angles = 2 * math.pi * c_noise[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class FourierBuffer(Fourier):
    """Fourier features whose frequencies are a buffer, not a parameter (Karras et al. 2022, official code)."""

    def _keep(self, frequencies: Tensor) -> None:
        self.register_buffer("frequencies", frequencies)


EMBEDDINGS: dict[str, type[Positional | Fourier]] = {
    "positional": Positional,
    "fourier": Fourier,
    "fourier-buffer": FourierBuffer,
}


class Embedding(nn.Module):
    """The embedding e (B, width) of the noise level, the class and the augmentation.

    Args:
        noise: the features of c_noise.
        width: the number of entries of e for each image.
        classes: the number of labels, 0 for none; the null class is a vector of zeros.
        augmentation: how many numbers describe the augmentation of an image, 0 for none.
    """

    def __init__(
        self, noise: Positional | Fourier, width: int, classes: int, augmentation: int
    ) -> None:
        super().__init__()
        self.noise, self.known = noise, classes
        self.classes = started(nn.Linear(classes, noise.width)) if classes else None
        self.augmentation = (
            started(nn.Linear(augmentation, noise.width, bias=False)) if augmentation else None
        )
        self.enter = started(nn.Linear(noise.width, width))
        self.leave = started(nn.Linear(width, width))

    def forward(self, c_noise: Tensor, y: Tensor | None, augmented: Tensor | None) -> Tensor:
        e = self.noise(c_noise)
        if self.classes is not None:
            e = e + self.classes(self._one_of(c_noise, y))
        elif y is not None:
            raise ValueError("this network has no classes, but was given labels")
        if self.augmentation is not None:
            if augmented is None:
                augmented = e.new_zeros(len(e), self.augmentation.in_features)
            e = e + self.augmentation(augmented.to(e.dtype))
        elif augmented is not None:
            raise ValueError("this network takes no augmentation: set network.augmentation")
        return F.silu(self.leave(F.silu(self.enter(e))))

    def _one_of(self, c_noise: Tensor, y: Tensor | None) -> Tensor:
        """The labels as (B, classes): sqrt(classes) at the label, 0 elsewhere, so that the mean square is 1."""
        if y is None:
            return c_noise.new_zeros(len(c_noise), self.known)
        one_hot = F.one_hot(y, self.known + 1)[:, :-1]
        return math.sqrt(self.known) * one_hot.to(c_noise.dtype)


class Attention(nn.Module):
    """Self-attention over all pixels, added to h, and the sum times ``scale``: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.norm = normalisation(channels)
        self.qkv = convolution(channels, 3 * channels, 1, gain=math.sqrt(0.2))
        self.project = convolution(channels, channels, 1, gain=SMALL)

    def forward(self, h: Tensor) -> Tensor:
        found: Tensor = (
            h + self.project(attended(self.qkv(self.norm(h)), self.heads))
        ) * self.scale
        return found


class ResidualBlock(nn.Module):
    """A residual block: two 3x3 convolutions beside a skip, then attention; h (B, in, H, W) -> (B, out, H', W').

    Args:
        in_channels: the channels of h.
        out_channels: the channels of the result.
        embedding: the number of entries E of e (B, E).
        attention: the layer that follows; nn.Identity for none.
        dropout: the probability of dropout.
        scale: the factor s of the module's formula.
        resample: the layer from (H, W) to (H', W'), after the first norm and in the skip; None changes nothing.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        attention: nn.Module,
        *,
        dropout: float,
        scale: float,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.resample = scale, resample or nn.Identity()
        self.norm_in = normalisation(in_channels)
        self.before, conv_in = with_convolution(self.resample, in_channels, out_channels)
        self.conv_in = started(conv_in)
        self.shift = started(nn.Linear(embedding, out_channels))
        self.norm_out = normalisation(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = convolution(out_channels, out_channels, gain=SMALL)
        changes = in_channels != out_channels or resample is not None
        self.skip = convolution(in_channels, out_channels, 1) if changes else nn.Identity()
        self.attention = attention

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        branch = self.conv_in(self.before(F.silu(self.norm_in(h))))
        branch = branch + self.shift(e)[:, :, None, None]
        branch = self.conv_out(self.dropout(F.silu(self.norm_out(branch))))
        found: Tensor = self.attention((self.skip(self.resample(h)) + branch) * self.scale)
        return found
