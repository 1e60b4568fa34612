"""Specs of the controls: rows of a table that no model made, to compare the other rows with."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from diffbench.specs.base import Int, Registered, nothing
from diffbench.specs.data import SHA256, Listing


class ControlSpec(Registered):
    """A source of images that is not a model."""

    kind: ClassVar[str] = "control"

    name: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Files and folders that the images are read from, relative to the working directory."""
        return ()

    @property
    def listing(self) -> Listing:
        """How the images are found there."""
        return Listing(flat=True)

    @property
    def planned_contents(self) -> str | None:
        """The SHA-256 of the files' contents that a plan has added; None where it has not."""
        return None

    @property
    def known_by_path(self) -> bool:
        """Whether its images are known by their path alone, until a plan adds the SHA-256 of their contents."""
        return False

    def at(self, path: str | None, contents: str | None) -> Self:
        """Return the control with its images at a path, or of some contents; itself where it reads no files."""
        return self


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
    contents: the SHA-256 over the sorted names and the SHA-256 of all files, which a plan adds in place of the path:
        results belong to it.
    """

    name: Literal["images"] = "images"
    implementation: ClassVar[str] = "diffbench.data.controls:ImagesControl"

    path: str | None
    levels: Annotated[Int, Field(ge=2, le=256)] = 256
    lossy: bool = False
    contents: Annotated[SHA256 | None, BeforeValidator(nothing)] = Field(
        default=None, exclude_if=lambda value: value is None
    )

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.path is None and self.contents is None:
            raise ValueError("path: none; it must be a folder, zip, tar or npz of images")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The path, where it is known."""
        return () if self.path is None else (self.path,)

    @property
    def listing(self) -> Listing:
        """An npz, or picture files."""
        is_npz = self.path is not None and self.path.endswith(".npz")
        return Listing(("*.npz",) if is_npz else (), flat=True)

    @property
    def planned_contents(self) -> str | None:
        return self.contents

    @property
    def known_by_path(self) -> bool:
        return self.contents is None

    def at(self, path: str | None, contents: str | None) -> Self:
        return self.model_copy(update={"path": path, "contents": contents})
