"""Folders and zips of images: what is read, and what is refused with a reason."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from archives import noise, numbered, png, write_zip
from PIL import Image

from diffbench.data.datasets import Dataset
from diffbench.data.folder import ImageFolder
from diffbench.specs.data import FolderSpec
from diffbench.store.image_files import LARGEST


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def folder(path: Path, **options: object) -> Dataset:
    return ImageFolder(FolderSpec(name="folder", path=str(path), **options)).load()


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
    with pytest.raises(ValueError, match=r"2 of 2 .*a\.png is JPEG, not PNG.*likewise .*b\.png"):
        folder(tmp_path)


def test_empty_and_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path} holds 0 PNG images.*at least two"):
        folder(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
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
    (tmp_path / "palette").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(noise(0, 4, 4)).convert("P").save(
            tmp_path / "palette" / name, transparency=0
        )
    with pytest.raises(ValueError, match=r"a\.png has transparent pixels"):
        folder(tmp_path / "palette")


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", noise(0, 4, 4))
    write(tmp_path / "cat" / "b.png", noise(0, 4, 4))
    with pytest.raises(ValueError, match="beside class sub-folders"):
        folder(tmp_path)


def test_a_test_split_of_everything_is_refused(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.png", noise(i, 4, 4))
    with pytest.raises(ValueError, match="4 of the 4 images"):
        folder(tmp_path, test_fraction=1.0)


def found(data: Dataset) -> dict[bytes, int]:
    """Each image's label."""
    images = np.concatenate([data.train, data.test])
    labels = np.concatenate([data.train_labels, data.test_labels])
    return {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}


@pytest.mark.parametrize("around", ["", "images/", "a/b/"])
def test_a_zip_is_read_as_the_folder_it_unpacks_to(tmp_path: Path, around: str) -> None:
    names = [f"{around}{kind}/{i}.png" for kind in ("cat", "dog") for i in range(5)]
    members = {name: png(noise(i, 4, 4, 3)) for i, name in enumerate(names)}
    archive = write_zip(tmp_path / "a.zip", members | {f"__MACOSX/{around}cat/._0.png": b"no"})
    with zipfile.ZipFile(write_zip(tmp_path / "b.zip", members)) as opened:
        opened.extractall(tmp_path / "b")
    packed, unpacked = folder(archive), folder(tmp_path / "b")
    assert packed.classes == unpacked.classes == ("cat", "dog")
    for name in ("train", "test", "train_labels", "test_labels"):
        assert np.array_equal(getattr(packed, name), getattr(unpacked, name))
    assert found(packed)[noise(7, 4, 4, 3).tobytes()] == 1


@pytest.mark.parametrize("zipped", [True, False])
def test_edm_layout_has_its_labels_in_dataset_json(tmp_path: Path, zipped: bool) -> None:
    images = numbered(8)
    labels = [[f"0000{i % 2}/{name}", 2 - i % 3] for i, name in enumerate(images)]
    members = {name: png(each) for (name, _), each in zip(labels, images.values(), strict=True)}
    members["dataset.json"] = json.dumps({"labels": labels[::-1]}).encode()
    path = write_zip(tmp_path / "edm.zip", members)
    if not zipped:
        with zipfile.ZipFile(path) as opened:
            opened.extractall(path := tmp_path / "edm")
    data = folder(path, test_fraction=0.25)
    assert data.classes == ("0", "1", "2") and len(data.train) == 6
    assert found(data) == {each.tobytes(): 2 - i % 3 for i, each in enumerate(images.values())}


def test_a_dataset_json_without_labels_is_one_class(tmp_path: Path) -> None:
    members = {f"0000{i}/{i}.png": png(noise(i, 4, 4)[..., None]) for i in range(4)}
    members["dataset.json"] = b'{"labels": null}'
    assert folder(write_zip(tmp_path / "edm.zip", members)).classes == ("all",)


