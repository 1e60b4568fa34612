"""What a network is, without building one: its sizes, its input features, the sizes it refuses.

A Fourier frequency f adds sin(2 pi f x) and cos(2 pi f x) of every pixel x, in data units [-1, 1],
to the input. With L grey levels the grid has spacing 2/(L - 1), so f = (L - 1)/2 is one period per
level: 8 for 17 levels, 127.5 for 256.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from diffbench.specs.base import Fraction, PositiveFloat, PositiveInt, Registered


class NetworkSpec(Registered):
    """A network F(x, c_noise, y)."""

    kind: ClassVar[str] = "network"

    name: str


class UNetSpec(NetworkSpec):
    """A lean two-resolution U-Net: most of its work happens at half the resolution.

    channels: width at full resolution.
    inner_channels: width at half resolution; a multiple of 4 (pixel shuffle) and of `heads`.
    heads: attention heads at half resolution.
    embedding: width of the embedding of noise level and class; even.
    position_embedding: a learnt offset per pixel at both resolutions (one image size).
    fourier: frequencies f of the input features (see above); none by default.
    dropout: probability inside the residual blocks.
    """

    name: Literal["unet"] = "unet"
    implementation: ClassVar[str] = "diffbench.networks.unet:UNet"

    channels: PositiveInt = 16
    inner_channels: PositiveInt = 48
    heads: PositiveInt = 2
    embedding: PositiveInt = 64
    position_embedding: bool = True
    fourier: tuple[PositiveFloat, ...] = ()
    dropout: Fraction = 0.0

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.inner_channels % 4 or self.inner_channels % self.heads:
            raise ValueError(
                f"inner_channels must be a multiple of 4 and of heads ({self.heads}), "
                f"not {self.inner_channels}"
            )
        if self.embedding % 2:
            raise ValueError(f"embedding must be even, not {self.embedding}")
        return self
