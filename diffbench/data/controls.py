"""Controls: rows of the table that no model of the benchmark made.

The training split shows what a perfect copy scores, the test split what a perfect model scores at best,
noise what every model must beat.  Images that were made elsewhere are scored beside them, under the same protocol.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from diffbench.data.datasets import Dataset
from diffbench.data.decoding import Decoder, Splits
from diffbench.data.grey_levels import Images
from diffbench.specs.controls import ImagesControlSpec, NoiseControlSpec, SplitControlSpec
from diffbench.specs.data import FORMATS
from diffbench.specs.errors import told
from diffbench.store.image_files import TORN, find_images
from diffbench.store.progress import announce


def some(images: Images, count: int, generator: np.random.Generator) -> Images:
    """Return all images (N, ...) when there are no more than ``count``, else that many at random, without repeats."""
    return images if len(images) <= count else generator.permutation(images)[:count]


class SplitControl:
    """Images of one split of the data set."""

    def __init__(self, spec: SplitControlSpec) -> None:
        self.split = spec.split

    def draw(self, dataset: Dataset, samples: int, generator: np.random.Generator) -> Images:
        """Return all images of the split when there are no more than ``samples``, else that many at random."""
        return some(getattr(dataset, self.split), samples, generator)


class NoiseControl:
    """Images of uniform noise."""

    def __init__(self, spec: NoiseControlSpec) -> None:
        self.spec = spec

    def draw(self, dataset: Dataset, samples: int, generator: np.random.Generator) -> Images:
        """Return images whose pixels are uniform over the grey levels."""
        return generator.integers(0, dataset.levels, (samples, *dataset.shape), dtype=np.uint8)


class ImagesControl:
    """Images in a folder, a zip, a tar or an npz."""

    def __init__(self, spec: ImagesControlSpec) -> None:
        self.spec = spec

    @property
    def path(self) -> Path:
        """Where the images are.

        Raises:
            ValueError: when nothing says so.
        """
        if self.spec.path is None:
            raise ValueError(
                "control.path: nothing says where the images are; run the job by the workflow"
            )
        return Path(self.spec.path)

    def draw(self, dataset: Dataset, samples: int, generator: np.random.Generator) -> Images:
        """Return all images when there are no more than ``samples``, else that many at random.

        Raises:
            ValueError: when there are none, when a file is damaged, or when they are not such as the data set's.
        """
        path = self.path
        images = self._of_npz(path) if path.suffix == ".npz" else self._of_files(path, dataset)
        if images.shape[1:] != dataset.shape:
            raise ValueError(
                f"control.path: the images in {path} have the shape {images.shape[1:]} (height, width, channels), and "
                f"those of {dataset.name} have {dataset.shape}"
            )
        return some(self._converted(images, dataset), samples, generator)

    def _of_files(self, path: Path, dataset: Dataset) -> Images:
        """Return the images of a folder or archive, in the order of their names; they are decoded one at a time."""
        found = find_images(path, flat=True)
        if not found.names:
            raise ValueError(f"control.path: there are no PNG images in {path}")
        images = Splits(
            len(found.names), 0, Decoder(None, dataset.shape[2], FORMATS[self.spec.lossy], None)
        )
        for name in found.names:
            images.read("train", f"{path}/{name}", partial(found.files.read, name))
        for note in (*images.finish(), *(f"{path}: {each}" for each in found.notes)):
            announce(f"control.path: {note}")
        return images.train

    def _of_npz(self, path: Path) -> Images:
        """Return the only array of images of an npz."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (ValueError, OSError, EOFError, *TORN) as error:
            raise ValueError(
                f"control.path: {path} is not a complete npz file ({told(error)})"
            ) from None
        images = {name: each for name, each in arrays.items() if each.ndim in (3, 4)}
        if len(images) != 1:
            held = ", ".join(f"{name} {each.shape}" for name, each in arrays.items()) or "nothing"
            raise ValueError(
                f"control.path: {path} must hold one array of images, and holds {held}"
            )
        ((name, found),) = images.items()
        if found.dtype != np.uint8:
            raise ValueError(
                f"control.path: {name} in {path} is {found.dtype}: images must be uint8, grey levels from 0"
            )
        whole: Images = found if found.ndim == 4 else found[..., None]
        return whole

    def _converted(self, images: Images, dataset: Dataset) -> Images:
        """Return the images in the data set's grey levels: the nearest to each value."""
        highest = self.spec.levels - 1
        if len(images) and images.max() > highest:
            raise ValueError(
                f"control.levels: {self.path} has the grey level {images.max()}, and control.levels is "
                f"{self.spec.levels}"
            )
        if self.spec.levels == dataset.levels:
            return images
        table = np.arange(self.spec.levels) * (dataset.levels - 1) / highest
        converted: Images = np.rint(table).astype(np.uint8)[images]
        return converted
