r"""Measures of samples that a benchmark asks for, of the same features as FID.

With samples Y_1 .. Y_N, the reference's training images X_1 .. X_M, the distance |a - b| of their features, and r_i(k)
the distance of X_i to its k-th nearest other training image:

    density       1/(k N) sum_j #{i : |Y_j - X_i| < r_i(k)}           1 for samples of the training distribution
    coverage      1/M #{i : |Y_j - X_i| < r_i(k) for some j}
    authenticity  1/N #{j : |Y_j - X_i| > r_i(1)}, X_i the nearest to Y_j     0 for copies, below 1/2 for new images
    fd_infinity   a of the line FD = a + b/n that is fitted to the FDs of sets of n samples, of several n

Density and coverage: Naeem, Oh, Uh, Choi, Yoo, "Reliable Fidelity and Diversity Metrics for Generative Models", 2020,
https://arxiv.org/abs/2002.09797, with open balls: a closed one would count an image at its edge, and copies of the
training images would have density (k + 1)/k.  Authenticity: Alaa, van Breugel, Saveliev, van der Schaar, "How
Faithful is your Synthetic Data?", 2022, https://arxiv.org/abs/2102.08921.  FD at infinite N: Chong, Forsyth,
"Effectively Unbiased FID and Inception Score and Where to Find Them", 2020, https://arxiv.org/abs/1911.07023: FD of n
samples is larger than that of their distribution by b/n + O(1/n^2).

Standard errors are over samples, with the reference fixed, as in `fidelity`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffbench.diffusion.core.streams import stream
from diffbench.metrics.distances import fitted
from diffbench.metrics.extractor import Features
from diffbench.metrics.neighbours import blocks, nearest_neighbours
from diffbench.metrics.reference_statistics import Reference
from diffbench.metrics.scores import Score, mean_of
from diffbench.specs.measures import DensityCoverageSpec, FDInfinitySpec, MeasureSpec

#: What a squared distance may lack of a squared radius and still be equal to it.  Float32 features of one image differ
#: by 1e-7 of their size between batches, and their size is some ten times the distances.
EDGE = 1e-5
#: The smallest set of `FDInfinity` in numbers of features: the covariance of fewer images is singular, or nearly so.
SETS = 2
Curve = dict[str, list[float]]


@dataclass(frozen=True)
class Measured:
    """Scores by metric, and the curves that some of them are read from, by metric: name -> numbers of equal length."""

    scores: Mapping[str, Score]
    curves: Mapping[str, Curve] = field(default_factory=dict)


class Measure(ABC):
    """A measure against one reference; what it knows of the reference it computes once.

    Args:
        spec: its parameters.
        reference: the training images' features and statistics.
        device: where distances are computed.
    """

    def __init__(self, spec: MeasureSpec, reference: Reference, device: torch.device | str) -> None:
        self.reference, self.device = reference, device

    @abstractmethod
    def of(self, z: Features, rows: NDArray[np.int64]) -> Measured:
        """The scores of samples' features z (N, d); ``rows`` (R, N) are the samples of R bootstrap resamples."""


