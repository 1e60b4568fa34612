"""The base of restorers: from a measurement to images that may have produced it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffbench.diffusion.core.described import Described
from diffbench.diffusion.inverse.operators.operator import Degradation, Operator


@dataclass(frozen=True)
class Measurement:
    """A measurement y = H x + noise of images x in the range of the process.

    Attributes:
        operator: the operator H.
        y: (B, *measurement_shape).
        std: the standard deviation of the noise, in units of x.
    """

    operator: Degradation
    y: Tensor
    std: float

    def centred(self, middle: float) -> Measurement:
        """The measurement of the images minus ``middle``; the same measurement where the operator is not linear."""
        if not isinstance(self.operator, Operator):
            return self
        return replace(self, y=self.operator.centred(self.y, middle))


class Restorer(Described):
    """Base of all restorers."""

    @abstractmethod
    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) given the measurement; all noise comes from the generator, in order of use."""
