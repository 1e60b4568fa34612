"""The analysis stage: an analysis that brings all it needs.  The others are tested where they are."""

import json

import torch
from commands import REPOSITORY
from test_plan import ALONE, BENCHMARK, COUNTING

from diffbench.analyses import job as analysis
from diffbench.plan.loading import load_plan
from diffbench.store.products import read_product
from diffbench.training import machine


def test_an_analysis_alone_runs_without_data(tmp_path, monkeypatch):
    """Its numbers are of its spec and the seed; nothing but its product and record is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "prepare", lambda device, training: torch.device(device))
    (tmp_path / "counting.py").write_text(COUNTING)
    (tmp_path / "bench.yaml").write_text(
        f"{BENCHMARK.replace('[vp, edm]', '[alone]')}seeds: [0, 1]{ALONE}"
    )
    plan = load_plan([tmp_path / "bench.yaml"], {}, REPOSITORY)
    for seed in (0, 1):
        job = plan.job("analysis", "alone", seed, "count")
        analysis.run(job.spec, plan.root, "cpu")
        content = json.loads(read_product(job.product, job.spec).read_bytes())
        assert content == {"metrics": {"count": {"value": 20 + seed, "se": None}}}
    assert not (plan.root / "data").exists()
