"""Laws of measures of samples, by their features, and of measures of restored images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffbench.conform.law import IdleError, demand, law, unless
from diffbench.conform.trial import apart, normal
from diffbench.metrics.distances import bootstrap_rows, fid_statistics
from diffbench.metrics.extractor import Features
from diffbench.metrics.measures import Measure, Measured
from diffbench.metrics.reference_statistics import Reference
from diffbench.specs.image_measures import ImageMeasureSpec
from diffbench.specs.measures import MeasureSpec
from diffbench.specs.registry import build

#: Means of the same numbers in another order, in float64; distances of features are float32 sums.
EQUAL = 1e-5
COUNT, WIDTH = 200, 4
SHAPE = (1, 16, 16)


def features(seed: int, count: int = COUNT) -> Features:
    """Features (count, 4) of new images of the training distribution."""
    found: Features = np.random.default_rng(seed).normal(size=(count, WIDTH))
    return found


def built(spec: MeasureSpec) -> Measure:
    """The measure against 200 training images."""
    unless(spec.opinion, "it is FID by other features of the extractor, and has no class")
    known = features(1)
    statistics = dict.fromkeys(("train", "test"), fid_statistics(known))
    counts = {"train": COUNT, "test": COUNT}
    found: Measure = build(
        spec, Reference(statistics, {}, known, features(2), {}, counts, 1.0), "cpu"
    )
    return found


def scores(spec: MeasureSpec, z: Features, measure: Measure | None = None) -> Measured:
    """What the measure says of samples."""
    rows: NDArray[np.int64] = bootstrap_rows(len(z), 5, 0)
    return (measure or built(spec)).of(z, rows)


def compare(spec: MeasureSpec, first: Measured, other: Measured, what: str) -> None:
    """Refuse two sets of scores that differ; a measure that draws sets may differ by four standard errors."""
    for name, score in first.scores.items():
        value, again = score["value"], other.scores[name]["value"]
        allowed = EQUAL * max(1.0, abs(value))
        if spec.draws:
            allowed += 4 * (score["se"] or abs(value))
        demand(abs(value - again) <= allowed, f"{name} {what}: {value:.6g} and {again:.6g}")


@law(
    MeasureSpec,
    "scores are numbers",
    "of(z, rows) -> metric -> finite value, and its standard error or None",
)
def numbers(spec: MeasureSpec) -> None:
    """Every metric that ``better`` names is there."""
    z = features(3)
    kept = z.copy()
    found = scores(spec, z)
    demand(found.scores, "there is no score")
    for name, score in found.scores.items():
        demand(set(score) >= {"value", "se"}, f"{name} has {sorted(score)}, not value and se")
        demand(np.isfinite(score["value"]), f"{name} is {score['value']}")
    if spec.better:
        demand(
            set(spec.better) == set(found.scores),
            f"better names {sorted(spec.better)}, of() {sorted(found.scores)}",
        )
    demand(np.array_equal(z, kept), "of changes the features in place")


@law(
    MeasureSpec,
    "the direction is as said",
    "new images of the training distribution are better than others",
)
def direction(spec: MeasureSpec) -> None:
    """``better`` says by which of two scores a model wins."""
    unless(not spec.better, "it states no direction: better = {metric: 'lower' or 'higher'}")
    worse = features(1) if spec.against == "copies" else 3 * features(4) + 2
    good, bad = scores(spec, features(3)), scores(spec, worse)
    for name, better in spec.better.items():
        won, lost = good.scores[name]["value"], bad.scores[name]["value"]
        told = f"{name} is {won:.4g} for new images of the training distribution and {lost:.4g} for {spec.against}"
        demand(
            won < lost if better == "lower" else won > lost,
            f"the direction is reversed: {told}, but {better} is better",
        )


@law(MeasureSpec, "the order of the samples does not matter", "of(z) = of(P z) for a permutation P")
def order(spec: MeasureSpec) -> None:
    """Samples are a set."""
    z = features(3)
    turned = z[np.random.default_rng(5).permutation(len(z))]
    compare(spec, scores(spec, z), scores(spec, turned), "depends on the order of the samples")


@law(MeasureSpec, "a score does not depend on what was scored before", "of(z) = of(z) after of(z')")
def forgets(spec: MeasureSpec) -> None:
    """One measure scores every variant of a benchmark."""
    measure, z = built(spec), features(3)
    first = scores(spec, z, measure)
    scores(spec, 2 * features(6), measure)
    again = scores(spec, z, measure)
    compare(spec, first, again, "depends on the batch before")


def pictures(seed: int) -> Tensor:
    """Images (6, 1, 16, 16) on [0, 1]."""
    return normal((6, *SHAPE), seed, torch.float32).sigmoid()


def distances(spec: ImageMeasureSpec, truth: Tensor, drawn: Tensor) -> Tensor:
    """Distances of two draws of each image.

    Raises:
        IdleError: where the measure needs files.
    """
    if spec.origins and not spec.files:
        raise IdleError(f"it reads files: give {', '.join(spec.origins)}")
    if reason := spec.refusal(SHAPE):
        raise IdleError(reason)
    found: Tensor = build(spec, shape=SHAPE, device="cpu")(truth, torch.stack([drawn, drawn], 1))
    return found


@law(ImageMeasureSpec, "shapes and dtypes", "(N, C, H, W), (N, K, C, H, W) -> (N, K), float64")
def distances_are_rows(spec: ImageMeasureSpec) -> None:
    """One number for each draw."""
    x, y = pictures(1), pictures(2)
    kept = x.clone(), y.clone()
    found = distances(spec, x, y)
    right = tuple(found.shape) == (6, 2) and found.dtype == torch.float64
    demand(right, f"it returned {found.dtype} {tuple(found.shape)}")
    demand(torch.equal(x, kept[0]) and torch.equal(y, kept[1]), "it changes the images in place")


@law(ImageMeasureSpec, "the direction is as said", "an image is nearer to itself than to noise")
def image_direction(spec: ImageMeasureSpec) -> None:
    """``better`` says which values are nearer."""
    x = pictures(1)
    same, other = float(distances(spec, x, x).mean()), float(distances(spec, x, pictures(2)).mean())
    right = same < other if spec.better == "lower" else same > other
    told = f"it is {same:.4g} of an image to itself and {other:.4g} to noise"
    demand(right, f"the direction is reversed: {told}, but {spec.better} is better")


@law(
    ImageMeasureSpec,
    "the batch does not matter",
    "d(x_i, y_i) is the same in every batch and order",
)
def batches(spec: ImageMeasureSpec) -> None:
    """Each image is compared with its own truth."""
    x, y = pictures(1), pictures(2)
    together = distances(spec, x, y)
    alone = torch.cat([distances(spec, x[i : i + 1], y[i : i + 1]) for i in range(6)])
    turned = distances(spec, x.flip(0), y.flip(0)).flip(0)
    demand(
        apart(alone, together) < EQUAL,
        f"it depends on the batch: alone an image differs by {apart(alone, together):.3g}",
    )
    demand(
        apart(turned, together) < EQUAL,
        f"it depends on the order: reversed, it differs by {apart(turned, together):.3g}",
    )
