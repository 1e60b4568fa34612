r"""Muon: steps of orthogonal matrices for the weights of convolutions, AdamW's for all others.

A weight (out, in, height, width) is a matrix W of an output channel a row.  With its gradient G and the rate lr,

    M <- mu M + (1 - mu) G
    W <- W - 0.2 lr sqrt(max(rows, columns)) O(mu M + (1 - mu) G)

O(A) has A's singular vectors, and singular values near 1 in place of A's own: no direction is left behind because its
gradient is small.  O(A) = (A A^T)^(-1/2) A is approached by five steps of X <- a X + b (X X^T) X + c (X X^T)^2 X from
A/|A|.  Their constants take singular values from .01 on to between .68 and 1.14.  The entries of W then change by a
root mean square near 0.2 lr, as with AdamW.

Sources: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon; the factor 0.2 sqrt(max): Liu et al., "Muon is scalable for LLM training",
2025, https://arxiv.org/abs/2502.16982, equation 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from diffbench.specs.training import MuonSpec

#: a, b and c, and how often the step is taken.
CONSTANTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
#: The root mean square of a change of a weight, relative to the rate.
CHANGE = 0.2


def orthogonalised(matrices: Tensor) -> Tensor:
    """O(A) of matrices A (N, rows, columns)."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT).mT
    a, b, c = CONSTANTS
    x: Tensor = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x


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
        # Matrices of one shape are taken together: each alone is too small for its operations' overhead.
        shapes: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for weight, each in zip(weights, ahead, strict=True):
            shapes.setdefault((len(weight), weight[0].numel()), []).append(
                (weight, each.flatten(1))
            )
        for shape, pairs in shapes.items():
            steps = orthogonalised(torch.stack([each for _, each in pairs]))
            scale = -lr * CHANGE * max(shape) ** 0.5
            for (weight, _), step in zip(pairs, steps, strict=True):
                weight.add_(step.view_as(weight), alpha=scale)

    def _average(self, weight: Tensor) -> Tensor:
        """M, in the weight's shape and memory format, under AdamW's name for its average of gradients."""
        state: dict[str, Tensor] = self.state[weight]
        if not state:
            state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(weight)}
        state["step"] += 1
        return state["exp_avg"]
