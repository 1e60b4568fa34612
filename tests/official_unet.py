"""A second U-Net of improved-diffusion's and guided-diffusion's layout: a function of the tensors' names.

It shares nothing with the package's: no modules, attention head by head.  It is held to the recorded layout and output,
and then says what networks of other sizes and options should give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def shapes_of(
    channels: int,
    multipliers: Sequence[int],
    blocks: int,
    attending: Sequence[int],
    *,
    out: int = 3,
    scale_shift: bool = True,
    in_blocks: bool = False,
    classes: int = 0,
) -> Shapes:
    """Every key and its shape; ``attending`` are resolutions, 0 the highest."""
    found: Shapes = {}

    def layer(key: str, *shape: int) -> None:
        found[f"{key}.weight"], found[f"{key}.bias"] = shape, shape[:1]

    def block(key: str, entering: int, leaving: int) -> int:
        layer(f"{key}.in_layers.0", entering)
        layer(f"{key}.in_layers.2", leaving, entering, 3, 3)
        layer(f"{key}.emb_layers.1", leaving * (2 if scale_shift else 1), 4 * channels)
        layer(f"{key}.out_layers.0", leaving)
        layer(f"{key}.out_layers.3", leaving, leaving, 3, 3)
        if entering != leaving:
            layer(f"{key}.skip_connection", leaving, entering, 1, 1)
        return leaving

    def attention(key: str, width: int) -> None:
        layer(f"{key}.norm", width)
        layer(f"{key}.qkv", 3 * width, width, 1)
        layer(f"{key}.proj_out", width, width, 1)

    layer("time_embed.0", 4 * channels, channels)
    layer("time_embed.2", 4 * channels, 4 * channels)
    if classes:
        found["label_emb.weight"] = (classes, 4 * channels)
    width = int(multipliers[0] * channels)
    layer("input_blocks.0.0", width, 3, 3, 3)
    kept, last = [width], len(multipliers) - 1
    for level, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            key = f"input_blocks.{len(kept)}"
            width = block(f"{key}.0", width, int(multiplier * channels))
            if level in attending:
                attention(f"{key}.1", width)
            kept.append(width)
        if level < last and in_blocks:
            block(f"input_blocks.{len(kept)}.0", width, width)
        elif level < last:
            layer(f"input_blocks.{len(kept)}.0.op", width, width, 3, 3)
        if level < last:
            kept.append(width)
    block("middle_block.0", width, width)
    attention("middle_block.1", width)
    block("middle_block.2", width, width)
    for i in range(len(kept)):
        level = last - i // (blocks + 1)
        key = f"output_blocks.{i}"
        width = block(f"{key}.0", width + kept.pop(), int(multipliers[level] * channels))
        if level in attending:
            attention(f"{key}.1", width)
        if level and i % (blocks + 1) == blocks:
            place = f"{key}.{2 if level in attending else 1}"
            if in_blocks:
                block(place, width, width)
            else:
                layer(f"{place}.conv", width, width, 3, 3)
    layer("out.0", width)
    layer("out.2", out, width, 3, 3)
    return found


def output_of(
    state: dict[str, Tensor],
    x: Tensor,
    t: Tensor,
    y: Tensor | None = None,
    *,
    blocks: int,
    heads: Callable[[int], int],
    q_first: bool = False,
) -> Tensor:
    """What the network gives for images x (B, 3, H, W) at times t (B,) of labels y (B,)."""

    def has(key: str) -> bool:
        return f"{key}.weight" in state

    def linear(key: str, h: Tensor) -> Tensor:
        return h @ state[f"{key}.weight"].T + state[f"{key}.bias"]

    def convolved(key: str, h: Tensor, **options: int) -> Tensor:
        return F.conv2d(h, state[f"{key}.weight"], state[f"{key}.bias"], **options)

    def normed(key: str, h: Tensor) -> Tensor:
        groups = h.reshape(len(h), 32, -1)
        mean, variance = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, unbiased=False)
        h = ((groups - mean) / (variance + 1e-5).sqrt()).reshape(h.shape)
        return h * column(state[f"{key}.weight"]) + column(state[f"{key}.bias"])

    def column(values: Tensor) -> Tensor:
        return values[..., None, None]

    def swish(h: Tensor) -> Tensor:
        return h * h.sigmoid()

    def pooled(h: Tensor) -> Tensor:
        return (h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4

    def repeated(h: Tensor) -> Tensor:
        return h.repeat_interleave(2, -1).repeat_interleave(2, -2)

    def same(h: Tensor) -> Tensor:
        return h

    def block(key: str, h: Tensor, move: Callable[[Tensor], Tensor] = same) -> Tensor:
        inner = convolved(
            f"{key}.in_layers.2", move(swish(normed(f"{key}.in_layers.0", h))), padding=1
        )
        told = column(linear(f"{key}.emb_layers.1", swish(embedding)))
        if told.shape[1] == inner.shape[1]:
            inner = normed(f"{key}.out_layers.0", inner + told)
        else:
            scale, shift = told.split(inner.shape[1], dim=1)
            inner = normed(f"{key}.out_layers.0", inner) * (1 + scale) + shift
        inner = convolved(f"{key}.out_layers.3", swish(inner), padding=1)
        h = move(h)
        return inner + (
            convolved(f"{key}.skip_connection", h) if has(f"{key}.skip_connection") else h
        )

    def attention(key: str, h: Tensor) -> Tensor:
        width, count = h.shape[1], heads(h.shape[1])
        size = width // count
        qkv = normed(f"{key}.norm", h).flatten(2)
        qkv = column(state[f"{key}.qkv.bias"])[..., 0] + state[f"{key}.qkv.weight"][..., 0] @ qkv
        mixed = []
        for head in range(count):
            starts = [3 * head * size + kind * size for kind in range(3)]
            if q_first:
                starts = [kind * width + head * size for kind in range(3)]
            q, k, v = (qkv[:, start : start + size] for start in starts)
            mixed.append(v @ (q.mT @ k / math.sqrt(size)).softmax(-1).mT)
        joined = torch.cat(mixed, dim=1)
        joined = (
            state[f"{key}.proj_out.weight"][..., 0] @ joined
            + state[f"{key}.proj_out.bias"][:, None]
        )
        return h + joined.reshape(h.shape)

    half = state["time_embed.0.weight"].shape[1] // 2
    angles = t[:, None] / 10_000 ** (torch.arange(half, dtype=t.dtype) / half)
    sinusoids = torch.cat([angles.cos(), angles.sin()], dim=1)
    embedding = linear("time_embed.2", swish(linear("time_embed.0", sinusoids)))
    if y is not None:
        embedding = embedding + state["label_emb.weight"][y]
    h = convolved("input_blocks.0.0", x, padding=1)
    kept = [h]
    while any(has(f"input_blocks.{len(kept)}.0.{part}") for part in ("op", "in_layers.0")):
        key = f"input_blocks.{len(kept)}"
        if has(f"{key}.0.op"):
            h = convolved(f"{key}.0.op", h, stride=2, padding=1)
        else:
            h = block(f"{key}.0", h, pooled if len(kept) % (blocks + 1) == 0 else same)
        if has(f"{key}.1.qkv"):
            h = attention(f"{key}.1", h)
        kept.append(h)
    h = block("middle_block.2", attention("middle_block.1", block("middle_block.0", h)))
    for i in range(len(kept)):
        key = f"output_blocks.{i}"
        h = block(f"{key}.0", torch.cat([h, kept.pop()], dim=1))
        for place in (f"{key}.1", f"{key}.2"):
            if has(f"{place}.qkv"):
                h = attention(place, h)
            if has(f"{place}.conv"):
                h = convolved(f"{place}.conv", repeated(h), padding=1)
            if has(f"{place}.in_layers.0"):
                h = block(place, h, repeated)
    return convolved("out.2", swish(normed("out.0", h)), padding=1)
