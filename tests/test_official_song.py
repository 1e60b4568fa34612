"""NCSN++ of score_sde and of EDM, of which there are no recordings, against a second one that is held to recordings.

A hundred float64 roundings of outputs near 1 are 2e-14 a layer, and there are some hundred layers.
"""

import official_song
import pytest
import torch
from fills import filled
from official import built, imported, loaded, narrowed, recorded
from official import filled as filled_official

from diffbench.pretrained import edm, reflected, score_sde

#: Layout -> its family, what our network is told of the noise, and the sizes that no tensor shows.
NUMBERED = {"levels": 4, "blocks": 4, "attending": {1}}
SCORE_SDE = {
    "net_sde_ddpmpp_vp": (score_sde, lambda t: t, NUMBERED),
    "net_sde_ncsnpp_ve": (score_sde, lambda t: t.log(), NUMBERED),
    "net_reflected_ddpmpp": (reflected, lambda t: t.log(), NUMBERED | {"blocks": 8}),
}
EDM = ["net_edm_ddpmpp", "net_edm_ddpmpp_1222", "net_edm_ncsnpp"]


def second(name, state, x, t):
    """The second network's output for what the first is told, both of it in official units."""
    if name in EDM:
        return official_song.edm(state, x, t)
    _, told, sizes = SCORE_SDE[name]
    return official_song.score_sde(state, x, told(t), **sizes)


def batch(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 32, 32, generator=generator, dtype=dtype)
    return x, torch.tensor([0.3, 17.0], dtype=dtype)


def made(name, by):
    """Our network of that fraction of a layout's width through the importer, and the official tensors."""
    state = filled(narrowed(name, by)) if by > 1 else filled_official(name, torch.float64)
    family = edm if name in EDM else SCORE_SDE[name][0]
    found, tensors = imported(family, state, torch.float64)
    return loaded(found, tensors), state


@pytest.mark.parametrize("name", [*SCORE_SDE, *EDM])
def test_narrow_networks_are_the_second_ones(name):
    """A sixteenth of the width, every layer of the layout."""
    network, state = made(name, 16)
    x, t = batch()
    told = t if name in EDM else SCORE_SDE[name][1](t)
    got, want = network(x, told), second(name, state, x, t)
    assert want.std() > 0.1
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["net_sde_ncsnpp_ve", "net_edm_ncsnpp"])
def test_the_filter_matters(name):
    """With the box in place of (1, 3, 3, 1)/8 nothing would agree to more than a digit."""
    network, state = made(name, 16)
    x, t = batch()
    want = second(name, state, x, t)
    for module in network.modules():
        if hasattr(module, "kernel"):
            module.kernel = torch.tensor([0.0, 0.5, 0.5, 0.0]).outer(
                torch.tensor([0.0, 0.5, 0.5, 0.0])
            )
    told = t if name in EDM else SCORE_SDE[name][1](t)
    assert (network(x, told) - want).abs().max() > 1e-2


def test_labels_of_edms_ncsnpp():
    """Of the augmentation and of ten classes."""
    shapes = narrowed("net_edm_ncsnpp", 16)
    width = shapes["map_layer0.weight"][1]
    state = filled(shapes | {"map_label.weight": [width, 10], "map_label.bias": [width]})
    network = loaded(*imported(edm, state, torch.float64))
    x, t = batch()
    labels = torch.tensor([3, 8])
    augmented = torch.linspace(-1, 1, 18, dtype=torch.float64).reshape(2, 9)
    one_hot = torch.nn.functional.one_hot(labels, 10).double()
    want = official_song.edm(state, x, t, augmented, one_hot)
    torch.testing.assert_close(network(x, t, labels, None, augmented), want, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["net_sde_ncsnpp_ve", "net_edm_ncsnpp"])
def test_ncsnpp_at_its_full_width(name):
    network, state = made(name, 1)
    x, t = (each[:1] for each in batch())
    told = t if name in EDM else SCORE_SDE[name][1](t)
    torch.testing.assert_close(network(x, told), second(name, state, x, t), rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["net_sde_ddpmpp_vp", "net_reflected_ddpmpp", *EDM[:2]])
def test_the_second_network_gives_the_recorded_output(name):
    """What the official code gave; reflected diffusion's maps x to 2 x - 1 and divides by sigma."""
    state = filled_official(name, torch.float64)
    x, t, expected = recorded(name, torch.float64)
    if name == "net_reflected_ddpmpp":
        got = second(name, state, 2 * x - 1, t) / t
    else:
        got = second(name, state, x, t)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


def test_a_network_with_tensors_that_have_no_values_is_not_handed_out():
    """torch convolves an image by a filter of the device meta, and returns what was in the memory."""
    found, tensors = imported(edm, filled(narrowed("net_edm_ncsnpp", 16)), torch.float64)
    network = built(found).double()
    filters = [key for key, each in network.named_buffers() if key.endswith("kernel")]
    assert len(filters) == 6 and not any(each.is_meta for each in network.buffers())
    meta = tensors | {"enter.weight": tensors["enter.weight"].to("meta")}
    with pytest.raises(ValueError, match=r"^without values: enter\.weight$"):
        loaded(found, meta)
