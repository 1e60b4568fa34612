"""Versions of image sets: the same images are one set wherever they lie, others are refused or known apart."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from itertools import combinations
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import noise, numbered, png, write_parquet, write_zip
from commands import digests, plan_of, write_config
from numpy.typing import NDArray
from PIL import Image

from diffbench.data.datasets import Dataset, manifest
from diffbench.data.decoding import Decoder
from diffbench.data.folder import ImageFolder, ImagesIdentity
from diffbench.jobs import data as stages_data
from diffbench.metrics.torchvision_operators import ensure_importable
from diffbench.plan.jobs import Plan
from diffbench.specs.data import FolderSpec, LSUNSpec, ParquetSpec
from diffbench.specs.jobs import DataStageSpec
from diffbench.specs.registry import build
from diffbench.store import paths
from diffbench.store.image_files import TarFiles
from diffbench.store.products import StoreError, write_product

Pixels = NDArray[np.uint8]
Members = list[tarfile.TarInfo]

RESIZES = ("bicubic", "lanczos", "bilinear", "box-bicubic")
ARRAYS = ("train", "test", "train_labels", "test_labels")
OORD: dict[str, Any] = {"called": "imagenet32", "version": "van den Oord 2016"}


#: Two classes; the second has more images, and one name is in both.
PETS = numbered(6, prefix="cat/") | numbered(9, first=50, prefix="dog/")
TESTS = numbered(2, first=100, prefix="cat/") | numbered(3, first=150, prefix="dog/")


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_plain_tar(path: Path, files: Mapping[str, bytes], *others: tarfile.TarInfo) -> Path:
    """A tar without compression; ``others`` are members without content, before all files."""
    with tarfile.open(path, "w") as tar:
        for other in others:
            tar.addfile(other)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


WRITERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "folder": write_folder,
    "zip": write_zip,
    "tar": write_plain_tar,
}


def packed(path: Path, kind: str, images: Mapping[str, Pixels], around: str = "") -> Path:
    """Images in folders ``around`` all, as a folder, zip or tar."""
    files = {f"{around}{name}": png(image) for name, image in images.items()}
    return WRITERS[kind](path if kind == "folder" else path.with_suffix(f".{kind}"), files)


def load(path: Path, **options: Any) -> Dataset:
    return ImageFolder(FolderSpec(path=str(path), **options)).load()


def by_hand(**images: Mapping[str, Pixels]) -> str:
    """The identity of the images below each key."""
    lines = [
        f"{key}/{name} {hashlib.sha256(image.tobytes()).hexdigest()}"
        for key, each in images.items()
        for name, image in each.items()
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def found(images: Pixels, labels: NDArray[np.int64] | None = None) -> list[tuple[bytes, int]]:
    """Images with their labels, in no order."""
    given = [0] * len(images) if labels is None else labels.tolist()
    return sorted((image.tobytes(), label) for image, label in zip(images, given, strict=True))


def of_pets(images: Mapping[str, Pixels]) -> list[tuple[bytes, int]]:
    """What `found` should find."""
    return sorted((image.tobytes(), int(name[:3] == "dog")) for name, image in images.items())


def assert_same(one: Dataset, other: Dataset) -> None:
    for name in ARRAYS:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.identity is not None and one.identity == other.identity


# The same images, however they are packed.


@pytest.mark.parametrize("around", ["", "images/", "a/b/", "./"])
@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_images_are_the_same_set(tmp_path: Path, kind: str, around: str) -> None:
    plain = load(packed(tmp_path / "plain", "folder", PETS), test_fraction=0.2)
    other = load(packed(tmp_path / "other", kind, PETS, around), test_fraction=0.2)
    assert_same(other, plain)
    assert other.classes == ("cat", "dog") and len(other.test) == 3
    everything = [*found(other.train, other.train_labels), *found(other.test, other.test_labels)]
    assert sorted(everything) == of_pets(PETS)


@pytest.mark.parametrize("around", ["", "train_32x32/", "a/b/"])
@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_images_without_classes_are_the_same_set(
    tmp_path: Path, kind: str, around: str
) -> None:
    images = numbered(8)
    plain = load(packed(tmp_path / "plain", "folder", images), test_fraction=0.25)
    other = load(packed(tmp_path / "other", kind, images, around), test_fraction=0.25)
    assert_same(other, plain)
    assert other.identity == by_hand(path=images) and len(other.classes) == 1


@pytest.mark.parametrize("test_kind", WRITERS)
@pytest.mark.parametrize("kind", WRITERS)
def test_both_paths_can_be_packed_in_ways_of_their_own(
    tmp_path: Path, kind: str, test_kind: str
) -> None:
    plain = load(
        packed(tmp_path / "plain", "folder", PETS),
        test_path=str(packed(tmp_path / "plain-test", "folder", TESTS)),
    )
    other = load(
        packed(tmp_path / "other", kind, PETS, "train/"),
        test_path=str(packed(tmp_path / "other-test", test_kind, TESTS, "deep/valid/")),
    )
    assert_same(other, plain)
    assert other.identity == by_hand(path=PETS, test_path=TESTS)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_the_order_in_an_archive_is_no_part_of_a_set(
    tmp_path: Path, kind: str, prefix: str
) -> None:
    backwards = dict([*PETS.items()][::-1])
    ordered = load(packed(tmp_path / "a", kind, PETS), test_fraction=0.2)
    assert_same(load(packed(tmp_path / "b", kind, backwards, prefix), test_fraction=0.2), ordered)


@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_tar_has_its_labels_in_dataset_json(tmp_path: Path, prefix: str) -> None:
    """As `tar c .` names it too."""
    images = numbered(4, prefix="00000/") | numbered(4, first=4, prefix="00001/")
    labels = [[name, i % 3] for i, name in enumerate(images)]
    files = {f"{prefix}{name}": png(image) for name, image in images.items()}
    files[f"{prefix}dataset.json"] = json.dumps({"labels": labels}).encode()
    data = load(write_plain_tar(tmp_path / "edm.tar", files), test_fraction=0.25)
    assert data.classes == ("0", "1", "2")
    everything = [*found(data.train, data.train_labels), *found(data.test, data.test_labels)]
    wanted = [(image.tobytes(), i % 3) for i, image in enumerate(images.values())]
    assert sorted(everything) == sorted(wanted)


# What a set is known by.


def test_the_identity_is_that_of_names_and_pixels(tmp_path: Path) -> None:
    data = load(packed(tmp_path / "pets", "folder", PETS))
    assert data.identity == by_hand(path=PETS) == manifest(data)["identity"]
    tests = packed(tmp_path / "tests", "folder", TESTS)
    both = load(tmp_path / "pets", test_path=str(tests))
    assert both.identity == by_hand(path=PETS, test_path=TESTS) == manifest(both)["identity"]


def test_lines_are_sorted_by_their_names_in_full(tmp_path: Path) -> None:
    """Whatever order a path's parts, cases or other letters have elsewhere."""
    names = ["a/0.png", "a-b/0.png", "a/00.png", "A/1.png", "é/2.png", "a b/3.png"]
    images = {name: noise(i, 4, 4, 3) for i, name in enumerate(names)}
    data = load(packed(tmp_path / "names", "tar", images), test_fraction=0.5)
    assert data.identity == by_hand(path=images)


