"""The base of denoisers, which make a prediction from noisy images, a time and a condition; and wrappers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor

from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.described import Described
from diffbench.diffusion.core.predictions import Prediction
from diffbench.diffusion.core.process import Process, times_of
from diffbench.diffusion.core.returned import check_like, described


class Denoiser(Described):
    """Base of all denoisers.

    ``classes`` is the number of labels it knows, 0 .. classes - 1; the number ``classes`` itself is the null class.
    ``takes_masks`` says whether it can be told known pixels.
    """

    process: Process
    classes: int = 0
    takes_masks: bool = False

    def __init__(self, process: Process) -> None:
        self.process = process

    def __call__(
        self,
        x_t: Tensor,
        t: Tensor | float | Sequence[float],
        condition: Condition = UNCONDITIONAL,
    ) -> Prediction:
        """The prediction at images x_t (B, C, H, W) and times t: a number, or one for each image.

        Solvers give t as float64 of shape () or (B, 1, 1, 1).

        Raises:
            TypeError: when known pixels are given to a denoiser that takes no masks.
            ValueError: when ``predict`` returns no prediction, or one that has not x_t's shape, type and device; for
                times of another shape or outside of the process's range.
        """
        t = times_of(self.process, t, x_t)
        if condition.known is not None and not self.takes_masks:
            raise TypeError(f"this {type(self).__name__} takes no masks")
        found = self.predict(x_t, t, condition)
        what = f"{type(self).__name__}.predict"
        if not isinstance(found, Prediction):
            raise ValueError(f"{what} returned {described(found)}; expected: a Prediction")
        check_like(found.value, x_t, what)
        return found

    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The prediction at x_t and t; ``__call__`` has checked the condition."""


class Wrapper(Denoiser):
    """Base of denoisers around another, which change or count its predictions; they take the same conditions."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.classes, self.takes_masks = denoiser.classes, denoiser.takes_masks


def ignored() -> None:
    """Do nothing."""


class Counted(Wrapper):
    """A wrapper that counts the calls of another denoiser: the number of function evaluations (NFE).

    ``seen`` is called before each of them.
    """

    def __init__(self, denoiser: Denoiser, seen: Callable[[], None] = ignored) -> None:
        super().__init__(denoiser)
        self.calls, self.seen = 0, seen

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        self.calls += 1
        self.seen()
        return self.denoiser(x_t, t, condition)
