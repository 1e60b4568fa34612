"""A variant whose weights are imported: what its plan says and refuses, and its jobs on real images."""

import importlib
import json
import os
import subprocess
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
import yaml
from commands import REPOSITORY, bench, diffbench, environment, said, the_reason
from PIL import Image
from safetensors.torch import load_file, save_file

from diffbench import notebook
from diffbench.cli import jobs
from diffbench.diffusion.core.streams import stream
from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.diffusion.solvers.loop import sample
from diffbench.estimate.estimate import estimate
from diffbench.jobs import data, train
from diffbench.plan.loading import load_plan
from diffbench.plan.variants import refusal
from diffbench.pretrained.importing import import_checkpoint
from diffbench.reporting.context import budget_lines
from diffbench.specs.analyses import GradientNoiseSpec
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.specs.errors import PlanError
from diffbench.specs.processes import DiscreteSpec
from diffbench.specs.registry import build
from diffbench.store import files, paths
from diffbench.store.products import StoreError, read_product, status_of, write_product
from diffbench.training import models

BENCHMARK = """\
name: bench
data: {name: digits}
network: {name: unet, channels: 4}
training: {steps: 10, lr: 1e-4}
defaults: {dequantise: uniform, denoiser: {skip: edm}}
device: cpu
samples: 20
chunk: 10
variants: [mine]
methods:
  mine:
    paper: toy
    pretrained: model
    process: {name: vp}
    solvers: {ddim-3: {name: ddim, steps: 3}}
    likelihoods: {ode: {name: ode, method: euler, steps: 2}}
"""


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plan BENCHMARK with other lines in place of some; ``model`` is an imported checkpoint of 8x8 grey images."""
    checkpoints.installed(monkeypatch)
    monkeypatch.chdir(tmp_path)
    checkpoints.written(Path("ema_1.pt"))
    import_checkpoint("toy", Path("ema_1.pt"), Path("model"))

    def plan(*replaced, text=""):
        whole = BENCHMARK + text
        for old, new in replaced:
            assert old in whole
            whole = whole.replace(old, new)
        Path("bench.yaml").write_text(whole)
        return load_plan([Path("bench.yaml")], {}, REPOSITORY)

    return plan


def again(network, **importing):
    torch.save(checkpoints.official(network), "ema_1.pt")
    return import_checkpoint("toy", Path("ema_1.pt"), Path("model"), **importing)


def test_an_imported_model_is_a_variant_like_any_other(planned):
    plan = planned()
    variant = plan.variants["mine"]
    assert variant.network.channels == 8 and variant.denoiser.predict == "v"
    assert variant.denoiser.skip == "none" and variant.dequantise == "none"
    assert variant.objective is None and variant.training is None
    spec = plan.job("train", "mine").spec
    assert spec.pretrained.checkpoint == files.sha256(Path("ema_1.pt"))
    assert spec.pretrained.weights == files.sha256(Path("model/model.safetensors"))
    assert (spec.pretrained.family, spec.pretrained.ema) == ("toy", True)
    of_all = {"data", "reference"}
    assert {run.stage for run in plan.jobs} == of_all | {"train", "sample", "score", "likelihood"}
    assert plan.job("sample", "mine", item="ddim-3").spec.train == spec


def test_other_weights_are_another_training_run(planned):
    before = planned().job("sample", "mine", item="ddim-3").spec.digest()
    assert planned().job("sample", "mine", item="ddim-3").spec.digest() == before
    again(checkpoints.network(seed=1))
    assert planned().job("sample", "mine", item="ddim-3").spec.digest() != before


def test_what_the_folder_says_may_be_repeated(planned):
    weights = files.sha256(Path("model/model.safetensors"))
    plan = planned(
        (
            "pretrained: model",
            f"pretrained: {{folder: model, weights: {weights}}}\n    sampling: {{precision: bf16}}",
        ),
        ("    process:", "    denoiser: {predict: v, skip: none, data_std: 0.5}\n    process:"),
    )
    spec = plan.job("train", "mine").spec
    assert spec.denoiser.predict == "v"
    assert plan.job("sample", "mine", item="ddim-3").spec.precision == "bf16"


#: What is put in place of what, and what the one line must name.
MISTAKES = [
    (
        "pretrained: model",
        "pretrained: modle",
        ["mine.pretrained: there is no modle/", "--to modle"],
    ),
    ("pretrained: model", "pretrained: 3", ["mine.pretrained: must be a folder", "not 3"]),
    ("pretrained: model", "pretrained: {weights: x}", ["mine.pretrained: must be a folder"]),
    (
        "pretrained: model",
        "pretrained: {folder: model, weights: abc}",
        ["mine.pretrained.weights: 'abc' contradicts the imported model, which has '"],
    ),
    (
        "pretrained: model",
        "pretrained: {folder: model, thread: 2}",
        ["mine.pretrained.thread: unknown key", "did you mean 'threads'?"],
    ),
    (
        "pretrained: model",
        "pretrained: {folder: model, precision: bf16}",
        [
            "mine.pretrained",
            "precision: 'bf16' has moved: write `sampling: {precision: ..}` beside `pretrained`",
        ],
    ),
    ("paper: toy", "network: unet", ["mine.network: an imported model has its own network"]),
    ("paper: toy", "objective: simple", ["mine.objective: an imported model is not trained"]),
    ("paper: toy", "training: {steps: 3}", ["mine.training: an imported model is not trained"]),
    ("paper: toy", "dequantise: uniform", ["mine.dequantise: an imported model is not trained"]),
    ("    process: {name: vp}\n", "", ["mine: process is missing"]),
    (
        "paper: toy",
        "denoiser: {predict: eps}",
        ["mine.denoiser.predict: 'eps' contradicts the imported model, which has 'v'"],
    ),
    (
        "paper: toy",
        "denoiser: gaussian",
        ["mine.denoiser.name: 'gaussian' contradicts the imported model, which has 'network'"],
    ),
    ("paper: toy", "denoiser: {predcit: v}", ["mine.denoiser.predcit: unknown key", "'predict'"]),
    (
        "{name: digits}",
        "{name: patches}",
        [
            "mine.pretrained: folder: model is a model of 8x8 images with 1 channel",
            "patches has 16x16 images with 3 channels",
        ],
    ),
    ("{name: vp}", "{name: reflected}", ["mine.denoiser", "predict: v"]),
    (
        "    likelihoods: {ode: {name: ode, method: euler, steps: 2}}",
        "    analyses: {noise: {name: gradient-noise}}",
        ["mine.analyses.noise", "gradient-noise"],
    ),
    ("paper: toy", "control: {name: split, split: test}", ["mine", "a control has no"]),
]


@pytest.mark.parametrize(("old", "new", "named"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_line_that_names_it(planned, old, new, named):
    with pytest.raises(PlanError) as error:
        planned((old, new))
    assert "\n" not in str(error.value) and "bench.yaml:" in str(error.value)
    for each in named:
        assert each in str(error.value)


def test_a_folder_with_something_else_is_refused(planned):
    sidecar = Path("model/spec.json")
    whole = json.loads(sidecar.read_text())
    files.write_json(sidecar, whole | {"spec": {"stage": "train"}})
    with pytest.raises(PlanError, match="does not hold an imported model"):
        planned()
    sidecar.write_text("{")
    with pytest.raises(PlanError, match="not a whole sidecar"):
        planned()


def test_a_conditional_model_wants_its_number_of_classes(planned):
    again(checkpoints.network(classes=3))
    with pytest.raises(PlanError, match="is a model of 3 classes, but the data set digits has 10"):
        planned()
    again(checkpoints.network(classes=10))
    assert planned().variants["mine"].denoiser.conditional


def test_what_needs_training_is_refused(planned):
    again(checkpoints.network(classes=10))
    with pytest.raises(PlanError, match=r"mine.solvers.ddim-3.w: 1 needs a null class"):
        planned(("steps: 3}", "steps: 3, w: 1}"))
    plan = planned()
    learned = {"process": DiscreteSpec(schedule="cosine", steps=9)}
    learned["denoiser"] = NetworkDenoiserSpec(predict="eps", variance="learned")
    variant = plan.variants["mine"].model_copy(update=learned)
    reason = refusal(GradientNoiseSpec(), variant, plan.benchmark.data)
    assert reason == "gradient-noise trains the network, but an imported model is not trained"


def test_what_the_weights_do_not_say_is_said_when_they_are_imported(planned):
    again(checkpoints.network(), denoiser={"predict": "eps"})
    assert planned().variants["mine"].denoiser.predict == "eps"
    with pytest.raises(ValueError, match="predict: Input should be"):
        again(checkpoints.network(), denoiser={"predict": "epsilon"})


def prepared(plan, **other):
    """The data stage's product; ``other`` keys of the data set that is read."""
    spec = plan.job("data").spec
    dataset = build(plan.located.here.model_copy(update=other)).load()
    write_product(paths.dataset(plan.root), lambda file: data.save(dataset, file), spec)
    return dataset


