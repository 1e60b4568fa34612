"""What the tests of checkpoints share: official layouts, empty or filled, through an importer."""

import copy

import numpy as np
import torch
from fills import filled_layout, hash_fill, layout
from toys import REFERENCE

from diffbench.pretrained.conversion import converted, first_of
from diffbench.specs.registry import build


def empty(name):
    """All of a recorded network's official tensors, without values: parameters and buffers."""
    return {key: torch.empty(shape, device="meta") for key, shape, _ in layout(name)["state_dict"]}


def filled(name, dtype):
    """The same with hash-filled parameters, and frequencies that are no parameters."""
    kept = {
        key: hash_fill(".W", shape, 0).to(dtype)
        for key, shape, _ in layout(name)["state_dict"]
        if key == "map_noise.freqs"
    }
    return empty(name) | filled_layout(name, dtype) | kept


def without(state, part):
    """All tensors but those with that part in their name."""
    return {key: each for key, each in state.items() if part not in key}


def narrowed(name, by):
    """Official key -> shape of a recorded network with that fraction of its width; 128 is the unit of all widths."""
    return {
        key: [size // by if size % 128 == 0 else size for size in shape]
        for key, shape, _ in layout(name)["state_dict"]
        if key != "sigmas"
    }


def imported(family, contents, dtype=torch.float32):
    """What a family makes of a file's contents: the network's description, and its tensors."""
    state = family.weights(contents)
    found = family.architecture(state)
    skeleton = copy.deepcopy(found.skeleton).to(dtype)
    return found, converted(state, family.rules(found), skeleton, family.ignored(found))


def built(found):
    """The described network on the CPU, as it starts.

    A skeleton will not do: what is in no state_dict, such as filters, stays without values on the device meta, and
    a convolution by such a filter returns whatever was in the memory.
    """
    return build(
        found.network,
        image_shape=found.image_shape,
        in_channels=found.in_channels,
        out_channels=found.out_channels,
        classes=found.classes,
    )


def loaded(found, tensors):
    """The network with its tensors, in their precision.

    Raises ValueError when one of its tensors has no values.
    """
    dtype = next(iter(tensors.values())).dtype
    network = built(found).to(dtype).eval()
    network.load_state_dict(tensors, assign=True)
    named = dict(network.named_parameters()) | dict(network.named_buffers())
    if unset := [name for name, each in named.items() if each.is_meta]:
        raise ValueError(f"without values: {first_of(unset)}")
    return network.requires_grad_(False)


def recorded(name, dtype):
    """Input x, noise input t and output of a recorded network."""
    arrays = np.load(REFERENCE / f"{name}.npz")
    x, t = (torch.from_numpy(arrays[key]).to(dtype) for key in ("x", "t"))
    return x, t, torch.from_numpy(arrays["out_hash"])
