"""Specs of the operators H of inverse problems y = H x + noise: how an image was degraded.

``refusal(image_shape)`` returns why images (C, H, W) cannot be degraded so, or None.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from diffbench.specs.base import Int, NonNegativeInt, PositiveFloat, PositiveInt, Registered

#: (channels, height, width)
ImageShape = tuple[int, int, int]
Share = Annotated[PositiveFloat, Field(lt=1)]


class OperatorSpec(Registered):
    """An operator H of any kind.

    ``facts`` are the arguments of its class besides the spec: the ``image_shape`` and, where the measurement depends on
    the data range, its ends ``low`` and ``high``; a matrix does not depend on it.
    """

    kind: ClassVar[str] = "operator"
    facts: ClassVar[tuple[str, ...]] = ("image_shape",)
    #: Whether H is a matrix, with singular values.
    linear: ClassVar[bool] = True
    #: Whether it keeps some pixels as they are and loses the others.
    masks_pixels: ClassVar[bool] = False
    #: The width of the range of measurements, where it is not that of images.
    span: ClassVar[float | None] = None

    name: str

    def refusal(self, image_shape: ImageShape) -> str | None:
        """Return why images (C, H, W) cannot be degraded so; None when they can."""
        return None


AnyOperator = Annotated[SerializeAsAny[OperatorSpec], BeforeValidator(OperatorSpec.choose)]


class IdentitySpec(OperatorSpec):
    """Denoising: every pixel is measured."""

    name: Literal["identity"] = "identity"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.selections:Denoising"


class MaskSpec(OperatorSpec):
    """Inpainting: some pixels are measured, in all channels."""

    masks_pixels: ClassVar[bool] = True


class RandomMaskSpec(MaskSpec):
    """A share ``missing`` of the pixels, chosen by ``seed``, is lost."""

    name: Literal["random-mask"] = "random-mask"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.selections:RandomMask"

    missing: Share = 0.5
    seed: NonNegativeInt = 0

    def refusal(self, image_shape: ImageShape) -> str | None:
        """Some pixels must be lost and some measured."""
        pixels = image_shape[1] * image_shape[2]
        lost = self.lost(image_shape)
        if 0 < lost < pixels:
            return None
        return (
            f"missing: {self.missing} loses {lost} of the {pixels} pixels of an image; it must lose some and "
            "keep some"
        )

    def lost(self, image_shape: ImageShape) -> int:
        """Return the number of pixels that are lost."""
        return round(self.missing * image_shape[1] * image_shape[2])


class BoxMaskSpec(MaskSpec):
    """A box of ``height`` x ``width`` pixels is lost, its corner at (``top``, ``left``); in the middle by default."""

    name: Literal["box-mask"] = "box-mask"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.selections:BoxMask"

    height: PositiveInt
    width: PositiveInt
    top: NonNegativeInt | None = None
    left: NonNegativeInt | None = None

    def refusal(self, image_shape: ImageShape) -> str | None:
        """The box must lie in the image, and leave something of it."""
        _, rows, columns = image_shape
        top, left = self.corner(image_shape)
        if top + self.height > rows or left + self.width > columns or min(top, left) < 0:
            return (
                f"height, width: a box of {self.height}x{self.width} at ({top}, {left}) "
                f"does not lie in an image of {rows}x{columns}"
            )
        if (self.height, self.width) == (rows, columns):
            return f"height, width: a box of {rows}x{columns} leaves nothing of the image"
        return None

    def corner(self, image_shape: ImageShape) -> tuple[int, int]:
        """Return the first row and the first column that are lost."""
        _, rows, columns = image_shape
        top = (rows - self.height) // 2 if self.top is None else self.top
        left = (columns - self.width) // 2 if self.left is None else self.left
        return top, left


class DrawnMaskSpec(MaskSpec):
    """A mask drawn in ``rows``, one text a row: ``#`` is a pixel that is lost, ``.`` one that is measured."""

    name: Literal["mask"] = "mask"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.selections:DrawnMask"

    rows: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_a_mask(self) -> Self:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.rows[0]) or not row or set(row) - set("#."):
                raise ValueError(
                    f"rows: row {index}, {row!r}, must be {len(self.rows[0])} of '#' (lost) and '.' (measured)"
                )
        if len(set("".join(self.rows))) == 1:
            raise ValueError("rows: both '#' (lost) and '.' (measured) are needed")
        return self

    def refusal(self, image_shape: ImageShape) -> str | None:
        """The mask must be of the image's size."""
        _, height, width = image_shape
        if (len(self.rows), len(self.rows[0])) == (height, width):
            return None
        return f"rows: a mask of {len(self.rows)}x{len(self.rows[0])} does not fit images of {height}x{width}"


class ColourisationSpec(OperatorSpec):
    """The mean of the three channels is measured."""

    name: Literal["colourisation"] = "colourisation"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.selections:Colourisation"

    def refusal(self, image_shape: ImageShape) -> str | None:
        """Images must have several channels."""
        if image_shape[0] > 1:
            return None
        return "name: colourisation needs images of several channels, and these have one"


class FactorSpec(OperatorSpec):
    """Super-resolution: ``factor`` x ``factor`` pixels become one."""

    factor: Annotated[Int, Field(ge=2)]

    def refusal(self, image_shape: ImageShape) -> str | None:
        """The factor must divide height and width."""
        _, height, width = image_shape
        if height % self.factor == 0 and width % self.factor == 0:
            return None
        return f"factor: {self.factor} does not divide images of {height}x{width}"


class BlockAverageSpec(FactorSpec):
    """The mean of each block is measured."""

    name: Literal["block-average"] = "block-average"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.selections:BlockAverage"


