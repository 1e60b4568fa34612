"""Specs of the restorers: how an image is drawn, given a measurement y = H x + noise of it.

A restorer that cannot serve an operator or a model is refused before any job runs, with the reason in a footnote.  A
variant's own restorer that cannot serve its model is an error.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from diffbench.specs.base import (
    Fraction,
    LevelCount,
    NonNegativeFloat,
    PositiveFloat,
    Registered,
    Spec,
    StepCount,
    nothing,
)
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.needs import (
    GAUSSIAN,
    LINEAR,
    MASKS,
    ONE_ALPHA,
    PIXELS,
    HasNeeds,
    Need,
    Needs,
    Rule,
    inside,
    view,
)
from diffbench.specs.operators import AnyOperator, OperatorSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.solvers import (
    AncestralSpec,
    InnerSolver,
    LangevinSpec,
    ReverseDiffusionSpec,
    SolverSpec,
)
from diffbench.specs.solvers.grids import GRID, Grid, level_refusal


class TaskSpec(Spec):
    """An inverse problem: an operator, and the standard deviation of the noise on images in [0, 1]."""

    operator: AnyOperator
    noise: NonNegativeFloat = 0.0


def _solver_knows_no_classes(spec: RestorerSpec) -> str | None:
    """A restorer guides by the measurement only, so its solver may not guide by classes."""
    if spec.inner is None or not spec.inner.uses_labels:
        return None
    return f"{spec.name} takes no classes; leave w, classifier_scale and labels out"


class RestorerSpec(HasNeeds, Registered):
    """A restorer of any kind.

    ``facts`` are the arguments of its class besides the spec: the ``denoiser``, a ``solver`` built around it, the
    training set's ``images``, or the ``middle`` of the data range.
    """

    kind: ClassVar[str] = "restorer"
    #: The needs of a process are checked only where the restorer uses a model.
    needs: ClassVar[Needs] = (
        GAUSSIAN,
        ONE_ALPHA,
        view("x0"),
        Rule(_solver_knows_no_classes, ()),
        inside("inner", "process", "denoiser", called="solver"),
    )
    facts: ClassVar[tuple[str, ...]] = ("denoiser",)

    name: str

    @property
    def honours(self) -> bool:
        """Whether H x = y holds for its images x where the measurement y has no noise."""
        return True

    @property
    def uses_model(self) -> bool:
        """Whether the restorer needs a model."""
        return "denoiser" in self.facts or "solver" in self.facts

    @property
    def inner(self) -> SolverSpec | None:
        """The solver inside the restorer; None without one."""
        return None

    def refusal(
        self,
        process: ProcessSpec | None = None,
        denoiser: DenoiserSpec | None = None,
        operator: OperatorSpec | None = None,
    ) -> str | None:
        """Return why the restorer cannot serve the model and the operator; None when it can, as far as is known."""
        return super().refusal(process if self.uses_model else None, denoiser, operator)


AnyRestorer = Annotated[SerializeAsAny[RestorerSpec], BeforeValidator(RestorerSpec.choose)]


class PseudoInverseSpec(RestorerSpec):
    """H^+ y: the image nearest to the middle of the data range that agrees with the measurement."""

    name: Literal["pseudo-inverse"] = "pseudo-inverse"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.baselines:PseudoInverse"
    facts: ClassVar[tuple[str, ...]] = ("middle",)


class PosteriorMeanSpec(RestorerSpec):
    """The posterior mean for a Gaussian with the training images' mean and covariance (Wiener's filter)."""

    name: Literal["posterior-mean"] = "posterior-mean"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.baselines:PosteriorMean"
    needs: ClassVar[Needs] = (LINEAR,)
    facts: ClassVar[tuple[str, ...]] = ("images",)


class SteeredSpec(RestorerSpec):
    """A solver whose state is corrected towards the measurement after every update."""

    facts: ClassVar[tuple[str, ...]] = ("solver",)
    needs: ClassVar[Needs] = (LINEAR,)

    solver: InnerSolver

    @property
    def inner(self) -> SolverSpec | None:
        return self.solver


class ImputeSpec(SteeredSpec):
    """Imputation: known coordinates are drawn anew from q(x_t | y) after every predictor and corrector update.

    Song et al. 2021, appendix I.2; the known coordinates are those of V in which H has a singular value,
    as in the paper's colourisation.
    """

    name: Literal["impute"] = "impute"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.steering:Impute"

    solver: InnerSolver = ReverseDiffusionSpec(steps=100, corrector=LangevinSpec(snr=0.16))


class ReplaceSpec(SteeredSpec):
    """Plain replacement: imputation around an ancestral sampler."""

    name: Literal["replace"] = "replace"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.steering:Replace"

    solver: InnerSolver = AncestralSpec(steps=100)


BICUBIC = Need(
    "operator",
    lambda operator: operator.name == "bicubic",
    "{asker} needs bicubic super-resolution, not {it.name}",
)


class ILVRSpec(SteeredSpec):
    """ILVR (Choi et al. 2021, algorithm 1): the low-pass part of x_t is the reference's.

    low_pass: ``range`` is H^+ H, exact for any linear operator; ``resizer`` is the paper's, a reduction and an
        enlargement by the operator's factor and ``kernel``, for bicubic super-resolution only.
    until: the share of the steps that is conditioned, from the first on; the last steps are free.
    """

    name: Literal["ilvr"] = "ilvr"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.steering:ILVR"
    needs: ClassVar[Needs] = (BICUBIC.where("low_pass", "resizer"),)

    solver: InnerSolver = AncestralSpec(steps=100)
    low_pass: Literal["range", "resizer"] = "range"
    until: Fraction = 1.0

    @property
    def honours(self) -> bool:
        """Whether the last step is conditioned too."""
        return self.until == 1


class MedicalSpec(SteeredSpec):
    """The measured part of the transform is mixed with the state's (Song, Shen, Xing & Ermon 2022, equation 10).

    ``mix`` is lambda: 1 replaces the state's part by the measurement, 0 ignores the measurement.
    """

    name: Literal["medical"] = "medical"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.steering:Medical"

    solver: InnerSolver = ReverseDiffusionSpec(steps=100, corrector=LangevinSpec(snr=0.16))
    mix: Fraction = 1.0

    @property
    def honours(self) -> bool:
        """Whether the measurement replaces the state's part."""
        return self.mix == 1


