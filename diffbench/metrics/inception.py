"""Inception-v3 in torch-fidelity's version, the extractor for photographs.

    grey levels 0..L-1  ->  255 k/(L - 1), rounded  ->  RGB, grey repeated  ->  299 x 299  ->  (x - 128)/128
    ->  the network  ->  2048 features, the mean over pixels before its last layer, and 1008 logits without bias

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer Vision", 2015,
https://arxiv.org/abs/1512.00567, with the weights of TensorFlow's release of 2015-12-05, which define FID and Inception
score; https://github.com/toshas/torch-fidelity converted them and resizes as TensorFlow 1 did.

That resizing is bilinear and reads four neighbours whatever the size: it aliases where images are larger than 299.
Parmar, Zhang, Zhu, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", 2021,
https://arxiv.org/abs/2104.11222, resize by Pillow's antialiased bicubic filter, in floating point and without rounding,
and call the FID of that *clean*; it is an additional metric here.  The two cannot be compared.

Batch normalisation is folded into the convolutions (of weights W and batch statistics m, v: W g/sqrt(v + e) and
b - m g/sqrt(v + e)), which is exact up to rounding (`benchmarks/inception.py` times it).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.metrics.batch import Batch, read_batch
from diffbench.metrics.dinov2 import opened
from diffbench.metrics.extractor import Extractor, byte_levels, spatial_features
from diffbench.metrics.torchvision_operators import torch_fidelity
from diffbench.specs.errors import told
from diffbench.specs.extractors import (
    INCEPTION_SHA256,
    INCEPTION_SIZE,
    INCEPTION_URL,
    InceptionSpec,
)
from diffbench.store.downloads import PublishedFile

SIDE = 299
FEATURES = ("2048", "logits_unbiased")
#: The network's layers up to its features, in order.
LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    *("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)
#: The environment variables that name local copies of the weights and of a published reference.
WEIGHTS, REFERENCE = "DIFFBENCH_WEIGHTS", "DIFFBENCH_REFERENCE"
#: The number of features, and of those of sFID.
WIDTH, SPATIAL_WIDTH = 2048, 17 * 17 * 7
#: The block whose convolution has the features of sFID; torch-fidelity's name.
SPATIAL = "Mixed_6d"

#: A function from float32 (B, 3, H, W) to (B, 3, 299, 299), both on 0..255.
Resize = Callable[[Tensor], Tensor]


class Inception(nn.Module):
    """Inception-v3 after one way of resizing.

    Args:
        network: torch-fidelity's, with batch normalisation folded.
        grey_levels: the number L of grey levels of the images.
        resize: the way to 299 x 299.
    """

    name = "inception-v3"
    batch = 100

    def __init__(self, network: nn.Module, grey_levels: int, resize: Resize) -> None:
        super().__init__()
        self.network, self.resize = network, resize
        self.table: Tensor
        self.register_buffer("table", byte_levels(grey_levels))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 2048) and logits (B, 1008) of images, uint8 (B, C, H, W), C being 1 or 3."""
        x = self.resize(self.table[images.int()].expand(-1, 3, -1, -1))
        # TF32, the default of convolutions on a GPU, keeps only three digits.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            return self.embed((x - 128) / 128)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of images x (B, 3, 299, 299) in about [-1, 1]."""
        for layer in LAYERS:
            x = self.network.get_submodule(layer)(x)
        z = x.flatten(1)
        weight: Tensor = self.network.get_parameter("fc.weight")
        return z, z @ weight.T


