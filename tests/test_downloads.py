import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from diffbench.store.downloads import PublishedFile, cache
from diffbench.store.products import StoreError

CONTENT = bytes(range(256)) * 8192  # 2 MiB: more than one read
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(200 if self.path != "/missing.bin" else 404)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        sent = {"/cut.bin": CONTENT[:-100], "/other.bin": CONTENT[::-1]}
        if self.path != "/missing.bin":
            self.wfile.write(sent.get(self.path, CONTENT))

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def published(server, name="whole.bin", size=2**21):
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    return PublishedFile("the weights", url, DIGEST, size, "extractor.weights")


def visible(folder):
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]


def refused(file, path=None):
    """One line that says what is wanted, from where, its sha256, its size and the key."""
    with pytest.raises(StoreError) as caught:
        file.local(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("the weights: ")
    for part in (file.url, file.sha256, "2,097,152 bytes", "`extractor.weights`"):
        assert part in text
    return text


def test_a_file_is_downloaded_once_and_checked_every_time(server, folder):
    file = published(server)
    path = file.local()
    assert path.read_bytes() == CONTENT
    assert path.parent == folder
    assert path.name.endswith("whole.bin")
    assert file.local() == path
    assert server.asked == ["/whole.bin"]
    path.write_bytes(CONTENT[:-1] + b"x")
    assert re.search(r"has sha256 [0-9a-f]{64}", refused(file))


def test_who_wants_it_at_the_same_time_waits_for_the_first(server):
    file = published(server)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: file.local(), range(4)))
    assert len(set(found)) == 1
    assert server.asked == ["/whole.bin"]


def test_a_given_path_is_checked_and_used_where_it_is(server, folder, tmp_path):
    mine = tmp_path / "mine.bin"
    mine.write_bytes(CONTENT)
    assert published(server).local(mine) == mine
    assert not folder.exists()
    assert not server.asked


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no file"),
        (CONTENT[:-1], "has 2,097,151 bytes"),
        (CONTENT[::-1], f"has sha256 {hashlib.sha256(CONTENT[::-1]).hexdigest()}"),
    ],
)
def test_a_given_path_that_is_not_the_file_is_refused(server, tmp_path, content, reason):
    mine = tmp_path / "mine.bin"
    if content is not None:
        mine.write_bytes(content)
    text = refused(published(server), mine)
    assert reason in text
    assert str(mine) in text
    assert not server.asked


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut.bin", "what was downloaded has 2,097,052 bytes"),
        ("other.bin", "what was downloaded has sha256"),
        ("missing.bin", "404"),
    ],
)
def test_a_bad_download_leaves_nothing(server, folder, name, reason):
    assert reason in refused(published(server, name))
    assert visible(folder) == []


def test_a_cut_download_of_unknown_size_is_found_by_its_checksum(server, folder):
    with pytest.raises(StoreError, match="what was downloaded has sha256"):
        published(server, "cut.bin", size=None).local()
    assert visible(folder) == []


def test_without_network_it_says_what_is_missing(server, folder):
    file = published(server)
    server.server_close()
    server.shutdown()
    assert "it cannot be downloaded" in refused(file)
    assert visible(folder) == []


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIFFBENCH_CACHE", str(tmp_path / "file" / "cache"))
    assert str(tmp_path / "file" / "cache") in refused(published(server))


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert cache() == tmp_path / "cache"
    monkeypatch.delenv("DIFFBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache() == tmp_path / "xdg" / "diffbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache() == tmp_path / ".cache" / "diffbench"


def test_a_file_that_nobody_offers_has_to_be_given(tmp_path):
    file = PublishedFile("the weights", None, DIGEST, None, "extractor.weights")
    with pytest.raises(
        StoreError, match=f"it is not in the cache; expected: a file .sha256 {DIGEST}"
    ):
        file.local()
    (tmp_path / "mine.bin").write_bytes(CONTENT)
    assert file.local(tmp_path / "mine.bin") == tmp_path / "mine.bin"