def _steered(value: object) -> object:
    chosen = RestorerSpec.choose(value)
    if not isinstance(chosen, SteeredSpec):
        raise ValueError(
            f"{chosen.name} does not steer a solver; take impute, replace, ilvr or medical"
        )
    return chosen


def _estimate(value: object) -> object:
    chosen = RestorerSpec.choose(value)
    if chosen.uses_model:
        raise ValueError(f"{chosen.name} uses a model; take pseudo-inverse or posterior-mean")
    return chosen


def _steps_can_be_left_out(spec: CCDFSpec) -> str | None:
    if hasattr(spec.around.solver, "steps"):
        return None
    return f"around.solver: {spec.around.solver.name} has no fixed steps, so none can be left out"


def _around_serves_the_operator(spec: CCDFSpec, operator: OperatorSpec) -> str | None:
    """A reason about the operator names the restorer, and needs no key before it."""
    return spec.around.refusal(operator=operator)


class CCDFSpec(RestorerSpec):
    """CCDF (Chung, Sim & Ye 2022): only the last steps are taken, from a noisy estimate and not from pure noise.

    around: the restorer whose steps are taken.
    start: the share of its solver's steps that is taken; 1 is all steps.
    estimate: a restorer without a model: ``pseudo-inverse``, the degraded image, or the Gaussian ``posterior-mean``.

    Its class takes both restorers, built.
    """

    name: Literal["ccdf"] = "ccdf"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.steering:CCDF"
    needs: ClassVar[Needs] = (
        Rule(_steps_can_be_left_out, ()),
        Rule(_around_serves_the_operator, ("operator",)),
        inside("around", "process", "denoiser"),
    )
    facts: ClassVar[tuple[str, ...]] = ("around", "estimate")

    around: Annotated[SerializeAsAny[SteeredSpec], BeforeValidator(_steered)] = ReplaceSpec()
    start: Annotated[Fraction, Field(gt=0)] = 0.2
    estimate: Annotated[SerializeAsAny[RestorerSpec], BeforeValidator(_estimate)] = (
        PseudoInverseSpec()
    )

    @property
    def uses_model(self) -> bool:
        return True

    @property
    def inner(self) -> SolverSpec | None:
        return self.around.inner