def test_the_order_of_reading_is_no_part_of_the_identity() -> None:
    for names in (sorted(TESTS), sorted(TESTS, reverse=True)):
        identity = ImagesIdentity()
        for name in names:
            identity.add(f"path/{name}", TESTS[name])
        assert identity.sha256() == by_hand(path=TESTS)


def test_the_identity_of_grey_images(tmp_path: Path) -> None:
    images = {f"{i}.png": noise(i, 5, 4, 1) for i in range(4)}
    assert load(packed(tmp_path / "grey", "zip", images)).identity == by_hand(path=images)


def _another_pixel(images: dict[str, Pixels]) -> None:
    images["dog/003.png"] = images["dog/003.png"].copy()
    images["dog/003.png"][3, 2, 1] ^= 1


def _another_name(images: dict[str, Pixels]) -> None:
    images["dog/103.png"] = images.pop("dog/003.png")


def _another_class(images: dict[str, Pixels]) -> None:
    images["cat/006.png"] = images.pop("dog/006.png")


def _two_names_exchanged(images: dict[str, Pixels]) -> None:
    images["dog/003.png"], images["dog/004.png"] = images["dog/004.png"], images["dog/003.png"]


def _one_more(images: dict[str, Pixels]) -> None:
    images["dog/009.png"] = images["dog/003.png"]


def _one_less(images: dict[str, Pixels]) -> None:
    del images["dog/003.png"]


