"""Arrays mapped from an npz file are those that were saved, and take no memory until they are used."""

import subprocess
import sys

import numpy as np
import pytest

from diffbench.store import mapped


@pytest.fixture
def arrays():
    rng = np.random.RandomState(0)
    return {
        "images": rng.randint(0, 256, (7, 5, 3, 3), np.uint8),
        "fortran": np.asfortranarray(rng.randint(0, 256, (4, 6), np.uint8)),
        "empty": np.zeros((0, 3), np.uint8),
        "labels": rng.randint(0, 10, 7),
        "a name long enough to move what follows": np.arange(3, dtype=np.int8),
        "text": np.array('{"classes": ["a"]}'),
    }


def test_arrays_are_those_that_numpy_reads(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    found = mapped.load(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        assert found.keys() == set(archive)
        for name, array in found.items():
            assert array.dtype == arrays[name].dtype and np.array_equal(array, archive[name])
    assert isinstance(found["images"], np.memmap) and found["labels"].flags.aligned


def test_what_is_written_to_an_array_stays_out_of_the_file(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    before = (tmp_path / "a.npz").read_bytes()
    images = mapped.load(tmp_path / "a.npz")["images"]
    images[:] = 0
    images.flush()
    assert not images.any() and (tmp_path / "a.npz").read_bytes() == before


def test_compressed_arrays_and_objects_are_refused(tmp_path, arrays):
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    np.savez(tmp_path / "b.npz", x=np.array([{}]))
    for name in ("a", "b"):
        with pytest.raises(
            ValueError, match="must be stored uncompressed, and must hold no objects"
        ):
            mapped.load(tmp_path / f"{name}.npz")


PEAK = """
import resource, sys
from pathlib import Path
from diffbench.store import mapped
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
arrays = mapped.load(Path(sys.argv[1]))
assert arrays["images"][-1, -1] == 7
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kB on Linux alone")
def test_a_large_array_takes_no_memory_until_it_is_used(tmp_path):
    images = np.zeros((1000, 100_000), np.uint8)
    images[-1, -1] = 7
    np.savez(tmp_path / "a.npz", images=images)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "a.npz")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    # 100 MB are mapped; the zip's directory and one page with its read-ahead are touched.
    assert int(found.stdout) < 10e6
