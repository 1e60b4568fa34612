"""From the steps of a training that a solver or likelihood names to one choice for each step.

    ancestral-25: {.., at: 500}              ancestral-25, of step 500
    ancestral-25: {.., at: [500, last]}      ancestral-25@500 and ancestral-25, each of its step

A cell that says ``at`` finds its job whichever way it was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from diffbench.specs.training import TrainingSpec
from diffbench.specs.weights import OfWeights, step_of

W = TypeVar("W", bound=OfWeights)


def at_step(item: str, step: int) -> str:
    """Return the id of an item at one of several steps, before the last; no id in a file has the sign @."""
    return f"{item}@{step}"


def each_step(choices: Mapping[str, W], training: TrainingSpec | None) -> dict[str, W]:
    """Return id -> one choice for each step that a choice names; the last step leaves the id as it is."""
    if training is None:
        return dict(choices)
    found: dict[str, W] = {}
    for item, choice in choices.items():
        for named in choice.step_names:
            step = step_of(named, training.steps)
            at_end, listed = step == training.steps, isinstance(choice.at, tuple)
            name = at_step(item, step) if listed and not at_end else item
            found[name] = choice.of(None if at_end else step)
    return found