CHANGES = [
    _another_pixel,
    _another_name,
    _another_class,
    _two_names_exchanged,
    _one_more,
    _one_less,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("key", ["path", "test_path"])
def test_another_version_has_another_identity(
    tmp_path: Path, key: str, change: Callable[[dict[str, Pixels]], None]
) -> None:
    splits = {"path": dict(PETS), "test_path": dict(PETS)}
    change(splits[key])
    places = {each: packed(tmp_path / each, "tar", images) for each, images in splits.items()}
    data = load(places["path"], test_path=str(places["test_path"]))
    assert data.identity == by_hand(**splits) != by_hand(path=PETS, test_path=PETS)


def test_the_place_of_an_image_is_part_of_the_identity(tmp_path: Path) -> None:
    """One image goes from training to tests; then all change places."""
    train, test = dict(PETS), dict(TESTS)
    test["dog/008.png"] = train.pop("dog/008.png")
    identities = []
    for name, splits in {"a": (PETS, TESTS), "b": (train, test), "c": (TESTS, PETS)}.items():
        path, tests = (
            packed(tmp_path / f"{name}{part}", "folder", images)
            for part, images in enumerate(splits)
        )
        identities.append(load(path, test_path=str(tests)).identity)
        assert identities[-1] == by_hand(path=splits[0], test_path=splits[1])
    assert len(set(identities)) == 3


def _level(image: Pixels, level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def _palette(image: Pixels) -> bytes:
    """The same pixels by their numbers in a list of colours."""
    colours, numbers = np.unique(image.reshape(-1, 3), axis=0, return_inverse=True)
    indexed = Image.fromarray(numbers.reshape(image.shape[:2]).astype(np.uint8)).convert("L")
    indexed.putpalette(colours.astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    indexed.save(buffer, "PNG")
    return buffer.getvalue()


CODINGS: dict[str, Callable[[Pixels], bytes]] = {
    "level 0": lambda image: _level(image, 0),
    "level 1": lambda image: _level(image, 1),
    "palette": _palette,
}


@pytest.mark.parametrize("coding", CODINGS)
def test_how_a_png_is_coded_is_no_part_of_the_identity(tmp_path: Path, coding: str) -> None:
    files = {name: CODINGS[coding](image) for name, image in PETS.items()}
    assert all(content != _level(PETS[name], 9) for name, content in files.items())
    again = {name: _level(image, 9) for name, image in PETS.items()}
    one, other = (
        load(write_folder(tmp_path / name, each)) for name, each in {"a": files, "b": again}.items()
    )
    assert_same(one, other)
    assert one.identity == by_hand(path=PETS)


def test_which_part_is_held_back_is_no_part_of_the_identity(tmp_path: Path) -> None:
    path = packed(tmp_path / "pets", "tar", PETS)
    first = load(path, test_fraction=0.2, seed=0)
    others = [load(path, test_fraction=0.2, seed=1), load(path, test_fraction=0.5)]
    for other in others:
        assert other.identity == first.identity
        assert found(other.test) != found(first.test)


def test_what_lies_beside_images_is_no_part_of_the_identity(tmp_path: Path) -> None:
    files = {name: png(image) for name, image in PETS.items()}
    beside = {"README.txt": b"x", "cat/.hidden.png": b"x", "__MACOSX/cat/._0.png": b"x"}
    data = load(write_plain_tar(tmp_path / "a.tar", beside | files))
    assert data.identity == by_hand(path=PETS)


# An identity that is stated.


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("split", [False, True])
def test_the_right_identity_is_accepted(tmp_path: Path, kind: str, split: bool) -> None:
    options: dict[str, Any] = {}
    known = {"path": PETS}
    if split:
        options["test_path"] = str(packed(tmp_path / "tests", kind, TESTS))
        known["test_path"] = TESTS
    path = packed(tmp_path / "pets", kind, PETS)
    assert_same(load(path, identity=by_hand(**known), **options), load(path, **options))


@pytest.mark.parametrize("key", ["path", "test_path"])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_wrong_identity_is_refused_with_both(tmp_path: Path, kind: str, key: str) -> None:
    stated = by_hand(path=PETS, test_path=TESTS)
    splits = {"path": dict(PETS), "test_path": dict(TESTS)}
    splits[key]["cat/001.png"] = noise(999, 4, 4, 3)
    places = {each: packed(tmp_path / each, kind, images) for each, images in splits.items()}
    with pytest.raises(ValueError, match="identity") as error:
        load(places["path"], test_path=str(places["test_path"]), identity=stated)
    message = str(error.value)
    assert stated in message and by_hand(**splits) in message and str(places["path"]) in message
    assert "\n" not in message


@pytest.mark.parametrize("identity", ["abc", "g" * 64, "A" * 64, "a" * 63, "a" * 65, ""])
def test_an_identity_must_look_like_one(identity: str) -> None:
    with pytest.raises(ValueError, match="identity"):
        FolderSpec(path="x", identity=identity)


def test_a_known_set_has_no_place() -> None:
    known = [
        FolderSpec(path=path, test_path=test_path, identity="a" * 64)
        for path, test_path in (("here.tar", "tests"), ("/else/where", "there.zip"))
    ]
    unknown = [each.model_copy(update={"identity": None}) for each in known]
    assert len({each.digest() for each in known}) == 2
    assert len({each.unplaced.digest() for each in known}) == 1
    assert len({each.unplaced.digest() for each in unknown}) == 2
    other = FolderSpec(path="here.tar", test_path="tests", identity="b" * 64)
    assert other.unplaced.digest() != known[0].unplaced.digest()
    for text in ("here", "tests", "where", "there"):
        assert text not in known[0].unplaced.canonical()


@pytest.mark.parametrize("more", [{}, OORD, {"size": 8, "resize": "lanczos"}])
def test_a_set_without_its_place_is_read_back(more: dict[str, Any]) -> None:
    spec = FolderSpec(path="x", identity="a" * 64, **more)
    for each in (spec, spec.unplaced):
        assert FolderSpec.read(each.canonical()) == each


def test_no_path_is_refused_unless_the_set_is_known() -> None:
    with pytest.raises(ValueError, match="path: none; it must be a folder, zip or tar of PNGs"):
        FolderSpec(path=None)
    assert FolderSpec(path=None, identity="a" * 64).paths == {}


@pytest.mark.parametrize("test_path", [False, True])
def test_a_known_set_that_lies_nowhere_cannot_be_read(tmp_path: Path, test_path: bool) -> None:
    tests = str(packed(tmp_path / "tests", "folder", TESTS)) if test_path else None
    spec = FolderSpec(path=None, test_path=tests, identity="a" * 64)
    with pytest.raises(ValueError, match="path"):
        ImageFolder(spec).load()


def planned(folder: Path, **changed: Any) -> Plan:
    """The plan of one variant with the images in a folder's ``here.tar``; some keys of `data` changed."""
    data = {"name": "folder", "path": "here.tar", "size": 8, "channels": 3, "classes": 2}
    parts = {"variants": ["edm"], "tables": ["overview"], "claims": [], "figures": []}
    write_config(folder, {**parts, "data": data | changed})
    return plan_of(folder)


def test_nothing_is_made_again_of_a_known_set_that_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = numbered(6, prefix="cat/", side=8) | numbered(6, first=20, prefix="dog/", side=8)
    for name in ("here", "there"):
        packed(tmp_path / name, "tar", images)
    identity = by_hand(path=images)
    known, moved = (
        digests(planned(tmp_path, path=path, identity=identity))
        for path in ("here.tar", "there.tar")
    )
    unknown, elsewhere = (
        digests(planned(tmp_path, path=path)) for path in ("here.tar", "there.tar")
    )
    stages = {stage for stage, _, _ in known}
    assert {"data", "reference", "train", "sample", "score"} <= stages
    # The job that reads the images is another: it has to look at them.
    assert {key[0] for key in known if known[key] != moved[key]} == {"data"}
    # Without the identity of their pixels, images are known by the contents of their files.
    assert unknown == elsewhere
    assert all(unknown[key] != known[key] for key in known)
    other = digests(planned(tmp_path, identity="b" * 64))
    assert all(known[key] != other[key] for key in known)


def test_a_stored_set_is_read_from_wherever_it_came(tmp_path: Path) -> None:
    first, second = (
        packed(tmp_path / name, name, PETS, around=f"{name}/") for name in ("tar", "zip")
    )
    identity = by_hand(path=PETS)
    spec, moved = (FolderSpec(path=str(path), identity=identity) for path in (first, second))
    data = ImageFolder(spec).load()
    stage = DataStageSpec(data=spec)
    write_product(paths.dataset(tmp_path), lambda file: stages_data.save(data, file), stage)
    for each in (spec, moved, moved.unplaced):
        assert found(stages_data.load(tmp_path, each).train) == found(data.train)
    for other in (FolderSpec(path=str(second)), FolderSpec(path=str(first), identity="b" * 64)):
        with pytest.raises(StoreError, match="holds another data set"):
            stages_data.load(tmp_path, other)


# Test images of their own.


@pytest.mark.parametrize("kind", WRITERS)
def test_a_test_path_has_the_test_images_and_no_others(tmp_path: Path, kind: str) -> None:
    tests = packed(tmp_path / "tests", kind, TESTS, around="valid/")
    data = load(packed(tmp_path / "pets", "folder", PETS), test_path=str(tests), test_fraction=0.5)
    assert found(data.test, data.test_labels) == of_pets(TESTS)
    assert found(data.train, data.train_labels) == of_pets(PETS)
    assert [image.tobytes() for image in data.train] == [
        PETS[name].tobytes() for name in sorted(PETS)
    ]


def test_test_images_of_a_path_are_in_an_order_of_the_seed(tmp_path: Path) -> None:
    path = packed(tmp_path / "pets", "folder", PETS)
    tests = packed(tmp_path / "tests", "folder", numbered(9, prefix="cat/") | PETS)
    first, again, other = (
        load(path, test_path=str(tests), seed=seed).test_labels.tolist() for seed in (0, 0, 1)
    )
    assert first == again != other and sorted(first) == sorted(other)
    assert first != sorted(first)


def test_test_images_without_classes_can_lie_in_a_folder_of_another_name(tmp_path: Path) -> None:
    """As in the tars of van den Oord's ImageNet."""
    path = packed(tmp_path / "train", "tar", numbered(5), around="train_32x32/")
    tests = packed(tmp_path / "valid", "tar", numbered(3, first=30), around="valid_32x32/")
    data = load(path, test_path=str(tests), size=4, **OORD)
    assert (len(data.train), len(data.test), data.name) == (5, 3, "imagenet32")
    assert not data.train_labels.any() and not data.test_labels.any()
    assert data.identity == by_hand(path=numbered(5), test_path=numbered(3, first=30))


def _two(*classes: str) -> dict[str, Pixels]:
    return {
        f"{each}/{i}.png": noise(10 * k + i, 4, 4, 3)
        for k, each in enumerate(classes)
        for i in (0, 1)
    }


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("cat", "dog"), ("cat", "cow")),
        (("cat", "dog"), ("cat", "cow", "dog")),
        (("cat", "cow", "dog"), ("cat", "dog")),
        (("cat", "dog"), ("cat",)),
        (("cat",), ("cat", "dog")),
    ],
)
def test_other_classes_of_test_images_are_refused(
    tmp_path: Path, kind: str, ours: tuple[str, ...], theirs: tuple[str, ...]
) -> None:
    path = packed(tmp_path / "ours", "folder", _two(*ours))
    tests = packed(tmp_path / "theirs", kind, _two(*theirs))
    with pytest.raises(ValueError, match=r"^data\.test_path: .* classes") as error:
        load(path, test_path=str(tests))
    message = str(error.value)
    assert str(tests) in message and str(path) in message and "\n" not in message
    # The same images are read where their classes are the same.
    same = packed(tmp_path / "same", kind, _two(*ours))
    assert found(load(path, test_path=str(same)).test) == found(
        load(path, test_path=str(path)).test
    )


