"""Archives through the whole DAG: what it makes of them, and that a damaged one leaves nothing behind."""

import json
import pickle

import pytest
from archives import (
    ROOT,
    Runs,
    cifar_members,
    png,
    random_images,
    sha256,
    write_layout,
    write_parquet,
    write_tar,
    write_zip,
)
from commands import CONFIG, bench, plan_of, planned, said, the_reason, write_config

from diffbench import cli
from diffbench.jobs import data as stages_data
from diffbench.plan import places
from diffbench.reporting import tables
from diffbench.specs.data import CIFAR10Spec, DataSpec
from diffbench.specs.jobs import DataStageSpec
from diffbench.specs.registry import build
from diffbench.store import paths
from diffbench.store.products import StoreError, read_product, write_product

#: One variant with classes, one solver, the overview.
SMALL = {
    "variants": ["iddpm-hybrid"],
    "network": {"embedding": 8},
    "training": {"steps": 2, "batch": 4},
    "extractor": {"epochs": 1},
    "samples": 20,
    "chunk": 20,
    "tables": ["overview"],
    "claims": [],
    "figures": [],
}
OVER = {
    "overrides": {
        "iddpm-hybrid": {
            "solvers": {
                "ddim-2-w1": {"name": "ddim", "steps": 2, "w": 1},
            },
            "likelihoods": {"vlb-learned": "none"},
        }
    }
}


def written(folder, layout):
    """Write a layout; skip where what reads it is missing."""
    if layout == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: make test")
    return write_layout(folder, layout)


def configured(folder, layout):
    write_config(folder, SMALL | OVER | {"data": written(folder, layout)})


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["cifar10", "parquet", "folder"])
def test_each_layout_is_trained_on_sampled_and_scored(tmp_path, monkeypatch, layout):
    monkeypatch.chdir(tmp_path)
    configured(tmp_path, layout)
    plan = plan_of(tmp_path)
    monkeypatch.setenv(places.VARIABLE, plan.located.told)
    for run in plan.jobs:
        spec = run.spec.canonical()
        words = [run.stage, "--root", str(plan.root), "--spec", spec, "--device", "cpu"]
        assert cli.main(words) == 0, run
    facts = json.loads(paths.data_manifest(plan.root).read_bytes())
    assert facts["shape"] == [32, 32, 3] and len(facts["classes"]) == 10
    assert facts["range"] == {"train": [0, 255], "test": [0, 255]}
    tables.make(plan, plan.root)
    (row,) = (
        line
        for line in paths.table(plan.root, "overview", "csv").read_text().splitlines()
        if ",fid," in line and ",ddim-2-w1," in line
    )
    assert ",ok," in row, row


def test_a_copy_of_an_archive_elsewhere_is_the_same_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configured(tmp_path, "cifar10")
    first = plan_of(tmp_path)
    data, train = first.job("data"), first.job("train", "iddpm-hybrid")
    images = build(data.spec.data).load()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cifar.tar.gz").rename(tmp_path / "elsewhere" / "c.tar.gz")
    text = (tmp_path / CONFIG).read_text().replace("cifar.tar.gz", "elsewhere/c.tar.gz")
    (tmp_path / CONFIG).write_text(text)
    second = plan_of(tmp_path)
    assert second.job("train", "iddpm-hybrid").spec == train.spec
    assert second.job("data").spec != data.spec and second.inputs(second.job("data")) != []
    write_product(paths.dataset(tmp_path), lambda file: stages_data.save(images, file), data.spec)
    for plan in (first, second):
        stored = stages_data.load(tmp_path, plan.job("train", "iddpm-hybrid").spec.data)
        assert stored.shape == (32, 32, 3)
    other = CIFAR10Spec()
    with pytest.raises(StoreError, match="holds another data set"):
        stages_data.load(tmp_path, other)


