"""A score: one number with its standard error."""

from __future__ import annotations

from torch import Tensor

#: ``value`` and ``se``, the standard error; None where there is none.
Score = dict[str, float | None]


def mean_of(values: Tensor) -> Score:
    """Return the mean of one number an image, and its standard error, which a single image does not have."""
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
    return {"value": float(values.mean()), "se": error}
