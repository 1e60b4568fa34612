r"""Operators: H of y = H x + noise, by its singular value decomposition.

    H = U diag(s) V^T,     u = V^T x  the D coordinates of an image,     H^+ = V diag(1/s, or 0) U^T

V is orthogonal (D x D), so that the coordinates are a basis in which white noise is white; s has one number for each of
them, 0 where nothing is measured.  A subclass states V, s and U; what H does follows.  No subclass makes the D x D
matrices where V factorises.  Everything acts on batches: images (B, C, H, W), coordinates (B, D), measurements
(B, *measurement_shape).

H is a matrix and knows no data range: images on [-1, 1] and on [0, 1] give different y of one picture.  Restorers take
images less the middle m of the range, of which H makes y - H m.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from diffbench.diffusion.core.described import Described
from diffbench.specs.operators import ImageShape, OperatorSpec

#: Singular values below this share of the largest are rounding, and count as 0.
ROUNDING = 1e-10


def check_shape(spec: OperatorSpec, image_shape: ImageShape) -> None:
    """Refuse images that the operator cannot degrade.

    Raises:
        ValueError: naming the key and its value.
    """
    if reason := spec.refusal(image_shape):
        raise ValueError(reason)


class Cast:
    """Tensors made once, kept in each precision and on each device in which they were asked for."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def like(self, x: Tensor) -> tuple[Tensor, ...]:
        """Floats in x's precision, indices and booleans as they are, all on x's device."""
        key = x.dtype, x.device
        if key not in self._cast:
            self._cast[key] = tuple(
                each.to(x) if each.is_floating_point() else each.to(x.device)
                for each in self.tensors
            )
        return self._cast[key]


class Degradation(Described):
    """What restorers ask of any operator, linear or not.

    Attributes:
        spec: its parameters.
        image_shape: (C, H, W).
        measurement_shape: of y, without the batch.
    """

    spec: OperatorSpec
    measurement_shape: tuple[int, ...]

    def __init__(self, spec: OperatorSpec, image_shape: ImageShape) -> None:
        check_shape(spec, image_shape)
        self.spec, self.image_shape = spec, image_shape

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """H x: (B, C, H, W) -> (B, *measurement_shape)."""

    @abstractmethod
    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """H^+ y, an image with H H^+ y = y where y is some image's: (B, *measurement_shape) -> (B, C, H, W)."""

    def check(self, y: Tensor) -> None:
        """Refuse a measurement of the wrong size.

        Raises:
            ValueError: with both sizes.
        """
        if tuple(y.shape[1:]) != self.measurement_shape:
            raise ValueError(
                f"a measurement of {tuple(y.shape[1:])} for {self.spec.name}, which makes "
                f"{self.measurement_shape} of images of {self.image_shape}"
            )


class Operator(Degradation):
    """A linear operator.

    Attributes:
        s: float64 (D,): the singular value of each coordinate, 0 where there is none.
    """

    s: Tensor

    @cached_property
    def _gains(self) -> Cast:
        return Cast(self.s, torch.where(self.s > 0, 1 / self.s, 0.0))

    @abstractmethod
    def coordinates(self, x: Tensor) -> Tensor:
        """V^T x: (B, C, H, W) -> (B, D)."""

    @abstractmethod
    def pixels(self, u: Tensor) -> Tensor:
        """V u: (B, D) -> (B, C, H, W)."""

    @abstractmethod
    def spectral(self, y: Tensor) -> Tensor:
        """U^T y, each entry at its coordinate and 0 where s is 0: (B, *measurement_shape) -> (B, D)."""

    @abstractmethod
    def measurement(self, u: Tensor) -> Tensor:
        """U u, entries where s is 0 left out: (B, D) -> (B, *measurement_shape)."""

    @property
    def singular_values(self) -> Tensor:
        """All min(M, D) of them, decreasing, float64."""
        count = min(math.prod(self.measurement_shape), len(self.s))
        return self.s.sort(descending=True).values[:count]

    def gains(self, like: Tensor) -> Tensor:
        """S in like's precision, on its device."""
        return self._gains.like(like)[0]

    def inverse_gains(self, like: Tensor) -> Tensor:
        """1/s, 0 where s is 0, in like's precision, on its device."""
        return self._gains.like(like)[1]

    def apply(self, x: Tensor) -> Tensor:
        """H x = U s V^T x."""
        u = self.coordinates(x)
        return self.measurement(self.gains(u) * u)

    def adjoint(self, y: Tensor) -> Tensor:
        """H^T y = V s U^T y: (B, *measurement_shape) -> (B, C, H, W)."""
        u = self.spectral(y)
        return self.pixels(self.gains(u) * u)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """H^+ y."""
        u = self.spectral(y)
        return self.pixels(self.inverse_gains(u) * u)

    def centred(self, y: Tensor, middle: float) -> Tensor:
        """Y - H m, m an image of one value: (B, *measurement_shape) -> the same."""
        if middle == 0:
            return y
        return y - self.apply(torch.full((1, *self.image_shape), middle).to(y))

    def zero_filled(self, y: Tensor) -> Tensor:
        """The inverse of the whole transform that H measures a part of, of y and zeros elsewhere; H^+ by default."""
        return self.pseudo_inverse(y)
