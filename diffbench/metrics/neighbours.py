r"""Nearest neighbours and balls among points, which are features or images: in float32, with float64's answers.

    |a - b|^2 = |a|^2 + |b|^2 - 2 a.b

is a matrix product, of points minus the mean of the second set, so that they are short.  In float32, u = 2^-24, its
error is at most

    e = (d u/(1 - d u) + 16 u) (max |a|^2 + max |b|^2)

for points of d numbers: the first term is that of sums of d products in any order (Higham, "Accuracy and Stability of
Numerical Algorithms", 2002, equation 3.5), with 2 |a||b| <= |a|^2 + |b|^2; the second is more than the roundings of the
numbers (2 u), of the squares (u) and of the two sums (4 u).  An answer that an error of e could change is computed
again in float64.  Features have few of these, so that the time is that of float32's product.

Images are long, and most of what tells two of them apart is in the means of blocks of pixels.  With the orthogonal
projection P on such blocks, and a' = a - P a,

    |a - b|^2 >= |P a - P b|^2 + (|a'| - |b'|)^2

is the squared distance of two sketches (P a, |a'|) of few numbers.  An image that is among those of the nearest
sketches, and is nearer than any other sketch, is the nearest.  Where that leaves a doubt, finer blocks decide, and at
last the images themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffbench.data.grey_levels import Images
from diffbench.store.progress import Step

#: How many numbers of points, and how many distances, are in memory at a time: in float64 a little less than the 32 MiB
#: that the C library takes from the system anew each time.
NUMBERS = 4_000_000
#: The share of |a|^2 below which |a - b|^2 is 0: float32 features of one image differ by 1e-7 of their size, and
#: sums of 2,048 products in float64 by less.
ROUNDING = 1e-12
#: Neighbours that are kept in float32 beyond those that are asked for, so that the nearest are surely among them.
SPARE = 4
#: The sides of the squares of blocks, and how many images of the nearest sketches are compared with each image.
SKETCHES, CANDIDATES = (8, 16), 16
#: Sketches are used of images with at least this many times as many numbers, and of at least so many images: that
#: of the reference takes as long as the distances of some hundred.
SHORTER, MANY = 3, 1000
#: The share of the images that sketches must decide for finer ones to be tried.
WORTH = 0.25
#: Half the distance of 1 to the next number of float32.
UNIT = 2.0**-24

#: The neighbour to which the balls of precision and recall reach.
NEIGHBOURHOOD = 3

Points = NDArray[Any]


def unseen(distances: int) -> None:
    """Count no distances."""


def squared_distances(
    a: Points, b: Points, device: torch.device | str = "cpu", numbers: int = NUMBERS
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Squared distances of rows of a (N, d) and of b (M, d): the rows of a, those of b, and their squares, float64.

    They are 0 where they are not above `ROUNDING` of |a|^2.  At most ``numbers`` numbers of each set, and as many
    distances, are in memory at a time.
    """
    for first, x in _parts(a, device, numbers):
        for second, y in _parts(b, device, numbers):
            yield first, second, _squares(x, y)


@dataclass(frozen=True)
class Block:
    """Squared distances, float32, of some rows x (n, d) of one set and y (m, d) of another, float64.

    Attributes:
        rows, columns: the rows of either set.
        squares: the squared distances (n, m).
        error: the most by which they are wrong.
    """

    rows: slice
    columns: slice
    x: Tensor
    y: Tensor
    squares: Tensor
    error: float

    def within(self, limits: Tensor) -> Tensor:
        """Which squared distances are at most ``limits``, float64 (n, 1) or (1, m): bool (n, m), as in float64."""
        apart = self.squares - limits.to(self.squares.dtype)
        # The limits and the difference are rounded too.
        error = self.error + 4 * UNIT * float(limits.max())
        inside = apart <= -error
        doubtful = ((apart <= error) & ~inside).any(1)
        if bool(doubtful.any()):
            again = limits.expand(len(self.x), -1)[doubtful]
            inside[doubtful] = _squares(self.x[doubtful], self.y) <= again
        return inside


