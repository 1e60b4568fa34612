"""Spec of the floors of scores: how often real images are drawn and scored in the samples' place."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from diffbench.specs.base import MOST_STEPS, NonNegativeInt, Only, Spec


class FloorSpec(Spec):
    """How floors are measured.

    redraws: the number of sets of real images that are scored; 0 for no floors.  Each set costs the covariance of its
        features.
    seed: the seed of the draws.
    """

    belonging: ClassVar[tuple[Only, ...]] = (Only("seed", "redraws"),)

    redraws: Annotated[NonNegativeInt, Field(le=MOST_STEPS)] = 20
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _has_a_spread(self) -> Self:
        if self.redraws == 1:
            raise ValueError(
                "one redraw has no standard deviation: redraws must be 0 or at least 2"
            )
        return self
