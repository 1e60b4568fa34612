"""Specs of the analyses: measurements on a variant that are neither samples nor a likelihood."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from diffbench.specs.base import (
    Int,
    LevelCount,
    PositiveFloat,
    PositiveInt,
    Registered,
    StepCount,
    nothing,
)
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.likelihoods import VLBSpec
from diffbench.specs.needs import LEARNED, LEVELS, HasNeeds, Needs, Rule, under
from diffbench.specs.processes import ProcessSpec, Variance
from diffbench.specs.solvers import GridSolverSpec, InnerSolver
from diffbench.specs.training import TrainingSpec

#: At least 2: a single step goes to the data, and there is no step back from it to a latent.


class AnalysisSpec(HasNeeds, Registered):
    """A measurement whose result is one JSON file, with or without a picture beside it."""

    kind: ClassVar[str] = "analysis"
    #: Whether the analysis uses the variant's trained model.
    uses_model: ClassVar[bool] = False
    #: Whether the analysis uses the variant's data, process, network and budget, not its own.
    uses_variant: ClassVar[bool] = True

    name: str

    @property
    def trains(self) -> bool:
        """Whether the analysis trains the variant's network itself."""
        return False

    @property
    def full_precision(self) -> bool:
        """Whether the network must be evaluated in float32."""
        return False


class GradientNoiseSpec(AnalysisSpec):
    """The variance of the gradients of L_vlb and L_hybrid along a training with L_simple.

    The variant's network is trained with L_simple.  At each of ``checkpoints`` evenly spaced steps, the total
    variance of three gradients is estimated from ``draws`` minibatches of the training batch's size: of L_vlb
    with uniform times, of L_vlb with importance-sampled times, and of L_hybrid (Nichol & Dhariwal 2021,
    section 3.3 and figure 3).
    """

    name: Literal["gradient-noise"] = "gradient-noise"
    implementation: ClassVar[str] = "diffbench.analyses.gradient_noise:GradientNoise"
    needs: ClassVar[Needs] = (LEVELS, LEARNED)

    checkpoints: PositiveInt = 10
    draws: Annotated[Int, Field(ge=2)] = 64

    @property
    def trains(self) -> bool:
        return True


def _every_number_of_steps_serves(
    spec: LatentsSpec, process: ProcessSpec, denoiser: DenoiserSpec | None
) -> str | None:
    """The solver must serve with every number of steps; ``steps`` is a key of the analysis, not of the solver."""
    for steps in spec.steps:
        if reason := spec.with_steps(steps).refusal(process, denoiser):
            return reason if reason.startswith("steps:") else under("solver", spec.solver, reason)
    return None


def _solver_guides_nothing(spec: LatentsSpec) -> str | None:
    if not spec.solver.uses_labels:
        return None
    return "solver: a latent has no guidance; leave w, classifier_scale and labels out"


class LatentsSpec(AnalysisSpec):
    """The error of test images that are encoded and decoded, and images decoded between two latents.

    The first ``images`` of the test split are encoded and decoded by a deterministic ``solver``, with each number
    in ``steps``.  The error is the squared error a pixel, for data in [0, 1] (Song, Meng & Ermon 2021, table 2).
    The picture has ``pairs`` rows, made with the last number of steps: two test images at the ends, and ``between``
    images that are decoded from latents interpolated spherically from the one's latent to the other's.
    """

    name: Literal["latents"] = "latents"
    implementation: ClassVar[str] = "diffbench.analyses.latents:Latents"
    needs: ClassVar[Needs] = (
        Rule(_every_number_of_steps_serves, ("process", "denoiser")),
        Rule(_solver_guides_nothing, ()),
    )
    uses_model: ClassVar[bool] = True

    solver: InnerSolver
    steps: Annotated[tuple[LevelCount, ...], Field(min_length=1)] = (10, 20, 50, 100, 200)
    images: PositiveInt = 200
    pairs: PositiveInt = 8
    between: PositiveInt = 9

    @property
    def full_precision(self) -> bool:
        """True: rounding would add to the error of the decoded images."""
        return True

    @model_validator(mode="after")
    def _solver_has_a_way_back(self) -> Self:
        if not (isinstance(self.solver, GridSolverSpec) and self.solver.invertible):
            raise ValueError(
                f"solver: {self.solver.name} cannot encode in a number of steps; use ddim with eta 0, ode or heun"
            )
        return self

    def with_steps(self, steps: int) -> GridSolverSpec:
        """Return the solver with another number of steps."""
        assert isinstance(self.solver, GridSolverSpec)
        return self.solver.model_copy(update={"steps": steps})


