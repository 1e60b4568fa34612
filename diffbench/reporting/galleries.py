"""A figure of images: each row shows the same images as the rows above it, as another method made them.

A gallery is panes, and a pane is rows of images in grey levels; a row may have no images and say why.  The CSV has one
row a picture, with its PSNR to the picture in the pane's first row.  The same gallery gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from diffbench.reporting.charts import COLUMNS, Point, annotate, picture, row
from diffbench.reporting.formats import csv_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGE_INCHES = 0.42
FOOT_INCHES = 0.13
#: Inches for a letter of a row's label, for a pane's title, and for the figure's title and note.
LETTER_INCHES, HEAD_INCHES, AROUND_INCHES = 0.07, 0.35, 0.8
#: Height in inches for the title and the note.
NARROWEST_INCHES = 4.0
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
        columns = max(1, min(len(self.panes), self.abreast))
        rows = max(1, -(-len(self.panes) // columns))
        width, height = self._pane_inches()
        size = max(width * columns, NARROWEST_INCHES), height * rows + AROUND_INCHES
        return picture(size, self.title, len(self.panes), columns, self._draw)

    def plot(self) -> None:
        """Return None: pictures are shown as they are."""

    def _draw(self, figure: Figure, grid: Sequence[Axes]) -> None:
        for axes, pane in zip(grid, self.panes, strict=True):
            _draw(axes, pane, self.grey_levels)
        annotate(figure, self.note)

    def _pane_inches(self) -> tuple[float, float]:
        """Return the width and height in inches that the largest pane needs."""
        labels = [len(each.label) for pane in self.panes for each in pane.rows]
        across = max((pane.shape[0] for pane in self.panes), default=1)
        down = max((len(pane.rows) for pane in self.panes), default=1)
        lines = max((foot.count("\n") + 1 for pane in self.panes for foot in pane.feet), default=0)
        width = max(labels, default=1) * LETTER_INCHES + across * IMAGE_INCHES
        return width + HEAD_INCHES, down * IMAGE_INCHES + lines * FOOT_INCHES + HEAD_INCHES


def _draw(axes: Axes, pane: Pane, grey_levels: int) -> None:
    height = pane.shape[1] + 1
    axes.imshow(mosaic(pane, grey_levels), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    middles = [index * height + height / 2 for index in range(len(pane.rows))]
    axes.set_yticks(middles, [each.label for each in pane.rows], fontsize="x-small")
    width = pane.shape[2] + 1
    axes.set_xticks([])
    # Text, not ticks: the layout measures a tick's label several times.
    below: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": "x-small"}
    for index, foot in enumerate(pane.feet):
        axes.text((index + 0.5) * width, (len(pane.rows) + 0.15) * height, foot, **below)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_anchor("N")
    axes.set_title(pane.name, fontsize="small")
    for middle, each in zip(middles, pane.rows, strict=True):
        if each.images is None:
            centre = pane.shape[0] * width / 2
            axes.text(centre, middle, each.status, ha="center", va="center", fontsize="x-small")


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
