"""A published reference: the statistics, and perhaps the images, that a paper's own evaluation compares with.

    mu (d,), sigma (d, d)         mean and covariance of the features of the whole training set
    mu_s, sigma_s                 the same of the features of sFID; not in every file
    arr_0 (N, H, W, C) uint8      training images, which precision and recall compare with; not in every file

Sources: guided-diffusion's `VIRTUAL_*_labeled.npz` has both, with 10,000 images (Dhariwal & Nichol 2021,
https://github.com/openai/guided-diffusion, evaluations); EDM's `fid-refs/*.npz` has only statistics (Karras et al.
2022, https://github.com/NVlabs/edm).  Both are of Inception's 2,048 features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffbench.data.grey_levels import Images
from diffbench.specs.errors import told
from diffbench.store.image_files import TORN

KEYS, SPATIAL_KEYS = ("mu", "sigma"), ("mu_s", "sigma_s")


@dataclass(frozen=True)
class Batch:
    """The content of a published reference.

    statistics: ``mu`` (d,) and ``sigma`` (d, d), float64.
    images: uint8 (N, H, W, C), or None.
    opinions: the statistics of further metrics: of ``sfid``, where the file has them.
    """

    statistics: dict[str, NDArray[np.float64]]
    images: Images | None
    opinions: Mapping[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)


def read_batch(
    file: Path, features: int, shape: tuple[int, int, int], spatial: int | None = None
) -> Batch:
    """Read a published reference.

    Args:
        file: an npz file.
        features: the number of features d.
        shape: the shape (H, W, C) of an image.
        spatial: the number of features of sFID; None when its statistics are not wanted.

    Raises:
        ValueError: when it is no npz file, or its arrays are of other features or images.
    """
    keys = (*KEYS, "arr_0", *(() if spatial is None else SPATIAL_KEYS))
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in keys if key in archive}
    except (ValueError, *TORN) as error:
        raise ValueError(
            f"extractor.reference: {file} is not a complete npz file ({told(error)})"
        ) from None
    statistics = _statistics(file, arrays, KEYS, features)
    opinions = {}
    if spatial is not None and SPATIAL_KEYS[0] in arrays:
        opinions["sfid"] = _statistics(file, arrays, SPATIAL_KEYS, spatial)
    images = arrays.get("arr_0")
    if images is not None and (images.dtype != np.uint8 or images.shape[1:] != shape):
        raise ValueError(
            f"extractor.reference: {file} has images arr_0 of {images.dtype} {images.shape[1:]}, but those of the "
            f"data set are uint8 {shape}"
        )
    return Batch(statistics, images, opinions)


def _statistics(
    file: Path, arrays: Mapping[str, NDArray[np.generic]], keys: tuple[str, str], features: int
) -> dict[str, NDArray[np.float64]]:
    shapes = {"mu": (features,), "sigma": (features, features)}
    return {
        name: _array(file, arrays, key, shapes[name])
        for name, key in zip(shapes, keys, strict=True)
    }


def _array(
    file: Path, arrays: Mapping[str, NDArray[np.generic]], key: str, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    found = arrays.get(key)
    if found is None or found.shape != shape or found.dtype.kind != "f":
        what = "no array" if found is None else f"{found.dtype} {found.shape}"
        raise ValueError(
            f"extractor.reference: {file} has {what} {key}, but must have an array of {shape}"
        )
    values = found.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"extractor.reference: {file} has numbers in {key} that are not finite")
    return values
