"""Specs of the networks that descend from Song et al.'s: one family, whose members differ in a few parts.

    "Denoising Diffusion Probabilistic Models", Ho et al. 2020, https://arxiv.org/abs/2006.11239
    "Score-Based Generative Modeling through SDEs", Song et al. 2021, https://arxiv.org/abs/2011.13456, appendix H
    "Elucidating the Design Space", Karras et al. 2022, https://arxiv.org/abs/2206.00364, appendix F.2
    "Reflected Diffusion Models", Lou & Ermon 2023, https://arxiv.org/abs/2304.04740

The defaults of each name are its paper's sizes for CIFAR-10; each of them can be changed.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from diffbench.specs.base import Fraction, NonNegativeInt, PositiveInt
from diffbench.specs.networks.network import Blocks, Channels, ResolutionsSpec


class SongSpec(ResolutionsSpec):
    """A U-Net of residual blocks with attention at some resolutions.

    channels: width at full resolution; a multiple of 4 and of `heads`.
    multipliers: width of each resolution, full, half, quarter .., in units of `channels`.
    blocks: residual blocks at each resolution on the way down; one more on the way up.
    attention: heights (pixels) of the images that blocks attend over.
    heads: attention heads.
    dropout: probability inside the residual blocks.
    resampling: how the resolution is changed: by a residual block around a `box` filter or around a `fir` filter
        (1, 3, 3, 1)/8, or by a separate `convolution`.
    pyramid: how the noisy image itself is made smaller and added at each resolution: not at all (`none`), by
        a convolution and the `fir` filter, or by a `convolution` of stride 2.
    embedding: sines of the noise input: `positional` at geometric frequencies, as for transformers; `fourier` at
        random frequencies, stored as a parameter that is not trained; `fourier-buffer` at the same, stored as a buffer.
    rescaled: whether every sum of a branch and its skip is divided by sqrt(2).
    augmentation: how many numbers tell the network how an image was augmented; all are 0 in sampling.
    """

    implementation: ClassVar[str] = "diffbench.networks.song:Song"

    name: str
    channels: Channels = 128
    multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 2, 2)
    blocks: Blocks = 4
    attention: tuple[PositiveInt, ...] = (16,)
    heads: PositiveInt = 1
    dropout: Fraction = 0.1
    resampling: Literal["box", "fir", "convolution"] = "box"
    pyramid: Literal["none", "fir", "convolution"] = "none"
    embedding: Literal["positional", "fourier", "fourier-buffer"] = "positional"
    rescaled: bool = True
    augmentation: NonNegativeInt = 0

    @property
    def augmentation_labels(self) -> int:
        return self.augmentation

    @model_validator(mode="after")
    def _sizes_divide(self) -> SongSpec:
        if self.channels % 4 or self.channels % self.heads:
            raise ValueError(
                f"channels must be a multiple of 4 and of heads ({self.heads}), not {self.channels}"
            )
        return self


class DDPMSpec(SongSpec):
    """DDPM's network in the version of Song et al.; 35,218,947 parameters on CIFAR-10."""

    name: Literal["ddpm"] = "ddpm"
    blocks: Blocks = 2
    resampling: Literal["box", "fir", "convolution"] = "convolution"
    rescaled: bool = False


class DDPMppSpec(SongSpec):
    """DDPM++; 61,804,419 parameters on CIFAR-10."""

    name: Literal["ddpmpp"] = "ddpmpp"


class NCSNppSpec(SongSpec):
    """NCSN++ of the VE process; 62,758,915 parameters on CIFAR-10, 128 of them frequencies."""

    name: Literal["ncsnpp"] = "ncsnpp"
    resampling: Literal["box", "fir", "convolution"] = "fir"
    pyramid: Literal["none", "fir", "convolution"] = "fir"
    embedding: Literal["positional", "fourier", "fourier-buffer"] = "fourier"


class EDMDDPMppSpec(SongSpec):
    """DDPM++ as EDM trains it; 55,733,891 parameters on CIFAR-10."""

    name: Literal["edm-ddpmpp"] = "edm-ddpmpp"
    multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2, 2, 2)
    dropout: Fraction = 0.13
    augmentation: NonNegativeInt = 9


class EDMNCSNppSpec(SongSpec):
    """NCSN++ as EDM trains it; 56,397,827 parameters on CIFAR-10."""

    name: Literal["edm-ncsnpp"] = "edm-ncsnpp"
    multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2, 2, 2)
    dropout: Fraction = 0.13
    resampling: Literal["box", "fir", "convolution"] = "fir"
    pyramid: Literal["none", "fir", "convolution"] = "fir"
    embedding: Literal["positional", "fourier", "fourier-buffer"] = "fourier-buffer"
    augmentation: NonNegativeInt = 9


class ReflectedNetworkSpec(SongSpec):
    """The deep network of reflected diffusion; 107,587,075 parameters on CIFAR-10, 128 of them frequencies."""

    name: Literal["reflected"] = "reflected"
    blocks: Blocks = 8
    pyramid: Literal["none", "fir", "convolution"] = "convolution"
    embedding: Literal["positional", "fourier", "fourier-buffer"] = "fourier"
