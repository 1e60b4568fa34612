r"""Power-function averages of any length from those of a few lengths that were kept along a training.

The average of t steps with exponent gamma weighs the weights of time tau by the profile

    p_{t,gamma}(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)      0 <= tau <= t,  0 after t

Its relative length is std = sqrt(gamma + 1)/((gamma + 2) sqrt(gamma + 3)), and so std^2 (gamma + 2)^2 (gamma + 3) =
gamma + 1.  Weights change at whole steps only, theta(tau) = theta_n for n - 1 < tau <= n, and then the rule
(1 - 1/n)^(gamma + 1) of `networks.ema` is this integral exactly.  A profile p that was not kept is approximated by
sum_i x_i p_i of those that were kept, with the least squared distance over time:

    A x = b,    A_ij = <p_i, p_j>,  b_i = <p_i, p>
    <p_{s,g}, p_{t,h}> = (g + 1)(h + 1)/(g + h + 1) (s/t)^h / t      for s <= t

and the averages are combined with the same x (`networks.ema.joined`).  The error is at most the distance of the
profiles times the size of the weights:

    |sum_i x_i theta_i - theta| <= ||sum_i x_i p_i - p||_1 max |theta(tau)|

Source: "Analyzing and Improving the Training Dynamics of Diffusion Models" (Karras et al. 2024,
https://arxiv.org/abs/2312.02696, section 3 and appendix C).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from diffbench.specs.weights import Weights

Array = npt.NDArray[Any]
#: Directions of the profiles whose squared size is below this part of the largest are rounding.
NEGLIGIBLE = 1e-14

#: The part of a profile that may be missed (`missed`): above it the weights are those of another length.
TOLERATED = 0.1


def exponent(std: float) -> float:
    """The exponent gamma of a relative length in (0, 1/sqrt(12))."""
    inverse = std**-2
    roots = np.roots([1.0, 7.0, 16 - inverse, 12 - inverse])
    return float(roots.real.max())


def products(first: Sequence[Weights], second: Sequence[Weights]) -> Array:
    """The products <p_i, p_j> of the profiles of two lists of weights, (len(first), len(second))."""
    s, g = _columns(first)
    t, h = _columns(second)
    s, g = s[:, None], g[:, None]
    later = np.maximum(s, t)
    ratio, power = np.minimum(s, t) / later, np.where(s <= t, h, g)
    found: Array = (g + 1) * (h + 1) / (g + h + 1) * ratio**power / later
    return found


def _columns(profiles: Sequence[Weights]) -> tuple[Array, Array]:
    steps = np.array([float(each.step) for each in profiles])
    return steps, np.array([exponent(each.length or 0.0) for each in profiles])


def shares(kept: Sequence[Weights], wanted: Weights) -> Array:
    """The x of the module: the share of each average that was kept in the one that is wanted."""
    gram, aim = products(kept, kept), products(kept, [wanted])[:, 0]
    # Scaled to profiles of one size: those of early steps are far larger.
    scale = 1 / np.sqrt(np.diag(gram))
    solved: Array = np.linalg.lstsq(gram * scale[:, None] * scale, aim * scale, NEGLIGIBLE)[0]
    found: Array = solved * scale
    return found


def missed(kept: Sequence[Weights], wanted: Weights) -> float:
    """The part of a profile that is missed: ||sum_i x_i p_i - p|| / ||p||, both in the mean square."""
    x, whole = shares(kept, wanted), [*kept, wanted]
    along = np.append(x, -1.0)
    size = products([wanted], [wanted])[0, 0]
    return float(np.sqrt(max(along @ products(whole, whole) @ along, 0.0) / size))
