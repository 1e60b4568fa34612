"""Downsampled ImageNet's batches."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from archives import Runs, random_images

from diffbench.data import imagenet
from diffbench.specs.data import DataSpec, ImageNetSpec
from diffbench.specs.registry import build

IMAGES = random_images(0, 11)
LABELS = np.array([1, 1000, *range(2, 11)])


def rows(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def write(path: Path, images, labels, **more) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, data=rows(images), labels=labels, mean=np.zeros(3072), **more)
    return path


@pytest.fixture
def batches(tmp_path):
    """Two training batches and a validation one, in the folders that the archives unpack to."""
    write(tmp_path / "train" / "train_data_batch_1.npz", IMAGES[:5], LABELS[:5])
    write(tmp_path / "train" / "train_data_batch_2.npz", IMAGES[5:9], LABELS[5:9])
    write(tmp_path / "val_data.npz", IMAGES[9:], LABELS[9:])
    return tmp_path


def load(path, **options):
    chosen = {"name": "imagenet", "path": str(path), "size": 32, "batches": 2}
    return build(DataSpec.choose(chosen | options)).load()


@pytest.mark.parametrize("chunk", [1, 2 * 3072, imagenet.CHUNK])
def test_batches_are_read_in_their_order_whatever_the_chunk(batches, monkeypatch, chunk):
    monkeypatch.setattr(imagenet, "CHUNK", chunk)
    data = load(batches)
    assert np.array_equal(data.train, IMAGES[:9]) and np.array_equal(data.test, IMAGES[9:])
    assert [*data.train_labels, *data.test_labels] == (LABELS - 1).tolist()
    assert len(data.classes) == 1000 and data.name == "imagenet32"
    assert data.train.flags.c_contiguous and data.train_labels.dtype == np.int64


def test_what_a_plan_knows():
    spec = ImageNetSpec(path="x", size="64")
    assert (spec.known_shape, spec.known_classes, spec.batches) == ((3, 64, 64), 1000, 10)
    assert spec.title == "imagenet64 (Chrabaszcz 2017)"
    for size in (16, 33):
        with pytest.raises(ValueError, match="size"):
            ImageNetSpec(path="x", size=size)


@pytest.mark.parametrize("name", ["train/train_data_batch_2.npz", "val_data.npz"])
def test_a_missing_batch_is_named_with_where_it_comes_from(batches, name):
    (batches / name).unlink()
    with pytest.raises(ValueError) as error:
        load(batches)
    message = str(error.value)
    for part in (
        Path(name).name,
        "image-net.org",
        "Imagenet32_val_npz.zip",
        "013990e6",
        "data.path",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
@pytest.mark.parametrize("name", ["train/train_data_batch_1.npz", "val_data.npz"])
def test_a_torn_batch_is_one_line(batches, name, kept):
    content = (batches / name).read_bytes()
    (batches / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="is not a complete npz file") as error:
        load(batches)
    assert "\n" not in str(error.value)


def test_a_flipped_bit_is_found(batches):
    path = batches / "train" / "train_data_batch_1.npz"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a complete npz file .*CRC"):
        load(batches)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whatever_is_damaged_in_a_header_is_named(batches):
    path = batches / "train" / "train_data_batch_1.npz"
    content, rng = path.read_bytes(), np.random.RandomState(0)
    start = content.index(b"\x93NUMPY")
    assert b"3072)" in content[start : start + 128]
    for _ in range(300):
        damaged = bytearray(content)
        damaged[start + rng.randint(128)] ^= rng.randint(1, 256)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="train_data_batch_1") as error:
            load(batches)
        assert "\n" not in str(error.value)


def test_a_pickled_array_is_refused_and_nothing_runs(batches, tmp_path):
    bomb = np.array([Runs(tmp_path / "made")] * 2, dtype=object)
    np.savez(batches / "val_data.npz", data=rows(IMAGES[9:]), labels=bomb)
    with pytest.raises(ValueError, match="`labels` must be an array of numbers"):
        load(batches)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": rows(IMAGES)[:2, :1024], "labels": [1, 2]}, "1024 values, and must have 3072"),
        ({"data": rows(IMAGES)[:2].astype(float), "labels": [1, 2]}, "an array of bytes"),
        ({"data": IMAGES[:2], "labels": [1, 2]}, "an array of bytes"),
        ({"data": np.asfortranarray(rows(IMAGES)[:2]), "labels": [1, 2]}, "row by row"),
        ({"data": rows(IMAGES)[:2], "labels": [0, 1]}, "from 1 to 1000"),
        ({"data": rows(IMAGES)[:2], "labels": [1, 1001]}, "from 1 to 1000"),
        ({"data": rows(IMAGES)[:2], "labels": [1]}, "2 whole numbers"),
        ({"data": rows(IMAGES)[:2], "labels": [1.0, 2.0]}, "2 whole numbers"),
        ({"data": rows(IMAGES)[:2]}, "has no `labels`"),
        ({"labels": [1]}, "has no `data`"),
    ],
)
def test_a_wrong_batch_is_named(batches, arrays, message):
    np.savez(batches / "val_data.npz", **arrays)
    with pytest.raises(ValueError, match=f"val_data.npz.* {message}|val_data.npz: .*{message}"):
        load(batches)


READ = """
import resource, sys
from diffbench.specs.registry import build
from diffbench.specs.data import ImageNetSpec
spec = ImageNetSpec(path=sys.argv[1], size=64, batches=2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = build(spec).load()
print(data.train.nbytes, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kB on Linux alone")
def test_a_large_set_is_in_memory_once(tmp_path):
    assert resource
    images = np.zeros((12000, 64, 64, 3), np.uint8)
    for name in ("train_data_batch_1", "train_data_batch_2"):
        np.savez(
            tmp_path / f"{name}.npz", data=images.reshape(12000, -1), labels=np.ones(12000, int)
        )
    write(tmp_path / "val_data.npz", images[:2], [1, 2])
    found = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=True
    )
    size, peak = map(int, found.stdout.split())
    assert size == 24000 * 12288
    # The arrays, three chunks (read, joined, transposed) and what importing NumPy's parts takes; two copies are 590 MB.
    assert peak < size + 3 * imagenet.CHUNK + 60e6
