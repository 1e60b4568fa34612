"""Parquet files in the layout of the Hugging Face hub."""

import sys

import numpy as np
import pytest
from archives import png, random_images, write_parquet

from diffbench.data.datasets import Dataset
from diffbench.specs.data import ParquetSpec
from diffbench.specs.registry import build

pytest.importorskip("pyarrow", reason="pyarrow is not installed: make test")

IMAGES = random_images(0, 30, 8)
LABELS = [i % 3 for i in range(30)]
FILES = [png(image) for image in IMAGES]


def load(path, **options) -> Dataset:
    return build(ParquetSpec(path=str(path), **options)).load()


def write(path, files=FILES, labels=LABELS, names=None):
    """Twenty images for training, ten for tests."""
    split = {"train": slice(0, 20), "test": slice(20, 30)}
    for name, part in split.items():
        labelled = None if labels is None else labels[part]
        write_parquet(path / f"{name}.parquet", files[part], labelled, names)
    return path


def test_both_splits_are_read_in_their_order(tmp_path):
    data = load(write(tmp_path, names=["red", "green", "blue"]))
    assert np.array_equal(data.train, IMAGES[:20]) and np.array_equal(data.test, IMAGES[20:])
    assert [*data.train_labels, *data.test_labels] == LABELS
    assert data.classes == ("red", "green", "blue") and data.levels == 256
    assert data.train.dtype == np.uint8 and data.train_labels.dtype == np.int64


def test_pieces_in_a_sub_folder_are_read_in_the_order_of_their_names(tmp_path):
    inner = tmp_path / "plain_text"
    write_parquet(inner / "train-00001-of-00002.parquet", FILES[12:20], LABELS[12:20])
    write_parquet(inner / "train-00000-of-00002.parquet", FILES[:12], LABELS[:12])
    write_parquet(inner / "test-00000-of-00001.parquet", FILES[20:], LABELS[20:])
    data = load(tmp_path)
    assert np.array_equal(data.train, IMAGES[:20]) and data.train_labels.tolist() == LABELS[:20]
    assert data.classes == ("0", "1", "2")


def test_a_split_of_another_name_can_be_the_test_split(tmp_path):
    write(tmp_path)
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", FILES[5:8], LABELS[5:8])
    data = load(tmp_path, test="validation")
    assert len(data.train) == 20 and np.array_equal(data.test, IMAGES[5:8])


def test_without_labels_there_is_one_class(tmp_path):
    data = load(write(tmp_path, labels=None))
    assert data.classes == ("all",) and not data.train_labels.any()


def test_a_test_split_that_comes_class_by_class_is_mixed(tmp_path):
    labels = [*LABELS[:20], *sorted(LABELS[20:])]
    data = load(write(tmp_path, labels=labels))
    label = {image.tobytes(): labels[20 + i] for i, image in enumerate(IMAGES[20:])}
    assert data.test_labels.tolist() == [label[image.tobytes()] for image in data.test]
    assert len(label) == 10 and sorted(data.test_labels.tolist()) != data.test_labels.tolist()


def test_a_size_crops_and_resizes(tmp_path):
    assert load(write(tmp_path), size=4, channels=3).shape == (4, 4, 3)


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.9, 0.999])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_truncated_file_is_one_line(tmp_path, split, kept):
    path = write(tmp_path) / f"{split}.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(
        ValueError, match=rf"{split}\.parquet is not a complete parquet file"
    ) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_damage_inside_a_file_is_one_line(tmp_path):
    path = write(tmp_path) / "train.parquet"
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.parquet") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_split_or_folder_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "test.parquet").unlink()
    with pytest.raises(ValueError, match=r"has no test\*\.parquet"):
        load(tmp_path)


def test_jpegs_need_to_be_allowed(tmp_path):
    write(tmp_path, [*FILES[:3], png(IMAGES[3], "JPEG"), *FILES[4:]])
    with pytest.raises(ValueError, match=r"train\.parquet: image 3 is JPEG, not PNG.*lossy: true"):
        load(tmp_path)
    data = load(tmp_path, lossy=True)
    assert np.array_equal(data.train[:3], IMAGES[:3]) and len(data.train) == 20


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (png(random_images(1, 1, 8, 1)[0]), {"channels": 3}, "image 22 is grey .*RGB"),
        (png(random_images(1, 1, 8, 1)[0]), {}, "image 22 is 8x8 with 1 channel, but .*image 0 is"),
        (png(random_images(1, 1, 9)[0]), {}, "image 22 is 9x9 .*image 0 is 8x8"),
        (FILES[0][:50], {}, "image 22 is not a complete image"),
        (b"", {}, "image 22 is empty"),
        (None, {}, "image 22 has no bytes; a file that it names is not read"),
    ],
)
def test_a_wrong_image_is_named(tmp_path, image, options, message):
    files, labels = FILES + FILES, LABELS + LABELS
    files[22] = image
    write_parquet(tmp_path / "train.parquet", files[:40], labels[:40])
    write_parquet(tmp_path / "test.parquet", files[40:], labels[40:])
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "names", "options", "message"),
    [
        ([-1, *LABELS[1:]], None, {}, "image 0 has the label -1"),
        ([2**40, *LABELS[1:]], None, {}, "image 0 has the label 1099511627776.* below 100,000"),
        ([None, *LABELS[1:]], None, {}, "image 0 has the label None"),
        (LABELS, ["a", "b"], {}, "label 2, but only 2 classes"),
        (LABELS, None, {"classes": 10}, "has 3 classes, but data.classes is 10"),
        (
            LABELS,
            None,
            {"label": "lable"},
            "data.label: 'lable' is not a column of integers.*label",
        ),
        (LABELS, None, {"image": "label"}, "data.image: 'label' is not a column of a struct.*img"),
    ],
)
def test_wrong_labels_and_columns_are_named(tmp_path, labels, names, options, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, labels=labels, names=names), **options)


def test_what_a_plan_knows():
    assert ParquetSpec(path="x").known_classes is None
    spec = ParquetSpec(path="x", classes=10, size=32, channels=3)
    assert spec.known_classes == 10 and spec.known_shape == (3, 32, 32)
    assert spec.paths == {"path": "x"}


@pytest.mark.parametrize("missing", ["pyarrow", "pyarrow.parquet"])
def test_a_missing_package_is_one_line(tmp_path, monkeypatch, missing):
    write(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    wanted = r"a parquet file needs the package pyarrow: `pip install 'diffbench\[parquet\]'`$"
    with pytest.raises(ValueError, match=wanted):
        load(tmp_path)
