"""What a plan sees of a data set's image files without decoding any of them.

    seen      how many there are, their classes, the shape of the first: of the listing, at every plan
    faults    which of them cannot be used: of the first bytes of each, when a benchmark file is checked

What only a decoder finds, such as a file that ends early, the data stage says, again all at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from diffbench.specs.data import DataSpec, ImageFilesSpec
from diffbench.specs.errors import PlanError
from diffbench.store.image_files import ImageFiles, find_images
from diffbench.store.picture_files import Faults, PictureError, fault, png_shape


@dataclass(frozen=True)
class Seen:
    """Listed images: their number and that of their classes, the shape (C, H, W) of the first, what is left out.

    The shape is None where it is not a PNG.
    """

    images: int
    classes: int
    shape: tuple[int, int, int] | None
    notes: tuple[str, ...]


def seen(data: DataSpec) -> dict[str, Seen]:
    """Return what lies at each path of a data set's image files; empty of other sets, or where nothing is there yet.

    Raises:
        PlanError: when it is not laid out as a data set.
    """
    found = {}
    for key, path in data.pictures.items():
        place = Path(path)
        if place.exists():
            try:
                found[key] = _seen(place, place.stat().st_mtime_ns)
            except (ValueError, OSError) as error:
                raise PlanError(f"data.{key}: {error}") from None
    return found


@lru_cache(maxsize=4)
def _seen(path: Path, _time: int) -> Seen:
    """Return what is seen; it is kept until the time of the path changes."""
    found = find_images(path)
    first = png_shape(found.files.start(found.names[0])[0]) if found.names else None
    return Seen(len(found.names), len(found.classes), first, found.notes)


def classes_of(data: DataSpec) -> int:
    """Return the number of classes: known, or that of listed images; 0 where not known yet."""
    if data.known_classes is not None:
        return data.known_classes
    found = seen(data).get("path")
    return found.classes if found else 0


def tests_of(data: DataSpec) -> tuple[str, int] | None:
    """Return the number of test images, and the key that says so; None where it is not known yet."""
    return data.tests_of({key: each.images for key, each in seen(data).items()})


def shape_of(data: DataSpec) -> tuple[int, int, int] | None:
    """Return the images' (channels, height, width): known, or those of the first listed image; None where not yet."""
    found = None if data.known_shape else seen(data).get("path")
    if found is None or found.shape is None or not isinstance(data, ImageFilesSpec):
        return data.known_shape
    channels, height, width = found.shape
    return data.channels or channels, data.size or height, data.size or width


def remarks(data: DataSpec) -> list[str]:
    """Return remarks on what is left out of a data set."""
    return [
        f"{data.pictures[key]}: {note}" for key, each in seen(data).items() for note in each.notes
    ]


def faults(data: DataSpec) -> Faults:
    """Return which image files cannot be used, as far as their first bytes say."""
    found = Faults()
    for path in data.pictures.values():
        if Path(path).exists():
            listed = find_images(Path(path))
            for name in listed.names:
                with found.one(f"{path}/{name}"):
                    _look(listed, name, f"{path}/{name}", data.formats)
    return found


def _look(listed: ImageFiles, name: str, where: str, formats: tuple[str, ...]) -> None:
    if reason := fault(*listed.files.start(name), formats):
        raise PictureError(where, reason)
