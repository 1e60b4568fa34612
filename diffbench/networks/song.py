r"""Song et al.'s U-Nets: DDPM, DDPM++, NCSN++, EDM's variants of them and reflected diffusion's.

    h_0 = conv(x)                                           kept
    down   at every resolution: [down, + pyramid(x), kept]; then blocks, each of them kept
    middle block with attention, block
    up     at every resolution: [up]; then blocks of [h, the one kept last], one more than on the way down
    F   = conv(silu(norm(h)))

Everything that is kept is used once. With a pyramid, p = x at first, the smaller image is added at each halving:

    p <- h <- s (pyramid(p) + h),     s = 1/sqrt(2), or 1

At a resolution where the blocks on the way down attend, only the last block on the way up does. Sources:
``diffbench.specs.networks.song``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from diffbench.networks.network import Network
from diffbench.networks.parts import check_halvings
from diffbench.networks.resampling import (
    DOWN,
    UP,
    DoubledConvolution,
    FilteredConvolution,
    StridedConvolution,
)
from diffbench.networks.song_parts import (
    EMBEDDINGS,
    SMALL,
    Attention,
    Embedding,
    ResidualBlock,
    convolution,
    normalisation,
    started,
)
from diffbench.specs.networks.song import SongSpec


class Blocks:
    """The maker of one network's residual blocks, with what they have in common."""

    def __init__(self, spec: SongSpec) -> None:
        self.spec = spec
        self.scale = math.sqrt(0.5) if spec.rescaled else 1.0
        self.embedding = 4 * spec.channels

    def __call__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        attends: bool = False,
        resample: nn.Module | None = None,
    ) -> ResidualBlock:
        """A new block, with or without attention after it."""
        spec = self.spec
        return ResidualBlock(
            in_channels,
            out_channels,
            self.embedding,
            Attention(out_channels, spec.heads, self.scale) if attends else nn.Identity(),
            dropout=spec.dropout,
            scale=self.scale,
            resample=resample,
        )


class Untold(nn.Module):
    """A layer that is called with (h, e) and does not use e."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Sequential(*layers)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        changed: Tensor = self.layer(h)
        return changed


#: A function of blocks and their width that makes a change of resolution, a layer called with (h, e).
Change = Callable[[Blocks, int], nn.Module]


def around(filtering: Callable[[], nn.Module]) -> Change:
    """The change of resolution by a residual block around a filter."""
    return lambda blocks, width: blocks(width, width, resample=filtering())


def smaller(blocks: Blocks, width: int) -> nn.Module:
    """The halving by a convolution of stride 2."""
    return Untold(StridedConvolution(width, width))


def larger(blocks: Blocks, width: int) -> nn.Module:
    """The doubling that makes 2 x 2 equal pixels of every pixel, then applies a convolution."""
    # The first of two, by which the second's weights have the names they had.
    return Untold(nn.Identity(), started(DoubledConvolution(width, width)))


DOWNWARD: dict[str, Change] = {name: around(each) for name, each in DOWN.items()}
UPWARD: dict[str, Change] = {name: around(each) for name, each in UP.items()}
DOWNWARD["convolution"], UPWARD["convolution"] = smaller, larger

PYRAMIDS: dict[str, Callable[[int, int], nn.Module | None]] = {
    "none": lambda in_channels, out_channels: None,
    "fir": FilteredConvolution,
    "convolution": StridedConvolution,
}


class LevelDown(nn.Module):
    """One resolution on the way down; it appends its results to ``kept``."""

    def __init__(
        self,
        change: nn.Module | None,
        pyramid: nn.Module | None,
        blocks: Iterable[nn.Module],
        scale: float,
    ) -> None:
        super().__init__()
        self.change, self.pyramid, self.scale = change, pyramid, scale
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, h: Tensor, small: Tensor, e: Tensor, kept: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The features h and the pyramid's image at this resolution, from those at the previous one."""
        if self.change is not None:
            h = self.change(h, e)
            if self.pyramid is not None:
                h = small = (self.pyramid(small) + h) * self.scale
            kept.append(h)
        for block in self.blocks:
            h = block(h, e)
            kept.append(h)
        return h, small


