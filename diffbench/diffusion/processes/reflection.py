r"""Reflected Brownian motion on [0, 1]: the kernel p_sigma(x | x0) of fold(x0 + sigma z), z standard normal.

Lou & Ermon 2023, Reflected Diffusion Models, https://arxiv.org/abs/2304.04740, sections 3 and 4.  It is the heat
kernel at time sigma^2/2 with no flux through the walls.  Two series converge to it:

    images              p = sum over y in {+-x0 + 2m} of N(x; y, sigma^2)                        short times
    eigenfunctions      p = 1 + 2 sum_k q^(k^2) cos(k pi x) cos(k pi x0),  q = e^(-(pi sigma)^2/2)   long times

Images come in pairs +-y, y = x0, 2 - x0, 2 + x0, ..., whose slopes cancel at the wall x = 0.  The exponent of the
nearest image, which is x0 itself, is factored out of all of them.  Then a pair has

    weight          w_y = e^(-((x - y)^2 - (x - x0)^2)/(2 sigma^2)) <= 1,      w_x0 = 1
    odd part        e_y = 1 - e^(-2 x y/sigma^2)
    density         p = N(x; x0, sigma^2) sum_y w_y (2 - e_y)
    score           sigma d/dx log p = (sum_y w_y y e_y / sum_y w_y (2 - e_y) - x)/sigma

so that nothing underflows, however far x is from x0, and the score is exactly 0 at x = 0.  A point x > 3/4 is mirrored
to the other wall, p(x | x0) = p(1 - x | 1 - x0), so that the score is exactly 0 at x = 1 as well.

The code uses images below sigma = 0.36 and eigenfunctions above, because the errors of three pairs and of five
eigenfunctions are equal there.  Away from it fewer of them have no larger error (``PAIRS``, ``EIGENFUNCTIONS``): for
x <= 3/4 the third pair's weight is at most e^(-1/(2 sigma^2)), and eigenfunctions decay with q^(k^2).  The table has
the truncation error of sigma times the score over max(1, |sigma score|), at the worst x and x0:

    sigma               0.30      0.33      0.36      0.39      0.42
    2 pairs             5e-3      1e-2      3e-2      5e-2      8e-2
    3 pairs             3e-12     3e-10     1e-8      2e-7      2e-6
    4 eigenfunctions    4e-3      2e-4      1e-5      5e-7      2e-8
    5 eigenfunctions    4e-5      8e-7      1e-8      2e-10     2e-12
    least density       0.02      0.05      0.09      0.15      0.22

The least density is the smallest sum to which the eigenfunctions cancel: below sigma = 0.3 float32 loses its accuracy.

All functions are elementwise: x and x0 of shape (B, ...) in [0, 1], sigma > 0 of shape () or (B, 1, ..., 1), each image
uses the series for its own sigma.  Results have x's shape and dtype.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

import torch
from torch import Tensor

#: The series of images is used below this sigma, that of eigenfunctions from it on.
CROSSOVER = 0.36
#: How many pairs of images, and how many eigenfunctions, are used: the sigma below which a number is enough, and it.
PAIRS = {0.15: 2, CROSSOVER: 3}
EIGENFUNCTIONS = {0.55: 5, 1.05: 3, math.inf: 1}
#: Of fewer points than this all images have the most terms: it takes less time than to split them.
SPLIT = 2**15

#: A function of x, x0 and sigma by a series, of which it takes this many terms.
Series = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def fold(x: Tensor) -> Tensor:
    """The reflection map of the line onto [0, 1]: the distance to the nearest even integer."""
    return (x - 2 * torch.round(x / 2)).abs()


def orientation(x: Tensor) -> Tensor:
    """The slope of ``fold``: 1 on the closed intervals [2m, 2m + 1], hence on all of [0, 1], and -1 between them."""
    return 1 - 2 * (torch.remainder(x, 2) > 1).to(x.dtype)


def log_density(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """Log density log p_sigma(x | x0) in nats, elementwise; differentiable in x and x0."""
    return _by_sigma(_log_density_of_images, _log_density_of_eigenfunctions, x, x0, sigma)


def scaled_score(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """Scaled score sigma d/dx log p_sigma(x | x0), elementwise; 0 at the walls; differentiable in x and x0."""
    return _by_sigma(_score_of_images, _score_of_eigenfunctions, x, x0, sigma)


def centre(x: Tensor, scaled: Tensor, sigma: Tensor) -> Tensor:
    """The x0 in [0, 1] whose ``scaled_score`` at x is ``scaled``, computed in float64.

    The score increases strictly with x0, except at the walls, where it is 0 for every x0.  Where all x0 have a larger
    score, or all a smaller one, the result is 0 or 1, up to `root`'s error.
    """
    x = x.double()
    return root(lambda x0: scaled_score(x, x0, sigma), scaled.double(), scaled.dtype)


def transport(x: Tensor, x0: Tensor, sigma_t: Tensor, sigma_s: Tensor) -> Tensor:
    """The state that the probability flow dx/dsigma = -``scaled_score`` for fixed x0 reaches from x at sigma_t.

    It is the x' in [0, 1] with P_s(X <= x' | x0) = P_t(X <= x | x0), for sigma_s >= 0; at sigma_s = 0 it is x0 itself.
    Computed in float64, with the logarithm of the tail on x's side of x0, which neither underflows nor rounds to 1
    where x is far from x0.
    """
    above = x > x0
    near, near0 = _mirror(x.double(), above), _mirror(x0.double(), above)
    level = log_distribution(near, near0, sigma_t)
    positive = torch.where(sigma_s > 0, sigma_s, CROSSOVER)
    moved = root(lambda z: log_distribution(z, near0, positive), level, x.dtype)
    return torch.where((sigma_s > 0).to(x.device), _mirror(moved, above), x0)


def _by_sigma(short: Series, long: Series, x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """The values of ``short`` for images with sigma below the crossover and of ``long`` for the others.

    On a CPU each image has the terms that its sigma needs, and no other series.
    """
    sigma = sigma.to(x.dtype) if sigma.ndim == 0 else sigma.to(x)
    if torch.compiler.is_compiling() or x.is_cuda:
        # A compiled graph cannot split the batch, and a split waits for the GPU: both series, all terms.
        few, many = sigma.clamp(max=CROSSOVER), sigma.clamp(min=CROSSOVER)
        above = long(x, x0, many, max(EIGENFUNCTIONS.values()))
        return torch.where(sigma < CROSSOVER, short(x, x0, few, max(PAIRS.values())), above)
    pairs, eigenfunctions = PAIRS, EIGENFUNCTIONS
    if sigma.ndim and x.numel() < SPLIT:
        pairs = {CROSSOVER: max(PAIRS.values())}
        eigenfunctions = {math.inf: max(EIGENFUNCTIONS.values())}
    parts = [(short, terms) for terms in pairs.values()]
    parts += [(long, terms) for terms in eigenfunctions.values()]
    limits = [*pairs, *eigenfunctions][:-1]
    if sigma.ndim == 0:
        series, terms = parts[bisect_right(limits, float(sigma))]
        return series(x, x0, sigma, terms)
    part_of = torch.bucketize(sigma.flatten(), torch.tensor(limits).to(sigma), right=True)
    result = torch.empty_like(x)
    for i, (series, terms) in enumerate(parts):
        index = (part_of == i).nonzero().squeeze(1)
        if len(index):
            result[index] = series(x[index], x0[index], sigma[index], terms)
    return result


def _mirror(x: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, 1 - x, x)


def _from_the_near_wall(x: Tensor, x0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The points x and x0, mirrored where x > 3/4 so that the near wall is 0, and -1 where they were mirrored, else 1.

    The limit is not 1/2: 1 - x0 is rounded for x0 < 1/2, and where x is close to x0 that would spoil x - x0.
    """
    far = (x > 0.75).to(x.dtype)
    sign = 1 - 2 * far
    return torch.addcmul(far, sign, x), torch.addcmul(far, sign, x0), sign


