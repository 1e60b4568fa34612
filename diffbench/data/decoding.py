"""Image files as arrays of grey levels.

    bytes -> uint8 (H, W, 1) or (H, W, 3), cropped to the centred square and resized where a size is given

PNG is lossless.  JPEG and WebP lose detail and leave blocks that a model would learn and a score
would measure: they are read only where the configuration says ``lossy: true``.  Resizing uses Pillow's filters, which
are antialiased.  Each way of resizing makes another version of a data set; these are the ways of the official code:

    bicubic, lanczos   the centred square, resized
    bilinear           the shorter side resized, then the centred square
    box-bicubic        halved by a box filter while twice the size is left, then as bilinear, by the bicubic filter
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import ExifTags, Image, ImageOps

from diffbench.data.grey_levels import Images
from diffbench.specs.data import FORMATS, Resize
from diffbench.store.picture_files import HEAD, PNG, Faults, PictureError, fault
from diffbench.store.progress import Step
from diffbench.store.status import one_line

#: Pillow's mode of a file -> the mode it is read in.  Images with transparency or more than 8 bits are refused.
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
KINDS = {1: "grey (1 channel)", 3: "RGB (3 channels)"}
#: What is said of the images that were read in a way that not every program reads them.
TURNED = "turned upright, as their orientation tag says"


@dataclass(frozen=True)
class Decoder:
    """How files become arrays.

    Attributes:
        size: the side of the square that images are cropped and resized to; None leaves them as they are.
        resize: the way of resizing; with None all images must have that size.
        channels: 1 or 3, which all images must have; None takes either.
        formats: Pillow's names of the formats that are read.
    """

    size: int | None = None
    channels: int | None = None
    formats: tuple[str, ...] = FORMATS[False]
    resize: Resize | None = "bicubic"

    def read(self, content: bytes, name: str, done: Counter[str] | None = None) -> Images:
        """Decode one image, uint8 (H, W, C), upright.

        Args:
            content: the bytes of the file.
            name: its name in messages.
            done: where to count the images that were turned.

        Raises:
            PictureError: when it is damaged, or of another format or kind.
        """
        try:
            if reason := fault(content[:HEAD], len(content), self.formats):
                raise _RefusedError(reason)
            # Pillow accepts a PNG whose end is missing if all pixels are there.
            if content.startswith(PNG) and b"IEND" not in content:
                raise _RefusedError("is not a complete image (it has no end)")
            # Pillow warns of large images and refuses larger ones; both are refused here.
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                return self._read(content, Counter() if done is None else done)
        except _RefusedError as error:
            raise PictureError(name, str(error)) from None
        except (OSError, SyntaxError, ValueError, *_BOMBS) as error:
            raise PictureError(name, f"is not a complete image ({_reason(error)})") from None

    def _read(self, content: bytes, done: Counter[str]) -> Images:
        with Image.open(io.BytesIO(content), formats=self.formats) as image:
            if image.mode not in MODES:
                raise _RefusedError(f"has mode {image.mode}: images must be 8-bit grey or RGB")
            if "transparency" in image.info:
                raise _RefusedError("has transparent pixels: images must be 8-bit grey or RGB")
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise _RefusedError(f"is an animation of {frames} pictures: each must be a file")
            turned = image.getexif().get(ExifTags.Base.Orientation) in TURNS
            upright = ImageOps.exif_transpose(image) if turned else image
            converted = upright.convert(MODES[image.mode])
        done.update([TURNED] * turned)
        if self.size is not None:
            converted = self._resized(converted, self.size)
        array = np.asarray(converted, dtype=np.uint8)
        array = array if array.ndim == 3 else array[..., None]
        if self.channels not in (None, array.shape[2]):
            raise _RefusedError(
                f"is {KINDS[array.shape[2]]}, and must be {KINDS[self.channels or 0]}"
            )
        return array

    def _resized(self, image: Image.Image, size: int) -> Image.Image:
        if self.resize is not None:
            return RESIZES[self.resize](image, size)
        if image.size != (size, size):
            raise _RefusedError(
                f"has {image.width}x{image.height} pixels and not {size}x{size}: with `resize: none` or a `version` "
                "images are not resized"
            )
        return image


class _RefusedError(Exception):
    """An image file that is not accepted; the message says what it is."""


#: The values of the tag that mean another orientation than the stored one.
TURNS = range(2, 9)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def _reason(error: Exception) -> str:
    """Return the error in one line; Pillow's about a file that it cannot open names only an object of its own."""
    line = one_line(error)
    return "its header is damaged" if "BytesIO" in line else line


