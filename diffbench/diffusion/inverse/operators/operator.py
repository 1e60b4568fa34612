r"""Operators: H of y = H x + noise, by its singular value decomposition.

    H = U diag(s) V^T,     u = V^T x  the D coordinates of an image,     H^+ = V diag(1/s, or 0) U^T

V is orthogonal (D x D), so white noise stays white in the coordinates.  s has one number for each coordinate, 0 where
nothing is measured.  A subclass states V, s and U; this module makes H of them.  Where V factorises, no D x D matrix is
made.  Everything acts on batches: images (B, C, H, W), coordinates (B, D), measurements (B, *measurement_shape).

H is a matrix and does not know the data range: the same picture on [-1, 1] and on [0, 1] gives different y.  Restorers
use images minus the middle m of the range, whose measurement is y - H m.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from diffbench.diffusion.core.described import Described
from diffbench.specs.operators import ImageShape, OperatorSpec

#: Singular values below this share of the largest are rounding errors, and count as 0.
ROUNDING = 1e-10


def check_shape(spec: OperatorSpec, image_shape: ImageShape) -> None:
    """Refuse images that the operator cannot degrade.

    Raises:
        ValueError: when it cannot, with the key and its value.
    """
    if reason := spec.refusal(image_shape):
        raise ValueError(reason)


class Cast:
    """Tensors of which a copy is kept for each precision and device in which they were needed."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def like(self, x: Tensor) -> tuple[Tensor, ...]:
        """The tensors on x's device: floats in x's precision, indices and booleans unchanged."""
        key = x.dtype, x.device
        if key not in self._cast:
            self._cast[key] = tuple(
                each.to(x) if each.is_floating_point() else each.to(x.device)
                for each in self.tensors
            )
        return self._cast[key]


class Degradation(Described):
    """Base: what restorers need of any operator, linear or not.

    Attributes:
        spec: the operator's parameters.
        image_shape: (C, H, W).
        measurement_shape: the shape of y, without the batch.
    """

    spec: OperatorSpec
    measurement_shape: tuple[int, ...]

    def __init__(self, spec: OperatorSpec, image_shape: ImageShape) -> None:
        check_shape(spec, image_shape)
        self.spec, self.image_shape = spec, image_shape

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """The measurement H x: (B, C, H, W) -> (B, *measurement_shape)."""

    @abstractmethod
    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """The image H^+ y, with H H^+ y = y if y = H x for some x: (B, *measurement_shape) -> (B, C, H, W)."""

    def check(self, y: Tensor) -> None:
        """Refuse a measurement of the wrong size.

        Raises:
            ValueError: when the sizes differ, with both.
        """
        if tuple(y.shape[1:]) != self.measurement_shape:
            raise ValueError(
                f"a measurement has the shape {tuple(y.shape[1:])}, but {self.spec.name} makes "
                f"{self.measurement_shape} from images of {self.image_shape}"
            )


class Operator(Degradation):
    """Base: a linear operator.

    Attributes:
        s: float64 (D,): the singular value of each coordinate, 0 where there is none.
    """

    s: Tensor

    @cached_property
    def _gains(self) -> Cast:
        return Cast(self.s, torch.where(self.s > 0, 1 / self.s, 0.0))

    @abstractmethod
    def coordinates(self, x: Tensor) -> Tensor:
        """The coordinates V^T x: (B, C, H, W) -> (B, D)."""

    @abstractmethod
    def pixels(self, u: Tensor) -> Tensor:
        """The images V u: (B, D) -> (B, C, H, W)."""

    @abstractmethod
    def spectral(self, y: Tensor) -> Tensor:
        """The vectors U^T y, each entry at its coordinate, 0 where s is 0: (B, *measurement_shape) -> (B, D)."""

    @abstractmethod
    def measurement(self, u: Tensor) -> Tensor:
        """The measurement U u, without the entries where s is 0: (B, D) -> (B, *measurement_shape)."""

    def gains(self, like: Tensor) -> Tensor:
        """The singular values s, in the precision and on the device of ``like``."""
        return self._gains.like(like)[0]

    def inverse_gains(self, like: Tensor) -> Tensor:
        """The inverses 1/s, 0 where s is 0, in the precision and on the device of ``like``."""
        return self._gains.like(like)[1]

    def apply(self, x: Tensor) -> Tensor:
        """The measurement H x = U s V^T x."""
        u = self.coordinates(x)
        return self.measurement(self.gains(u) * u)

    def adjoint(self, y: Tensor) -> Tensor:
        """The images H^T y = V s U^T y: (B, *measurement_shape) -> (B, C, H, W)."""
        u = self.spectral(y)
        return self.pixels(self.gains(u) * u)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """The images H^+ y = V (1/s, or 0) U^T y."""
        u = self.spectral(y)
        return self.pixels(self.inverse_gains(u) * u)

    def centred(self, y: Tensor, middle: float) -> Tensor:
        """The measurement y - H m (B, *measurement_shape), where every pixel of the image m is ``middle``."""
        if middle == 0:
            return y
        return y - self.apply(torch.full((1, *self.image_shape), middle).to(y))

    def zero_filled(self, y: Tensor) -> Tensor:
        """The images by the inverse of the whole transform, from y and zeros elsewhere; H^+ y by default."""
        return self.pseudo_inverse(y)
