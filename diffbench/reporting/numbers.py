"""Numbers for people: as many digits as their error allows.

    2.31 ± 0.12   mean and standard deviation over seeds
    2.31 (0.12)   one seed and its standard error over samples or test images

An error is shown to one significant digit, to two when the first is 1, and the value to as many
decimals.
"""

from __future__ import annotations

import math

MOST_DECIMALS = 8


def decimals(value: float, digits: int) -> int:
    """Return how many decimals show ``digits`` significant digits."""
    if value == 0 or not math.isfinite(value):
        return 0
    # Rounded first: 0.0996 to two digits is 0.10, whose first digit is one place earlier.
    exponent = int(f"{abs(value):.{digits - 1}e}".partition("e")[2])
    return min(max(digits - 1 - exponent, 0), MOST_DECIMALS)


def plain(value: float, digits: int = 3) -> str:
    """Return a number to some significant digits; digits of its whole part all stay; "0" when it rounds to 0."""
    if not float(f"{value:.{MOST_DECIMALS}f}"):
        return "0"
    return f"{value:z.{decimals(value, digits)}f}"


def with_error(value: float, error: float | None, over_seeds: bool, digits: int = 3) -> str:
    """Return a number and its error as text; the number alone when the error is unknown or 0."""
    if not error:
        return plain(value, digits)
    first = f"{error:.0e}"[0]
    places = decimals(error, 2 if first == "1" else 1)
    shown, spread = f"{value:z.{places}f}", f"{error:.{places}f}"
    return f"{shown} ± {spread}" if over_seeds else f"{shown} ({spread})"


def count(value: float | None) -> str:
    """Return a count as text, with one decimal when it is a mean of several counts; empty without a count."""
    if value is None:
        return ""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
