"""What every spec of a process states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from diffbench.specs.base import Float, Registered

#: The variance of a step of a discrete chain: the posterior's, that of the forward step, or a learned one in between.
Variance = Literal["small", "large", "learned"]

#: The data ranges that papers write their processes for.
RANGES = ((-1.0, 1.0), (0.0, 1.0))

#: A time, or what is computed from it: a float or a tensor of float64.
Real = Any


def increasing(lower: str, upper: str) -> Callable[[Any], Any]:
    """Return a validator: the field ``lower`` must be below the field ``upper``."""

    def check(spec: Any) -> Any:
        low, high = getattr(spec, lower), getattr(spec, upper)
        if low >= high:
            raise ValueError(f"{lower} {low} must be below {upper} {high}")
        return spec

    return check


class ProcessSpec(Registered):
    """A process of any family.

    low, high: the range of the data, -1 and 1 or 0 and 1.  The process shrinks the data towards the middle of the
        range, and its own constants are in units of the range.  With these constants mapped to another range,
        everything is the same but for the map.
    """

    kind: ClassVar[str] = "process"
    family: ClassVar[str] = "gaussian"
    time: ClassVar[Literal["discrete", "continuous"]] = "continuous"
    alpha: ClassVar[Literal["scalar", "vector"]] = "scalar"
    #: Half the width of the data range for which the process's paper writes its formulas.
    written_for: ClassVar[float] = 1.0
    #: The views that a prediction has; ``viewless`` is the reason why it has no other.
    views: ClassVar[tuple[str, ...]] = ("eps", "x0", "v", "score", "mean")
    viewless: ClassVar[str] = ""
    #: Whether states stay between ``low`` and ``high``, so that grey levels are cells inside that range.
    bounded: ClassVar[bool] = False
    #: Whether noise grows with time, or is the same at every level.
    noise: ClassVar[Literal["growing", "constant"]] = "growing"
    #: Facts of the data set that are arguments of the process's class, besides the spec.
    facts: ClassVar[tuple[Literal["image_shape", "images"], ...]] = ()
    #: Whether uniform times cover all noise levels evenly; they do not where time is sigma itself.
    even: ClassVar[bool] = True
    #: What is 1 at all times: alpha (``signal``), alpha^2 + sigma^2 (``power``) or neither.
    keeps: ClassVar[Literal["signal", "power", ""]] = ""

    name: str
    # Specs leave [-1, 1] out, so that they are the same as before there were ranges.
    low: Annotated[Float, Field(exclude_if=lambda low: low == -1)] = -1.0
    high: Annotated[Float, Field(exclude_if=lambda high: high == 1)] = 1.0

    @model_validator(mode="after")
    def _range_is_known(self) -> Self:
        if (self.low, self.high) not in RANGES:
            raise ValueError(
                f"low, high: the data range must be [-1, 1] or [0, 1], not {self.range}"
            )
        return self

    @property
    def t_min(self) -> float:
        """The smallest time at which a denoiser may be evaluated."""
        return 0.0

    @property
    def t_max(self) -> float:
        """The largest time, at which sampling starts."""
        return 1.0

    @property
    def last(self) -> float:
        """The last time with noise in a sampler's grid by default: the cut-off of the process's paper."""
        return self.t_min

    @property
    def ratios(self) -> tuple[float, float] | None:
        """The range of sigma/alpha; None where only the process's class can compute it."""
        return None

    @property
    def growth(self) -> float | None:
        """The constant value of g^2/sigma^2; None where it depends on time."""
        return None

    @property
    def steady(self) -> float | None:
        """The constant value of sigma; None where it depends on time."""
        return None

    @property
    def level_count(self) -> int | None:
        """How many levels a chain has; None in continuous time."""
        return round(self.t_max) + 1 if self.time == "discrete" else None

    @property
    def chain_rate(self) -> float:
        """The largest beta(t), if a forward step is sqrt(1 - beta(t) (t - s)) x_s plus noise; else 0."""
        return 0.0

    @property
    def langevin_rate(self) -> float:
        """The largest beta(t), if a Langevin step is scaled by 1 - beta(t)/N; else 0."""
        return 0.0

    @property
    def middle(self) -> float:
        """The middle of the data range."""
        return (self.high + self.low) / 2

    @property
    def half_range(self) -> float:
        """Half the width of the data range: 1 for [-1, 1]."""
        return (self.high - self.low) / 2

    @property
    def unit(self) -> float:
        """The length that the process's paper calls 1: 1, unless the data range is not the paper's."""
        return self.half_range / self.written_for

    @property
    def range(self) -> str:
        """The data range in words."""
        return f"[{self.low:g}, {self.high:g}]"

    @property
    def centre_of_prior(self) -> float:
        """The mean of every pixel of a Gaussian prior."""
        return self.middle

    def in_range(self, length: float) -> float:
        """Return a length that is stated for data in [-1, 1], in units of this range."""
        return self.half_range * length

    def in_units(self, length: float) -> float:
        """Return a length in units of this range, as it is for data in [-1, 1]."""
        return length / self.half_range
