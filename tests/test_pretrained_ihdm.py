"""IHDM's layout, held to the second implementation of the U-Net that it shares with Improved DDPM."""

import official
import pytest
import torch
from fills import filled
from official_unet import output_of, shapes_of
from toys import column, float64

from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.diffusion.processes.heat import IHDM
from diffbench.pretrained import ihdm
from diffbench.pretrained.conversion import CheckpointError
from diffbench.pretrained.importing import import_checkpoint
from diffbench.specs.denoisers import DenoiserSpec
from diffbench.specs.networks.residual_unet import IHDMUNetSpec
from diffbench.specs.processes import IHDMSpec

CIFAR = ((1, 2, 2, 2), 4, (2, 3))
#: The official configurations: multipliers, blocks, where attention is, and their images' size.
OFFICIAL = {
    "cifar10": (*CIFAR, 32),
    "mnist": ((1, 2, 2), 4, (2,), 28),
    "afhq-64": ((1, 2, 3, 4), 2, (2, 3), 64),
    "church-128": ((1, 2, 3, 4, 5), 4, (2, 3, 4), 128),
    "ffhq-256": ((1, 2, 3, 4, 5), 3, (2, 3, 4), 256),
}


def shapes(multipliers, blocks, attending, channels=128):
    return shapes_of(channels, multipliers, blocks, attending, scale_shift=False)


def empty(*sizes):
    return {key: torch.empty(shape, device="meta") for key, shape in shapes(*sizes).items()}


def imported(state, dtype=torch.float64):
    """The network that a state_dict is of, with its weights, and what it is."""
    found, tensors = official.imported(ihdm, state, dtype)
    return official.loaded(found, tensors), found


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_configurations_are_read_off_and_every_key_is_used(name):
    *sizes, side = OFFICIAL[name]
    state = empty(*sizes)
    found, tensors = official.imported(ihdm, state)
    assert found.image_shape == (3, side, side)
    assert found.network.attention == tuple(side >> level for level in sizes[2])
    assert tensors.keys() == found.skeleton.state_dict().keys()
    count = sum(each.numel() for each in tensors.values())
    assert count == sum(each.numel() for each in state.values())
    if name == "cifar10":
        assert count == 61_060_867 and found.network == IHDMUNetSpec()


def test_the_mean_is_the_image_in_0_to_1_and_the_network_at_levels_from_1():
    """mu = u + F(u, k) with k counted from 1, as the paper's code has it; ours counts from 0."""
    state = filled(shapes(*CIFAR, channels=32))
    network, found = imported(state)
    u = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    k = float64([1, 200])
    process = IHDM(IHDMSpec(levels=200), (3, 8, 8), u)
    denoiser = NetworkDenoiser(DenoiserSpec.choose(found.denoiser), process, network)
    with torch.no_grad():
        got = denoiser(u, column(k - 1)).mean
        want = u + output_of(state, u, k, blocks=4, heads=lambda width: 1)
    assert (got - u).abs().max() > 0.1
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


def checkpoint(state):
    """As the official code saves it: the last step's weights, and other averages."""
    return {
        "optimizer": {"state": {}},
        "step": 7,
        "model": {f"module.{key}": tensor for key, tensor in state.items()},
        "ema": {
            "decay": 0.999,
            "num_updates": 7,
            "shadow_params": [tensor + 1 for tensor in state.values()],
        },
    }


def test_the_averages_are_taken():
    state = {key: torch.zeros(shape) for key, shape in shapes((1, 2, 2), 1, (2,), 32).items()}
    found = ihdm.weights(checkpoint(state))
    assert found.keys() == state.keys() and all((each == 1).all() for each in found.values())
    assert ihdm.weights({"model": state}).keys() == state.keys()
    assert ihdm.weights(state).keys() == state.keys()


def test_averages_that_do_not_fit_are_refused():
    contents = checkpoint({"input_blocks.0.0.weight": torch.zeros(32, 3, 3, 3)})
    contents["ema"]["shadow_params"].append(torch.ones(1))
    with pytest.raises(CheckpointError, match="has 2 tensors, but the model has 1"):
        ihdm.weights(contents)
    contents["ema"]["shadow_params"] = [torch.ones(1)]
    with pytest.raises(CheckpointError, match="does not fit the model: input_blocks"):
        ihdm.weights(contents)


@pytest.mark.parametrize("contents", [None, {}, {"model": 3}, {"a": torch.ones(1)}])
def test_other_files_are_refused(contents):
    with pytest.raises(CheckpointError, match="no state_dict of IHDM"):
        ihdm.weights(contents)


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("out.2.weight", (6, 128, 3, 3), "makes 6 channels from 3: they must be as many"),
        ("input_blocks.6.0.out_layers.0.weight", (384,), "128 times [1.0, 3.0, 2.0, 2.0]"),
        ("extra.weight", (1,), "unknown keys extra.weight"),
    ],
)
def test_what_is_wrong_is_named(key, shape, said):
    with pytest.raises(CheckpointError) as caught:
        imported(empty(*CIFAR) | {key: torch.empty(shape, device="meta")})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_is_imported(tmp_path):
    torch.save(
        checkpoint(filled(shapes((1, 2, 2), 1, (2,), 32), torch.float32)), tmp_path / "file.pt"
    )
    folder, spec = import_checkpoint("ihdm", tmp_path / "file.pt", tmp_path / "model")
    assert (folder / "model.safetensors").exists()
    assert spec.image_shape[1] in (28, 32) and spec.network.channels == 32 and spec.ema