def run(plan, stage, item=""):
    job = plan.job(stage, "mine", 0, item)
    importlib.import_module(job.spec.module()).run(job.spec, plan.root, "cpu")
    return job


def by_hand(network, process, solver, dataset, count, chunk):
    """Samples of a network itself, in the levels of the data set."""
    denoiser = NetworkDenoiser(NetworkDenoiserSpec(predict="v"), process, network)
    shape = (chunk, *models.image_shape(dataset))
    parts = [
        sample(build(solver, denoiser, None), shape, stream("sample", 0, index))
        for index in range(count // chunk)
    ]
    return models.grey_levels_of(dataset, process.spec).from_model(torch.cat(parts))


def test_without_training_it_is_sampled_and_scored_as_the_network_itself(planned, monkeypatch):
    plan = planned()
    dataset = prepared(plan)
    monkeypatch.setattr(train, "train_network", None)
    job = run(plan, "train")
    assert status_of(job.product, job.spec) == "ok"
    network = checkpoints.network()
    tensors = load_file(read_product(job.product, job.spec))
    assert all(torch.equal(tensors[name], each) for name, each in network.state_dict().items())
    drawn = run(plan, "sample", "ddim-3")
    with np.load(read_product(drawn.product, drawn.spec)) as archive:
        samples = archive["levels"]
    process = models.build_process(plan.variants["mine"].process, dataset)
    solver = plan.variants["mine"].solvers["ddim-3"]
    assert np.array_equal(samples, by_hand(network, process, solver, dataset, 20, 10))
    assert len(np.unique(samples)) > 2
    likelihood = run(plan, "likelihood", "ode")
    assert status_of(likelihood.product, likelihood.spec) == "ok"
    opened = notebook.load(plan.root / "runs/mine/seed0")
    assert opened.sample(2, solver).shape == (2, 8, 8, 1)


def pictures(size):
    Path("images").mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (24, size, size, 3), dtype=np.uint8)
    for index, each in enumerate(noise):
        Image.fromarray(each).save(f"images/{index:02}.png")


