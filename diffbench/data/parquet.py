"""Parquet files of images, in the form of data sets on the Hugging Face hub.

    train*.parquet, test*.parquet    a split each, anywhere in the folder, its pieces in the order of their names
    image column                     struct of `bytes` (a PNG file) and `path` (which is never opened)
    label column                     integers from 0; the schema's metadata under "huggingface" may name the classes

A test split that is sorted by class is shuffled.

Rows are decoded as they are read, so that a set is in memory only once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from diffbench.data.datasets import Dataset, Labels, mixed
from diffbench.data.decoding import FORMATS, Decoder, Splits
from diffbench.data.extras import package
from diffbench.specs.data import ParquetSpec
from diffbench.store.image_files import MOST_CLASSES
from diffbench.store.status import one_line

#: Number of rows that are read at a time.
BATCH = 256


class ParquetImages:
    """Images of 256 grey levels with their own split; with `size` they are cropped and resized as in a folder."""

    def __init__(self, spec: ParquetSpec) -> None:
        self.spec = spec

    def load(self) -> Dataset:
        """Read both splits.

        Raises:
            ValueError: when a split or a column is missing, a file or an image is damaged, an image is lossy and the
                data set not, images differ in size or kind, labels do not fit, or the package pyarrow is missing.
        """
        spec = self.spec
        root = Path(spec.path)
        files = {"train": _files(root, "train"), "test": _files(root, spec.test)}
        columns = _columns(files["train"][0], spec)
        counts = {split: sum(map(_rows, each)) for split, each in files.items()}
        if empty := [split for split, count in counts.items() if not count]:
            raise ValueError(f"{root}: the {empty[0]} split has no rows")
        images, decoder = (
            Splits(**counts),
            Decoder(spec.size, spec.channels, FORMATS[spec.lossy], spec.resize),
        )
        labels = {split: np.zeros(count, np.int64) for split, count in counts.items()}
        for split in files:
            for row, (content, label, where) in enumerate(_read(files[split], columns)):
                images.add(split, decoder.read(content, where), where)
                labels[split][row] = label
        dataset = Dataset(
            images.train,
            images.test,
            labels["train"],
            labels["test"],
            levels=spec.levels,
            classes=self._classes(files["train"][0], columns[1], labels),
            name=root.resolve().name,
        )
        return mixed(dataset, seed=0) if _is_sorted(labels["test"]) else dataset

    def _classes(self, file: Path, label: str | None, labels: dict[str, Labels]) -> tuple[str, ...]:
        if label is None:
            found: tuple[str, ...] = ("all",)
        else:
            most = 1 + max(int(each.max()) for each in labels.values())
            found = _names(file, label) or tuple(map(str, range(most)))
            if most > len(found):
                raise ValueError(
                    f"{file.parent} has the label {most - 1}, but only {len(found)} classes"
                )
        if self.spec.classes not in (None, len(found)):
            raise ValueError(
                f"{file.parent} has {len(found)} classes, but data.classes is {self.spec.classes}"
            )
        return found


def _is_sorted(labels: Labels) -> bool:
    return bool((np.diff(labels) >= 0).all() and labels[0] != labels[-1])


def _files(root: Path, split: str) -> list[Path]:
    found = sorted(root.rglob(f"{split}*.parquet"))
    if not found:
        raise ValueError(
            f"{root} has no {split}*.parquet: `path:` must be a folder with both splits"
        )
    return found


def _open(file: Path) -> Any:
    with _torn(file):
        return _package("pyarrow.parquet").ParquetFile(file)


def _package(module: str) -> ModuleType:
    return package(module, "parquet", "a parquet file")


@contextmanager
def _torn(file: Path) -> Iterator[None]:
    """Turn pyarrow's errors in this block into one that says that the file is damaged."""
    arrow = _package("pyarrow")
    try:
        yield
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} is not a complete parquet file ({one_line(error)})") from None


def _rows(file: Path) -> int:
    return int(_open(file).metadata.num_rows)


def _columns(file: Path, spec: ParquetSpec) -> tuple[str, str | None]:
    """Return the names of the image column and of the label column, None without one."""
    schema, types = _open(file).schema_arrow, _package("pyarrow").types
    images = {
        field.name
        for field in schema
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    }
    labels = {field.name for field in schema if types.is_integer(field.type)}
    image = _chosen(file, "image", spec.image, images, "a struct with `bytes`")
    if image is None:
        raise ValueError(f"{file} has no column of images, a struct with `bytes`")
    return image, _chosen(file, "label", spec.label, labels, "integers")


def _chosen(file: Path, key: str, name: str | None, found: set[str], kind: str) -> str | None:
    if name is None and len(found) > 1:
        raise ValueError(
            f"{file} has several columns for data.{key}: set it to one of {', '.join(sorted(found))}"
        )
    if name is not None and name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ValueError(f"{file}: data.{key}: {name!r} is not a column of {kind}; known: {known}")
    return name or next(iter(found), None)


def _read(files: list[Path], columns: tuple[str, str | None]) -> Iterator[tuple[bytes, int, str]]:
    """Yield each row's image file, label and name."""
    image, label = columns
    for file in files:
        row = 0
        for batch in _batches(file, [each for each in columns if each is not None]):
            contents = batch.column(image).to_pylist()
            labels = [0] * len(contents) if label is None else batch.column(label).to_pylist()
            for each, number in zip(contents, labels, strict=True):
                yield _content(each, file, row), _label(number, file, row), f"{file}: image {row}"
                row += 1


def _batches(file: Path, columns: list[str]) -> Iterator[Any]:
    opened = _open(file)
    if missing := [each for each in columns if each not in opened.schema_arrow.names]:
        raise ValueError(f"{file} has no column {missing[0]!r}")
    with _torn(file):
        yield from opened.iter_batches(BATCH, columns=columns)


def _content(value: dict[str, Any] | None, file: Path, row: int) -> bytes:
    content = (value or {}).get("bytes")
    if not isinstance(content, bytes):
        raise ValueError(f"{file}: image {row} has no bytes; a file that it names is not read")
    return content


def _label(value: Any, file: Path, row: int) -> int:
    if not isinstance(value, int) or not 0 <= value < MOST_CLASSES:
        raise ValueError(
            f"{file}: image {row} has the label {value}: labels are numbers from 0, below {MOST_CLASSES:,}"
        )
    return value


def _names(file: Path, label: str) -> tuple[str, ...]:
    """Return the names of the classes; empty where the file does not give them."""
    metadata = _open(file).schema_arrow.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