class SpatialInception(Inception):
    """The features of sFID: of the 1 x 1 convolution of the block that TensorFlow calls mixed_6; there are no logits.

    As in the evaluation of Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021,
    https://arxiv.org/abs/2105.05233: after batch normalisation and ReLU, 17 x 17 pixels of the first 7 channels.
    """

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 2023) and logits (B, 0) of images x (B, 3, 299, 299) in about [-1, 1]."""
        for layer in LAYERS[: LAYERS.index(SPATIAL)]:
            x = self.network.get_submodule(layer)(x)
        z = spatial_features(self.network.get_submodule(f"{SPATIAL}.branch1x1")(x))
        return z, z[:, :0]


class PublishedInception(Extractor):
    """Inception-v3 with its published weights."""

    def __init__(self, spec: InceptionSpec) -> None:
        self.spec = spec

    @property
    def published(self) -> PublishedFile:
        """The file of the weights: its address and checksum."""
        own = self.spec.sha256 == INCEPTION_SHA256
        return PublishedFile(
            "the weights of Inception-v3",
            INCEPTION_URL if own else None,
            self.spec.sha256,
            INCEPTION_SIZE if own else None,
            "extractor.weights",
        )

    def make(self, dataset: Dataset) -> Inception:
        """Read the weights, downloaded if needed.

        Raises:
            StoreError: when there is no complete copy of them.
            ValueError: when they are not of this network, or images are neither grey nor RGB.
        """
        if dataset.shape[2] not in (1, 3):
            raise ValueError(
                f"extractor: inception needs grey or RGB images, but those of {dataset.name} have "
                f"{dataset.shape[2]} channels"
            )
        given = self.spec.weights or os.environ.get(WEIGHTS)
        file = self.published.local(Path(given) if given else None)
        return Inception(folded(read_network(file)), dataset.levels, tensorflow_resize)

    def opinions(self, module: nn.Module) -> Mapping[str, nn.Module]:
        """The extractors of clean FID, with the other resizing, and of sFID, by the same network, and of FD-DINOv2."""
        assert isinstance(module, Inception)
        ways: dict[str, tuple[type[Inception], Resize]] = {
            "clean_fid": (Inception, clean_resize),
            "sfid": (SpatialInception, tensorflow_resize),
        }
        device = module.table.device
        found: dict[str, nn.Module] = {
            name: kind(module.network, len(module.table), resize)
            for name, (kind, resize) in ways.items()
            if name in self.spec.opinions
        }
        if self.spec.dinov2:
            key, variable = "dinov2.weights", "DIFFBENCH_DINOV2"
            found["fd_dinov2"] = opened(self.spec.dinov2, len(module.table), key, variable)
        return {name: each.to(device).eval() for name, each in found.items()}

    def reference(self, dataset: Dataset) -> Batch | None:
        """The published reference that the spec names, checked by its SHA-256."""
        if self.spec.reference is None:
            return None
        named, sha256 = (
            self.spec.reference.path or os.environ.get(REFERENCE),
            self.spec.reference.sha256,
        )
        assert sha256 is not None
        file = PublishedFile("the reference", None, sha256, None, "extractor.reference")
        spatial = SPATIAL_WIDTH if "sfid" in self.spec.opinions else None
        return read_batch(file.local(Path(named) if named else None), WIDTH, dataset.shape, spatial)

    def sha256(self, module: nn.Module) -> str:
        """SHA-256 of the file of the weights."""
        return self.spec.sha256


def read_network(file: Path) -> Any:
    """torch-fidelity's own module with the weights of a file.

    Raises:
        ValueError: when the file is not a state_dict of it; nothing in the file is executed.
    """
    torch_fidelity()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        # torch-fidelity's constructor would unpickle any object.
        torch.load(file, map_location="cpu", weights_only=True)
        return FeatureExtractorInceptionV3("inception-v3", list(FEATURES), str(file))
    except Exception as error:
        reason = told(error)[:200]
        raise ValueError(
            f"extractor.weights: {file} is not a state_dict of torch-fidelity's Inception-v3 ({reason})"
        ) from error


def folded(network: nn.Module) -> nn.Module:
    """The network with each batch normalisation folded into the convolution before it, in float64 and in place.

    Its weights have channels last in memory, and then so have images between layers: most of the gain in time on a CPU.
    """
    for block in list(network.modules()):
        convolution, norm = getattr(block, "conv", None), getattr(block, "bn", None)
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            fused = nn.utils.fuse_conv_bn_eval(convolution.double(), norm.double())
            block.conv, block.bn = fused.float(), nn.Identity()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def tensorflow_resize(x: Tensor) -> Tensor:
    """Images resized as by TensorFlow 1, with torch-fidelity's code."""
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    resized: Tensor = interpolate_bilinear_2d_like_tensorflow1x(
        x, size=(SIDE, SIDE), align_corners=False
    )
    return resized


def clean_resize(x: Tensor) -> Tensor:
    """Images with each channel resized by Pillow's antialiased bicubic filter, clipped to 0..255 and not rounded."""
    planes = x.cpu().numpy().astype(np.float32).reshape(-1, *x.shape[2:])
    resized = [
        np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for plane in planes
    ]
    whole = torch.from_numpy(np.stack(resized)).clamp(0, 255)
    return whole.reshape(len(x), -1, SIDE, SIDE).to(x.device)
