"""Specs of the U-Nets that descend from DDPM's, at their papers' sizes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from diffbench.specs.base import Fraction, PositiveFloat, PositiveInt
from diffbench.specs.networks.network import Blocks, Channels, ResolutionsSpec

Multipliers = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
Resampling = Literal["convolution", "same-convolution", "average", "block"]


class ResidualUNetSpec(ResolutionsSpec):
    """A U-Net of residual blocks at several resolutions.

    channels: the width of a resolution whose multiplier is 1; even.
    multipliers: the width of each resolution, in units of ``channels``.
    blocks: residual blocks at each resolution on the way down; one more on the way up.
    attention: heights (pixels) of the images that blocks attend over.
    heads: attention heads, unless ``head_channels`` gives the width of one head.
    modulation: how the embedding of noise and class enters a block: by ``addition`` or by ``scale-shift``.
    resampling: ``convolution`` with stride 2, padded on all sides; ``same-convolution``, padded on the far sides as
        TensorFlow does; ``average`` pooling; or a residual ``block`` around it.
    features: the order and the frequencies of the sinusoids of the noise input.
    initial: initial weights, uniform by their fan-in, as in PyTorch, or by the average of fan-in and fan-out.
    groups, epsilon: of the group norm; ``groups`` divides every width.
    dropout: probability inside the residual blocks.
    """

    implementation: ClassVar[str] = "diffbench.networks.residual_unet:ResidualUNet"

    channels: Channels = 128
    multipliers: Multipliers = (1, 2, 2, 2)
    blocks: Blocks = 3
    attention: tuple[PositiveInt, ...] = (16, 8)
    heads: PositiveInt = 4
    head_channels: PositiveInt | None = None
    modulation: Literal["addition", "scale-shift"] = "scale-shift"
    resampling: Resampling = "convolution"
    features: Literal["cosine-first", "sine-first"] = "cosine-first"
    initial: Literal["fan-in", "fan-average"] = "fan-in"
    groups: PositiveInt = 32
    epsilon: PositiveFloat = 1e-5
    dropout: Fraction = 0.1

    @property
    def embedding(self) -> int:
        """The width of the embedding of noise level and class."""
        return 4 * self.channels

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each resolution, the highest resolution first."""
        return tuple(int(each * self.channels) for each in self.multipliers)

    def heads_of(self, width: int) -> int:
        """How many attention heads ``width`` channels have."""
        return width // self.head_channels if self.head_channels else self.heads

    @model_validator(mode="after")
    def _widths_divide(self) -> Self:
        if self.channels % 2:
            raise ValueError(f"channels must be even, not {self.channels}")
        if unmet := [width for width in self.widths if width == 0 or width % self.groups]:
            raise ValueError(
                f"groups must divide every width, and {self.groups} does not divide {unmet[0]}"
            )
        key, parts = "heads", self.heads
        if self.head_channels:
            key, parts = "head_channels", self.head_channels
        if unmet := [width for width in self.widths if width % parts]:
            raise ValueError(
                f"{key} must divide every width, and {parts} does not divide {unmet[0]}"
            )
        return self


class IDDPMSpec(ResidualUNetSpec):
    """Improved DDPM's U-Net (Nichol & Dhariwal 2021); the defaults are those of its cosine runs on CIFAR-10.

    It has 52,546,438 parameters with learned variances.  For ImageNet-64: ``multipliers: [1, 2, 3, 4]``,
    ``dropout: 0``.
    """

    name: Literal["iddpm"] = "iddpm"

    dropout: Fraction = 0.3


class ADMSpec(ResidualUNetSpec):
    """ADM's U-Net (Dhariwal & Nichol 2021, table 4 and appendix I); the defaults are those for ImageNet-64.

    It has 295,904,454 parameters with learned variances and 1,000 classes, and 768 more for the null class.  For larger
    images: ``blocks: 2`` and other ``multipliers``.
    """

    name: Literal["adm"] = "adm"

    channels: Channels = 192
    multipliers: Multipliers = (1, 2, 3, 4)
    attention: tuple[PositiveInt, ...] = (32, 16, 8)
    head_channels: PositiveInt | None = 64
    resampling: Resampling = "block"


class DDPMOriginalSpec(ResidualUNetSpec):
    """The U-Net of Ho et al. 2020, as in their TensorFlow code; 35,746,307 parameters with the defaults, for CIFAR-10.

    ``ddpm``, Song et al.'s version, has attention only after the last block of a resolution on the way up.  For LSUN:
    ``multipliers: [1, 1, 2, 2, 4, 4]`` and ``dropout: 0``.
    """

    name: Literal["ddpm-original"] = "ddpm-original"

    blocks: Blocks = 2
    attention: tuple[PositiveInt, ...] = (16,)
    heads: PositiveInt = 1
    modulation: Literal["addition", "scale-shift"] = "addition"
    resampling: Resampling = "same-convolution"
    features: Literal["cosine-first", "sine-first"] = "sine-first"
    initial: Literal["fan-in", "fan-average"] = "fan-average"
    epsilon: PositiveFloat = 1e-6


class IHDMUNetSpec(ResidualUNetSpec):
    """The U-Net of inverse heat dissipation (Rissanen et al. 2023); 61,060,867 parameters on CIFAR-10.

    Its denoiser has ``noise_input: time``.
    """

    name: Literal["ihdm"] = "ihdm"
    implementation: ClassVar[str] = "diffbench.networks.residual_unet:IHDMUNet"

    blocks: Blocks = 4
    attention: tuple[PositiveInt, ...] = (8, 4)
    heads: PositiveInt = 1
    modulation: Literal["addition", "scale-shift"] = "addition"
