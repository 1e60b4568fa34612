"""Specs of the objectives: times x target x weight -> one loss per example."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from diffbench.specs.augmentations import AnyAugmentation
from diffbench.specs.base import (
    Float,
    Fraction,
    LevelCount,
    NonNegativeFloat,
    OnlyFor,
    PositiveFloat,
    PositiveInt,
    Registered,
    nothing,
)
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.forms import LossForm, squared, weight_of
from diffbench.specs.needs import (
    CONTINUOUS,
    GAUSSIAN,
    GROWING,
    LEVELS,
    ONE_ALPHA,
    HasNeeds,
    Needs,
    Rule,
    inside,
    view,
)
from diffbench.specs.processes import ProcessSpec, Variance


class TimesSpec(HasNeeds, Registered):
    """How training times are drawn.

    draw: ``independent``, one ``stratified`` draw in each n-th of the distribution for a batch of n, or
        ``low-discrepancy``, n evenly spaced quantiles from a random start (Kingma et al. 2021, appendix I.1).
    """

    kind: ClassVar[str] = "times"
    asker: ClassVar[str] = "name: {0.name}"

    name: str
    draw: Literal["independent", "stratified", "low-discrepancy"] = "independent"


def _last_is_below(spec: RangeTimesSpec, process: ProcessSpec) -> str | None:
    if process.time == "discrete" or spec.last < process.t_max:
        return None
    return f"last: {spec.last:g} must be below {process.name}'s largest time, {process.t_max:g}"


class RangeTimesSpec(TimesSpec):
    """Times over the integers of a discrete process or over [last, t_max] of a continuous one.

    ``last`` is 1e-5 for every SDE of Song et al. 2021.  It is raised to the process's smallest time, so that 0 means
    the first level of ``vp-chain`` and of VE.  ``levels`` restricts a continuous process to that many evenly spaced
    times, the two ends among them: the discrete training of Song et al. 2021.
    """

    needs: ClassVar[Needs] = (
        CONTINUOUS.where("levels").hinting("leave it out, a chain has its own levels"),
        Rule(_last_is_below),
    )
    belonging: ClassVar[tuple[OnlyFor, ...]] = (
        OnlyFor("last", lambda process: process.time == "continuous", "one of continuous time"),
    )

    last: NonNegativeFloat = 1e-5
    levels: Annotated[LevelCount | None, BeforeValidator(nothing)] = None


class UniformTimesSpec(RangeTimesSpec):
    """Uniform times.

    ``highest: false`` leaves out the last level of a chain, as the official code of inverse heat dissipation does:
    its samplers start at a level that was never trained.
    """

    name: Literal["uniform"] = "uniform"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.times:UniformTimes"
    needs: ClassVar[Needs] = (LEVELS.where("highest", False),)

    highest: bool = True


class LogSNRTimesSpec(RangeTimesSpec):
    """Times with ln(sigma/alpha) uniform between its values at ``last`` and t_max.

    Each loss is weighted by uniform density / density.  The density of the time is proportional to
    g^2/sigma^2: importance sampling for the likelihood weighting (Song, Durkan, Murray & Ermon 2021, section 5.1).
    """

    name: Literal["log-snr"] = "log-snr"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.times:LogSNRTimes"
    needs: ClassVar[Needs] = (CONTINUOUS, GAUSSIAN, ONE_ALPHA)

    levels: Annotated[None, BeforeValidator(nothing)] = None


class LogNormalTimesSpec(TimesSpec):
    """Times with ln(sigma/alpha) ~ N(mean, std^2), for data in [-1, 1] (Karras et al. 2022, table 1)."""

    name: Literal["lognormal"] = "lognormal"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.times:LogNormalTimes"
    needs: ClassVar[Needs] = (GROWING.hinting("use uniform"),)

    mean: Float = -1.2
    std: PositiveFloat = 1.2


class MixedTimesSpec(RangeTimesSpec):
    """A mixture: a ``share`` of uniform times, and the rest with ln(sigma/alpha) ~ N(mean, std^2).

    Each loss is weighted by uniform density / mixed density, so the objective's expectation is that of
    uniform times; only the gradient's variance changes.
    """

    name: Literal["mixed"] = "mixed"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.times:MixedTimes"
    needs: ClassVar[Needs] = (GROWING.hinting("use uniform"),)

    share: Annotated[Fraction, Field(gt=0)] = 0.5
    mean: Float = -1.2
    std: PositiveFloat = 1.2


class ImportanceTimesSpec(TimesSpec):
    """Integer times drawn in proportion to the root mean square of their last ``history`` losses.

    A ``share`` of the draws is uniform; all draws are, until every time has its history.  Each loss is weighted
    by uniform density / density (Nichol & Dhariwal 2021, section 3.3).
    """

    name: Literal["importance"] = "importance"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.times:ImportanceTimes"
    needs: ClassVar[Needs] = (LEVELS,)

    history: PositiveInt = 10
    share: Annotated[Fraction, Field(gt=0)] = 0.001


AnyTimes = Annotated[SerializeAsAny[TimesSpec], BeforeValidator(TimesSpec.choose)]


def _variance_is_trained(spec: ObjectiveSpec, denoiser: DenoiserSpec) -> str | None:
    """A learned variance needs an objective that trains it, and such an objective needs a learned variance."""
    if spec.trains_variance and not denoiser.learns_variance:
        return f"{spec.name} with variance: learned needs denoiser.variance: learned"
    if denoiser.learns_variance and not spec.trains_variance:
        return (
            f"denoiser.variance: learned gets no gradient from this {spec.name}; "
            "use hybrid, or vlb with variance: learned"
        )
    return None


def _labels_are_dropped(spec: ObjectiveSpec, denoiser: DenoiserSpec) -> str | None:
    """A conditional model needs a rate at which labels are dropped; no other model has one."""
    if denoiser.takes_labels and spec.label_dropout is None:
        return "label_dropout: none, but a conditional model needs one; 0.1 is usual"
    if spec.label_dropout is not None and not denoiser.takes_labels:
        return (
            f"label_dropout: {spec.label_dropout:g}, but the model is unconditional; leave it out"
        )
    return None


def _images_can_be_changed(spec: ObjectiveSpec, process: ProcessSpec) -> str | None:
    """Augmented images lie between grey levels, and reach a little beyond the data range."""
    if spec.augmentation is None:
        return None
    if spec.needs_levels:
        return (
            f"augmentation: augmented images are not grey levels, and {spec.name} needs grey levels"
        )
    if process.bounded:
        return f"augmentation: augmented images reach a little beyond the walls of {process.name}"
    return None


class ObjectiveSpec(HasNeeds, Registered):
    """A training objective.

    ``label_dropout``, only for a conditional denoiser: the fraction of labels that is replaced by the null
    class (Ho & Salimans 2022, algorithm 1: p_uncond).  ``augmentation`` changes training images and tells the
    network how.
    """

    kind: ClassVar[str] = "objective"
    asker: ClassVar[str] = "name: {0.name}"
    needs: ClassVar[Needs] = (
        Rule(_variance_is_trained, ("denoiser",)),
        Rule(_labels_are_dropped, ("denoiser",)),
        Rule(_images_can_be_changed),
        inside("times", "process"),
    )

    name: str
    times: AnyTimes
    label_dropout: Annotated[Fraction | None, BeforeValidator(nothing)] = None
    augmentation: AnyAugmentation = None

    @property
    def trains_variance(self) -> bool:
        """Whether a learned variance gets a gradient."""
        return False

    @property
    def needs_levels(self) -> bool:
        """Whether images must lie on their grey levels, not dequantised."""
        return False

    def loss(self, process: ProcessSpec, denoiser: DenoiserSpec) -> LossForm:
        """The loss at one time; by default it is described by the keys of the objective, so that no other is equal."""
        shared = {"times": None, "label_dropout": None, "augmentation": None}
        return LossForm(None, self.model_copy(update=shared).canonical())


class SimpleSpec(ObjectiveSpec):
    """L_simple: the plain squared error of the denoiser's native quantity (Ho et al. 2020, eq. 14)."""

    name: Literal["simple"] = "simple"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.losses:Simple"

    times: AnyTimes = UniformTimesSpec()

    def loss(self, process: ProcessSpec, denoiser: DenoiserSpec) -> LossForm:
        return LossForm(weight_of(process, denoiser.native))


