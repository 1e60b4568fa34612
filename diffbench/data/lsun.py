"""LSUN: photographs of one kind of scene, from its LMDB or a folder of images.

Source: Yu et al., "LSUN: Construction of a Large-scale Image Dataset using Deep Learning with Humans in the
Loop", 2015, https://arxiv.org/abs/1506.03365; https://github.com/fyu/lsun.  An LMDB has one image file a key,
compressed with loss.  No other original exists, so the images of an LMDB, or WebP files exported from it, do not
count as lossy.  JPEG files in a folder were compressed a second time, and do.

Images are cropped to the centred square and resized, antialiased, in one of several ways (`diffbench.data.decoding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from diffbench.data.datasets import Dataset, check_split, place_name, stratified_mask
from diffbench.data.decoding import Decoder, Splits
from diffbench.data.extras import package
from diffbench.specs.data import FORMATS, LSUNSpec
from diffbench.store.image_files import find_images
from diffbench.store.status import one_line


class Source(Protocol):
    """Image files in a fixed order."""

    formats: tuple[str, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield each file's name, and a function that returns its content."""
        ...


class FolderSource:
    """The images of a folder, in sub-folders or not, or of a zip, in the order of their names."""

    def __init__(self, path: Path, formats: tuple[str, ...]) -> None:
        self.path = path
        self.formats: tuple[str, ...] = formats
        self.listed = find_images(path, flat=True)
        self.notes = tuple(f"{path}: {note}" for note in self.listed.notes)

    def __len__(self) -> int:
        return len(self.listed.names)

    def __iter__(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for name in self.listed.names:
            yield f"{self.path}/{name}", partial(self.listed.files.read, name)


class LMDBSource:
    """The images of an LMDB, in the order of their keys.

    Raises:
        ValueError: when the package lmdb is missing, or the database is damaged.
    """

    formats = FORMATS[True]
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lmdb = package("lmdb", "lsun", "LSUN's LMDB", ", or name a folder of exported images")
        try:
            self.environment = self.lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False
            )
        except self.lmdb.Error as error:
            raise self._torn(error) from None
        facts = self.environment.stat()
        self.count = int(facts["entries"])
        # The file is mapped into memory: a read past the end of a file that is too short would kill the process.
        whole = (self.environment.info()["last_pgno"] + 1) * facts["psize"]
        if (path / "data.mdb" if path.is_dir() else path).stat().st_size < whole:
            raise self._torn(f"it must have {whole} bytes")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        try:
            with self.environment.begin() as transaction:
                for key, content in transaction.cursor():
                    yield f"{self.path}: {key.decode('latin-1')}", partial(bytes, content)
        except self.lmdb.Error as error:
            raise self._torn(error) from None

    def _torn(self, error: object) -> ValueError:
        return ValueError(f"{self.path} is not a complete LMDB ({one_line(error)})")


class LSUN:
    """RGB photographs of one scene, 256 grey levels, without classes."""

    def __init__(self, spec: LSUNSpec) -> None:
        self.spec = spec

    def load(self) -> Dataset:
        """Read the images: ``path`` for training and ``test_path`` for tests, or a part of ``path`` for tests.

        Raises:
            ValueError: when there are none, a file is damaged, grey or in a format that is not accepted, or the package
                lmdb is missing.
        """
        spec = self.spec
        source = self._source(spec.paths["path"])
        if spec.test_path is None:
            test = max(1, round(spec.test_fraction * len(source)))
            check_split(test, len(source))
            held = stratified_mask(np.zeros(len(source), np.int64), test, spec.seed)
            images = Splits(len(source) - test, test, self._decoder(source))
            self._fill(images, source, ["test" if each else "train" for each in held])
            notes = source.notes
        else:
            tests = self._source(spec.test_path)
            images = Splits(len(source), len(tests), self._decoder(source))
            self._fill(images, source, ["train"] * len(source))
            images.decoder = self._decoder(tests)
            self._fill(images, tests, ["test"] * len(tests))
            notes = (*source.notes, *tests.notes)
        notes = (*images.finish(), *notes)
        return Dataset(
            images.train,
            images.test,
            np.zeros(len(images.train), np.int64),
            np.zeros(len(images.test), np.int64),
            levels=spec.levels,
            classes=("all",),
            name=place_name(spec),
            notes=notes,
        )

    def _source(self, path: str) -> Source:
        root = Path(path)
        is_lmdb = (root / "data.mdb").is_file() or root.suffix == ".mdb"
        source: Source = LMDBSource(root) if is_lmdb else FolderSource(root, self.spec.formats)
        if not len(source):
            raise ValueError(f"{path} holds no images; expected: {self.spec.origin}")
        return source

    def _decoder(self, source: Source) -> Decoder:
        return Decoder(self.spec.size, 3, source.formats, self.spec.resize)

    def _fill(self, images: Splits, source: Source, splits: list[str]) -> None:
        for split, (name, content) in zip(splits, source, strict=True):
            images.read(split, name, content)
