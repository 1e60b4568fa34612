"""One real run of the tiny benchmark, shared by all tests of whole runs."""

import shutil
from pathlib import Path

import pytest
import torch
from commands import bench, said, write_config


@pytest.fixture
def one_thread():
    """As many threads as jobs have: sums over threads change the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def first(tmp_path_factory):
    """The run of the tiny benchmark on two cores: its folder, whose name has a space, and output.

    Nothing may be changed in the folder: `made` is a copy.
    """
    folder = tmp_path_factory.mktemp("a bé")
    write_config(folder)
    done = bench("-c2", cwd=folder)
    assert done.returncode == 0, said(done)
    return folder, said(done)


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