def test_a_folder_of_colour_images_is_sampled_so_too(planned):
    again(checkpoints.network(image_shape=(3, 8, 8)))
    pictures(8)
    plan = planned(("{name: digits}", "{name: folder, path: images}"))
    prepared(plan)
    run(plan, "train")
    drawn = run(plan, "sample", "ddim-3")
    with np.load(read_product(drawn.product, drawn.spec)) as archive:
        assert archive["levels"].shape == (20, 8, 8, 3)


def test_images_of_another_size_are_refused_when_they_are_known(planned, capsys):
    again(checkpoints.network(image_shape=(3, 8, 8)))
    pictures(8)
    plan = planned(("{name: digits}", "{name: folder, path: images}"))
    pictures(10)
    with pytest.raises(ValueError, match="has other images than when the run was planned"):
        prepared(plan)
    # A data set whose contents are not known, as a paper's, is seen to differ when the model is used.
    prepared(plan, contents=None)
    job = plan.job("train", "mine")
    assert jobs.run_job(job.spec, plan.root, "cpu") == 1
    error = the_reason(capsys.readouterr().err)
    assert "mine.pretrained.folder: model is a model of 8x8 images with 3 channels" in error
    assert "10x10" in error and not job.product.exists()
    os.utime("images", (0, 0))
    with pytest.raises(PlanError, match=r"mine\.pretrained: folder: model is .* 8x8 .*has 10x10"):
        planned(("{name: digits}", "{name: folder, path: images}"))


