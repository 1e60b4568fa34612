import subprocess
import sys

import pytest
import torch

from diffbench.specs.processes import VPSpec
from diffbench.store import files
from diffbench.store.products import StoreError
from diffbench.store.state import PARTS, StateStore, generations

SPEC = VPSpec()


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {f"{part}.weight": torch.full((3, 2), value) for part in PARTS}


@pytest.fixture
def store(tmp_path):
    return StateStore(tmp_path / "abc", SPEC)


def test_a_new_folder_has_no_state(store):
    assert store.load() is None


def test_the_newest_state_is_loaded_and_two_are_kept(store):
    for step in (9, 10, 11, 1_234_567_890):
        store.save(tensors(float(step)), step)
    loaded = store.load()
    assert loaded is not None
    assert int(loaded["step"]) == 1_234_567_890
    assert torch.equal(loaded["ema.weight"], torch.full((3, 2), 1234567890.0))
    assert [int(path.stem.split("-")[1]) for path in generations(store.folder)] == [
        1_234_567_890,
        11,
    ]


@pytest.mark.parametrize("damage", ["flip", "empty", "half", "last byte"])
def test_a_torn_state_falls_back_to_the_one_before(store, damage):
    store.save(tensors(1.0), 1)
    newest = store.save(tensors(2.0), 2)
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    length = {"flip": len(content), "empty": 0, "half": len(content) // 2}.get(damage, -1)
    newest.write_bytes(content[:length])
    with pytest.warns(UserWarning, match=r"state-000000002.*torn"):
        loaded = store.load()
    assert int(loaded["step"]) == 1
    assert torch.equal(loaded["model.weight"], torch.ones(3, 2))


def test_when_no_state_is_whole_nothing_is_initialised_silently(store):
    for step in (1, 2):
        store.save(tensors(1.0), step)
    for path in generations(store.folder):
        path.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(StoreError, match="remove the folder"):
        store.load()


@pytest.mark.parametrize("part", [*PARTS, "step"])
def test_a_state_that_lacks_a_part_is_refused_by_name(store, part):
    from safetensors.torch import save_file

    content = {**tensors(1.0), "step": torch.tensor(5)}
    lacking = {name: each for name, each in content.items() if name.partition(".")[0] != part}
    path = store.folder / "unnamed.safetensors"
    save_file(lacking, path)
    path.rename(store.folder / f"state-000000005-{files.sha256(path)[:16]}.safetensors")
    with pytest.raises(
        StoreError, match=rf"lacks {part}: remove the folder .* to train from the start"
    ):
        store.load()


@pytest.mark.parametrize("part", PARTS)
def test_a_state_that_lacks_a_part_is_not_saved(store, part):
    lacking = {name: each for name, each in tensors(1.0).items() if not name.startswith(part)}
    with pytest.raises(ValueError, match=part):
        store.save(lacking, 1)
    assert store.load() is None


def test_a_folder_of_another_spec_is_refused_naming_the_key(store):
    with pytest.raises(
        StoreError, match=r"beta_max = 20\.0, and 10\.0 is expected: remove the fol"
    ):
        StateStore(store.folder, VPSpec(beta_max=10))
    (store.folder / "spec.json").write_text("{")
    with pytest.raises(StoreError, match="unreadable"):
        StateStore(store.folder, SPEC)


def test_two_trainers_cannot_share_a_folder(store):
    held = (
        "import sys; from pathlib import Path; from diffbench.specs.processes import VPSpec\n"
        "from diffbench.store.state import StateStore\n"
        "with StateStore(Path(sys.argv[1]), VPSpec()).lock():\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", held, str(store.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="another process"), store.lock():
            pass
    finally:
        other.communicate("")
    with store.lock():
        pass


def test_a_failed_save_keeps_the_old_state_and_leaves_nothing(store, monkeypatch):
    store.save(tensors(1.0), 1)
    before = sorted(store.folder.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "publish", full)
    with pytest.raises(OSError, match="No space"):
        store.save(tensors(2.0), 2)
    assert sorted(store.folder.iterdir()) == before
    assert int(store.load()["step"]) == 1


def test_events_append_over_attempts_and_survive_a_cut_line(store):
    store.event("start", step=0)
    with (store.folder / "events.jsonl").open("a") as file:
        file.write('{"event": "sav')
    StateStore(store.folder, SPEC).event("resume", step=3)
    assert [event["event"] for event in store.events()] == ["start", "resume"]
