"""Parquet files of images, in the form of data sets on the Hugging Face hub.

    train*.parquet, test*.parquet    a split each, in the folder or in one below it, in pieces `train-00000-of-00005`
    image column                     struct of `bytes` (a PNG file) and `path` (which is never opened)
    label column                     integers from 0; the schema's metadata under "huggingface" may name the classes

The pieces of a split are read in the order of their names, and all that their names count must be there.  The label
column is the one that the metadata call a class label, else the only column of integers.  It is not guessed against the
evidence: an index, an id, or a column in which every image has its own number is refused, and so are integers beside a
text column with a label's name.

A test split that is sorted by class is shuffled.

Rows are decoded as they are read, so that a set is in memory only once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from diffbench.data.datasets import Dataset, Labels, mixed, place_name
from diffbench.data.decoding import Decoder, Splits
from diffbench.data.extras import package
from diffbench.specs.data import ParquetSpec
from diffbench.store.image_files import MOST_CLASSES
from diffbench.store.picture_files import PictureError, listed
from diffbench.store.status import one_line

#: Number of rows that are read at a time.
BATCH = 256
#: A piece of a split: its name, its number and of how many it is one.
PIECE = re.compile(r"(.*)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?")
#: Names of columns that number the images.
NUMBERING = re.compile(
    r"__index_level_\d+__|unnamed: ?\d+|(.*[_ ])?(index|idx|id|ids|number|row|key)",
    re.IGNORECASE,
)
#: Names of columns that hold labels, or their names.
LABEL = re.compile(
    r"(.*[_ ])?(label|labels|class|classes|category|target)(_name|_names)?", re.IGNORECASE
)
#: By how much the largest of some numbers may exceed how many there are, if they are labels.
SPARSE = 2


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
        root = Path(spec.paths["path"])
        files = {"train": _files(root, "train"), "test": _files(root, spec.test)}
        columns = _columns(files["train"][0], spec)
        unread = _unread(root, files)
        counts = {split: sum(map(_rows, each)) for split, each in files.items()}
        if empty := [split for split, count in counts.items() if not count]:
            raise ValueError(f"{root}: the {empty[0]} split has no rows")
        decoder = Decoder(spec.size, spec.channels, spec.formats, spec.resize)
        images = Splits(counts["train"], counts["test"], decoder)
        labels = {split: np.zeros(count, np.int64) for split, count in counts.items()}
        for split in files:
            for row, (content, label, where) in enumerate(_read(files[split], columns)):
                images.read(split, where, content)
                labels[split][row] = label
        notes = (*images.finish(), *unread)
        _check_labels(files["train"][0], spec, columns[1], labels["train"])
        dataset = Dataset(
            images.train,
            images.test,
            labels["train"],
            labels["test"],
            levels=spec.levels,
            classes=self._classes(files["train"][0], columns[1], labels),
            name=place_name(spec),
            notes=notes,
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
    """Return the files of a split: of one folder and one name, with all pieces that the names count."""
    found = sorted(root.rglob(f"{split}*.parquet"))
    if not found:
        raise ValueError(
            f"{root} has no {split}*.parquet: `path:` must be a folder with both splits"
        )
    sets = {(file.parent, *_piece(file)[:2]): file for file in found}
    if len(sets) > 1:
        one, other, *_ = (file.relative_to(root) for file in sets.values())
        raise ValueError(
            f"{root}: {one} and {other} are not pieces of one {split} split: set `path:` to a folder that holds one "
            "data set, each split once"
        )
    ((_, _, count),) = sets
    numbers = {_piece(file)[2] for file in found}
    if count is not None and (missing := [n for n in range(count) if n not in numbers]):
        lacking = listed([f"{split}-{n:05}-of-{count:05}.parquet" for n in missing])
        raise ValueError(
            f"{root}: the {split} split has {len(found)} of {count} files: missing are {lacking}"
        )
    return found


def _piece(file: Path) -> tuple[str, int | None, int | None]:
    """Return a file's name without its number, of how many pieces it is one, and which; None where it is whole."""
    found = PIECE.fullmatch(file.stem)
    return (found[1], int(found[3]), int(found[2])) if found else (file.stem, None, None)


