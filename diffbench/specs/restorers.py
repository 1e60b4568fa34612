"""Specs of the restorers: how an image is drawn, given a measurement y = H x + noise of it.

One that cannot serve an operator or a model is refused, with the reason in a footnote, before any job runs; a variant's
own restorer that cannot serve its model is a mistake.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from diffbench.specs.base import (
    Fraction,
    Int,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Registered,
    Spec,
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
    """Restorers guide by the measurement alone."""
    if spec.inner is None or not spec.inner.uses_labels:
        return None
    return f"{spec.name} knows no classes; leave w, classifier_scale and labels out"


class RestorerSpec(HasNeeds, Registered):
    """A restorer of any kind.

    ``facts`` are what its class is given besides the spec: the ``denoiser``, a ``solver`` built around it, the
    training set's ``images``, or the ``middle`` of the data range.
    """

    kind: ClassVar[str] = "restorer"
    #: Those of a process are asked where there is a model at all.
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
    def uses_model(self) -> bool:
        """Whether there must be a trained model."""
        return "denoiser" in self.facts or "solver" in self.facts

    @property
    def inner(self) -> SolverSpec | None:
        """The solver that it steers, if any."""
        return None

    def refusal(
        self,
        process: ProcessSpec | None = None,
        denoiser: DenoiserSpec | None = None,
        operator: OperatorSpec | None = None,
    ) -> str | None:
        """Why this restorer cannot serve the model and the operator; None when it can, as far as they are known."""
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
        """Its solver."""
        return self.solver


class ImputeSpec(SteeredSpec):
    """Imputation: known coordinates are drawn anew from q(x_t | y) after every predictor and corrector update.

    Song et al. 2021, appendix I.2; known are the coordinates of V in which H has a singular value, as in
    its colourisation.
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

    low_pass: ``range`` is H^+ H, exact for any linear operator; ``resizer`` the paper's, a reduction and an
        enlargement by the operator's factor and ``kernel``, of bicubic super-resolution alone.
    until: the share of the steps that is conditioned, the first ones; the last are free.
    """

    name: Literal["ilvr"] = "ilvr"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.steering:ILVR"
    needs: ClassVar[Needs] = (BICUBIC.where("low_pass", "resizer"),)

    solver: InnerSolver = AncestralSpec(steps=100)
    low_pass: Literal["range", "resizer"] = "range"
    until: Fraction = 1.0


class MedicalSpec(SteeredSpec):
    """Song, Shen, Xing & Ermon 2022, equation 10: the measured part of the transform is mixed with the state's.

    ``mix``: lambda, 1 puts the measurement in its place, 0 ignores it.
    """

    name: Literal["medical"] = "medical"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.steering:Medical"

    solver: InnerSolver = ReverseDiffusionSpec(steps=100, corrector=LangevinSpec(snr=0.16))
    mix: Fraction = 1.0


def _steered(value: object) -> object:
    chosen = RestorerSpec.choose(value)
    if not isinstance(chosen, SteeredSpec):
        raise ValueError(f"{chosen.name} steers no solver; take impute, replace, ilvr or medical")
    return chosen


def _estimate(value: object) -> object:
    chosen = RestorerSpec.choose(value)
    if chosen.uses_model:
        raise ValueError(f"{chosen.name} uses a model; take pseudo-inverse or posterior-mean")
    return chosen


def _steps_can_be_left_out(spec: CCDFSpec) -> str | None:
    if hasattr(spec.around.solver, "steps"):
        return None
    return f"around.solver: {spec.around.solver.name} has no fixed steps to leave out"


class CCDFSpec(RestorerSpec):
    """CCDF (Chung, Sim & Ye 2022): start at a share of the way from an estimate, not from noise.

    around: the restorer whose steps are taken.
    start: the share of its solver's steps that is left, the last ones; 1 is the full reversal.
    estimate: a restorer without a model: ``pseudo-inverse``, the degraded image, or the Gaussian ``posterior-mean``.

    Its class is given both, built.
    """

    name: Literal["ccdf"] = "ccdf"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.steering:CCDF"
    needs: ClassVar[Needs] = (
        Rule(_steps_can_be_left_out, ()),
        inside("around", "process", "denoiser", "operator"),
    )
    facts: ClassVar[tuple[str, ...]] = ("around", "estimate")

    around: Annotated[SerializeAsAny[SteeredSpec], BeforeValidator(_steered)] = ReplaceSpec()
    start: Annotated[Fraction, Field(gt=0)] = 0.2
    estimate: Annotated[SerializeAsAny[RestorerSpec], BeforeValidator(_estimate)] = (
        PseudoInverseSpec()
    )

    @property
    def uses_model(self) -> bool:
        """That of the restorer inside."""
        return True

    @property
    def inner(self) -> SolverSpec | None:
        """That of the restorer inside."""
        return self.around.inner


class DDRMSpec(RestorerSpec):
    """DDRM (Kawar et al. 2022, equations 7 and 8), and its JPEG extension (2022, arXiv 2209.11888).

    eta: the noise in what is not measured (the official code's etaC).
    eta_a: that in what is measured worse than x_t is known; eta by default.
    eta_b: the weight of the measurement in what is measured better than x_t is known.

    JPEG measures no coordinate, and has no eta_a.
    """

    name: Literal["ddrm"] = "ddrm"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.ddrm:DDRM"
    needs: ClassVar[Needs] = (LINEAR.where("eta_a"), *GRID)

    steps: PositiveInt = 20
    grid: Grid = "uniform"
    eta: Fraction = 0.85
    eta_a: Annotated[Fraction | None, BeforeValidator(nothing)] = None
    eta_b: Fraction = 1.0

    @property
    def worse(self) -> float:
        """``eta_a``, or what it is by default."""
        return self.eta if self.eta_a is None else self.eta_a


def _levels_are_in_range(spec: SNIPSSpec, process: ProcessSpec) -> str | None:
    given = {"sigma_max": spec.sigma_max, "sigma_min": spec.sigma_min}
    return level_refusal(process, {key: level for key, level in given.items() if level is not None})


class SNIPSSpec(RestorerSpec):
    """SNIPS (Kawar, Vaksman & Elad 2021, algorithm 1): annealed Langevin dynamics in the coordinates of V.

    levels: of noise, geometric, over the process's own range of sigma/alpha unless ``sigma_max`` and ``sigma_min``
        say less, in units of images that span [-1, 1].
    updates: at each level.
    step: of an update, in units of the level's variance.  The paper's c/sigma_L^2 is 0.02 to 0.03, of 500 to 1086
        levels with 3 to 5 updates: 6 to 9 of these units for each factor e of the noise.  A larger step takes fewer
        levels: with the exact score 20 units meet the posterior's standard deviation within 5 %.
    """

    name: Literal["snips"] = "snips"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.snips:SNIPS"
    needs: ClassVar[Needs] = (LINEAR, Rule(_levels_are_in_range))

    levels: Annotated[Int, Field(ge=2)] = 200
    updates: PositiveInt = 3
    step: Annotated[PositiveFloat, Field(lt=1)] = 0.5
    sigma_max: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    sigma_min: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.sigma_min and self.sigma_max and self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min: {self.sigma_min:g} is not below sigma_max, {self.sigma_max:g}"
            )
        return self


class InpaintTunedSpec(RestorerSpec):
    """A model that was trained with masks: told the measured pixels, it is sampled as it is."""

    name: Literal["inpaint-tuned"] = "inpaint-tuned"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.restorers.tuned:InpaintTuned"
    facts: ClassVar[tuple[str, ...]] = ("solver",)
    needs: ClassVar[Needs] = (PIXELS, MASKS)

    solver: InnerSolver = AncestralSpec(steps=100)

    @property
    def inner(self) -> SolverSpec | None:
        """Its solver."""
        return self.solver
