"""Along a training: from the steps that a solver or likelihood names to one choice for each of them.

    ancestral-25: {.., at: 500}              ancestral-25, of step 500
    ancestral-25: {.., at: [500, last]}      ancestral-25@500 and ancestral-25, each of its step

A cell that says ``at`` finds its job whichever way it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from diffbench.specs.training import TrainingSpec
from diffbench.specs.weights import OfWeights, step_of

if TYPE_CHECKING:
    from diffbench.plan.jobs import Plan

W = TypeVar("W", bound=OfWeights)


def at_step(item: str, step: int) -> str:
    """Return the id of an item of a list at a step before the last; no id that is written has the sign."""
    return f"{item}@{step}"


def each_step(choices: Mapping[str, W], training: TrainingSpec | None) -> dict[str, W]:
    """Return one choice for each of the weights that they name, which the training keeps; the last step has no name."""
    if training is None:
        return dict(choices)
    found: dict[str, W] = {}
    for item, choice in choices.items():
        for named in choice.places:
            step = step_of(named, training.steps)
            last, listed = step == training.steps, isinstance(choice.at, tuple)
            name = at_step(item, step) if listed and not last else item
            found[name] = choice.of(None if last else step)
    return found


@dataclass(frozen=True)
class Kept:
    """What trainings of some variants write beside the model, relative to its folder.

    variants: a regular expression of their ids.
    others: files of other steps and lengths.
    """

    variants: str
    others: tuple[Path, ...]


def training_rules(plan: Plan) -> dict[str, Kept]:
    """Return the rules of a workflow that its trainings need, by name: one for each list of files.

    ``train`` has no others; those of trainings that keep snapshots are ``train_along``, ``train_along_2`` and so on.
    """
    groups: dict[tuple[Path, ...], list[str]] = {(): []}
    for run in plan.of("train"):
        others = tuple(path.relative_to(run.product.parent) for path in run.products[1:])
        groups.setdefault(others, []).append(run.variant)
    kept = [
        Kept("|".join(map(re.escape, dict.fromkeys(names))), others)
        for others, names in groups.items()
        if names
    ]
    along = iter(range(1, len(kept) + 1))
    return {_rule(each, along): each for each in kept}


def _rule(kept: Kept, numbers: Iterator[int]) -> str:
    if not kept.others:
        return "train"
    number = next(numbers)
    return "train_along" if number == 1 else f"train_along_{number}"