def blocks(
    a: Points, b: Points, device: torch.device | str = "cpu", numbers: int = NUMBERS
) -> Iterator[Block]:
    """Blocks of all rows of a (N, d) and b (M, d); where both are one array, those with columns after their rows.

    Of memory: as `squared_distances`.
    """
    middle = torch.from_numpy(b.mean(0, dtype=np.float64)).to(device)
    for first, x in _parts(a, device, numbers):
        near, size = _short(x - middle)
        for second, y in _parts(b, device, numbers, first.start if a is b else 0):
            others, sizes = _short(y - middle)
            squares = _products(near, size, others, sizes)
            yield Block(first, second, x, y, squares, _error(a.shape[1], size, sizes))


def nearest_neighbours(
    a: Points,
    b: Points,
    k: int,
    device: torch.device | str = "cpu",
    numbers: int = NUMBERS,
    seen: Callable[[int], None] = unseen,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """Squared distances (N, k) of each row of a (N, d) to its k nearest rows of b (M, d), and the numbers of those.

    The nearest comes first; a row that is in both sets is its own neighbour.  The squares are of differences in
    float64, and infinite where b has fewer rows.  With ``first``, the results (N, k - first) are without that many of
    the nearest.  ``seen`` is told how many distances were looked at.  Of memory: as `squared_distances`.
    """
    best = Nearest(len(a), k + SPARE, torch.float32, device)
    error = torch.zeros(len(a), device=device)
    for block in blocks(a, b, device, numbers):
        sides = [(block.rows, block.columns, block.squares)]
        if a is b and block.columns != block.rows:
            sides.append((block.columns, block.rows, block.squares.T))
        for rows, columns, squares in sides:
            best.add(rows, columns, squares)
            error[rows] = error[rows].clamp(min=block.error)
            seen(squares.numel())
    # What float32 says is surely nearer than the first result, or farther than the last, need not be known better.
    found = best.squares
    margin = 2 * error[:, None] + 4 * UNIT * found
    nearer = found + margin < found[:, first : first + 1]
    farther = found - margin > found[:, k - 1 : k]
    squares, names = best.exact(a, b, numbers, nearer, farther)
    # All rows that are not among the candidates are farther than the last candidate, up to its error.
    last = squares[:, k - 1]
    certain = (best.squares[:, -1] - error >= last) | (last == 0)
    unsure = (~certain).nonzero().flatten()
    if len(unsure):
        rest = a[unsure.cpu().numpy()]
        again = Nearest(len(rest), k, torch.float64, device)
        for rows, columns, found in squared_distances(rest, b, device, numbers):
            again.add(rows, columns, found)
        squares[unsure, :k], names[unsure, :k] = again.squares, again.names
    return squares[:, first:k], names[:, first:k]


def radii(
    points: Points,
    k: int,
    device: torch.device | str = "cpu",
    numbers: int = NUMBERS,
    seen: Callable[[int], None] = unseen,
    first: int = 0,
) -> Tensor:
    """Squared distances (N, k) of each point (N, d) to its k nearest others; all else is as in `nearest_neighbours`."""
    return nearest_neighbours(points, points, k + 1, device, numbers, seen, first + 1)[0]


def reach(
    points: Points,
    device: torch.device | str = "cpu",
    numbers: int = NUMBERS,
    seen: Callable[[int], None] = unseen,
) -> Tensor:
    """The squared radii (N,) of the balls of precision and recall around points (N, d)."""
    k = NEIGHBOURHOOD
    return radii(points, k, device, numbers, seen, first=k - 1)[:, 0]


def precision_recall(
    z: Points,
    reference: Points,
    device: torch.device | str = "cpu",
    balls: Tensor | None = None,
    numbers: int = NUMBERS,
) -> tuple[float, float]:
    """Improved precision and recall of features (N, d) against reference features (M, d).

    ``balls`` are the squared radii (M,) of the reference's balls, where they are known.  Of memory: as
    `squared_distances`.
    """
    count, known = len(z), len(reference)
    total = count * (count + known) + (known**2 if balls is None else 0)
    with Step("precision and recall", total, "distance") as step:
        own = reach(z, device, numbers, step.advance)
        if balls is None:
            balls = reach(reference, device, numbers, step.advance)
        sample_inside, image_inside = (
            torch.zeros_like(each, dtype=torch.bool) for each in (own, balls)
        )
        for block in blocks(z, reference, device, numbers):
            rows, columns = block.rows, block.columns
            sample_inside[rows] |= block.within(balls[None, columns]).any(1)
            image_inside[columns] |= block.within(own[rows, None]).any(0)
            step.advance(block.squares.numel())
    # Means in float32, as those of torch-fidelity.
    return float(sample_inside.float().mean()), float(image_inside.float().mean())


def nearest_distances(
    images: Images,
    reference: Images,
    device: torch.device | str = "cpu",
    numbers: int = NUMBERS,
) -> NDArray[np.float64]:
    """L2 distance (N,), in grey levels, of each image to its nearest reference image.

    Pixels are integers, so that distances are exact: a copy has distance 0.  Of memory: as `squared_distances`.
    """
    a, b = (each.reshape(len(each), -1) for each in (images, reference))
    squares, left = torch.zeros(len(a), dtype=torch.float64, device=device), np.arange(len(a))
    pixels = math.prod(images.shape[1:3]) if len(a) >= MANY else 0
    sides = [side for side in SKETCHES if pixels >= SHORTER * side**2]
    with Step("distances to the nearest images", len(a) * len(b), "distance") as step:
        for side in sides:
            found, certain = _nearest_sketched(images[left], reference, side, device, numbers)
            squares[left[certain]] = found[certain]
            step.advance(int(certain.sum()) * len(b))
            left = left[~certain]
            if certain.mean() < WORTH or not len(left):
                break
        if len(left):
            rest = a[left] if sides else a
            found = nearest_neighbours(rest, b, 1, device, numbers, step.advance)[0][:, 0]
            squares[left] = found
    distances: NDArray[np.float64] = squares.sqrt().cpu().numpy()
    return distances


def sketch(images: Images, side: int) -> NDArray[np.float64]:
    """Sketches (N, side^2 C + 1) of images (N, H, W, C), in side x side blocks of pixels (see the module).

    A block's mean is times the square root of its number of pixels, so that it is a coordinate of a projection.
    """
    x = images.astype(np.float64)
    size = (x**2).reshape(len(x), -1).sum(1)
    pixels = np.ones((1, *images.shape[1:3], 1))
    for axis in (1, 2):
        edges = np.arange(side) * images.shape[axis] // side
        x, pixels = (np.add.reduceat(each, edges, axis) for each in (x, pixels))
    means = (x / np.sqrt(pixels)).reshape(len(x), -1)
    rest = np.sqrt((size - (means**2).sum(1)).clip(0))
    return np.concatenate([means, rest[:, None]], 1)


def _nearest_sketched(
    images: Images, reference: Images, side: int, device: torch.device | str, numbers: int
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Squared distances (N,) of images to the nearest of the images of the nearest sketches, and which are certain.

    Each part of the reference is read once.  Of memory: as `squared_distances`, and the sketches of the images.
    """
    a, b = (each.reshape(len(each), -1) for each in (images, reference))
    pieces = [sketch(images[part], side) for part in _slices(images, numbers)]
    x = torch.from_numpy(np.concatenate(pieces)).to(device)
    middle = x.mean(0)
    near, size = _short(x - middle)
    best = Nearest(len(a), CANDIDATES, torch.float32, device)
    error = 0.0
    for columns in _slices(reference, numbers):
        y = torch.from_numpy(sketch(reference[columns], side)).to(device)
        others, sizes = _short(y - middle)
        error = max(error, _error(x.shape[1], size, sizes))
        for rows in _slices(x, numbers):
            best.add(rows, columns, _products(near[rows], size[rows], others, sizes))
    squares, _ = best.exact(a, b, numbers)
    last = squares[:, 0]
    certain = (best.squares[:, -1] - error >= last) | (last == 0)
    return last, certain.cpu().numpy()


class Nearest:
    """The nearest points so far to each of N points: squared distances (N, k), the least first, and their numbers."""

    def __init__(self, count: int, k: int, dtype: torch.dtype, device: torch.device | str) -> None:
        self.squares = torch.full((count, k), torch.inf, dtype=dtype, device=device)
        self.names = torch.zeros((count, k), dtype=torch.int64, device=device)

    def add(self, rows: slice, columns: slice, squares: Tensor) -> None:
        """Look at the squared distances (n, m) of some rows and columns."""
        k = self.squares.shape[1]
        near, at = squares.topk(min(k, squares.shape[1]), largest=False)
        both = torch.cat([self.squares[rows], near], 1)
        names = torch.cat([self.names[rows], at + columns.start], 1)
        self.squares[rows], chosen = both.topk(k, largest=False)
        self.names[rows] = names.gather(1, chosen)

    def exact(
        self,
        a: Points,
        b: Points,
        numbers: int,
        nearer: Tensor | None = None,
        farther: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The squared distances of the same points by differences in float64, the least first, and their numbers.

        They are minus infinity where a point is known to be ``nearer`` (N, k), and infinite where it is ``farther``.
        """
        device, k = self.squares.device, self.squares.shape[1]
        found = torch.full(self.squares.shape, torch.inf, dtype=torch.float64, device=device)
        asked = ~self.squares.isinf()
        if nearer is not None and farther is not None:
            found.masked_fill_(nearer, -torch.inf)
            asked &= ~(nearer | farther)
        for rows, x in _parts(a, device, max(a.shape[1], numbers // k)):
            row, place = asked[rows].nonzero(as_tuple=True)
            chosen = self.names[rows][row, place]
            y = torch.from_numpy(b[chosen.cpu().numpy()]).to(device).double()
            squares = y.sub_(x[row]).square_().sum(1)
            squares.masked_fill_(squares <= ROUNDING * x.square().sum(1)[row], 0)
            found[rows][row, place] = squares
        squares, order = found.sort(dim=1, stable=True)
        return squares, self.names.gather(1, order)


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (n, m) of points in float64."""
    size = x.square().sum(1, keepdim=True)
    squares = (x @ y.T).mul_(-2).add_(size).add_(y.square().sum(1))
    return squares.masked_fill_(squares <= ROUNDING * size, 0)


def _short(points: Tensor) -> tuple[Tensor, Tensor]:
    """Points in float64 (n, d) and their squared lengths (n,), both rounded to float32."""
    return points.float(), torch.linalg.vector_norm(points, dim=1).square().float()


def _products(near: Tensor, size: Tensor, others: Tensor, sizes: Tensor) -> Tensor:
    """Squared distances (n, m) of points (n, d) and (m, d), whose squared lengths are given, in float32."""
    return (near @ others.T).mul_(-2).add_(size[:, None]).add_(sizes)


def _error(d: int, size: Tensor, sizes: Tensor) -> float:
    """The most by which squared distances of points of d numbers with these squared lengths are wrong in float32."""
    factor = d * UNIT / (1 - d * UNIT) + 16 * UNIT
    return factor * float(size.max() + sizes.max())


def _parts(
    values: Points, device: torch.device | str, numbers: int, begin: int = 0
) -> Iterator[tuple[slice, Tensor]]:
    """Rows of points, float64, as many as there may be numbers of them and distances of as many others."""
    for part in _slices(values, numbers, begin):
        yield part, torch.from_numpy(values[part]).to(device).double()


def _slices(values: Points | Tensor, numbers: int, begin: int = 0) -> Iterator[slice]:
    """Rows, as many as there may be numbers of them and distances of as many others.

    Where they are many, they are a multiple of 8: the product of 1,953 x 2,048 numbers takes twice as long as of 1,952.
    """
    width = math.prod(values.shape[1:])
    rows = max(1, min(numbers // width, int(numbers**0.5)))
    rows -= rows % 8 if rows > 64 else 0
    for start in range(begin, len(values), rows):
        yield slice(start, min(start + rows, len(values)))
