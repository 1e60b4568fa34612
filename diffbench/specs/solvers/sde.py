"""Specs of the solvers in a process's own time, and of those of the reverse SDE."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from diffbench.specs.base import Fraction, PositiveFloat, nothing
from diffbench.specs.needs import CONTINUOUS, GAUSSIAN, WALLS, Needs, Rule, sde, view
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.solvers.corrector import LangevinOnlySpec, a_corrector_alone
from diffbench.specs.solvers.grids import LAST, first_step
from diffbench.specs.solvers.solver import GridSolverSpec, SolverSpec

#: What a solver in continuous time needs.
SDE = sde("ancestral, ddim, heun or dpm-solver++", "inverse-heat")


class OwnTimeSolverSpec(SolverSpec):
    """A solver of the SDE or the ODE in the process's own continuous time, from the prior at t_max.

    last: the last time with noise; the process's own by default (1e-3 for VP and sub-VP, 1e-5 for VE,
        sigma_min for EDM).
    denoise: how the noise that is left at ``last`` is removed.  ``tweedie``: by a step to the data, the posterior
        mean E[x0 | x_t].  ``noiseless``: the last update adds no noise, as in the official code of Song et al. 2021
        (``langevin`` has no predictor, and no such noise).  ``none``: it is not removed.  ``usual``: ``tweedie``, or
        ``noiseless`` on processes that are not Gaussian, for which Tweedie's formula does not hold.
    """

    #: Whether the solver can step down the levels of a chain too.
    chained: ClassVar[bool] = False
    needs: ClassVar[Needs] = (
        *(need.where("chained", False) for need in SDE),
        view("score"),
        *LAST,
        CONTINUOUS.where("denoise", "noiseless", "none").hinting(
            "a chain's last step goes to the data"
        ),
        GAUSSIAN.where("denoise", "tweedie"),
    )

    last: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    denoise: Literal["usual", "tweedie", "noiseless", "none"] = "usual"

    def ending(self, process: ProcessSpec) -> Literal["tweedie", "noiseless", "none"]:
        """Return what ``denoise`` means on a process."""
        if self.denoise != "usual":
            return self.denoise
        return "tweedie" if process.family == "gaussian" else "noiseless"


class OwnTimeGridSolverSpec(OwnTimeSolverSpec, GridSolverSpec):
    """A solver in the process's own time on a grid of ``steps`` steps; a step to the data is the last of them."""

    def noisy_count(self, process: ProcessSpec) -> int:
        """Return how many times of the grid have noise: ``steps``, or one more where no step leads to the data."""
        return self.steps + (self.ending(process) != "tweedie")


class ReverseSDESpec(OwnTimeGridSolverSpec):
    """A solver of the reverse SDE, or of another SDE with the same marginals.

    noise: gbar/g in dx = [f x - (g^2 + gbar^2)/2 score] dt + gbar dw: 1 is the reverse SDE, 0 the
        probability-flow ODE (Song et al. 2021, appendix D.1; Karras et al. 2022, equation 6).
    walls: what is done with a state outside a reflected process's cube: ``reflect``, or ``project`` to the nearest
        point of the cube, which is what thresholding does to an SDE (Lou & Ermon 2023, section 5).
    """

    needs: ClassVar[Needs] = (WALLS.where("walls", "project"),)

    noise: Fraction = 1.0
    walls: Literal["reflect", "project"] = "reflect"


class EulerMaruyamaSpec(ReverseSDESpec):
    """Euler-Maruyama on the reverse SDE (Song et al. 2021, section 4.1)."""

    name: Literal["euler-maruyama"] = "euler-maruyama"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.sde:EulerMaruyama"


def _steps_are_short(spec: ReverseDiffusionSpec, process: ProcessSpec) -> str | None:
    """In a chain's step, sqrt(1 - beta) with beta = beta(t) (t - s), 1 - beta must be above 0."""
    last, beta = process.last if spec.last is None else spec.last, process.chain_rate
    step = first_step(spec.grid, spec.noisy_count(process), process.t_max, last)
    if step is None or beta * step < 1:
        return None
    return (
        f"steps: {spec.steps}: a step of {step:.3g} is too long: 1 - {step:.3g} beta must be above 0, and "
        f"{process.name} has beta up to {beta:g}; take more steps"
    )


class ReverseDiffusionSpec(ReverseSDESpec):
    """The reverse-diffusion sampler (Song et al. 2021, appendix E): the forward chain's step, reversed.

    On VP the forward step is DDPM's, with beta(t) (t - s) for beta.  On VE, EDM and a discrete chain it is the exact
    transition.  On other processes it is Euler's, and this solver is Euler-Maruyama.  ``noise: 0`` is the paper's
    probability-flow sampler.
    """

    name: Literal["reverse-diffusion"] = "reverse-diffusion"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.sde:ReverseDiffusion"
    chained: ClassVar[bool] = True
    needs: ClassVar[Needs] = (Rule(_steps_are_short),)


class CorrectorOnlySpec(OwnTimeGridSolverSpec):
    """Langevin dynamics at each noise level in turn, without a predictor (Song et al. 2021, table 1, C2000).

    On a chain the noise levels are the chain's.
    """

    name: Literal["langevin"] = "langevin"
    implementation: ClassVar[str] = "diffbench.diffusion.solvers.sde:CorrectorOnly"
    chained: ClassVar[bool] = True

    corrector: Annotated[LangevinOnlySpec, BeforeValidator(a_corrector_alone)] = LangevinOnlySpec(
        snr=0.22
    )

    @property
    def accuracy(self) -> int:
        """0: there is no predictor."""
        return 0
