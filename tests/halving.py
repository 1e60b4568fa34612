"""An extension for the tests of restorations: an operator that keeps the upper half of an image, and one that bends."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffbench.diffusion.inverse.operators.operator import Degradation, Operator
from diffbench.diffusion.inverse.restorers.restorer import Measurement, Restorer
from diffbench.specs.operators import ImageShape, MaskSpec, OperatorSpec
from diffbench.specs.restorers import RestorerSpec


class Half(Operator):
    """The upper half, measured ``gain`` times as large; U and V are identities."""

    def __init__(self, spec: HalfSpec, image_shape: ImageShape) -> None:
        super().__init__(spec, image_shape)
        channels, height, width = image_shape
        s = torch.zeros(image_shape, dtype=torch.float64)
        s[:, : height // 2] = spec.gain
        self.s = s.flatten()
        self.measurement_shape = (channels, height // 2, width)

    def coordinates(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def pixels(self, u: Tensor) -> Tensor:
        return u.reshape(-1, *self.image_shape)

    def spectral(self, y: Tensor) -> Tensor:
        return torch.cat([y, torch.zeros_like(y)], 2).flatten(1)

    def measurement(self, u: Tensor) -> Tensor:
        return self.pixels(u)[:, :, : self.measurement_shape[1]]


class HalfSpec(MaskSpec):
    """See ``Half``."""

    name: Literal["half"] = "half"
    implementation: ClassVar[str | type] = Half
    gain: float = 1.0


class Bent(Degradation):
    """Levels of a range of 10, cubed: no matrix."""

    def __init__(self, spec: BentSpec, image_shape: ImageShape, low: float, high: float) -> None:
        super().__init__(spec, image_shape)
        self.low, self.width, self.measurement_shape = low, high - low, image_shape

    def apply(self, x: Tensor) -> Tensor:
        return 10 * ((x - self.low) / self.width) ** 3

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return self.low + self.width * (y / 10).clamp(0).pow(1 / 3)


class BentSpec(OperatorSpec):
    """See ``Bent``."""

    name: Literal["bent"] = "bent"
    implementation: ClassVar[str | type] = Bent
    facts: ClassVar[tuple[str, ...]] = ("image_shape", "low", "high")
    linear: ClassVar[bool] = False
    span: ClassVar[float | None] = 10.0


class Guess(Restorer):
    """One call of the denoiser at noise of the process's end, and noise of ``spread`` around it."""

    def __init__(self, spec: GuessSpec, denoiser: object) -> None:
        self.spec, self.denoiser = spec, denoiser

    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        operator, y = measurement.operator, measurement.y
        z = torch.randn(len(y), *operator.image_shape, generator=generator)
        process = self.denoiser.process
        t = torch.as_tensor(process.t_max)
        x0 = self.denoiser(process.prior_std * z, t).x0
        x = x0 + self.spec.spread * z
        inverse = operator.pseudo_inverse(y)
        return torch.where(operator.pseudo_inverse(torch.ones_like(y)) > 0, inverse, x)


class GuessSpec(RestorerSpec):
    """See ``Guess``."""

    name: Literal["guess"] = "guess"
    implementation: ClassVar[str | type] = Guess
    spread: float = 0.0
