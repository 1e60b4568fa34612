"""Pictures of images in grey levels: a PNG with a grid of images, enlarged without smoothing."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from diffbench.data.grey_levels import Images


def grid_array(images: Images, count: int, side: int = 560, columns: int | None = None) -> Images:
    """Return a grid of images, uint8 (N, H, W, C) in grey levels 0..count-1, as uint8 (height, width, C) in 0..255.

    Images are enlarged by a whole factor, so that a row of them is about ``side`` pixels wide; without a number
    of ``columns`` the grid is square.
    """
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    scale = max(1, side // (columns * (width + 1)))
    scaled = np.round(images * (255 / (count - 1))).astype(np.uint8)
    scaled = scaled.repeat(scale, axis=1).repeat(scale, axis=2)
    cell_height, cell_width = height * scale + scale, width * scale + scale
    picture = np.full(
        (rows * cell_height + scale, columns * cell_width + scale, channels), 96, np.uint8
    )
    for i, image in enumerate(scaled):
        top, left = (i // columns) * cell_height + scale, (i % columns) * cell_width + scale
        picture[top : top + height * scale, left : left + width * scale] = image
    return picture


def grid_png(images: Images, count: int, columns: int | None = None) -> bytes:
    """Return the grid as a PNG file's bytes."""
    picture = grid_array(images, count, columns=columns)
    buffer = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[2] == 1 else picture).save(buffer, "PNG")
    return buffer.getvalue()
