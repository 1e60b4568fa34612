"""Which weights of a training are meant: of which step, averaged over which length.

A training of N steps keeps averaged weights at the steps t_1 < ... < t_k of its ``snapshots`` and at the last, N.  They
are named by their step, by a fraction f of the run (step round(f N)), or as ``last``.  Those of a power-function
average also have a length (``specs.averages``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, PlainSerializer, PlainValidator

from diffbench.specs.averages import Length
from diffbench.specs.base import Spec, number

#: The word for the end of a training.
LAST: Literal["last"] = "last"
#: The name of a step of a run: its number, a fraction of the run, or the word for the end.
StepName = int | float | Literal["last"]


class Weights(NamedTuple):
    """Averaged weights: their step, and the relative length of a power-function average, else None."""

    step: int
    length: float | None = None


def _step(value: Any) -> int | float:
    """Return a step 1, 2, ..., or a fraction of the run, however it is written."""
    found = number(value)
    if isinstance(found, float) and found.is_integer() and found > 1:
        found = int(found)
    if (type(found) is int and found >= 1) or (type(found) is float and 0 < found < 1):
        return found
    raise ValueError(
        f"{value!r} is not a step: it must be a whole number of at least 1, or a fraction of the run, above 0 and "
        "below 1"
    )


def _step_name(value: Any) -> StepName:
    return LAST if value == LAST else _step(value)


def _cell(value: Any) -> int | float | None:
    """Return one step or fraction of a run; None for the last step."""
    return None if value in (None, "none", LAST) else _step(value)


def _step_names(value: Any) -> Any:
    """Return one step or fraction of a run, or a tuple of them."""
    if not isinstance(value, list | tuple):
        return _cell(value)
    if not value:
        raise ValueError("the list is empty; name a step, or leave the key out")
    return tuple(_step_name(each) for each in value)


#: A step, or a fraction of the run.
Step = Annotated[int | float, PlainValidator(_step)]
#: The step of the weights of one cell, by default the last step.
CellAt = Annotated[int | float | None, PlainValidator(_cell)]
#: One such step, or a list of steps, each with its own job.
StepNames = Annotated[
    int | float | tuple[StepName, ...] | None,
    PlainValidator(_step_names),
    PlainSerializer(lambda value: value, return_type=Any),
]


def step_of(named: StepName | None, steps: int) -> int:
    """Return the step that a name means in a run of ``steps`` steps."""
    if named is None or named == LAST:
        return steps
    return round(named * steps) if isinstance(named, float) else named


def untold(value: object) -> bool:
    """Say whether a resolved spec leaves a key out: an unused key is left out, so that older results stay valid."""
    return value is None or value == ()


class OfWeights(Spec):
    """A spec that may name the weights that it uses.

    at: the step, or the fraction of the run, whose averaged weights are used; one of the budget's ``snapshots``, or
        ``last``, the default.  A list makes a job of each: ``ancestral-25`` of the last, ``ancestral-25@500``, ...
    ema_std: the length of a power-function average (``ema: {name: power}``), relative to the steps so far; a length
        that was not tracked is reconstructed from those that were.
    """

    at: StepNames = Field(default=None, exclude_if=untold)
    ema_std: Length | None = Field(default=None, exclude_if=untold)

    @property
    def step_names(self) -> tuple[StepName, ...]:
        """All steps that ``at`` names; the last step where it names none."""
        if isinstance(self.at, tuple):
            return self.at
        return (LAST if self.at is None else self.at,)

    @property
    def at_step(self) -> int | None:
        """The step of the weights, where ``at`` names one; None for the last step."""
        assert self.at is None or isinstance(self.at, int)
        return self.at

    @property
    def names_weights(self) -> bool:
        """Whether it names weights, by a step or a length."""
        return self.at is not None or self.ema_std is not None

    def of(self, step: int | None) -> Self:
        """Return this spec with the weights of one step; None for the last step."""
        return self.model_copy(update={"at": step})

    @property
    def plain(self) -> Self:
        """This spec with the default weights."""
        return self.model_copy(update={"at": None, "ema_std": None})