class DDRMSpec(RestorerSpec):
    """DDRM (Kawar et al. 2022, equations 7 and 8), and its JPEG extension (2022, arXiv 2209.11888).

    eta: the noise in coordinates that are not measured (the official code's etaC).
    eta_a: the noise in coordinates whose measurement is noisier than x_t; ``eta`` by default.
    eta_b: the weight of the measurement in coordinates whose measurement is less noisy than x_t.

    JPEG does not measure coordinates, and has no eta_a.
    """

    name: Literal["ddrm"] = "ddrm"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.ddrm:DDRM"
    needs: ClassVar[Needs] = (LINEAR.where("eta_a"), *GRID)

    steps: StepCount = 20
    grid: Grid = "uniform"
    eta: Fraction = 0.85
    eta_a: Annotated[Fraction | None, BeforeValidator(nothing)] = None
    eta_b: Fraction = 1.0

    @property
    def worse(self) -> float:
        """``eta_a``, by default ``eta``."""
        return self.eta if self.eta_a is None else self.eta_a


def _levels_are_in_range(spec: SNIPSSpec, process: ProcessSpec) -> str | None:
    given = {"sigma_max": spec.sigma_max, "sigma_min": spec.sigma_min}
    return level_refusal(process, {key: level for key, level in given.items() if level is not None})


class SNIPSSpec(RestorerSpec):
    """SNIPS (Kawar, Vaksman & Elad 2021, algorithm 1): annealed Langevin dynamics in the coordinates of V.

    levels: the number of noise levels, geometric over the process's range of sigma/alpha.
    sigma_max, sigma_min: a smaller range of sigma/alpha, for images in [-1, 1].
    updates: the number of updates at each level.
    step: the step of an update, in units of the level's variance.  The paper's c/sigma_L^2 is 0.02 to 0.03, with 500 to
        1086 levels and 3 to 5 updates: 6 to 9 of these units for each factor e of the noise.  A larger step needs
        fewer levels: with the exact score, 20 units reach the posterior's standard deviation within 5 %.
    """

    name: Literal["snips"] = "snips"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.snips:SNIPS"
    needs: ClassVar[Needs] = (LINEAR, Rule(_levels_are_in_range))

    levels: LevelCount = 200
    updates: StepCount = 3
    step: Annotated[PositiveFloat, Field(lt=1)] = 0.5
    sigma_max: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    sigma_min: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.sigma_min and self.sigma_max and self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min: {self.sigma_min:g} must be below sigma_max, {self.sigma_max:g}"
            )
        return self


class InpaintTunedSpec(RestorerSpec):
    """A model that was trained with masks is told the measured pixels, and sampled as usual."""

    name: Literal["inpaint-tuned"] = "inpaint-tuned"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.tuned:InpaintTuned"
    facts: ClassVar[tuple[str, ...]] = ("solver",)
    needs: ClassVar[Needs] = (PIXELS, MASKS)

    solver: InnerSolver = AncestralSpec(steps=100)

    @property
    def inner(self) -> SolverSpec | None:
        return self.solver
