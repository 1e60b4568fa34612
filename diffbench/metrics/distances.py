"""Scores of features: FID, IS and KID, with torch-fidelity's definitions, splits and random subsets.

    FID  |mu - mu'|^2 + tr(Sigma + Sigma' - 2 (Sigma Sigma')^(1/2))             (Heusel et al. 2017)
    IS   exp(mean over images of KL(p(y|x) || mean p(y))), a mean of ten splits  (Salimans et al. 2016)
    KID  E k(z, z2) + E k(z', z2') - 2 E k(z, z'), a mean of random subsets      (Binkowski et al. 2018)

Tests compare them with torch-fidelity, which is not imported here: with what it imports, that takes seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg.blas import dtrmm

from diffbench.metrics.extractor import PART, Features

Doubles = NDArray[np.float64]
#: Mean ``mu`` (d,) and covariance ``sigma`` (d, d).
Statistics = dict[str, Doubles]
#: The row numbers of some features.
Rows = NDArray[np.int64]

#: How many numbers of features are in memory in float64 at a time, where there are more rows than ``PART``: 32 MiB.
NUMBERS = 2**22

IS_OPTIONS: dict[str, Any] = {"splits": 10, "shuffle": True, "rng_seed": 2020}
KID_OPTIONS: dict[str, Any] = {
    "kid_subsets": 20,
    "kid_kernel": "poly",
    "kid_kernel_poly_degree": 3,
    "kid_kernel_poly_coef0": 1,
    "rng_seed": 2020,
}


def _refuse_few(z: Features) -> None:
    if len(z) < 4:
        raise ValueError(f"a split of {len(z)} images has no statistics: at least four are needed")


def fid_statistics(z: Features) -> Statistics:
    """Mean ``mu`` (d,) and covariance ``sigma`` (d, d) of features (N, d).

    Raises:
        ValueError: when there are fewer than four rows.
    """
    _refuse_few(z)
    z = z.astype(np.float64, copy=False)
    return {"mu": z.mean(axis=0), "sigma": np.cov(z, rowvar=False)}


def joined(parts: Iterator[Features]) -> Statistics:
    """Mean and covariance of all rows of the parts (N_i, d), of which the first has at least four.

    A single part has exactly torch-fidelity's values.  With counts n, m, means a, b and sums of centred products A, B,

        mean = a + (b - a) m/(n + m),        A + B + (b - a)(b - a)' n m/(n + m)

    (Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979).
    """
    first = next(parts)
    statistics, n = fid_statistics(first), len(first)
    for z in parts:
        m = len(z)
        mean = z.mean(0, dtype=np.float64)
        centred = z - mean
        apart = mean - statistics["mu"]
        products = (n - 1) * statistics["sigma"] + centred.T @ centred
        products += np.outer(apart, apart) * (n * m / (n + m))
        statistics = {
            "mu": statistics["mu"] + apart * (m / (n + m)),
            "sigma": products / (n + m - 1),
        }
        n += m
    return statistics


class Fitted(NamedTuple):
    """The Gaussian that is fitted to features (N, d).

    Attributes:
        mu: the mean (d,).
        sigma: the covariance S (d, d), or None.
        factor: F (N, d) with S = F'F in place of ``sigma``, where N is less than d.
    """

    mu: Doubles
    sigma: Doubles | None
    factor: Doubles | None


def fitted(z: Features, rows: Rows | None = None) -> Fitted:
    """The Gaussian of features (N, d), or of some of their ``rows`` (n,).

    More than ``PART`` rows are taken in blocks of at most ``NUMBERS`` numbers in float64, or of 2 d rows if that is
    more.

    Raises:
        ValueError: when there are fewer than four rows.
    """
    count, d = len(z) if rows is None else len(rows), z.shape[1]
    size = count if count <= PART else max(2 * d, NUMBERS // d)
    blocks = (
        z[start : start + size] if rows is None else z[rows[start : start + size]]
        for start in range(0, max(count, 1), size or 1)
    )
    if count >= d:
        # The last block may be small, but not the first, which has to have four rows.
        statistics = joined(blocks)
        return Fitted(statistics["mu"], statistics["sigma"], None)
    whole = next(blocks).astype(np.float64, copy=False)
    _refuse_few(whole)
    mu = whole.mean(0)
    return Fitted(mu, None, (whole - mu) / np.sqrt(count - 1))


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
    def triangle(self) -> Doubles | None:
        """R (d, d), 0 above its diagonal; None where S' is singular."""
        try:
            return np.linalg.cholesky(self.reference["sigma"]).astype(np.float64, copy=False)
        except np.linalg.LinAlgError:
            return None

    @cached_property
    def root(self) -> Doubles:
        """R (d, d)."""
        if self.triangle is not None:
            return self.triangle
        values, vectors = np.linalg.eigh(self.reference["sigma"])
        root: Doubles = vectors * np.sqrt(values.clip(0))
        return root

    def between(self, sigma: Doubles) -> Doubles:
        """R' S R (d, d) of a covariance S; a triangle takes half the operations."""
        if self.triangle is None:
            return self.root.T @ sigma @ self.root
        right = dtrmm(1.0, self.triangle, sigma, side=1, lower=1)
        product: Doubles = dtrmm(1.0, self.triangle, right, side=0, lower=1, trans_a=1)
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


