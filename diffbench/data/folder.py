"""A folder, zip or tar of image files.

    identity = sha256 over the sorted lines "name sha256(pixels)"

of all images.  In their names the key of the configuration (`path` or `test_path`) replaces the outer folders, so that
the identity does not depend on where a set is or how it is packed, but differs between versions of it.  A
`dataset.json` with the classes has a line too: the sha256 of the classes in the order of the images' names: "0 2 1 ..".
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffbench.data.datasets import (
    Dataset,
    Labels,
    check_split,
    mixed,
    place_name,
    stratified_mask,
)
from diffbench.data.decoding import Decoder, Splits
from diffbench.data.grey_levels import Images
from diffbench.specs.data import FolderSpec
from diffbench.store.contents import Contents, add_labels
from diffbench.store.image_files import LABELS, LOSSY, ImageFiles, find_images

Mask = NDArray[np.bool_]


class ImagesIdentity:
    """The identity of a set of images, from their names and pixels in any order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, name: str, image: Images) -> None:
        """Add an image, uint8 (H, W, C)."""
        self.lines.append(f"{name} {hashlib.sha256(image.tobytes()).hexdigest()}")

    def add_labels(self, name: str, labels: list[int]) -> None:
        """Add the classes in a `dataset.json`, in the order of the images' names."""
        text = " ".join(map(str, labels))
        self.lines.append(f"{name} {hashlib.sha256(text.encode()).hexdigest()}")

    def sha256(self) -> str:
        """Return the identity of all that was added."""
        lines = "\n".join(sorted(self.lines))
        return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


class ImageFolder:
    """8-bit PNGs, greyscale or RGB, with 256 grey levels.

    Classes are folders or numbers (`diffbench.store.image_files`).  With ``size``, images are cropped to the centred
    square and resized, antialiased; without it, or with a version, all images must have one size already.
    """

    def __init__(self, spec: FolderSpec) -> None:
        self.spec = spec

    def load(self) -> Dataset:
        """Read the images.

        Raises:
            ValueError: when there are none or not enough, when there are JPEGs (whose artefacts a model would
                learn) and not ``lossy``, when a file is damaged, when images differ in size or kind, when a
                path leads out of an archive, when test images have other classes, or when the identity is another.
        """
        spec = self.spec
        if spec.path_refusal:
            raise ValueError(f"data.{spec.path_refusal}")
        listed = {key: find_images(Path(path)) for key, path in spec.paths.items()}
        for key, each in listed.items():
            self._check(key, each)
        labels = {key: np.array(each.labels, np.int64) for key, each in listed.items()}
        tests = self._tests(listed, labels)
        count = sum(int(held.sum()) for held in tests.values())
        decoder = Decoder(spec.size, spec.channels, spec.formats, spec.resize)
        images = Splits(sum(map(len, tests.values())) - count, count, decoder)
        identity, held_in = ImagesIdentity(), Contents()

        def content(key: str, each: ImageFiles, name: str, inner: str) -> bytes:
            found = each.files.read(name)
            held_in.add(f"{key}/{inner}", found)
            return found

        for key, each in listed.items():
            add_labels(held_in, key, each)
            if each.numbered:
                identity.add_labels(f"{key}/{LABELS}", each.labels)
            for name, inner, held in zip(each.names, each.inner, tests[key], strict=True):
                where = f"{spec.paths[key]}/{name}"
                image = images.read(
                    "test" if held else "train", where, partial(content, key, each, name, inner)
                )
                if image is not None:
                    identity.add(f"{key}/{inner}", image)
        notes = images.finish()
        notes += tuple(
            f"{spec.paths[key]}: {note}" for key, each in listed.items() for note in each.notes
        )
        dataset = Dataset(
            images.train,
            images.test,
            np.concatenate([labels[key][~held] for key, held in tests.items()]),
            np.concatenate([labels[key][held] for key, held in tests.items()]),
            levels=spec.levels,
            classes=listed["path"].classes,
            name=spec.called or place_name(spec),
            identity=self._checked(identity.sha256()),
            contents=self._as_planned(held_in.sha256()),
            notes=notes,
        )
        return mixed(dataset, spec.seed)

    def _tests(self, listed: dict[str, ImageFiles], labels: dict[str, Labels]) -> dict[str, Mask]:
        """Return masks of the test images: those of a path of their own, or a part of all."""
        spec, count = self.spec, len(labels["path"])
        if spec.test_path is None:
            test = max(1, round(spec.test_fraction * count))
            check_split(test, count)
            return {"path": stratified_mask(labels["path"], test, spec.seed)}
        classes = [each.classes for each in listed.values()]
        if max(map(len, classes)) > 1 and classes[0] != classes[1]:
            raise ValueError(
                f"data.test_path: {spec.test_path} has {len(classes[1])} classes and {spec.path} has "
                f"{len(classes[0])}, or their names differ: both must have the same classes"
            )
        tests = np.ones(len(labels["test_path"]), bool)
        return {"path": np.zeros(count, bool), "test_path": tests}

    def _checked(self, found: str) -> str:
        if self.spec.identity not in (None, found):
            raise ValueError(
                f"data.identity: {self.spec.path} has the identity {found}, not {self.spec.identity}: it has other "
                "images, or another version of them"
            )
        return found

    def _as_planned(self, found: str) -> str:
        if self.spec.contents not in (None, found):
            raise ValueError(
                f"data.path: {self.spec.path} has other images than when the run was planned (contents {found}, not "
                f"{self.spec.contents}): run it again"
            )
        return found

    def _check(self, key: str, listed: ImageFiles) -> None:
        path, names = self.spec.paths[key], listed.names
        if len(names) < 2:
            others = "".join(f" ({note})" for note in listed.notes)
            raise ValueError(
                f"{path} holds {len(names)} PNG images{others}: `{key}:` must be a folder, zip or tar of at least "
                "two, in itself or in one sub-folder for each class"
            )
        if self.spec.classes not in (None, len(listed.classes)):
            raise ValueError(
                f"{path} has {len(listed.classes)} classes, but data.classes is {self.spec.classes}"
            )
        jpegs = [name for name in names if name.lower().endswith(LOSSY)]
        if jpegs and not self.spec.lossy:
            raise ValueError(
                f"{path} holds JPEG images ({jpegs[0]}, {len(jpegs)} in all): their artefacts would be learnt and "
                "scored; make PNGs from the lossless originals, or set `lossy: true`"
            )
