"""A second NCSN++ and DDPM++ of score_sde's and of EDM's layouts: functions of the tensors' names.

They share nothing with the package's: no modules, filters by shifted sums, each family's own order of filter and
convolution.  The sisters that there are recordings of, without the filter (1, 3, 3, 1)/8, hold them to the official
code; then they say what NCSN++ should give, of which there is none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]

#: Taps of the filter with sum 1: of the networks with the filter, and of those without.
FIR, BOX = (1 / 8, 3 / 8, 3 / 8, 1 / 8), (1 / 2, 1 / 2)


def filtered(h: Tensor, taps: tuple[float, ...], before: int, after: int) -> Tensor:
    """Both axes filtered, inside that many zeros at either end."""
    padded = F.pad(h, (before, after, before, after))
    height, width = (n - len(taps) + 1 for n in padded.shape[-2:])
    down = sum(tap * padded[..., i : i + height, :] for i, tap in enumerate(taps))
    return sum(tap * down[..., j : j + width] for j, tap in enumerate(taps))


def halved(h: Tensor, taps: tuple[float, ...]) -> Tensor:
    """Filtered, every second pixel."""
    each = (len(taps) - 1) // 2
    return filtered(h, taps, each, each)[..., ::2, ::2]


def doubled(h: Tensor, taps: tuple[float, ...]) -> Tensor:
    """A zero after every pixel, filtered, times four."""
    spread = h.new_zeros(*h.shape[:-2], 2 * h.shape[-2], 2 * h.shape[-1])
    spread[..., ::2, ::2] = h
    missing = len(taps) - 1
    return 4 * filtered(spread, taps, missing - missing // 2, missing // 2)


def swish(h: Tensor) -> Tensor:
    return h * h.sigmoid()


def normed(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    groups = h.reshape(len(h), min(32, h.shape[1] // 4), -1)
    mean, variance = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, unbiased=False)
    h = ((groups - mean) / (variance + 1e-6).sqrt()).reshape(h.shape)
    return h * weight[:, None, None] + bias[:, None, None]


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head; each (B, C, H, W)."""
    flat_q, flat_k, flat_v = (each.flatten(2) for each in (q, k, v))
    weights = (flat_q.mT @ flat_k / math.sqrt(q.shape[1])).softmax(-1)
    return (flat_v @ weights.mT).reshape(q.shape)