@pytest.mark.slow
def test_an_archive_that_changes_is_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configured(tmp_path, "folder")
    done = bench("--cores", "1", "--until", "data", cwd=tmp_path)
    assert done.returncode == 0, said(done)
    levels = read_product(paths.dataset(plan_of(tmp_path).root))
    assert planned(bench("--dry-run", "--until", "data", cwd=tmp_path)) == set()
    members = {f"{i % 10}/{i}.png": png(random_images(i, 1)[0]) for i in range(90)}
    write_zip(tmp_path / "edm.zip", members)
    assert planned(bench("--dry-run", "--until", "data", cwd=tmp_path)) == {"data"}
    assert read_product(levels)


def _cut(path, kept):
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])


def _hostile(folder):
    members, _ = cifar_members(test_batch=pickle.dumps({"data": Runs("made")}, 2))
    write_tar(folder / "cifar.tar.gz", members)


def _escaping_tar(folder):
    members, _ = cifar_members()
    write_tar(folder / "cifar.tar.gz", members | {"../made": b""})


def _missing_batch(folder):
    members, _ = cifar_members()
    del members[f"{ROOT}/data_batch_5"]
    write_tar(folder / "cifar.tar.gz", members)


def _escaping_zip(folder):
    write_zip(folder / "edm.zip", {"../made.png": png(random_images(0, 1)[0])})


def _grey(folder):
    grey = [png(image) for image in random_images(0, 3, channels=1)]
    write_parquet(folder / "hub" / "test.parquet", grey, [0, 1, 2])


def _small(folder):
    files = {f"{i}.png": png(random_images(i, 1, 16 + i)[0]) for i in range(3)}
    write_zip(folder / "edm.zip", files)


DAMAGES = {
    "cifar10": {
        "torn": (lambda folder: _cut(folder / "cifar.tar.gz", 0.6), "not a complete gzipped tar"),
        "hostile": (_hostile, "test_batch is refused: it names"),
        "escaping": (_escaping_tar, "'../made' in it leads out of its folder"),
        "without a batch": (_missing_batch, "has no cifar-10-batches-py/data_batch_5"),
    },
    "parquet": {
        "torn": (
            lambda folder: _cut(folder / "hub" / "train.parquet", 0.9),
            "not a complete parquet",
        ),
        "grey": (_grey, "is grey (1 channel), and must be RGB (3 channels)"),
        "without tests": (lambda folder: (folder / "hub" / "test.parquet").unlink(), "has no test"),
    },
    "folder": {
        "torn": (lambda folder: _cut(folder / "edm.zip", 0.9), "is not a complete zip"),
        "escaping": (_escaping_zip, "leads out of its folder"),
        "of two sizes": (_small, "is 17x17 with 3 channels, but"),
        "gone": (lambda folder: (folder / "edm.zip").unlink(), "is not a folder, zip or tar"),
    },
}


@pytest.mark.parametrize(
    ("layout", "damage"), [(layout, damage) for layout in DAMAGES for damage in DAMAGES[layout]]
)
def test_a_damaged_archive_costs_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, layout, damage
):
    monkeypatch.chdir(tmp_path)
    data = written(tmp_path, layout)
    harm, message = DAMAGES[layout][damage]
    harm(tmp_path)
    if layout == "cifar10":
        data = data | {"sha256": sha256(tmp_path / "cifar.tar.gz")}
    spec = DataStageSpec(data=DataSpec.choose(data)).canonical()
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["data", "--root", "out", "--spec", spec, "--device", "cpu"]) == 1
    assert message in the_reason(capsys.readouterr().err)
    left = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path not in before]
    # The reason alone, which tables quote.
    assert {path.suffix for path in left if (tmp_path / path).is_file()} <= {".json", ".jsonl"}
    assert not any("levels" in str(path) or "manifest" in str(path) for path in left), left
    assert not (tmp_path / "made").exists()


def test_another_checksum_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = written(tmp_path, "cifar10")
    del data["sha256"]
    spec = DataStageSpec(data=DataSpec.choose(data)).canonical()
    words = ["data", "--root", "out", "--spec", spec, "--device", "cpu"]
    assert cli.main(words) == 1
    error = the_reason(capsys.readouterr().err)
    assert "6d958be0" in error and "data.archive" in error
    assert not list(tmp_path.rglob("levels*"))
