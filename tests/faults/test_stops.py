"""A request to stop is heeded once, or noted where a block can stop later, and what is drawn is kept."""

import os
import signal
import stat

import numpy as np
import pytest
from commands import plan_of, write_config
from safetensors.torch import save_file
from test_state import tensors

from diffbench.jobs import sample
from diffbench.specs.errors import Stopped
from diffbench.specs.processes import VPSpec
from diffbench.store import files, paths, stopping
from diffbench.store.chunks import Chunk, ChunkStore
from diffbench.store.state import StateStore


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of signals are put back."""
    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


def test_a_request_ends_what_is_done_and_another_does_not_disturb_the_end():
    stopping.heed()
    with pytest.raises(Stopped) as stopped:
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGTERM)
            send(signal.SIGUSR1)
    assert (stopped.value.code, stopped.value.number) == (85, signal.SIGTERM)


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    stopping.heed()
    send(signal.SIGUSR1)
    assert stopping.asked() is None


def test_a_block_may_note_requests_and_a_second_ctrl_c_ends_it(monkeypatch):
    monkeypatch.setattr(stopping, "ONE_REQUEST", 0.0)
    with stopping.noted():
        assert stopping.asked() is None
        send(signal.SIGINT)
        assert stopping.asked() == signal.SIGINT
        send(signal.SIGTERM)
        with pytest.raises(Stopped):
            send(signal.SIGINT)


def test_samples_that_are_drawn_are_kept_when_the_job_is_stopped(tmp_path, monkeypatch):
    write_config(tmp_path, {"samples": 40, "chunk": 8})
    spec = plan_of(tmp_path).job("sample", "edm", 0, "heun-3").spec

    def drawing(*_):
        def one(index):
            if index == 3:
                raise Stopped(signal.SIGUSR1)
            return Chunk(images_of(index), 5, 0.0)

        return one

    monkeypatch.setattr(sample, "drawing", drawing)
    kept = ChunkStore(tmp_path / paths.state(tmp_path, spec))
    with pytest.raises(Stopped, match="85") as stopped:
        sample.draw(spec, tmp_path, None, None, range(5), {}, kept)
    assert "stopped after 24 of 40 images, which are kept" in stopped.value.line
    assert sorted(kept.load(range(5))) == [0, 1, 2]


def images_of(index):
    """Eight images of one level."""
    return np.full((8, 2, 2, 1), index, dtype=np.uint8)


@pytest.mark.parametrize(("early", "step"), [(True, 1), (False, 2)])
def test_a_request_in_the_write_of_a_state_leaves_a_whole_one(tmp_path, monkeypatch, early, step):
    """Before the file has its name the older state is the newest; after, the new one is."""
    store = StateStore(tmp_path / "state", VPSpec())
    store.save(tensors(1.0), 1)
    rename = os.replace

    def replace(*paths):
        if early:
            send(signal.SIGTERM)
        rename(*paths)
        send(signal.SIGTERM)

    stopping.heed()
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Stopped):
        store.save(tensors(2.0), 2)
    loaded = store.load()
    assert int(loaded["step"]) == loaded["ema.weight"][0, 0] == step
    assert not list(tmp_path.rglob(f"{files.TEMPORARY}*"))


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_files_have_the_mode_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        files.write(tmp_path / "a.safetensors", lambda path: save_file(tensors(1.0), path))
        files.write(tmp_path / "a.json", b"{}")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~mask}
