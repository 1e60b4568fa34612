"""Specs of networks: their sizes, their input features, and the sizes that are refused.

A Fourier frequency f adds sin(2 pi f x) and cos(2 pi f x) of every pixel x, in data units [-1, 1],
to the input. With L grey levels the grid has spacing 2/(L - 1), so f = (L - 1)/2 is one period per
level: 8 for 17 levels, 127.5 for 256.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from diffbench.specs.base import Fraction, NonNegativeInt, PositiveFloat, PositiveInt, Registered

#: A 3x3 convolution of c channels to c has 9 c^2 weights of 4 bytes: of 2^14 channels 9.7 GB, four times that with
#: its gradient and Adam's averages.
Channels = Annotated[PositiveInt, Field(le=2**14)]
#: The papers' deepest networks have 32 blocks at a resolution.
Blocks = Annotated[PositiveInt, Field(le=2**10)]


def sizes_divide(spec: Any) -> Any:
    """Validate that ``inner_channels`` suits pixel shuffle and heads, and that ``embedding`` is even."""
    if spec.inner_channels % 4 or (spec.heads and spec.inner_channels % spec.heads):
        raise ValueError(
            f"inner_channels must be a multiple of 4 and of heads ({spec.heads}), "
            f"not {spec.inner_channels}"
        )
    if spec.embedding % 2:
        raise ValueError(f"embedding must be even, not {spec.embedding}")
    return spec


Shape = tuple[int, int, int]


class Halving:
    """What halves images a number of times."""

    name: str

    @property
    def halvings(self) -> int:
        """How often the network halves the image."""
        return 0

    def halving_refusal(self, shape: Shape) -> str | None:
        """Return why the network cannot work on images (C, H, W); None when it can."""
        _, height, width = shape
        factor, once = 2**self.halvings, self.halvings == 1
        if height % factor == 0 and width % factor == 0:
            return None
        times = "once" if once else f"{self.halvings} times"
        wanted = "must be even" if once else f"must be multiples of {factor}"
        return (
            f"{self.name} halves the image {times}: height and width {wanted}, not {height}x{width}; resize the images "
            f"to {factor * -(-max(height, width) // factor)} pixels, or choose a network that halves less"
        )

    def refusal(self, shape: Shape) -> str | None:
        """Return why the network cannot work on images (C, H, W) as it is configured; None when it can."""
        return self.halving_refusal(shape)


class NetworkSpec(Halving, Registered):
    """A network F(x, c_noise, y)."""

    kind: ClassVar[str] = "network"
    #: Whether it is told a class label, and whether it may have other numbers of channels in and out than an image has.
    labels: ClassVar[bool] = True
    channels_vary: ClassVar[bool] = True

    name: str

    @property
    def augmentation_labels(self) -> int:
        """How many numbers tell the network how an image was augmented."""
        return 0


class ResolutionsSpec(NetworkSpec):
    """A network that works at several resolutions, each half the one before.

    multipliers: the width of each resolution.
    attention: heights (pixels) of the images that blocks attend over.
    """

    multipliers: tuple[float, ...]
    attention: tuple[PositiveInt, ...]

    @property
    def halvings(self) -> int:
        """One less than there are resolutions."""
        return len(self.multipliers) - 1

    def refusal(self, shape: Shape) -> str | None:
        """Return why the network cannot work on images (C, H, W) as it is configured; None when it can."""
        if reason := self.halving_refusal(shape):
            return f"multipliers: {reason}"
        heights = [shape[1] >> level for level in range(self.halvings + 1)]
        # Those of a default are for the paper's images.
        stated = self.attention if "attention" in self.model_fields_set else ()
        if idle := [height for height in stated if height not in heights]:
            return (
                f"attention: {idle[0]} has no effect: on {shape[1]}x{shape[2]} images {self.name} works at heights of "
                f"{', '.join(map(str, heights))}"
            )
        return None


class ClassifierNetworkSpec(Halving, Registered):
    """A network that gives the logits of p(y | x_t) from (x, c_noise)."""

    kind: ClassVar[str] = "classifier network"
    default_name: ClassVar[str | None] = "encoder"

    name: str


class EncoderSpec(ClassifierNetworkSpec):
    """A classifier of noisy images: the encoder half of ``unet``, pooled.

    channels, inner_channels, heads, embedding, dropout: as in ``unet``.
    """

    name: Literal["encoder"] = "encoder"
    implementation: ClassVar[str] = "diffbench.networks.classifier:Encoder"

    channels: Channels = 16
    inner_channels: Channels = 48
    heads: PositiveInt = 2
    embedding: PositiveInt = 64
    dropout: Fraction = 0.1

    _sizes_divide = model_validator(mode="after")(sizes_divide)

    @property
    def halvings(self) -> int:
        """One: most of the work is at half the resolution."""
        return 1


class UNetSpec(NetworkSpec):
    """A small U-Net of two resolutions, with most of its work at half the resolution.

    channels: width at full resolution.
    inner_channels: width at half resolution; a multiple of 4 (pixel shuffle) and of `heads`.
    heads: attention heads at half resolution; 0 for no attention.
    embedding: width of the embedding of noise level and class; even.
    position_embedding: a learnt offset per pixel at both resolutions (one image size).
    fourier: frequencies f of the input features (see the module); none by default.
    dropout: probability inside the residual blocks.
    """

    name: Literal["unet"] = "unet"
    implementation: ClassVar[str] = "diffbench.networks.unet:UNet"

    channels: Channels = 16
    inner_channels: Channels = 48
    heads: NonNegativeInt = 2
    embedding: PositiveInt = 64
    position_embedding: bool = True
    fourier: tuple[PositiveFloat, ...] = ()
    dropout: Fraction = 0.0

    _sizes_divide = model_validator(mode="after")(sizes_divide)

    @property
    def halvings(self) -> int:
        """One: most of the work is at half the resolution."""
        return 1
