"""What the tests of checkpoints share: official layouts, empty or filled, through an importer."""

import numpy as np
import torch
from fills import filled_layout, layout
from toys import REFERENCE

from diffbench.pretrained.conversion import converted


def empty(name):
    """All of a recorded network's official tensors, without values: parameters and buffers."""
    return {key: torch.empty(shape, device="meta") for key, shape, _ in layout(name)["state_dict"]}


def filled(name, dtype):
    """The same with hash-filled parameters."""
    return empty(name) | filled_layout(name, dtype)


def imported(family, contents, dtype=torch.float32):
    """What a family makes of a file's contents: the network's description, and its tensors."""
    state = family.weights(contents)
    found = family.architecture(state)
    skeleton = found.skeleton().to(dtype)
    return found, converted(state, family.rules(found), skeleton, family.ignored(found))


def loaded(found, tensors):
    """The network with its tensors, in their precision."""
    dtype = next(iter(tensors.values())).dtype
    network = found.skeleton().to(dtype).eval()
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(False)


def recorded(name, dtype):
    """Input x, noise input t and output of a recorded network."""
    arrays = np.load(REFERENCE / f"{name}.npz")
    x, t = (torch.from_numpy(arrays[key]).to(dtype) for key in ("x", "t"))
    return x, t, torch.from_numpy(arrays["out_hash"])
