"""Data sets: images as grey levels, with labels and a fixed split into train and test.

A data set is arrays and nothing else, so that everything downstream (training, scoring,
likelihoods) sees the same levels.  The split is a seeded permutation that keeps the classes'
proportions: images are shuffled, sorted by class, and every (N / N_test)-th goes to the test split.
An unstratified split of a small set is mostly luck of the class counts: it moves the FID between
test and train by a factor of four on the digits, and with it everything that is measured relative
to that floor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffbench.data.levels import Images
from diffbench.specs.data import DigitsSpec, FolderSpec

Labels = NDArray[np.int64]

#: What damage must cost an extractor's FID, relative to the floor; see `diffbench.metrics.validation`.
NOISE_LIMIT = {"noise_0.2": (2.0, 1e9)}
DIGITS_LIMITS = {
    "accuracy": (0.985, 1.0),
    "floor": (0.8, 1.6),
    "dropped_class": (8.0, 1e9),
    "blur": (15.0, 1e9),
    **NOISE_LIMIT,
}

_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}


@dataclass(frozen=True)
class Dataset:
    """Grey levels 0..levels-1 of two splits, uint8 (N, H, W, C), and their classes, int64 (N,).

    The test split is in no order: what measures its first images alone measures a sample of it.
    ``limits`` are the least values of what `diffbench.metrics.validation` measures of an extractor trained on this
    set, and the greatest; without any it is not tried on damaged images.  ``inception_score`` says whether the
    Inception score of its classes means anything.
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


class ImageFolder:
    """A folder of 8-bit PNGs, greyscale or RGB, with 256 levels.

    Sub-folders that hold images are the classes, in sorted order; without any, all images are of
    one class.  With ``size``, images are cropped to the centred square and resized by Pillow's
    antialiased bicubic filter; without, all must have one size already.
    """

    def __init__(self, spec: FolderSpec) -> None:
        self.spec = spec

    def load(self) -> Dataset:
        """Read the images.

        Raises:
            ValueError: when there are no PNGs or not enough, when there are JPEGs (whose artefacts
                a model would learn), or when images differ in size or kind.
        """
        files, classes = self._files()
        arrays = [self._read(file) for file, _ in files]
        for (file, _), array in zip(files, arrays, strict=True):
            if array.shape != arrays[0].shape:
                raise ValueError(
                    f"{file} is {_describe(array)} but {files[0][0]} is {_describe(arrays[0])}: "
                    "all must have one number of channels and one size (`size:` crops and resizes)"
                )
        dataset = _split(
            np.stack(arrays),
            np.array([label for _, label in files], dtype=np.int64),
            test=max(1, round(self.spec.test_fraction * len(files))),
            seed=self.spec.seed,
            levels=self.spec.levels,
            classes=classes,
            name=Path(self.spec.path).resolve().name,
        )
        return mixed(dataset, self.spec.seed)

    def _files(self) -> tuple[list[tuple[Path, int]], tuple[str, ...]]:
        root = Path(self.spec.path)
        if not root.is_dir():
            raise ValueError(f"{root} is no folder: `path:` must name a folder of PNG images")
        _refuse_jpeg(root)
        folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _pngs(folder)]
        if folders and _pngs(root):
            raise ValueError(f"{root} holds images beside class sub-folders: use one or the other")
        files = [(f, i) for i, folder in enumerate(folders or [root]) for f in _pngs(folder)]
        if len(files) < 2:
            raise ValueError(
                f"{root} holds {len(files)} PNG images: `path:` must name a folder of two or more, "
                "directly or in one sub-folder a class"
            )
        return files, tuple(folder.name for folder in folders) or ("all",)

    def _read(self, file: Path) -> Images:
        with Image.open(file) as image:
            if image.format != "PNG":
                raise ValueError(f"{file} is {image.format}, not PNG, whatever its name says")
            if image.mode not in _MODES:
                raise ValueError(f"{file} has mode {image.mode}: images must be 8-bit grey or RGB")
            converted = image.convert(_MODES[image.mode])
        if self.spec.size is not None:
            converted = _square(converted, self.spec.size)
        array = np.asarray(converted, dtype=np.uint8)
        return array if array.ndim == 3 else array[..., None]


def manifest(dataset: Dataset) -> dict[str, Any]:
    """Counts, shape, levels, range, class counts and SHA-256 of the arrays: what identifies a data set."""
    images = {"train": dataset.train, "test": dataset.test}
    labels = {"train": dataset.train_labels, "test": dataset.test_labels}
    return {
        "name": dataset.name,
        "counts": {split: len(array) for split, array in images.items()},
        "shape": list(dataset.shape),
        "levels": dataset.levels,
        "range": {split: [int(array.min()), int(array.max())] for split, array in images.items()},
        "classes": list(dataset.classes),
        "class_counts": {
            split: np.bincount(array, minlength=len(dataset.classes)).tolist()
            for split, array in labels.items()
        },
        "sha256": {split: _sha256(array) for split, array in images.items()},
        "labels_sha256": {split: _sha256(array) for split, array in labels.items()},
    }


def stratified_mask(labels: Labels, test: int, seed: int) -> NDArray[np.bool_]:
    """A boolean mask (N,) of ``test`` images with the classes in proportion, fixed by the seed."""
    # RandomState, whose streams NumPy froze: the split must not move with NumPy's version.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    chosen = ((np.arange(test) + 0.5) * len(labels) / test).astype(int)
    mask = np.zeros(len(labels), dtype=bool)
    mask[by_class[chosen]] = True
    return mask


def mixed(dataset: Dataset, seed: int) -> Dataset:
    """Return the data set with its test split in a random order, fixed by the seed, in place of one by class."""
    order = np.random.RandomState(seed).permutation(len(dataset.test))
    return replace(dataset, test=dataset.test[order], test_labels=dataset.test_labels[order])


def _split(images: Images, labels: Labels, *, test: int, seed: int, **facts: Any) -> Dataset:
    if not 0 < test < len(images):
        raise ValueError(
            f"a test split of {test} out of {len(images)} images leaves none to train on"
        )
    mask = stratified_mask(labels, test, seed)
    return Dataset(images[~mask], images[mask], labels[~mask], labels[mask], **facts)


def _sha256(array: NDArray[Any]) -> str:
    # A view, not tobytes: of a large set there is no room for a second copy.
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).data).hexdigest()


def _pngs(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() == ".png" and f.is_file())


def _refuse_jpeg(root: Path) -> None:
    jpegs = sorted(f for f in root.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg"))
    if jpegs:
        raise ValueError(
            f"{root} holds JPEG images ({jpegs[0].name}, {len(jpegs)} in all): their artefacts "
            "would be learnt and scored; make PNGs from the lossless originals"
        )


def _square(image: Image.Image, size: int) -> Image.Image:
    """The centred square of an image, resized."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    # Cropped first: given a box, Pillow's filter would read pixels outside it.
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.BICUBIC)


def _describe(array: Images) -> str:
    height, width, channels = array.shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"
