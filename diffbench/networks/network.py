"""What all networks of images share: how they are made and called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """Base: the network F(x; c_noise, y) of a spec, for images of one shape.

    Args:
        spec: the sizes of its layers.
        image_shape: (C, H, W).
        in_channels: the channels of x: C, or more where the network is given more than the image.
        out_channels: the channels of the output: 2 C where a variance is learnt beside the mean.
        classes: the number of labels, 0 for an unconditional network; index ``classes`` is the null class.
    """

    #: The devices on which the network is faster with an image's channels together in memory, whatever the budget says.
    channels_last: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def forward(
        self, x: Tensor, c_noise: Tensor, y: Tensor | None = None, raw: Tensor | None = None
    ) -> Tensor:
        """The raw network output (B, out_channels, H, W).

        Args:
            x: (B, in_channels, H, W): the image scaled by c_in, then what else the network is given.
            c_noise: (B,), a function of the noise level; see the denoiser's ``noise_input``.
            y: (B,) integer labels, ``classes`` for the null class; None is the null class for all.
            raw: (B, C, H, W), the unscaled x_t in data units (data in [-1, 1]), for networks with Fourier features.

        Raises:
            ValueError: when there are labels for an unconditional network, or Fourier features and no ``raw``.
        """