def _unread(root: Path, files: dict[str, list[Path]]) -> tuple[str, ...]:
    """Return a remark on parquet files that belong to neither split."""
    read = {file for each in files.values() for file in each}
    others = [file for file in sorted(root.rglob("*.parquet")) if file not in read]
    if not others:
        return ()
    names = listed([str(file.relative_to(root)) for file in others], 3)
    return (f"{root}: {len(others):,} files of neither split are left out: {names}",)


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
    image = _chosen(file, "image", spec.image, images, "a struct with `bytes`")
    if image is None:
        raise ValueError(f"{file} has no column of images, a struct with `bytes`")
    integers = {field.name for field in schema if types.is_integer(field.type)}
    if spec.label is not None:
        return image, _chosen(file, "label", spec.label, integers, "integers")
    if spec.classes == 1:
        return image, None
    texts = {field.name for field in schema if str(field.type) in ("string", "large_string")}
    return image, _label_column(file, integers, texts)


def _label_column(file: Path, integers: set[str], texts: set[str]) -> str | None:
    """Return the column of labels where the file leaves no doubt; None where it has no column that could be it."""
    stated = {name for name in integers if _names(file, name)}
    possible = stated or {name for name in integers if not NUMBERING.fullmatch(name)}
    against = dict.fromkeys(sorted(integers - possible), "numbers the images") | {
        name: "is text, not integers" for name in sorted(texts) if LABEL.fullmatch(name)
    }
    if against and not stated and not any(map(LABEL.fullmatch, possible)):
        said = ", ".join(f"{name} {reason}" for name, reason in against.items())
        raise ValueError(
            f"{file}: no column is sure to have the labels: {said}. {_remedy(integers)}"
        )
    return _chosen(file, "label", None, possible, "integers")


def _remedy(integers: set[str]) -> str:
    named = f" (columns of integers: {', '.join(sorted(integers))})" if integers else ""
    return f"Set data.label to a column of integers from 0{named}, or `data.classes: 1` to use none"


def _check_labels(file: Path, spec: ParquetSpec, label: str | None, labels: Labels) -> None:
    """Refuse numbers that do not look like labels in a column that neither the user nor the file calls labels."""
    if label is None or spec.label is not None or _names(file, label):
        return
    used, most = len(np.unique(labels)), int(labels.max())
    why = ""
    if 2 < len(labels) == used:
        why = "every image has a number of its own"
    elif used * SPARSE < most and not LABEL.fullmatch(label):
        why = f"there are {used} numbers up to {most}"
    if why:
        raise ValueError(
            f"{file}: {label!r} is not sure to have the labels: {why}. {_remedy({label})}"
        )


def _chosen(file: Path, key: str, name: str | None, found: set[str], kind: str) -> str | None:
    if name is None and len(found) > 1:
        raise ValueError(
            f"{file} has several columns for data.{key}: set it to one of {', '.join(sorted(found))}"
        )
    if name is not None and name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ValueError(f"{file}: data.{key}: {name!r} is not a column of {kind}; known: {known}")
    return name or next(iter(found), None)


def _read(
    files: list[Path], columns: tuple[str, str | None]
) -> Iterator[tuple[Callable[[], bytes], int, str]]:
    """Yield each row's label and name, and before them a function that returns its image file."""
    image, label = columns
    for file in files:
        row = 0
        for batch in _batches(file, [each for each in columns if each is not None]):
            contents = batch.column(image).to_pylist()
            labels = [0] * len(contents) if label is None else batch.column(label).to_pylist()
            for each, number in zip(contents, labels, strict=True):
                where = f"{file}: image {row}"
                yield partial(_content, each, where), _label(number, file, row), where
                row += 1


def _batches(file: Path, columns: list[str]) -> Iterator[Any]:
    opened = _open(file)
    if missing := [each for each in columns if each not in opened.schema_arrow.names]:
        raise ValueError(f"{file} has no column {missing[0]!r}")
    with _torn(file):
        yield from opened.iter_batches(BATCH, columns=columns)


def _content(value: dict[str, Any] | None, where: str) -> bytes:
    content = (value or {}).get("bytes")
    if not isinstance(content, bytes):
        raise PictureError(where, "has no bytes; a file that it names is not read")
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
