"""The contents of image files: what changes them, what does not, and when files are read again."""

import hashlib
import os

import pytest
from archives import write_zip

from diffbench.specs.data import Listing
from diffbench.store import contents as module
from diffbench.store import files
from diffbench.store.contents import contents, forget


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Three files in a folder, and the numbers of files that were read so far."""
    monkeypatch.setenv("DIFFBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_bytes(name.encode())
    return folder


def of(path):
    return contents({"path": path})


@pytest.fixture
def reads(monkeypatch):
    """How often a whole set was read; a look is remembered however young the files are."""
    found, read = [], module.read
    monkeypatch.setattr(module, "read", lambda *given: found.append(1) or read(*given))
    monkeypatch.setattr(module, "TICK", 0)
    return found


def test_they_are_the_hash_of_sorted_names_and_hashes(images):
    lines = [f"path/{name}.png {hashlib.sha256(name.encode()).hexdigest()}" for name in "abc"]
    assert of(images) == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_neither_place_nor_outer_folders_nor_packing_count(images, tmp_path):
    known = of(images)
    around = {f"x/y/{name}.png": name.encode() for name in "cab"}
    assert of(write_zip(tmp_path / "a.zip", around)) == known
    (tmp_path / "outer").mkdir()
    moved = images.rename(tmp_path / "outer" / "moved")
    assert of(moved) == of(tmp_path / "outer" / ".." / "outer") == known


def test_each_change_of_files_changes_them_and_undone_is_as_before(images):
    known = of(images)
    (images / "d.png").write_bytes(b"d")
    (images / "notes.txt").write_text("no image")
    added = of(images)
    (images / "d.png").unlink()
    assert added != known == of(images)
    (images / "a.png").rename(images / "z.png")
    assert of(images) != known
    assert contents({"test_path": images}) != of(images)


def test_a_dataset_json_counts_by_its_classes(images):
    def labelled(text):
        (images / "dataset.json").write_text(text)
        return of(images)

    plain = of(images)
    pairs = '["a.png", 0], ["b.png", 1], ["c.png", %d]'
    one = labelled(f'{{"labels": [{pairs % 0}]}}')
    assert one != plain
    assert (
        labelled(f'{{ "labels":[{pairs % 0}] }}') == one != labelled(f'{{"labels": [{pairs % 1}]}}')
    )


def test_an_overwritten_file_is_noticed_whatever_its_size_and_time(images, reads):
    known, facts = of(images), (images / "a.png").stat()
    assert of(images) == known
    assert len(reads) == 1
    (images / "a.png").write_bytes(b"x")
    os.utime(images / "a.png", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (images / "a.png").stat().st_mtime_ns == facts.st_mtime_ns
    assert of(images) != known
    assert len(reads) == 2


def test_touched_files_are_read_again_to_the_same_contents_and_then_known(images, reads):
    known = of(images)
    os.utime(images / "a.png", (1, 1))
    assert of(images) == of(images) == known
    assert len(reads) == 2


def test_young_files_are_not_remembered(images, monkeypatch, reads):
    monkeypatch.setattr(module, "TICK", 10**18)  # 30 years
    of(images)
    of(images)
    assert len(reads) == 2


def test_what_is_remembered_is_checked_and_can_be_forgotten(images, tmp_path, reads):
    known = of(images)
    (kept,) = (tmp_path / "cache" / "contents").iterdir()
    for damaged in (kept.read_bytes().replace(known[:4].encode(), b"0000"), b"", b"\xff"):
        kept.write_bytes(damaged)
        assert of(images) == known
    assert len(reads) == 4
    forget({"path": images})
    assert of(images) == known
    assert len(reads) == 5


def test_a_file_that_cannot_be_read_is_left_to_the_data_stage(images):
    known = of(images)
    (images / "a.png").unlink()
    os.mkfifo(images / "a.png")
    assert of(images) not in (known, None)


LARGE = Listing(("data.mdb", "**/val*.npz"))


def test_large_files_are_read_whole_and_the_rest_beside_them_not_at_all(tmp_path, images):
    (images / "data.mdb").write_bytes(b"all")
    (images / "lock.mdb").write_bytes(b"lock")
    digest = hashlib.sha256(b"all").hexdigest()
    known = hashlib.sha256(f"path/data.mdb {digest}".encode()).hexdigest()
    assert contents({"path": images}, LARGE) == known
    (images / "a.png").unlink()
    (images / "lock.mdb").unlink()
    assert contents({"path": images}, LARGE) == known
    assert contents({"path": images / "data.mdb"}, LARGE) == known
    (images / "data.mdb").write_bytes(b"ALL")
    assert contents({"path": images}, LARGE) != known
    # Without such a file the images are picture files.
    (images / "data.mdb").unlink()
    assert contents({"path": images}, LARGE) == of(images)


def test_a_pipe_or_a_device_is_refused_and_never_read(images):
    (images / "deep").mkdir()
    (images / "deep" / "val_data.npz").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="deep/val_data.npz is not a regular file"):
        contents({"path": images}, LARGE)
    os.mkfifo(images / "a.npz")
    with pytest.raises(ValueError, match="a.npz is not a regular file"):
        contents({"path": images / "a.npz"}, LARGE)


def test_the_hash_of_one_file_is_remembered_until_it_is_overwritten(images, monkeypatch):
    read, found, file = files.sha256, [], images / "a.png"
    monkeypatch.setattr(
        files, "sha256", lambda path: path == file and found.append(path) or read(path)
    )
    monkeypatch.setattr(module, "TICK", 0)
    facts = file.stat()
    for _ in range(2):
        assert module.sha256(file) == hashlib.sha256(b"a").hexdigest()
    assert len(found) == 1
    file.write_bytes(b"x")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert module.sha256(file) == hashlib.sha256(b"x").hexdigest()
    assert len(found) == 2
