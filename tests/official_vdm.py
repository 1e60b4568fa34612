"""A second VDM of Reflected-Diffusion's layout: a function of the tensors' names, and the shapes that it has.

It shares nothing with the package's: images in [0, 1] as they are, features channel by channel, of float32
frequencies as there, norms by hand.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def shapes_of(
    width: int = 128, blocks: int = 32, frequencies: int = 2, channels: int = 3
) -> Shapes:
    """Every key and its shape, in the official order; the frequencies' own is a buffer."""
    found: Shapes = {}

    def layer(key: str, *shape: int) -> None:
        found[f"{key}.weight"], found[f"{key}.bias"] = shape, shape[:1]

    def block(key: str, entering: int) -> None:
        layer(f"{key}.conv1", width, entering, 3, 3)
        layer(f"{key}.conv2", width, width, 3, 3)
        layer(f"{key}.norm1", entering)
        layer(f"{key}.norm2", width)
        if entering != width:
            layer(f"{key}.skip", width, entering, 1, 1)
        found[f"{key}.cond_map.weight"] = (width, 4 * width)

    layer("cond_map.0", 4 * width, width)
    layer("cond_map.2", 4 * width, 4 * width)
    if frequencies:
        found["image_fourier.freqs"] = (frequencies,)
    layer("conv_in", width, channels * (1 + 2 * frequencies), 3, 3)
    for i in range(blocks):
        block(f"enc.{i}", width)
    block("mid1", width)
    layer("midattn.norm", width)
    layer("midattn.qkv", 3 * width, width, 1, 1)
    layer("midattn.proj_out", width, width, 1, 1)
    block("mid2", width)
    for i in range(blocks + 1):
        block(f"dec.{i}", 2 * width)
    layer("out.0", width)
    layer("out.2", channels, width, 3, 3)
    return found


def output_of(
    state: dict[str, Tensor], x: Tensor, sigma: Tensor, smallest: float, largest: float
) -> Tensor:
    """The score of images x (B, C, H, W) in [0, 1] at sigma (B,), of a process between two of them."""

    def column(values: Tensor) -> Tensor:
        return values[..., None, None]

    def linear(key: str, h: Tensor) -> Tensor:
        return h @ state[f"{key}.weight"].T + state.get(f"{key}.bias", torch.zeros(()))

    def convolved(key: str, h: Tensor) -> Tensor:
        weight = state[f"{key}.weight"]
        return F.conv2d(h, weight, state[f"{key}.bias"], padding=weight.shape[-1] // 2)

    def swish(h: Tensor) -> Tensor:
        return h * h.sigmoid()

    def normed(key: str, h: Tensor) -> Tensor:
        groups = h.reshape(len(h), 32, -1)
        mean, variance = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, unbiased=False)
        h = ((groups - mean) / (variance + 1e-6).sqrt()).reshape(h.shape)
        return h * column(state[f"{key}.weight"]) + column(state[f"{key}.bias"])

    def block(key: str, h: Tensor) -> Tensor:
        inner = convolved(f"{key}.conv1", swish(normed(f"{key}.norm1", h)))
        inner = swish(normed(f"{key}.norm2", inner + column(linear(f"{key}.cond_map", embedding))))
        skip = convolved(f"{key}.skip", h) if f"{key}.skip.weight" in state else h
        return skip + convolved(f"{key}.conv2", inner)

    half = state["cond_map.0.weight"].shape[1] // 2
    share = (sigma - smallest) / (largest - smallest)
    steps = torch.arange(half, dtype=x.dtype) / (half - 1)
    angles = 1000 * share[:, None] / 10_000**steps
    embedding = linear("cond_map.0", torch.cat([angles.sin(), angles.cos()], dim=1))
    embedding = linear("cond_map.2", swish(embedding))
    channels = [x[:, i : i + 1] for i in range(x.shape[1])]
    waves = [
        kind(torch.tensor(2 * math.pi * frequency, dtype=torch.float32).to(x) * channel)
        for kind in (torch.sin, torch.cos)
        for channel in channels
        for frequency in state.get("image_fourier.freqs", torch.zeros(0)).tolist()
    ]
    kept = [convolved("conv_in", torch.cat([x, *waves], dim=1))]
    while f"enc.{len(kept) - 1}.conv1.weight" in state:
        kept.append(block(f"enc.{len(kept) - 1}", kept[-1]))
    h = block("mid1", kept[-1])
    q, k, v = (
        convolved("midattn.qkv", normed("midattn.norm", h))[:, i::3].flatten(2) for i in range(3)
    )
    mixed = (v @ (q.mT @ k / math.sqrt(q.shape[1])).softmax(-1).mT).reshape(h.shape)
    h = block("mid2", h + convolved("midattn.proj_out", mixed))
    for i in range(len(kept)):
        h = block(f"dec.{i}", torch.cat([h, kept.pop()], dim=1))
    return convolved("out.2", swish(normed("out.0", h))) / column(sigma)[:, None]