BROKEN = [
    (b"{", "must be"),
    (b"[]", "must be"),
    (200_000 * b"[", "must be"),
    (b'{"labels": [["0.png"]]}', "must be"),
    (b'{"labels": [["0.png", 0]]}', "no label of 1.png"),
    (b'{"labels": [["0.png", 0], ["1.png", 0.5]]}', "label 0.5"),
    (b'{"labels": [["0.png", 0], ["1.png", -1]]}', "label -1"),
    (b'{"labels": [["0.png", 0], ["1.png", 100000000000]]}', "label 100000000000.* below 100,000"),
    (b'{"labels": [["0.png", 0], ["1.png", 1], ["../2.png", 1]]}', "names '../2.png'"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_a_wrong_dataset_json_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    members = {f"{i}.png": png(noise(i, 4, 4, 3)) for i in range(2)}
    archive = write_zip(tmp_path / "a.zip", members | {"dataset.json": content})
    with pytest.raises(ValueError, match=f"dataset.json .*{message}") as error:
        folder(archive)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", "..\\x.png", "C:\\x.png"])
def test_a_path_that_leaves_a_zip_is_refused(tmp_path: Path, name: str) -> None:
    members = {f"{i}.png": png(noise(i, 4, 4, 3)) for i in range(3)}
    with pytest.raises(ValueError, match="leads out of its folder"):
        folder(write_zip(tmp_path / "a.zip", members | {name: members["0.png"]}))


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.98])
def test_a_torn_zip_is_one_line(tmp_path: Path, kept: float) -> None:
    members = {f"{i}.png": png(noise(i, 4, 4, 3)) for i in range(3)}
    content = write_zip(tmp_path / "a.zip", members).read_bytes()
    (tmp_path / "a.zip").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="is not a complete zip") as error:
        folder(tmp_path / "a.zip")
    assert "\n" not in str(error.value)


