"""When two denoisers are one function of their network, and two objectives one loss, whatever their names.

A network F enters training and sampling only through the noise that it predicts,

    eps = p x_t + q F(c_in x_t; c_noise)

so two denoisers with the same p, q, c_in and c_noise (q up to its sign, which the last layer takes in) are one function
of the network.  With v(s) = alpha^2 s^2 + sigma^2:

    output    p               q                  named by
    noise     0               1                  eps, score
    signal    1/sigma         -alpha/sigma       x0
    skip s    sigma/v(s)      -alpha s/sqrt(v)   EDM's skip inside anything (s its data_std), and v, whose s is 1
    mean      the posterior mean of the level before, a x_t + b x0, is F; with residual or addition x_t is added to it

and a squared error of any view is a weight times the squared error of eps:

    eps 1,   score sigma^-2,   x0 sigma^2/alpha^2,   v v(1)/alpha^2,   mean b^2 sigma^2/alpha^2

A weight is a product of powers.  Powers of what a process keeps at 1 (alpha, or v(1)) are left out; g^2/sigma^2 is a
number where noise grows geometrically, and sigma is a number where it does not grow.  So two weights are the same
function of time exactly where their powers are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from diffbench.specs.processes import ProcessSpec

View = Literal["eps", "x0", "v", "score", "mean"]


class Form(NamedTuple):
    """A denoiser as a function of its network.

    output: what F is made into (see the module), and the s of a skip (0 without a skip).
    input: what the network sees: the s of c_in = 1/sqrt(v(s)), 0 where c_in is constant, and c_noise.

    Each s is for data in [-1, 1], as ``data_std``.
    """

    output: tuple[str, float]
    input: tuple[float, str]


class Weight(NamedTuple):
    """``scale`` times a product of powers: of alpha, sigma, g, b and v(s), each of which depends on time.

    Two weights with equal ``powers`` differ only in their scale.
    """

    powers: frozenset[tuple[str, int]]
    scale: float = 1.0


class LossForm(NamedTuple):
    """What is minimised at one time.

    weight: the weight of the squared error of eps; None where there is no such error.
    beside: other terms, in words: terms of the bound, or an objective that is known only by its keys.
    """

    weight: Weight | None
    beside: str = ""


def squared(s: float) -> str:
    """Return the symbol of v(s)."""
    return f"v({s:.12g})"


#: View -> the powers in the weight of its squared error.
VIEWS: Mapping[View, Mapping[str, int]] = {
    "eps": {},
    "score": {"sigma": -2},
    "x0": {"sigma": 2, "alpha": -2},
    "v": {squared(1): 1, "alpha": -2},
    "mean": {"b": 2, "sigma": 2, "alpha": -2},
}


def weight_of(
    process: ProcessSpec,
    view: View,
    powers: Mapping[str, int] | None = None,
    scale: float = 1.0,
) -> Weight:
    """Return scale times powers times the squared error of a view, as a weight of the squared error of eps."""
    total = dict(VIEWS[view])
    for symbol, power in (powers or {}).items():
        total[symbol] = total.get(symbol, 0) + power
    if process.growth is not None:
        twice, odd = divmod(total.get("g", 0), 2)
        total |= {"g": odd, "sigma": total.get("sigma", 0) + 2 * twice}
        scale *= process.growth**twice
    if process.steady is not None:
        scale *= process.steady ** total.pop("sigma", 0)
    kept = {"signal": "alpha", "power": squared(1), "": ""}[process.keeps]
    left = {(symbol, power) for symbol, power in total.items() if power and symbol != kept}
    return Weight(frozenset(left), scale)
