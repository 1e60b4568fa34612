"""Specs of the processes that blur: blurring diffusion and inverse heat dissipation."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from diffbench.specs.base import Float, LevelCount, NonNegativeFloat, PositiveFloat
from diffbench.specs.processes.continuous import VPCosineSpec
from diffbench.specs.processes.process import ProcessSpec, increasing


class BlurringSpec(VPCosineSpec):
    """Blurring diffusion (Hoogeboom & Salimans 2023): the cosine schedule's noise, and blur by heat dissipation.

    The blur's width in pixels rises to ``sigma_max`` as sin^2(pi t/2) or sin(pi t/2) (``schedule``); it scales no
    coordinate by less than ``d_min``.  At ``sigma_max`` 0 it is vp-cosine.
    """

    name: Literal["blurring"] = "blurring"  # type: ignore[assignment]
    implementation: ClassVar[str] = "diffbench.diffusion.processes.heat:Blurring"
    keeps: ClassVar[Literal["signal", "power", ""]] = ""
    alpha: ClassVar[Literal["scalar", "vector"]] = "vector"
    facts: ClassVar[tuple[Literal["image_shape", "images"], ...]] = ("image_shape",)

    schedule: Literal["sin2", "sin"] = "sin2"
    sigma_max: NonNegativeFloat = 20.0
    d_min: Annotated[PositiveFloat, Field(lt=1)] = 0.001


class IHDMSpec(ProcessSpec):
    """Inverse heat dissipation (Rissanen, Heinonen & Solin 2023): blur in levels, under constant noise.

    ``levels`` of blur have widths from ``blur_min`` to ``blur_max`` pixels, ``geometric``, as in the paper, or
    ``linear``; time 0 is the first level, and the data are below it.  ``sigma`` is the noise of every level, in
    units of the data range, which is [0, 1].
    """

    name: Literal["ihdm"] = "ihdm"
    implementation: ClassVar[str] = "diffbench.diffusion.processes.heat:IHDM"
    time: ClassVar[Literal["discrete", "continuous"]] = "discrete"
    alpha: ClassVar[Literal["scalar", "vector"]] = "vector"
    written_for: ClassVar[float] = 0.5
    noise: ClassVar[Literal["growing", "constant"]] = "constant"
    views: ClassVar[tuple[str, ...]] = ("mean",)
    viewless: ClassVar[str] = (
        "its network predicts the level before, and an image cannot be computed from its blur"
    )
    facts: ClassVar[tuple[Literal["image_shape", "images"], ...]] = ("image_shape", "images")

    low: Float = 0.0
    high: Float = 1.0
    levels: LevelCount = 200
    blur_min: PositiveFloat = 0.5
    blur_max: PositiveFloat = 24.0
    spacing: Literal["geometric", "linear"] = "geometric"
    sigma: PositiveFloat = 0.01

    _blurs_increase = model_validator(mode="after")(increasing("blur_min", "blur_max"))

    @property
    def steady(self) -> float:
        return self.sigma

    @property
    def t_max(self) -> float:
        """The last level."""
        return self.levels - 1.0
