"""Data sets: fixed stratified splits, and folders that are refused with a reason."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffbench.data.datasets import Dataset, Digits, ImageFolder, manifest, stratified_mask
from diffbench.specs.data import DigitsSpec, FolderSpec


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def folder(path: Path, **options: object) -> Dataset:
    return ImageFolder(FolderSpec(name="folder", path=str(path), **options)).load()


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return Digits(DigitsSpec()).load()


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


def test_a_flat_grey_folder_has_one_class(tmp_path: Path) -> None:
    images = [noise(i, 6, 5) for i in range(10)]
    for i, image in enumerate(images):
        write(tmp_path / f"{i}.png", image)
    data = folder(tmp_path, test_fraction=0.3)
    assert data.train.shape == (7, 6, 5, 1) and len(data.test) == 3
    assert data.classes == ("all",) and data.levels == 256 and not data.limits
    found = {image.tobytes() for image in np.concatenate([data.train, data.test])}
    assert found == {image.tobytes() for image in images}


def test_test_images_of_a_folder_are_not_in_the_order_of_its_classes(tmp_path: Path) -> None:
    for name in "abcd":
        for i in range(20):
            write(
                tmp_path / name / f"{i}.png", np.full((4, 4), 40 * "abcd".index(name) + i, np.uint8)
            )
    data = folder(tmp_path, test_fraction=0.5)
    # Each image still has its own class; in order the first ten would be of one.
    assert (data.test[:, 0, 0, 0] // 40 == data.test_labels).all()
    assert len(set(data.test_labels[:10].tolist())) > 1


def test_sub_folders_are_classes_in_sorted_order(tmp_path: Path) -> None:
    for name, value in (("dog", 200), ("cat", 100)):
        for i in range(6):
            write(tmp_path / name / f"{i}.png", np.full((4, 4, 3), value, np.uint8))
    (tmp_path / "notes").mkdir()
    data = folder(tmp_path, test_fraction=0.5)
    assert data.classes == ("cat", "dog") and data.shape == (4, 4, 3)
    assert np.array_equal(data.train[:, 0, 0, 0], np.where(data.train_labels == 0, 100, 200))
    assert sorted(data.test_labels.tolist()) == [0, 0, 0, 1, 1, 1]


def test_size_crops_the_centre_and_keeps_flat_areas(tmp_path: Path) -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 10:30] = 77
    for name in ("a.png", "b.png"):
        write(tmp_path / name, image)
    data = folder(tmp_path, size=8)
    assert data.shape == (8, 8, 3) and np.all(data.train == 77)


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    for name in ("a.png", "b.png"):
        write(tmp_path / name, stripes)
    inside = folder(tmp_path, size=8).train[:, 2:-2, 2:-2]
    assert np.all(np.abs(inside.astype(int) - 127) <= 3)


def test_jpegs_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "cat" / "a.png", noise(0, 4, 4))
    write(tmp_path / "cat" / "b.JPG", noise(1, 4, 4))
    with pytest.raises(ValueError, match=r"JPEG.*b\.JPG.*lossless"):
        folder(tmp_path)


def test_a_jpeg_named_png_is_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(noise(0, 8, 8)).save(tmp_path / name, format="JPEG")
    with pytest.raises(ValueError, match=r"a\.png is JPEG, not PNG"):
        folder(tmp_path)


def test_empty_and_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path} holds 0 PNG images.*two or more"):
        folder(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        folder(tmp_path / "nowhere")


def test_images_of_two_sizes_or_kinds_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "size" / "a.png", noise(0, 4, 4))
    write(tmp_path / "size" / "b.png", noise(0, 4, 5))
    with pytest.raises(ValueError, match=r"b\.png is 5x4.*a\.png is 4x4.*size:"):
        folder(tmp_path / "size")
    write(tmp_path / "kind" / "a.png", noise(0, 4, 4))
    write(tmp_path / "kind" / "b.png", noise(0, 4, 4, 3))
    with pytest.raises(ValueError, match="4x4 with 3 channels"):
        folder(tmp_path / "kind")
    write(tmp_path / "alpha" / "a.png", noise(0, 4, 4, 4))
    write(tmp_path / "alpha" / "b.png", noise(1, 4, 4, 4))
    with pytest.raises(ValueError, match="mode RGBA.*8-bit grey or RGB"):
        folder(tmp_path / "alpha")


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", noise(0, 4, 4))
    write(tmp_path / "cat" / "b.png", noise(0, 4, 4))
    with pytest.raises(ValueError, match="beside class sub-folders"):
        folder(tmp_path)


def test_a_test_split_of_everything_is_refused(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.png", noise(i, 4, 4))
    with pytest.raises(ValueError, match="4 out of 4 images"):
        folder(tmp_path, test_fraction=1.0)
