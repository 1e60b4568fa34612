"""The products of a run, opened as users do."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from commands import REPOSITORY, plan_of

import diffbench
from diffbench.diffusion.solvers.loop import sample
from diffbench.diffusion.streams import stream
from diffbench.plan.registry import build
from diffbench.specs.solver import EulerMaruyamaSpec, HeunSpec
from diffbench.stages import models
from diffbench.store.products import StoreError

pytestmark = pytest.mark.slow


def load(folder, variant):
    return diffbench.load(folder / "results" / "tiny" / "runs" / variant / "seed0")


def test_a_loaded_run_samples(first):
    run = load(first[0], "edm")
    levels = run.sample(4, HeunSpec(steps=3))
    assert (levels.shape, levels.dtype) == ((4, 8, 8, 1), np.uint8)
    assert levels.max() <= 16
    assert np.array_equal(levels, run.sample(4, HeunSpec(steps=3)))
    assert not np.array_equal(levels, run.sample(4, HeunSpec(steps=3), seed=1))


def test_loading_leaves_the_session_as_it_was(first):
    code = (
        "import sys, torch; torch.set_num_threads(2); import diffbench;"
        "diffbench.load(sys.argv[1]);"
        "print(torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())"
    )
    folder = first[0] / "results" / "tiny" / "runs" / "edm" / "seed0"
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


def test_a_loaded_run_refuses_a_solver_that_cannot_serve_its_process(first):
    with pytest.raises(ValueError, match="integer times have no SDE or ODE"):
        load(first[0], "ddpm-cosine").sample(4, EulerMaruyamaSpec(steps=3))


def test_the_readmes_notebook_example_runs(first, capsys):
    readme = (REPOSITORY / "README.md").read_text()
    code = readme.partition("```python\n")[2].partition("```")[0]
    shown = "results/digits/runs/vp/seed0"
    assert shown in code
    exec(code.replace(shown, str(first[0] / "results" / "tiny" / "runs" / "edm" / "seed0")), {})
    printed = capsys.readouterr().out
    assert "(16, 8, 8, 1) 17\n" in printed
    assert "torch.Size([4, 1, 8, 8])" in printed


def test_a_run_whose_model_was_altered_is_not_loaded(made):
    model = made / "results" / "tiny" / "runs" / "edm" / "seed0" / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    with pytest.raises(StoreError, match="sha256"):
        load(made, "edm")


def test_the_network_evaluations_of_the_tables_are_those_that_were_made(first):
    folder, _ = first
    with (folder / "results" / "tiny" / "tables" / "overview.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "fid"]
    shown = {(row["variant"], row["solver"]): row["nfe"] for row in rows}
    for job in plan_of(folder).of("sample"):
        if job.spec.train is not None:
            run = load(folder, job.variant)
            assert shown[job.variant, job.item] == str(calls_of(run, job.spec.solver))
    assert shown["control-test", "draw"] == "0"


def calls_of(run, solver):
    """How often a solver calls the network, counted where the network is."""
    calls = []
    run.denoiser.network.network.register_forward_hook(lambda *_: calls.append(1))
    run.sample(1, solver)
    return len(calls)


def test_samples_are_what_the_model_and_the_seed_say(first):
    """Sampling the first chunk again, here, gives the stored bits."""
    folder, _ = first
    job = plan_of(folder).run("sample", "ddpm-cosine", 0, "ancestral-10")
    run = load(folder, "ddpm-cosine")
    shape = (job.spec.chunk, *models.image_shape(run.dataset))
    solver = build(job.spec.solver, run.denoiser)
    x = sample(solver, shape, stream("sample", 0, 0))
    levels = models.levels_of(run.dataset, run.spec.process).from_model(x)
    with np.load(folder / job.product) as archive:
        assert np.array_equal(archive["levels"][: job.spec.chunk], levels)


def test_repeatable_kernels_are_chosen_without_importing_the_compiler():
    code = (
        "import sys, torch; from diffbench.stages import machine; machine.prepare('cpu');"
        "print(torch.are_deterministic_algorithms_enabled(), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
