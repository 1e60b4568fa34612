r"""What can be concluded from a few seeds: intervals, p values, and several tests at once.

Of n numbers with mean m and standard deviation s, independent and normal, (m - mu) sqrt(n)/s has Student's t
distribution with n - 1 degrees of freedom, mu being their expectation.  So

    interval     m +- t_{n-1, 0.975} s/sqrt(n)                      has mu in 95 % of the cases
    p value      P(|t_{n-1}| >= |m - margin| sqrt(n)/s)             of the hypothesis that mu is the margin, two-sided
    Welch        of two sets with means m_i and variances of the mean v_i = s_i^2/n_i, (m_2 - m_1)/sqrt(v_1 + v_2) has
                 about the t distribution with (v_1 + v_2)^2/sum v_i^2/(n_i - 1) degrees of freedom
    Holm         of k p values in rising order p_1 <= ... <= p_k, the adjusted p_i is max_{j <= i} (k + 1 - j) p_j,
                 at most 1

Rejecting what has an adjusted p value of at most 0.05 rejects a true hypothesis, any of the k, with a probability of
at most 5 %, whatever the tests share.  Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

CONFIDENCE = 0.95
#: The largest adjusted p value with which a hypothesis is rejected.
LEVEL = 0.05

K = TypeVar("K")


def _quantile(freedom: float) -> float:
    """Return where the 95 % interval of Student's t distribution ends."""
    # scipy.stats has it too, and takes a second to be imported.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _both_tails(t: float, freedom: float) -> float:
    """Return the probability that Student's t is at least as far from 0 as t >= 0."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -t))


def half_width(sd: float, n: int) -> float:
    """Return half the 95 % interval of the mean of n >= 2 numbers with standard deviation ``sd``."""
    found: float = _quantile(n - 1) * sd / n**0.5
    return found


def half_width_of_one(se: float) -> float:
    """Return half the 95 % interval of one normally distributed number with the standard error ``se``."""
    return statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * se


def interval(effects: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of at least two effects."""
    mean, half = statistics.fmean(effects), half_width(statistics.stdev(effects), len(effects))
    return mean - half, mean + half


def p_value(effects: Sequence[float], margin: float) -> float:
    """Return the two-sided p value of at least two effects against ``margin``; 1 or 0 where all effects are equal."""
    n, sd = len(effects), statistics.stdev(effects)
    apart = abs(statistics.fmean(effects) - margin)
    if sd == 0:
        return float(apart == 0)
    return _both_tails(apart * n**0.5 / sd, n - 1)


class Welch(NamedTuple):
    """The difference of two means: its 95 % interval, and the two-sided p value against 0."""

    low: float
    high: float
    p: float


def welch(a: Sequence[float], b: Sequence[float]) -> Welch:
    """Return what at least two numbers on each side say of mean b - mean a; p is 1 or 0 where no side varies."""
    squares = [statistics.variance(each) / len(each) for each in (a, b)]
    apart, se = statistics.fmean(b) - statistics.fmean(a), sum(squares) ** 0.5
    if se == 0:
        return Welch(apart, apart, float(apart == 0))
    freedom = se**4 / sum(
        square**2 / (len(each) - 1) for square, each in zip(squares, (a, b), strict=True)
    )
    half = _quantile(freedom) * se
    return Welch(apart - half, apart + half, _both_tails(abs(apart) / se, freedom))


def outlier(value: float, others: Sequence[float]) -> float:
    """Return the two-sided p value of a number, given at least two others of the same distribution.

    Of n others with mean m and standard deviation s, (value - m)/(s sqrt(1 + 1/n)) has the t distribution with n - 1
    degrees of freedom.
    """
    n, sd = len(others), statistics.stdev(others)
    apart = abs(value - statistics.fmean(others))
    if sd == 0:
        return float(apart == 0)
    return _both_tails(apart / (sd * (1 + 1 / n) ** 0.5), n - 1)


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Return the p value of each test of a family, adjusted by Holm's method."""
    adjusted: dict[K, float] = {}
    largest = 0.0
    for index, key in enumerate(sorted(p_values, key=lambda each: p_values[each])):
        largest = max(largest, (len(p_values) - index) * p_values[key])
        adjusted[key] = min(largest, 1.0)
    return adjusted
