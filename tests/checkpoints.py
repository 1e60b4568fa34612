"""A family of checkpoints for tests: the small U-Net's tensors under other names, the first of them turned round.

{"ema": {"net.stem.weight": .., ..}, "steps": 3}        as `torch.save` writes it
"""

import sys
import types

import torch
from official import built

from diffbench.pretrained import families
from diffbench.pretrained.conversion import Architecture, CheckpointError, rule
from diffbench.specs.networks.network import UNetSpec

SOURCE = "https://example.org/toy: A Toy (Nobody 2026)"
TURNED = "stem.weight"


def weights(contents):
    if "ema" not in contents:
        raise CheckpointError("there is no ema in it")
    return contents["ema"]


def architecture(state):
    channels, in_channels = state["net.stem.weight"].shape[1], state["net.stem.weight"].shape[0]
    classes = len(state["net.class_embedding.weight"]) - 1 if _labelled(state) else 0
    height, width = state["net.position"].shape[1:]
    network = UNetSpec(
        channels=channels,
        inner_channels=len(state["net.inner_position"]),
        heads=2,
        embedding=len(state["net.noise_embedding.mlp.0.weight"]),
    )
    return Architecture(
        network=network,
        denoiser={"predict": "v", "conditional": classes > 0, "noise_input": "log-ratio"},
        image_shape=(in_channels, height, width),
        in_channels=in_channels,
        out_channels=in_channels,
        classes=classes,
    )


def _labelled(state):
    return "net.class_embedding.weight" in state


def rules(architecture):
    names = architecture.skeleton.state_dict()
    return [
        rule(name, f"net.{name}", **({"change": turned} if name == TURNED else {}))
        for name in names
    ]


def ignored(architecture):
    return {"net.filter"}


def turned(tensor):
    return tensor.transpose(0, 1)


def installed(monkeypatch):
    """Make the family known as ``toy`` while a test runs."""
    module = types.ModuleType("toy_family")
    for name in ("SOURCE", "weights", "architecture", "rules", "ignored"):
        setattr(module, name, globals()[name])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    chosen = families.Family("toys", "https://example.org/toy", module.__name__)
    monkeypatch.setitem(families.FAMILIES, "toy", chosen)


def network(image_shape=(1, 8, 8), classes=0, channels=8, seed=0):
    """A small U-Net whose every parameter is random: none of its outputs is zero."""
    from diffbench.specs.registry import build

    generator = torch.Generator().manual_seed(seed)
    made = build(
        UNetSpec(channels=channels, inner_channels=8, heads=2, embedding=16),
        image_shape=image_shape,
        in_channels=image_shape[0],
        out_channels=image_shape[0],
        classes=classes,
    )
    with torch.no_grad():
        for each in made.parameters():
            each.copy_(0.2 * torch.randn(each.shape, generator=generator))
    return made.eval().requires_grad_(False)


def official(network):
    """The contents of its checkpoint."""
    state = {f"net.{name}": each for name, each in network.state_dict().items()}
    state[f"net.{TURNED}"] = turned(state[f"net.{TURNED}"]).contiguous()
    return {"ema": {**state, "net.filter": torch.ones(4)}, "steps": 3}


def written(path, **options):
    """A checkpoint of a small network at that path; the network."""
    made = network(**options)
    torch.save(official(made), path)
    return made


def edm(image_shape=(1, 8, 8), seed=0):
    """The contents of a small checkpoint in EDM's layout, of its DDPM++, and the network."""
    from diffbench.pretrained import edm as layout
    from diffbench.specs.networks.song import EDMDDPMppSpec

    spec = EDMDDPMppSpec(channels=32, multipliers=(1, 1), blocks=1, attention=(4,), augmentation=0)
    channels = image_shape[0]
    found = Architecture(spec, {"predict": "edm"}, image_shape, channels, channels, 0)
    made, generator = built(found).eval().requires_grad_(False), torch.Generator().manual_seed(seed)
    for name, each in made.named_parameters():
        each.copy_(0.1 * torch.randn(each.shape, generator=generator) + ("norm" in name))
    ours = made.state_dict()
    state = {
        each.theirs[0]: by_channel(ours[each.ours])
        if each.change is layout.by_kind
        else ours[each.ours]
        for each in layout.rules(found)
    }
    return {"ema": {f"model.{key}": each.clone() for key, each in state.items()}}, made


def by_channel(qkv):
    """Order (3, C) of the first axis to EDM's (C, 3)."""
    return qkv.unflatten(0, (3, -1)).transpose(0, 1).flatten(0, 1)
