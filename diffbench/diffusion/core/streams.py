"""Random streams: every draw is a pure function of (purpose, seed, index).

The key of a stream is the SHA-256 of its purpose and numbers, so the noise of training step 812 or of
the third chunk of samples is the same whatever ran before it, on however many jobs, after however many
resumes.  Numbers are drawn on the CPU and then moved, so that a seed gives the same numbers on every device.  A GPU
does not wait for them: while it works at one step, the CPU draws and sends the noise of later ones.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def key(purpose: str, *numbers: int) -> int:
    """The 63-bit key of a stream."""
    text = "/".join([purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(purpose: str, *numbers: int) -> torch.Generator:
    """A CPU generator at the start of the stream (purpose, numbers)."""
    return torch.Generator().manual_seed(key(purpose, *numbers))


def normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of x's shape, dtype and device, drawn on the CPU."""
    # A copy from memory that is not pinned waits for all that the GPU still has to do.
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype, pin_memory=x.is_cuda)
    return z.to(x.device, non_blocking=x.is_cuda)
