"""The scale of a loss whose network computes in float16.

Gradients below 2^-24 are 0 in float16.  So the loss is multiplied by c before its gradient is taken, and the gradient
is divided by c, in float32, before it is used:

    g = grad(c L)/c

This changes only the rounding while c g stays below 65,504.  Larger numbers become infinite: the dynamic scale then
skips the step and halves c.  After 2,000 steps in a row with finite gradients it doubles c.

Source: Micikevicius et al., "Mixed Precision Training", 2018, https://arxiv.org/abs/1710.03740, section 3.2; the
constants are those of ``torch.amp.GradScaler``.  Where several processes share gradients, all see the sum, so all make
the same decision.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diffbench.specs.training import TrainingSpec


class LossScale:
    """A constant scale c, by default 1; no step is skipped."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def unscale(self, gradients: list[Tensor]) -> bool:
        """Divide gradients by c, in place; return whether a step may be taken."""
        if self.factor != 1:
            torch._foreach_div_(gradients, self.factor)
        return True

    @property
    def exhausted(self) -> bool:
        """Whether no other scale would help, so that a loss that is not finite is an error."""
        return True

    def state(self) -> dict[str, Tensor]:
        """The tensors that the next step depends on."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state."""


class DynamicLossScale(LossScale):
    """The dynamic scale: halved after an overflow, doubled after ``PATIENCE`` finite steps in a row."""

    FIRST, PATIENCE = 2.0**16, 2000
    #: The smallest normal number of float16; a smaller scale would lose the loss itself.
    LEAST = 2.0**-14

    def __init__(self) -> None:
        super().__init__(self.FIRST)
        self.good = 0

    def unscale(self, gradients: list[Tensor]) -> bool:
        """Divide gradients by c, in place; where one is not finite, halve c instead and return False."""
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
        """Whether the scale has been halved below ``LEAST``."""
        return self.factor < self.LEAST

    def state(self) -> dict[str, Tensor]:
        """The scale, and the number of finite steps since it last changed."""
        return {
            "factor": torch.tensor(self.factor, dtype=torch.float64),
            "good": torch.tensor(self.good),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.factor, self.good = float(state["factor"]), int(state["good"])


def all_finite(gradients: list[Tensor]) -> bool:
    """Whether all numbers of all gradients are finite; waits once for the device."""
    # x - x is NaN exactly where x is not finite; a maximum of absolute values keeps NaN.
    largest = torch.stack(torch._foreach_norm(gradients, torch.inf))
    return bool((largest - largest == 0).all())


def loss_scale(training: TrainingSpec) -> LossScale:
    """The loss scale of a budget: the constant 1 for every precision but fp16."""
    if training.precision != "fp16":
        return LossScale()
    return (
        DynamicLossScale() if training.loss_scale == "dynamic" else LossScale(training.loss_scale)
    )
