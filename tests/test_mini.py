"""`cifar10-mini`, shrunk to a CPU, end to end on each layout that CIFAR-10 comes in."""

import csv
from pathlib import Path

import fast_yaml
import pytest
from archives import (
    NAMES,
    cifar_members,
    png,
    random_images,
    sha256,
    write_parquet,
    write_tar,
    write_zip,
)
from commands import CONFIG, REPOSITORY, bench, said

pytestmark = pytest.mark.slow

#: Images of a training batch file; the test batch has as many.
IMAGES = 24


def archive(folder: Path) -> dict[str, object]:
    members, _ = cifar_members(per_batch=IMAGES)
    path = write_tar(folder / "cifar-10-python.tar.gz", members)
    return {"name": "cifar10", "archive": path.name, "sha256": sha256(path)}


def parquet(folder: Path) -> dict[str, object]:
    for split, count in (("train", 5 * IMAGES), ("test", IMAGES)):
        files = [png(image) for image in random_images(count, count)]
        labels = [i % 10 for i in range(count)]
        write_parquet(folder / "cifar10" / f"{split}.parquet", files, labels, NAMES)
    return {"name": "parquet", "path": "cifar10", "size": 32, "channels": 3, "classes": 10}


def zipped(folder: Path) -> dict[str, object]:
    images = random_images(7, 6 * IMAGES)
    members = {f"{NAMES[i % 10]}/{i:04}.png": png(image) for i, image in enumerate(images)}
    write_zip(folder / "cifar10.zip", members)
    return {
        "name": "folder",
        "path": "cifar10.zip",
        "size": 32,
        "channels": 3,
        "test_fraction": 0.2,
    }


@pytest.mark.parametrize(
    ("layout", "variants"),
    [
        (archive, ["ddpm-linear", "iddpm-hybrid", "edm", "control-test"]),
        (parquet, ["edm"]),
        (zipped, ["edm"]),
    ],
)
def test_every_cell_is_filled(layout, variants, tmp_path: Path) -> None:
    few = {"ancestral-100": "none", "ddim-25": "none"}
    content = {
        "base": str(REPOSITORY / "config" / "cifar10-mini.yaml"),
        "data": layout(tmp_path),
        "extractor": {"name": "classifier", "epochs": 1},
        "network": {"channels": 32, "multipliers": [1, 1], "blocks": 1, "attention": [16]},
        "training": {"steps": 2, "batch": 8, "warmup": 0, "precision": "fp32", "compile": False},
        "samples": 20,
        "chunk": 10,
        "variants": variants,
        "overrides": {
            "ddpm-linear": {"solvers": few | {"ancestral-25": {"steps": 3}}},
            "iddpm-hybrid": {"solvers": few | {"ancestral-25": {"steps": 3}}},
            "edm": {"solvers": {"dpm-9": "none", "churn-18": "none", "heun-18": {"steps": 2}}},
        },
    }
    (tmp_path / CONFIG).write_text(fast_yaml.dump(content))
    done = bench("--cores", 2, cwd=tmp_path)
    assert done.returncode == 0, said(done)
    with (tmp_path / "results/cifar10-mini/tables/overview.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["variant"] for row in rows} == set(variants)
    assert {row["status"] for row in rows} == {"ok"}
    assert (tmp_path / "results/cifar10-mini/data/manifest.json").is_file()
