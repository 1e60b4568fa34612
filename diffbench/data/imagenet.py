"""Downsampled ImageNet from its npz batches.

Source: Chrabaszcz, Loshchilov, Hutter, "A Downsampled Variant of ImageNet as an Alternative to the CIFAR datasets",
2017, https://arxiv.org/abs/1707.08819; https://image-net.org/download-images.  It is not the ImageNet-32 and -64
of van den Oord et al. (2016), whose bits per dimension differ.  A batch, `train_data_batch_1.npz` to `_10` and
`val_data.npz`, has

    data (N, 3 S^2) uint8: S^2 red values of an image row by row, then green, then blue;  labels (N,): 1..1000

1,281,167 images at S = 64 are 15.7 GB: a few thousand rows are read at a time, into arrays that are allocated once.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from diffbench.data.datasets import Dataset, Labels
from diffbench.data.grey_levels import Images
from diffbench.specs.data import ImageNetSpec
from diffbench.store.image_files import TORN
from diffbench.store.mapped import header
from diffbench.store.progress import Step
from diffbench.store.status import one_line

CLASSES = 1000
#: Number of bytes that are read at a time.
CHUNK = 2**24


class ImageNet:
    """RGB photographs of 1,000 classes, 32x32 or 64x64, 256 grey levels; the validation images are the test split."""

    def __init__(self, spec: ImageNetSpec) -> None:
        self.spec = spec

    def load(self) -> Dataset:
        """Read all batches.

        Raises:
            ValueError: when one is missing, damaged, of another size, or has other labels.
        """
        spec = self.spec
        names = [f"train_data_batch_{number}.npz" for number in range(1, spec.batches + 1)]
        files = {name: self._find(name) for name in (*names, "val_data.npz")}
        train, train_labels = _read([files[name] for name in names], spec.size)
        test, test_labels = _read([files["val_data.npz"]], spec.size)
        return Dataset(
            train,
            test,
            train_labels,
            test_labels,
            levels=spec.levels,
            classes=tuple(map(str, range(1, CLASSES + 1))),
            name=f"imagenet{spec.size}",
        )

    def _find(self, name: str) -> Path:
        found = sorted(Path(self.spec.paths["path"]).rglob(name))
        if len(found) != 1:
            raise ValueError(
                f"{self.spec.path} has {len(found) or 'no'} {name}: `data.path` must be a folder with one; "
                f"expected: {self.spec.origin}"
            )
        return found[0]


def _read(files: list[Path], size: int) -> tuple[Images, Labels]:
    """Return images, uint8 (N, S, S, 3), and labels 0..999 of some batches."""
    values = 3 * size**2
    counts = [_count(file, values) for file in files]
    images = np.empty((sum(counts), size, size, 3), np.uint8)
    labels = []
    start = 0
    with Step("reading images", len(images), "image") as progress:
        for file, count in zip(files, counts, strict=True):
            labels.append(_labels(file, count))
            for rows in _rows(file, values):
                part = images[start : start + len(rows)]
                part[:] = rows.reshape(-1, 3, size, size).transpose(0, 2, 3, 1)
                start += len(rows)
                progress.advance(len(rows))
    return images, np.concatenate(labels)


def _count(file: Path, values: int) -> int:
    with _member(file, "data") as (_, shape, dtype):
        if len(shape) != 2 or dtype != np.uint8:
            raise ValueError(f"{file}: `data` must be an array of bytes, one row for each image")
        if shape[1] != values:
            raise ValueError(
                f"{file}: an image has {shape[1]} values, and must have {values} (data.size)"
            )
        return int(shape[0])


def _labels(file: Path, count: int) -> Labels:
    with _member(file, "labels") as (stream, shape, dtype):
        if shape != (count,) or dtype.kind not in "iu":
            raise ValueError(f"{file}: `labels` must be {count} whole numbers, one for each image")
        labels = np.frombuffer(_content(stream, file, count * dtype.itemsize), dtype)
    if count and not (labels.min() >= 1 and labels.max() <= CLASSES):
        raise ValueError(f"{file}: `labels` must be from 1 to {CLASSES}")
    return labels.astype(np.int64) - 1


def _rows(file: Path, values: int) -> Iterator[NDArray[np.uint8]]:
    with _member(file, "data") as (stream, shape, _):
        each = max(1, CHUNK // values)
        for start in range(0, shape[0], each):
            rows = min(each, shape[0] - start)
            yield np.frombuffer(_content(stream, file, rows * values), np.uint8).reshape(rows, -1)


def _content(stream: Any, file: Path, size: int) -> bytes:
    content: bytes = stream.read(size)
    if len(content) != size:
        raise ValueError(f"{file} is not a complete npz file (an array ends early)")
    return content


@contextmanager
def _member(file: Path, name: str) -> Iterator[tuple[Any, tuple[int, ...], np.dtype[Any]]]:
    """Open an array of an npz file: a stream of its content, its shape and type.  Nothing is unpickled."""
    try:
        with zipfile.ZipFile(file) as archive:
            if f"{name}.npy" not in archive.namelist():
                raise ValueError(f"{file} has no `{name}`")
            member = archive.getinfo(f"{name}.npy")
            with archive.open(member) as stream:
                yield stream, *_checked_header(stream, member.file_size, f"{file}: `{name}`")
    except TORN as error:
        raise ValueError(f"{file} is not a complete npz file ({error})") from None


def _checked_header(
    stream: IO[bytes], length: int, where: str
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and type of an array of numbers; there must be enough bytes for it."""
    try:
        shape, fortran, dtype = header(stream)
    except ValueError as error:
        raise ValueError(f"{where} is not an array ({one_line(error)})") from None
    if fortran or dtype.hasobject:
        raise ValueError(f"{where} must be an array of numbers, row by row")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > length:
        raise ValueError(f"{where} ends early")
    return shape, dtype
