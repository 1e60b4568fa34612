"""A job's spec as a file: whatever its size, and never another."""

import json
import subprocess

import numpy as np
import pytest
from commands import bench, diffbench, environment, plan_of, planned, said, write_config

from diffbench import cli
from diffbench.jobs import data, sample
from diffbench.store import paths, spec_files
from diffbench.store.products import StoreError

#: The longest argument of a command on Linux (MAX_ARG_STRLEN, 32 pages).
LONGEST = 131_072
#: A thousand solvers.
MANY = {
    f"ddim-{steps}-{eta}": {"name": "ddim", "steps": steps, "eta": eta}
    for steps in range(2, 502)
    for eta in (0, 1)
}


def test_a_score_of_a_thousand_solvers_starts(tmp_path):
    """By a shell, as Snakemake runs it; what it says is that nothing is there to score."""
    write_config(
        tmp_path,
        {"variants": ["ddpm-linear"], "overrides": {"ddpm-linear": {"solvers": MANY}}},
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


@pytest.mark.slow
def test_snakemake_scores_a_thousand_solvers(tmp_path):
    """Their samples are random levels, written as the sample stage writes them: what is tried is the job after them."""
    shown = {"tables": ["overview"], "figures": [], "claims": []}
    solvers = {"overrides": {"gaussian": {"solvers": MANY}}}
    write_config(tmp_path, {"variants": ["gaussian"], **shown, **solvers})
    plan = plan_of(tmp_path)
    root, score = tmp_path / plan.root, plan.job("score", "gaussian").spec
    model = paths.product(plan.root, plan.job("train", "gaussian").spec)
    done = bench("--cores", "2", model, cwd=tmp_path)
    assert done.returncode == 0, said(done)
    dataset, random = data.load(root, plan.job("data").spec.data), np.random.default_rng(0)
    for each in score.samples.values():
        shape = (each.samples, *dataset.shape)
        levels = random.integers(0, dataset.levels, shape).astype(np.uint8)
        sample.write(each, root, dataset, {"levels": levels, "nfe": np.array(each.solver.steps)})
    product = paths.product(plan.root, score)
    assert planned(bench("--dry-run", product, cwd=tmp_path)) >= {"score gaussian"}
    done = bench("--cores", "2", product, cwd=tmp_path)
    assert done.returncode == 0, said(done)
    assert "jobs done: sample/" not in said(done)
    found = json.loads((tmp_path / product).read_text())
    assert found["solvers"].keys() == score.samples.keys() > MANY.keys()


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
