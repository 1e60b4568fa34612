"""CIFAR-10 from its original archive.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html.  The python version is a tar of seven pickles: `batches.meta` has
the names of the classes, `data_batch_1` to `data_batch_5` and `test_batch` each

    data (N, 3072) uint8: 1,024 red values of an image row by row, then green, then blue;  labels: N of 0..9

N = 10,000.  The five batches are the training split, in this order, the sixth the test split.  The archive is
read where it lies; the pickles are read as data (`pickled_arrays`).
"""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from diffbench.data.datasets import Dataset, Labels
from diffbench.data.grey_levels import Images
from diffbench.data.pickled_arrays import read_dictionary
from diffbench.specs.data import CIFAR10Spec
from diffbench.store.downloads import PublishedFile
from diffbench.store.image_files import inside

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ROOT = "cifar-10-batches-py"
META = f"{ROOT}/batches.meta"
TRAIN = tuple(f"{ROOT}/data_batch_{number}" for number in range(1, 6))
TEST = (f"{ROOT}/test_batch",)
SIZE = 32


class CIFAR10:
    """32x32 RGB photographs, 256 grey levels, ten classes: 50,000 for training, 10,000 for tests."""

    def __init__(self, spec: CIFAR10Spec) -> None:
        self.spec = spec

    def load(self) -> Dataset:
        """Read the archive: ``archive`` if given, else a copy that is downloaded once.

        Raises:
            StoreError: when it is missing and cannot be downloaded, or has another checksum.
            ValueError: when it is damaged, or holds something else.
        """
        path = None if self.spec.archive is None else Path(self.spec.archive)
        archive = PublishedFile("CIFAR-10", URL, self.spec.sha256, None, "data.archive").local(path)
        members = _members(archive)
        names = _batch(members, META, archive).get("label_names")
        if not isinstance(names, list) or len(names) != self.spec.known_classes:
            raise ValueError(f"{archive}: {META} must have ten `label_names`")
        train, train_labels = _split(members, TRAIN, archive)
        test, test_labels = _split(members, TEST, archive)
        return Dataset(
            train,
            test,
            train_labels,
            test_labels,
            levels=self.spec.levels,
            classes=tuple(
                name.decode() if isinstance(name, bytes) else str(name) for name in names
            ),
            name="cifar10",
        )


def _members(archive: Path) -> dict[str, bytes]:
    """Return the files of the archive that are needed: name -> content."""
    found = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                inside(member.name, str(archive))
                if member.isfile() and member.name in (META, *TRAIN, *TEST):
                    file = tar.extractfile(member)
                    assert file is not None
                    found[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive} is not a complete gzipped tar archive ({error})") from None
    return found


def _split(
    members: dict[str, bytes], names: tuple[str, ...], archive: Path
) -> tuple[Images, Labels]:
    """Return images, uint8 (N, 32, 32, 3), and labels of some batches."""
    images, labels = [], []
    for name in names:
        batch = _batch(members, name, archive)
        images.append(_images(batch.get("data"), f"{archive}: {name}"))
        labels.append(_labels(batch.get("labels"), len(images[-1]), f"{archive}: {name}"))
    return np.concatenate(images), np.concatenate(labels)


def _batch(members: dict[str, bytes], name: str, archive: Path) -> dict[str, Any]:
    if name not in members:
        raise ValueError(f"{archive} has no {name}: it must be the Python version of CIFAR-10")
    return read_dictionary(members[name], f"{archive}: {name}")


def _images(data: Any, where: str) -> Images:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
        raise ValueError(f"{where}: `data` must be an array of bytes, one row for each image")
    if data.shape[1] != 3 * SIZE**2:
        raise ValueError(
            f"{where}: an image has {data.shape[1]} values, and must have {3 * SIZE**2} (32x32 RGB)"
        )
    return np.ascontiguousarray(data.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))


def _labels(labels: Any, count: int, where: str) -> Labels:
    if not isinstance(labels, list) or not all(
        type(label) is int and 0 <= label < 10 for label in labels
    ):
        raise ValueError(f"{where}: `labels` must be a list of numbers from 0 to 9")
    if len(labels) != count:
        raise ValueError(f"{where} has {count} images, but {len(labels)} labels")
    return np.array(labels, dtype=np.int64)
