"""Spec of VDM's network."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from diffbench.specs.base import Float, Fraction, PositiveFloat, PositiveInt
from diffbench.specs.network import NetworkSpec


class VDMSpec(NetworkSpec):
    """VDM's U-Net without a change of resolution (Kingma et al. 2021); 30,577,667 parameters on CIFAR-10.

    channels: width; even, a multiple of ``groups`` and of ``heads``.  256 for ImageNet.
    blocks: residual blocks on the way in; on the way out one more.
    heads: attention heads, in the middle alone.
    fourier: frequencies f of the input features sin(2 pi f x), cos(2 pi f x).
    gamma_min, gamma_max: what the network is told goes from 0 to 1 as gamma = -ln SNR goes from one to the other.
    groups, epsilon: of the group norm.
    dropout: probability inside the residual blocks.
    """

    name: Literal["vdm"] = "vdm"
    implementation: ClassVar[str] = "diffbench.networks.vdm:VDM"

    channels: PositiveInt = 128
    blocks: PositiveInt = 32
    heads: PositiveInt = 1
    fourier: tuple[PositiveFloat, ...] = (64, 128)
    gamma_min: Float = -13.3
    gamma_max: Float = 5.0
    groups: PositiveInt = 32
    epsilon: PositiveFloat = 1e-6
    dropout: Fraction = 0.1

    @property
    def embedding(self) -> int:
        """Width of the embedding of noise level and class."""
        return 4 * self.channels

    def heads_of(self, width: int) -> int:
        """How many attention heads that many channels have."""
        return self.heads

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.channels % 2 or self.channels % self.groups or self.channels % self.heads:
            raise ValueError(
                f"channels must be even and a multiple of groups ({self.groups}) and heads ({self.heads}), "
                f"not {self.channels}"
            )
        if self.gamma_min >= self.gamma_max:
            raise ValueError(
                f"gamma_min must be below gamma_max, and {self.gamma_min:g} is not below {self.gamma_max:g}"
            )
        return self