def test_a_bomb_in_a_zip_is_not_unpacked(tmp_path: Path) -> None:
    """A thousandth of what it unpacks to."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("0.png", bytes(LARGEST + 1))
        packed.writestr("1.png", png(noise(1, 4, 4, 3)))
    assert path.stat().st_size < LARGEST / 500
    with pytest.raises(ValueError, match=r"0\.png cannot be read .it would unpack to 268,435,457"):
        folder(path)


def test_a_flipped_bit_in_a_zip_is_found(tmp_path: Path) -> None:
    members = {f"{i}.png": png(noise(i, 16, 16, 3)) for i in range(3)}
    path = write_zip(tmp_path / "a.zip", members)
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"0\.png cannot be read"):
        folder(path)


@pytest.mark.parametrize("kept", [0, 20, 60, 200])
def test_a_torn_png_is_one_line(tmp_path: Path, kept: int) -> None:
    content = png(noise(0, 16, 16, 3))
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(content[:kept])
    with pytest.raises(ValueError, match=r"a\.png is (empty|not a complete image)") as error:
        folder(tmp_path)
    assert "\n" not in str(error.value)


def test_grey_images_where_colour_is_wanted_are_refused(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", noise(i, 4, 4))
    with pytest.raises(ValueError, match=r"0\.png is grey .*must be RGB .3 channels."):
        folder(tmp_path, channels=3)
    assert folder(tmp_path, channels=1).shape == (4, 4, 1)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_images_are_read_and_marked_on_demand_alone(tmp_path: Path, kind: str) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", noise(i, 8, 8, 3))
    (tmp_path / f"3.{kind.lower()}").write_bytes(png(noise(3, 8, 8, 3), kind))
    with pytest.raises(ValueError, match=r"JPEG images .3\..*`lossy: true`"):
        folder(tmp_path)
    assert len(folder(tmp_path, lossy=True).train) == 3
    exact, lossy = (FolderSpec(path=str(tmp_path), lossy=each) for each in (False, True))
    assert (exact.title, exact.remark) == ("folder", "")
    assert lossy.title == "folder (lossy)" and "no score compares" in lossy.remark


def test_shapes_are_known_to_plans_when_they_are_given() -> None:
    assert FolderSpec(path="x", size=8, channels=3).known_shape == (3, 8, 8)
    assert FolderSpec(path="x", size=8).known_shape is None


def test_a_folder_below_a_class_folder_is_refused(tmp_path: Path) -> None:
    for name in ("cat/a/0.png", "cat/a/1.png", "dog/b/2.png"):
        write(tmp_path / name, noise(0, 4, 4))
    with pytest.raises(ValueError, match="folders in class sub-folders"):
        folder(tmp_path)


def files(path: Path, *names: str) -> None:
    for i, name in enumerate(names):
        write(path / name, noise(i, 4, 4))


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    files(
        tmp_path,
        *(f"{i}.png" for i in range(10)),
        "a.bmp",
        "b.tif",
        "c.tif",
        ".hidden.png",
        "._0.png",
    )
    (tmp_path / "labels.csv").write_text("")
    (tmp_path / ".DS_Store").write_text("")
    (note,) = folder(tmp_path).notes
    assert note == f"{tmp_path}: 5 of 15 files are left out: 1 .bmp, 1 .csv, 2 .tif, 1 hidden .png"


def test_nothing_is_said_where_nothing_is_left_out(tmp_path: Path) -> None:
    files(tmp_path, *(f"{i}.png" for i in range(10)))
    assert folder(tmp_path).notes == ()


def test_a_folder_of_other_kinds_alone_says_which_it_has(tmp_path: Path) -> None:
    files(tmp_path, "a.bmp", "b.bmp")
    with pytest.raises(
        ValueError, match=r"holds 0 PNG images .2 of 2 files are left out: 2 \.bmp.: "
    ):
        folder(tmp_path)


NUMBERED = {f"{i // 20:05}/img{i:08}.png": png(noise(i, 4, 4, 3)) for i in range(40)}
TENS = json.dumps({"labels": [[name, i % 10] for i, name in enumerate(NUMBERED)]}).encode()


@pytest.mark.parametrize("prefix", ["", "mydata/", "./", "a/b/", "./mydata/"])
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_classes_of_a_zip_do_not_depend_on_its_folders_or_separators(
    tmp_path: Path, prefix: str, separator: str
) -> None:
    members = {
        prefix + name: content for name, content in (NUMBERED | {"dataset.json": TENS}).items()
    }
    archive = write_zip(
        tmp_path / "a.zip", {name.replace("/", separator): each for name, each in members.items()}
    )
    plain = write_zip(tmp_path / "b.zip", NUMBERED | {"dataset.json": TENS})
    data, expected = folder(archive), folder(plain)
    assert len(data.classes) == 10
    assert np.array_equal(data.train, expected.train) and np.array_equal(
        data.train_labels, expected.train_labels
    )
    assert data.identity == expected.identity


@pytest.mark.parametrize("spelled", ["./{}", "{}"])
def test_names_in_a_dataset_json_may_have_other_separators(tmp_path: Path, spelled: str) -> None:
    pairs = [[spelled.format(name).replace("/", "\\"), i % 10] for i, name in enumerate(NUMBERED)]
    text = json.dumps({"labels": pairs}).encode()
    assert (
        len(folder(write_zip(tmp_path / "a.zip", NUMBERED | {"dataset.json": text})).classes) == 10
    )


@pytest.mark.parametrize("place", ["00000/dataset.json", "Dataset.json", "labels/dataset.json"])
def test_a_dataset_json_that_would_not_count_is_refused(tmp_path: Path, place: str) -> None:
    archive = write_zip(tmp_path / "a.zip", NUMBERED | {place: TENS})
    with pytest.raises(ValueError, match=rf"has {place}, which must be called dataset\.json"):
        folder(archive)


def test_an_image_with_two_classes_is_refused(tmp_path: Path) -> None:
    pairs = [[name, 0] for name in NUMBERED] + [["./00000/img00000003.png", 1]]
    text = json.dumps({"labels": pairs}).encode()
    with pytest.raises(ValueError, match=r"dataset\.json names '00000/img00000003\.png' twice"):
        folder(write_zip(tmp_path / "a.zip", NUMBERED | {"dataset.json": text}))


@pytest.mark.parametrize(
    "splits", [("train", "test"), ("Train", "Val"), ("train", "validation", "test")]
)
def test_splits_are_no_classes(tmp_path: Path, splits: tuple[str, ...]) -> None:
    files(tmp_path, *(f"{split}/{i}.png" for split in splits for i in range(4)))
    with pytest.raises(ValueError, match="which are splits, not classes: set `path:`"):
        folder(tmp_path)


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    files(tmp_path, *(f"{name}/{i}.png" for name in ("car", "train") for i in range(4)))
    assert folder(tmp_path).classes == ("car", "train")


def test_backslashes_in_a_folder_are_refused(tmp_path: Path) -> None:
    """As Python's zipfile unpacks an archive of Windows: one class of files with strange names."""
    files(tmp_path, *(f"{name}\\{i}.png" for name in ("cat", "dog") for i in range(4)))
    with pytest.raises(ValueError, match="a backslash separates folders on Windows only"):
        folder(tmp_path)


def test_a_zip_that_names_a_file_with_both_separators_is_refused(tmp_path: Path) -> None:
    archive = write_zip(
        tmp_path / "a.zip", {"a/0.png": png(noise(0, 4, 4)), "a\\0.png": png(noise(1, 4, 4))}
    )
    with pytest.raises(ValueError, match=r"it holds 'a/0\.png' twice"):
        folder(archive)
