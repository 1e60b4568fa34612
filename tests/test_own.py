"""Weights of a module that was trained elsewhere, wrapped in a network of an extension."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import REPOSITORY
from torch import nn

import diffbench
from diffbench import cli
from diffbench.diffusion import DDIM, Discrete, NetworkDenoiser, sample, stream
from diffbench.jobs import data, train
from diffbench.plan.loading import load_plan
from diffbench.pretrained.conversion import CheckpointError
from diffbench.pretrained.importing import import_checkpoint as import_any
from diffbench.specs.errors import PlanError
from diffbench.store import paths

VARIANT = "theirs-scratch"
IMPORTED = """
name: imported
data: {name: digits}
extensions: [foreign_model.py]
samples: 20
variants: [theirs]
methods:
  theirs:
    process: {name: discrete, schedule: linear, steps: 100}
    pretrained: models/theirs
    solvers: {ddim-25: {name: ddim, steps: 25}}
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A working directory with the example and weights of its module, which is returned."""
    monkeypatch.chdir(tmp_path)
    for suffix in ("py", "yaml"):
        shutil.copy(REPOSITORY / "examples" / f"foreign_model.{suffix}", tmp_path)
    named = {"nn": nn, "Tensor": torch.Tensor, "cat": torch.cat}
    # The module alone: the specs are registered when a benchmark names the file.
    text = (tmp_path / "foreign_model.py").read_text()
    exec(text[text.index("class Theirs") : text.index("class Wrapped")], named)
    torch.manual_seed(0)
    module = named["Theirs"](1)
    torch.save(module.state_dict(), "weights.pt")
    return module


def imported(file="weights.pt", variant=VARIANT):
    return cli.main(["import", f"foreign_model.yaml:{variant}", file, "--to", "models/theirs"])


def import_checkpoint(layout, file, folder):
    return import_any(layout, file, folder, repository=REPOSITORY)


class Scaled(nn.Module):
    """The module as the benchmark says that it is called: with levels of 1000, and images as they are."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x, c_noise, y=None, raw=None):
        return self.module(x, c_noise)


def test_the_imported_model_samples_as_the_module_does(theirs, capsys, tmp_path):
    assert imported() == 0
    assert "theirs of own, 897 parameters" in capsys.readouterr().out
    (tmp_path / "imported.yaml").write_text(IMPORTED)
    plan = load_plan([tmp_path / "imported.yaml"], {}, REPOSITORY)
    root, spec = tmp_path / "results", plan.job("train", "theirs").spec
    data.run(plan.job("data").spec, root, "cpu")
    train.run(spec, root, "cpu")
    folder = paths.product(root, spec).parent
    run = diffbench.load(folder, extensions=["foreign_model.py"])
    denoiser = NetworkDenoiser(
        Discrete(schedule="linear", steps=100),
        Scaled(theirs),
        predict="eps",
        noise_input="rescaled-time",
        input_scale="none",
    )
    x = sample(DDIM(denoiser, steps=5), (4, 1, 8, 8), stream("notebook", 0))
    assert np.array_equal(run.sample(4, "ddim", steps=5), run._grey.from_model(x))


def test_names_of_the_wrapper_are_taken_too(theirs):
    _, own = import_checkpoint(f"foreign_model.yaml:{VARIANT}", Path("weights.pt"), Path("a"))
    state = {f"theirs.{name}": each for name, each in theirs.state_dict().items()}
    torch.save(state, "wrapped.pt")
    _, wrapped = import_checkpoint(f"foreign_model.yaml:{VARIANT}", Path("wrapped.pt"), Path("b"))
    assert own.network.canonical() == wrapped.network.canonical() and own.family == "own"
    assert Path("a/model.safetensors").read_bytes() == Path("b/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("conditional: true", r"denoiser: conditional: true, but theirs takes no class labels"),
        (
            "masks: true",
            r"denoiser: needs a network from 3 channels to 1, and theirs has those of an image, 1;",
        ),
    ],
)
def test_a_module_that_takes_images_alone_is_asked_for_no_more(theirs, tmp_path, keys, said):
    text = (tmp_path / "foreign_model.yaml").read_text()
    (tmp_path / "foreign_model.yaml").write_text(
        text.replace("predict: eps,", f"predict: eps, {keys},")
    )
    with pytest.raises(PlanError, match=said):
        load_plan([tmp_path / "foreign_model.yaml"], {}, REPOSITORY)


def test_what_does_not_fit_is_refused_and_nothing_is_written(theirs, capsys):
    with pytest.raises(PlanError, match="no variant 'vp' with a network; .*: ddpm-linear, theirs"):
        import_checkpoint("foreign_model.yaml:vp", Path("weights.pt"), Path("models/x"))
    state = theirs.state_dict()
    torch.save({"model": state}, "nested.pt")
    with pytest.raises(CheckpointError, match=r"'model' is a .*: save network.state_dict\(\)"):
        import_checkpoint(f"foreign_model.yaml:{VARIANT}", Path("nested.pt"), Path("models/x"))
    torch.save({**state, "layers.9.bias": torch.zeros(1)}, "more.pt")
    with pytest.raises(CheckpointError, match=r"unknown keys layers\.9\.bias"):
        import_checkpoint(f"foreign_model.yaml:{VARIANT}", Path("more.pt"), Path("models/x"))
    torch.save({name: each.flatten() for name, each in state.items()}, "flat.pt")
    assert imported("flat.pt") == 1
    assert "has shape [576], but the network needs [32, 2, 3, 3]" in capsys.readouterr().err
    assert not Path("models").exists()
