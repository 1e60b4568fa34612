"""Spec of the imported weights that a variant has in place of training."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from diffbench.specs.base import NonNegativeInt, PositiveInt, Spec
from diffbench.specs.data import SHA256


class PretrainedSpec(Spec):
    """A folder that ``diffbench import`` wrote; ``pretrained: FOLDER`` is short for ``pretrained: {folder: FOLDER}``.

    folder: relative to the working directory.
    channels_last, threads: of the network's arithmetic, as in a training budget; its precision is in ``sampling``.

    The folder gives the other keys.  A configuration may repeat them, to fix which weights it means, and they must
    agree.

    family: of the checkpoint.
    checkpoint, weights: SHA-256 of the official file, and of ``model.safetensors``.
    ema: whether the weights are averages; None where this is not known.
    image_shape, classes: the images and the number of classes that the network is for.
    """

    folder: str
    channels_last: bool = False
    threads: PositiveInt = 1
    family: str
    checkpoint: SHA256
    weights: SHA256
    ema: bool | None
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    classes: NonNegativeInt

    @model_validator(mode="before")
    @classmethod
    def _precision_has_moved(cls, value: Any) -> Any:
        if isinstance(value, dict) and "precision" in value:
            raise ValueError(
                f"precision: {value['precision']!r} has moved: write `sampling: {{precision: ..}}` beside "
                "`pretrained`"
            )
        return value

    def refusal(self, shape: tuple[int, int, int] | None, classes: int, data: str) -> str | None:
        """Return why the model does not fit a data set's images; None when it fits, as far as is known.

        Args:
            shape: (channels, height, width) of the images; None where it is not known yet.
            classes: the number of classes of the images; 0 where it is not known yet.
            data: the name of the data set.
        """
        if shape is not None and shape != self.image_shape:
            return (
                f"folder: {self.folder} is a model of {_size(self.image_shape)}, but the data set {data} has "
                f"{_size(shape)}"
            )
        if self.classes and classes and classes != self.classes:
            return (
                f"folder: {self.folder} is a model of {self.classes} classes, but the data set {data} has "
                f"{classes}"
            )
        return None


def _size(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{height}x{width} images with {channels} channel{'s' if channels > 1 else ''}"
