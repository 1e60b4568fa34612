"""A Slurm for all tests of a module of this folder."""

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


@pytest.fixture(scope="module")
def slurm(request, tmp_path_factory) -> Cluster:
    """A Slurm of one node, for a module; with accounting where the module says so."""
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    with (
        FileLock("/run/diffbench-slurm.lock"),
        cluster(folder, getattr(request.module, "ACCOUNTING", False)) as found,
    ):
        yield found
