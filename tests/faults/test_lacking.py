"""Places that lack something: room on the disk, the right to write, a home, a locale, a temporary folder, a network."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import CONFIG, REPOSITORY, environment, plan_of, said, write_config

from diffbench.server.client import VARIABLE
from diffbench.store import files
from diffbench.store.manifest import manifest

#: A root of a user's own, with mounts and a network (none) of its own.
ALONE = ["unshare", "--map-root-user", "--mount", "--net"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("unshare")
        or subprocess.run([*ALONE, "true"], check=False).returncode != 0,
        reason="needs unshare(1), and a system that lets a user make namespaces",
    ),
]
#: The command "$@" on a disk of 48 KiB, on one of 16 MiB, and on one that cannot be written.
DISKS = """
mount -t tmpfs -o size=48k tmpfs results
"$@"; echo "small: $?"
mount -o remount,size=16m results
"$@"; echo "large: $?"
sha256sum $PRODUCT
rm $PRODUCT
mount -o remount,ro results
"$@"; echo "read-only: $?"
"""


def test_a_full_disk_and_one_that_cannot_be_written_are_one_line_each(first, tmp_path):
    """What is refused on a full disk is made once there is room, to the bytes of an undisturbed run."""
    write_config(tmp_path)
    job = plan_of(tmp_path).job("data")
    (tmp_path / "results").mkdir()
    command = [sys.executable, "-m", "diffbench", "data", "--root", job.root]
    done = subprocess.run(
        [*ALONE, "sh", "-c", DISKS, "sh", *command, "--spec", job.spec.canonical()],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(REPOSITORY), PRODUCT=str(job.product)) | {VARIABLE: ""},
        capture_output=True,
        text=True,
    )
    small, large, digest, fixed = done.stdout.splitlines()
    assert (small, large, fixed) == ("small: 1", "large: 0", "read-only: 1"), said(done)
    assert digest.split()[0] == files.sha256(first[0] / job.product)
    full, refused = [line for line in done.stderr.splitlines() if line.startswith("diffbench ")]
    assert "No space left on device" in full
    assert "results cannot be written to results/tiny" in refused


@pytest.mark.long
def test_a_run_needs_no_home_locale_temporary_folder_or_network(first, tmp_path):
    """Snakemake itself wants to write a cache: below HOME, or where XDG_CACHE_HOME says."""
    write_config(tmp_path)
    command = [Path(sys.executable).with_name("snakemake"), "-s", REPOSITORY / "Snakefile", "-c2"]
    lacking = {
        "HOME": "/proc/none",
        "LC_ALL": "C",
        "TMPDIR": "/proc/none",
        "XDG_CACHE_HOME": str(tmp_path / ".cache"),
    }
    surroundings = environment(**lacking)
    for name in (VARIABLE, "XDG_RUNTIME_DIR", "MPLCONFIGDIR"):
        surroundings.pop(name, None)
    done = subprocess.run(
        [*ALONE, *map(str, command), "--configfile", CONFIG],
        cwd=tmp_path,
        env=surroundings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, said(done)
    root = Path("results/tiny")
    assert manifest(tmp_path / root) == manifest(first[0] / root)
