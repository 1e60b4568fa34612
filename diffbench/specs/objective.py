"""Specs of the objectives: times x target x weight -> one loss per example."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from diffbench.specs.base import Float, Fraction, PositiveFloat, Registered


class TimesSpec(Registered):
    """How training times are drawn; ``stratified`` spreads one batch evenly over the distribution."""

    kind: ClassVar[str] = "times"

    name: str
    stratified: bool = False


class UniformTimesSpec(TimesSpec):
    """Uniform over the integers of a discrete process or over [last, t_max] of a continuous one.

    ``last`` is 1e-5 for every SDE of Song et al. 2021.
    """

    name: Literal["uniform"] = "uniform"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives:UniformTimes"

    last: PositiveFloat = 1e-5


class LogNormalTimesSpec(TimesSpec):
    """ln(sigma/alpha) ~ N(mean, std^2), for data in [-1, 1] (Karras et al. 2022, table 1)."""

    name: Literal["lognormal"] = "lognormal"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives:LogNormalTimes"

    mean: Float = -1.2
    std: PositiveFloat = 1.2


class MixedTimesSpec(TimesSpec):
    """A ``share`` of uniform times, the rest with ln(sigma/alpha) ~ N(mean, std^2).

    Each loss is weighted by uniform density / mixed density, so the objective's expectation is that of
    uniform times; only the gradient's variance changes.
    """

    name: Literal["mixed"] = "mixed"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives:MixedTimes"

    last: PositiveFloat = 1e-5
    share: Annotated[Fraction, Field(gt=0)] = 0.5
    mean: Float = -1.2
    std: PositiveFloat = 1.2


AnyTimes = Annotated[SerializeAsAny[TimesSpec], BeforeValidator(TimesSpec.choose)]


class ObjectiveSpec(Registered):
    """A training objective."""

    kind: ClassVar[str] = "objective"

    name: str
    times: AnyTimes


class SimpleSpec(ObjectiveSpec):
    """L_simple: the plain squared error of the denoiser's native quantity (Ho et al. 2020, eq. 14)."""

    name: Literal["simple"] = "simple"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives:Simple"

    times: AnyTimes = UniformTimesSpec()


class ScoreMatchingSpec(ObjectiveSpec):
    """Denoising score matching weighted by sigma^2 (Song et al. 2021, equation 7)."""

    name: Literal["score-matching"] = "score-matching"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives:ScoreMatching"

    times: AnyTimes = UniformTimesSpec()


class EDMObjectiveSpec(ObjectiveSpec):
    """EDM's loss: lambda(sigma) |D - x0|^2 with lambda = (sigma^2 + s_d^2)/(sigma s_d)^2."""

    name: Literal["edm"] = "edm"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives:EDMObjective"

    times: AnyTimes = LogNormalTimesSpec()
    data_std: PositiveFloat = 0.5
