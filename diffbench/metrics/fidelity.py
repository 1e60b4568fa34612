"""Fidelity of samples to a data set: FID, IS, KID, precision, recall, and checks for what these miss.

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
https://arxiv.org/abs/1904.06991.  What a benchmark asks for besides is in `measures`.  FID is to the statistics of
whole splits.  KID, precision and recall are to the training images whose features the reference keeps.

Standard errors are over samples, with the reference fixed: of FID and IS by bootstrap, of KID from
disjoint blocks, of precision, nearest_ratio and confidence as those of a mean.  Recall has none:
its balls are around the samples, and resampling with replacement makes their radii 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from diffbench.data.datasets import Labels
from diffbench.data.grey_levels import Images
from diffbench.metrics.distances import (
    IS_OPTIONS,
    KID_OPTIONS,
    bootstrap_rows,
    fitted,
    inception_score,
    kernel_distance,
    kernel_distance_se,
)
from diffbench.metrics.extractor import PART, Features, features_and_logits, weights_sha256
from diffbench.metrics.floors import RealImages
from diffbench.metrics.measures import Curve, Measure, Measured
from diffbench.metrics.neighbours import NEIGHBOURHOOD, nearest_distances, precision_recall
from diffbench.metrics.reference_statistics import Reference
from diffbench.metrics.scores import Score, defined, undefined
from diffbench.specs.floors import FloorSpec
from diffbench.specs.measures import MeasureSpec
from diffbench.specs.registry import build
from diffbench.store.progress import Step


class Fidelity:
    """Scores of sets of samples against one data set.

    Args:
        module: the extractor: images, uint8 (B, C, H, W), to features (B, d) and logits (B, K); without logits, K = 0,
            there is no confidence.  KID's gamma is its ``kid_gamma``, where it has one, else the usual 1/d.
        reference: the statistics and features of the data set's splits by the extractor.
        train: the training images, uint8 (N, H, W, C).
        name: the extractor's name in the protocol; the module's own ``name`` by default.
        sha256: the checksum of its weights; computed by default.
        opinions: metric -> a further extractor with an FID of its own; the reference has the statistics of each.
        batch: images in a forward pass; the module's own choice by default.
        resamples: bootstrap resamples for the standard errors of FID and IS; 0 for none.  An FID
            takes the eigenvalues of a d x d matrix: at d = 2048 that is minutes for 20.
        seed: the seed of the bootstrap.
        inception_score: whether IS is among the scores.
        class_accuracy: whether the logits are of the data set's classes.
        grey_levels: the data set's number of grey images.
        conversion: how the extractor converts grey levels, in words for the protocol.
        floors: how the floors of FIDs are measured, by ``real_images``.
        measures: further measures of the samples.
        published: SHA-256 of the published reference in place of the training split, if there is one.
    """

    def __init__(
        self,
        module: nn.Module,
        reference: Reference,
        train: Images,
        *,
        name: str | None = None,
        sha256: str | None = None,
        opinions: Mapping[str, nn.Module] | None = None,
        batch: int | None = None,
        resamples: int = 20,
        seed: int = 0,
        inception_score: bool = True,
        class_accuracy: bool = True,
        grey_levels: int = 256,
        conversion: str | None = None,
        floors: FloorSpec | None = None,
        measures: Sequence[MeasureSpec] = (),
        published: str | None = None,
    ) -> None:
        self.module, self.reference, self.train = module, reference, train
        self.name: str = name or str(module.name)
        self.sha256 = sha256 or weights_sha256(module)
        self.opinions = dict(opinions or {})
        self.batch, self.resamples, self.seed = batch, resamples, seed
        self.inception_score, self.class_accuracy = inception_score, class_accuracy
        self.grey_levels, self.conversion, self.published = grey_levels, conversion, published
        self.device = next(module.parameters()).device
        self.real_images = RealImages(reference, floors or FloorSpec())
        self.measures: dict[MeasureSpec, Measure] = {
            each: build(each, reference, self.device) for each in measures
        }
        self.kid_gamma = float(getattr(module, "kid_gamma", 1 / reference.features.shape[1]))

    @cached_property
    def protocol(self) -> dict[str, Any]:
        """What must agree before two scores are compared."""
        weights = {
            metric: getattr(each, "sha256", self.sha256) for metric, each in self.opinions.items()
        }
        others = {metric: each for metric, each in weights.items() if each != self.sha256}
        return (
            ({"opinions": others} if others else {})
            | {
                "extractor": self.name,
                "extractor_sha256": self.sha256,
                "conversion": self.conversion,
                "extractor_features": self.reference.features.shape[1],
                "torch_fidelity": metadata.version("torch-fidelity"),
                "reference_split": "train",
                "reference_sha256": self.published,
                "reference_counts": dict(self.reference.counts),
                "reference_neighbours": len(self.reference.features),
                "is_splits": IS_OPTIONS["splits"],
                "is_shuffle_seed": IS_OPTIONS["rng_seed"],
                "kid_subsets": KID_OPTIONS["kid_subsets"],
                "kid_subset_size": "min(1000, N // 2), N the smaller of the two sets",
                "kid_kernel": "(gamma z.z' + 1)^3",
                "kid_gamma": self.kid_gamma,
                "kid_seed": KID_OPTIONS["rng_seed"],
                "prc_neighborhood": NEIGHBOURHOOD,
                "bootstrap": {"resamples": self.resamples, "seed": self.seed},
                "floors": self.real_images.spec.model_dump(),
            }
            | ({"measures": [each.model_dump() for each in self.measures]} if self.measures else {})
        )

    def score(self, images: Images, labels: Labels | None = None) -> dict[str, Score]:
        """All metrics of samples, as ``measured``, which says what raises."""
        return dict(self.measured(images, labels).scores)

    def measured(self, images: Images, labels: Labels | None = None) -> Measured:
        """All metrics of samples, uint8 (N, H, W, C): a value and its standard error or None.

        ``fid_test`` is FID to the test split; all else is measured against the train split.  With the
        ``labels`` (N,) that were asked for, ``class_accuracy`` is the share that the extractor agrees with.

        Raises:
            ValueError: when samples differ in shape from the reference or are fewer than 20, or when a feature is not
                finite.  A metric that is not finite, or not defined for these images, has no value but a ``reason``.
        """
        self._check(images)
        z, logits = features_and_logits(self.module, images, self.batch)
        rows = bootstrap_rows(len(z), self.resamples, self.seed)
        neighbours = self.reference.features
        balls = self.reference.radii(NEIGHBOURHOOD, self.device)
        precision, recall = precision_recall(z, neighbours, self.device, balls)
        nearest = nearest_distances(images, self.train, device=self.device)
        scores: dict[str, Score] = {
            **self._fids(z, rows, {"fid": "train", "fid_test": "test"}),
            "kid": {
                "value": kernel_distance(z, neighbours, self.kid_gamma),
                "se": kernel_distance_se(z, neighbours, self.kid_gamma),
            },
            "precision": {"value": precision, "se": (precision * (1 - precision) / len(z)) ** 0.5},
            "recall": {"value": recall, "se": None},
            "nearest_ratio": self._nearest_ratio(nearest),
        }
        if logits.size:
            scores["confidence"] = _mean(_in_parts(_confidence, logits))
        scores["saturated"] = _mean(_in_parts(self._saturated, images))
        if self.inception_score:
            resampled = [inception_score(logits, i) for i in rows]
            scores["is"] = _bootstrapped(inception_score(logits), resampled)
        if labels is not None and self.class_accuracy:
            scores["class_accuracy"] = _mean((logits.argmax(1) == labels).astype(np.float64))
        for metric, opinion in self.opinions.items():
            other, _ = features_and_logits(opinion, images, self.batch)
            scores |= self._fids(other, rows, {metric: metric})
        curves: dict[str, Curve] = {}
        for measure in self.measures.values():
            found = measure.of(z, rows)
            scores |= found.scores
            curves |= found.curves
        return Measured({name: _checked(each) for name, each in scores.items()}, curves)

    def frechet(self, images: Images, together: int = 1) -> Score:
        """FID of images, uint8 (N, H, W, C), to the train split.

        ``together``: how many consecutive images belong together; the bootstrap draws them as one.

        Raises:
            ValueError: as ``score``.
        """
        self._check(images)
        z, _ = features_and_logits(self.module, images, self.batch)
        groups = bootstrap_rows(len(z) // together, self.resamples, self.seed)
        rows = groups[:, :, None] * together + np.arange(together)
        rows = rows.reshape(len(rows), groups.shape[1] * together)
        return _checked(self._fids(z, rows, {"fid": "train"})["fid"])

    def _nearest_ratio(self, nearest: NDArray[np.float64]) -> Score:
        if self.reference.nearest_of_test == 0:
            return undefined("every test image is a copy of a training image")
        return _mean(nearest / self.reference.nearest_of_test)

    def _fids(
        self, z: Features, rows: NDArray[np.int64], targets: Mapping[str, str]
    ) -> dict[str, Score]:
        """FIDs by metric, to the reference's statistics of these names; a Gaussian is fitted once for all of them."""
        distances = [self.reference.distances[name] for name in targets.values()]
        title = f"FID to {', '.join(targets.values())}, with its bootstrap"
        with Step(title, 1 + len(rows), "FID") as step:
            drawn = step.over(fitted(z, i) for i in (None, *rows))
            found = [[distance(each) for distance in distances] for each in drawn]
        columns = zip(*found, strict=True)
        return {
            metric: _bootstrapped(value, resampled)
            for metric, (value, *resampled) in zip(targets, columns, strict=True)
        }

    def _saturated(self, images: Images) -> NDArray[np.float64]:
        """The share of the numbers of each image at the first or last grey level (N,)."""
        ends = (images == 0) | (images == self.grey_levels - 1)
        share: NDArray[np.float64] = ends.reshape(len(images), -1).mean(1)
        return share

    def _check(self, images: Images) -> None:
        wanted = self.train.shape[1:]
        if images.shape[1:] != wanted:
            raise ValueError(
                f"samples have the shape {images.shape[1:]}, but the reference images have {wanted}"
            )
        if len(images) < 20:
            raise ValueError(f"{len(images)} samples are too few to score: give at least 20")


def _confidence(logits: Features) -> NDArray[np.float64]:
    """The largest class probabilities (N,) of logits (N, classes)."""
    largest: NDArray[np.float64] = torch.from_numpy(logits).double().softmax(1).amax(1).numpy()
    return largest


def _in_parts(
    measure: Callable[[NDArray[Any]], NDArray[np.float64]], values: NDArray[Any]
) -> NDArray[np.float64]:
    """A number for each row of some values, of which ``PART`` are taken at a time."""
    starts = range(0, len(values), PART)
    return np.concatenate([measure(values[start : start + PART]) for start in starts])


def _mean(values: NDArray[Any]) -> Score:
    return {"value": float(values.mean()), "se": float(values.std(ddof=1) / len(values) ** 0.5)}


def _bootstrapped(value: float, resampled: list[float]) -> Score:
    return {"value": value, "se": float(np.std(resampled, ddof=1)) if len(resampled) > 1 else None}


def _checked(score: Score) -> Score:
    return score if score["value"] is None else defined(score["value"], score["se"])
