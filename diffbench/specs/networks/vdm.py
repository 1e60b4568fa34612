"""Specs of VDM's network, and of reflected diffusion's variant of it."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from diffbench.specs.base import Float, Fraction, PositiveFloat, PositiveInt
from diffbench.specs.networks.network import Blocks, Channels, NetworkSpec


class FlatUNetSpec(NetworkSpec):
    """A U-Net without a change of resolution.

    channels: width; even, a multiple of ``groups`` and of ``heads``.  256 for ImageNet.
    blocks: residual blocks on the way in; one more on the way out.
    heads: attention heads; only the middle has attention.
    fourier: frequencies f of the input features sin(2 pi f x), cos(2 pi f x).
    groups, epsilon: of the group norm.
    dropout: probability inside the residual blocks.
    """

    name: str
    channels: Channels = 128
    blocks: Blocks = 32
    heads: PositiveInt = 1
    fourier: tuple[PositiveFloat, ...] = (64, 128)
    groups: PositiveInt = 32
    epsilon: PositiveFloat = 1e-6
    dropout: Fraction = 0.1

    @property
    def embedding(self) -> int:
        """The width of the embedding of noise level and class."""
        return 4 * self.channels

    def heads_of(self, width: int) -> int:
        """How many attention heads ``width`` channels have."""
        return self.heads

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.channels % 2 or self.channels % self.groups or self.channels % self.heads:
            raise ValueError(
                f"channels must be even and a multiple of groups ({self.groups}) and heads ({self.heads}), "
                f"not {self.channels}"
            )
        return self


class VDMSpec(FlatUNetSpec):
    """VDM's U-Net without a change of resolution (Kingma et al. 2021); 30,577,667 parameters on CIFAR-10.

    gamma_min, gamma_max: the values of gamma = -ln SNR at which the noise input of the network is 0 and 1.
    """

    name: Literal["vdm"] = "vdm"
    implementation: ClassVar[str] = "diffbench.networks.vdm:VDM"

    gamma_min: Float = -13.3
    gamma_max: Float = 5.0

    @model_validator(mode="after")
    def _gammas_increase(self) -> Self:
        if self.gamma_min >= self.gamma_max:
            raise ValueError(
                f"gamma_min, {self.gamma_min:g}, must be below gamma_max, {self.gamma_max:g}"
            )
        return self


class ReflectedVDMSpec(FlatUNetSpec):
    """VDM's U-Net as reflected diffusion has it for likelihoods (Lou & Ermon 2023); 30,577,667 parameters on CIFAR-10.

    The network and its features see images in [0, 1], and the image is not added to the output.  Its denoiser has
    ``noise_input: sigma-share``.
    """

    name: Literal["reflected-vdm"] = "reflected-vdm"
    implementation: ClassVar[str] = "diffbench.networks.vdm:ReflectedVDM"
