import importlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import checkpoints
import pytest
import torch
from commands import REPOSITORY
from safetensors.torch import load_file

from diffbench import cli
from diffbench.pretrained import importing
from diffbench.pretrained.conversion import CheckpointError
from diffbench.pretrained.families import FAMILIES
from diffbench.pretrained.importing import import_checkpoint
from diffbench.specs.imported import ImportedSpec
from diffbench.store import files
from diffbench.store.products import read_product, read_sidecar


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    """The family of these tests, and a working directory."""
    checkpoints.installed(monkeypatch)
    monkeypatch.chdir(tmp_path)


def imported(contents, to="model"):
    torch.save(contents, "file.pt")
    return import_checkpoint("toy", Path("file.pt"), Path(to))


def test_an_imported_folder_has_the_weights_and_says_what_they_are():
    network = checkpoints.written(Path("ema_9.pt"), classes=3)
    folder, spec = import_checkpoint("toy", Path("ema_9.pt"))
    assert folder == Path("models/ema_9") and sorted(each.name for each in folder.iterdir()) == [
        "model.safetensors",
        "spec.json",
    ]
    tensors, wanted = load_file(read_product(folder / "model.safetensors", spec)), network
    assert tensors.keys() == wanted.state_dict().keys()
    assert all(torch.equal(each, tensors[name]) for name, each in wanted.state_dict().items())
    assert ImportedSpec.model_validate(read_sidecar(folder / "model.safetensors")["spec"]) == spec
    assert spec.sha256 == files.sha256(Path("ema_9.pt")) and spec.file == "ema_9.pt" and spec.ema
    assert (spec.name, spec.family, spec.source) == ("ema_9", "toy", checkpoints.SOURCE)
    assert (spec.image_shape, spec.in_channels, spec.out_channels, spec.classes) == (
        (1, 8, 8),
        *(1, 1, 3),
    )
    assert spec.network.channels == 8 and spec.denoiser.predict == "v"
    assert spec.parameters == sum(each.numel() for each in network.parameters())


