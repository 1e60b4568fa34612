"""Specs of the moving averages of weights: which rule gives the decay of the n-th update."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from diffbench.specs.base import Float, PositiveFloat, Registered, nothing, number

#: A rate of averaging: at 1 nothing would ever be taken in.
Decay = Annotated[Float, Field(ge=0, lt=1)]


class AverageSpec(Registered):
    """An exponential moving average; a number alone is the rate of ``warm``."""

    kind: ClassVar[str] = "average"
    default_name: ClassVar[str | None] = "warm"

    name: str


class WarmAverageSpec(AverageSpec):
    """The rate, reached as min(rate, (1 + n)/(10 + n)) (Song et al. 2021, official code)."""

    name: Literal["warm"] = "warm"
    implementation: ClassVar[str] = "diffbench.networks.ema:Warm"

    rate: Decay = 0.9999


class ConstantAverageSpec(AverageSpec):
    """The rate from the first update on (Ho et al. 2020; Nichol & Dhariwal 2021, official code)."""

    name: Literal["constant"] = "constant"
    implementation: ClassVar[str] = "diffbench.networks.ema:Constant"

    rate: Decay = 0.9999


class HalfLifeAverageSpec(AverageSpec):
    """Half the weight after ``images``; in early training after ``ramp_up`` times the images seen.

    ``ramp_up`` is ``none`` for the half-life alone (Karras et al. 2022, official code: 500,000 images, 0.05).
    """

    name: Literal["half-life"] = "half-life"
    implementation: ClassVar[str] = "diffbench.networks.ema:HalfLife"

    images: PositiveFloat = 500_000
    ramp_up: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = 0.05


def _choose(value: Any) -> Any:
    """A number, however written, is the rate of the warm average."""
    if isinstance(value, AverageSpec | dict) or value in AverageSpec.known:
        return AverageSpec.choose(value)
    return WarmAverageSpec.model_validate({"rate": number(value)})


AnyAverage = Annotated[SerializeAsAny[AverageSpec], BeforeValidator(_choose)]
