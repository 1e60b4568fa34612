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


def columns(path, split="train", part="", count=20, **more):
    """A file of images with these columns beside them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": FILES[i % 30], "path": None} for i in range(count)], kind)
    path.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, **more}), path / f"{split}{part}.parquet")


def both(path, **more):
    """Both splits, with columns that are functions of the number of images."""
    for split, count in (("train", 20), ("test", 10)):
        columns(path, split, count=count, **{name: make(count) for name, make in more.items()})
    return path


def words(count):
    return ["cat", "dog"] * (count // 2)


def classes(count):
    return [i % 3 for i in range(count)]


NUMBERED = [
    "__index_level_0__",
    "Unnamed: 0",
    "index",
    "idx",
    "id",
    "image_id",
    "img id",
    "row",
    "image_number",
]


@pytest.mark.parametrize("name", NUMBERED)
@pytest.mark.parametrize("make", [range, classes])
def test_numbers_of_images_are_no_labels(tmp_path, name, make):
    both(tmp_path, **{name: lambda count: list(make(count))})
    message = rf"train\.parquet: no column is sure .*{name} numbers the images. Set data\.label"
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
    assert load(tmp_path, classes=1).classes == ("all",)
    assert len(load(tmp_path, label=name).classes) > 1


@pytest.mark.parametrize(
    "name", ["label", "labels", "class", "fine_label", "class_name", "category", "Target"]
)
def test_integers_beside_labels_in_words_are_not_taken_for_them(tmp_path, name):
    both(tmp_path, **{name: words}, width=classes)
    with pytest.raises(
        ValueError, match=rf"no column is sure .*{name} is text, not integers.*data\.label"
    ):
        load(tmp_path)


def test_a_column_of_labels_beside_an_index_and_names_is_taken(tmp_path):
    both(tmp_path, label=classes, label_name=words, image_id=lambda count: list(range(count)))
    assert load(tmp_path).classes == ("0", "1", "2")


def test_words_that_are_no_labels_do_not_matter(tmp_path):
    both(tmp_path, digit=classes, caption=words)
    assert load(tmp_path).classes == ("0", "1", "2")


def test_a_number_of_its_own_for_each_image_is_no_label(tmp_path):
    both(tmp_path, what=lambda count: list(range(count)))
    with pytest.raises(
        ValueError,
        match=r"'what' is not sure .*every image has a number of its own.*data\.classes: 1",
    ):
        load(tmp_path)


def test_measurements_are_no_labels(tmp_path):
    both(tmp_path, width=lambda count: [224, 300] * (count // 2))
    with pytest.raises(ValueError, match=r"'width' is not sure .*there are 2 numbers up to 300"):
        load(tmp_path)


def test_a_class_label_of_the_metadata_is_believed(tmp_path):
    write(tmp_path, labels=range(30), names=list(map(str, range(30))))
    assert len(load(tmp_path).classes) == 30


@pytest.mark.parametrize(
    ("have", "missing"),
    [([0], "1.*, .*2.* and .*4"), ([0, 1, 2, 4], "train-00003-of-00005"), ([], "")],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_shards_are_named(tmp_path, split, have, missing):
    for number in have or range(5):
        columns(tmp_path, split, f"-{number:05}-of-00005", label=classes(20))
    columns(tmp_path, "test" if split == "train" else "train", "-00000-of-00001", label=classes(20))
    if not have:
        assert len(load(tmp_path).classes) == 3
        return
    with pytest.raises(
        ValueError,
        match=rf"the {split} split has {len(have)} of 5 files: missing are .*{missing.replace('train', split)}",
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("train-00000-of-00001", "train-00000-of-00002"),
        ("train-00000-of-00001", "train"),
        ("train", "training"),
        ("a/train", "b/train"),
    ],
)
def test_two_data_sets_in_one_folder_are_not_joined(tmp_path, one, other):
    for name in (one, other):
        columns((tmp_path / name).parent, (tmp_path / name).name, label=classes(20))
    columns(tmp_path, "test", label=classes(20))
    with pytest.raises(
        ValueError, match=rf"{one}\.parquet and {other}\.parquet are not pieces of one train split"
    ):
        load(tmp_path)


def test_files_of_neither_split_are_said_to_be_left_out(tmp_path):
    write(tmp_path)
    columns(tmp_path, "validation", label=classes(20))
    assert load(tmp_path).notes == (
        f"{tmp_path}: 1 files of neither split are left out: validation.parquet",
    )


def test_bad_images_are_one_message(tmp_path):
    files = list(FILES)
    files[3], files[25], files[7] = b"", FILES[0][:50], b"<html>"
    write(tmp_path, files=files)
    with pytest.raises(
        ValueError,
        match=r"^3 of 30 .*image 3 is empty; .*7 is a web page.*; .*test\.parquet: image 5 is not a complete",
    ):
        load(tmp_path)
