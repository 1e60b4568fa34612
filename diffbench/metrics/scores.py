"""A score: one number with its standard error."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

#: ``value`` and ``se``, the standard error; None where there is none.  Without a value, ``reason`` says why.
Score = dict[str, Any]


def undefined(reason: str) -> Score:
    """Return the score of a metric that has no value, and why: one metric without a value leaves the others alone."""
    return {"value": None, "se": None, "reason": reason}


def defined(value: float, error: float | None) -> Score:
    """Return a score; a value that is not finite becomes a reason, and an error that is not is left out."""
    if not math.isfinite(value):
        return undefined(f"it is {value} for these images")
    return {"value": value, "se": error if error is not None and math.isfinite(error) else None}


def mean_of(values: Tensor) -> Score:
    """Return the mean of one number an image, and its standard error, which a single image does not have."""
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
    return defined(float(values.mean()), error)