class BicubicSpec(FactorSpec):
    """A smaller image is sampled by the cubic kernel of Keys with a = -0.5, widened by ``factor``.

    kernel: ``cubic``, or another kernel of ILVR's code: ``linear``, or Lanczos's with two or three lobes.
    """

    name: Literal["bicubic"] = "bicubic"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.separable:Bicubic"

    kernel: Literal["cubic", "linear", "lanczos2", "lanczos3"] = "cubic"


class BlurSpec(OperatorSpec):
    """Convolution with a kernel of ``size`` taps a side, zeros outside the image.

    smallest: singular values below this share of the largest are 0 (0.03 in DDRM).
    """

    size: Annotated[Int, Field(ge=3)]
    smallest: Annotated[PositiveFloat, Field(lt=1)] = 0.03

    @model_validator(mode="after")
    def _is_odd(self) -> Self:
        if self.size % 2 == 0:
            raise ValueError(f"size: {self.size} must be odd, so that the kernel has a middle")
        return self


class UniformBlurSpec(BlurSpec):
    """Blur by a kernel of equal taps."""

    name: Literal["uniform-blur"] = "uniform-blur"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.separable:UniformBlur"


class GaussianBlurSpec(BlurSpec):
    """Blur by a Gaussian of standard deviation ``std`` pixels."""

    name: Literal["gaussian-blur"] = "gaussian-blur"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.separable:GaussianBlur"

    std: PositiveFloat


class AnisotropicBlurSpec(BlurSpec):
    """Blur by a Gaussian of different widths along the two axes.

    std_rows, std_columns: the standard deviations down the rows and along the columns, in pixels.
    """

    name: Literal["anisotropic-blur"] = "anisotropic-blur"
    implementation: ClassVar[str] = (
        "diffbench.diffusion.inverse.operators.separable:AnisotropicBlur"
    )

    std_rows: PositiveFloat
    std_columns: PositiveFloat


class CompressedSensingSpec(OperatorSpec):
    """A share ``measured`` of each channel's Walsh-Hadamard coefficients of randomly permuted pixels.

    ``seed`` chooses the permutation and the coefficients.  Without ``shuffle`` the pixels keep their order, as in
    DDRM's code, and the coefficients are the same.
    """

    name: Literal["compressed-sensing"] = "compressed-sensing"
    implementation: ClassVar[str] = (
        "diffbench.diffusion.inverse.operators.selections:CompressedSensing"
    )

    measured: Share = 0.25
    seed: NonNegativeInt = 0
    shuffle: bool = True

    def refusal(self, image_shape: ImageShape) -> str | None:
        """The number of pixels must be 2^k, the size of a Hadamard matrix."""
        pixels = image_shape[1] * image_shape[2]
        if pixels & (pixels - 1):
            return f"name: compressed-sensing needs 2^k pixels, and these images have {pixels}"
        if self.coefficients(image_shape) == 0:
            return (
                f"measured: {self.measured} of {pixels} coefficients is less than one coefficient"
            )
        return None

    def coefficients(self, image_shape: ImageShape) -> int:
        """Return the number of coefficients of a channel that are measured."""
        return round(self.measured * image_shape[1] * image_shape[2])


class MRISpec(OperatorSpec):
    """Cartesian MRI: lines of the unitary Fourier transform.

    Of the rows of k-space one in ``acceleration`` is measured: the ``centre`` share around frequency 0, and others
    chosen by ``seed``.
    """

    name: Literal["mri"] = "mri"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.fourier:MRI"

    acceleration: Annotated[PositiveFloat, Field(gt=1)] = 4.0
    centre: Share = 0.08
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _has_room_for_the_centre(self) -> Self:
        if self.centre * self.acceleration > 1:
            raise ValueError(
                f"centre: {self.centre} of the rows is more than the one in {self.acceleration} that acceleration "
                "measures"
            )
        return self


class CTSpec(OperatorSpec):
    """Parallel-beam CT: line integrals along ``angles`` directions evenly spaced in half a turn.

    The directions are every n-th of the ``full`` directions of a complete scan.  Where a method needs the inverse of
    the transform, it is the pseudo-inverse of the complete scan.
    """

    name: Literal["ct"] = "ct"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.radon:CT"

    angles: PositiveInt = 6
    full: PositiveInt = 24

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.full % self.angles:
            raise ValueError(f"angles: {self.angles} must divide full, {self.full}")
        return self

    def refusal(self, image_shape: ImageShape) -> str | None:
        """Images may have at most 64x64 pixels: V has a row and a column for each."""
        _, height, width = image_shape
        if height * width <= 64 * 64:
            return None
        return (
            f"name: ct needs images of at most 64x64 pixels, and these images have {height}x{width}"
        )


class JPEGSpec(OperatorSpec):
    """JPEG's quantisation of 8x8 blocks at ``quality``; it is not linear, and it is its own pseudo-inverse.

    Images have one channel or three; three are coded as YCbCr, with chroma at half the size.
    """

    name: Literal["jpeg"] = "jpeg"
    implementation: ClassVar[str] = "diffbench.diffusion.inverse.operators.jpeg:JPEG"
    facts: ClassVar[tuple[str, ...]] = ("image_shape", "low", "high")
    linear: ClassVar[bool] = False
    span: ClassVar[float | None] = 255.0

    quality: Annotated[Int, Field(ge=1, le=100)] = 10

    def refusal(self, image_shape: ImageShape) -> str | None:
        """Images must consist of whole blocks, and have one channel or three."""
        channels, height, width = image_shape
        block = 8 if channels == 1 else 16
        if channels not in (1, 3):
            return f"name: jpeg needs 1 or 3 channels, and these images have {channels}"
        if height % block or width % block:
            return f"name: jpeg needs whole blocks of {block}x{block} pixels, and these images have {height}x{width}"
        return None
