"""Data sets: fixed stratified splits."""

import numpy as np
import pytest

from diffbench.data.datasets import Dataset, Digits, checked, manifest, stratified_mask
from diffbench.specs.data import DigitsSpec


def test_digits_are_what_scikit_learn_ships(digits: Dataset) -> None:
    assert digits.train.shape == (1500, 8, 8, 1) and digits.test.shape == (297, 8, 8, 1)
    assert digits.train.dtype == np.uint8 and digits.train_labels.dtype == np.int64
    assert digits.train.min() == 0 and digits.train.max() == 16 == digits.levels - 1
    assert digits.classes == tuple("0123456789") and digits.shape == (8, 8, 1)


def test_the_digits_split_is_pinned(digits: Dataset) -> None:
    facts = manifest(digits)
    assert facts["counts"] == {"train": 1500, "test": 297}
    assert facts["sha256"]["train"].startswith("99aec1b17602bc18")
    assert facts["sha256"]["test"].startswith("4a35756566d359b3")
    assert facts["labels_sha256"]["train"].startswith("b2b0af5da06cde44")


def test_splits_partition_the_images(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    both = np.concatenate([digits.train, digits.test]).reshape(1797, -1)
    original = load_digits().data.astype(np.uint8)
    assert np.array_equal(np.sort(both.view("V64"), 0), np.sort(original.view("V64"), 0))


def test_another_seed_is_another_split(digits: Dataset) -> None:
    other = Digits(DigitsSpec(seed=1, test=100)).load()
    assert len(other.test) == 100
    assert manifest(other)["sha256"] != manifest(digits)["sha256"]


@pytest.mark.parametrize("test", [1, 7, 50, 99])
def test_the_split_keeps_class_proportions(test: int) -> None:
    labels = np.repeat([0, 1, 2], [20, 30, 50])
    mask = stratified_mask(labels, test, seed=3)
    assert mask.sum() == test
    counts = np.bincount(labels[mask], minlength=3)
    assert np.all(np.abs(counts - np.array([0.2, 0.3, 0.5]) * test) <= 1)


def test_manifest_counts_classes(digits: Dataset) -> None:
    facts = manifest(digits)
    assert sum(facts["class_counts"]["train"]) == 1500
    assert facts["class_counts"]["test"] == [29, 30, 30, 30, 30, 30, 30, 29, 29, 30]
    assert facts["shape"] == [8, 8, 1] and facts["levels"] == 17


def set_of(train: np.ndarray, test: np.ndarray) -> Dataset:
    labels = [np.zeros(len(each), np.int64) for each in (train, test)]
    return Dataset(train, test, *labels, levels=256, classes=("all",))


def test_copies_across_the_split_and_within_it_are_counted():
    images = np.random.RandomState(0).randint(0, 256, (20, 4, 4, 1), np.uint8)
    train, test = np.concatenate([images[:10], images[:3]]), images[8:14]
    notes = checked(set_of(train, test)).notes
    assert notes == (
        "2 of 6 test images are copies of training images",
        "3 of 13 training images are copies of others",
    )
    assert manifest(checked(set_of(train, test)))["notes"] == list(notes)
    distinct = set_of(images[:10], images[10:])
    assert checked(distinct) == distinct and "notes" not in manifest(distinct)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_one_image_again_and_again_is_refused(split):
    images = np.random.RandomState(0).randint(0, 256, (20, 4, 4, 1), np.uint8)
    splits = {"train": images[:10], "test": images[10:]} | {split: images[:1].repeat(10, 0)}
    with pytest.raises(ValueError, match=f"all 10 images of the {split} split are the same"):
        checked(set_of(splits["train"], splits["test"]))
