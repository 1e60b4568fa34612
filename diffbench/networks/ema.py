"""Exponential moving average of a network's parameters.

    shadow_n = d_n shadow_{n-1} + (1 - d_n) parameter_n,    n = 1, 2, ...
    d_n      = min(rate, (1 + n)/(10 + n))

The warm-up forgets the initial weights quickly: d_1 = 2/11, d_10 = 11/20. Buffers are not averaged.

Source: `models/ema.py` of "Score-Based Generative Modeling through SDEs" (Song et al. 2021,
https://arxiv.org/abs/2011.13456, https://github.com/yang-song/score_sde_pytorch).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """The average of the parameters of `module`, begun at their present values.

    rate: the decay reached after warm-up, in [0, 1).

    Raises ValueError on another rate.
    """

    def __init__(self, module: nn.Module, rate: float) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"the rate of an average lies in [0, 1), not {rate}")
        self.rate = rate
        self.updates = 0
        self.shadow: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters()
        }
        # Made once: walking a module for its parameters costs more than the average itself.
        self._averages = list(self.shadow.values())
        self._parameters: list[Tensor] = list(module.parameters())

    @property
    def decay(self) -> float:
        """d_n of the latest update."""
        return min(self.rate, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present parameters of the module."""
        self.updates += 1
        torch._foreach_lerp_(self._averages, self._parameters, 1 - self.decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the parameters of `module`, of the same names and shapes, by the average."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.shadow[name])

    def state_dict(self) -> dict[str, Any]:
        """{"updates": n, "shadow": {parameter name: average}}; the live tensors, not copies."""
        return {"updates": self.updates, "shadow": self.shadow}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ValueError where its parameter names are others."""
        if state["shadow"].keys() != self.shadow.keys():
            differing = sorted(state["shadow"].keys() ^ self.shadow.keys())
            raise ValueError(f"the average is of another network: {', '.join(differing)}")
        self.updates = state["updates"]
        for name, average in self.shadow.items():
            average.copy_(state["shadow"][name])
