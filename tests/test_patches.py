"""The photographs' patches: how many, which, and how far the test ones are from those for training."""

import numpy as np
from sklearn.datasets import load_sample_images

from diffbench.data.patches import GRID, SIZE, TEST, TRAIN, Patches, cut
from diffbench.specs.data import PatchesSpec


def test_counts_and_kinds() -> None:
    data = Patches(PatchesSpec()).load()
    assert data.train.shape == (4928, SIZE, SIZE, 3) and data.test.shape == (1056, SIZE, SIZE, 3)
    assert data.train.dtype == np.uint8 and data.levels == 256
    assert len(data.classes) == PatchesSpec().known_classes == 2 * GRID**2
    assert (np.bincount(data.train_labels) == 154).all() and (
        np.bincount(data.test_labels) == 33
    ).all()
    assert not data.inception_score


def test_the_first_test_patches_are_a_sample_of_all() -> None:
    # Of 50 out of 1,056 in random order, 33 a class, 25 of 32 classes are expected, sd 1.7; in order there are 2.
    data = Patches(PatchesSpec()).load()
    assert len(set(data.test_labels[:50].tolist())) > 15
    cells, labels = cut(load_sample_images().images, TEST)
    order = np.lexsort(cells.reshape(len(cells), -1).T)
    mixed = np.lexsort(data.test.reshape(len(cells), -1).T)
    assert (data.test[mixed] == cells[order]).all()


def test_they_are_the_same_each_time() -> None:
    first, second = (Patches(PatchesSpec()).load() for _ in range(2))
    assert (first.train == second.train).all() and (first.test == second.test).all()


def test_test_patches_are_a_patch_away_from_training_patches() -> None:
    """In the pixels between them, and all are inside their cell of 106 x 160."""
    for row, column in TRAIN.corners + TEST.corners:
        assert 0 <= row <= 106 - SIZE and 0 <= column <= 160 - SIZE
    for _, left in TEST.corners:
        for _, other in TRAIN.corners:
            assert abs(left - other) - SIZE >= SIZE
