"""One Slurm, and one whole run on it, for all tests of this folder."""

import pytest
from cluster import Cluster, cluster, refusal
from filelock import FileLock


def pytest_collection_modifyitems(items):
    """All are slow, and are skipped where there is no Slurm."""
    why = refusal()
    for item in items:
        if item.get_closest_marker("slurm"):
            item.add_marker(pytest.mark.slow)
            if why:
                item.add_marker(pytest.mark.skip(reason=f"no Slurm: {why}"))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Cluster:
    """A Slurm of one node."""
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    with FileLock("/run/diffbench-slurm.lock"), cluster(folder) as found:
        yield found
