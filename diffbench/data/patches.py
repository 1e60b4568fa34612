r"""Patches of two photographs: natural images without a download.

scikit-learn ships two photographs of 427 x 640 pixels (`sklearn.datasets.load_sample_images`).  Each is cut into a
4 x 4 grid of cells of 106 x 160 pixels, the classes.  The width of a cell, in pixels, is divided into

    0 .. 52 training    52 .. 68 unused    68 .. 92 test    92 .. 108 unused    108 .. 160 training

so that a training patch and a test patch of a cell are at least one patch apart, and the test patches, which lie
between the training ones, show the same things.  Patches overlap inside a part: their corners are 6 pixels apart
horizontally and 9 vertically in training (14 x 11 a cell), 4 and 9 in the test part (3 x 11).

The photographs were compressed as JPEG, whose faint 8 x 8 blocks are in the patches.  Decoders may differ in the last
bit of a pixel, which the manifest's checksums show.

Many cells look like their neighbours (sky, a blurred meadow): a classifier of 30 epochs recognises the cells of 51 % of
the test patches, one of 60 no more than 54 %.  Its FID has a floor of 6.8.  Noise of 0.2 costs 3.3 times the floor,
which meets the digits' limit; a blur of one pixel costs 2.6 times, a dropped class 0.09 times, which do not (15 and
8).  The FID of patches shows a gross loss of sharpness but no missing cell; the limits of its extractor are below.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from diffbench.data.datasets import NOISE_LIMIT, Dataset, Labels, mixed
from diffbench.data.grey_levels import Images
from diffbench.specs.data import PatchesSpec

SIZE = 16
GRID = 4
PATCHES_LIMITS = {"accuracy": (0.4, 1.0), "blur": (2.0, 1e9), **NOISE_LIMIT}


class Part(NamedTuple):
    """The left edges of a part's patches in a cell; the upper edges are every ninth row."""

    columns: tuple[int, ...]

    @property
    def corners(self) -> list[tuple[int, int]]:
        """The corner (row, column) of each patch in a cell."""
        return [(row, column) for row in range(0, 106 - SIZE + 1, 9) for column in self.columns]


TRAIN = Part((*range(0, 37, 6), *range(108, 145, 6)))
TEST = Part(tuple(range(68, 77, 4)))


class Patches:
    """16x16 RGB patches, 256 grey levels, 32 classes: 4,928 for training, 1,056 for tests."""

    def __init__(self, spec: PatchesSpec) -> None:
        self.spec = spec

    def load(self) -> Dataset:
        """Read the photographs from scikit-learn; nothing is downloaded."""
        from sklearn.datasets import load_sample_images

        sample = load_sample_images()
        names = [name.rpartition("/")[2].partition(".")[0] for name in sample.filenames]
        train, train_labels = cut(sample.images, TRAIN)
        test, test_labels = cut(sample.images, TEST)
        dataset = Dataset(
            train,
            test,
            train_labels,
            test_labels,
            levels=self.spec.levels,
            classes=tuple(
                f"{name}-{i}{j}" for name in names for i in range(GRID) for j in range(GRID)
            ),
            name="patches",
            limits=PATCHES_LIMITS,
            inception_score=False,
        )
        return mixed(dataset, seed=0)


def cut(photographs: list[Images], part: Part) -> tuple[Images, Labels]:
    """Return the patches of one part of all cells, uint8 (N, 16, 16, 3), and the number of each patch's cell."""
    patches, labels = [], []
    for number, photograph in enumerate(photographs):
        height, width = (length // GRID for length in photograph.shape[:2])
        for cell in range(GRID**2):
            top, left = cell // GRID * height, cell % GRID * width
            for row, column in part.corners:
                y, x = top + row, left + column
                patches.append(photograph[y : y + SIZE, x : x + SIZE])
                labels.append(number * GRID**2 + cell)
    return np.stack(patches).astype(np.uint8), np.array(labels, dtype=np.int64)
