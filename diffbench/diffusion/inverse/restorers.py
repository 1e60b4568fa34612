"""What every restorer is: a measurement goes in, images that may have made it come out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffbench.diffusion.inverse.operators import Degradation


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


class Restorer:
    """Base of all restorers."""

    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) given the measurement; all noise comes from the generator, in order of use."""
        raise TypeError(f"{type(self).__name__} does not restore")
