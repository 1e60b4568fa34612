"""DINOv2 as an extractor: FD-DINOv2 is the FID of its features.

    grey levels 0..L-1  ->  255 k/(L - 1), rounded  ->  RGB, grey repeated
    ->  224 x 224 by Pillow's bicubic filter, rounded  ->  (x/255 - m)/s with ImageNet's mean m and deviation s
    ->  the network  ->  the class token after the last norm

Stein et al., "Exposing flaws of generative model evaluation metrics and their unfair treatment of diffusion models",
2023, https://arxiv.org/abs/2306.04675, take ViT-L/14 (``dinov2_vitl14_pretrain.pth``) and this conversion, that of
https://github.com/layer6ai-labs/dgm-eval.  The network has no classes, so there are neither an Inception score nor a
confidence.

A file is a state_dict in one of two layouts, and its sizes are read from its shapes:

    the authors'       blocks.0.attn.qkv.weight ..                                   (.pth)
    transformers'      encoder.layer.0.attention.attention.query.weight ..           (safetensors)

The authors' code interpolates positions at a scale of (n + 0.1)/side, transformers' at n/side.  Features of a file are
those of the code that its layout is of.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from diffbench.data.datasets import Dataset
from diffbench.metrics.extractor import Extractor, byte_levels
from diffbench.metrics.vit import HEAD, Outline, VisionTransformer
from diffbench.pretrained.checkpoints import read
from diffbench.pretrained.conversion import (
    CheckpointError,
    converted,
    rule,
    shape_of,
    tensors,
)
from diffbench.specs.extractors import Dinov2File, Dinov2Spec
from diffbench.store.downloads import PublishedFile

SIDE = 224
#: ImageNet's mean and standard deviation of red, green and blue, of images in [0, 1].
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: (width, depth) -> the name of a published size.
SIZES = {(384, 12): "vits14", (768, 12): "vitb14", (1024, 24): "vitl14", (1536, 40): "vitg14"}


@dataclass(frozen=True)
class Layout:
    """The names of the tensors of a file.

    Attributes:
        block: the beginning of the names of block {}.
        offset: of interpolated positions, as the layout's own code has it.
        unused: the name of the token that training put in place of hidden patches.
        parts: a part of ours, without the block -> theirs, joined along the first axis; by default the same name.
    """

    block: str
    offset: float | None
    unused: str
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def theirs(self, ours: str) -> tuple[str, ...]:
        """The names of the tensors that make one of ours."""
        found = re.fullmatch(r"(?:blocks\.(\d+)\.)?(.+?)(\.weight|\.bias)?", ours)
        assert found is not None
        number, part, leaf = found.groups(default="")
        before = self.block.format(number) if number else ""
        return tuple(f"{before}{each}{leaf}" for each in self.parts.get(part, (part,)))

    def shape(self, state: Mapping[str, Tensor], ours: str, dims: int) -> tuple[int, ...]:
        """The shape of the first tensor that makes one of ours."""
        return shape_of(state, self.theirs(ours)[0], dims)


AUTHORS = Layout("blocks.{}.", 0.1, "mask_token")
TRANSFORMERS = Layout(
    "encoder.layer.{}.",
    None,
    "embeddings.mask_token",
    {
        "cls_token": ("embeddings.cls_token",),
        "pos_embed": ("embeddings.position_embeddings",),
        "patch_embed.proj": ("embeddings.patch_embeddings.projection",),
        "attn.qkv": tuple(f"attention.attention.{each}" for each in ("query", "key", "value")),
        "attn.proj": ("attention.output.dense",),
        "ls1.gamma": ("layer_scale1.lambda1",),
        "ls2.gamma": ("layer_scale2.lambda1",),
        "mlp.w12": ("mlp.weights_in",),
        "mlp.w3": ("mlp.weights_out",),
        "norm": ("layernorm",),
    },
)


def layout_of(state: Mapping[str, Tensor]) -> Layout:
    """The layout of a file's tensors.

    Raises:
        CheckpointError: when they have neither.
    """
    for layout in (AUTHORS, TRANSFORMERS):
        if layout.theirs("cls_token")[0] in state:
            return layout
    raise CheckpointError("it has neither cls_token nor embeddings.cls_token: it is not of DINOv2")


def outline_of(state: Mapping[str, Tensor], layout: Layout) -> Outline:
    """The sizes of the network, read from the shapes of its tensors.

    Raises:
        CheckpointError: when a tensor is missing or there is no such network.
    """
    width = layout.shape(state, "cls_token", 3)[2]
    patches = layout.shape(state, "pos_embed", 3)[1] - 1
    side = math.isqrt(patches)
    if width % HEAD or side**2 != patches or not side:
        raise CheckpointError(
            f"its width is {width} and it has positions of {patches} patches; they must be a multiple of {HEAD} and "
            "a square"
        )
    begins = re.escape(layout.block).replace(r"\{\}", r"(\d+)")
    gated = layout.theirs("blocks.0.mlp.w12.weight")[0] in state
    second = layout.shape(state, f"blocks.0.mlp.{'w3' if gated else 'fc2'}.weight", 2)
    return Outline(
        width=width,
        depth=len({found[1] for key in state if (found := re.match(begins, key))}),
        hidden=second[1],
        patch=layout.shape(state, "patch_embed.proj.weight", 4)[3],
        side=side,
        gated=gated,
        offset=layout.offset,
    )


def joined(*parts: Tensor) -> Tensor:
    """Tensors joined along the first axis; a single one as it is."""
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def network_of(state: Mapping[str, Tensor]) -> VisionTransformer:
    """The network with a file's tensors, in evaluation mode and without gradients.

    Raises:
        CheckpointError: when a tensor is missing, unknown or of another shape; one line that names it.
    """
    layout = layout_of(state)
    with torch.device("meta"):
        network = VisionTransformer(outline_of(state, layout))
    rules = [rule(ours, *layout.theirs(ours), change=joined) for ours in network.state_dict()]
    weights = converted(state, rules, network, {layout.unused})
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def read_network(file: Path) -> VisionTransformer:
    """The network of a file; nothing in the file is executed.

    Raises:
        CheckpointError: when it is not of DINOv2; one line that names the file.
    """
    contents = read(file)
    try:
        return network_of(tensors(contents, "a file of DINOv2's weights"))
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None


def resized(images: Tensor) -> Tensor:
    """Images uint8 (B, 3, H, W), each resized to 224 x 224 by Pillow."""
    pictures = [Image.fromarray(each) for each in images.permute(0, 2, 3, 1).cpu().numpy()]
    found = [np.asarray(each.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for each in pictures]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


class Dinov2(nn.Module):
    """The extractor: images to features, and to no logits.

    Args:
        network: the network.
        grey_levels: the number L of grey levels of the images.
        sha256: of the file of the weights.
    """

    batch = 50

    def __init__(self, network: VisionTransformer, grey_levels: int, sha256: str = "") -> None:
        super().__init__()
        self.sha256, outline = sha256, network.outline
        known = SIZES.get((outline.width, outline.depth), f"vit-{outline.width}x{outline.depth}")
        self.name, self.network = f"dinov2-{known}", network
        self.table: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("table", byte_levels(grey_levels).to(torch.uint8))
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, width) and logits (B, 0) of images, uint8 (B, C, H, W), C being 1 or 3."""
        x = resized(self.table[images.int()].expand(-1, 3, -1, -1)).to(self.mean) / 255
        # TF32, the default of convolutions on a GPU, keeps only three digits.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            z = self.network((x - self.mean) / self.deviation)[:, 0]
        return z, z.new_empty(len(z), 0)


