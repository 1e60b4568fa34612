"""Laws of data sets, and of rules of averaging."""

from __future__ import annotations

import numpy as np

from diffbench.conform.law import demand, law, unless
from diffbench.data.datasets import Dataset
from diffbench.specs.averages import AverageSpec
from diffbench.specs.data import DataSpec
from diffbench.specs.registry import build


def loaded(spec: DataSpec) -> Dataset:
    """The data set, where it needs no files."""
    unless(spec.read_from, f"it reads files ({', '.join(spec.read_from)})")
    found: Dataset = build(spec).load()
    return found


@law(DataSpec, "shapes and dtypes", "images uint8 (N, H, W, C), labels int64 (N,), of both splits")
def shapes(spec: DataSpec) -> None:
    """What is stated before the data are read is so."""
    data = loaded(spec)
    for split in ("train", "test"):
        images, labels = data.split(split)
        right = images.dtype == np.uint8 and images.ndim == 4 and labels.dtype == np.int64
        told = f"{split} is {images.dtype} {images.shape}, its labels {labels.dtype} {labels.shape}"
        demand(right and len(labels) == len(images), told)
        if spec.known_counts:
            demand(
                spec.known_counts[split] == len(images),
                f"known_counts says {spec.known_counts}, but {told}",
            )
    height, width, channels = data.shape
    stated = spec.known_shape or (channels, height, width)
    demand(
        stated == (channels, height, width),
        f"known_shape is {stated}, images are {(channels, height, width)}",
    )
    classes = spec.known_classes or max(len(data.classes), 1)
    demand(
        classes == max(len(data.classes), 1),
        f"known_classes is {classes}, classes are {data.classes}",
    )


@law(DataSpec, "levels are in the range", "0 <= level < L, 0 <= label < classes")
def levels(spec: DataSpec) -> None:
    """Grey levels of files are whole numbers below L."""
    data = loaded(spec)
    highest = max(int(data.train.max()), int(data.test.max()))
    demand(data.levels == spec.levels, f"levels is {data.levels}, and its spec says {spec.levels}")
    demand(
        highest < data.levels,
        f"levels out of range: a level is {highest}, and there are {data.levels}",
    )
    labels = np.concatenate([data.train_labels, data.test_labels])
    inside = labels.min() >= 0 and labels.max() < max(len(data.classes), 1)
    demand(inside, f"labels are {labels.min()} .. {labels.max()}, of {len(data.classes)} classes")


@law(DataSpec, "the split is fixed", "load() = load()")
def fixed(spec: DataSpec) -> None:
    """Every job sees the same images in the same order."""
    first, again = loaded(spec), loaded(spec)
    pairs = (
        (first.train, again.train),
        (first.test, again.test),
        (first.train_labels, again.train_labels),
    )
    demand(all(np.array_equal(a, b) for a, b in pairs), "two loads differ")


@law(AverageSpec, "rates are shares", "0 <= decay(n) < 1")
def rates(spec: AverageSpec) -> None:
    """An average of weights is between the weights."""
    for rule in spec.tracked.values():
        found = [build(rule, 32).decay(n) for n in range(1, 200)]
        outside = [each for each in found if not 0 <= each < 1]
        demand(not outside, f"decay(n) is {outside[:1]}")
