"""Specs of the controls: rows of a table that no model made, to compare the other rows with."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from diffbench.specs.base import Int, Registered


class ControlSpec(Registered):
    """A source of images that is not a model."""

    kind: ClassVar[str] = "control"

    name: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Files and folders that the images are read from, relative to the working directory."""
        return ()


class SplitControlSpec(ControlSpec):
    """Images of a split: all of them when there are fewer than wanted, else a draw without repeats."""

    name: Literal["split"] = "split"
    implementation: ClassVar[str] = "diffbench.data.controls:SplitControl"

    split: Literal["train", "test"]


class NoiseControlSpec(ControlSpec):
    """Noise: every pixel is uniform over the grey levels."""

    name: Literal["noise"] = "noise"
    implementation: ClassVar[str] = "diffbench.data.controls:NoiseControl"


class ImagesControlSpec(ControlSpec):
    """Images that were made elsewhere: the samples of another method, drawn in any framework.

    All of them are scored when there are fewer than wanted, else a draw without repeats.

    path: a folder, zip or tar of PNGs, or an npz with one array of images, uint8 (N, H, W, C) or (N, H, W).
    levels: their number of grey levels: values 0 .. levels-1 are converted to those of the data set.
    lossy: whether JPEG and WebP files may be among them.
    """

    name: Literal["images"] = "images"
    implementation: ClassVar[str] = "diffbench.data.controls:ImagesControl"

    path: str
    levels: Annotated[Int, Field(ge=2, le=256)] = 256
    lossy: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """The path."""
        return (self.path,)
