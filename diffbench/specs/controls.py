"""Specs of the controls: rows of a table that no model made, to compare the other rows with."""

from __future__ import annotations

from typing import ClassVar, Literal

from diffbench.specs.base import Registered


class ControlSpec(Registered):
    """A source of images that is not a model."""

    kind: ClassVar[str] = "control"

    name: str


class SplitControlSpec(ControlSpec):
    """Images of a split: all of them when there are fewer than wanted, else a draw without repeats."""

    name: Literal["split"] = "split"
    implementation: ClassVar[str] = "diffbench.data.controls:SplitControl"

    split: Literal["train", "test"]


class NoiseControlSpec(ControlSpec):
    """Noise: every pixel is uniform over the grey levels."""

    name: Literal["noise"] = "noise"
    implementation: ClassVar[str] = "diffbench.data.controls:NoiseControl"
