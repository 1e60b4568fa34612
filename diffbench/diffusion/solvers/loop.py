r"""The loop that every solver shares.

x = start(z);   for consecutive times (t, s) of the grid:  x <- move(x, t, s)

A move is the solver's step and the corrector's updates: at t before the step, or at s after it, as the corrector's
``order`` says.  A restorer may change the state after every step and every update (``impose``).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from diffbench.diffusion.core.condition import UNCONDITIONAL, Condition
from diffbench.diffusion.core.described import Described
from diffbench.diffusion.core.process import Process
from diffbench.diffusion.core.returned import check_like
from diffbench.diffusion.core.streams import normal_like
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.diffusion.denoisers.guidance import Classifier, guided
from diffbench.diffusion.denoisers.thresholds import thresholded
from diffbench.diffusion.solvers.corrector import Impose, Langevin, Noise, unchanged
from diffbench.specs.solvers import SolverSpec

#: A function that is shown a time, shape (), and the state there (B, C, H, W); it must not change the state.
Watch = Callable[[Tensor, Tensor], object]


def unwatched(t: Tensor, x: Tensor) -> None:
    """Look at no state."""


class Solver(Described):
    """Base of all solvers: a grid, a start and one step.

    The attribute ``denoiser`` is the given one with the spec's guidance and threshold.  ``classifier`` guides it
    where the spec has a ``classifier_scale``.
    """

    #: Whether the last update adds no noise.
    quiet_end: bool = False
    #: The fraction of pixels of the last sample that had to be brought back into the process's support.
    moved: float = 0.0

    def __init__(
        self, spec: SolverSpec, denoiser: Denoiser, classifier: Classifier | None = None
    ) -> None:
        self.spec = spec
        self.process: Process = denoiser.process
        threshold = partial(thresholded, kind=spec.threshold, percentile=spec.percentile)
        self.denoiser = guided(denoiser, spec.w, threshold, classifier, spec.classifier_scale)
        corrector = getattr(spec, "corrector", None)
        self.corrector = None if corrector is None else Langevin(corrector, self.denoiser)

    @abstractmethod
    def times(self) -> Tensor:
        """The grid: decreasing float64 times (n + 1,)."""

    @abstractmethod
    def step(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Condition, noise: Noise) -> Tensor:
        """The state x at the earlier time s, from x_t (B, C, H, W); t and s have shape ()."""

    def start(self, z: Tensor) -> Tensor:
        """The state at the grid's first time, from standard normal z (B, C, H, W): the prior's mean plus sigma z."""
        return self.process.start(self.times()[0], z)

    def draw(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """The start from standard normal z; some solvers also draw other random numbers from the generator."""
        return self.start(z)

    def returned(self, x: Tensor) -> Tensor:
        """The final state x, brought back into the process's support; sets ``moved``."""
        self.moved = float(self.process.outside(x).double().mean())
        return self.process.constrain(x)

    def begin(self) -> None:
        """Forget the steps of an earlier path, in solvers that remember any."""

    def move(
        self,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        condition: Condition,
        noise: Noise,
        quiet: bool = False,
        impose: Impose = unchanged,
    ) -> Tensor:
        """The state at s after the solver's step and the corrector's updates, with ``impose`` after each of them.

        ``quiet`` omits the very last noise, but not the noise that ``impose`` draws.
        """
        after = self.corrector
        if after is not None and after.first:
            x_t = after.correct(x_t, t, condition, noise, impose=impose)
            after = None
        drawn = torch.zeros_like if quiet and after is None else noise
        stepped = self.step(x_t, t, s, condition, drawn)
        check_like(stepped, x_t, f"{type(self).__name__}.step")
        x_s = impose(stepped, s, noise)
        if after is None or float(s) == self.process.data_time:
            return x_s
        return after.correct(x_s, s, condition, noise, quiet, impose)


