"""Specs of the moving averages of weights: which rule gives the decay of the n-th update.

A power-function average of t steps has the profile (gamma + 1) tau^gamma / t^(gamma + 1) over 0 <= tau <= t.  Its
length is the profile's standard deviation as a fraction of t, sqrt(gamma + 1)/((gamma + 2) sqrt(gamma + 3)).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny

from diffbench.specs.base import Float, PositiveFloat, Registered, nothing, number

#: A rate of averaging, below 1: at 1 the average would never change.
Decay = Annotated[Float, Field(ge=0, lt=1)]
#: The relative length of a power-function average, below 1/sqrt(12) = 0.2887, at which all steps weigh the same.
Length = Annotated[Float, Field(gt=0, lt=12**-0.5)]


def _distinct(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"{list(values)} has one length twice")
    return values


class AverageSpec(Registered):
    """An exponential moving average of weights; a number alone is the rate of ``warm``."""

    kind: ClassVar[str] = "average"
    default_name: ClassVar[str | None] = "warm"

    name: str

    @property
    def tracked(self) -> dict[float | None, AverageSpec]:
        """The averages that are kept, by relative length (None where a rule has none), the model's own first."""
        return {None: self}


class WarmAverageSpec(AverageSpec):
    """A rate that is reached slowly: min(rate, (1 + n)/(10 + n)) at update n (Song et al. 2021, official code)."""

    name: Literal["warm"] = "warm"
    implementation: ClassVar[str] = "diffbench.networks.ema:Warm"

    rate: Decay = 0.9999


class ConstantAverageSpec(AverageSpec):
    """A constant rate from the first update on (Ho et al. 2020; Nichol & Dhariwal 2021, official code)."""

    name: Literal["constant"] = "constant"
    implementation: ClassVar[str] = "diffbench.networks.ema:Constant"

    rate: Decay = 0.9999


class HalfLifeAverageSpec(AverageSpec):
    """A half-life of ``images``, and early in training of ``ramp_up`` times the images seen so far.

    With ``ramp_up: none`` the half-life is always ``images`` (Karras et al. 2022, official code: 500,000 images, 0.05).
    """

    name: Literal["half-life"] = "half-life"
    implementation: ClassVar[str] = "diffbench.networks.ema:HalfLife"

    images: PositiveFloat = 500_000
    ramp_up: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = 0.05


class PowerAverageSpec(AverageSpec):
    """Power-function averages of fixed relative lengths, two of which give any other (Karras et al. 2024, equation 1).

    stds: the lengths that are tracked, the model's own first (EDM2: 0.05 and 0.10).
    """

    name: Literal["power"] = "power"
    implementation: ClassVar[str] = "diffbench.networks.ema:Power"

    stds: Annotated[tuple[Length, ...], Field(min_length=1), AfterValidator(_distinct)] = (
        0.05,
        0.1,
    )

    @property
    def tracked(self) -> dict[float | None, AverageSpec]:
        """One average for each length in ``stds``."""
        return {std: self.model_copy(update={"stds": (std,)}) for std in self.stds}


def _choose(value: Any) -> Any:
    """Return the rule with a name, or the warm average with a rate; the rate may be written as any number."""
    named = isinstance(value, str) and value in AverageSpec.known
    if named or not isinstance(value, str | int | float):
        return AverageSpec.choose(value)
    return WarmAverageSpec.model_validate({"rate": number(value)})


AnyAverage = Annotated[SerializeAsAny[AverageSpec], BeforeValidator(_choose)]
