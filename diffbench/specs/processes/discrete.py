"""Specs of the discrete chains."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from diffbench.specs.base import LevelCount, PositiveFloat, nothing
from diffbench.specs.processes.process import ProcessSpec

#: What a level of a chain adds to the variance.
Beta = Annotated[PositiveFloat, Field(lt=1)]


def linear_ends(
    steps: int, beta_first: float | None = None, beta_last: float | None = None
) -> tuple[float, float]:
    """Return the first and last beta of DDPM's linear schedule, the paper's where they are not given.

    Raises:
        ValueError: where the paper's scaled last beta reaches 1 (20 steps or fewer).
    """
    scale = 1000 / steps
    beta_first = 1e-4 * scale if beta_first is None else beta_first
    beta_last = 0.02 * scale if beta_last is None else beta_last
    if beta_last >= 1:
        raise ValueError(
            f"the linear schedule needs more than 20 steps, not {steps}, or a beta_last: its last beta is 20/steps"
        )
    return beta_first, beta_last


class DiscreteSpec(ProcessSpec):
    """The discrete chain of DDPM (Ho et al. 2020) with the schedules of DDPM and Improved DDPM.

    ``linear``: beta from 1e-4 to 0.02 at 1,000 steps, scaled by 1000/steps otherwise, unless ``beta_first`` and
    ``beta_last`` give those at the first and last level; ``cosine``: Nichol & Dhariwal 2021, equation 17, s = 0.008,
    beta clipped at 0.999.
    """

    name: Literal["discrete"] = "discrete"
    implementation: ClassVar[str] = "diffbench.diffusion.processes.discrete:Discrete"
    time: ClassVar[Literal["discrete", "continuous"]] = "discrete"
    keeps: ClassVar[Literal["signal", "power", ""]] = "power"

    schedule: Literal["linear", "cosine"]
    steps: LevelCount = 1000
    beta_first: Annotated[Beta | None, BeforeValidator(nothing)] = None
    beta_last: Annotated[Beta | None, BeforeValidator(nothing)] = None

    @property
    def t_max(self) -> float:
        """The last level."""
        return self.steps - 1.0

    @property
    def ends(self) -> dict[str, float]:
        """The betas at the ends that are given, by the names of the schedule's arguments."""
        said = {"beta_first": self.beta_first, "beta_last": self.beta_last}
        return {name: beta for name, beta in said.items() if beta is not None}

    @model_validator(mode="after")
    def _betas_stay_below_one(self) -> Self:
        if self.schedule == "linear":
            linear_ends(self.steps, **self.ends)
        elif self.ends:
            raise ValueError(
                "beta_first, beta_last: these are the ends of the linear schedule, but the schedule is "
                f"{self.schedule}"
            )
        return self