class BoundSpec(ObjectiveSpec):
    """An objective with terms of the variational bound: a sum over integer steps, for images in grey levels."""

    needs: ClassVar[Needs] = (LEVELS, view("x0"))

    @property
    def needs_levels(self) -> bool:
        """True: the decoder gives the probability of a grey level."""
        return True

    @property
    def trains_variance(self) -> bool:
        """True: the bound trains a learned variance."""
        return True


class VLBObjectiveSpec(BoundSpec):
    """L_vlb: the variational bound in bits/dim, one term a draw, without its constant prior term.

    Ho et al. 2020, equation 5.  ``variance`` is that of the model's steps; ``large`` and ``small`` are fixed.
    """

    name: Literal["vlb"] = "vlb"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.losses:VLBObjective"

    times: AnyTimes = UniformTimesSpec()
    variance: Variance = "learned"

    def loss(self, process: ProcessSpec, denoiser: DenoiserSpec) -> LossForm:
        """A term of the bound, whatever is predicted."""
        return LossForm(None, f"L with {self.variance} variance")

    @property
    def trains_variance(self) -> bool:
        """Whether ``variance`` is learned, not fixed."""
        return self.variance == "learned"


class HybridSpec(BoundSpec):
    """L_hybrid = L_simple + weight L_vlb (Nichol & Dhariwal 2021, equation 16).

    The bound trains the variance alone: its gradient does not reach the mean.
    """

    name: Literal["hybrid"] = "hybrid"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.losses:Hybrid"

    times: AnyTimes = UniformTimesSpec()
    weight: PositiveFloat = 0.001

    def loss(self, process: ProcessSpec, denoiser: DenoiserSpec) -> LossForm:
        beside = f"{self.weight:.12g} L with learned variance"
        return LossForm(weight_of(process, denoiser.native), beside)


