"""VDM's U-Net, all of it at the image's resolution.

    e   = silu(MLP(sinusoids(1000 t)) + class embedding),   t = (gamma - gamma_min)/(gamma_max - gamma_min)
    h_0 = stem([x, features(raw)]),     h_i = block(h_{i-1}, e)                         i = 1 .. n
    h   = block(attend(block(h_n, e)), e)
    h   = block([h, h_i], e)            for i = n .. 0
    F   = x + conv(silu(norm(h)))

    block(h, e) = skip(h) + conv(silu(norm(conv(silu(norm(h))) + W e)))

gamma = -ln SNR = 2 ln(sigma/alpha), so c_noise = ln(sigma/alpha)/4 is gamma/8.  F starts close to x, as eps is close to
x where there is much noise.  The features sin(2 pi f x), cos(2 pi f x) resolve a single grey level.

Source: "Variational Diffusion Models" (Kingma et al. 2021, https://arxiv.org/abs/2107.00630, appendix B) and its code,
https://github.com/google-research/vdm.  There a label is one more input of the MLP, 0 without labels; here it is an
embedding.

"Reflected Diffusion Models" (Lou & Ermon 2023, https://arxiv.org/abs/2304.04740) uses for likelihoods

    e   = MLP(sinusoids(1000 t)) + class embedding,   t = (sigma - sigma_min)/(sigma_max - sigma_min)
    F   = conv(silu(norm(h)))

with images, and features of them, in [0, 1].
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffbench.networks.network import Network
from diffbench.networks.parts import FourierFeatures, with_features
from diffbench.networks.residual_parts import Attention, Conditioning, Last, sine_first
from diffbench.specs.networks.vdm import FlatUNetSpec, ReflectedVDMSpec, VDMSpec

#: The standard deviation of a standard normal that is truncated at -2 and 2.
CUT = 0.87962566103423978


class Projection(nn.Linear):
    """A linear layer from e to one number per channel, which starts at 0."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class ResidualBlock(nn.Module):
    """A residual block: h (B, C, H, W), e (B, E) -> (B, C', H, W)."""

    def __init__(self, spec: FlatUNetSpec, in_channels: int) -> None:
        super().__init__()
        channels = spec.channels
        self.enter_norm = nn.GroupNorm(spec.groups, in_channels, spec.epsilon)
        self.enter = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.told = Projection(spec.embedding, channels, bias=False)
        self.leave_norm = nn.GroupNorm(spec.groups, channels, spec.epsilon)
        self.dropout = nn.Dropout(spec.dropout)
        self.leave = Last(channels, channels, 3, padding=1)
        widens = in_channels != channels
        self.skip = nn.Conv2d(in_channels, channels, 1) if widens else nn.Identity()

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        inner = self.enter(F.silu(self.enter_norm(h))) + self.told(e)[:, :, None, None]
        found: Tensor = self.skip(h) + self.leave(self.dropout(F.silu(self.leave_norm(inner))))
        return found


class FlatUNet(Network):
    """Base: the network of a ``FlatUNetSpec``; images may be of any height and width."""

    def __init__(
        self,
        spec: FlatUNetSpec,
        *,
        image_shape: tuple[int, int, int],
        in_channels: int,
        out_channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.image_channels, width = image_shape[0], spec.channels
        self.conditioning = Conditioning(sine_first, width, spec.embedding, classes)
        self.features = FourierFeatures(spec.fourier) if spec.fourier else None
        seen = in_channels + 2 * len(spec.fourier) * self.image_channels
        self.stem = nn.Conv2d(seen, width, 3, padding=1)
        self.encoder = nn.ModuleList(ResidualBlock(spec, width) for _ in range(spec.blocks))
        self.enter = ResidualBlock(spec, width)
        self.attention = Attention(spec, width)
        self.leave = ResidualBlock(spec, width)
        self.decoder = nn.ModuleList(ResidualBlock(spec, 2 * width) for _ in range(spec.blocks + 1))
        self.norm = nn.GroupNorm(spec.groups, width, spec.epsilon)
        self.head = Last(width, out_channels, 3, padding=1)
        fan_in(self)

    def forward(
        self, x: Tensor, c_noise: Tensor, y: Tensor | None = None, raw: Tensor | None = None
    ) -> Tensor:
        e = self.embedded(c_noise, y)
        met = [self.stem(with_features(x, self.features, raw))]
        for block in self.encoder:
            met.append(block(met[-1], e))
        h = self.leave(self.attention(self.enter(met[-1], e), e), e)
        for block in self.decoder:
            h = block(torch.cat([h, met.pop()], dim=1), e)
        answer: Tensor = self.head(F.silu(self.norm(h)))
        return answer

    @abstractmethod
    def embedded(self, c_noise: Tensor, y: Tensor | None) -> Tensor:
        """The embedding e (B, E) that the blocks are given."""


class VDM(FlatUNet):
    """The network of a ``VDMSpec``: the first C output channels start at x, others (of a variance) at 0."""

    def __init__(self, spec: VDMSpec, **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.gamma_min, self.gamma_range = spec.gamma_min, spec.gamma_max - spec.gamma_min

    def embedded(self, c_noise: Tensor, y: Tensor | None) -> Tensor:
        """The embedding e (B, E) of c_noise = ln(sigma/alpha)/4, which is gamma/8."""
        time = (8 * c_noise - self.gamma_min) / self.gamma_range
        return F.silu(self.conditioning(1000 * time, y))

    def forward(
        self, x: Tensor, c_noise: Tensor, y: Tensor | None = None, raw: Tensor | None = None
    ) -> Tensor:
        """The network's output, with the image x added to its first C channels."""
        answer = super().forward(x, c_noise, y, raw)
        image, rest = answer.tensor_split([self.image_channels], dim=1)
        return torch.cat([image + x[:, : self.image_channels], rest], dim=1)


class ReflectedVDM(FlatUNet):
    """The network of a ``ReflectedVDMSpec``, which sees images in [0, 1]; its output starts at 0."""

    def __init__(self, spec: ReflectedVDMSpec, **sizes: Any) -> None:
        super().__init__(spec, **sizes)

    def embedded(self, c_noise: Tensor, y: Tensor | None) -> Tensor:
        """The embedding e (B, E), without an activation, of c_noise, 0 at the least noise and 1 at the most."""
        e: Tensor = self.conditioning(1000 * c_noise, y)
        return e

    def forward(
        self, x: Tensor, c_noise: Tensor, y: Tensor | None = None, raw: Tensor | None = None
    ) -> Tensor:
        """The network's output for the image (x + 1)/2."""
        image, rest = x.tensor_split([self.image_channels], dim=1)
        seen = torch.cat([(image + 1) / 2, rest], dim=1)
        return super().forward(seen, c_noise, y, None if raw is None else (raw + 1) / 2)


def fan_in(network: nn.Module) -> None:
    """Set weights normal with variance 1/fan-in, truncated at two deviations, and biases 0, as Flax does.

    ``Last`` and ``Projection`` stay 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not isinstance(module, Last | Projection):
            deviation = module.weight[0].numel() ** -0.5 / CUT
            nn.init.trunc_normal_(module.weight, 0, deviation, -2 * deviation, 2 * deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
