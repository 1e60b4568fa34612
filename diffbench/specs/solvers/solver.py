"""Specs of solvers of any kind: how an image is drawn, with or without a grid."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny

from diffbench.specs.base import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    Only,
    PositiveFloat,
    Registered,
    StepCount,
    nothing,
)
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.needs import LABELS, HasNeeds, Needs, Rule, inside, view
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.solvers.corrector import LangevinSpec, a_corrector
from diffbench.specs.solvers.grids import GRID, Grid
from diffbench.specs.weights import OfWeights

Threshold = Literal["none", "static", "dynamic"]


def _knows_classes(spec: SolverSpec, denoiser: DenoiserSpec) -> str | None:
    """A choice of classes needs a conditional model or a classifier."""
    if not spec.labels or denoiser.takes_labels or spec.classifier_scale is not None:
        return None
    return f"labels: {list(spec.labels)} need a conditional model or a classifier, and this model is unconditional"


class SolverSpec(OfWeights, HasNeeds, Registered):
    """A solver: how an image is drawn.

    threshold: what is done to every predicted x0 before a step is formed.  ``static`` clips it to the
        data range; ``dynamic`` first divides it by its ``percentile`` of absolute values, where that is
        outside the range (Saharia et al. 2022, section 2.3).
    w: weight of classifier-free guidance, (1 + w) conditional - w unconditional (Ho & Salimans 2022,
        equation 6; 1 + w elsewhere).  It costs a second evaluation; 0 is the conditional model alone.
    classifier_scale: s in classifier guidance (Dhariwal & Nichol 2021, algorithms 1 and 2), by the
        benchmark's noise-aware classifier; 0 is no guidance.
    labels: the classes to draw, in turn; by default classes in the proportions of the training images.
    """

    kind: ClassVar[str] = "solver"
    belonging: ClassVar[tuple[Only, ...]] = (Only("percentile", "threshold", ("dynamic",)),)
    needs: ClassVar[Needs] = (
        view("x0").where("threshold", "static", "dynamic"),
        LABELS.where("w"),
        Rule(_knows_classes, ("denoiser",)),
    )

    name: str
    threshold: Threshold = "none"
    percentile: Annotated[Fraction, Field(gt=0)] = 0.995
    w: Annotated[NonNegativeFloat | None, BeforeValidator(nothing)] = None
    classifier_scale: Annotated[NonNegativeFloat | None, BeforeValidator(nothing)] = None
    labels: Annotated[
        Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None, BeforeValidator(nothing)
    ] = None

    @property
    def uses_labels(self) -> bool:
        """Whether guidance or a choice of classes needs labels."""
        return any(each is not None for each in (self.w, self.classifier_scale, self.labels))

    @property
    def levels(self) -> dict[str, float]:
        """Key -> noise level sigma/alpha, for data in [-1, 1], for each level that is given."""
        return {}

    def note(self, process: ProcessSpec) -> str | None:
        """The given noise levels in the process's units too, as in older files; None where the units are the same."""
        if process.half_range == 1 or not self.levels:
            return None
        told = ", ".join(
            f"{key} {level:g} is {process.in_range(level):g}" for key, level in self.levels.items()
        )
        return f"{told} for data in {process.range}: keys are for data in [-1, 1] (older files: {process.range})"

    @property
    def invertible(self) -> bool:
        """Whether the steps can be taken towards more noise, from an image to its latent."""
        return False

    @property
    def accuracy(self) -> int:
        """The order of convergence: half the step divides the error by 2^accuracy.  0 where no step is for that."""
        return 1

    @property
    def full_precision(self) -> bool:
        """Whether the network must be evaluated in float32: a step size control takes rounding for error."""
        return False

    @property
    def raises_noise(self) -> bool:
        """Whether a step first adds noise and then goes down from there, also the step into the data (EDM's churn)."""
        return False

    @property
    def adaptive(self) -> bool:
        """Whether the number of evaluations depends on the images."""
        return False


AnySolver = Annotated[SerializeAsAny[SolverSpec], BeforeValidator(SolverSpec.choose)]


def _of_the_last_step(solver: SolverSpec) -> SolverSpec:
    if solver.names_weights:
        raise ValueError("at and ema_std belong to a variant's own solvers; leave them out here")
    return solver


#: A solver inside a restorer or an analysis, with the weights of the last step.
InnerSolver = Annotated[AnySolver, AfterValidator(_of_the_last_step)]


class GridSolverSpec(SolverSpec):
    """A solver on a grid of ``steps`` steps, with or without a corrector.

    grid: ``uniform`` (evenly spaced times), ``quadratic`` (in the square root: DDIM on CIFAR-10, by its text),
        ``karras`` (in (sigma/alpha)^(1/``rho``)), ``log-snr`` (in ln(sigma/alpha)).  On a chain times are rounded to
        levels, ``strided`` is a constant stride from the first, and ``quadratic-0.8`` the grid of DDIM's code on
        CIFAR-10: squares that end at 0.8 of the chain's length.
    corrector: Langevin steps at each level, before or after the solver's own step.
    """

    needs: ClassVar[Needs] = (*GRID, inside("corrector", "process"))
    belonging: ClassVar[tuple[Only, ...]] = (Only("rho", "grid", ("karras",)),)

    steps: StepCount
    grid: Grid = "uniform"
    rho: PositiveFloat = 7.0
    corrector: Annotated[LangevinSpec | None, BeforeValidator(a_corrector)] = None