def _image_sums(x: Tensor, x0: Tensor, sigma: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """The sums of w_y (2 - e_y) and of w_y y e_y over two or three pairs of images."""
    rate = -2 / sigma**2
    near = rate * x
    # expm1 keeps the digits: at x = 1e-9 and sigma = 1e-3 the score is that difference times 1000.
    odd = torch.expm1(near * x0)  # -e_y, and below -w_y e_y
    total, moment = 2 + odd, -x0 * odd
    # A CPU computes exp of -90 and less, as most weights have, ten times more slowly than exp2.
    rate = rate / math.log(2)
    far = rate * (1 - x)
    images = [(2 - x0, far * (1 - x0))]
    if pairs == 3:
        images.append((2 + x0, torch.addcmul(far, rate, x0)))
    for y, exponent in images:
        weight = torch.exp2(exponent)
        odd = weight * torch.expm1(near * y)
        total = torch.add(total, weight, alpha=2) + odd
        moment = torch.addcmul(moment, odd, y, value=-1)
    return total, moment


def _log_density_of_images(x: Tensor, x0: Tensor, sigma: Tensor, pairs: int) -> Tensor:
    x, x0, _ = _from_the_near_wall(x, x0)
    total, _ = _image_sums(x, x0, sigma, pairs)
    return total.log() - ((x - x0) / sigma) ** 2 / 2 - (sigma * math.sqrt(2 * math.pi)).log()


def _score_of_images(x: Tensor, x0: Tensor, sigma: Tensor, pairs: int) -> Tensor:
    x, x0, sign = _from_the_near_wall(x, x0)
    total, moment = _image_sums(x, x0, sigma, pairs)
    return sign * (moment / total - x) / sigma


def _eigenfunction_sums(x: Tensor, x0: Tensor, sigma: Tensor, terms: int) -> tuple[Tensor, Tensor]:
    """The sums of 2 q^(k^2) cos(k pi x0) cos(k pi x) and of 2 q^(k^2) cos(k pi x0) k sin(k pi x) over k.

    Cosines and sines come from Chebyshev's recurrence.
    """
    cos, cos0, sin = torch.cos(math.pi * x), torch.cos(math.pi * x0), torch.sin(math.pi * x)
    weight = 2 * torch.exp(-((math.pi * sigma) ** 2) / 2) * cos0
    even, odd = weight * cos, weight * sin
    twice, twice0 = 2 * cos, 2 * cos0
    last_cos, last_cos0, last_sin = torch.ones_like(x), torch.ones_like(x), torch.zeros_like(x)
    for k in range(2, terms + 1):
        cos, last_cos = twice * cos - last_cos, cos
        sin, last_sin = twice * sin - last_sin, sin
        cos0, last_cos0 = twice0 * cos0 - last_cos0, cos0
        weight = 2 * torch.exp(-((k * math.pi * sigma) ** 2) / 2) * cos0
        even = torch.addcmul(even, weight, cos)
        odd = torch.addcmul(odd, weight, sin, value=k)
    return even, odd


def _log_density_of_eigenfunctions(x: Tensor, x0: Tensor, sigma: Tensor, terms: int) -> Tensor:
    x, x0, _ = _from_the_near_wall(x, x0)
    even, _ = _eigenfunction_sums(x, x0, sigma, terms)
    return even.log1p()


def _score_of_eigenfunctions(x: Tensor, x0: Tensor, sigma: Tensor, terms: int) -> Tensor:
    x, x0, sign = _from_the_near_wall(x, x0)
    even, odd = _eigenfunction_sums(x, x0, sigma, terms)
    return sign * (-math.pi * sigma) * odd / (1 + even)


def log_distribution(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """Log distribution function log P(X <= x | x0); -inf at x = 0."""
    return _by_sigma(_log_distribution_of_images, _log_distribution_of_eigenfunctions, x, x0, sigma)


def _log_distribution_of_images(x: Tensor, x0: Tensor, sigma: Tensor, pairs: int) -> Tensor:
    """Log of the sum of Phi((x - y)/sigma) - Phi(-(x + y)/sigma) over a pair of images more than ``pairs``.

    The error is 1e-16 at the crossover.
    """
    total = torch.full_like(x, -math.inf)
    for y in (x0, 2 - x0, 2 + x0, 4 - x0)[: pairs + 1]:
        upper = torch.special.log_ndtr((x - y) / sigma)
        lower = torch.special.log_ndtr(-(x + y) / sigma)
        total = torch.logaddexp(total, upper + (-torch.expm1(lower - upper)).log())
    return total


def _log_distribution_of_eigenfunctions(x: Tensor, x0: Tensor, sigma: Tensor, terms: int) -> Tensor:
    """Log of x + 2 sum_k q^(k^2) sin(k pi x) cos(k pi x0)/(k pi)."""
    total = x
    for k in range(1, terms + 1):
        angle = k * math.pi
        weight = 2 * torch.exp(-((angle * sigma) ** 2) / 2) / angle
        total = total + weight * torch.sin(angle * x) * torch.cos(angle * x0)
    return total.log()


def root(increasing: Callable[[Tensor], Tensor], value: Tensor, dtype: torch.dtype) -> Tensor:
    """The point of [0, 1] at which an increasing function has this value; the nearer end where it has it nowhere.

    Chandrupatla's method (1997, Advances in Engineering Software 28, 145): the root stays between two points, and the
    next point is that of inverse quadratic interpolation where this converges for certain, and the middle elsewhere.
    The error is at most the spacing of float64 in [1/2, 1], 2^-53, or half of that of a coarser ``dtype``.
    """
    tolerance = max(torch.finfo(dtype).eps / 4, 2.0**-53)
    new, far = torch.zeros_like(value), torch.ones_like(value)
    f_new, f_far = increasing(new) - value, increasing(far) - value
    inside = (f_new < 0) & (f_far >= 0)
    ends = torch.where(f_far < 0, far, new)
    share = torch.full_like(value, 0.5)
    while True:
        x = new + share * (far - new)
        f = increasing(x) - value
        # Three points: the new one, the one beyond the root, and the one that the new one replaces.
        same = (f < 0) == (f_new < 0)
        old, f_old = torch.where(same, new, far), torch.where(same, f_new, f_far)
        far, f_far = torch.where(same, far, new), torch.where(same, f_far, f_new)
        new, f_new = x, f
        width = (far - new).abs()
        if not (inside & (width > tolerance) & (f != 0)).any():
            nearer = torch.where(f_new.abs() <= f_far.abs(), new, far)
            return torch.where(inside, nearer, ends).to(dtype)
        xi, phi = (new - far) / (old - far), (f_new - f_far) / (f_old - f_far)
        share = f_new / (f_far - f_new) * f_old / (f_far - f_old) + (old - new) / (
            far - new
        ) * f_new / (f_old - f_new) * f_far / (f_old - f_far)
        certain = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        least = (tolerance / width).clamp(max=0.5)
        share = torch.where(certain, share, 0.5).maximum(least).minimum(1 - least)
