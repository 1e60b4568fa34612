"""What every restorer is: a measurement goes in, images that may have made it come out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffbench.diffusion.core.described import Described
from diffbench.diffusion.inverse.operators.operator import Degradation, Operator


@dataclass(frozen=True)
class Measurement:
    """y = H x + noise of images x in the range of the process.

    operator: H.
    y: (B, *measurement_shape).
    std: of the noise, in units of x.
    """

    operator: Degradation
    y: Tensor
    std: float

    def centred(self, middle: float) -> Measurement:
        """That of images less the middle of their range; itself where the operator is not linear."""
        if not isinstance(self.operator, Operator):
            return self
        return replace(self, y=self.operator.centred(self.y, middle))


class Restorer(Described):
    """Base of all restorers."""

    @abstractmethod
    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) given the measurement; all noise comes from the generator, in order of use."""
