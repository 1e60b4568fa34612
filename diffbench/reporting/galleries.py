"""A figure of images: each row shows the same images as the rows above it, as another method made them.

A gallery is panes, and a pane is rows of images in grey levels; a row may have no images and say why.  The CSV has one
row a picture, with its PSNR to the picture in the pane's first row.  The same gallery gives the same bytes: it is put
together from its images and words, in pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, ClassVar

from diffbench.reporting.charts import COLUMNS, Point, row
from diffbench.reporting.formats import csv_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

#: The largest size of an image with the line beside it, in pixels; smaller images have whole pixels.
IMAGE = 84
#: Heights of letters in pixels: of the figure's title, of a pane's, and of labels, feet and the note.
TITLE, NAME, LABEL = 28, 23, 19
#: Between panes, and between images and words, in pixels; the height of a line over that of its letters.
GAP, NEAR, LEADING = 40, 8, 1.25
NARROWEST = 800
#: The mean width of a letter over its height.
LETTER = 0.58
#: Grey value of the space between images, and of a row without images.
BETWEEN, LACKING = 96, 225
SMALLEST_MSE = 1e-10


@dataclass(frozen=True)
class ImageRow:
    """Images, uint8 (N, H, W, C) in grey levels, or why there are none; ``seeds`` as in ``Point``."""

    label: str
    images: Any | None
    status: str = "ok"
    note: str = ""


@dataclass(frozen=True)
class Pane:
    """Rows of the same images, the true ones first; ``feet`` are words below each column."""

    name: str
    rows: Sequence[ImageRow]
    feet: Sequence[str] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (N, H, W, C) of the rows that have images; (1, 1, 1, 1) where no row has any."""
        return next(
            (each.images.shape for each in self.rows if each.images is not None), (1, 1, 1, 1)
        )


