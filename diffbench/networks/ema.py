"""Exponential moving average of a network's parameters.

    shadow_n = d_n shadow_{n-1} + (1 - d_n) parameter_n,    n = 1, 2, ...

    warm       d_n = min(rate, (1 + n)/(10 + n))             d_1 = 2/11, d_10 = 11/20
    constant   d_n = rate
    half-life  d_n = 2^(-B/h_n),  h_n = min(h, r (n - 1) B)  in images, of batches of B; d_1 = 0
    power      d_n = (1 - 1/n)^(gamma + 1)                   d_1 = 0

A warm-up forgets the initial weights quickly. Buffers are not averaged.

Sources: ``models/ema.py`` of "Score-Based Generative Modeling through SDEs" (Song et al. 2021,
https://arxiv.org/abs/2011.13456, https://github.com/yang-song/score_sde_pytorch); "Denoising Diffusion Probabilistic
Models" (Ho et al. 2020, https://arxiv.org/abs/2006.11239, appendix B); "Elucidating the Design Space of
Diffusion-Based Generative Models" (Karras et al. 2022, https://arxiv.org/abs/2206.00364, appendix F.2); "Analyzing and
Improving the Training Dynamics of Diffusion Models" (Karras et al. 2024, https://arxiv.org/abs/2312.02696, equation 2).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffbench.specs.averages import (
    ConstantAverageSpec,
    HalfLifeAverageSpec,
    PowerAverageSpec,
    WarmAverageSpec,
)
from diffbench.specs.profiles import exponent


class Average(Protocol):
    """The rule of an average: its decay at every update."""

    def decay(self, n: int) -> float:
        """The decay d_n of the n-th update, n = 1, 2, ..., in [0, 1)."""


class Warm:
    """The rule ``warm``: the decay rises to the rate; ``batch`` is not used."""

    def __init__(self, spec: WarmAverageSpec, batch: int = 1) -> None:
        self.rate = spec.rate

    def decay(self, n: int) -> float:
        """The decay min(rate, (1 + n)/(10 + n))."""
        return min(self.rate, (1 + n) / (10 + n))


class Constant:
    """The rule ``constant``: the decay is always the rate; ``batch`` is not used."""

    def __init__(self, spec: ConstantAverageSpec, batch: int = 1) -> None:
        self.rate = spec.rate

    def decay(self, n: int) -> float:
        """The decay, which is the rate."""
        return self.rate


class HalfLife:
    """The rule ``half-life``: the decay of a half-life in images, with ``batch`` images an update."""

    def __init__(self, spec: HalfLifeAverageSpec, batch: int) -> None:
        self.spec, self.batch = spec, batch

    def decay(self, n: int) -> float:
        """The decay 2^(-B/h_n), 0 where h_n is 0."""
        half = self.spec.images
        if self.spec.ramp_up is not None:
            half = min(half, self.spec.ramp_up * (n - 1) * self.batch)
        return 0.5 ** (self.batch / half) if half else 0.0


class Power:
    """The rule ``power``: the length, the first of ``stds``, is relative to the steps so far; ``batch`` is not used."""

    def __init__(self, spec: PowerAverageSpec, batch: int = 1) -> None:
        self.gamma = exponent(spec.stds[0])

    def decay(self, n: int) -> float:
        """The decay (1 - 1/n)^(gamma + 1), 0 at the first update."""
        found: float = (1 - 1 / n) ** (self.gamma + 1)
        return found


class EMA:
    """The average of the parameters of ``module`` by a rule, starting at their present values."""

    def __init__(self, module: nn.Module, rule: Average) -> None:
        self.rule = rule
        self.updates = 0
        self.shadow: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters()
        }
        # Made once: walking a module for its parameters costs more than the average itself.
        self._averages = list(self.shadow.values())
        self._parameters: list[Tensor] = list(module.parameters())

    @property
    def decay(self) -> float:
        """The decay d_n of the latest update."""
        return self.rule.decay(self.updates)

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the module's present parameters."""
        self.updates += 1
        torch._foreach_lerp_(self._averages, self._parameters, 1 - self.decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the parameters of ``module``, which has the same names and shapes, by the average."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.shadow[name])

    def state_dict(self) -> dict[str, Any]:
        """The state {"updates": n, "shadow": {parameter name: average}}, with the live tensors, not copies."""
        return {"updates": self.updates, "shadow": self.shadow}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Continue from a ``state_dict``.

        Raises:
            ValueError: when its parameter names differ.
        """
        if state["shadow"].keys() != self.shadow.keys():
            differing = sorted(state["shadow"].keys() ^ self.shadow.keys())
            raise ValueError(f"the average is of another network: {', '.join(differing)}")
        self.updates = state["updates"]
        for name, average in self.shadow.items():
            average.copy_(state["shadow"][name])


def joined(
    parts: Iterable[tuple[float, Mapping[str, Tensor]]], averaged: Collection[str]
) -> dict[str, Tensor]:
    """The sum of averages weighted by their shares (``specs.profiles``), computed in float64.

    Args:
        parts: the share and the tensors of each average.
        averaged: the names of the averaged tensors; the others are constants, taken from the last average.
    """
    sums: dict[str, Tensor] = {}
    tensors: Mapping[str, Tensor] = {}
    for share, tensors in parts:
        for name in averaged:
            sums[name] = sums.get(name, 0) + share * tensors[name].double()
    return {
        name: sums[name].to(each.dtype) if name in sums else each for name, each in tensors.items()
    }
