"""Data sets: images as grey levels, with labels and a fixed split into train and test.

A data set is arrays and nothing else, so that everything that uses it (training, scoring,
likelihoods) sees the same images.  The split is a seeded permutation that keeps the classes'
proportions: images are shuffled, sorted by class, and every (N / N_test)-th goes to the test split.
An unstratified split of a small set depends mostly on the random class counts: it changes the FID between
test and train by a factor of four on the digits, and with it everything that is measured relative
to that floor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diffbench.data.grey_levels import Images
from diffbench.specs.data import DigitsSpec, PlacedSpec

Labels = NDArray[np.int64]

#: By how much damage must raise an extractor's FID, relative to the floor; see `diffbench.metrics.validation`.
NOISE_LIMIT = {"noise_0.2": (2.0, 1e9)}
DIGITS_LIMITS = {
    "accuracy": (0.985, 1.0),
    "floor": (0.8, 1.6),
    "dropped_class": (8.0, 1e9),
    "blur": (15.0, 1e9),
    **NOISE_LIMIT,
}


@dataclass(frozen=True)
class Dataset:
    """Grey levels 0..levels-1 of two splits, uint8 (N, H, W, C), and their classes, int64 (N,).

    The test split is in random order, so that its first images alone are a sample of it.
    ``limits`` are the least and the greatest values of what `diffbench.metrics.validation` measures of an extractor
    trained on this set; without limits it is not tested on damaged images.  ``inception_score`` says whether the
    Inception score of its classes means anything.  ``identity`` is the checksum of the pixels of a set of image files,
    ``contents`` that of the files.
    ``notes`` are remarks on what was read and what was not.
    """

    train: Images
    test: Images
    train_labels: Labels
    test_labels: Labels
    levels: int
    classes: tuple[str, ...]
    name: str = "images"
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    inception_score: bool = True
    identity: str | None = None
    contents: str | None = None
    notes: tuple[str, ...] = ()

    def split(self, name: Literal["train", "test"]) -> tuple[Images, Labels]:
        """Return the images and labels of a split."""
        if name == "train":
            return self.train, self.train_labels
        return self.test, self.test_labels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.train.shape[1:]
        return height, width, channels


class Digits:
    """Handwritten digits, 8x8, in 17 grey levels, ten classes, 1,797 images, inside scikit-learn.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998,
    https://doi.org/10.24432/C50P49; scikit-learn ships its test part
    (`sklearn.datasets.load_digits`).
    """

    def __init__(self, spec: DigitsSpec) -> None:
        self.spec = spec

    def load(self) -> Dataset:
        """Read the images from scikit-learn; nothing is downloaded."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = digits.images.astype(np.uint8)[..., None]
        return _split(
            images,
            digits.target.astype(np.int64),
            test=self.spec.test,
            seed=self.spec.seed,
            levels=self.spec.levels,
            classes=tuple(str(name) for name in digits.target_names),
            name="digits",
            limits=DIGITS_LIMITS,
        )


def place_name(spec: PlacedSpec) -> str:
    """Return the name of the images' place; the data set's own where results belong to contents, wherever these lie."""
    return Path(spec.paths["path"]).resolve().name if spec.contents is None else spec.name


def manifest(dataset: Dataset) -> dict[str, Any]:
    """Return what identifies a data set: counts, shape, grey levels, range, class counts and SHA-256 of the arrays.

    ``saturated`` is the share of numbers at the first or last grey level.
    """
    images = {"train": dataset.train, "test": dataset.test}
    labels = {"train": dataset.train_labels, "test": dataset.test_labels}
    sums = {"identity": dataset.identity, "contents": dataset.contents}
    known: dict[str, Any] = {key: value for key, value in sums.items() if value is not None}
    known |= {"notes": list(dataset.notes)} if dataset.notes else {}
    return known | {
        "name": dataset.name,
        "counts": {split: len(array) for split, array in images.items()},
        "shape": list(dataset.shape),
        "levels": dataset.levels,
        "range": {split: [int(array.min()), int(array.max())] for split, array in images.items()},
        "saturated": {split: _saturated(array, dataset.levels) for split, array in images.items()},
        "classes": list(dataset.classes),
        "class_counts": {
            split: np.bincount(array, minlength=len(dataset.classes)).tolist()
            for split, array in labels.items()
        },
        "sha256": {split: _sha256(array) for split, array in images.items()},
        "labels_sha256": {split: _sha256(array) for split, array in labels.items()},
    }


def checked(dataset: Dataset) -> Dataset:
    """Return the data set with remarks on images that are there several times.

    Raises:
        ValueError: when all images of a split are the same: nothing can be learnt from them, or measured of them.
    """
    known = {
        split: _digests(images)
        for split, images in (("train", dataset.train), ("test", dataset.test))
    }
    for split, digests in known.items():
        if len(set(digests)) == 1:
            raise ValueError(
                f"all {len(digests):,} images of the {split} split are the same: nothing can be learnt from them "
                "or measured of them"
            )
    train = set(known["train"])
    copies, again = sum(each in train for each in known["test"]), len(known["train"]) - len(train)
    notes = dataset.notes
    if copies:
        notes += (f"{copies:,} of {len(dataset.test):,} test images are copies of training images",)
    if again:
        notes += (f"{again:,} of {len(dataset.train):,} training images are copies of others",)
    return replace(dataset, notes=notes)


def _digests(images: Images) -> list[bytes]:
    return [hashlib.blake2b(each.tobytes(), digest_size=16).digest() for each in images]


def _saturated(images: Images, grey_levels: int) -> float:
    # Counted in parts: a mask of a large set takes as much memory as the set.
    parts = (images[start : start + 10_000] for start in range(0, len(images), 10_000))
    ends = sum(int(((part == 0) | (part == grey_levels - 1)).sum()) for part in parts)
    return ends / images.size


def stratified_mask(labels: Labels, test: int, seed: int) -> NDArray[np.bool_]:
    """Return a boolean mask (N,) of ``test`` images with the classes in proportion, fixed by the seed."""
    # RandomState, whose streams do not change between NumPy's versions: nor must the split.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    chosen = ((np.arange(test) + 0.5) * len(labels) / test).astype(int)
    mask = np.zeros(len(labels), dtype=bool)
    mask[by_class[chosen]] = True
    return mask


def mixed(dataset: Dataset, seed: int) -> Dataset:
    """Return the data set with its test split, which is sorted by class, in a random order fixed by the seed."""
    order = np.random.RandomState(seed).permutation(len(dataset.test))
    return replace(dataset, test=dataset.test[order], test_labels=dataset.test_labels[order])


def check_split(test: int, count: int) -> None:
    """Refuse a test split that has no image or all images.

    Raises:
        ValueError: when it has.
    """
    if not 0 < test < count:
        raise ValueError(f"a test split of {test} of the {count} images leaves none to train on")


def _split(images: Images, labels: Labels, *, test: int, seed: int, **facts: Any) -> Dataset:
    check_split(test, len(images))
    mask = stratified_mask(labels, test, seed)
    return Dataset(images[~mask], images[mask], labels[~mask], labels[mask], **facts)


def _sha256(array: NDArray[Any]) -> str:
    # A view, not tobytes: memory has no room for a second copy of a large set.
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).data).hexdigest()