def test_the_same_checkpoint_gives_the_same_bytes():
    checkpoints.written(Path("a.pt"))
    for folder in ("one", "two"):
        import_checkpoint("toy", Path("a.pt"), Path(folder), "mine")
    for name in ("model.safetensors", "spec.json"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


def test_tensors_that_share_their_numbers_are_written_each_for_itself():
    network = checkpoints.network()
    contents = checkpoints.official(network)
    first, second = sorted(key for key in contents["ema"] if key.endswith("modulation.bias"))[:2]
    contents["ema"][first] = contents["ema"][second]
    found = load_file(imported(contents)[0] / "model.safetensors")
    wanted = network.state_dict()[second.removeprefix("net.")]
    for key in (first, second):
        assert torch.equal(found[key.removeprefix("net.")], wanted)


def without(contents, key):
    contents["ema"].pop(key)
    return contents


def with_(contents, key, value):
    contents["ema"][key] = value
    return contents


WRONG = {
    "lacks net.head.2.bias": lambda good: without(good, "net.head.2.bias"),
    "has unknown keys net.tail": lambda good: with_(good, "net.tail", torch.ones(1)),
    "head.2.bias has shape [2], but the network needs [1]": lambda good: with_(
        good, "net.head.2.bias", torch.ones(2)
    ),
    "head.2.bias: some numbers are not finite": lambda good: with_(
        good, "net.head.2.bias", torch.tensor([float("nan")])
    ),
    "there is no ema in it": lambda good: {"model": good["ema"]},
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_checkpoint_that_does_not_fit_is_refused_and_nothing_is_written(reason, capsys):
    torch.save(WRONG[reason](checkpoints.official(checkpoints.network())), "file.pt")
    assert cli.main(["import", "toy", "file.pt", "--to", "model"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("diffbench import: file.pt as toy: ") and error.count("\n") == 1
    assert reason in error
    assert sorted(os.listdir()) == ["file.pt"]


def test_a_hostile_checkpoint_writes_and_runs_nothing(capsys):
    class Hostile:
        def __reduce__(self):
            return os.system, ("touch ran",)

    good = checkpoints.official(checkpoints.network())
    torch.save({**good, "more": Hostile()}, "file.pt")
    Path("file.pkl").write_bytes(pickle.dumps({**good, "more": Hostile()}))
    for name in ("file.pt", "file.pkl"):
        assert cli.main(["import", "toy", name, "--to", "model"]) == 1
        error = capsys.readouterr().err
        assert f"diffbench import: {name}: it names posix.system" in error
        assert error.count("\n") == 1
    assert sorted(os.listdir()) == ["file.pkl", "file.pt"]


def test_an_unknown_family_and_a_missing_file_are_one_line(capsys):
    assert cli.main(["import", "toys", "file.pt"]) == 1
    assert "'toys' is not a family of checkpoints; did you mean 'toy'?" in capsys.readouterr().err
    assert cli.main(["import", "toy", "file.pt"]) == 1
    assert capsys.readouterr().err == "diffbench import: file.pt: no such file or directory\n"


def test_a_failure_leaves_an_earlier_import_alone_and_a_new_one_replaces_it():
    imported(checkpoints.official(checkpoints.network()))
    before = {each.name: each.read_bytes() for each in Path("model").iterdir()}
    with pytest.raises(CheckpointError, match="no ema"):
        imported({"model": {}})
    assert {each.name: each.read_bytes() for each in Path("model").iterdir()} == before
    imported(checkpoints.official(checkpoints.network(seed=1)))
    assert read_product(Path("model/model.safetensors"))
    assert Path("model/model.safetensors").read_bytes() != before["model.safetensors"]


def test_a_folder_with_another_model_is_left_alone():
    run = Path("results/x/runs/vp/seed0")
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(b"trained for a week")
    with pytest.raises(CheckpointError, match="holds something other than an imported model"):
        imported(checkpoints.official(checkpoints.network()), run)
    assert (run / "model.safetensors").read_bytes() == b"trained for a week"
    with pytest.raises(CheckpointError, match="is a file, and must be a folder"):
        imported(checkpoints.official(checkpoints.network()), "file.pt")


def test_the_command_says_what_it_imported(capsys):
    network = checkpoints.written(Path("net-ema.pt"))
    assert cli.main(["import", "toy", "net-ema.pt", "--name", "mine"]) == 0
    count = sum(each.numel() for each in network.parameters())
    assert capsys.readouterr().out == (
        f"models/mine: unet of toy, {count:,} parameters, averaged, for 8x8 images with 1 channel\n"
    )
    assert json.loads(Path("models/mine/spec.json").read_text())["spec"]["name"] == "mine"


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_gives_what_the_importer_needs(name):
    layout = importlib.import_module(FAMILIES[name].module)
    assert FAMILIES[name].layout() is layout
    assert FAMILIES[name].source in layout.SOURCE
    for part in ("weights", "architecture", "rules", "ignored"):
        assert callable(getattr(layout, part))
    for contents in ({}, {"ema": {}}, {"a": torch.ones(1)}, {"model": {"b": torch.ones(2, 2)}}):
        with pytest.raises(CheckpointError):
            layout.architecture(layout.weights(contents))


def test_families_are_listed_without_torch(tmp_path):
    code = (
        "import sys; from diffbench import cli; cli.main(['list', 'families']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    assert "edm" in done.stdout and "https://github.com/NVlabs/edm" in done.stdout


def test_networks_are_listed_with_their_parameters(capsys):
    assert cli.main(["list", "networks"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert rows["iddpm"].split()[2] == "52,546,438"
    for name, count in {
        "ddpm": "35,218,947",
        "ddpmpp": "61,804,419",
        "ncsnpp": "62,758,915",
        "edm-ddpmpp": "55,733,891",
        "edm-ncsnpp": "56,397,827",
        "reflected": "107,587,075",
    }.items():
        assert rows[name].split()[1] == count


NAMES = {
    "ema_0.9999_500000.pt": True,
    "cifar10_ema_0.9999_250000.pt": True,
    "model_non_ema.pt": None,
    "no-ema.pt": None,
    "net-ema.pt": None,
    "cinema.pt": None,
    "ema.pt": None,
    "schema_0.9999_500000.txt": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_only_an_official_name_says_that_weights_are_averages(name):
    assert importing._averaged({}, Path(name)) is NAMES[name]
    assert importing._averaged({"ema": {}}, Path(name)) is True