def inception_score(logits: Features, rows: Rows | None = None) -> float:
    """Inception score of logits (N, classes), or of some of their ``rows`` (n,).

    Only one of its splits is in memory in float64 at a time.
    """
    count, splits = len(logits) if rows is None else len(rows), IS_OPTIONS["splits"]
    order = np.random.RandomState(IS_OPTIONS["rng_seed"]).permutation(count)
    chosen = order if rows is None else rows[order]
    edges = [i * count // splits for i in range(splits + 1)]
    return float(np.mean([_is_of(logits[chosen[a:b]]) for a, b in itertools.pairwise(edges)]))


def _is_of(logits: Features) -> float:
    log_p = torch.from_numpy(logits).double().log_softmax(1)
    p = log_p.exp()
    return float((p * (log_p - p.mean(0).log())).sum(1).mean().exp())


def kid_subset_size(samples: int, reference: int) -> int:
    """Size of KID's random subsets: torch-fidelity's 1,000, or half of the smaller set."""
    return min(1000, min(samples, reference) // 2)


def kernel_distance(z: Features, reference: Features, gamma: float) -> float:
    """KID of features (N, d) to reference features (M, d), with the kernel (gamma z.z' + 1)^3.

    The subsets are those that torch-fidelity draws of both sets at once; only one of each is in memory in float64.
    """
    size = kid_subset_size(len(z), len(reference))
    random = np.random.RandomState(KID_OPTIONS["rng_seed"])
    values = []
    for _ in range(KID_OPTIONS["kid_subsets"]):
        ours, theirs = (
            each[random.choice(len(each), size, replace=False)].astype(np.float64)
            for each in (z, reference)
        )
        across = _kernel(ours, theirs, gamma).mean()
        values.append(_within(ours, gamma) + _within(theirs, gamma) - 2 * across)
    return float(np.mean(values))


def kernel_distance_se(z: Features, reference: Features, gamma: float, blocks: int = 10) -> float:
    """Standard error of KID, from its spread over disjoint blocks of the samples.

    Of MMD^2 = E k(z, z) - 2 E k(z, z') + E k(z', z') the last term depends on the reference alone and adds nothing to
    the spread; the second is estimated with at most 2,000 reference images.
    """
    parts = np.array_split(z[: 1000 * blocks].astype(np.float64), blocks)
    chosen = np.linspace(0, len(reference) - 1, min(len(reference), 2000)).astype(int)
    reference = reference[chosen].astype(np.float64)
    values = [_within(part, gamma) - 2 * _kernel(part, reference, gamma).mean() for part in parts]
    # From the deviation of one block to that of all samples.
    return float(np.std(values, ddof=1) * (len(parts[0]) / len(z)) ** 0.5)


def bootstrap_rows(count: int, resamples: int, seed: int) -> Rows:
    """Row numbers (resamples, count), drawn with replacement."""
    # RandomState, whose streams do not change between NumPy's versions.
    return np.random.RandomState(seed).randint(0, count, size=(resamples, count))


def _kernel(a: Features, b: Features, gamma: float) -> Features:
    k: Features = gamma * a @ b.T + 1
    return k * k * k


def _within(z: Features, gamma: float) -> float:
    k = _kernel(z, z, gamma)
    return float((k.sum() - np.trace(k)) / (len(z) * (len(z) - 1)))
