"""What a denoiser is told of the image beside x_t and t: E[x_0 | x_t, condition]."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffbench.diffusion.core.known import Known


@dataclass(frozen=True, eq=False)
class Condition:
    """What is known of a batch of B images; None for what is not.

    label: the class of each image (B,); a denoiser's own number of classes is its null class.
    known: pixels of the images, for a denoiser that takes masks.
    augmentation: how the images were changed, numbers (B, n), for a network that is told so.
    """

    label: Tensor | None = None
    known: Known | None = None
    augmentation: Tensor | None = None


#: Nothing is known.
UNCONDITIONAL = Condition()
