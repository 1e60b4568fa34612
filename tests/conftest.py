"""One real run of the tiny benchmark, shared by all tests of whole runs; how tests are spread over processes."""

import os
import re
import shutil
import signal
from functools import cache
from pathlib import Path

import pytest
import torch
from commands import bench, said, write_config
from filelock import FileLock
from threadpoolctl import threadpool_limits

from diffbench.data.datasets import Dataset, Digits
from diffbench.specs.data import DigitsSpec

WORKER = "PYTEST_XDIST_WORKER"
#: A fixture that several tests of a module share, and its name.
SHARED = re.compile(r"^@pytest\.fixture\(.*scope=.*\)\ndef (\w+)", re.MULTILINE)
if WORKER in os.environ:
    # As many processes as cores: a thread each, in what they start and here, where numpy's BLAS has counted the cores
    # already. Threads that are more than the cores wait for each other, and use the time of both.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    threadpool_limits(1)
    torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background so, and commands that the tests start would ignore Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """As many processes as cores that this one may use; each takes half a gigabyte for torch."""
    allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return min(len(allowed(0)), 8)


def pytest_addoption(parser):
    parser.addoption("--faults", action="store_true", help="run the tests that take minutes too")


@cache
def shared_fixtures(module: Path) -> frozenset[str]:
    """The names of a module's fixtures that its tests share."""
    return frozenset(SHARED.findall(module.read_text()))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Tests that share what their module makes once go to one process; slow ones come first, long ones if asked for."""
    if not config.getoption("--faults"):
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    for item in items:
        if not shared_fixtures(item.path).isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish(session):
    """pytest-xdist writes a test's group behind its name; of a pytest that it does not know it groups nothing."""
    if WORKER in os.environ and session.config.getoption("loadgroup"):
        grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
        if any("@" not in item.nodeid for item in grouped):
            raise pytest.UsageError(
                "this pytest-xdist does not group the tests of this pytest: see constraints.txt"
            )


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk():
    """Files that tests write in this process are not forced to the disk; those of jobs are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def one_thread():
    """As many threads as jobs have: sums over threads change the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """scikit-learn's digits, which no test may change."""
    return Digits(DigitsSpec()).load()


@pytest.fixture(scope="session")
def first(tmp_path_factory):
    """The run of the tiny benchmark on two cores: its folder, whose name has a space, and output.

    All processes share it, and the first that asks makes it. Nothing may be changed in the folder: `made` is a copy.
    """
    shared = tmp_path_factory.getbasetemp()
    if WORKER in os.environ:
        shared = shared.parent
    folder, output = shared / "a bé", shared / "output"
    with FileLock(shared / "lock"):
        if not output.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            write_config(folder)
            done = bench("-c2", cwd=folder)
            assert done.returncode == 0, said(done)
            output.write_text(said(done))
    return folder, output.read_text()


@pytest.fixture
def made(first, tmp_path) -> Path:
    """A working directory of its own in which the tiny benchmark has been run."""
    return Path(shutil.copytree(first[0], tmp_path / "copy"))


@pytest.fixture
def prepared(first, tmp_path) -> Path:
    """A working directory with the tiny benchmark's data set, and nothing made of it yet."""
    folder = tmp_path / "prepared"
    shutil.copytree(first[0] / "results" / "tiny" / "data", folder / "results" / "tiny" / "data")
    write_config(folder)
    return folder
