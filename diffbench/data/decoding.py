"""Image files as arrays of grey levels.

    bytes -> uint8 (H, W, 1) or (H, W, 3), cut to the centred square and resized where a size is wanted

PNG is what images are kept in.  JPEG and WebP lose detail and leave blocks that a model would learn and a score
would see: they are read only where the configuration says ``lossy: true``.  Resizing is Pillow's bicubic filter, which
is antialiased; the square is cut first.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from diffbench.data.levels import Images
from diffbench.store.status import one_line

LOSSLESS = ("PNG",)
LOSSY = ("JPEG", "WEBP")
#: Pillow's mode of a file -> the mode it is read in.  What has transparency or more than 8 bits is refused.
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
#: What is read, by whether the configuration allows loss.
FORMATS = {False: LOSSLESS, True: LOSSLESS + LOSSY}
KINDS = {1: "grey (1 channel)", 3: "RGB (3 channels)"}


@dataclass(frozen=True)
class Decoder:
    """How files become arrays.

    Attributes:
        size: the side of the square that images are cropped and resized to; None leaves them as they are.
        channels: 1 or 3, which all images must have; None takes either.
        formats: Pillow's names of the formats that are read.
    """

    size: int | None = None
    channels: int | None = None
    formats: tuple[str, ...] = LOSSLESS

    def read(self, content: bytes, name: str) -> Images:
        """Decode one image, uint8 (H, W, C).

        Args:
            content: the file.
            name: what messages call it.

        Raises:
            ValueError: when it is torn, of another format or kind.
        """
        try:
            # Pillow warns of large images and refuses larger ones; either is a reason to stop here.
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                return self._read(content)
        except _RefusedError as error:
            raise ValueError(f"{name} {error}") from None
        except (OSError, SyntaxError, ValueError, *_BOMBS) as error:
            reason = one_line(error).replace("<_io.BytesIO object at", "<")
            raise ValueError(f"{name} is no whole image ({reason})") from None

    def _read(self, content: bytes) -> Images:
        with Image.open(io.BytesIO(content), formats=(*LOSSLESS, *LOSSY)) as image:
            if image.format not in self.formats:
                raise _RefusedError(_other_format(str(image.format)))
            if image.mode not in MODES:
                raise _RefusedError(f"has mode {image.mode}: images must be 8-bit grey or RGB")
            if "transparency" in image.info:
                raise _RefusedError("has transparent pixels: images must be 8-bit grey or RGB")
            converted = image.convert(MODES[image.mode])
        if self.size is not None:
            converted = square(converted, self.size)
        array = np.asarray(converted, dtype=np.uint8)
        array = array if array.ndim == 3 else array[..., None]
        if self.channels not in (None, array.shape[2]):
            raise _RefusedError(
                f"is {KINDS[array.shape[2]]}: {KINDS[self.channels or 0]} is wanted"
            )
        return array


class _RefusedError(Exception):
    """What a file is that is not wanted."""


_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def _other_format(found: str) -> str:
    return (
        f"is {found}, not PNG, whatever its name says: its artefacts would be learnt and scored; make "
        "PNGs from the lossless originals, or say `lossy: true`"
    )


def square(image: Image.Image, size: int) -> Image.Image:
    """The centred square of an image, resized."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    # Cropped first: given a box, Pillow's filter would read pixels outside it.
    cut = image.crop((left, top, left + side, top + side))
    return cut.resize((size, size), Image.Resampling.BICUBIC)


def describe(shape: tuple[int, ...]) -> str:
    """The size of an image in words."""
    height, width, channels = shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"


class Splits:
    """Arrays of a train and a test split that images go to one by one, so that a set is in memory once.

    Args:
        train, test: how many images each will have.
    """

    def __init__(self, train: int, test: int) -> None:
        self.counts = {"train": train, "test": test}
        self.filled = dict.fromkeys(self.counts, 0)
        self.arrays: dict[str, Images] = {}
        self.first = ""

    @property
    def train(self) -> Images:
        """The training images, uint8 (N, H, W, C)."""
        return self.arrays["train"]

    @property
    def test(self) -> Images:
        """The test images, uint8 (N, H, W, C)."""
        return self.arrays["test"]

    def add(self, split: str, image: Images, name: str) -> None:
        """Take the next image of a split.

        Raises:
            ValueError: when it has another shape than the first of all.
        """
        if not self.arrays:
            self.first = name
            self.arrays = {
                each: np.empty((count, *image.shape), np.uint8)
                for each, count in self.counts.items()
            }
        shape = self.train.shape[1:]
        if image.shape != shape:
            raise ValueError(
                f"{name} is {describe(image.shape)} but {self.first} is {describe(shape)}: all must "
                "have one number of channels and one size (`size:` crops and resizes)"
            )
        self.arrays[split][self.filled[split]] = image
        self.filled[split] += 1
