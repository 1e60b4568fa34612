"""Specs of augmentations: how training images are changed, and how many numbers tell a network of it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, SerializeAsAny

from diffbench.specs.base import Fraction, NonNegativeFloat, Only, Registered, nothing


class AugmentationSpec(Registered):
    """A change of training images that the network is told of, so that its samples are not changed.

    ``labels`` is how many numbers tell of the change; all are 0 for an unchanged image and in sampling.
    """

    kind: ClassVar[str] = "augmentation"
    labels: ClassVar[int]

    name: str


class EDMAugmentationSpec(AugmentationSpec):
    """EDM's augmentation: images are mirrored with probability 1/2, and changed further with a ``probability``.

    This is the probability of each further change: upside down, scaled, rotated, stretched, shifted.
    ``scale`` and ``stretch`` are standard deviations in octaves, ``shift`` one in sizes of the image.
    """

    name: Literal["edm"] = "edm"
    implementation: ClassVar[str] = "diffbench.diffusion.objectives.augmentation:EDMAugmentation"
    labels: ClassVar[int] = 9
    belonging: ClassVar[tuple[Only, ...]] = tuple(
        Only(each, "probability") for each in ("scale", "stretch", "shift")
    )

    probability: Fraction = 0.12
    scale: NonNegativeFloat = 0.2
    stretch: NonNegativeFloat = 0.2
    shift: NonNegativeFloat = 0.125


def _chosen(value: Any) -> Any:
    """Return None for ``none``, else the augmentation that is chosen."""
    return None if nothing(value) is None else AugmentationSpec.choose(value)


AnyAugmentation = Annotated[SerializeAsAny[AugmentationSpec] | None, BeforeValidator(_chosen)]