@dataclass(frozen=True)
class Gallery:
    """A whole figure of images; ``grey_levels`` is the number of grey levels."""

    title: str
    panes: Sequence[Pane]
    grey_levels: int
    note: str = ""
    #: The largest number of panes side by side.
    abreast: ClassVar[int] = 3

    def csv(self, name: str) -> str:
        """Return the PSNR of each picture, computed from its grey levels, as CSV."""
        rows = [
            row(name, pane.name, each.label, point)
            for pane in self.panes
            for each in pane.rows[1:]
            for point in self._points(pane.rows[0], each)
        ]
        return csv_of(rows, COLUMNS)

    def _points(self, truth: ImageRow, shown: ImageRow) -> Iterator[Point]:
        if shown.images is None or truth.images is None:
            yield Point(None, status=shown.status, note=shown.note)
            return
        errors = (shown.images.astype(float) - truth.images) / (self.grey_levels - 1)
        for index, error in enumerate((errors**2).mean((1, 2, 3))):
            psnr = -10 * math.log10(max(float(error), SMALLEST_MSE))
            yield Point(float(index), psnr, seeds=1, status=shown.status, note=shown.note)

    def png(self) -> bytes:
        """Return the picture as the bytes of a PNG file."""
        from PIL import Image, ImageDraw

        cell, columns = self._cell(), max(1, min(len(self.panes), self.abreast))
        rows = -(-len(self.panes) // columns)
        width = max(cell.width * columns + GAP, NARROWEST)
        note = wrap(self.note, int((width - 2 * GAP) / (LETTER * LABEL)))
        head, foot = GAP + TITLE, NEAR + _height(note, LABEL) + NEAR
        whole = Image.new(cell.mode, (width, head + rows * cell.height + foot), "white")
        pen = ImageDraw.Draw(whole)
        pen.text((width / 2, 2 * NEAR), self.title, "black", _font(TITLE), "ma")
        left = (width - cell.width * columns - GAP) // 2 + GAP
        for index, pane in enumerate(self.panes):
            down, across = divmod(index, columns)
            corner = left + across * cell.width, head + down * cell.height
            _draw(whole, pen, pane, corner, cell.labels, self.grey_levels)
        _write(pen, (width / 2, whole.height - foot + NEAR), note)
        content = io.BytesIO()
        whole.save(content, "png")
        return content.getvalue()

    def plot(self) -> None:
        """Return None: pictures are shown as they are."""

    def _cell(self) -> Cell:
        """Return the room that the largest pane needs."""
        rows = [each for pane in self.panes for each in pane.rows]
        labels = max((_font(LABEL).getlength(each.label) for each in rows), default=0)
        sizes = [_size(pane) for pane in self.panes] or [(0, 0)]
        names = max((_font(NAME).getlength(pane.name) for pane in self.panes), default=0)
        lines = max((foot.count("\n") + 1 for pane in self.panes for foot in pane.feet), default=0)
        labels, images = (
            math.ceil(labels) + NEAR,
            max(max(size[0] for size in sizes), math.ceil(names)),
        )
        feet = _height([""] * lines, LABEL) + (NEAR if lines else 0)
        down = _height([""], NAME) + NEAR + max(size[1] for size in sizes) + feet + GAP // 2
        coloured = any(pane.shape[3] == 3 for pane in self.panes)
        return Cell(labels, labels + images + GAP, down, "RGB" if coloured else "L")


@dataclass(frozen=True)
class Cell:
    """The room of a pane in pixels, and of its labels; ``mode`` is Pillow's, of grey or coloured pictures."""

    labels: int
    width: int
    height: int
    mode: str


def _draw(
    whole: Image, pen: ImageDraw, pane: Pane, corner: tuple[int, int], labels: int, grey_levels: int
) -> None:
    """Draw a pane: its name, its images, a label beside each row and words below each column."""
    from PIL import Image

    (left, top), (width, height) = corner, _size(pane)
    left += labels
    pen.text((left + width / 2, top), pane.name, "black", _font(NAME), "ma")
    top += _height([""], NAME) + NEAR
    small, scale = Image.fromarray(mosaic(pane, grey_levels)), _scale(pane)
    kind = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    whole.paste(small.resize((width, height), kind), (left, top))
    step = scale * (pane.shape[1] + 1)
    for index, each in enumerate(pane.rows):
        middle = top + (index + 0.5) * step + scale / 2
        pen.text((left - NEAR, middle), each.label, "black", _font(LABEL), "rm")
        if each.images is None:
            pen.text((left + width / 2, middle), each.status, "black", _font(LABEL), "mm")
    for index, foot in enumerate(pane.feet):
        across = left + (index + 0.5) * scale * (pane.shape[2] + 1) + scale / 2
        _write(pen, (across, top + height + NEAR), foot.splitlines())


def _scale(pane: Pane) -> float:
    """Return the size of a pane's pixels in pixels of the figure: a whole number, or below 1."""
    scale = IMAGE / (max(pane.shape[1:3]) + 1)
    return int(scale) if scale >= 1 else scale


def _size(pane: Pane) -> tuple[int, int]:
    """Return the width and height in pixels of a pane's images."""
    count, height, width, _ = pane.shape
    sides = count * (width + 1) + 1, len(pane.rows) * (height + 1) + 1
    return round(sides[0] * _scale(pane)), round(sides[1] * _scale(pane))


def _write(pen: ImageDraw, middle: tuple[float, float], lines: Sequence[str]) -> None:
    """Write lines of words below a place, each in its middle."""
    for index, line in enumerate(lines):
        at = middle[0], middle[1] + _height([""] * index, LABEL)
        pen.text(at, line, "black", _font(LABEL), "ma")


def _height(lines: Sequence[str], letters: int) -> int:
    return math.ceil(len(lines) * letters * LEADING)


@cache
def _font(letters: int) -> FreeTypeFont:
    """Return matplotlib's own font, which charts are labelled with."""
    import matplotlib as mpl
    from PIL import ImageFont

    path = Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), letters)


def mosaic(pane: Pane, grey_levels: int) -> Any:
    """Return a pane's images as one, uint8 (height, width) or (height, width, 3) in 0..255, with lines between them."""
    import numpy as np

    count, height, width, channels = pane.shape
    shape = len(pane.rows) * (height + 1) + 1, count * (width + 1) + 1, channels
    whole = np.full(shape, BETWEEN, np.uint8)
    for down, each in enumerate(pane.rows):
        top = down * (height + 1) + 1
        if each.images is None:
            whole[top : top + height, 1:-1] = LACKING
            continue
        scaled = np.round(each.images * (255 / (grey_levels - 1))).astype(np.uint8)
        for across, image in enumerate(scaled):
            left = across * (width + 1) + 1
            whole[top : top + height, left : left + width] = image
    return whole[..., 0] if channels == 1 else whole
