"""Distances between sets of features: FID, and by torch-fidelity IS and KID.

Features are computed once and passed to torch-fidelity's functions with every option given, so that no number depends
on its defaults or its cache (keyed by names, not contents).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg.blas import dtrmm

from diffbench.metrics.extractor import Features
from diffbench.metrics.torchvision_operators import ensure_importable

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
    accurate, than those of the product, which is not symmetric.  R is triangular, Cholesky's, unless S' is singular.

    Example:
        >>> z = np.random.RandomState(0).normal(size=(100, 2))
        >>> to_z = FrechetTo(fid_statistics(z))
        >>> round(to_z(fitted(z)), 6), round(to_z(fitted(z + [3, 4])), 6)  # 3^2 + 4^2
        (0.0, 25.0)
    """

    def __init__(self, reference: Statistics) -> None:
        self.reference = reference

    @cached_property
    def triangle(self) -> Features | None:
        """R (d, d), 0 above its diagonal; None where S' is singular."""
        try:
            return np.linalg.cholesky(self.reference["sigma"]).astype(np.float64, copy=False)
        except np.linalg.LinAlgError:
            return None

    @cached_property
    def root(self) -> Features:
        """R (d, d)."""
        if self.triangle is not None:
            return self.triangle
        values, vectors = np.linalg.eigh(self.reference["sigma"])
        root: Features = vectors * np.sqrt(values.clip(0))
        return root

    def between(self, sigma: Features) -> Features:
        """R' S R (d, d) of a covariance S; a triangle takes half the operations."""
        if self.triangle is None:
            return self.root.T @ sigma @ self.root
        right = dtrmm(1.0, self.triangle, sigma, side=1, lower=1)
        product: Features = dtrmm(1.0, self.triangle, right, side=0, lower=1, trans_a=1)
        return product

    def __call__(self, other: Fitted) -> float:
        """Frechet distance to the reference, NaN where a number is; a value below 0, from rounding, becomes 0."""
        apart = other.mu - self.reference["mu"]
        if other.sigma is not None:
            trace, product = np.trace(other.sigma), self.between(other.sigma)
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
