r"""The loop that every solver shares.

x = sigma_{t_0} z;   for consecutive times (t, s) of the grid:  x <- step(x, t, s)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from diffbench.diffusion.denoisers import Denoiser, thresholded
from diffbench.diffusion.guidance import Classifier, guided
from diffbench.diffusion.processes.gaussian import GaussianProcess, cast
from diffbench.diffusion.streams import normal_like
from diffbench.specs.solver import SolverSpec

#: Fresh standard normal noise shaped like its argument.
Noise = Callable[[Tensor], Tensor]


class Solver:
    """Base of all solvers: a grid, a start and one step.

    ``denoiser`` has the guidance and the threshold of the spec around it; ``classifier`` is the guide where
    the spec has a ``classifier_scale``.
    """

    def __init__(
        self, spec: SolverSpec, denoiser: Denoiser, classifier: Classifier | None = None
    ) -> None:
        self.spec = spec
        self.process: GaussianProcess = denoiser.process
        threshold = partial(thresholded, kind=spec.threshold, percentile=spec.percentile)
        self.denoiser = guided(denoiser, spec.w, threshold, classifier, spec.classifier_scale)

    def times(self) -> Tensor:
        """The grid: decreasing float64 times (n + 1,)."""
        raise TypeError(f"{type(self).__name__} has no grid")

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
        """X at the earlier time s from x_t (B, C, H, W); t and s of shape ()."""
        raise TypeError(f"{type(self).__name__} has no step")

    def start(self, z: Tensor) -> Tensor:
        """X at the grid's first time from standard normal z (B, C, H, W): sigma z."""
        return cast(self.process.sigma(self.times()[0]), z) * z


def solve(solver: Solver, x: Tensor, y: Tensor | None, noise: Noise) -> Tensor:
    """Take x (B, C, H, W) down the solver's grid."""
    for t, s in pairwise(solver.times()):
        x = solver.step(x, t, s, y, noise)
    return x


@torch.no_grad()
def sample(
    solver: Solver,
    shape: tuple[int, ...],
    generator: torch.Generator,
    y: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw images of that shape (B, C, H, W); all noise comes from the generator, in order of use."""
    like = torch.empty(shape, dtype=dtype, device=device)
    return solve(
        solver, solver.start(normal_like(like, generator)), y, lambda x: normal_like(x, generator)
    )
