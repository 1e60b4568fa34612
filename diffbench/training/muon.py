r"""Muon: steps of orthogonal matrices for the weights of convolutions, AdamW's for all others.

A weight (out, in, height, width) is a matrix W of an output channel a row.  With its gradient G and the rate lr,

    M <- mu M + (1 - mu) G
    W <- W - 0.2 lr sqrt(max(rows, columns)) O(mu M + (1 - mu) G)

O(A) has A's singular vectors, and singular values near 1 in place of A's own: no direction is left behind because its
gradient is small.  O(A) = (A A^T)^(-1/2) A is approached by five steps X <- P X from A/|A|, with P = a I + b S + c S^2
and S = X X^T.  Their constants take singular values from .01 on to between .68 and 1.14.  The entries of W then change
by a root mean square near 0.2 lr, as with AdamW.  A has more columns than rows, or is transposed; so the steps are
taken on the small matrices S <- P S P and Q <- P Q alone, from A A^T/|A|^2 and I/|A|, and O(A) = Q A.

Sources: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon; the factor 0.2 sqrt(max): Liu et al., "Muon is scalable for LLM training",
2025, https://arxiv.org/abs/2502.16982, equation 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffbench.specs.training import MuonSpec

#: a, b and c, and how often the step is taken.
CONSTANTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
#: The root mean square of a change of a weight, relative to the rate.
CHANGE = 0.2


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """O(A) of each matrix A (rows, columns)."""
    wide = [each if len(each) <= each.shape[1] else each.mT for each in matrices]
    squares = [torch.mm(each, each.mT) for each in wide]
    # Small matrices of one size are taken together: each alone costs more to start than to multiply.
    sizes: dict[int, list[int]] = {}
    for place, each in enumerate(squares):
        sizes.setdefault(len(each), []).append(place)
    for places in sizes.values():
        factors = left_factors(torch.stack([squares[place] for place in places]))
        for place, factor in zip(places, factors.unbind(), strict=True):
            squares[place] = factor
    steps = [torch.mm(factor, each) for factor, each in zip(squares, wide, strict=True)]
    return [
        step if step.shape == each.shape else step.mT
        for step, each in zip(steps, matrices, strict=True)
    ]


def left_factors(squares: Tensor) -> Tensor:
    """Q with O(A) = Q A, from the matrices A A^T (N, rows, rows)."""
    a, b, c = CONSTANTS
    size = squares.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp_min(1e-30)
    s = squares / size
    q = size.rsqrt()
    for step in range(ITERATIONS):
        p = torch.baddbmm(s, s, s, beta=b, alpha=c)
        p.diagonal(dim1=1, dim2=2).add_(a)
        q = torch.bmm(p, q) if step else p * q
        s = torch.bmm(torch.bmm(p, s), p)
    return q


class Muon(torch.optim.AdamW):
    """AdamW for all weights but those of convolutions, which take Muon's steps."""

    def __init__(
        self, spec: MuonSpec, parameters: Iterable[nn.Parameter], *, lr: float, **adamw: Any
    ) -> None:
        super().__init__(parameters, lr=lr, **adamw)
        self.relative, self.momentum = spec.lr / lr, spec.momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step with the gradients; ``closure`` is AdamW's."""
        group = self.param_groups[0]
        given = {each: each.grad for each in group["params"] if each.ndim == 4}
        for each in given:
            each.grad = None  # so AdamW passes over it
        found = super().step(closure)
        for each, gradient in given.items():
            each.grad = gradient
        gradients = {each: gradient for each, gradient in given.items() if gradient is not None}
        self._move(gradients, self.relative * group["lr"], group["weight_decay"])
        return found

    def _move(self, given: dict[Tensor, Tensor], lr: float, decay: float) -> None:
        weights, gradients = list(given), list(given.values())
        averages = [self._average(each) for each in weights]
        torch._foreach_lerp_(averages, gradients, 1 - self.momentum)
        ahead = torch._foreach_lerp(gradients, averages, self.momentum)
        if decay:
            torch._foreach_mul_(weights, 1 - lr * decay)
        steps = orthogonalised([each.flatten(1) for each in ahead])
        for weight, step in zip(weights, steps, strict=True):
            scale = -lr * CHANGE * max(step.shape) ** 0.5
            weight.add_(step.view_as(weight), alpha=scale)

    def _average(self, weight: Tensor) -> Tensor:
        """M, in the weight's shape and memory format, under AdamW's name for its average of gradients."""
        state: dict[str, Tensor] = self.state[weight]
        if not state:
            state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(weight)}
        state["step"] += 1
        return state["exp_avg"]
