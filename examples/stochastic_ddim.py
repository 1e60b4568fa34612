"""A new solver in one file: DDIM whose noise fades out, eta_t = eta sigma_t.

The spec says what a configuration may set; the class does the step.  ``examples/new_method.yaml`` uses it.
"""

from typing import ClassVar, Literal

from torch import Tensor

from diffbench.diffusion.core.transitions import Scales, ddim_scales
from diffbench.diffusion.solvers.transition import DDIM
from diffbench.specs.base import NonNegativeFloat
from diffbench.specs.solvers import TransitionSolverSpec


class FadingDDIM(DDIM):
    """DDIM with eta times the present noise level."""

    def scales(self, t: Tensor, s: Tensor) -> Scales:
        """Scales of the residual and of the noise."""
        level = float(self.process.sigma(t)) / self.process.unit
        return ddim_scales(self.process, t, s, self.spec.eta * level)


class FadingDDIMSpec(TransitionSolverSpec):
    """DDIM with eta times the present noise level, eta in [0, 1]."""

    name: Literal["fading-ddim"] = "fading-ddim"
    implementation: ClassVar[str | type] = FadingDDIM

    eta: NonNegativeFloat = 1.0