class Checked:
    """Refuses a step whose result is not finite, some steps later: the CPU then does not wait for a GPU at every step.

    A sum is finite only if all its numbers are.  A number that is not finite stays so in the steps that follow, but for
    the last ones, which may forget the state: of these each result has its sum, and before them every fourth.
    """

    #: Of how many steps' results one has its sum, and how many sums are looked at together.
    STRIDE, TOGETHER = 4, 8

    def __init__(self, steps: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.steps = steps
        #: How many results were noted, and how many of them are known to be finite.
        self.noted, self.finite = 0, 0
        self.sums: list[tuple[int, Tensor]] = []
        self.last: Tensor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Look at the last steps, also where a later step fails: it may not stand the state that it was given."""
        if kind is None or issubclass(kind, Exception):
            if self.last is not None:
                self.sums.append((self.noted, self.last.sum()))
            self.refuse()

    def add(self, x: Tensor) -> None:
        """Note the result x of the next step.

        Raises:
            ValueError: as ``refuse``.
        """
        self.noted += 1
        self.last = x
        if self.noted % self.STRIDE == 0 or self.noted > len(self.steps) - self.STRIDE:
            self.sums.append((self.noted, x.sum()))
            self.last = None
            if len(self.sums) == self.TOGETHER:
                self.refuse()

    def refuse(self) -> None:
        """Look at the sums so far.

        Raises:
            ValueError: when a result was not finite, with the steps of which it is one.
        """
        totals = torch.stack([total for _, total in self.sums]).tolist() if self.sums else []
        for (noted, _), total in zip(self.sums, totals, strict=True):
            if not math.isfinite(total):
                (t, _), (_, s) = self.steps[self.finite], self.steps[noted - 1]
                first = self.finite + 1
                step = f"step {noted}" if first == noted else f"steps {first} to {noted}"
                span = f"of {len(self.steps)}, from time {float(t):.6g} to {float(s):.6g}"
                raise ValueError(f"{step} {span}: the state is not finite")
            self.finite = noted
        self.sums.clear()


def solve(
    solver: Solver,
    x: Tensor,
    condition: Condition,
    noise: Noise,
    times: Tensor | None = None,
    impose: Impose = unchanged,
    watch: Watch = unwatched,
) -> Tensor:
    """The state at the last time, from x (B, C, H, W) at the first, by the solver's steps.

    Args:
        solver: the solver.
        x: the state at the first time.
        condition: what the denoiser is given besides x_t and t.
        noise: draws the noise of each update.
        times: decreasing times, a part of the solver's grid; by default the whole grid.
        impose: a change of the state after every update of the solver and of the corrector.
        watch: is shown the state before every step.

    Raises:
        ValueError: when a step's result is not finite, with the step, or with the four of which it is one.
    """
    solver.begin()
    pairs = list(pairwise(solver.process.walk(solver.times() if times is None else times)))
    with Checked(pairs) as checked:
        for i, (t, s) in enumerate(pairs, start=1):
            watch(t, x)
            quiet = solver.quiet_end and i == len(pairs)
            x = solver.move(x, t, s, condition, noise, quiet, impose)
            checked.add(x)
    return x


@torch.no_grad()
def sample(
    solver: Solver,
    shape: tuple[int, ...],
    generator: torch.Generator,
    condition: Condition = UNCONDITIONAL,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    watch: Watch = unwatched,
    first: int | None = None,
) -> Tensor:
    """Images drawn by the solver, of the given shape (B, C, H, W); all noise comes from the generator, in order of use.

    ``watch`` is shown the state before every step, and then the images.  With ``first``, only that many images are
    drawn, with the noise that they have among all B; the condition is theirs.  They are the same, up to rounding, where
    no step looks at several images.

    Raises:
        ValueError: as ``solve``, when a step's result is not finite; when a start, a step or the images have another
            shape, type or device.
    """
    like = torch.empty(shape, dtype=dtype, device=device)
    start = solver.draw(normal_like(like, generator), generator)
    check_like(start, like, f"{type(solver).__name__}.draw")

    def noise(x: Tensor) -> Tensor:
        if first is None:
            return normal_like(x, generator)
        return normal_like(x.new_empty((len(like), *x.shape[1:])), generator)[:first]

    x = solve(solver, start[:first], condition, noise, watch=watch)
    images = solver.returned(x)
    check_like(images, like[:first], f"{type(solver).__name__}.returned")
    watch(solver.times()[-1], images)
    return images
