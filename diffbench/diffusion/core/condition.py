"""Conditions: what a denoiser is told in addition to x_t and t, for E[x_0 | x_t, condition]."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffbench.diffusion.core.known import Known


@dataclass(frozen=True, eq=False)
class Condition:
    """What is known of a batch of B images; a field is None where it is not known.

    label: the class of each image (B,); the null class is the denoiser's number of classes.
    known: the known pixels of the images, for a denoiser that takes masks.
    augmentation: numbers (B, n) that say how the images were changed, for a network that takes them.
    """

    label: Tensor | None = None
    known: Known | None = None
    augmentation: Tensor | None = None


#: The condition in which nothing is known.
UNCONDITIONAL = Condition()
