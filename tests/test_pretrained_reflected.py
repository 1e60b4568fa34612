"""Reflected-Diffusion's VDM through the importer and a denoiser, against a second writing of its layout.

No such checkpoint was released: the layout is the public code's.
"""

import pytest
import torch
from fills import filled
from official import imported, loaded, without
from official_vdm import output_of, shapes_of
from toys import column, process_of

from diffbench.diffusion.denoisers.network import NetworkDenoiser
from diffbench.pretrained import reflected
from diffbench.pretrained.conversion import CheckpointError
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.specs.networks.vdm import ReflectedVDMSpec

FREQUENCIES = "image_fourier.freqs"


def state_of(*, frequencies=(64, 128), **sizes):
    """Hash-filled, the frequencies as they are."""
    shapes = shapes_of(frequencies=len(frequencies), **sizes)
    state = filled(shapes)
    return state | ({FREQUENCIES: torch.tensor(frequencies)} if frequencies else {})


def empty(**sizes):
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes_of(**sizes).items()}
    return state | {FREQUENCIES: torch.tensor([64, 128])}


def saved(state):
    """As in official files: the network of the last step, and the averages in a list of what was trained."""
    trained = [key for key in state if key != FREQUENCIES]
    model = {
        key: each if key == FREQUENCIES else torch.full_like(each, 9) for key, each in state.items()
    }
    ema = {"decay": 0.9999, "num_updates": 7, "shadow_params": [state[key] for key in trained]}
    return {"optimizer": {}, "model": model, "ema": ema, "step": 7, "scaler": None}


@pytest.mark.parametrize("smallest", [1e-4, 0.01])
@pytest.mark.parametrize(
    "sizes",
    [
        {"blocks": 2},
        {"blocks": 1, "channels": 1, "frequencies": (32,)},
        {"blocks": 1, "frequencies": ()},
    ],
)
def test_the_denoisers_score_is_the_second_networks(sizes, smallest):
    """sigma times the score, an output near 1: a hundred layers of 1e-14 each.  Features turn up to 128 times from 0
    to 1, and see 256 levels."""
    state = state_of(**sizes)
    found, tensors = imported(reflected, saved(state), torch.float64)
    process = process_of("reflected", sigma_min=smallest)
    spec = NetworkDenoiserSpec(**found.denoiser)
    assert spec.refusal(process.spec) is None
    denoiser = NetworkDenoiser(spec, process, loaded(found, tensors))
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (3, sizes.get("channels", 3), 8, 8), generator=generator).double() / 256
    t = torch.tensor([0.0, 0.6, 1.0], dtype=torch.float64)
    sigma = process.sigma(t)
    want = output_of(state, x, sigma, smallest, 5.0)
    got = denoiser(x, column(t)).score
    assert (want * column(sigma)).std() > 0.1
    torch.testing.assert_close(got * column(sigma), want * column(sigma), rtol=0, atol=1e-11)


def test_the_official_configuration_is_read_off_and_every_key_is_used():
    """The paper's size: VDM's with 3 + 12 inputs."""
    found, tensors = imported(reflected, saved(empty()))
    assert found.network == ReflectedVDMSpec() and found.image_shape == (3, 32, 32)
    assert found.denoiser == {
        "predict": "score",
        "noise_input": "sigma-share",
        "input_scale": "none",
    }
    assert sum(each.numel() for each in found.skeleton.parameters()) == 30_577_667
    assert tensors.keys() == found.skeleton.state_dict().keys()


def test_features_go_from_channels_to_frequencies():
    """Inputs 3, 4 | 5, 6 are the sines of the first channel's two frequencies and of the second's; 7 .. the cosines."""
    theirs = torch.arange(10.0).reshape(1, 10, 1, 1)
    ours = reflected.by_frequency(theirs, channels=2).flatten().tolist()
    assert ours == [0, 1, 2, 4, 3, 5, 6, 8, 7, 9]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s | {"enc.1.qkv.weight": torch.empty(1)}, "its blocks have attention"),
        (lambda s: s | {"enc.3.new": torch.empty(1)}, "lacks dec.4.cond_map.weight"),
        (
            lambda s: without(s, "mid2.skip") | {"mid2.gate": torch.empty(1)},
            "unknown keys mid2.gate",
        ),
        (lambda s: without(s, "dec.0.skip.bias"), "lacks dec.0.skip.bias"),
        (lambda s: without(s, FREQUENCIES), "conv_in.weight has shape .* but the network needs"),
        (lambda s: without(s, "out.2"), "lacks out.2.weight"),
    ],
)
def test_other_checkpoints_are_refused_in_one_line(change, named):
    with pytest.raises(CheckpointError, match=named) as error:
        imported(reflected, change(empty(blocks=3)))
    assert "\n" not in str(error.value)


def test_narrow_networks_have_other_norms():
    with pytest.raises(CheckpointError, match="its width is 64, and must be at least 128"):
        imported(reflected, empty(width=64, blocks=1))
