"""score_sde's checkpoints, and reflected diffusion's: recorded outputs through a denoiser, every key, refusals."""

import pytest
import torch
from fills import layout
from official import empty, filled, imported, loaded, recorded, without

from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.pretrained import reflected, score_sde
from diffbench.pretrained.conversion import CheckpointError
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.specs.networks.song import DDPMppSpec, DDPMSpec, NCSNppSpec, ReflectedNetworkSpec
from diffbench.specs.processes import DiscreteSpec, ReflectedSpec, VPSpec
from diffbench.specs.registry import build

LAYOUTS = {
    "net_sde_ddpm_cifar10": (score_sde, DDPMSpec()),
    "net_sde_ddpmpp_vp": (score_sde, DDPMppSpec()),
    "net_sde_ncsnpp_ve": (score_sde, NCSNppSpec()),
    "net_reflected_ddpmpp": (reflected, ReflectedNetworkSpec()),
}
#: Recorded network -> process, view of its denoiser's prediction, time of the recorded noise input, and what the
#: official code's float32 run deviates by.
RECORDED = {
    "net_sde_ddpm_cifar10": (DiscreteSpec(schedule="linear"), "eps", lambda process, t: t, 8.2e-6),
    "net_sde_ddpmpp_vp": (VPSpec(), "eps", lambda process, t: t / 999, 5.2e-6),
    "net_reflected_ddpmpp": (
        ReflectedSpec(),
        "score",
        lambda process, t: (t / 0.01).log() / torch.tensor(5 / 0.01).double().log(),
        1.6e-6,
    ),
}


def saved(state, name):
    """As in official files: what was trained last, and the averages as a list in the parameters' order."""
    fixed = layout(name)["not_trainable"]
    trained = [key for key in layout(name)["parameters_order"] if key not in fixed]
    model = {
        f"module.{key}": each if key in fixed else torch.full_like(each, 9)
        for key, each in state.items()
    }
    ema = {"decay": 0.9999, "num_updates": 7, "shadow_params": [state[key] for key in trained]}
    return {"optimizer": {}, "model": model, "ema": ema, "step": 7}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_sizes_are_read_off_and_every_key_is_used(name):
    family, spec = LAYOUTS[name]
    found, tensors = imported(family, saved(empty(name), name))
    assert found.network == spec
    assert (found.image_shape, found.in_channels, found.out_channels) == ((3, 32, 32), 3, 3)
    skeleton = found.skeleton
    assert sum(each.numel() for each in skeleton.parameters()) == layout(name)["n_params_total"]
    trained = sum(each.numel() for each in skeleton.parameters() if each.requires_grad)
    assert trained == layout(name)["n_params_trainable"]
    assert tensors.keys() == skeleton.state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", RECORDED)
def test_filled_networks_give_the_recorded_output(name, dtype):
    """The averages' output through the denoiser: x of its range, what it is told of the time, its output's scale.

    In float32 within 20 times what the official code's own two precisions differ by.
    """
    process_spec, view, time_of, deviation = RECORDED[name]
    found, tensors = imported(LAYOUTS[name][0], saved(filled(name, dtype), name), dtype)
    process = build(process_spec)
    spec = NetworkDenoiserSpec(**found.denoiser)
    assert spec.refusal(process_spec) is None
    x, t, expected = recorded(name, dtype)
    time = time_of(process, t.double())[:, None, None, None]
    predicted = getattr(NetworkDenoiser(spec, process, loaded(found, tensors))(x, time), view)
    error = (predicted.double() - expected).abs().max()
    assert error < (1e-9 if dtype == torch.float64 else 20 * deviation)


def test_a_state_dict_alone_will_do():
    name = "net_sde_ncsnpp_ve"
    plain, listed = (score_sde.weights(each) for each in (empty(name), saved(empty(name), name)))
    assert plain.keys() == listed.keys()


def test_frequencies_are_the_models_and_all_else_is_the_averages():
    name = "net_sde_ncsnpp_ve"
    state = {key: torch.tensor(float(i)) for i, key in enumerate(empty(name))}
    found = score_sde.weights(saved(state, name))
    assert found == state | {"sigmas": found["sigmas"]}


def test_one_by_one_convolutions_are_turned_and_joined():
    """x W + b of each, one after the other."""
    first, second = torch.arange(6.0).reshape(2, 3), -torch.arange(2.0)[:, None]
    x = torch.tensor([[1.0, 10.0]])
    made = score_sde.turned(first, second)[..., 0, 0]
    torch.testing.assert_close(x @ made.T, torch.cat([x @ first, x @ second], dim=1))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda s: s | {"all_modules.7.NIN_4.W": torch.empty(1)},
            "unknown keys all_modules.7.NIN_4.W",
        ),
        (lambda s: without(s, "12.Dense_0.bias"), "lacks all_modules.12.Dense_0.bias"),
        (lambda s: without(s, "all_modules.54."), "1 convolutions outside blocks"),
        (
            lambda s: without(s, "all_modules.4."),
            "45 residual blocks|residual blocks and 6 changes",
        ),
        (lambda s: without(s, "NIN_"), "no block has attention"),
        (lambda s: s | {"all_modules.1.weight": torch.empty(512, 64)}, r"shape \[512, 64\]"),
    ],
)
def test_other_checkpoints_are_refused_in_one_line(change, named):
    with pytest.raises(CheckpointError, match=named) as error:
        imported(score_sde, change(empty("net_sde_ddpmpp_vp")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["net_sde_ddpm_cifar10", "net_sde_ddpmpp_vp", "net_sde_ncsnpp_ve"])
def test_reflected_diffusions_network_is_told_from_score_sdes(name):
    with pytest.raises(CheckpointError, match="not the network of Reflected-Diffusion"):
        reflected.architecture(empty(name))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda s: s | {"ema": {"shadow_params": s["ema"]["shadow_params"][:-1]}},
            "563 tensors, .* 564",
        ),
        (lambda s: s | {"ema": {"shadow_params": s["ema"]["shadow_params"][::-1]}}, "does not fit"),
        (lambda s: s | {"ema": 3}, "has no tensors"),
        (lambda s: s | {"model": {}}, "no state_dict of score_sde"),
        (lambda s: None, "no state_dict of score_sde"),
    ],
)
def test_files_whose_parts_do_not_fit_are_refused(change, named):
    name = "net_sde_ddpmpp_vp"
    with pytest.raises(CheckpointError, match=named):
        score_sde.weights(change(saved(empty(name), name)))
