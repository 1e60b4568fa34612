"""Record what transformers, DINOv2's authors and the lpips package compute, for tests/reference.

    pip install transformers lpips dinov2          besides what diffbench needs
    PYTHONPATH=. python tests/record_peers.py

Parameters and images are made by ``fills``, so that files hold nothing but layouts and results.  Recorded with
transformers 5.24.0, dinov2 0.0.1.dev2, lpips 0.1.4 and torch 2.13.0.
"""

import json
import tempfile

import numpy as np
import torch
from fills import filled, hash_values
from safetensors.torch import load_file, save_file
from toys import REFERENCE

from diffbench.metrics.torchvision_operators import ensure_importable

#: DINOv2: (height, width) of the images; the network is made for 70 x 70.
SHAPES = ((70, 70), (56, 56), (98, 84), (224, 224))
#: LPIPS: a net -> the side of the images.
SIDES = {"alex": 33, "vgg": 18}
#: The package has each of these layers under a second name too.
LINEAR = ("lin0", "lin1", "lin2", "lin3", "lin4")


def pictures(number, *shape):
    """Numbers of [-1, 1) in that shape, float32; another number gives others."""
    values = hash_values(1000 + number, int(np.prod(shape)))
    return torch.from_numpy(values).reshape(shape).float()


def record(name, shapes, features):
    """Write the layout of a file of weights, and the features of the pictures."""
    with torch.no_grad():
        found = {
            f"out_{h}x{w}": features(pictures(i, 2, 3, h, w)).numpy()
            for i, (h, w) in enumerate(SHAPES)
        }
    layout = {"state_dict": [[key, list(shape), "float32"] for key, shape in shapes.items()]}
    (REFERENCE / f"{name}_layout.json").write_text(json.dumps(layout | {"buffers": []}) + "\n")
    np.savez(REFERENCE / f"{name}.npz", **found)


def dinov2_of_transformers():
    """The usual MLP and the gated one; weights go by a file, whose names are not those in memory."""
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    for name, gated in (("net_dinov2", False), ("net_dinov2_gated", True)):
        config = Dinov2Config(**sizes, image_size=70, patch_size=14, use_swiglu_ffn=gated)
        with tempfile.TemporaryDirectory() as folder:
            Dinov2Model(config).save_pretrained(folder)
            file = f"{folder}/model.safetensors"
            shapes = {key: each.shape for key, each in load_file(file).items()}
            save_file(filled(shapes, torch.float32), file, {"format": "pt"})
            module = Dinov2Model.from_pretrained(folder).eval()
        record(name, shapes, lambda x, module=module: module(x).pooler_output)


def dinov2_of_the_authors():
    """The authors' code, which interpolates positions at another scale."""
    from dinov2.models.vision_transformer import DinoVisionTransformer

    sizes = {"embed_dim": 128, "depth": 2, "num_heads": 2}
    module = DinoVisionTransformer(
        **sizes, img_size=70, patch_size=14, init_values=1, block_chunks=0
    ).eval()
    shapes = {key: each.shape for key, each in module.state_dict().items()}
    module.load_state_dict(filled(shapes, torch.float32))
    record("net_dinov2_authors", shapes, module)


def lpips():
    """Distances of both backbones."""
    from lpips import LPIPS

    for i, (name, side) in enumerate(SIDES.items()):
        module = LPIPS(net=name, pnet_rand=True, verbose=False).eval()
        state = module.net.state_dict()
        official = {f"features.{key.split('.', 1)[1]}": key for key in state}
        values = filled({ours: state[key].shape for ours, key in official.items()}, torch.float32)
        module.net.load_state_dict({key: values[ours] for ours, key in official.items()})
        linear = {
            key: each
            for key, each in module.state_dict().items()
            if key.partition(".")[0] in LINEAR
        }
        weights = filled({key: each.shape for key, each in linear.items()}, torch.float32)
        module.load_state_dict({key: each.abs() for key, each in weights.items()}, strict=False)
        x, y = (pictures(10 * i + j, 3, 3, side, side) for j in range(2))
        with torch.no_grad():
            np.savez(REFERENCE / f"lpips_{name}.npz", distances=module(x, y).flatten().numpy())


if __name__ == "__main__":
    ensure_importable()
    dinov2_of_transformers()
    dinov2_of_the_authors()
    lpips()
