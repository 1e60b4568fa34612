"""Specs of measures of samples that a benchmark asks for, besides those that all samples are scored by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from diffbench.specs.base import Fraction, Int, NonNegativeInt, PositiveInt, Registered

Better = Literal["lower", "higher"]


class MeasureSpec(Registered):
    """A measure of samples: of the features that they are scored by, or FID by other features of the extractor."""

    kind: ClassVar[str] = "measure"
    #: Each metric -> which of its values are better.
    better: ClassVar[Mapping[str, Better]] = {}
    #: What its metrics tell from new images of the training distribution: other images, or copies of training images.
    against: ClassVar[Literal["others", "copies"]] = "others"
    #: Whether it draws sets of the samples, so that their order matters within its standard error.
    draws: ClassVar[bool] = False
    #: The extractor's further opinion whose FID it is; empty for a measure with a class of its own.
    opinion: ClassVar[str] = ""

    name: str


class DensityCoverageSpec(MeasureSpec):
    """Density and coverage: how many training images' neighbourhoods hold a sample, and how many hold any.

    neighbours: a neighbourhood ends at the training image's neighbour of this number.
    """

    name: Literal["density-coverage"] = "density-coverage"
    implementation: ClassVar[str] = "diffbench.metrics.measures:DensityCoverage"
    better: ClassVar[Mapping[str, Better]] = {"density": "higher", "coverage": "higher"}

    neighbours: PositiveInt = 5


class AuthenticitySpec(MeasureSpec):
    """Authenticity: the share of samples that are not nearer to a training image than other training images are."""

    name: Literal["authenticity"] = "authenticity"
    implementation: ClassVar[str] = "diffbench.metrics.measures:Authenticity"
    better: ClassVar[Mapping[str, Better]] = {"authenticity": "higher"}
    against: ClassVar[Literal["others", "copies"]] = "copies"


class FDInfinitySpec(MeasureSpec):
    """FD at infinite N: FID of sets of several sizes N, extrapolated along a line in 1/N.

    points: the number of sizes, evenly spaced up to all samples.
    least: the smallest size as a fraction of all samples; at least twice as many as there are features.
    seed: the seed by which the sets are drawn.
    """

    name: Literal["fd-infinity"] = "fd-infinity"
    implementation: ClassVar[str] = "diffbench.metrics.measures:FDInfinity"
    better: ClassVar[Mapping[str, Better]] = {"fd_infinity": "lower"}
    draws: ClassVar[bool] = True

    points: Annotated[Int, Field(ge=3)] = 15
    least: Annotated[Fraction, Field(gt=0, lt=1)] = 0.1
    seed: NonNegativeInt = 0


class SpatialFIDSpec(MeasureSpec):
    """sFID: FID by features that keep where in the image they are."""

    name: Literal["sfid"] = "sfid"
    opinion: ClassVar[str] = "sfid"
    better: ClassVar[Mapping[str, Better]] = {"sfid": "lower"}