def test_too_few_test_images_are_refused_by_their_key(tmp_path: Path) -> None:
    path = packed(tmp_path / "ours", "folder", numbered(4))
    tests = packed(tmp_path / "theirs", "tar", numbered(1))
    with pytest.raises(ValueError, match=r"theirs\.tar holds 1 PNG.*`test_path:`"):
        load(path, test_path=str(tests))


def test_test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "ours", "folder", numbered(4))
    tests = packed(tmp_path / "theirs", "tar", numbered(4, side=5))
    with pytest.raises(ValueError, match=r"theirs\.tar/000\.png is 5x5 .*000\.png is 4x4"):
        load(path, test_path=str(tests))


# Versions are taken as they are.


def test_a_version_is_one_of_something() -> None:
    with pytest.raises(ValueError, match="version: 'van den Oord 2016' needs `called:`"):
        FolderSpec(path="x", version="van den Oord 2016")
    assert FolderSpec(path="x", called="imagenet32").known_as == "imagenet32"
    assert FolderSpec(path="x", **OORD).known_as == "imagenet32"


@pytest.mark.parametrize("resize", RESIZES)
def test_a_version_is_not_resized(resize: Any) -> None:
    with pytest.raises(ValueError, match=f"resize: {resize}, but images with a version"):
        FolderSpec(path="x", size=8, resize=resize, **OORD)
    assert FolderSpec(path="x", size=8, **OORD).resize is None
    assert FolderSpec.model_validate({"path": "x", "resize": "none", **OORD}).resize is None
    unversioned = {"path": "x", "size": 8, "resize": resize, **OORD, "version": "none"}
    assert FolderSpec.model_validate(unversioned).resize == resize


