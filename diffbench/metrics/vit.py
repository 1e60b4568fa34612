r"""The Vision Transformer of DINOv2, in plain torch.

    z     = [c, W p_1 + b, ..., W p_N + b] + positions        c the class token, p_i the patches, row by row
    z     = z + g_1 attention(norm(z)),    z = z + g_2 mlp(norm(z))        in each block; g are vectors (LayerScale)
    out   = norm(z)

    mlp   = W_2 gelu(W_1 z),   or gated:  W_2 (silu(a) b),  [a, b] = W_1 z       (SwiGLU, of the largest network)

Positions are learnt for a square of ``side`` x ``side`` patches.  Those of n rows or columns of patches are
interpolated by the bicubic filter (a = -3/4, without antialiasing), at a scale of either n/side or, as in the authors'
code, (n + ``offset``)/side.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023, https://arxiv.org/abs/2304.07193,
appendix B; Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, https://arxiv.org/abs/2010.11929;
LayerScale: Touvron et al., 2021, https://arxiv.org/abs/2103.17239; SwiGLU: Shazeer, 2020,
https://arxiv.org/abs/2002.05202.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: The number of channels of an attention head, in all published sizes.
HEAD = 64
#: What layer norms add to the variance.
EPSILON = 1e-6


@dataclass(frozen=True)
class Outline:
    """The sizes of a network.

    Attributes:
        width: the number of features of a patch, a multiple of 64.
        depth: the number of blocks.
        hidden: the width inside an MLP.
        patch: the side of a patch, in pixels.
        side: the side of the square of patches that positions were learnt for.
        gated: whether MLPs are gated.
        offset: what is added to a number of patches where positions are interpolated; None for nothing.
    """

    width: int
    depth: int
    hidden: int
    patch: int
    side: int
    gated: bool = False
    offset: float | None = None


class VisionTransformer(nn.Module):
    """The network; its parameters have the names of the authors' files."""

    def __init__(self, outline: Outline) -> None:
        super().__init__()
        width, patch = outline.width, outline.patch
        self.outline = outline
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + outline.side**2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch)})
        self.blocks = nn.Sequential(*(Block(outline) for _ in range(outline.depth)))
        self.norm = nn.LayerNorm(width, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 1 + N, width), the class token's and those of N patches, of images x (B, 3, H, W).

        H and W are multiples of the patch's side.
        """
        patches = self.patch_embed["proj"](x)
        z = patches.flatten(2).mT + self.positions(*patches.shape[2:])
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(z), -1, -1)
        out: Tensor = self.norm(self.blocks(torch.cat([first, z], 1)))
        return out

    def positions(self, rows: int, columns: int) -> Tensor:
        """The positions (1, N, width) of that many rows and columns of patches."""
        side, offset = self.outline.side, self.outline.offset
        learnt = self.pos_embed[:, 1:]
        if (rows, columns) == (side, side):
            return learnt
        scale: dict[str, Any] = {"size": (rows, columns)}
        if offset is not None:
            scale = {"scale_factor": ((rows + offset) / side, (columns + offset) / side)}
        square = learnt.mT.unflatten(2, (side, side))
        return F.interpolate(square, mode="bicubic", **scale).flatten(2).mT


class Block(nn.Module):
    """Attention and an MLP, each added to its input."""

    def __init__(self, outline: Outline) -> None:
        super().__init__()
        width = outline.width
        self.norm1, self.norm2 = nn.LayerNorm(width, EPSILON), nn.LayerNorm(width, EPSILON)
        self.attn, self.mlp = Attention(width), (GatedMLP if outline.gated else MLP)(outline)
        self.ls1, self.ls2 = LayerScale(width), LayerScale(width)

    def forward(self, z: Tensor) -> Tensor:
        """Features (B, T, width) of the next block, from those of this one."""
        z = z + self.ls1(self.attn(self.norm1(z)))
        out: Tensor = z + self.ls2(self.mlp(self.norm2(z)))
        return out


class LayerScale(nn.Module):
    """A factor for each feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, z: Tensor) -> Tensor:
        """Features (B, T, width), scaled."""
        return z * self.gamma


class Attention(nn.Module):
    """Attention of heads of 64 channels among all patches and the class token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        """Features (B, T, width) from features of that shape."""
        q, k, v = self.qkv(z).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).mT.flatten(1, 2).mT)
        return mixed


class MLP(nn.Module):
    """Two layers with the exact GELU between them."""

    def __init__(self, outline: Outline) -> None:
        super().__init__()
        self.fc1 = nn.Linear(outline.width, outline.hidden)
        self.fc2 = nn.Linear(outline.hidden, outline.width)

    def forward(self, z: Tensor) -> Tensor:
        """Features (B, T, width) from features of that shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(z)))
        return out


class GatedMLP(nn.Module):
    """Two layers, the first with a gate (SwiGLU)."""

    def __init__(self, outline: Outline) -> None:
        super().__init__()
        self.w12 = nn.Linear(outline.width, 2 * outline.hidden)
        self.w3 = nn.Linear(outline.hidden, outline.width)

    def forward(self, z: Tensor) -> Tensor:
        """Features (B, T, width) from features of that shape."""
        gate, value = self.w12(z).chunk(2, 2)
        out: Tensor = self.w3(F.silu(gate) * value)
        return out
