"""Records that are damaged are known to be, and never stop a job."""

import json

import pytest

from diffbench.specs.processes import VPSpec
from diffbench.store import paths, products, run_record, seals, status
from diffbench.store.products import StoreError
from diffbench.store.state import EVENTS, StateStore

RECORD = {"seconds": 12.5e-7, "host": "é", "notes": {"steps": 4}}


def flips(content):
    """All texts that differ from one in a single bit."""
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_no_flipped_bit_changes_what_a_record_says():
    content = json.dumps(seals.sealed(RECORD, "some")).encode()
    assert seals.opened(content, "some") == RECORD
    with pytest.raises(ValueError, match="checksum"):
        seals.opened(content, "other")
    refused = 0
    for changed in flips(content):
        try:
            found = seals.opened(changed, "some")
        except ValueError:
            refused += 1
        else:
            # A flip in the name of the seal leaves a key more, and one in a letter of an exponent nothing.
            assert {name: found.get(name) for name in RECORD} == RECORD
    assert refused > 0.9 * 8 * len(content)


def test_a_training_goes_on_whatever_became_of_its_events(tmp_path):
    store = StateStore(tmp_path / "abc", VPSpec())
    for step in (1, 2):
        store.event("saved", step=step, seconds=1.5 * step)
    content, known = (store.folder / EVENTS).read_bytes(), store.events()
    for changed in flips(content):
        (store.folder / EVENTS).write_bytes(changed)
        found = [{name: each.get(name) for name in known[0]} for each in store.events()]
        assert all(each in known for each in found)
    for changed in (b"", b"\xff\n[1]\n{}\n", b"[" * 100_000, content[:-9]):
        (store.folder / EVENTS).write_bytes(changed)
        store.event("resume")
        assert store.events()[-1]["event"] == "resume"


@pytest.fixture
def made(tmp_path):
    """A product and its run record."""
    path = tmp_path / "scores.json"
    with run_record.RunRecord(path):
        products.write_product(path, b"{}", VPSpec())
    return path


def test_a_run_record_is_of_its_product(made, tmp_path):
    assert run_record.read(made)["processor"]
    other = tmp_path / "other.json"
    with run_record.RunRecord(other):
        products.write_product(other, b"[]", VPSpec())
    paths.run_record(made).write_bytes(paths.run_record(other).read_bytes())
    with pytest.raises(StoreError, match="not the record of scores.json"):
        run_record.read(made)
    paths.run_record(made).write_bytes(b"[")
    with pytest.raises(StoreError, match="damaged"):
        run_record.read(made)
    assert run_record.known(made) == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"[" * 100_000, b'{"spec": []}', b"\xff", b'{"sha256": "x"}'],
    ids=["empty", "a list", "deep", "an empty spec", "not UTF-8", "another checksum"],
)
def test_a_sidecar_of_anything_is_one_line(made, content):
    paths.sidecar(made).write_bytes(content)
    assert products.status_of(made, VPSpec()) == "corrupt"
    with pytest.raises(StoreError, match="is not a whole sidecar"):
        products.read_product(made)


def test_a_sidecar_that_says_the_same_in_other_letters_was_altered(made):
    sidecar = paths.sidecar(made)
    for old, new in ((b"\n", b""), (b'"beta_min": 0.1', b'"beta_min": 1e-1')):
        before = sidecar.read_bytes()
        assert old in before
        sidecar.write_bytes(before.replace(old, new))
        assert products.status_of(made, VPSpec()) == "corrupt"
        sidecar.write_bytes(before)
    assert products.status_of(made, VPSpec()) == "ok"


def test_a_damaged_reason_is_a_reason(tmp_path):
    status.record_failure(tmp_path / "abc", "train", "the loss is nan")
    path = tmp_path / "abc" / status.NAME
    path.write_bytes(path.read_bytes().replace(b"nan", b"man"))
    assert "status.json is damaged" in status.quoted(status.read_status(tmp_path / "abc"))