@pytest.mark.parametrize("version", [None, "none"])
def test_no_version_is_resized_as_usual(version: str | None) -> None:
    spec = FolderSpec.model_validate({"path": "x", "size": 8, "version": version})
    assert (spec.version, spec.resize) == (None, "bicubic")


@pytest.mark.parametrize("more", [OORD, {"resize": "none"}])
def test_images_as_they_are_have_the_size_that_is_stated(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    images = numbered(4, side=8)
    path = packed(tmp_path / "whole", "tar", images)
    data = load(path, size=8, **more)
    assert data.identity == by_hand(path=images)
    assert found(np.concatenate([data.train, data.test])) == found(np.stack([*images.values()]))
    with pytest.raises(ValueError, match=r"000\.png has 8x8 pixels and not 4x4"):
        load(path, size=4, **more)


@pytest.mark.parametrize(("height", "width"), [(8, 9), (9, 8), (4, 16), (16, 16)])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_version_of_two_sizes_is_refused(
    tmp_path: Path, kind: str, height: int, width: int
) -> None:
    images = numbered(4, side=8) | {"002.png": noise(2, height, width, 3)}
    path = packed(tmp_path / "torn", kind, images)
    wrong = rf"{path.name}/002\.png"
    with pytest.raises(ValueError, match=f"{wrong} has {width}x{height} pixels and not 8x8"):
        load(path, size=8, **OORD)
    with pytest.raises(ValueError, match=rf"{wrong} is {width}x{height} .*000\.png is 8x8"):
        load(path, **OORD)
    # Resized, they are four images.
    assert len(load(path, size=8).train) == 3


# A tar that is none.


def assert_refused(path: Path, message: str) -> None:
    """In one line that names the file, whoever reads it."""
    for spec in (FolderSpec(path=str(path)), LSUNSpec(path=str(path), size=16)):
        with pytest.raises(ValueError, match=message) as error:
            build(spec).load()
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def six(folder: Path, side: int = 16) -> tuple[Path, Members]:
    path = packed(folder / "six", "tar", numbered(6, side=side))
    with tarfile.open(path) as tar:
        return path, tar.getmembers()


#: Where a file ends, from its members.
CUTS: dict[str, Callable[[Members], int]] = {
    "before all": lambda members: 0,
    "in the first header": lambda members: 100,
    "after the first header": lambda members: members[0].offset_data,
    "in the first image": lambda members: members[0].offset_data + 50,
    "in the third image": lambda members: members[2].offset_data + 50,
    "in the padding of the third image": lambda members: members[3].offset - 1,
    "after the last header": lambda members: members[-1].offset_data,
    "in the last image": lambda members: members[-1].offset_data + 50,
    "after the third image": lambda members: members[3].offset,
    "in the fourth header": lambda members: members[3].offset + 200,
    "in the last header": lambda members: members[-1].offset + 511,
}


@pytest.mark.parametrize("end", CUTS.values(), ids=CUTS)
def test_a_torn_tar_is_one_line(tmp_path: Path, end: Callable[[Members], int]) -> None:
    path, members = six(tmp_path)
    assert len(load(path).train) == 5
    content = path.read_bytes()
    path.write_bytes(content[: end(members)])
    assert_refused(path, "is not a complete tar")


@pytest.mark.parametrize("member", [0, 3, 5])
def test_a_flipped_bit_in_a_header_is_found(tmp_path: Path, member: int) -> None:
    path, members = six(tmp_path)
    content = bytearray(path.read_bytes())
    content[members[member].offset + 3] ^= 1
    path.write_bytes(content)
    assert_refused(path, "is not a complete tar")


def test_a_tar_that_shrinks_while_it_is_read_is_one_line(tmp_path: Path) -> None:
    # Images larger than what a file object keeps in memory.
    path, members = six(tmp_path, side=128)
    files = TarFiles(path)
    with path.open("r+b") as file:
        file.truncate(members[3].offset_data + 50)
    assert files.read("002.png") == png(numbered(6, side=128)["002.png"])
    for name in ("003.png", "005.png"):
        with pytest.raises(ValueError, match=rf"six\.tar: {name} cannot be read") as error:
            files.read(name)
        assert "\n" not in str(error.value)


NO_TARS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "text": lambda content: b"no tar at all\n" * 100,
    "a page": lambda content: b"<!DOCTYPE html>" + bytes(4096),
}


