"""Specs of the Langevin corrector."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, model_validator

from diffbench.specs.base import LevelCount, Only, OnlyFor, PositiveFloat, StepCount, nothing
from diffbench.specs.needs import HasNeeds, Needs, Rule, view
from diffbench.specs.processes import ProcessSpec


def _scale_is_positive(spec: LangevinSpec, process: ProcessSpec) -> str | None:
    """The factor 1 - beta(t)/N of eps must be above 0."""
    beta = process.langevin_rate
    if spec.step_size is not None or spec.levels > beta:
        return None
    return (
        f"levels: {spec.levels} is too small: 1 - beta/N must be above 0, and {process.name} has beta up to "
        f"{beta:g}; take at least {math.floor(beta) + 1}"
    )


class LangevinSpec(HasNeeds):
    """The Langevin corrector: x + eps score + sqrt(2 eps) z (Song et al. 2021, algorithms 4 and 5).

    snr: r in eps = 2 a (r |z|/|score|)^2, where the norms are means over the images that are drawn at a time
        (the benchmark's ``chunk``) and a is 1 for VE and EDM, 1 - beta(t)/N for VP and sub-VP, 1 - beta_t on a chain.
    rule: ``norms`` is this formula; ``annealed`` has eps = 2 a (r sigma_t)^2, the annealed Langevin dynamics of Song
        & Ermon 2019, algorithm 1, as in Song et al. 2021, official code.
    step_size: eps itself, in place of ``snr``: a variance, for the data range of the process's paper.
    longest: the largest eps, a variance like ``step_size``.  By default 0.5 on ``reflected``, where the noise is then
        as wide as the cube, and no limit elsewhere.
    updates: the number of updates at each level.
    levels: N, in continuous time; a chain has its own number, and VE and EDM need none.
    order: ``predictor-first`` as in the paper's algorithms, or ``corrector-first`` as in its code, which
        corrects at the prior's level too, but not at the last level.
    """

    asker: ClassVar[str] = "a Langevin step"
    needs: ClassVar[Needs] = (
        view("score").hinting("leave the corrector out"),
        Rule(_scale_is_positive),
    )
    belonging: ClassVar[tuple[Only | OnlyFor, ...]] = (
        Only("levels", "snr"),
        OnlyFor(
            "levels",
            lambda process: process.time == "continuous" and process.keeps != "signal",
            "one of continuous time that scales the image",
        ),
    )

    snr: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    rule: Literal["norms", "annealed"] = "norms"
    step_size: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    longest: Annotated[PositiveFloat | None, BeforeValidator(nothing)] = None
    updates: StepCount = 1
    levels: LevelCount = 1000
    order: Literal["predictor-first", "corrector-first"] = "predictor-first"

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.snr is None) == (self.step_size is None):
            raise ValueError("give exactly one of snr (0.16 is usual) and step_size")
        if self.step_size is not None and self.rule != "norms":
            raise ValueError(
                f"rule: {self.rule} computes the step size from snr, but step_size is given; leave one "
                "of the two out"
            )
        if self.step_size is not None and self.longest is not None:
            raise ValueError(
                "longest: it limits the step size from snr, but step_size is given; leave one of the "
                "two out"
            )
        return self


def a_corrector(value: object) -> object:
    """Return None for ``none``, and a mapping as it is; refuse any other value."""
    if not isinstance(value, dict | LangevinSpec | None | str) or (
        isinstance(value, str) and value != "none"
    ):
        raise ValueError(f"must be a mapping such as {{snr: 0.16}}, not {value!r}")
    return nothing(value)


class LangevinOnlySpec(LangevinSpec):
    """The Langevin corrector without a predictor: by default two updates at a level, then the next level."""

    updates: StepCount = 2
    order: Literal["corrector-first"] = "corrector-first"


def a_corrector_alone(value: object) -> object:
    """Return a mapping as it is; refuse any other value, ``none`` too."""
    if value is None or value == "none":
        raise ValueError("langevin needs a corrector; {snr: 0.22} is usual")
    return a_corrector(value)
