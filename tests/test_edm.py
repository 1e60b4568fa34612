"""EDM's checkpoints through the importer: recorded outputs, every key, and what is refused."""

import pytest
import torch
from fills import layout
from official import empty, filled, imported, loaded, recorded, without

from diffbench.pretrained import edm
from diffbench.pretrained.conversion import CheckpointError
from diffbench.specs.networks.song import EDMDDPMppSpec, EDMNCSNppSpec

RECORDED = {
    "net_edm_ddpmpp": EDMDDPMppSpec(),
    "net_edm_ddpmpp_1222": EDMDDPMppSpec(multipliers=(1, 2, 2, 2), augmentation=0),
}
LAYOUTS = RECORDED | {"net_edm_ncsnpp": EDMNCSNppSpec()}


def prefixed(state):
    """As in EDM's files."""
    return {f"model.{key}": each for key, each in state.items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_sizes_are_read_off_and_every_key_is_used(name):
    found, tensors = imported(edm, {"ema": prefixed(empty(name))})
    assert found.network == LAYOUTS[name]
    assert (found.image_shape, found.in_channels, found.out_channels) == ((3, 32, 32), 3, 3)
    assert found.classes == 0 and found.denoiser["predict"] == "edm"
    parameters = sum(each.numel() for each in found.skeleton.parameters())
    assert parameters == layout(name)["n_params_total"]
    assert tensors.keys() == found.skeleton.state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", RECORDED)
def test_filled_networks_give_the_recorded_output(name, dtype):
    """In float32 within 20 times what the official code's own two precisions differ by: 2.1e-6 and 2.8e-6."""
    network = loaded(*imported(edm, prefixed(filled(name, dtype)), dtype))
    x, t, expected = recorded(name, dtype)
    error = (network(x, t).double() - expected).abs().max()
    assert error < (1e-9 if dtype == torch.float64 else 20 * 2.1e-6)


def test_classes_are_read_off():
    state = empty("net_edm_ddpmpp")
    classes = {"map_label.weight": torch.empty(128, 10), "map_label.bias": torch.empty(128)}
    found, tensors = imported(edm, state | classes)
    assert found.classes == 10 and found.denoiser["conditional"]
    assert tensors["embedding.classes.weight"].shape == (128, 10)


def test_queries_keys_and_values_are_taken_apart():
    """Order (channel, kind) to (kind, channel)."""
    qkv = torch.tensor([[10 * channel + kind] for channel in range(4) for kind in range(3)])
    assert edm.by_kind(qkv).flatten().tolist() == [0, 10, 20, 30, 1, 11, 21, 31, 2, 12, 22, 32]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s | {"enc.8x8_new.weight": torch.empty(1)}, "unknown keys enc.8x8_new.weight"),
        (lambda s: without(s, "8x8_block2.affine.bias"), "lacks dec.8x8_block2.affine.bias"),
        (lambda s: without(s, "aux_conv"), "lacks dec.32x32_aux_conv.weight"),
        (lambda s: without(s, "32x32_conv"), "0 keys like"),
        (lambda s: s | {"map_layer0.weight": torch.empty(512, 64)}, r"shape \[512, 64\]"),
        (lambda s: s | {"out_norm.weight": torch.empty(1)}, "ADM"),
    ],
)
def test_other_checkpoints_are_refused_in_one_line(change, named):
    with pytest.raises(CheckpointError, match=named) as error:
        imported(edm, change(empty("net_edm_ddpmpp")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("contents", [{}, None, {"ema": 3}, {"model.conv.weight": torch.empty(1)}])
def test_files_without_its_weights_are_refused(contents):
    with pytest.raises(CheckpointError, match="no state_dict of EDM"):
        edm.weights(contents)
