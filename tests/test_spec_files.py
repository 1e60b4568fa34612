"""A job's spec as a file: whatever its size, and never another."""

import subprocess

import pytest
from commands import diffbench, environment, plan_of, said, write_config

from diffbench import cli
from diffbench.store import paths, spec_files
from diffbench.store.products import StoreError

#: The longest argument of a command on Linux (MAX_ARG_STRLEN, 32 pages).
LONGEST = 131_072


def test_a_score_of_a_thousand_solvers_starts(tmp_path):
    """By a shell, as Snakemake runs it; what it says is that nothing is there to score."""
    many = {
        f"ddim-{steps}-{eta}": {"name": "ddim", "steps": steps, "eta": eta}
        for steps in range(2, 502)
        for eta in (0, 1)
    }
    write_config(
        tmp_path,
        {"variants": ["ddpm-linear"], "overrides": {"ddpm-linear": {"solvers": many}}},
    )
    job = plan_of(tmp_path).job("score", "ddpm-linear")
    assert len(job.spec.canonical()) > LONGEST
    root = tmp_path / job.root
    spec_files.write(root, [job.spec])
    words = ["score", "--root", root, "--spec", paths.spec_file(root, job.spec.digest())]
    command = " ".join(f"'{word}'" for word in diffbench(*words))
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "levels.npz does not exist: run the job that makes it" in done.stderr, said(done)


def test_a_file_of_another_spec_is_refused(tmp_path, capsys):
    write_config(tmp_path)
    specs = [job.spec for job in plan_of(tmp_path).jobs]
    spec_files.write(tmp_path, specs)
    for spec in specs:
        assert spec_files.read(paths.spec_file(tmp_path, spec.digest())) == spec.canonical()
    one, other = (paths.spec_file(tmp_path, spec.digest()) for spec in specs[:2])
    one.write_bytes(other.read_bytes())
    with pytest.raises(StoreError, match="is not the spec that its name says"):
        spec_files.read(one)
    assert cli.main(["data", "--root", str(tmp_path), "--spec", str(one)]) == 1
    assert "run Snakemake again" in capsys.readouterr().err
    spec_files.clear(tmp_path)
    assert cli.main(["data", "--root", str(tmp_path), "--spec", str(one)]) == 1
    assert "a run writes it" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_ends_well_removes_them(first):
    assert not paths.spec_files(first[0] / "results" / "tiny").exists()
