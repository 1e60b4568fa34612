"""CIFAR-10's archive: what is read of it, and what each damage says."""

import pickle
import tarfile

import numpy as np
import pytest
from archives import NAMES, ROOT, Runs, cifar_members, random_images, sha256, write_tar

from diffbench.data import cifar
from diffbench.data.datasets import manifest
from diffbench.specs.data import CIFAR10Spec, DataSpec
from diffbench.specs.registry import build
from diffbench.store.products import StoreError


def load(path, **options):
    chosen = {"name": "cifar10", "archive": str(path), "sha256": sha256(path)}
    return build(DataSpec.choose(chosen | options)).load()


def archive(tmp_path, **replaced):
    members, _ = cifar_members(**replaced)
    return write_tar(tmp_path / "cifar.tar.gz", members)


def test_batches_are_the_splits_in_their_order(tmp_path):
    members, images = cifar_members(per_batch=4)
    # Any order in the archive, and what nobody asked for beside it.
    path = write_tar(
        tmp_path / "c.tar.gz", {f"{ROOT}/readme.html": b"", **dict([*members.items()][::-1])}
    )
    data = load(path)
    assert np.array_equal(data.train, images[:20]) and np.array_equal(data.test, images[20:])
    assert data.train_labels.tolist() == [i % 10 for i in range(20)]
    assert data.test_labels.tolist() == [0, 1, 2, 3]
    assert data.classes == tuple(NAMES) and data.levels == 256 and data.name == "cifar10"
    assert data.train.dtype == np.uint8 and data.train.flags.c_contiguous
    spec = CIFAR10Spec()
    assert spec.known_shape == (*data.shape[2:], *data.shape[:2]) and spec.known_classes == 10


def test_the_manifest_says_what_was_read(tmp_path):
    facts = manifest(load(archive(tmp_path)))
    assert facts["counts"] == {"train": 20, "test": 4} and facts["shape"] == [32, 32, 3]
    assert facts["range"] == {"train": [0, 255], "test": [0, 255]}
    _, images = cifar_members()
    import hashlib

    assert facts["sha256"]["train"] == hashlib.sha256(images[:20].tobytes()).hexdigest()


def test_another_checksum_is_refused(tmp_path):
    path = archive(tmp_path)
    with pytest.raises(StoreError, match=r"sha256 .*6d958be0.*data\.archive"):
        load(path, sha256=CIFAR10Spec().sha256)


def test_a_missing_archive_without_network_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar, "URL", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(StoreError) as error:
        build(CIFAR10Spec()).load()
    message = str(error.value)
    for part in ("CIFAR-10", cifar.URL, CIFAR10Spec().sha256, "data.archive"):
        assert part in message
    assert "\n" not in message
    assert not [file for file in (tmp_path / "cache").rglob("*.gz*") if file.stat().st_size]


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_torn_archive_is_one_line(tmp_path, kept):
    path = archive(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="not a complete gzipped tar archive") as error:
        load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", f"{ROOT}/../../escaped"])
def test_a_path_that_escapes_is_refused(tmp_path, name):
    members, _ = cifar_members()
    path = write_tar(tmp_path / "c.tar.gz", {**members, name: b"x"})
    with pytest.raises(ValueError, match="leads out of its folder"):
        load(path)


def test_a_link_in_place_of_a_batch_is_not_followed(tmp_path):
    members, _ = cifar_members()
    del members[f"{ROOT}/test_batch"]
    path = write_tar(tmp_path / "c.tar", members)
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar, tarfile.open(path) as old:
        for member in old:
            tar.addfile(member, old.extractfile(member))
        link = tarfile.TarInfo(f"{ROOT}/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, "data_batch_1"
        tar.addfile(link)
    with pytest.raises(ValueError, match="has no cifar-10-batches-py/test_batch"):
        load(tmp_path / "c.tar.gz")


@pytest.mark.parametrize("member", ["batches.meta", "data_batch_3", "test_batch"])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, member):
    bomb = pickle.dumps({"data": Runs(tmp_path / "made")}, 2)
    with pytest.raises(ValueError, match=f"{member} is refused: it names .*mkdir"):
        load(archive(tmp_path, **{member: bomb}))
    assert not (tmp_path / "made").exists()


def batch(data, labels):
    return pickle.dumps({"data": data, "labels": labels}, 2)


ROWS = random_images(0, 4).reshape(4, -1)
WRONG = [
    (batch(ROWS[:, :1024], [0] * 4), "1024 values, and must have 3072 .32x32 RGB"),
    (batch(ROWS.astype(np.int64), [0] * 4), "`data` must be an array of bytes"),
    (batch(ROWS.reshape(4, 3, -1), [0] * 4), "`data` must be an array of bytes"),
    (batch(None, [0] * 4), "`data` must be an array of bytes"),
    (batch(ROWS, [0, 1, 2, 10]), "`labels` must be a list of numbers from 0 to 9"),
    (batch(ROWS, [0, 1, 2, True]), "`labels` must be a list of numbers from 0 to 9"),
    (batch(ROWS, [0, 1, 2]), "4 images, but 3 labels"),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=lambda each: str(each)[:20])
def test_a_wrong_batch_is_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"data_batch_2.*{message}"):
        load(archive(tmp_path, data_batch_2=content))


def test_a_checksum_must_look_like_one():
    with pytest.raises(ValueError, match="sha256"):
        CIFAR10Spec(sha256="abc")
