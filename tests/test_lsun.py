"""LSUN from a folder, a zip or an LMDB."""

import sys

import numpy as np
import pytest
from archives import png, random_images, write_zip
from PIL import Image

from diffbench.specs.data import DataSpec, LSUNSpec
from diffbench.specs.registry import build

COUNT = 10


def load(path, **options):
    return build(LSUNSpec(path=str(path), **{"size": 8, **options})).load()


def blocks(value: int, width: int = 40, height: int = 24) -> np.ndarray:
    """A flat square in the centre, noise left and right of it, where a crop cuts it off."""
    image = random_images(value, 1, 64)[0][:height, :width].copy()
    left = (width - height) // 2
    image[:, left : left + height] = value
    return image


def write_folder(path, kind="PNG", suffix="png", count=COUNT):
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (path / f"{i:02}.{suffix}").write_bytes(png(blocks(10 * i), kind))
    return path


def write_lmdb(path, contents):
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed: make test")
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as one:
        for i, content in enumerate(contents):
            one.put(f"{i:040}".encode(), content)
    return path


def flat(images) -> list[int]:
    """The one value of each image."""
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


def test_a_folder_is_cropped_to_the_centre_and_split(tmp_path):
    data = load(write_folder(tmp_path), test_fraction=0.3)
    assert data.train.shape == (7, 8, 8, 3) and data.test.shape == (3, 8, 8, 3)
    assert sorted([*flat(data.train), *flat(data.test)]) == [10 * i for i in range(COUNT)]
    assert data.classes == ("all",) and not data.train_labels.any()


def test_another_seed_is_another_split(tmp_path):
    write_folder(tmp_path)
    splits = [flat(load(tmp_path, test_fraction=0.3, seed=seed).test) for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


def test_resizing_is_antialiased(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None].repeat(3, 2)
    for i in range(2):
        Image.fromarray(stripes).save(tmp_path / f"{i}.png")
    inside = load(tmp_path).train[:, 2:-2, 2:-2].astype(int)
    # The mean is 127.5; a filter without antialiasing picks 0 or 255.
    assert np.abs(inside - 127.5).max() < 4


def test_images_in_nested_folders_or_a_zip_are_all_read(tmp_path):
    members = {f"a/{i % 3}/{i}.png": png(blocks(10 * i)) for i in range(COUNT)}
    data = load(write_zip(tmp_path / "a.zip", members))
    assert len(data.train) + len(data.test) == COUNT and data.classes == ("all",)


def test_the_file_of_an_lmdb_can_be_named_itself(tmp_path):
    path = write_lmdb(tmp_path / "lmdb", [png(blocks(10 * i)) for i in range(COUNT)])
    assert len(load(path / "data.mdb").train) == COUNT - 1


def test_an_lmdb_is_read_in_the_order_of_its_keys(tmp_path):
    train = write_lmdb(tmp_path / "train_lmdb", [png(blocks(10 * i)) for i in range(COUNT)])
    test = write_lmdb(tmp_path / "val_lmdb", [png(blocks(255 - i)) for i in range(3)])
    data = load(train, test_path=str(test))
    assert flat(data.train) == [10 * i for i in range(COUNT)] and flat(data.test) == [255, 254, 253]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_what_an_lmdb_holds_is_the_original(tmp_path, kind):
    path = write_lmdb(tmp_path / "lmdb", [png(blocks(10 * i), kind) for i in range(COUNT)])
    data = load(path)
    assert len(data.train) == COUNT - 1 and LSUNSpec(path=str(path)).known_as == "lsun"
    assert data.train.shape == (COUNT - 1, 8, 8, 3)


def test_jpegs_in_a_folder_are_copies_and_webps_are_not(tmp_path):
    load(write_folder(tmp_path / "webp", "WEBP", "webp"))
    write_folder(tmp_path / "jpeg", "JPEG", "jpg")
    with pytest.raises(ValueError, match=r"00\.jpg is JPEG.*lossy: true"):
        load(tmp_path / "jpeg")
    assert len(load(tmp_path / "jpeg", lossy=True).train) == COUNT - 1
    assert LSUNSpec(path="x", lossy=True).title == "lsun (lossy) (bicubic)"


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "data.mdb").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    wanted = (
        r"LSUN's LMDB needs the package lmdb: `pip install 'diffbench\[lsun\]'`, or name a folder"
    )
    with pytest.raises(ValueError, match=wanted):
        load(tmp_path)


@pytest.mark.parametrize("kept", [0, 100, 5000, 10000, 0.5, 0.99])
def test_a_torn_lmdb_is_one_line(tmp_path, kept):
    path = write_lmdb(tmp_path / "lmdb", [png(blocks(10 * i)) for i in range(COUNT)])
    content = (path / "data.mdb").read_bytes()
    length = int(kept * len(content)) if kept < 1 else kept
    (path / "data.mdb").write_bytes(content[:length])
    with pytest.raises(ValueError, match="lmdb (is not a complete LMDB|holds no images)") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_wrong_images_are_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "03.png").write_bytes(png(random_images(0, 1, 8, 1)[0]))
    with pytest.raises(ValueError, match=r"03\.png is grey .*must be RGB"):
        load(tmp_path)
    (tmp_path / "03.png").write_bytes(png(blocks(0))[:70])
    with pytest.raises(ValueError, match=r"03\.png is not a complete image"):
        load(tmp_path)


def test_an_empty_folder_is_refused_with_where_lsun_is(tmp_path):
    with pytest.raises(ValueError, match="holds no images; expected: .*dl.yf.io/lsun"):
        load(tmp_path)


def test_what_a_plan_knows():
    spec = DataSpec.choose({"name": "lsun", "path": "a", "test_path": "b"})
    assert spec.known_shape == (3, 256, 256) and spec.known_classes == 1
    assert spec.paths == {"path": "a", "test_path": "b"}
