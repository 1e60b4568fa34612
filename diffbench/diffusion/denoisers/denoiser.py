"""What every denoiser is: noisy images, a time and a condition go in, a prediction comes out; and wrappers."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.described import Described
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process


class Denoiser(Described):
    """Base of all denoisers.

    ``classes`` is the number of labels it knows, 0 .. classes - 1; ``classes`` itself is the null class.
    ``takes_masks`` says whether it can be told pixels of the images.
    """

    process: Process
    classes: int = 0
    takes_masks: bool = False

    def __init__(self, process: Process) -> None:
        self.process = process

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
        """Predict at images x_t (B, C, H, W) and times t (shape () or (B, 1, 1, 1)).

        Raises:
            TypeError: when it is told pixels and takes no masks.
        """
        if condition.known is not None and not self.takes_masks:
            raise TypeError(f"this {type(self).__name__} takes no masks")
        return self.predict(x_t, t, condition)

    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The prediction itself."""


class Wrapper(Denoiser):
    """Base of what changes another denoiser's predictions, or watches it; it is told what the other can be told."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.classes, self.takes_masks = denoiser.classes, denoiser.takes_masks


class Counted(Wrapper):
    """Counts the calls of another denoiser: the number of function evaluations (NFE)."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser)
        self.calls = 0

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The other's prediction."""
        self.calls += 1
        return self.denoiser(x_t, t, condition)
