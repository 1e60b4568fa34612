"""Specs of the data sets."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from diffbench.specs.base import Fraction, Int, PositiveInt, Registered, nothing


class DataSpec(Registered):
    """A data set: images in grey levels 0..levels-1 with a fixed train/test split."""

    kind: ClassVar[str] = "data"
    levels: ClassVar[int]

    name: str

    @property
    def known_classes(self) -> int | None:
        """The number of classes, 1 where there are none; None where it is known only once data are read."""
        return None

    @property
    def known_shape(self) -> tuple[int, int, int] | None:
        """The images' (channels, height, width); None where they are known only once data are read."""
        return None

    @property
    def folder(self) -> str | None:
        """The folder that the images are read from, relative to the working directory."""
        return None


class DigitsSpec(DataSpec):
    """scikit-learn's digits: 1,797 real images, 8x8, 17 grey levels, ten classes."""

    name: Literal["digits"] = "digits"
    implementation: ClassVar[str] = "diffbench.data.datasets:Digits"
    levels: ClassVar[int] = 17

    test: Annotated[PositiveInt, Field(lt=1797)] = 297
    seed: Int = 0

    @property
    def known_classes(self) -> int | None:
        """Ten."""
        return 10

    @property
    def known_shape(self) -> tuple[int, int, int]:
        """Grey."""
        return 1, 8, 8


class PatchesSpec(DataSpec):
    """Patches of scikit-learn's two sample photographs: 16x16, RGB, 256 levels, 32 classes.

    A class is a cell of the 4x4 grid into which each photograph is cut.
    """

    name: Literal["patches"] = "patches"
    implementation: ClassVar[str] = "diffbench.data.patches:Patches"
    levels: ClassVar[int] = 256

    @property
    def known_classes(self) -> int | None:
        """Sixteen of each photograph."""
        return 32

    @property
    def known_shape(self) -> tuple[int, int, int]:
        """Colour."""
        return 3, 16, 16


class FolderSpec(DataSpec):
    """A folder of PNGs, in class sub-folders or not; ``size`` crops to a square and resizes."""

    name: Literal["folder"] = "folder"
    implementation: ClassVar[str] = "diffbench.data.datasets:ImageFolder"
    levels: ClassVar[int] = 256

    path: str
    size: Annotated[PositiveInt | None, BeforeValidator(nothing)] = None
    test_fraction: Fraction = 0.1
    seed: Int = 0

    @property
    def folder(self) -> str | None:
        """``path``."""
        return self.path
