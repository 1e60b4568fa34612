"""What lies in a folder that others can write to is not trusted: locks of GPUs, sockets."""

import os
import socket
import stat

import pytest

from diffbench.server import client
from diffbench.store import runtime
from diffbench.training import gpus


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files, which everybody can write to, and no runtime folder of a login."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(runtime.tempfile, "tempdir", str(folder))
    monkeypatch.setenv(runtime.VARIABLE, str(tmp_path / "none"))
    monkeypatch.delenv(gpus.FOLDER, raising=False)
    own = runtime.is_private
    # This machine may have the folder of a login.
    monkeypatch.setattr(
        runtime, "is_private", lambda path: not str(path).startswith("/run/") and own(path)
    )
    yield folder
    for file in gpus._held:
        os.close(file)
    gpus._held.clear()


def test_the_locks_of_gpus_lie_in_a_folder_of_this_user_alone(temporary):
    gpus.claim(["GPU-a"])
    for folder in (gpus.folder(), gpus.folder().parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert gpus.folder().is_relative_to(temporary)


@pytest.mark.parametrize("trap", ["open", "link", "file"])
def test_a_folder_that_somebody_else_may_have_made_is_refused(temporary, tmp_path, trap):
    path = temporary / f"diffbench-{os.getuid()}"
    if trap == "open":
        path.mkdir()
        path.chmod(0o777)
    elif trap == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.touch()
    with pytest.raises(runtime.RuntimeFolderError, match="mode 0700") as refused:
        gpus.claim(["GPU-a"])
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "elsewhere").exists() or not any((tmp_path / "elsewhere").iterdir())


def test_the_folder_of_a_login_is_used_only_where_it_is_private(temporary, tmp_path, monkeypatch):
    own = tmp_path / "login"
    own.mkdir(mode=0o700)
    monkeypatch.setenv(runtime.VARIABLE, str(own))
    assert runtime.folder() == own / "diffbench"
    own.chmod(0o755)
    assert runtime.folder().parent == temporary


def test_a_lock_is_never_a_link_and_nothing_is_emptied(tmp_path, monkeypatch):
    victim = tmp_path / "thesis.tex"
    victim.write_text("years of work")
    locks = tmp_path / "locks"
    locks.mkdir()
    (locks / "GPU-a.lock").symlink_to(victim)
    monkeypatch.setenv(gpus.FOLDER, str(locks))
    with pytest.raises(OSError, match="GPU-a"):
        gpus.claim(["GPU-a"])
    (locks / "GPU-a.lock").unlink()
    (locks / "GPU-a.lock").write_text("some words")
    assert gpus._attempt(["GPU-a"], 1) == [0]
    os.close(gpus._held.pop())
    assert (locks / "GPU-a.lock").read_text() == "some words"
    assert victim.read_text() == "years of work"


def test_a_client_knows_whose_server_it_talks_to():
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert client.owner(ours) == os.getuid()
