"""Measures of restorations, from the keys of a benchmark to the column of a table, scored beside DINOv2."""

import csv
import io
import json

import numpy as np
import pytest
import test_dinov2
import test_lpips
import yaml
from archives import png
from commands import REPOSITORY

from diffbench import cli
from diffbench.plan.loading import load_plan
from diffbench.specs.errors import PlanError
from diffbench.specs.jobs import RestoreSpec
from diffbench.store import paths

file, files = test_dinov2.file, test_lpips.files


@pytest.fixture
def content(tmp_path, monkeypatch, file, files):
    """A benchmark of one control and one restoration, on a folder of colour images, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for index, image in enumerate(np.random.RandomState(0).randint(0, 256, (50, 32, 32, 3))):
        (tmp_path / "images" / f"{index:02}.png").write_bytes(png(image.astype(np.uint8)))
    lpips = test_lpips.spec_of(files)
    measure = lpips.model_dump() | {"backbone": lpips.backbone, "weights": lpips.weights}
    data = {"name": "folder", "path": "images", "test_fraction": 0.5, "size": 32, "channels": 3}
    return {
        "name": "small",
        "data": data,
        "extractor": {"name": "dinov2", "weights": str(file), "sha256": test_dinov2.sum_of(file)},
        "device": "cpu",
        "samples": 20,
        "floors": {"redraws": 2},
        "variants": ["control-test", "baselines"],
        "overrides": {"baselines": {"restorers": {"posterior-mean": "none"}}},
        "restorations": {
            "tasks": {"denoising": {"operator": "identity", "noise": 0.1}},
            "images": 12,
            "draws": 2,
            "measures": [measure],
        },
        "tables": ["overview", "restorations"],
    }


def plan_of(content):
    with open("small.yaml", "w") as file:
        yaml.safe_dump(content, file)
    return load_plan(["small.yaml"], {}, REPOSITORY)


def test_from_the_keys_to_a_column(content, file, files, monkeypatch):
    """A job's text does not say where the files lie: the rules say it in the environment."""
    plan = plan_of(content)
    named = plan.benchmark.files
    assert set(named) == {"weights", "lpips_alex_backbone", "lpips_alex_weights"}
    for key, path in named.items():
        monkeypatch.setenv(f"DIFFBENCH_{key.upper()}", path)
    monkeypatch.setenv("DIFFBENCH_DATA", plan.located.told)
    for job in plan.jobs:
        assert str(files) not in job.spec.canonical() and str(file) not in job.spec.canonical()
        arguments = ["--root", str(job.root), "--spec", job.spec.canonical(), "--device", "cpu"]
        assert cli.main([job.stage, *arguments]) == 0
    scores = json.loads(plan.job("score", "control-test").product.read_text())
    assert {"fid", "kid", "recall"} <= scores["solvers"]["draw"]["metrics"].keys()
    assert not {"is", "confidence"} & scores["solvers"]["draw"]["metrics"].keys()
    item = "denoising/pseudo-inverse"
    score = json.loads(plan.job("restore", "baselines", 0, item).product.read_text())["metrics"]
    assert 0 < score["lpips_alex"]["se"] < score["lpips_alex"]["value"]
    assert cli.main(["table", "--config", "small.yaml"]) == 0
    text = paths.table(plan.root, "restorations", "md").read_text()
    assert " LPIPS alex |" in text and "LPIPS vgg" not in text
    assert f"- LPIPS alex: {plan.benchmark.restorations.measures[0].described}." in text
    assert "extractor dinov2-vit-64x1" in text and "Pillow's bicubic filter" in text
    rows = csv.DictReader(io.StringIO(paths.table(plan.root, "restorations", "csv").read_text()))
    values = {row["metric"]: float(row["ours_mean"]) for row in rows if row["solver"] == item}
    assert values["lpips_alex"] == pytest.approx(score["lpips_alex"]["value"], rel=1e-4)


def test_a_benchmark_without_measures_has_the_jobs_it_had(content):
    (job,) = plan_of(content).of("restore")
    assert json.loads(job.spec.canonical())["measures"][0]["net"] == "alex"
    del content["restorations"]["measures"]
    (plain,) = plan_of(content).of("restore")
    assert "measures" not in json.loads(plain.spec.canonical())
    assert plain.spec == job.spec.model_copy(update={"measures": ()})
    for spec in (plain.spec, job.spec):
        assert RestoreSpec.read(spec.canonical()).digest() == spec.digest()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"backbone": "gone.pth"},
            r"measures\.0\.backbone: there is no file 'gone.pth'; expected: torchvision's",
        ),
        ({"net": "squeeze"}, r"net: .*squeeze"),
        ({"name": "lpip"}, "'lpip' is not a known image measure; known: lpips"),
        ({"backbone_sha256": "none"}, "backbone_sha256"),
        ({"nett": "alex"}, "nett"),
    ],
)
def test_a_wrong_key_is_one_line_that_names_it(content, change, reason):
    content["restorations"]["measures"][0] |= change
    with pytest.raises(PlanError, match=reason) as caught:
        plan_of(content)
    assert "\n" not in str(caught.value) and "small.yaml:" in str(caught.value)


def test_images_that_are_too_small_and_measures_that_are_given_twice_are_refused(content):
    content["data"]["size"] = 30
    with pytest.raises(
        PlanError, match=r"measures\.0\.net: AlexNet needs images of at least 31x31"
    ):
        plan_of(content)
    content["restorations"]["measures"] *= 2
    with pytest.raises(PlanError, match="'lpips_alex' appears twice"):
        plan_of(content)


def test_weights_of_the_extractor_that_are_not_there_are_named(content):
    content["extractor"]["weights"] = "gone.pth"
    with pytest.raises(PlanError, match=r"extractor\.weights: there is no file .*facebookresearch"):
        plan_of(content)
    del content["extractor"]["sha256"]
    with pytest.raises(PlanError, match=r"extractor\.sha256"):
        plan_of(content)