class DensityCoverage(Measure):
    """Density and coverage (see the module).

    Density's error is that of a mean over samples.  Coverage's is the jackknife's: without Y_j coverage is less by the
    share u_j of training images that Y_j alone covers, and the variance is (N - 1)/N sum (u_j - mean u)^2.  On average
    it is not too small (Efron, Stein, "The Jackknife Estimate of Variance", 1981), and too large where nearly all is
    covered: about sqrt(k N/M) times if no two balls overlapped, and less as they do.

    Raises:
        ValueError: when the reference has not more images than ``neighbours``.
    """

    def __init__(
        self, spec: DensityCoverageSpec, reference: Reference, device: torch.device | str
    ) -> None:
        super().__init__(spec, reference, device)
        self.neighbours, known = spec.neighbours, len(reference.features)
        if known <= spec.neighbours:
            raise ValueError(
                f"measures: density-coverage: neighbours is {spec.neighbours}, but the reference has {known} images"
            )

    @cached_property
    def radii(self) -> Tensor:
        """Squared radii (M,)."""
        return self.reference.radii(self.neighbours, self.device)

    def of(self, z: Features, rows: NDArray[np.int64]) -> Measured:
        """Density and coverage."""
        holding, covering, only = self._counts(z)
        covered = (covering > 0).double().mean()
        alone = torch.bincount(only[covering == 1], minlength=len(z)).double() / len(covering)
        variance = (alone - alone.mean()).square().sum() * (len(z) - 1) / len(z)
        return Measured(
            {
                "density": mean_of(holding / self.neighbours),
                "coverage": {"value": float(covered), "se": float(variance.sqrt())},
            }
        )

    def _counts(self, z: Features) -> tuple[Tensor, Tensor, Tensor]:
        """Balls that hold each sample (N,), samples in each ball (M,), and which one where it is only one (M,)."""
        inner = self.radii * (1 - EDGE)
        holding = inner.new_zeros(len(z))
        covering, only = torch.zeros_like(inner), torch.zeros_like(inner)
        numbers = torch.arange(len(z), device=inner.device).double()
        for block in blocks(z, self.reference.features, self.device):
            samples, balls = block.rows, block.columns
            inside = block.within(inner[None, balls]).double()
            holding[samples] += inside.sum(1)
            covering[balls] += inside.sum(0)
            only[balls] += numbers[samples] @ inside
        return holding, covering, only.long()


class Authenticity(Measure):
    """Authenticity (see the module), with the standard error of a share of N independent samples."""

    @cached_property
    def apart(self) -> Tensor:
        """Squared distance (M,) of each training image to the nearest other one."""
        return self.reference.radii(1, self.device)

    def of(self, z: Features, rows: NDArray[np.int64]) -> Measured:
        """Authenticity."""
        squares, nearest = nearest_neighbours(z, self.reference.features, 1, self.device)
        share = float((squares > self.apart[nearest]).double().mean())
        error = (share * (1 - share) / len(z)) ** 0.5
        return Measured({"authenticity": {"value": share, "se": error}})


class FDInfinity(Measure):
    """FD at infinite N (see the module); no score where there are fewer than four samples a feature.

    The line is fitted by ordinary least squares.  Its error is by bootstrap, as FID's: of each resample the curve is
    drawn again.  The regression's own error would be too small, because all sets are of the same samples.  FD at
    infinite N may be below 0 by chance.
    """

    def __init__(
        self, spec: FDInfinitySpec, reference: Reference, device: torch.device | str
    ) -> None:
        super().__init__(spec, reference, device)
        self.spec = spec

    def of(self, z: Features, rows: NDArray[np.int64]) -> Measured:
        """The intercept, and the curve: ``images`` n, ``values`` FD, and the ``line`` at each n."""
        count, d = z.shape
        if count < 2 * SETS * d:
            return Measured({})
        least = max(count * self.spec.least, SETS * d)
        sizes = np.linspace(least, count, self.spec.points).round().astype(int)
        sets = [self._rows(count, int(n), index) for index, n in enumerate(sizes)]
        values = self._values(z, sets)
        slope, intercept = np.polyfit(1 / sizes, values, 1)
        redrawn = ([each[chosen] for chosen in sets] for each in rows)
        resampled = [np.polyfit(1 / sizes, self._values(z, each), 1)[1] for each in redrawn]
        error = float(np.std(resampled, ddof=1)) if len(resampled) > 1 else None
        line = (intercept + slope / sizes).tolist()
        curve = {"images": sizes.tolist(), "values": values, "line": line}
        return Measured(
            {"fd_infinity": {"value": float(intercept), "se": error}}, {"fd_infinity": curve}
        )

    def _rows(self, count: int, n: int, index: int) -> NDArray[np.int64]:
        drawn = torch.randperm(
            count, generator=stream("FD at infinite N", self.spec.seed, count, index)
        )
        found: NDArray[np.int64] = drawn[:n].numpy()
        return found

    def _values(self, z: Features, sets: Sequence[NDArray[np.int64]]) -> list[float]:
        distance = self.reference.distances["train"]
        return [distance(fitted(z, each)) for each in sets]
