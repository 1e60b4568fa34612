"""Grids of images: every pixel where it belongs."""

import io

import numpy as np
import pytest
from PIL import Image

from diffbench.data.pictures import grid_array, grid_png


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_stands_in_its_cell_enlarged_without_smoothing(channels):
    levels = np.random.default_rng(0).integers(0, 17, (5, 4, 6, channels), dtype=np.uint8)
    picture = grid_array(levels, 17, side=42)  # three columns: 42 // (3 * 7) = 2 pixels a level
    scale = 2
    for i, image in enumerate(levels):
        top, left = (i // 3) * (4 * scale + scale) + scale, (i % 3) * (6 * scale + scale) + scale
        cell = picture[top : top + 4 * scale : scale, left : left + 6 * scale : scale]
        assert np.array_equal(cell, np.round(image * (255 / 16)))


def test_the_png_decodes_to_the_grid():
    levels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    decoded = np.asarray(Image.open(io.BytesIO(grid_png(levels, 17))))
    assert np.array_equal(decoded, grid_array(levels, 17)[..., 0])
