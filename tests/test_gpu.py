"""`benchmarks/gpu.py` on a CPU, whole and small: what it will do on a GPU, all but the numbers."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from archives import png, random_images, write_zip
from commands import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", *map(str, arguments)]
    # The script finds the package beside itself, and starts no job server. Its pytest is not a worker of this one.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    own = {**kept, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=own)


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path):
    images = {f"{i % 2}/{i:03}.png": png(each) for i, each in enumerate(random_images(0, 100))}
    path = write_zip(tmp_path / "images.zip", images)
    # Deadlines are of the clock, and this machine may be busy.
    done = run("--images", path, "--write", tmp_path, "--seconds", 3600)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {part["part"]: part["status"] for part in report["parts"]} == dict.fromkeys(
        ["peak", "tests", "digits", "ddpm", "ddpmpp", "mini"], "done"
    ), done.stdout
    assert report["machine"]["device"] == "cpu"
    # Nothing fails, and what is left out is what needs a GPU.
    rows = report["rows"]
    assert {row["status"] for row in rows} == {"measured", "skipped", "left out"}, done.stdout
    assert {row["reason"] for row in rows if row["status"] == "left out"} == {
        "a CPU's peak is not measured",
        "this network always has its channels last",
        "networks are compiled on a GPU only",
        "CUDA graphs are a GPU's",
    }
    measured = {(row["network"], row["work"], row["switches"]) for row in rows if "ms" in row}
    for work in ("training", "sampling"):
        for switches in ("fp32", "tf32", "bf16"):
            assert {("DDPM", work, switches), ("DDPM++ (EDM)", work, switches)} <= measured
        assert ("DDPM++ (EDM)", work, "bf16, channels_last") in measured
    trained = next(row for row in rows if row["part"] == "mini")
    assert (trained["images"], trained["steps"], len(trained["losses"])) == (80, 10, 11)
    assert (tmp_path / "gpu-mini.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "gpu.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len([row for row in rows if "images_per_second" in row])
    assert {row["command"] for row in table} == {
        "python benchmarks/gpu.py --device cpu --images IMAGES"
    }
    plain = [row for row in table if row["switches"] == "fp32" and "real" not in row["work"]]
    assert {row["x fp32"] for row in plain} == {"1.00"}


@pytest.mark.slow
def test_a_part_that_hangs_or_fails_costs_its_own_rows(gpu, tmp_path, monkeypatch):
    script = tmp_path / "part.py"
    script.write_text(
        "import json, sys, time\n"
        "name, rows = sys.argv[2], sys.argv[sys.argv.index('--rows') + 1]\n"
        "row = {'part': name, 'status': 'planned', 'work': 'training', 'switches': 'fp32'}\n"
        "items = [row | {'item': 'first'}, row | {'item': 'second'}]\n"
        "items += [items[0] | {'status': 'measured'}]\n"
        "open(rows, 'a').writelines(json.dumps(each) + chr(10) for each in items)\n"
        "print('at work', flush=True)\n"
        "time.sleep(60) if name == 'ddpm' else sys.exit('out of memory')\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setattr(gpu, "GRACE", 3.0)
    options = gpu.argparse.Namespace(
        device="cpu", images=None, write=tmp_path, only=["ddpm", "mini"], seconds=14, commit="c"
    )
    gpu.main(options)
    report = json.loads((tmp_path / "gpu.json").read_text())
    late, failed = report["parts"]
    assert (late["status"], failed["status"]) == ("late", "failed")
    assert late["reason"].endswith("s at: at work")
    assert failed["reason"] == "status 1: out of memory"
    assert [(row["part"], row["item"], row["status"]) for row in report["rows"]] == [
        (part, item, status)
        for part in ("ddpm", "mini")
        for item, status in (("first", "measured"), ("second", "left out"))
    ]
    lines = (tmp_path / "gpu-parts.csv").read_text().splitlines()
    assert "second: the process was stopped before" in lines[1]


def test_failing_tests_are_told_with_their_reasons(gpu, tmp_path):
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2\n"
        "@pytest.mark.skip(reason='needs a GPU')\n"
        "def test_other(): pass\n"
    )
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_three.py"]
    subprocess.run([*command, f"--junitxml={report}"], cwd=tmp_path, capture_output=True)
    found = [(row["item"], row["status"], row["reason"]) for row in gpu.outcomes_of(report)]
    assert found == [
        ("test_three::test_good", "passed", None),
        ("test_three::test_bad", "failed", "assert 1 == 2"),
        ("test_three::test_other", "skipped", "needs a GPU"),
    ]


def test_images_may_come_in_each_layout(gpu, tmp_path):
    parquet = tmp_path / "hub" / "data"
    parquet.mkdir(parents=True)
    (parquet / "train-0.parquet").touch()
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.touch()
    (tmp_path / "pngs").mkdir()
    names = [gpu.data_of(each)["name"] for each in (tmp_path / "hub", archive, tmp_path / "pngs")]
    assert names == ["parquet", "cifar10", "folder"]
    with pytest.raises(FileNotFoundError, match="--images .*none: there is no such"):
        gpu.data_of(Path(tmp_path, "none"))