@pytest.mark.parametrize("kind", NO_TARS)
def test_what_is_named_tar_and_is_none_is_one_line(tmp_path: Path, kind: str) -> None:
    path, _ = six(tmp_path)
    path.write_bytes(NO_TARS[kind](path.read_bytes()))
    assert_refused(path, "is not a complete tar without compression")


def test_a_zip_named_tar_and_a_tar_named_zip_are_refused(tmp_path: Path) -> None:
    zipped = packed(tmp_path / "a", "zip", numbered(4))
    assert_refused(zipped.rename(tmp_path / "b.tar"), "is not a complete tar")
    tarred = packed(tmp_path / "c", "tar", numbered(4))
    assert_refused(tarred.rename(tmp_path / "d.zip"), "is not a complete zip")


def test_an_empty_tar_holds_no_images(tmp_path: Path) -> None:
    assert_refused(packed(tmp_path / "empty", "tar", {}), "holds (0 PNG|no) images")


def test_a_torn_image_in_a_whole_tar_is_named(tmp_path: Path) -> None:
    files = {name: png(image) for name, image in numbered(4, side=16).items()}
    files["002.png"] = files["002.png"][:-40]
    assert_refused(write_plain_tar(tmp_path / "a.tar", files), r"002\.png is not a complete image")


ESCAPES = [
    "../x.png",
    "/x.png",
    "//x.png",
    "a/../../x.png",
    "cat/../x.png",
    "./../x.png",
    "..\\x.png",
    "C:\\x.png",
    "../x.txt",
    "/tmp/dataset.json",
]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("last", [False, True])
def test_a_path_that_leaves_a_tar_is_refused(tmp_path: Path, name: str, last: bool) -> None:
    files = {each: png(image) for each, image in numbered(4).items()}
    assert load(write_plain_tar(tmp_path / "a.tar", files)).identity == by_hand(path=numbered(4))
    away = {name: files["000.png"]}
    path = write_plain_tar(tmp_path / "a.tar", files | away if last else away | files)
    assert_refused(path, "is refused: the path .* leads out of its folder")


def test_a_path_that_leaves_the_tar_of_test_images_is_refused(tmp_path: Path) -> None:
    files = {each: png(image) for each, image in numbered(4).items()}
    tests = write_plain_tar(tmp_path / "tests.tar", files | {"../x.png": files["000.png"]})
    with pytest.raises(
        ValueError, match=r"tests\.tar is refused: the path '\.\./x\.png' in it leads"
    ):
        load(packed(tmp_path / "train", "tar", numbered(4)), test_path=str(tests))


def _member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


NO_FILES = {
    "folders": [_member("cat", tarfile.DIRTYPE), _member("dog/", tarfile.DIRTYPE)],
    "an empty folder": [_member("cow", tarfile.DIRTYPE)],
    "a folder named as an image": [_member("cat/x.png", tarfile.DIRTYPE)],
    "a link inside": [_member("cat/x.png", tarfile.SYMTYPE, "000.png")],
    "a link to nothing": [_member("cat/x.png", tarfile.SYMTYPE, "none.png")],
    "a link outside": [_member("cat/x.png", tarfile.SYMTYPE, "../../secret.png")],
    "a link to a folder outside": [_member("cow", tarfile.SYMTYPE, "/")],
    "a pipe": [_member("cat/x.png", tarfile.FIFOTYPE)],
    "a device": [_member("cat/x.png", tarfile.CHRTYPE)],
}


@pytest.mark.parametrize("others", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_file_in_a_tar_is_ignored(tmp_path: Path, others: Members) -> None:
    (tmp_path / "secret.png").write_bytes(png(noise(999, 4, 4, 3)))
    (tmp_path / "in").mkdir()
    files = {name: png(image) for name, image in PETS.items()}
    path = write_plain_tar(tmp_path / "in" / "a.tar", files, *others)
    with tarfile.open(path) as tar:
        assert len(tar.getmembers()) == len(PETS) + len(others)
    data = load(path)
    assert_same(data, load(packed(tmp_path / "plain", "folder", PETS)))
    assert data.identity == by_hand(path=PETS) and data.classes == ("cat", "dog")


# Four ways to resize, from their definition: filters in NumPy, as Pillow's documentation has them.


def box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1 - np.abs(x), 0)


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' with a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def windowed_sinc(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Three lobes."""
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


