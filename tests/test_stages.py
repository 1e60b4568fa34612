"""The products of a run, opened as users do."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from commands import REPOSITORY, plan_of

import diffbench
from diffbench.diffusion.core.condition import Condition
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.solvers.loop import sample
from diffbench.jobs.sample import labels_of
from diffbench.specs.registry import build
from diffbench.specs.solvers import AncestralSpec, EulerMaruyamaSpec, HeunSpec
from diffbench.store.products import StoreError
from diffbench.training import models

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
    assert "(10, 4, 8, 8, 1) torch.Size([16, 1, 8, 8]) (16, 8, 8, 1)" in printed
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
            assert shown[job.variant, job.item] == str(calls_of(run, job.spec))
    assert shown["iddpm-hybrid", "ancestral-5-w1-c2"] == "10"
    assert shown["control-test", "draw"] == "0"


def calls_of(run, spec):
    """How often a job's solver calls the network, counted where the network is: the mean over the job's own chunks,
    since step size control depends on the images, rounded; without a classifier, which is not counted."""
    calls = []
    run.denoiser.network.network.register_forward_hook(lambda *_: calls.append(1))
    solver = spec.solver.model_copy(update={"classifier_scale": None})
    built = build(solver, run.denoiser)
    total = 0
    for chunk, start in enumerate(range(0, spec.samples, spec.chunk)):
        count = min(spec.chunk, spec.samples - start)
        y = torch.zeros(count, dtype=torch.long) if run.denoiser.classes else None
        calls.clear()
        shape = (count, *models.image_shape(run.dataset))
        sample(built, shape, stream("sample", spec.seed, chunk), Condition(y))
        total += len(calls) * count
    return round(total / spec.samples)


def test_samples_are_what_the_model_and_the_seed_say(first):
    """Sampling the first chunk again, here, gives the stored bits."""
    folder, _ = first
    job = plan_of(folder).job("sample", "ddpm-cosine", 0, "ancestral-10")
    run = load(folder, "ddpm-cosine")
    shape = (job.spec.chunk, *models.image_shape(run.dataset))
    solver = build(job.spec.solver, run.denoiser)
    x = sample(solver, shape, stream("sample", 0, 0))
    levels = models.grey_levels_of(run.dataset, run.spec.process).from_model(x)
    with np.load(folder / job.product) as archive:
        assert np.array_equal(archive["levels"][: job.spec.chunk], levels)


LEARNED = AncestralSpec(steps=5, variance="learned")


def test_a_conditional_run_is_sampled_by_class(first):
    run = load(first[0], "iddpm-hybrid")
    guided = AncestralSpec(steps=5, variance="learned", w=2)
    threes = run.sample(4, LEARNED, labels=[3] * 4)
    assert not np.array_equal(threes, run.sample(4, LEARNED, labels=[4] * 4))
    assert not np.array_equal(threes, run.sample(4, guided, labels=[3] * 4))
    unguided = AncestralSpec(steps=5, variance="learned", w=0)
    assert np.array_equal(threes, run.sample(4, unguided, labels=[3] * 4))
    named = AncestralSpec(steps=5, variance="learned", labels=(3,))
    assert np.array_equal(threes, run.sample(4, named))


def test_a_loaded_run_is_guided_by_a_classifier_of_its_process(first):
    run = load(first[0], "iddpm-hybrid")
    (folder,) = (first[0] / "results" / "tiny" / "classifier").glob("discrete-*/seed0")
    guided = [
        run.sample(
            2,
            AncestralSpec(steps=5, variance="learned", classifier_scale=scale),
            labels=[3, 4],
            classifier=folder,
        )
        for scale in (0, 50)
    ]
    assert np.array_equal(guided[0], run.sample(2, LEARNED, labels=[3, 4]))
    assert not np.array_equal(*guided)
    with pytest.raises(ValueError, match=r"classifier: .* but the model is for .*edm"):
        load(first[0], "edm").sample(
            2, HeunSpec(steps=3, classifier_scale=1), labels=[3, 4], classifier=folder
        )


@pytest.mark.parametrize(
    ("variant", "solver", "labels", "reason"),
    [
        ("iddpm-hybrid", LEARNED, None, "labels: must be given"),
        ("iddpm-hybrid", LEARNED, [3, 10], r"labels: \[3, 10\] must be 2 labels from 0 to 9"),
        ("iddpm-hybrid", LEARNED, [3], r"labels: \[3\] must be 2 labels"),
        ("edm", HeunSpec(steps=3), [3, 4], "labels: this model is unconditional"),
        (
            "edm",
            HeunSpec(steps=3, w=1),
            [3, 4],
            "w: 1 needs denoiser.conditional: true, and this model is unconditional",
        ),
        ("ddpm-cosine", LEARNED, None, "variance: learned needs denoiser.variance: learned; use"),
        (
            "edm",
            HeunSpec(steps=3, classifier_scale=1),
            [3, 4],
            "classifier_scale: 1, but there is no classifier",
        ),
    ],
)
def test_labels_and_guidance_that_cannot_be_are_refused(first, variant, solver, labels, reason):
    with pytest.raises(ValueError, match=reason):
        load(first[0], variant).sample(2, solver, labels=labels)


def test_labels_of_samples_are_the_training_images_in_proportion(first):
    folder, _ = first
    plan = plan_of(folder)
    job = plan.job("sample", "iddpm-hybrid", 0, "ancestral-5-w1-c2")
    dataset = load(folder, "iddpm-hybrid").dataset
    with np.load(folder / job.product) as archive:
        stored = archive["labels"]
    whole = labels_of(job.spec.model_copy(update={"samples": 3000}), dataset)
    assert np.array_equal(whole[: len(stored)], stored)
    assert np.array_equal(np.bincount(whole), 2 * np.bincount(dataset.train_labels))
    few = job.spec.solver.model_copy(update={"labels": (7, 1)})
    assert labels_of(
        job.spec.model_copy(update={"solver": few, "samples": 3}), dataset
    ).tolist() == [
        7,
        1,
        7,
    ]
    with np.load(folder / plan.job("sample", "edm", 0, "heun-3").product) as archive:
        assert "labels" not in archive


def test_conditional_samples_have_a_class_accuracy(first):
    folder, _ = first
    root = folder / "results" / "tiny" / "runs"
    scores = json.loads((root / "iddpm-hybrid" / "seed0" / "scores.json").read_text())
    assert 0 <= scores["solvers"]["ancestral-5-w1-c2"]["metrics"]["class_accuracy"]["value"] <= 1
    scores = json.loads((root / "edm" / "seed0" / "scores.json").read_text())
    assert "class_accuracy" not in scores["solvers"]["heun-3"]["metrics"]


def test_the_bound_is_stored_term_by_term(first):
    job = plan_of(first[0]).job("likelihood", "iddpm-hybrid", 0, "vlb-learned")
    stored = json.loads((first[0] / job.product).read_text())
    assert len(stored["terms"]) == len(stored["times"]) == stored["nfe"] == 10
    assert (stored["times"][0], stored["times"][-1]) == (0, 19)
    total = stored["prior"] + sum(stored["terms"])
    assert stored["bits_per_dim"]["value"] == pytest.approx(total, rel=1e-5)


def test_gradient_noise_is_measured_at_each_checkpoint(first):
    job = plan_of(first[0]).job("analysis", "iddpm-hybrid", 0, "gradient-noise")
    stored = json.loads((first[0] / job.product).read_text())
    assert stored["steps"] == [2, 4]
    assert set(stored["estimators"]) == {"vlb", "vlb-importance", "hybrid"}
    assert all(len(each["noise"]) == 2 for each in stored["estimators"].values())
    assert stored["mean_square"] == stored["estimators"]["vlb-importance"]["mean_square"]


def test_latents_of_a_trained_network_are_measured(first):
    """Of data in [0, 1]; DDIM up asks at each noisy level but the last."""
    job = plan_of(first[0]).job("analysis", "ve", 0, "latents")
    stored = json.loads((first[0] / job.product).read_text())
    assert (stored["steps"], stored["nfe"], stored["images"]) == ([2, 4], [1, 3], 6)
    assert all(0 < each < float("inf") for each in stored["error"] + stored["se"])
    assert (first[0] / job.product).with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_repeatable_kernels_are_chosen_without_importing_the_compiler():
    code = (
        "import sys, torch; from diffbench.training import machine; machine.prepare('cpu');"
        "print(torch.are_deterministic_algorithms_enabled(), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_logs_of_scores_and_of_their_reference_say_how_far_they_are(first):
    logs = first[0] / "results" / "tiny" / "logs"
    assert (
        "reference: features of the data set: image 1797/1797, "
        in (logs / "reference.log").read_text()
    )
    assert "score edm: solver 1/1, " in (logs / "score" / "edm" / "seed0.log").read_text()
