"""Spec of an imported model: what its weights are, and where they came from."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from diffbench.specs.base import NonNegativeInt, PositiveInt, Spec
from diffbench.specs.choices import AnyDenoiser, AnyNetwork
from diffbench.specs.data import SHA256


class ImportedSpec(Spec):
    """An official checkpoint's weights as a network of diffbench; the sidecar of ``model.safetensors`` holds the spec.

    name: what the user calls the model.
    family, source: the checkpoint's layout, and who published it.
    file, sha256: of the checkpoint.
    ema: whether the weights are averages; None where the checkpoint does not say.
    network, denoiser: the network that has the weights, and the denoiser that it is part of.
    image_shape, in_channels, out_channels, classes: what the network is built with.
    parameters: the number of parameters, without buffers.
    """

    version: PositiveInt = 1
    name: str
    family: str
    source: str
    file: str
    sha256: SHA256
    ema: bool | None
    network: AnyNetwork
    denoiser: AnyDenoiser
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    in_channels: PositiveInt
    out_channels: PositiveInt
    classes: NonNegativeInt
    parameters: PositiveInt

    @model_validator(mode="after")
    def _fits(self) -> Self:
        channels = self.image_shape[0]
        wanted = self.denoiser.inputs(channels), channels * self.denoiser.outputs
        if wanted != (self.in_channels, self.out_channels):
            raise ValueError(
                f"the network maps {self.in_channels} channels to {self.out_channels}, but its denoiser needs "
                f"{wanted[0]} and {wanted[1]}"
            )
        if self.denoiser.takes_labels != (self.classes > 0):
            raise ValueError(
                f"denoiser.conditional is {self.denoiser.takes_labels}, but there are {self.classes} classes"
            )
        return self
