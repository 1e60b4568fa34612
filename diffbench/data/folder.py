"""A folder or zip of image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffbench.data.datasets import Dataset, check_split, mixed, stratified_mask
from diffbench.data.decoding import FORMATS, Decoder, Splits
from diffbench.plan.listing import LOSSY, Listing, listing
from diffbench.specs.data import FolderSpec


class ImageFolder:
    """8-bit PNGs, greyscale or RGB, with 256 levels.

    Classes are folders or numbers (`diffbench.plan.listing`).  With ``size``, images are cropped to the centred square
    and resized by Pillow's antialiased bicubic filter; without, all must have one size already.
    """

    def __init__(self, spec: FolderSpec) -> None:
        self.spec = spec

    def load(self) -> Dataset:
        """Read the images.

        Raises:
            ValueError: when there are none or not enough, when there are JPEGs (whose artefacts a model would
                learn) and not ``lossy``, when a file is torn, when images differ in size or kind, or a
                path leads out of a zip.
        """
        spec = self.spec
        listed = listing(Path(spec.path))
        self._check(listed)
        labels = np.array(listed.labels, dtype=np.int64)
        test = max(1, round(spec.test_fraction * len(labels)))
        check_split(test, len(labels))
        mask = stratified_mask(labels, test, spec.seed)
        images = Splits(len(labels) - test, test)
        decoder = Decoder(spec.size, spec.channels, FORMATS[spec.lossy])
        for name, held in zip(listed.names, mask, strict=True):
            where = f"{spec.path}/{name}"
            image = decoder.read(listed.files.read(name), where)
            images.add("test" if held else "train", image, where)
        dataset = Dataset(
            images.train,
            images.test,
            labels[~mask],
            labels[mask],
            levels=spec.levels,
            classes=listed.classes,
            name=Path(spec.path).resolve().name,
        )
        return mixed(dataset, spec.seed)

    def _check(self, listed: Listing) -> None:
        path, names = self.spec.path, listed.names
        if len(names) < 2:
            raise ValueError(
                f"{path} holds {len(names)} PNG images: `path:` must name a folder or zip of two or "
                "more, directly or in one sub-folder a class"
            )
        jpegs = [name for name in names if name.lower().endswith(LOSSY)]
        if jpegs and not self.spec.lossy:
            raise ValueError(
                f"{path} holds JPEG images ({jpegs[0]}, {len(jpegs)} in all): their artefacts would be "
                "learnt and scored; make PNGs from the lossless originals, or say `lossy: true`"
            )