def sinusoids(state: State, frequencies: str, told: Tensor, width: int) -> Tensor:
    """Sines and cosines at the frequencies of that name, or at DDPM's where there are none."""
    if frequencies in state:
        angles = 2 * math.pi * told[:, None] * state[frequencies]
    else:
        steps = torch.arange(width // 2, dtype=told.dtype) / (width // 2 - 1)
        angles = told[:, None] / 10_000**steps
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def score_sde(
    state: State, x: Tensor, told: Tensor, *, levels: int, blocks: int, attending: Collection[int]
) -> Tensor:
    """What the numbered layers make of images x (B, 3, H, W) in [-1, 1], told one number each; not over sigma.

    attending: the levels of resolution that attend, 0 the highest.
    """
    number, half = iter(range(10**6)), math.sqrt(0.5)
    taps = FIR if any("Conv2d_0" in key for key in state) else BOX

    def tensor(key: str) -> Tensor:
        return state[f"all_modules.{key}"]

    def has(key: str) -> bool:
        return f"all_modules.{key}" in state

    def dense(key: str, h: Tensor) -> Tensor:
        return h @ tensor(f"{key}.weight").T + tensor(f"{key}.bias")

    def convolved(key: str, h: Tensor, **options: int) -> Tensor:
        return F.conv2d(h, tensor(f"{key}.weight"), tensor(f"{key}.bias"), **options)

    def norm(key: str, h: Tensor) -> Tensor:
        return normed(h, tensor(f"{key}.weight"), tensor(f"{key}.bias"))

    def block(h: Tensor, move=lambda h: h) -> Tensor:
        key = next(number)
        inner = convolved(f"{key}.Conv_0", move(swish(norm(f"{key}.GroupNorm_0", h))), padding=1)
        inner = inner + dense(f"{key}.Dense_0", swish(embedding))[..., None, None]
        inner = convolved(f"{key}.Conv_1", swish(norm(f"{key}.GroupNorm_1", inner)), padding=1)
        h = move(h)
        return (
            inner + (convolved(f"{key}.Conv_2", h) if has(f"{key}.Conv_2.weight") else h)
        ) * half

    def attention(h: Tensor) -> Tensor:
        key = next(number)

        def nin(which: int, h: Tensor) -> Tensor:
            mixed = torch.einsum("bihw,io->bohw", h, tensor(f"{key}.NIN_{which}.W"))
            return mixed + tensor(f"{key}.NIN_{which}.b")[:, None, None]

        inner = norm(f"{key}.GroupNorm_0", h)
        return (h + nin(3, attended(*(nin(which, inner) for which in range(3))))) * half

    def smaller(image: Tensor) -> Tensor:
        """The pyramid's: filter, then a convolution of stride 2; or the convolution alone, a zero at the far ends."""
        key = next(number)
        if taps is FIR:
            return convolved(f"{key}.Conv2d_0", filtered(image, FIR, 2, 2), stride=2)
        return convolved(f"{key}.Conv_0", F.pad(image, (0, 1, 0, 1)), stride=2)

    fourier = has("0.W")
    if fourier:
        next(number)
    width = tensor(f"{1 if fourier else 0}.weight").shape[1]
    embedding = sinusoids(state, "all_modules.0.W", told, width)
    embedding = dense(f"{next(number)}", embedding)
    embedding = dense(f"{next(number)}", swish(embedding))
    kept, image = [convolved(f"{next(number)}", x, padding=1)], x
    for level in range(levels):
        for _ in range(blocks):
            h = block(kept[-1])
            kept.append(attention(h) if level in attending else h)
        if level < levels - 1:
            h = block(kept[-1], lambda h: halved(h, taps))
            if fourier:
                h = image = (smaller(image) + h) * half
            kept.append(h)
    h = block(attention(block(kept[-1])))
    for level in reversed(range(levels)):
        for _ in range(blocks + 1):
            h = block(torch.cat([h, kept.pop()], dim=1))
        if level in attending:
            h = attention(h)
        if level:
            h = block(h, lambda h: doubled(h, taps))
    h = swish(norm(f"{next(number)}", h))
    h = convolved(f"{next(number)}", h, padding=1)
    assert not kept and not has(f"{next(number)}.weight")
    return h


def edm(
    state: State,
    x: Tensor,
    told: Tensor,
    augmented: Tensor | None = None,
    classes: Tensor | None = None,
) -> Tensor:
    """What EDM's layers make of images x (B, 3, H, W), told one number each; in the order of their keys.

    augmented: (B, 9), what it is told of the augmentation; classes: (B, n), one-hot.
    """
    half = math.sqrt(0.5)
    taps = FIR if any("aux_residual" in key for key in state) else BOX

    def has(key: str) -> bool:
        return f"{key}.weight" in state

    def linear(key: str, h: Tensor) -> Tensor:
        return h @ state[f"{key}.weight"].T + state.get(f"{key}.bias", torch.zeros(()))

    def convolved(key: str, h: Tensor) -> Tensor:
        weight = state[f"{key}.weight"]
        return F.conv2d(h, weight, state[f"{key}.bias"], padding=weight.shape[-1] // 2)

    def norm(key: str, h: Tensor) -> Tensor:
        return normed(h, state[f"{key}.weight"], state[f"{key}.bias"])

    def residual(key: str, image: Tensor) -> Tensor:
        """Convolution, then filter, as the fused layer does; the bias comes last."""
        wide = F.conv2d(image, state[f"{key}.weight"], padding=2)
        return filtered(wide, FIR, 0, 0)[..., ::2, ::2] + state[f"{key}.bias"][:, None, None]

    def block(key: str, h: Tensor) -> Tensor:
        def move(h: Tensor) -> Tensor:
            if key.endswith("_down"):
                return halved(h, taps)
            return doubled(h, taps) if key.endswith("_up") else h

        inner = convolved(f"{key}.conv0", move(swish(norm(f"{key}.norm0", h))))
        inner = inner + linear(f"{key}.affine", embedding)[..., None, None]
        inner = convolved(f"{key}.conv1", swish(norm(f"{key}.norm1", inner)))
        h = move(h)
        h = (inner + (convolved(f"{key}.skip", h) if has(f"{key}.skip") else h)) * half
        if not has(f"{key}.qkv"):
            return h
        q, k, v = (convolved(f"{key}.qkv", norm(f"{key}.norm2", h))[:, i::3] for i in range(3))
        return (h + convolved(f"{key}.proj", attended(q, k, v))) * half

    embedding = sinusoids(state, "map_noise.freqs", told, state["map_layer0.weight"].shape[1])
    if classes is not None:
        embedding = embedding + linear("map_label", classes * math.sqrt(classes.shape[1]))
    if augmented is not None:
        embedding = embedding + linear("map_augment", augmented)
    embedding = swish(linear("map_layer1", swish(linear("map_layer0", embedding))))
    kept, image = [], x
    for key in parts(state, "enc"):
        if key.endswith("_conv"):
            kept.append(convolved(key, x))
        elif key.endswith("_aux_residual"):
            kept[-1] = image = (kept[-1] + residual(key, image)) * half
        else:
            kept.append(block(key, kept[-1]))
    h = kept[-1]
    for key in parts(state, "dec"):
        if key.endswith("_aux_norm"):
            h = swish(norm(key, h))
        elif key.endswith("_aux_conv"):
            h = convolved(key, h)
        else:
            joins = len(state[f"{key}.norm0.weight"]) != h.shape[1]
            h = block(key, torch.cat([h, kept.pop()], dim=1) if joins else h)
    assert not kept
    return h


def parts(state: State, side: str) -> Iterator[str]:
    """``enc.32x32_conv`` .. in the order in which the state has them."""
    yield from dict.fromkeys(
        ".".join(key.split(".")[:2]) for key in state if key.startswith(f"{side}.")
    )
