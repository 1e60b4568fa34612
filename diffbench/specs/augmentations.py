"""Specs of augmentations: how training images are changed, and how many numbers tell a network of it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, SerializeAsAny

from diffbench.specs.base import Fraction, NonNegativeFloat, Registered, nothing


class AugmentationSpec(Registered):
    """A change of training images of which the network is told, so that it need not make such images itself.

    ``labels`` is how many numbers tell of it: 0 all of them where nothing is changed, and when it samples.
    """

    kind: ClassVar[str] = "augmentation"
    labels: ClassVar[int]

    name: str


class EDMAugmentationSpec(AugmentationSpec):
    """EDM's: mirrored by a coin; each of upside down, scaled, rotated, stretched, shifted with a probability.

    ``scale`` and ``stretch`` are standard deviations in octaves, ``shift`` one in sizes of the image.
    """

    name: Literal["edm"] = "edm"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.augmentation:EDMAugmentation"
    labels: ClassVar[int] = 9

    probability: Fraction = 0.12
    scale: NonNegativeFloat = 0.2
    stretch: NonNegativeFloat = 0.2
    shift: NonNegativeFloat = 0.125


def _chosen(value: Any) -> Any:
    """None for ``none``, else the named choice."""
    return None if nothing(value) is None else AugmentationSpec.choose(value)


AnyAugmentation = Annotated[SerializeAsAny[AugmentationSpec] | None, BeforeValidator(_chosen)]
