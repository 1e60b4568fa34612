"""Checks of what a class returns, where it comes in: a class of an extension may return anything.

A tensor of another shape often broadcasts without a word: a step that returns half of the images would be scored as if
it had made them all.  Shape, type and device are known without waiting for a GPU.
"""

from __future__ import annotations

from torch import Tensor


def described(found: object) -> str:
    """What an object is, for messages: ``float32 (4, 1, 8, 8) on cpu``."""
    if not isinstance(found, Tensor):
        return f"a {type(found).__name__}" if found is not None else "None"
    return f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)} on {found.device}"


def check_like(found: object, wanted: Tensor, what: str) -> None:
    """Refuse what is not a tensor of the shape, the type and the device of ``wanted``.

    Raises:
        ValueError: when it is not; the message begins with ``what`` and has both.
    """
    if not (
        isinstance(found, Tensor)
        and found.shape == wanted.shape
        and found.dtype == wanted.dtype
        and found.device == wanted.device
    ):
        raise ValueError(f"{what} returned {described(found)}; expected: {described(wanted)}")


def check_rows(found: object, shape: tuple[int, ...], what: str) -> None:
    """Refuse what is not a tensor of real floating-point numbers of this shape; -1 stands for any size.

    Raises:
        ValueError: when it is not; the message begins with ``what``.
    """
    if not (
        isinstance(found, Tensor)
        and found.is_floating_point()
        and found.ndim == len(shape)
        and all(n in (-1, size) for size, n in zip(found.shape, shape, strict=True))
    ):
        sizes = ", ".join("any" if n == -1 else str(n) for n in shape)
        raise ValueError(f"{what} returned {described(found)}; expected: floats ({sizes})")
