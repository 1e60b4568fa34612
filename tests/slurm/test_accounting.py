"""The workflow on a Slurm with accounting: jobs belong to an account, and states may come from `sacct`."""

from pathlib import Path

import pytest
from cluster import ACCOUNT, ACCOUNTANTS, refusal, until
from test_slurm import DATA, ended, prepared, started

#: For the fixture `slurm`.
ACCOUNTING = True
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.long,
    pytest.mark.skipif(bool(why := refusal(*ACCOUNTANTS)), reason=f"no accounting: {why}"),
]
HERE = [
    "--slurm-init-seconds-before-status-checks=1",
    "--latency-wait=5",
    *("--default-resources", f"slurm_account={ACCOUNT}", "runtime=30", "mem_mb=900"),
]


def accounted(slurm, *names: str) -> set[tuple[str, ...]]:
    """Fields of all jobs in Slurm's accounts."""
    text = slurm.ask("sacct", "--allusers", "-X", "-n", "-P", f"--format={','.join(names)}")
    return {tuple(line.split("|")) for line in text.splitlines()}


def running(slurm) -> list[str]:
    """The jobs that run."""
    return [number for number, state in slurm.of("rule_data").items() if state == "RUNNING"]


def test_a_job_that_was_cancelled_runs_again_on_its_account(slurm, tmp_path):
    folder = prepared(tmp_path / "run")
    with started(folder, DATA, "--retries=1", site=HERE) as process:
        (first,) = until(lambda: running(slurm), slurm, "the first job")
        slurm.ask("scancel", first)
        text = ended(process, folder)
    assert f"'{first}' failed, SLURM status is: 'CANCELLED" in text
    assert Path(folder / DATA).exists()
    states = {
        (account, state.partition(" ")[0])
        for account, state in accounted(slurm, "account", "state")
    }
    assert states == {(ACCOUNT, "CANCELLED"), (ACCOUNT, "COMPLETED")}


def test_sacct_says_that_a_job_is_done(slurm, tmp_path):
    folder = prepared(tmp_path / "run")
    with started(folder, DATA, site=["--slurm-status-command=sacct", *HERE]) as process:
        text = ended(process, folder)
    assert "'sacct' unavailable" not in text
    assert Path(folder / DATA).exists()
