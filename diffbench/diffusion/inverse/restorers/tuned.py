r"""A restorer by a model trained for inpainting: the model is given the measured pixels, and a solver draws samples.

    M = H^+ 1,     known image = H^+ y,     x ~ the solver, with a denoiser of E[x_0 | x_t, M, H^+ y]

H is a mask of pixels, so that H^+ = H^T.  Nothing steers the solver: the model was trained with random masks
(``known``), as in "Palette: Image-to-Image Diffusion Models" (Saharia et al. 2022,
https://arxiv.org/abs/2111.05826) and GLIDE's inpainting (Nichol et al. 2022, https://arxiv.org/abs/2112.10741).  It
shows the gain of training for the task over restorers that work with any model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.known import Known
from diffbench.diffusion.inverse.operators.operator import Degradation
from diffbench.diffusion.inverse.restorers.restorer import Measurement, Restorer
from diffbench.diffusion.solvers.loop import Solver, sample
from diffbench.specs.restorers import InpaintTunedSpec


class InpaintTuned(Restorer):
    """The restorer by a solver whose denoiser takes masks and is given the measured pixels."""

    def __init__(self, spec: InpaintTunedSpec, solver: Solver) -> None:
        self.spec, self.solver = spec, solver

    def restore(self, measurement: Measurement, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) given y (B, *measurement_shape), in the range of the process.

        If the measurement has no noise, the measured pixels of the images are exactly those of y.  If it has noise,
        the model is given the noisy pixels, though it was trained with clean ones.

        Raises:
            ValueError: when the operator is not a mask of pixels, or a step's result is not finite.
            TypeError: when the denoiser takes no masks.
        """
        y = measurement.y
        known = self.known(measurement.operator, y)
        told, shape = Condition(known=known), known.image.shape
        x = sample(self.solver, shape, generator, told, device=y.device, dtype=y.dtype)
        return torch.where(known.mask > 0, known.image, x) if measurement.std == 0 else x

    def known(self, operator: Degradation, y: Tensor) -> Known:
        """The mask of the measured pixels, and the image of their values H^+ y.

        Raises:
            ValueError: when the operator is not a mask of pixels.
        """
        if reason := self.spec.refusal(operator=operator.spec):
            raise ValueError(reason)
        # All channels have the same mask.
        mask = operator.pseudo_inverse(torch.ones_like(y))[:, :1].round()
        return Known(mask, operator.pseudo_inverse(y))
