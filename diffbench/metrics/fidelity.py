"""Fidelity of samples to a data set: FID, IS, KID, precision, recall, and two checks they miss.

With features z of samples (mean m, covariance S) and of reference images (m', S'):

    FID        |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))                    Heusel et al., 2017
    IS         exp(mean KL(p(y|x) || p(y))), the mean over 10 splits       Salimans et al., 2016
    KID        unbiased MMD^2 with the kernel (gamma z.z' + 1)^3            Binkowski et al., 2018
    precision  share of samples inside the reference's 3-nearest-neighbour balls, recall the
               share of reference images inside the samples'               Kynkaanniemi et al., 2019

    nearest_ratio  mean L2 distance of a sample to its nearest training image, over the same mean
                   for the test images: well below 1 is memorisation, which FID rewards
    confidence     mean of the samples' largest class probability
    saturated      share of pixels (and channels) at the first or last grey level

https://arxiv.org/abs/1706.08500, https://arxiv.org/abs/1606.03498, https://arxiv.org/abs/1801.01401,
https://arxiv.org/abs/1904.06991.  torch-fidelity computes the first five.  Features are computed
once and handed to its functions, every option given, so that neither its defaults (VGG-16 for
precision and recall) nor its cache (keyed by names, not contents) has a part in any number.

Standard errors are over samples, the reference held fixed: of FID and IS by bootstrap, of KID from
disjoint blocks, of precision, nearest_ratio and confidence as those of a mean.  Recall has none:
its balls are the samples' own, and resampling with replacement shrinks them to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from diffbench.data.datasets import Labels
from diffbench.data.levels import Images
from diffbench.metrics.extractor import Features, features_and_logits, weights_sha256
from diffbench.metrics.torchvision_operators import ensure_importable

Score = dict[str, float | None]

IS_OPTIONS: dict[str, Any] = {"splits": 10, "shuffle": True, "rng_seed": 2020}
KID_OPTIONS: dict[str, Any] = {
    "kid_subsets": 20,
    "kid_kernel": "poly",
    "kid_kernel_poly_degree": 3,
    "kid_kernel_poly_coef0": 1,
    "rng_seed": 2020,
}
# The part of torch-fidelity that saves memory agrees with the other and bounds it by batch x N.
PRC_OPTIONS: dict[str, Any] = {"prc_neighborhood": 3, "prc_batch_size": 2000, "save_cpu_ram": True}


class Fidelity:
    """Scores sets of samples against the train and test splits of one data set.

    Args:
        module: the extractor: levels, uint8 (B, C, H, W), to features (B, d) and logits (B, K).
            KID's gamma is its ``kid_gamma``, where it has one, else the usual 1/d.
        reference_levels: "train" and "test", uint8 (N, H, W, C).
        name: what the protocol calls the extractor; the module's own ``name`` by default.
        batch: images a forward pass.
        resamples: bootstrap resamples for the standard errors of FID and IS; 0 for none.  An FID
            costs the eigenvalues of a d x d matrix: at d = 2048 that is minutes for 20.
        seed: of the bootstrap.
        inception_score: whether IS is among the scores.
        grey_levels: the data set's number of grey levels.
    """

    def __init__(
        self,
        module: nn.Module,
        reference_levels: Mapping[str, Images],
        *,
        name: str | None = None,
        batch: int = 1000,
        resamples: int = 20,
        seed: int = 0,
        inception_score: bool = True,
        grey_levels: int = 256,
    ) -> None:
        self.module = module
        self.name: str = name or str(module.name)
        self.reference = {split: reference_levels[split] for split in ("train", "test")}
        self.batch, self.resamples, self.seed = batch, resamples, seed
        self.inception_score, self.grey_levels = inception_score, grey_levels
        self.features = {
            split: features_and_logits(module, levels, batch)[0]
            for split, levels in self.reference.items()
        }
        self.kid_gamma = float(getattr(module, "kid_gamma", 1 / self.features["train"].shape[1]))
        self.statistics = {split: fid_statistics(z) for split, z in self.features.items()}

    @cached_property
    def protocol(self) -> dict[str, Any]:
        """What two scores must share to be compared."""
        return {
            "extractor": self.name,
            "extractor_sha256": weights_sha256(self.module),
            "extractor_features": self.features["train"].shape[1],
            "torch_fidelity": str(torch_fidelity().__version__),
            "reference_split": "train",
            "reference_counts": {split: len(levels) for split, levels in self.reference.items()},
            "is_splits": IS_OPTIONS["splits"],
            "is_shuffle_seed": IS_OPTIONS["rng_seed"],
            "kid_subsets": KID_OPTIONS["kid_subsets"],
            "kid_subset_size": "min(1000, N // 2), N the smaller of the two sets",
            "kid_kernel": "(gamma z.z' + 1)^3",
            "kid_gamma": self.kid_gamma,
            "kid_seed": KID_OPTIONS["rng_seed"],
            "prc_neighborhood": PRC_OPTIONS["prc_neighborhood"],
            "bootstrap": {"resamples": self.resamples, "seed": self.seed},
        }

    def score(self, levels: Images, labels: Labels | None = None) -> dict[str, Score]:
        """All metrics of samples, uint8 (N, H, W, C): a value and its standard error or None.

        ``fid_test`` is FID to the test split; all else is measured against the train split.  With the
        ``labels`` (N,) that were asked for, ``class_accuracy`` is how many the extractor agrees with.

        Raises:
            ValueError: when samples differ in shape from the reference or are fewer than 20, or
                when a feature or a metric is not finite.
        """
        self._check(levels)
        z, logits = features_and_logits(self.module, levels, self.batch)
        rows = bootstrap_rows(len(z), self.resamples, self.seed)
        precision, recall = precision_recall(z, self.features["train"])
        confidence = torch.from_numpy(logits).softmax(1).amax(1).numpy()
        nearest = nearest_distances(levels, self.reference["train"])
        scores: dict[str, Score] = {
            "fid": self._fid(z, rows, "train"),
            "fid_test": self._fid(z, rows, "test"),
            "kid": {
                "value": kernel_distance(z, self.features["train"], self.kid_gamma),
                "se": kernel_distance_se(z, self.features["train"], self.kid_gamma),
            },
            "precision": {"value": precision, "se": (precision * (1 - precision) / len(z)) ** 0.5},
            "recall": {"value": recall, "se": None},
            "nearest_ratio": _mean(nearest / self.nearest_of_test),
            "confidence": _mean(confidence),
        }
        ends = (levels == 0) | (levels == self.grey_levels - 1)
        scores["saturated"] = _mean(ends.reshape(len(levels), -1).mean(1))
        if self.inception_score:
            resampled = [inception_score(logits[i]) for i in rows]
            scores["is"] = _bootstrapped(inception_score(logits), resampled)
        if labels is not None:
            scores["class_accuracy"] = _mean((logits.argmax(1) == labels).astype(np.float64))
        _refuse_nonfinite(scores)
        return scores

    @cached_property
    def nearest_of_test(self) -> float:
        """Mean distance, in levels, of a test image to its nearest training image."""
        return float(nearest_distances(self.reference["test"], self.reference["train"]).mean())

    def frechet(self, levels: Images, together: int = 1) -> Score:
        """FID of images, uint8 (N, H, W, C), to the train split.

        ``together``: how many neighbours belong to one image; the bootstrap draws them as one.

        Raises:
            ValueError: as ``score``.
        """
        self._check(levels)
        z, _ = features_and_logits(self.module, levels, self.batch)
        groups = bootstrap_rows(len(z) // together, self.resamples, self.seed)
        rows = groups[:, :, None] * together + np.arange(together)
        found = {"fid": self._fid(z, rows.reshape(len(rows), -1), "train")}
        _refuse_nonfinite(found)
        return found["fid"]

    def _fid(self, z: Features, rows: NDArray[np.int64], split: str) -> Score:
        reference = self.statistics[split]
        resampled = [fid(fid_statistics(z[i]), reference) for i in rows]
        return _bootstrapped(fid(fid_statistics(z), reference), resampled)

    def _check(self, levels: Images) -> None:
        wanted = self.reference["train"].shape[1:]
        if levels.shape[1:] != wanted:
            raise ValueError(f"samples are {levels.shape[1:]}, the reference images {wanted}")
        if len(levels) < 20:
            raise ValueError(f"{len(levels)} samples are too few to score: give at least 20")


def torch_fidelity() -> Any:
    """torch-fidelity, imported when first needed: that costs seconds."""
    ensure_importable()
    import torch_fidelity as package

    return package


def fid_statistics(z: Features) -> dict[str, Features]:
    """Mean ``mu`` (d,) and covariance ``sigma`` (d, d) of features (N, d).

    Raises:
        ValueError: when there are fewer than four rows.
    """
    if len(z) < 4:
        raise ValueError(f"a split of {len(z)} images has no statistics: at least four are needed")
    torch_fidelity()
    from torch_fidelity.metric_fid import fid_features_to_statistics

    statistics: dict[str, Features] = fid_features_to_statistics(torch.from_numpy(z))
    return statistics


def fid(statistics: dict[str, Features], reference: dict[str, Features]) -> float:
    """Frechet distance of two Gaussians given as `fid_statistics`; rounding below 0 is 0."""
    torch_fidelity()
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    value = float(fid_statistics_to_metric(statistics, reference, verbose=False)[KEY_METRIC_FID])
    return 0.0 if value < 0 else value


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

    Of MMD^2 = E k(z, z) - 2 E k(z, z') + E k(z', z') the last term is the reference's and drops out
    of a spread; 2,000 reference images at most stand for the second.
    """
    parts = np.array_split(z[: 1000 * blocks], blocks)
    reference = reference[np.linspace(0, len(reference) - 1, min(len(reference), 2000)).astype(int)]
    values = [_within(part, gamma) - 2 * _kernel(part, reference, gamma).mean() for part in parts]
    # One block's deviation, to the size of all samples.
    return float(np.std(values, ddof=1) * (len(parts[0]) / len(z)) ** 0.5)