def opened(
    spec: Dinov2File, grey_levels: int, key: str = "weights", variable: str = "DIFFBENCH_WEIGHTS"
) -> Dinov2:
    """The extractor with the weights of a file.

    Args:
        spec: the file.
        grey_levels: the number of grey levels of the images.
        key: the key of ``extractor`` that names the file.
        variable: the environment variable that can name it too.

    Raises:
        StoreError: when there is no complete copy of it.
        CheckpointError: when it is not of DINOv2.
    """
    published = PublishedFile("the weights of DINOv2", None, spec.sha256, None, f"extractor.{key}")
    given = spec.weights or os.environ.get(variable)
    file = published.local(Path(given) if given else None)
    return Dinov2(read_network(file), grey_levels, spec.sha256)


class PublishedDinov2(Extractor):
    """DINOv2 with the weights of a file."""

    def __init__(self, spec: Dinov2Spec) -> None:
        self.spec = spec

    def make(self, dataset: Dataset) -> Dinov2:
        """Read the weights.

        Raises:
            StoreError: when there is no complete copy of them.
            ValueError: when they are not of such a network, or images are neither grey nor RGB.
        """
        if dataset.shape[2] not in (1, 3):
            raise ValueError(
                f"extractor: dinov2 needs grey or RGB images, but those of {dataset.name} have "
                f"{dataset.shape[2]} channels"
            )
        return opened(self.spec, dataset.levels)

    def sha256(self, module: nn.Module) -> str:
        """SHA-256 of the file of the weights."""
        return self.spec.sha256
