"""The scale of a loss whose network computes in float16.

Gradients below 2^-24 are 0 in float16.  The loss is multiplied by c before its gradient is taken, the gradient divided
by c before anything sees it, in float32:

    g = grad(c L)/c

which changes nothing but the rounding while c g stays below 65,504.  What is beyond becomes infinite: the dynamic scale
then leaves the step out and halves c, and doubles c after 2,000 steps in a row whose gradients were finite.

Source: Micikevicius et al., "Mixed Precision Training", 2018, https://arxiv.org/abs/1710.03740, section 3.2; the
constants are those of `torch.amp.GradScaler`.  Where gradients are shared by several processes all see the sum, and all
decide alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diffbench.specs.training import TrainingSpec


class LossScale:
    """A constant c, by default 1: no step is left out."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def unscale(self, gradients: list[Tensor]) -> bool:
        """Divide gradients by c, in place; says whether a step may be taken."""
        if self.factor != 1:
            torch._foreach_div_(gradients, self.factor)
        return True

    @property
    def exhausted(self) -> bool:
        """Whether no scale would help any more: then a loss that is not finite is an error."""
        return True

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take it up."""


class DynamicLossScale(LossScale):
    """The scale that learns from overflows."""

    FIRST, PATIENCE = 2.0**16, 2000
    #: The smallest normal number of float16: with a scale below it the loss itself is lost.
    LEAST = 2.0**-14

    def __init__(self) -> None:
        super().__init__(self.FIRST)
        self.good = 0

    def unscale(self, gradients: list[Tensor]) -> bool:
        """As `LossScale`; where a gradient is not finite the step is left out, and the scale halved."""
        finite = all_finite(gradients)
        if not finite:
            self.factor, self.good = self.factor / 2, 0
            return False
        super().unscale(gradients)
        self.good += 1
        if self.good == self.PATIENCE:
            self.factor, self.good = self.factor * 2, 0
        return True

    @property
    def exhausted(self) -> bool:
        """Whether the scale has been halved past use."""
        return self.factor < self.LEAST

    def state(self) -> dict[str, Tensor]:
        """The scale, and how many steps have been finite since it last changed."""
        return {
            "factor": torch.tensor(self.factor, dtype=torch.float64),
            "good": torch.tensor(self.good),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take it up."""
        self.factor, self.good = float(state["factor"]), int(state["good"])


def all_finite(gradients: list[Tensor]) -> bool:
    """Whether no number of any is NaN or infinite; waits once for the device."""
    # x - x is NaN exactly where x is not finite; the largest of absolute values keeps NaN.
    largest = torch.stack(torch._foreach_norm(gradients, torch.inf))
    return bool((largest - largest == 0).all())


def loss_scale(training: TrainingSpec) -> LossScale:
    """The scale of a budget: of fp16 alone there is one."""
    if training.precision != "fp16":
        return LossScale()
    return (
        DynamicLossScale() if training.loss_scale == "dynamic" else LossScale(training.loss_scale)
    )
