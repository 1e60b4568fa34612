"""Distances between sets of features or of images: FID, and by torch-fidelity IS, KID, precision and recall.

Features are computed once and passed to torch-fidelity's functions with every option given, so that no number depends
on its defaults (VGG-16 for precision and recall) or its cache (keyed by names, not contents).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diffbench.data.grey_levels import Images
from diffbench.metrics.extractor import Features
from diffbench.metrics.torchvision_operators import ensure_importable
from diffbench.store.progress import Step

#: Mean ``mu`` (d,) and covariance ``sigma`` (d, d).
Statistics = dict[str, Features]

IS_OPTIONS: dict[str, Any] = {"splits": 10, "shuffle": True, "rng_seed": 2020}
KID_OPTIONS: dict[str, Any] = {
    "kid_subsets": 20,
    "kid_kernel": "poly",
    "kid_kernel_poly_degree": 3,
    "kid_kernel_poly_coef0": 1,
    "rng_seed": 2020,
}
#: How many numbers of images, and how many distances, are in memory at a time: a GiB in float64.
NUMBERS = 2**27
#: The share of |a|^2 below which |a - b|^2 is 0: float32 features of one image differ by 1e-7 of their size, and
#: sums of 2,048 products in float64 by less.
ROUNDING = 1e-12
# torch-fidelity's memory-saving code agrees with its other code and limits memory to batch x N.
PRC_OPTIONS: dict[str, Any] = {"prc_neighborhood": 3, "prc_batch_size": 2000, "save_cpu_ram": True}


def torch_fidelity() -> Any:
    """The package torch-fidelity, imported at the first call because that takes seconds."""
    ensure_importable()
    import torch_fidelity as package

    return package


def _refuse_few(z: Features) -> None:
    if len(z) < 4:
        raise ValueError(f"a split of {len(z)} images has no statistics: at least four are needed")


def fid_statistics(z: Features) -> Statistics:
    """Mean ``mu`` (d,) and covariance ``sigma`` (d, d) of features (N, d).

    Raises:
        ValueError: when there are fewer than four rows.
    """
    _refuse_few(z)
    torch_fidelity()
    from torch_fidelity.metric_fid import fid_features_to_statistics

    statistics: Statistics = fid_features_to_statistics(torch.from_numpy(z))
    return statistics


class Fitted(NamedTuple):
    """The Gaussian that is fitted to features (N, d).

    Attributes:
        mu: the mean (d,).
        sigma: the covariance S (d, d), or None.
        factor: F (N, d) with S = F'F in place of ``sigma``, where N is less than d.
    """

    mu: Features
    sigma: Features | None
    factor: Features | None


def fitted(z: Features) -> Fitted:
    """The Gaussian of features (N, d).

    Raises:
        ValueError: when there are fewer than four rows.
    """
    count, d = z.shape
    if count >= d:
        statistics = fid_statistics(z)
        return Fitted(statistics["mu"], statistics["sigma"], None)
    _refuse_few(z)
    mu = z.mean(0)
    return Fitted(mu, None, (z - mu) / np.sqrt(count - 1))


class FrechetTo:
    """Frechet distances of Gaussians to one reference: FID, equal to torch-fidelity's up to rounding.

        |m - m'|^2 + tr S + tr S' - 2 tr (S S')^(1/2)

    With S' = R R', the eigenvalues of S S' are those of the symmetric R' S R.  With S = F'F they are those of
    (F R)(F R)', which is smaller where there are fewer images than features.  Both take less time, and are more
    accurate, than those of the product, which is not symmetric.
    """

    def __init__(self, reference: Statistics) -> None:
        self.reference = reference

    @cached_property
    def root(self) -> Features:
        """R (d, d)."""
        values, vectors = np.linalg.eigh(self.reference["sigma"])
        root: Features = vectors * np.sqrt(values.clip(0))
        return root

    def __call__(self, other: Fitted) -> float:
        """Frechet distance to the reference, NaN where a number is; a value below 0, from rounding, becomes 0."""
        apart = other.mu - self.reference["mu"]
        if other.sigma is not None:
            trace, product = np.trace(other.sigma), self.root.T @ other.sigma @ self.root
        else:
            assert other.factor is not None
            half = other.factor @ self.root
            trace, product = (other.factor**2).sum(), half @ half.T
        value = float(apart @ apart + trace + np.trace(self.reference["sigma"]))
        if not np.isfinite(value):
            return value
        values = np.linalg.eigvalsh(product)
        return max(value - 2 * float(np.sqrt(values.clip(0)).sum()), 0.0)


def inception_score(logits: Features) -> float:
    """Inception score of logits (N, classes)."""
    torch_fidelity()
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    return float(
        isc_features_to_metric(torch.from_numpy(logits), **IS_OPTIONS)[KEY_METRIC_ISC_MEAN]
    )


def kid_subset_size(samples: int, reference: int) -> int:
    """Size of KID's random subsets: torch-fidelity's 1,000, or half of the smaller set."""
    return min(1000, min(samples, reference) // 2)


def kernel_distance(z: Features, reference: Features, gamma: float) -> float:
    """KID of features (N, d) to reference features (M, d), with the kernel (gamma z.z' + 1)^3."""
    torch_fidelity()
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    metric = kid_features_to_metric(
        torch.from_numpy(z),
        torch.from_numpy(reference),
        kid_kernel_poly_gamma=gamma,
        kid_subset_size=kid_subset_size(len(z), len(reference)),
        verbose=False,
        **KID_OPTIONS,
    )
    return float(metric[KEY_METRIC_KID_MEAN])


def kernel_distance_se(z: Features, reference: Features, gamma: float, blocks: int = 10) -> float:
    """Standard error of KID, from its spread over disjoint blocks of the samples.

    Of MMD^2 = E k(z, z) - 2 E k(z, z') + E k(z', z') the last term depends on the reference alone and adds nothing to
    the spread; the second is estimated with at most 2,000 reference images.
    """
    parts = np.array_split(z[: 1000 * blocks], blocks)
    reference = reference[np.linspace(0, len(reference) - 1, min(len(reference), 2000)).astype(int)]
    values = [_within(part, gamma) - 2 * _kernel(part, reference, gamma).mean() for part in parts]
    # From the deviation of one block to that of all samples.
    return float(np.std(values, ddof=1) * (len(parts[0]) / len(z)) ** 0.5)


def precision_recall(
    z: Features, reference: Features, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Improved precision and recall of features (N, d) against reference features (M, d)."""
    torch_fidelity()
    from torch_fidelity.metric_prc import (
        KEY_METRIC_PRECISION,
        KEY_METRIC_RECALL,
        prc_features_to_metric,
    )

    both = (torch.from_numpy(each).to(device) for each in (z, reference))
    # All distances within each set, and those between the sets twice.
    count = (len(z) + len(reference)) ** 2
    with Step("precision and recall", count, "distance") as step, Distances(step):
        metric = prc_features_to_metric(*both, verbose=False, **PRC_OPTIONS)
    return float(metric[KEY_METRIC_PRECISION]), float(metric[KEY_METRIC_RECALL])


class Distances(TorchFunctionMode):
    """A block in which distances by ``torch.cdist`` are counted, since torch-fidelity says nothing meanwhile."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is torch.cdist:
            self.step.advance(found.numel())
        return found


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
    nearest = torch.full((len(a),), torch.inf, dtype=torch.float64, device=device)
    with Step("distances to the nearest images", len(a) * len(b), "distance") as step:
        for rows, _, squares in squared_distances(a, b, device, numbers):
            nearest[rows] = nearest[rows].minimum(squares.amin(1))
            step.advance(squares.numel())
    distances: NDArray[np.float64] = nearest.sqrt().cpu().numpy()
    return distances


def nearest_neighbours(
    a: Features,
    b: Features,
    k: int,
    device: torch.device | str = "cpu",
    numbers: int = NUMBERS,
) -> tuple[Tensor, Tensor]:
    """Squared distances (N, k) of each row of a (N, d) to its k nearest rows of b (M, d), and the numbers of those.

    The nearest comes first; a row that is in both sets is its own neighbour.  Of memory: as `squared_distances`.
    """
    nearest = torch.full((len(a), k), torch.inf, dtype=torch.float64, device=device)
    names = torch.zeros((len(a), k), dtype=torch.int64, device=device)
    for rows, columns, squares in squared_distances(a, b, device, numbers):
        near, at = squares.topk(min(k, squares.shape[1]), largest=False)
        both = torch.cat([nearest[rows], near], 1), torch.cat([names[rows], at + columns.start], 1)
        nearest[rows], chosen = both[0].topk(k, largest=False)
        names[rows] = both[1].gather(1, chosen)
    return nearest, names


def squared_distances(
    a: NDArray[Any], b: NDArray[Any], device: torch.device | str = "cpu", numbers: int = NUMBERS
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Squared distances of rows of a (N, d) and of b (M, d): the rows of a, those of b, and their squares, float64.

    |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, which is 0 where it is not above `ROUNDING` of |a|^2.  At most
    ``numbers`` numbers of each set, and as many distances, are in memory at a time.
    """
    rows = max(1, min(numbers // a.shape[1], int(numbers**0.5)))
    for first, part in _parts(a, rows):
        x = part.to(device).double()
        size = x.square().sum(1, keepdim=True)
        for second, other in _parts(b, rows):
            y = other.to(device).double()
            squares = (x @ y.T).mul_(-2).add_(size).add_(y.square().sum(1))
            yield first, second, squares.masked_fill_(squares <= ROUNDING * size, 0)


def _parts(values: NDArray[Any], rows: int) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(values), rows):
        part = slice(start, min(start + rows, len(values)))
        yield part, torch.from_numpy(values[part])


def bootstrap_rows(count: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Row numbers (resamples, count), drawn with replacement."""
    # RandomState, whose streams do not change between NumPy's versions.
    return np.random.RandomState(seed).randint(0, count, size=(resamples, count))


def _kernel(a: Features, b: Features, gamma: float) -> Features:
    k: Features = gamma * a @ b.T + 1
    return k * k * k


def _within(z: Features, gamma: float) -> float:
    k = _kernel(z, z, gamma)
    return float((k.sum() - np.trace(k)) / (len(z) * (len(z) - 1)))
