r"""The times of a path, and coefficients known at all of them.

A solver goes through times t_0 > t_1 > .. > t_n.  At each step it, its denoiser and its prediction ask for the same
functions of t, or of t and the next time s: alpha_t, sigma_t, the scales of the step.  A function marked ``tabled`` is
evaluated once, at all times of the path together, when it is first asked for at one of them: an operation on n numbers
costs about as much as one on a single number.  At any other time it is evaluated as if it were not marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

#: A function of times, by its type.
Coefficient = TypeVar("Coefficient", bound=Callable[..., Any])

#: Shorter paths are not worth a table.
SHORTEST = 8


class Path:
    """Times (n + 1,), float64 on the CPU, each of them also as a tensor of its own, by which it is recognised.

    Attributes:
        points: the times, tensors of shape ().
    """

    def __init__(self, times: Tensor) -> None:
        self.times, self.points = times, times.unbind()
        #: The place of each point, by its identity.
        self.place = {id(point): i for i, point in enumerate(self.points)}
        self.tables: dict[tuple[Any, ...], list[Any] | None] = {}

    def find(self, t: Tensor) -> int | None:
        """The place of a point; None of any other tensor, and of a point of another path."""
        at = self.place.get(id(t))
        return at if at is None or self.points[at] is t else None

    def table(
        self, coefficient: Callable[..., Any], owner: Any, steps: bool, others: tuple[Any, ...]
    ) -> list[Any] | None:
        """The values of a function at all points, or of all ``steps``; None of one that is not a number a time."""
        key = coefficient, owner, others
        if key not in self.tables:
            self.tables[key] = self.values(coefficient, owner, steps, others)
        return self.tables[key]

    def values(
        self, coefficient: Callable[..., Any], owner: Any, steps: bool, others: tuple[Any, ...]
    ) -> list[Any] | None:
        """The values for the table, by one evaluation.

        Times have the shape (n, 1, 1, 1), as those of n images.  A function with several values for each time, one for
        each coordinate of a basis, has no table: it would be large.
        """
        times = self.times.reshape(-1, 1, 1, 1)
        asked = (times[:-1], times[1:]) if steps else (times,)
        first = columns(coefficient(owner, *(each[:1] for each in asked), *others))
        if any(each.shape != (1, 1, 1, 1) for each in first):
            return None
        found = coefficient(owner, *asked, *others)
        values = [known(column.flatten()) for column in columns(found)]
        if not isinstance(found, tuple):
            return values[0]
        made = getattr(type(found), "_make", tuple)
        return [made(row) for row in zip(*values, strict=True)]


def columns(found: Any) -> tuple[Tensor, ...]:
    """The tensors that a coefficient function returned."""
    return found if isinstance(found, tuple) else (found,)


def known(column: Tensor) -> list[Tensor]:
    """The numbers of a column (n,) as n tensors of shape (), each with its other forms (``cast``, ``number``)."""
    values, singles = list(column.unbind()), column.to(torch.float32).unbind()
    for value, single, number in zip(values, singles, column.tolist(), strict=True):
        vars(value).update(single=single, number=number)
    return values


def tabled(coefficient: Coefficient) -> Coefficient:
    """A function of (owner, t, ..) or (owner, t, s, ..), with a table at the times of the owner's ``path``.

    What follows the times is part of the question and must be hashable.  Nothing may change a result in place.
    """

    @wraps(coefficient)
    def asked(owner: Any, t: Tensor, *others: Any) -> Any:
        path = owner.path
        at = None if path is None else path.find(t)
        if at is None:
            return coefficient(owner, t, *others)
        steps = bool(others) and isinstance(others[0], Tensor)
        if steps and path.find(others[0]) != at + 1:
            return coefficient(owner, t, *others)
        table = path.table(coefficient, owner, steps, others[steps:])
        return coefficient(owner, t, *others) if table is None else table[at]

    return cast(Coefficient, asked)


def followed(
    path: Path | None, times: Tensor | Iterable[Tensor]
) -> tuple[Path | None, tuple[Tensor, ...]]:
    """The path of these times, the given one where it has the same, and its points.

    Few times, or times that are not one tensor on the CPU, leave the given path as it is.
    """
    if not isinstance(times, Tensor) or len(times) < SHORTEST or not times.is_cpu:
        return path, tuple(times)
    if path is None or not torch.equal(path.times, times):
        path = Path(times)
    return path, path.points