class LevelUp(nn.Module):
    """One resolution on the way up; it takes the last tensors of ``kept``."""

    def __init__(self, change: nn.Module | None, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.change, self.blocks = change, nn.ModuleList(blocks)

    def forward(self, h: Tensor, e: Tensor, kept: list[Tensor]) -> Tensor:
        if self.change is not None:
            h = self.change(h, e)
        for block in self.blocks:
            h = block(torch.cat([h, kept.pop()], dim=1), e)
        return h


class Song(Network):
    """The network of a ``SongSpec``.

    Raises:
        ValueError: when H or W is no multiple of 2^(resolutions - 1).
    """

    def __init__(
        self,
        spec: SongSpec,
        *,
        image_shape: tuple[int, int, int],
        in_channels: int,
        out_channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        height = image_shape[1]
        check_halvings(spec, image_shape)
        blocks = Blocks(spec)
        widths = [spec.channels * multiplier for multiplier in spec.multipliers]
        attends = [height >> level in spec.attention for level in range(len(widths))]
        noise_embedding = EMBEDDINGS[spec.embedding](spec.channels)
        self.embedding = Embedding(noise_embedding, blocks.embedding, classes, spec.augmentation)
        self.enter = convolution(in_channels, spec.channels)
        kept = [spec.channels]
        self.down = nn.ModuleList(self._downward(blocks, widths, attends, in_channels, kept))
        deepest = widths[-1]
        self.middle = nn.ModuleList(
            [blocks(deepest, deepest, attends=True), blocks(deepest, deepest)]
        )
        self.up = nn.ModuleList(self._upward(blocks, widths, attends, kept))
        self.leave = nn.Sequential(
            normalisation(widths[0]), nn.SiLU(), convolution(widths[0], out_channels, gain=SMALL)
        )

    @staticmethod
    def _downward(
        blocks: Blocks, widths: list[int], attends: list[bool], in_channels: int, kept: list[int]
    ) -> Iterator[LevelDown]:
        spec, small = blocks.spec, in_channels
        for level, width in enumerate(widths):
            before, change, pyramid = kept[-1], None, None
            if level:
                change = DOWNWARD[spec.resampling](blocks, before)
                pyramid, small = PYRAMIDS[spec.pyramid](small, before), before
                kept.append(before)
            ins = [before] + [width] * (spec.blocks - 1)
            each = [blocks(channels, width, attends=attends[level]) for channels in ins]
            kept += [width] * spec.blocks
            yield LevelDown(change, pyramid, each, blocks.scale)

    @staticmethod
    def _upward(
        blocks: Blocks, widths: list[int], attends: list[bool], kept: list[int]
    ) -> Iterator[LevelUp]:
        spec, before = blocks.spec, widths[-1]
        for level in reversed(range(len(widths))):
            change = None if level == len(widths) - 1 else UPWARD[spec.resampling](blocks, before)
            each = []
            for index in range(spec.blocks + 1):
                last_block = index == spec.blocks
                each.append(
                    blocks(
                        before + kept.pop(), widths[level], attends=attends[level] and last_block
                    )
                )
                before = widths[level]
            yield LevelUp(change, each)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        y: Tensor | None = None,
        raw: Tensor | None = None,
        augmented: Tensor | None = None,
    ) -> Tensor:
        """The raw network output (B, out_channels, H, W).

        ``augmented`` (B, augmentation) says by numbers how each image was augmented; None is 0 for all.
        """
        e = self.embedding(c_noise, y, augmented)
        h, small = self.enter(x), x
        kept = [h]
        for level in self.down:
            h, small = level(h, small, e, kept)
        for block in self.middle:
            h = block(h, e)
        for level in self.up:
            h = level(h, e, kept)
        found: Tensor = self.leave(h)
        return found