def _levels_are_there(spec: ProgressiveCodingSpec, process: ProcessSpec) -> str | None:
    levels = process.level_count
    if levels is None or spec.steps <= levels:
        return None
    return f"steps: {spec.steps}, but {process.name} has only {levels} levels"


def _bound_serves(
    spec: ProgressiveCodingSpec, process: ProcessSpec, denoiser: DenoiserSpec | None
) -> str | None:
    return spec.bound.refusal(process, denoiser)


class ProgressiveCodingSpec(AnalysisSpec):
    """The rate and the distortion of images that a chain sends by its first ``steps`` levels (Ho et al. 2020, table 4).

    They are measured on the first ``images`` of the test split.  The rate, in bits/dim, is that of the bound with
    ``variance``; the distortion is the error of the image that is predicted from these levels.
    """

    name: Literal["progressive-coding"] = "progressive-coding"
    implementation: ClassVar[str] = "diffbench.analyses.coding:ProgressiveCoding"
    needs: ClassVar[Needs] = (
        LEVELS,
        Rule(_levels_are_there),
        Rule(_bound_serves, ("process", "denoiser")),
    )
    uses_model: ClassVar[bool] = True

    steps: StepCount
    variance: Variance = "large"
    images: Annotated[Int, Field(ge=2)] = 500

    @property
    def bound(self) -> VLBSpec:
        """The bound whose terms are the rate."""
        return VLBSpec(variance=self.variance)


class SimplexSpec(AnalysisSpec):
    """Reflected diffusion of points on the probability simplex, compared with the density they were drawn from.

    Points are drawn from a mixture of Dirichlet distributions and mapped to the cube by stick breaking.  A small
    network with a gated score is trained on them by score matching.  New points are drawn by the reflected SDE and by
    the exact transport.  The log density of held-out points is computed by the probability-flow ODE and in closed
    form.  Stick breaking makes the coordinates of one Dirichlet distribution independent, but not those of a mixture:
    the same network without coupling, trained in the same way, shows what a model of independent coordinates loses.

    categories: the number K of categories.
    concentrations: of the Dirichlet distributions, repeated over all categories.  Below 1 the density has no bound.
    components: the number M of components of the mixture, equally likely.
    contrast: the factor of the m-th component's concentrations for the categories m, m + M, ..
    points, held_out, samples: how many points are for training, for the likelihood, and drawn by each sampler.
    sigma_max: the largest sigma of the reflected process; the smallest is 0.01.
    width, blocks: of the network.
    probes: the number of probes in Hutchinson's estimate of the likelihood's trace; ``none`` is the exact trace.
    training: the budget.
    """

    name: Literal["simplex"] = "simplex"
    implementation: ClassVar[str] = "diffbench.analyses.simplex:Simplex"
    uses_variant: ClassVar[bool] = False

    categories: Annotated[Int, Field(ge=2)]
    concentrations: Annotated[
        tuple[Annotated[PositiveFloat, Field(ge=1)], ...], Field(min_length=1)
    ] = (1.0, 2.0, 3.0)
    components: PositiveInt = 4
    contrast: Annotated[PositiveFloat, Field(ge=1)] = 4.0
    points: PositiveInt = 20000
    held_out: Annotated[Int, Field(ge=2)] = 500
    samples: Annotated[Int, Field(ge=2)] = 1000
    steps: LevelCount = 50
    sigma_max: Annotated[PositiveFloat, Field(gt=0.01)] = 1.25
    width: Annotated[Int, Field(ge=2, multiple_of=2)] = 32
    blocks: PositiveInt = 3
    probes: Annotated[PositiveInt | None, BeforeValidator(nothing)] = None
    training: TrainingSpec
