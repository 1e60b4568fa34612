r"""Charts: maps to the cube [0, 1]^n of data from other spaces.

Stick breaking maps the simplex {x >= 0, x_1 + .. + x_K = 1} to the cube of n = K - 1 dimensions. With
r_i = x_i + .. + x_K the rest of the stick before its i-th break, and v_i = x_i/r_i the fraction broken off,

    c_i = (1 - v_i)^(K - i) = (r_{i+1}/r_i)^(K - i),        i = 1 .. K - 1,

and back, with r_1 = 1:   r_{i+1} = r_i c_i^(1/(K - i)),   x_i = r_i v_i,   x_K = r_K.

c_i is the survival function of Beta(1, K - i) at v_i. When x is uniform on the simplex, v_i has this distribution,
independently of the others. So uniform points x, Dirichlet(1, .., 1), become uniform points c.
Hence no dimension is squeezed to an end of the cube, however many there are: v_i = 1/K gives c_i near 1/e.

x_i depends on c_1 .. c_i alone. The determinant is the product of

    |dx_i/dc_i| = r_i |dv_i/dc_i| = r_i / ((K - i)(1 - v_i)^(K - i - 1)),

in which r_i = (1 - v_1) .. (1 - v_{i-1}). In the product each 1 - v_j cancels, since it occurs K - 1 - j times both in
the numerator and in the denominator:

    log |det d(x_1 .. x_{K-1})/dc| = -log (K - 1)! = -log Gamma(K)    at every point.

Densities on the simplex are those of x_1 .. x_{K-1}, as torch.distributions.Dirichlet has them:
log p(c) = log p(x) + log |det|. If x is Dirichlet(a), v_i is Beta(a_i, a_{i+1} + .. + a_K).

c is the survival function and not the distribution function, 1 - c, because floating-point numbers are densest
at 0. Large fractions have c near 0; the whole rest of the stick would inherit their errors: with 1,000 categories
a category of 4 % has 1 - c = 1 - 2e-18. Small fractions have c near 1, where a rounding error u of c is an error
of u/(K - i) in v.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class StickBreaking:
    """The chart between the simplex of ``categories`` K >= 2 and the cube [0, 1]^(K - 1).

    All sums and powers are in float64; results have the precision of the argument.

    Raises ValueError for fewer than two categories.
    """

    def __init__(self, categories: int) -> None:
        if categories < 2:
            raise ValueError(f"categories: {categories}; a simplex needs at least two")
        self.categories, self.dimensions = categories, categories - 1
        #: The power K - i of each break.
        self.powers = torch.arange(categories - 1, 0, -1, dtype=torch.float64)

    def to_cube(self, points: Tensor) -> Tensor:
        """The points c (B, K - 1) of the cube for points (B, K) of the simplex.

        A fraction of an empty rest counts as 0. Raises ValueError for points outside the simplex, and where a
        fraction cannot be told from 1 in the points' precision (in float64 from 0.51 on with 1,000 categories,
        in float32 from 0.1 on).
        """
        self.check(points)
        x = points.double()
        left = x.flip(-1).cumsum(-1).flip(-1)
        before, after, broken = left[:, :-1], left[:, 1:], x[:, :-1]
        some = before > 0
        v = torch.where(some, broken / before.where(some, 1), 0)
        # 1 - v comes from v where v is small and from the rest where v is large: neither cancels.
        log_rest = torch.where(v < 0.5, torch.log1p(-v), (after / before.where(some, 1)).log())
        c = (log_rest * self.powers.to(x)).exp().to(points.dtype)
        self._check_fractions(c, v)
        return c

    def to_simplex(self, c: Tensor) -> Tensor:
        """The points (B, K) of the simplex for points c (B, K - 1) of the cube.

        No coordinate is negative, and the coordinates of a point sum to one within rounding. Raises ValueError for
        points outside the cube.
        """
        self._check_shape(c, self.dimensions)
        if found := _first(c, ~((c >= 0) & (c <= 1))):
            raise ValueError(f"coordinate {found}, outside the cube [0, 1]")
        log_rest = c.double().log() / self.powers.to(c.device)
        left = log_rest.cumsum(-1).exp()
        before = torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], dim=1)
        return torch.cat([before * torch.expm1(log_rest).abs(), left[:, -1:]], dim=1).to(c.dtype)

    def log_det(self, c: Tensor) -> Tensor:
        """Log of |det d(x_1 .. x_{K-1})/dc| at points of the cube (B, K - 1) -> (B,), in nats."""
        self._check_shape(c, self.dimensions)
        return c.new_full((len(c),), -math.lgamma(self.categories))

    def check(self, points: Tensor) -> None:
        """Check that points (B, K) lie on the simplex.

        The sum may differ from 1 by K times the precision's epsilon. That is the most to which K roundings of numbers
        that sum to one can add up: those of the points, and those of the sum by which they were divided, in any order.

        Raises:
            ValueError: when a point does not; the message, one line, has the first wrong value.
        """
        self._check_shape(points, self.categories)
        if found := _first(points, ~(points >= 0)):
            raise ValueError(f"coordinate {found}, and on the simplex it must be at least 0")
        sums = points.double().sum(-1)
        tolerance = self.categories * torch.finfo(points.dtype).eps
        wrong = ~((sums - 1).abs() <= tolerance)
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            raise ValueError(
                f"the coordinates of point {row} sum to {float(sums[row]):.10g}, not to 1 "
                f"(within {tolerance:.2g}): divide them by their sum"
            )

    def _check_shape(self, values: Tensor, width: int) -> None:
        if values.ndim != 2 or values.shape[1] != width:
            raise ValueError(
                f"an array has the shape {tuple(values.shape)}, but {self.categories} categories need (B, {width})"
            )
        if not values.is_floating_point():
            raise ValueError(
                f"the numbers have the type {values.dtype}, but the chart needs floating point"
            )

    def _check_fractions(self, c: Tensor, v: Tensor) -> None:
        if found := _first(v, (c == 0) & (v < 1)):
            raise ValueError(
                f"fraction {found} of the rest: with {self.categories} categories, "
                f"{str(c.dtype).removeprefix('torch.')} cannot tell it from 1; use float64, or put large categories "
                "last"
            )


def _first(values: Tensor, wrong: Tensor) -> str:
    """The first wrong value in words, as ``2 of point 5 is -0.1``; empty where none is wrong."""
    if not wrong.any():
        return ""
    row, column = (int(each) for each in wrong.nonzero()[0])
    return f"{column} of point {row} is {float(values[row, column]):.6g}"