Kernel = Callable[[NDArray[np.float64]], NDArray[np.float64]]
#: Weights are multiples of this.
ONE = 2**22


def along(image: Pixels, axis: int, size: int, kernel: Kernel) -> Pixels:
    """One axis resampled: the filter, stretched where pixels get fewer, its sum one, then rounded to levels."""
    length = image.shape[axis]
    if length == size:
        return image
    scale = length / size
    centres = (np.arange(size) + 0.5) * scale
    weights = kernel((np.arange(length) - centres[:, None] + 0.5) * (1 / max(scale, 1)))
    weights /= weights.sum(1, keepdims=True)
    whole = (np.sign(weights) * np.floor(np.abs(weights) * ONE + 0.5)).astype(np.int64)
    sums = np.moveaxis(np.tensordot(whole, image.astype(np.int64), (1, axis)), 0, axis)
    return np.clip((sums + ONE // 2) // ONE, 0, 255).astype(np.uint8)


def resampled(image: Pixels, height: int, width: int, kernel: Kernel) -> Pixels:
    return along(along(image, 1, width, kernel), 0, height, kernel)


def middle(image: Pixels, side: int, half: Callable[[float], int]) -> Pixels:
    top, left = (half((each - side) / 2) for each in image.shape[:2])
    return image[top : top + side, left : left + side]


def by_definition(resize: str, image: Pixels, size: int) -> Pixels:
    """The centred square of an image (H, W, C), by one of the four ways."""
    if resize in ("bicubic", "lanczos"):
        kernel = {"bicubic": cubic, "lanczos": windowed_sinc}[resize]
        return resampled(middle(image, min(image.shape[:2]), floor), size, size, kernel)
    if resize == "bilinear":
        short = min(image.shape[:2])
        height, width = (floor(side * size / short) for side in image.shape[:2])
        # torchvision rounds half a pixel to the even number.
        return middle(resampled(image, height, width, triangle), size, round)
    while min(image.shape[:2]) >= 2 * size:
        image = resampled(image, image.shape[0] // 2, image.shape[1] // 2, box)
    scale = size / min(image.shape[:2])
    height, width = (round(side * scale) for side in image.shape[:2])
    return middle(resampled(image, height, width, cubic), size, floor)


#: To 8: wide and high; halved once, with halves to round beside the square; thrice; just not; enlarged; only cut.
SHAPES = [
    (37, 50),
    (50, 37),
    (16, 23),
    (26, 16),
    (16, 19),
    (64, 70),
    (15, 17),
    (5, 7),
    (8, 13),
    (9, 90),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("resize", RESIZES)
def test_images_are_resized_by_the_definition(
    resize: Any, height: int, width: int, channels: int
) -> None:
    image = noise(height, height, width, channels)
    read = Decoder(8, resize=resize).read(png(image), "noise")
    assert read.shape == (8, 8, channels)
    assert np.array_equal(read, by_definition(resize, image, 8))


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_bilinear_is_torchvision_s(height: int, width: int) -> None:
    ensure_importable()
    functional = importlib.import_module("torchvision.transforms.functional")

    image = noise(height, height, width, 3)
    theirs = functional.resize(Image.fromarray(image), 8, functional.InterpolationMode.BILINEAR)
    wanted = np.asarray(functional.center_crop(theirs, [8, 8]))
    assert np.array_equal(Decoder(8, resize="bilinear").read(png(image), "noise"), wanted)


@pytest.mark.parametrize(("height", "width"), [(37, 50), (50, 37), (16, 23), (5, 7)])
def test_the_four_ways_differ(height: int, width: int) -> None:
    image = noise(height, height, width, 3)
    read = {each: Decoder(8, resize=each).read(png(image), "noise") for each in RESIZES}  # type: ignore[arg-type]
    for one, other in combinations(RESIZES, 2):
        # Not by a rounding here and there.
        assert (read[one] != read[other]).mean() > 0.5, (one, other)


def pictures(count: int = 4) -> dict[str, Pixels]:
    """Images that are not square, of several sizes."""
    return {f"{i}.png": noise(i, 21 + i, 29 - 3 * i, 3) for i in range(count)}


@pytest.mark.parametrize("resize", [None, *RESIZES])
def test_a_folder_is_resized_by_its_key(tmp_path: Path, resize: str | None) -> None:
    """Without a key, bicubic; the identity is that of what comes out."""
    wanted = {
        name: by_definition(resize or "bicubic", image, 8) for name, image in pictures().items()
    }
    path = packed(tmp_path / "pictures", "tar", pictures())
    data = load(path, size=8, **({} if resize is None else {"resize": resize}))
    assert data.identity == by_hand(path=wanted)
    assert found(np.concatenate([data.train, data.test])) == found(np.stack([*wanted.values()]))


@pytest.mark.parametrize("resize", RESIZES)
def test_all_files_of_images_are_resized_by_that_key(tmp_path: Path, resize: Any) -> None:
    wanted = found(np.stack([by_definition(resize, each, 8) for each in pictures().values()]))
    path = packed(tmp_path / "pictures", "zip", pictures())
    scene = build(LSUNSpec(path=str(path), size=8, resize=resize)).load()
    assert found(np.concatenate([scene.train, scene.test])) == wanted
    files = [png(image) for image in pictures().values()]
    for split, each in {"train": files[:2], "test": files[2:]}.items():
        write_parquet(tmp_path / "hub" / f"{split}.parquet", each, None)
    hub = build(ParquetSpec(path=str(tmp_path / "hub"), size=8, resize=resize)).load()
    assert found(np.concatenate([hub.train, hub.test])) == wanted


def test_four_ways_are_four_versions(tmp_path: Path) -> None:
    path = packed(tmp_path / "pictures", "tar", pictures())
    identities = {load(path, size=8, resize=resize).identity for resize in RESIZES}
    specs = [FolderSpec(path="x", size=8, resize=resize) for resize in RESIZES]
    assert len(identities) == len({each.digest() for each in specs}) == 4


@pytest.mark.parametrize("resize", RESIZES)
def test_the_edition_says_how_images_were_resized(resize: Any) -> None:
    folder, scene = FolderSpec(path="x", size=8, resize=resize), LSUNSpec(path="x", resize=resize)
    assert folder.edition == scene.edition == resize
    assert folder.title == f"folder ({resize})" and scene.title == f"lsun ({resize})"
    named = FolderSpec(path="x", size=8, resize=resize, called="imagenet32")
    assert named.title == f"imagenet32 ({resize})"
    assert ParquetSpec(path="x", size=8, resize=resize).edition == resize


def test_the_edition_of_images_as_they_are_is_their_version() -> None:
    assert FolderSpec(path="x", size=32, **OORD).edition == "van den Oord 2016"
    assert FolderSpec(path="x", **OORD).title == "imagenet32 (van den Oord 2016)"
    # Nobody knows.
    assert FolderSpec(path="x").edition == "" and FolderSpec(path="x").title == "folder"
    as_they_are = FolderSpec.model_validate({"path": "x", "size": 8, "resize": "none"})
    assert (as_they_are.edition, as_they_are.title) == ("", "folder")
    assert FolderSpec(path="x", size=8).edition == "bicubic"


@pytest.mark.parametrize("resize", ["area", "box", "nearest", ""])
def test_other_ways_are_refused(resize: Any) -> None:
    with pytest.raises(ValueError, match="bicubic.*lanczos.*bilinear.*box-bicubic"):
        FolderSpec(path="x", size=8, resize=resize)


def test_a_folder_around_an_edm_set_keeps_its_labels(tmp_path: Path) -> None:
    images = {f"0000{i % 2}/{i}.png": png(image) for i, image in enumerate(numbered(8).values())}
    labels = json.dumps({"labels": [[name, i % 4] for i, name in enumerate(images)]}).encode()
    flat = write_zip(tmp_path / "flat.zip", {**images, "dataset.json": labels})
    inside = {f"edm/{name}": content for name, content in images.items()}
    around = write_zip(tmp_path / "around.zip", {**inside, "edm/dataset.json": labels})
    assert load(flat).classes == load(around).classes == ("0", "1", "2", "3")
    assert np.array_equal(load(flat).train_labels, load(around).train_labels)
    assert load(flat).identity == load(around).identity


def test_other_labels_in_a_dataset_json_are_another_set(tmp_path: Path) -> None:
    images = {name: png(image) for name, image in numbered(4).items()}
    found = set()
    for labels in ([0, 1, 0, 1], [1, 0, 1, 1]):
        pairs = json.dumps({"labels": list(zip(images, labels, strict=True))}).encode()
        content = {**images, "dataset.json": pairs}
        found.add(load(write_zip(tmp_path / f"{labels[0]}.zip", content)).identity)
    assert len(found) == 2


def test_a_hard_link_in_a_tar_is_an_image(tmp_path: Path) -> None:
    path, _ = six(tmp_path)
    plain = load(path)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("zz.png")
        link.type, link.linkname = tarfile.LNKTYPE, "000.png"
        tar.addfile(link)
    linked = load(path)
    assert len(linked.train) + len(linked.test) == len(plain.train) + len(plain.test) + 1


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused(tmp_path: Path, kind: str) -> None:
    path = packed(tmp_path / "a", kind, numbered(4))
    content = png(next(iter(numbered(1).values())))
    if kind == "zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("000.png", content)
    else:
        with tarfile.open(path, "a") as tar:
            again = tarfile.TarInfo("000.png")
            again.size = len(content)
            tar.addfile(again, io.BytesIO(content))
    assert_refused(path, "holds '000.png' twice")


def test_a_tar_may_be_called_so_in_capitals(tmp_path: Path) -> None:
    path, _ = six(tmp_path)
    assert len(load(path.rename(tmp_path / "SIX.TAR")).train) == 5