def centre(image: Image.Image, side: int) -> Image.Image:
    """Return the centred square of an image; of an odd number of pixels beside it the smaller half is before it."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def square(image: Image.Image, size: int, by: Image.Resampling) -> Image.Image:
    """Return the centred square of an image, resized."""
    # Cropped first: with its box argument, Pillow's filter would read pixels outside the box.
    return centre(image, min(image.size)).resize((size, size), by)


def bilinear(image: Image.Image, size: int) -> Image.Image:
    """Return an image resized by its shorter side, then cropped to the centred square.

    The longer side is rounded down, as in torchvision.
    """
    short = min(image.size)
    width, height = (size if side == short else size * side // short for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    # Python rounds a half to the even number, as torchvision does.
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def box_bicubic(image: Image.Image, size: int) -> Image.Image:
    """Return an image halved while twice the size is left, resized by its shorter side and cropped to the centre."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    return centre(image.resize((width, height), Image.Resampling.BICUBIC), size)


RESIZES: Mapping[Resize, Callable[[Image.Image, int], Image.Image]] = {
    "bicubic": partial(square, by=Image.Resampling.BICUBIC),
    "lanczos": partial(square, by=Image.Resampling.LANCZOS),
    "bilinear": bilinear,
    "box-bicubic": box_bicubic,
}


def describe(shape: tuple[int, ...]) -> str:
    """Return the size of an image in words."""
    height, width, channels = shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"


class Splits:
    """Arrays of a train and a test split that are filled image by image, so that a set is in memory only once.

    What is wrong with single files is gathered, and said together by ``finish``.

    Args:
        train, test: the number of images in each.
        decoder: how files become arrays.
    """

    def __init__(self, train: int, test: int, decoder: Decoder) -> None:
        self.counts = {"train": train, "test": test}
        self.decoder = decoder
        self.filled = dict.fromkeys(self.counts, 0)
        self.arrays: dict[str, Images] = {}
        self.first = ""
        self.faults = Faults()
        self.done: Counter[str] = Counter()
        self.progress = Step("reading images", train + test, "image")

    @property
    def train(self) -> Images:
        """The training images, uint8 (N, H, W, C)."""
        return self.arrays["train"]

    @property
    def test(self) -> Images:
        """The test images, uint8 (N, H, W, C)."""
        return self.arrays["test"]

    def read(self, split: str, name: str, content: Callable[[], bytes]) -> Images | None:
        """Add the next image of a split and return it; None where its file cannot be used.

        Args:
            split: "train" or "test".
            name: the name of the file in messages.
            content: a function that returns the bytes of the file.
        """
        image: Images | None = None
        with self.faults.one(name):
            image = self.decoder.read(content(), name, self.done)
            self._add(split, image, name)
        return image

    def _add(self, split: str, image: Images, name: str) -> None:
        if not self.arrays:
            self.first = name
            self.arrays = {
                each: np.empty((count, *image.shape), np.uint8)
                for each, count in self.counts.items()
            }
        shape = self.train.shape[1:]
        if image.shape != shape:
            hint = "" if self.decoder.resize is None else " (`size:` crops and resizes)"
            raise PictureError(
                name,
                f"is {describe(image.shape)}, but {self.first} is {describe(shape)}: all images must have one size and "
                f"one number of channels{hint}",
            )
        self.arrays[split][self.filled[split]] = image
        self.filled[split] += 1
        self.progress.advance()

    def finish(self) -> tuple[str, ...]:
        """Return remarks on how the images were read.

        Raises:
            ValueError: when files cannot be used, are damaged, or differ in shape: all of them in one message.
        """
        self.progress.close()
        self.faults.check()
        return tuple(f"{count:,} images were {what}" for what, count in self.done.items())
