"""Specs of the likelihoods: bits per dimension, each kind in a column of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from diffbench.specs.base import (
    Only,
    PositiveFloat,
    Registered,
    StepCount,
    TogetherCount,
    nothing,
)
from diffbench.specs.needs import (
    CONSTANT,
    GAUSSIAN,
    HasNeeds,
    Needs,
    Offer,
    Rule,
    first_unmet,
    sde,
    view,
)
from diffbench.specs.processes import ProcessSpec, Variance
from diffbench.specs.solvers import FlowSpec
from diffbench.specs.solvers.grids import GRID, LAST, Grid, IntegerGrid
from diffbench.specs.solvers.transition import VARIANCE
from diffbench.specs.weights import OfWeights, untold

#: The kinds of bits per dimension; numbers of two kinds cannot be compared.
LEVELS = "bound on grey levels"
DENSITY = "ODE, density of dequantised levels"


class LikelihoodSpec(OfWeights, HasNeeds, Registered):
    """The negative log likelihood of a split, by default the test images, or a bound on it.

    ``column`` is the kind of bits per dimension in a word, ``title`` the kind in words for readers.
    """

    kind: ClassVar[str] = "likelihood"
    column: ClassVar[str]
    title: ClassVar[str]

    name: str
    split: Literal["test", "train"] = "test"

    @property
    def full_precision(self) -> bool:
        """Whether the network must be evaluated in float32."""
        return False

    @property
    def adaptive(self) -> bool:
        """Whether the number of evaluations depends on the images."""
        return False

    def backward_passes(self, dims: int) -> int:
        """The number of backward passes for each evaluation, for images of ``dims`` numbers."""
        return 0


def _steps_are_counted(spec: VLBSpec, process: ProcessSpec) -> str | None:
    """In continuous time ``steps`` must be given; a chain has its own number."""
    if process.time == "discrete" or (spec.steps or 0) >= 2:
        return None
    return "steps: must be at least 2 in continuous time, where the bound is a sum over that many steps"


def _terms_are_fewer(spec: VLBSpec, process: ProcessSpec) -> str | None:
    """The terms that are evaluated are fewer than the bound has."""
    steps = spec.steps or process.level_count
    if spec.terms is None or steps is None or spec.terms < steps:
        return None
    return f"terms: must be less than the bound's {steps} steps, not {spec.terms}; without it all are evaluated"


class VLBSpec(LikelihoodSpec):
    """The variational bound: prior + one KL per step + discretised-Gaussian decoder.

    Ho et al. 2020, equation 5.  ``threshold: static`` clips predicted x0 to the data range, as the
    official code does when it evaluates the bound.  ``steps`` evenly spaced levels are taken (all by
    default; ``grid: strided`` takes a constant stride); in continuous time ``steps`` times are taken, without
    a default, and the grid ``log-snr``, even in ln(sigma/alpha), needs the fewest.
    ``terms`` of the steps are evaluated, all by default: with fewer the bound is estimated, without bias, by one step
    drawn from each of so many runs of steps, which are single steps next to the data and longer farther away.
    ``batch`` images are evaluated at a time.
    """

    name: Literal["vlb"] = "vlb"
    implementation: ClassVar[str] = "diffbench.diffusion.likelihoods.vlb:VLB"
    column: ClassVar[str] = "vlb"
    title: ClassVar[str] = LEVELS
    needs: ClassVar[Needs] = (
        GAUSSIAN,
        view("x0"),
        Rule(_steps_are_counted),
        Rule(_terms_are_fewer),
        *GRID,
        *VARIANCE,
    )

    variance: Variance = "small"
    threshold: Literal["none", "static"] = "static"
    steps: Annotated[StepCount | None, BeforeValidator(nothing)] = None
    grid: Literal["uniform", "strided", "quadratic", "log-snr"] = "uniform"
    terms: Annotated[StepCount | None, BeforeValidator(nothing)] = Field(
        default=None, exclude_if=untold
    )
    batch: TogetherCount = 500


class HeatBoundSpec(LikelihoodSpec):
    """The bound of inverse heat dissipation (Rissanen, Heinonen & Solin 2023, appendix A), over all levels.

    The prior term is itself a bound, by the blurred training images.  ``ratio`` is delta/sigma, as in the sampler.
    ``batch`` images are evaluated at a time.
    """

    name: Literal["heat-bound"] = "heat-bound"
    implementation: ClassVar[str] = "diffbench.diffusion.likelihoods.vlb:HeatBound"
    column: ClassVar[str] = "vlb"
    title: ClassVar[str] = LEVELS
    needs: ClassVar[Needs] = (CONSTANT.hinting("use vlb or ode"),)
    threshold: ClassVar[Literal["none"]] = "none"
    steps: ClassVar[None] = None
    terms: ClassVar[None] = None
    grid: ClassVar[IntegerGrid] = "uniform"

    ratio: PositiveFloat = 1.25
    batch: TogetherCount = 500


def _grid_is_there(spec: ODELikelihoodSpec, process: ProcessSpec) -> str | None:
    """A method with fixed steps needs what its grid needs; an adaptive method has no grid."""
    return None if spec.steps is None else first_unmet(GRID, spec, Offer(process))


class ODELikelihoodSpec(FlowSpec, LikelihoodSpec):
    """The exact likelihood by the probability-flow ODE (Song et al. 2021, appendix D.2), of dequantised grey levels.

    trace: how the trace of the score's derivative is computed: by ``hutchinson``'s estimate, or ``exact``, which costs
        one backward pass for each dimension.
    probe, probes: the distribution of the estimate's random vectors, and how many each path has.
    passes: draws of uniform dequantisation noise (and probes) an image, averaged; the papers' protocol has 5.
    method: ``adaptive`` (Dormand & Prince, to ``rtol`` and ``atol``, 1e-5 each unless given, as a root mean square
        over a batch), or one with ``steps`` fixed steps on a ``grid``.
    last: the time at which an image enters the ODE; by default 1e-5, or the process's smallest if that is later.
    bump, gate: on a reflected process, see ``FlowSpec``; a score that does not vanish at the walls has no likelihood
        without either.
    batch: images evaluated at a time.
    """

    name: Literal["ode"] = "ode"
    implementation: ClassVar[str] = "diffbench.diffusion.likelihoods.ode:ODELikelihood"
    column: ClassVar[str] = "ode"
    title: ClassVar[str] = DENSITY
    needs: ClassVar[Needs] = (
        *sde("the likelihood vlb", "the likelihood heat-bound"),
        *LAST,
        Rule(_grid_is_there),
    )
    belonging: ClassVar[tuple[Only, ...]] = (
        Only("probe", "trace", ("hutchinson",)),
        Only("probes", "trace", ("hutchinson",)),
        Only("grid", "steps"),
        Only("rho", "steps"),
        Only("rho", "grid", ("karras",)),
    )

    trace: Literal["hutchinson", "exact"] = "hutchinson"
    probe: Literal["rademacher", "gaussian"] = "rademacher"
    probes: StepCount = 1
    passes: StepCount = 1
    method: Literal["adaptive", "euler", "heun", "rk4", "dormand-prince"] = "adaptive"
    rtol: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    atol: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    steps: Annotated[StepCount | None, BeforeValidator(nothing)] = None
    grid: Grid = "log-snr"
    rho: PositiveFloat = 7.0
    last: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    batch: TogetherCount = 500

    @model_validator(mode="after")
    def _steps_of_fixed_methods(self) -> Self:
        adaptive = self.method == "adaptive"
        if adaptive and self.steps is not None:
            raise ValueError(
                f"steps: {self.steps}, but method adaptive chooses its own; give rtol and atol"
            )
        if not adaptive and self.steps is None:
            raise ValueError(f"steps: method {self.method} needs a number of steps")
        if not adaptive and (self.rtol or self.atol):
            raise ValueError(
                f"rtol, atol: method {self.method} does not control its error; give steps"
            )
        return self

    @property
    def tolerances(self) -> tuple[float, float]:
        """``rtol`` and ``atol``, 1e-5 each unless given."""
        return self.rtol or 1e-5, self.atol or 1e-5

    @property
    def full_precision(self) -> bool:
        """True: traces and error estimates are small differences."""
        return True

    @property
    def adaptive(self) -> bool:
        return self.method == "adaptive"

    def backward_passes(self, dims: int) -> int:
        """One for each probe; for the exact trace, one for each of the ``dims`` numbers."""
        return dims if self.trace == "exact" else self.probes

    def first_time(self, process: ProcessSpec) -> float:
        """The time at which an image enters the ODE."""
        return max(process.t_min, 1e-5) if self.last is None else self.last
