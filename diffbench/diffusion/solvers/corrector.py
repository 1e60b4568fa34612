r"""The Langevin corrector (Song et al. 2021, https://arxiv.org/abs/2011.13456, algorithms 4 and 5).

    x <- x + eps score(x, t) + sqrt(2 eps) z,     eps = 2 a w^2

    norms      w = r |z|/|score|,  norms averaged over the batch, as in the paper's text and its code
    annealed   w = r sigma_t,  the same where |score| = |z|/sigma_t              (Song & Ermon 2019,
                                                                https://arxiv.org/abs/1907.05600, algorithm 1)

where r is the signal-to-noise ratio and a the process's ``langevin_scale``.  One update changes the variance v of a
Gaussian marginal to v + eps^2/v.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.process import Process, cast
from diffbench.diffusion.denoisers.denoiser import Denoiser
from diffbench.specs.solvers import LangevinSpec

#: A function of (process, t, score, z) that returns w/r, a number or a tensor of t's shape.
Width = Callable[[Process, Tensor, Tensor, Tensor], Tensor]


def by_norms(process: Process, t: Tensor, score: Tensor, z: Tensor) -> Tensor:
    """The ratio |z|/|score|, each norm averaged over the batch."""
    lengths = [each.flatten(1).norm(dim=1).mean() for each in (z, score)]
    found: Tensor = lengths[0] / lengths[1]
    return found


def annealed(process: Process, t: Tensor, score: Tensor, z: Tensor) -> Tensor:
    """The standard deviation sigma_t of the noise."""
    return cast(process.sigma(t), score)


RULES: dict[str, Width] = {"norms": by_norms, "annealed": annealed}

#: Fresh standard normal noise shaped like its argument.
Noise = Callable[[Tensor], Tensor]
#: What is done to a state (B, C, H, W) at a time after every update.
Impose = Callable[[Tensor, Tensor, Noise], Tensor]


def unchanged(x: Tensor, t: Tensor, noise: Noise) -> Tensor:
    """The state x itself: nothing is imposed."""
    return x


class Langevin:
    """The corrector: Langevin updates of a state at one time."""

    def __init__(self, spec: LangevinSpec, denoiser: Denoiser) -> None:
        self.spec, self.denoiser, self.process = spec, denoiser, denoiser.process
        longest = spec.longest
        #: The upper limit of eps.
        self.longest = (
            self.process.longest_langevin if longest is None else self.process.unit**2 * longest
        )
        #: Whether the updates come before the solver's step.
        self.first = spec.order == "corrector-first"

    def step_size(self, t: Tensor, score: Tensor, z: Tensor) -> Tensor | float:
        """The step size eps: of t's shape, or the spec's fixed number."""
        if self.spec.snr is None:
            assert self.spec.step_size is not None
            return self.process.unit**2 * self.spec.step_size
        scale = cast(self.process.langevin_scale(t, self.spec.levels), score)
        width = RULES[self.spec.rule](self.process, t, score, z)
        step = 2 * scale * (self.spec.snr * width) ** 2
        return step.clamp(max=self.longest)

    def update(
        self, x: Tensor, t: Tensor, condition: Condition, noise: Noise, quiet: bool = False
    ) -> Tensor:
        """The state after one update; with ``quiet`` its noise sets the step size but is not added."""
        score, z = self.denoiser(x, t, condition).score, noise(x)
        step = self.step_size(t, score, z)
        mean = x + step * score
        return self.process.constrain(mean if quiet else mean + (2 * step) ** 0.5 * z)

    def correct(
        self,
        x: Tensor,
        t: Tensor,
        condition: Condition,
        noise: Noise,
        quiet: bool = False,
        impose: Impose = unchanged,
    ) -> Tensor:
        """The state after all updates at time t, ``impose`` after each; ``quiet`` omits the last update's noise."""
        for i in range(1, self.spec.updates + 1):
            x = self.update(x, t, condition, noise, quiet and i == self.spec.updates)
            x = impose(x, t, noise)
        return x