class ScoreMatchingSpec(ObjectiveSpec):
    """Denoising score matching (Song et al. 2021, equation 7).

    ``weight`` of the score's squared error: ``sigma2`` (sigma^2, the paper's), ``likelihood`` (g^2, which makes it
    a bound on the likelihood: Song, Durkan, Murray & Ermon 2021, theorem 1), or ``unit``.
    """

    name: Literal["score-matching"] = "score-matching"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.losses:ScoreMatching"
    needs: ClassVar[Needs] = (
        CONTINUOUS.where("weight", "likelihood").hinting("the weight g^2 is the rate of its noise"),
        view("eps"),
    )

    times: AnyTimes = UniformTimesSpec()
    weight: Literal["sigma2", "likelihood", "unit"] = "sigma2"

    def loss(self, process: ProcessSpec, denoiser: DenoiserSpec) -> LossForm:
        """The squared error of the score, times lambda."""
        powers = {"sigma2": {"sigma": 2}, "likelihood": {"g": 2}, "unit": {}}[self.weight]
        return LossForm(weight_of(process, "score", powers))


class MeanSpec(ObjectiveSpec):
    """The squared error of the mean of the level before, in units of the noise (Rissanen et al. 2023, section 3)."""

    name: Literal["mean"] = "mean"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.losses:Mean"
    needs: ClassVar[Needs] = (LEVELS,)

    times: AnyTimes = UniformTimesSpec()

    def loss(self, process: ProcessSpec, denoiser: DenoiserSpec) -> LossForm:
        """The squared error of the mean, over sigma^2."""
        return LossForm(weight_of(process, "mean", {"sigma": -2}))


class EDMObjectiveSpec(ObjectiveSpec):
    """EDM's loss: lambda(sigma) |D - x0|^2 with lambda = (sigma^2 + s_d^2)/(sigma s_d)^2."""

    name: Literal["edm"] = "edm"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.losses:EDMObjective"
    needs: ClassVar[Needs] = (view("x0"),)

    times: AnyTimes = LogNormalTimesSpec()
    data_std: PositiveFloat = 0.5

    def loss(self, process: ProcessSpec, denoiser: DenoiserSpec) -> LossForm:
        """The squared error of x0, times v(s_d)/(sigma s_d)^2; under blur, with the alpha without blur."""
        s = self.data_std * process.half_range
        if process.alpha == "vector":
            return LossForm(weight_of(process, "x0", {f"lambda({s:.12g})": 1}))
        return LossForm(weight_of(process, "x0", {squared(s): 1, "sigma": -2}, s**-2))