def precision_recall(z: Features, reference: Features) -> tuple[float, float]:
    """Improved precision and recall of features (N, d) against reference features (M, d)."""
    torch_fidelity()
    from torch_fidelity.metric_prc import (
        KEY_METRIC_PRECISION,
        KEY_METRIC_RECALL,
        prc_features_to_metric,
    )

    metric = prc_features_to_metric(
        torch.from_numpy(z), torch.from_numpy(reference), verbose=False, **PRC_OPTIONS
    )
    return float(metric[KEY_METRIC_PRECISION]), float(metric[KEY_METRIC_RECALL])


def nearest_distances(levels: Images, reference: Images, chunk: int = 4000) -> NDArray[np.float64]:
    """L2 distance (N,), in levels, of each image to its nearest reference image.

    |a - b|^2 = |a|^2 + |b|^2 - 2 a.b is exact in float64, levels being integers: a copy is at 0.
    """
    a = torch.from_numpy(levels.reshape(len(levels), -1)).double()
    nearest = torch.full((len(a),), torch.inf, dtype=torch.float64)
    for part in torch.from_numpy(reference.reshape(len(reference), -1)).split(chunk):
        b = part.double()
        squares = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
        nearest = nearest.minimum(squares.amin(1))
    distances: NDArray[np.float64] = nearest.sqrt().numpy()
    return distances


def bootstrap_rows(count: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Row numbers (resamples, count), drawn with replacement."""
    # RandomState, whose streams NumPy froze.
    return np.random.RandomState(seed).randint(0, count, size=(resamples, count))


def _kernel(a: Features, b: Features, gamma: float) -> Features:
    k: Features = gamma * a @ b.T + 1
    return k * k * k


def _within(z: Features, gamma: float) -> float:
    k = _kernel(z, z, gamma)
    return float((k.sum() - np.trace(k)) / (len(z) * (len(z) - 1)))


def _mean(values: NDArray[Any]) -> Score:
    return {"value": float(values.mean()), "se": float(values.std(ddof=1) / len(values) ** 0.5)}


def _bootstrapped(value: float, resampled: list[float]) -> Score:
    return {"value": value, "se": float(np.std(resampled, ddof=1)) if len(resampled) > 1 else None}


def _refuse_nonfinite(scores: dict[str, Score]) -> None:
    for name, score in scores.items():
        for what, number in score.items():
            if number is not None and not np.isfinite(number):
                raise ValueError(f"{name} has {what} {number}")