def test_weights_that_changed_after_the_plan_are_refused(planned):
    plan = planned()
    prepared(plan)
    again(checkpoints.network(seed=1))
    with pytest.raises(StoreError, match="has changed since the plan was made: plan again"):
        run(plan, "train")
    plan = planned()
    path = Path("model/model.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match="its sidecar says"):
        run(plan, "train")
    assert not plan.job("train", "mine").product.exists()


def test_weights_of_another_network_are_refused(planned):
    path = Path("model/model.safetensors")
    sidecar = json.loads(Path("model/spec.json").read_text())
    save_file({"a": torch.ones(1)}, path)
    sidecar["sha256"] = {path.name: files.sha256(path)}
    files.write_json(Path("model/spec.json"), sidecar)
    plan = planned()
    prepared(plan)
    with pytest.raises(ValueError, match="weights of another network than that of its spec.json"):
        run(plan, "train")


def test_tables_say_whose_the_weights_are(planned):
    plan = planned(("variants: [mine]", "variants: [mine, vp]"))
    checksum = files.sha256(Path("ema_1.pt"))[:16]
    text = " ".join(budget_lines(plan))
    assert f"imported (family toy, sha256 {checksum}) (mine)" in text
    assert "uniform (vp)" in text and "10 steps" in text


def test_an_imported_model_is_estimated_without_training(planned):
    found = {cost.job.stage: cost for cost in estimate(planned(), 1).costs}
    assert found["train"].hours == 0
    tensors = load_file("model/model.safetensors").values()
    assert found["train"].size == sum(each.numel() * each.element_size() for each in tensors)
    assert found["sample"].hours > 0 and found["likelihood"].hours > 0


DAG = {
    "name": "imported",
    "data": {"name": "digits"},
    "extractor": {"epochs": 12},
    "device": "cpu",
    "samples": 40,
    "chunk": 20,
    "variants": ["official"],
    "methods": {
        "official": {
            "paper": "edm",
            "pretrained": "models/tiny",
            "process": {"name": "edm"},
            "solvers": {"heun-3": {"name": "heun", "steps": 3}},
            "likelihoods": {"ode": {"name": "ode", "method": "euler", "steps": 2}},
        }
    },
    "restorations": {
        "images": 4,
        "draws": 2,
        "variants": ["official"],
        "tasks": {"half": {"operator": {"name": "block-average", "factor": 2}, "noise": 0.05}},
        "restorers": {"ddrm-3": {"name": "ddrm", "steps": 3}},
    },
}


@pytest.mark.slow
def test_the_workflow_samples_scores_and_restores_imported_weights(tmp_path):
    contents, network = checkpoints.edm()
    torch.save(contents, tmp_path / "tiny.pt")
    done = subprocess.run(
        diffbench("import", "edm", "tiny.pt", "--to", "models/tiny"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=str(REPOSITORY)),
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(DAG))
    done = bench("-c2", cwd=tmp_path)
    assert done.returncode == 0, said(done)
    root = tmp_path / "results" / "imported"
    run = root / "runs/official/seed0"
    tensors = load_file(read_product(run / "model.safetensors"))
    assert all(torch.equal(tensors[name], each) for name, each in network.state_dict().items())
    scores = json.loads((run / "scores.json").read_text())["solvers"]["heun-3"]["metrics"]
    assert scores["fid"]["value"] > 0
    assert (run / "restore" / "half" / "ddrm-3.json").is_file()
    assert (run / "likelihood" / "ode.json").is_file()
    checksum = files.sha256(tmp_path / "tiny.pt")[:16]
    table = paths.table(root, "overview", "md").read_text()
    assert f"imported (family edm, sha256 {checksum})" in table
    # The same import once more, with a new date.
    folder = tmp_path / "models" / "tiny"
    import_checkpoint("edm", tmp_path / "tiny.pt", folder)
    again = bench("-n", cwd=tmp_path)
    assert "Nothing to be done" in said(again)
